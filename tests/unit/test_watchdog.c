/* What a watchdog goes by: limits as they are written, the limit that follows from a run's steps,
 * and a mark that one thread sets while another reads. */
#include <pthread.h>
#include <string.h>

#include "../../src/run/watchdog.h"
#include "pipetrain/clock.h"
#include "pipetrain/mark.h"
#include "pipetrain/settings.h"
#include "suite.h"

static const int64_t S = 1000000000, MS = 1000000;

static void limits_are_read(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        double seconds;
    } good[] = {{"off", -1}, {"auto", 0}, {"0.1", 0.1}, {"30", 30}, {"1e9", 1e9}};
    static const char *const bad[] = {"",   "0",   "-1",  "0.09", "30s",
                                      "on", "nan", "inf", "1e10", "5 "};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        double seconds = 7;
        pt_error err = {PT_OK, ""};
        assert_int_equal(pt_config_stall("--stall", good[i].text, &seconds, &err), PT_OK);
        assert_true(seconds == good[i].seconds);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        double seconds = 7;
        pt_error err = {PT_OK, ""};
        assert_int_equal(pt_config_stall("--stall", bad[i], &seconds, &err), PT_EINPUT);
        assert_non_null(strstr(err.text, "--stall \""));
        assert_true(seconds == 7);
    }
}

static void auto_follows_the_steps(void **state)
{
    (void)state;
    static const struct {
        double limit_s;
        int64_t median_ns, expected;
    } cases[] = {
        {0, 1, 5 * S},        /* auto: short steps */
        {0, 500 * MS, 5 * S}, /* … the last of them */
        {0, 2 * S, 20 * S},   /* … long ones */
        {0, 0, 50 * S},       /* … none has ended */
        {2, 10 * S, 2 * S},   /* stated: as stated */
        {2, 0, 20 * S},       /* … ten times that at the start */
        {30, 0, 60 * S},      /* … a minute at most */
        {90, 0, 90 * S},      /* … or what was stated */
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        assert_int_equal(pt_config_stall_ns(cases[i].limit_s, cases[i].median_ns),
                         cases[i].expected);
}

static void the_median_is_of_the_last_steps(void **state)
{
    (void)state;
    static pt_mark mark;
    assert_int_equal(pt_mark_median_ns(&mark), 0);
    for (int i = 0; i < 3 * PT_MARK_STEPS; i++) {
        pt_mark_steps_begin(&mark);
        mark.since_ns -= i < 2 * PT_MARK_STEPS ? 100 * S : (1 + i % 3) * S; /* as if then */
        pt_mark_step(&mark);
    }
    assert_in_range(pt_mark_median_ns(&mark), 2 * S, 2 * S + S / 2);
}

static void a_place_takes_the_action_s_place(void **state)
{
    (void)state;
    static const pt_action action = {.kind = PT_RECV_ACT, .micro_batch = 7, .step = 3, .peer = 1};
    static pt_mark mark;
    pt_mark_action(NULL, &action, 0, true); /* nobody looks */
    pt_mark_action(&mark, &action, /*epoch=*/2, /*training=*/true);
    pt_marked found = pt_mark_read(&mark);
    assert_ptr_equal(found.action, &action);
    assert_null(found.what);
    assert_int_equal(found.step, 3);
    assert_int_equal(found.epoch, 2);
    assert_true(found.training);
    pt_mark_place(&mark, "at the end of an epoch", /*step=*/0, /*peer=*/4);
    pt_marked then = pt_mark_read(&mark);
    assert_int_equal(then.moves, found.moves + 1);
    assert_null(then.action);
    assert_string_equal(then.what, "at the end of an epoch");
    assert_int_equal(then.peer, 4);
}

/* ---- two threads ------------------------------------------------------------------------------
 */

enum { ACTIONS = 64, ROUNDS = 20000 };
static pt_action actions[ACTIONS];

static void *work(void *context)
{
    pt_mark *mark = context;
    for (int i = 0; i < ROUNDS; i++) {
        pt_mark_action(mark, &actions[i % ACTIONS], 0, true);
        if (i % 8 == 0)
            pt_mark_step(mark);
    }
    return NULL;
}

/* Reading never sees what is not there; what has come to rest is whole. */
static void one_thread_sets_and_another_reads(void **state)
{
    (void)state;
    static pt_mark mark;
    pthread_t thread;
    int64_t before = 0;
    for (int i = 0; i < ACTIONS; i++)
        actions[i] = (pt_action){.kind = PT_FORWARD, .micro_batch = i, .step = i};
    pt_mark_steps_begin(&mark);
    assert_int_equal(pthread_create(&thread, NULL, work, &mark), 0);
    while (before < ROUNDS) {
        pt_marked found = pt_mark_read(&mark);
        assert_true(found.moves >= before);
        assert_true(!found.action || (found.action >= actions && found.action < actions + ACTIONS));
        assert_true(pt_mark_median_ns(&mark) >= 0);
        before = found.moves;
    }
    pthread_join(thread, NULL);
    pt_marked last = pt_mark_read(&mark);
    assert_int_equal(last.moves, ROUNDS);
    assert_ptr_equal(last.action, &actions[(ROUNDS - 1) % ACTIONS]);
    assert_int_equal(last.step, last.action->step);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(limits_are_read),
        cmocka_unit_test(auto_follows_the_steps),
        cmocka_unit_test(the_median_is_of_the_last_steps),
        cmocka_unit_test(a_place_takes_the_action_s_place),
        cmocka_unit_test(one_thread_sets_and_another_reads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
