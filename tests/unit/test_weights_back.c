/* PipeMare's discrepancy correction: which weights backwards read. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "suite.h"
#include "weights_rig.h"

static void begin_corrected(weights_rig *f, double delay, double decay)
{
    weights_begin(f, "none", /*stash=*/false, /*training=*/true);
    f->spec.correction.delay = delay;
    f->spec.correction.decay = decay;
    weights_again(f);
}

/* D = 1/16 and a delay of 2: a move loses three quarters of its part in the mean at each update.
 * The moves are -1/4, -3/8, -7/16 …: numbers that floats hold exactly. */
static void test_backwards_read_weights_taken_back(void **state)
{
    (void)state;
    weights_rig f;
    begin_corrected(&f, /*delay=*/2, /*decay=*/0.0625);
    pt_weight_set early = weights_forward(&f, 2);
    assert_same_set(pt_weights_for_backward(f.w, &early), pt_weights_now(f.w));
    double theta = 0, move = 0, mean = 0;
    uint64_t last = 0;
    for (int i = 0; i < 4; i++) {
        weights_update(&f);
        move = 0.5 * move - 0.25;
        theta += move;
        mean = 0.25 * mean + 0.75 * move;
        pt_weight_set set = pt_weights_for_backward(f.w, &early), now = pt_weights_now(f.w);
        assert_true(fabs(weights_value_of(&f, set.dev_params) - (theta - 2 * mean)) < 1e-6);
        assert_true(weights_value_of(&f, now.dev_params) == theta);
        assert_same_set(weights_forward(&f, 2), now); /* forwards are not corrected */
        assert_true(set.content != now.content && set.content > last);
        assert_int_equal(set.version, i + 1);
        last = set.content;
    }
    weights_end(&f);
}

static void test_given_weights_are_not_taken_back(void **state)
{
    (void)state;
    pt_error err = {PT_OK, ""};
    float values[FEATURES * FEATURES] = {0};
    weights_rig f;
    begin_corrected(&f, /*delay=*/2, /*decay=*/0.5);
    pt_weight_set early = weights_forward(&f, 2);
    weights_update(&f);
    assert_ok(pt_weights_set_param(f.w, 0, values, &err), &err);
    assert_same_set(pt_weights_for_backward(f.w, &early), pt_weights_now(f.w));
    weights_end(&f);
}

static void test_where_nothing_is_corrected(void **state)
{
    (void)state;
    static const double rules[][2] = {{0, 0.5}, {2, 0}};
    for (int i = 0; i < 2; i++) {
        weights_rig f;
        weights_begin(&f, "none", /*stash=*/false, /*training=*/true);
        size_t plain = pt_weights_bytes(&f.spec);
        f.spec.correction.delay = rules[i][0];
        f.spec.correction.decay = rules[i][1];
        weights_again(&f);
        pt_weight_set early = weights_forward(&f, 2);
        weights_update(&f);
        assert_same_set(pt_weights_for_backward(f.w, &early), pt_weights_now(f.w));
        assert_int_equal(pt_weights_bytes(&f.spec), plain);
        assert_int_equal(weights_bytes_now(f.b) - f.before, plain);
        weights_end(&f);
    }
}

static void test_correction_bytes(void **state)
{
    (void)state;
    weights_rig f;
    weights_begin(&f, "none", /*stash=*/false, /*training=*/true);
    size_t plain = pt_weights_bytes(&f.spec);
    f.spec.correction.delay = 1.5;
    f.spec.correction.decay = 0.135;
    weights_again(&f);
    assert_int_equal(pt_weights_bytes(&f.spec), plain + 2 * f.flat.param_elements * sizeof(float));
    assert_int_equal(weights_bytes_now(f.b) - f.before, pt_weights_bytes(&f.spec));
    weights_end(&f);
}

static void test_restart_forgets_the_drift(void **state)
{
    (void)state;
    double back[2];
    weights_rig f;
    begin_corrected(&f, /*delay=*/2, /*decay=*/0.5);
    for (int run = 0; run < 2; run++) {
        pt_error err = {PT_OK, ""};
        float zeros[FEATURES * FEATURES] = {0};
        pt_weight_set early = weights_forward(&f, 2);
        weights_update(&f);
        float *got = weights_bytes_of(&f, pt_weights_for_backward(f.w, &early).dev_params);
        back[run] = (double)got[0];
        free(got);
        assert_ok(pt_weights_restart(f.w, &err), &err);
        assert_same_set(pt_weights_for_backward(f.w, &early), pt_weights_now(f.w));
        assert_ok(pt_weights_set_param(f.w, 0, zeros, &err), &err);
    }
    assert_true(back[0] == back[1]);
    weights_end(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_backwards_read_weights_taken_back),
        cmocka_unit_test(test_given_weights_are_not_taken_back),
        cmocka_unit_test(test_where_nothing_is_corrected),
        cmocka_unit_test(test_correction_bytes),
        cmocka_unit_test(test_restart_forgets_the_drift),
    };
    return cmocka_run_group_tests_name("weights-back", tests, NULL, NULL);
}
