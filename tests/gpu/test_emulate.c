/* Does the emulation of a GPU run what is right, and see what is wrong? */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "emulate/enqueue.h"
#include "emulate/known.h"
#include "suite.h"

static char said[200]; /* by the emulation, of the last launch */

/* Instead of a stream. */
cudaError_t pt_fake_enqueue(cudaStream_t stream, void (*run)(void *closure), void *closure)
{
    (void)stream;
    run(closure);
    free(closure);
    const char *failure = pt_emulate_failure();
    snprintf(said, sizeof said, "%s", failure ? failure : "");
    return failure ? cudaErrorLaunchFailure : cudaSuccess;
}

static void barriers_are_met(void **state)
{
    (void)state;
    static const unsigned threads[] = {1, 2, 33, 256, 1024};
    for (size_t k = 0; k < sizeof threads / sizeof *threads; k++) {
        const int n = (int)threads[k];
        int *out = calloc(3 * threads[k], sizeof *out);
        assert_non_null(out);
        assert_int_equal(pt_known_neighbour(NULL, 3, threads[k], out), cudaSuccess);
        for (int i = 0; i < 3 * n; i++)
            assert_int_equal(out[i], 3 * ((i % n + 1) % n) + 3);
        free(out);
    }
}

static void shuffles_exchange(void **state)
{
    (void)state;
    int out[64];
    assert_int_equal(pt_known_shuffle(NULL, out), cudaSuccess);
    for (int i = 0; i < 64; i++) {
        const int lane = i % 32, sum = 32 * (i - lane) + 31 * 16;
        const int down = lane % 8 + 3 < 8 ? lane + 3 : lane;
        assert_int_equal(out[i], 10000 * sum + 100 * down + 5);
    }
}

static void parting_is_seen(void **state)
{
    (void)state;
    int out[64] = {0};
    assert_int_equal(pt_known_parting(NULL, out), cudaErrorLaunchFailure);
    assert_non_null(strstr(said, "63 threads wait at a barrier while 1 have ended"));
    assert_int_equal(out[0], 0);
    assert_int_equal(pt_known_warp_parting(NULL, out), cudaErrorLaunchFailure);
    assert_non_null(strstr(said, "16 threads wait at a meeting of their warp while 16 have ended"));
    barriers_are_met(state); /* and goes on after that */
}

static void shared_memory_is_poisoned(void **state)
{
    (void)state;
    float out[4] = {0};
    assert_int_equal(pt_known_unset(NULL, out), cudaSuccess);
    for (int i = 0; i < 4; i++)
        assert_true(isnan(out[i]));
}

static void odd_addresses_are_seen(void **state)
{
    (void)state;
    _Alignas(16) float out[8] = {0};
    assert_int_equal(pt_known_odd_address(NULL, out), cudaErrorLaunchFailure);
    assert_non_null(strstr(said, "no multiple"));
}

static void blocks_have_a_limit(void **state)
{
    (void)state;
    assert_int_equal(pt_known_too_large(NULL, NULL), cudaErrorInvalidConfiguration);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(barriers_are_met),       cmocka_unit_test(shuffles_exchange),
        cmocka_unit_test(parting_is_seen),        cmocka_unit_test(shared_memory_is_poisoned),
        cmocka_unit_test(odd_addresses_are_seen), cmocka_unit_test(blocks_have_a_limit),
    };
    return cmocka_run_group_tests_name("emulate", tests, NULL, NULL);
}
