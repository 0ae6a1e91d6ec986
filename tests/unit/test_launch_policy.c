/* What the launcher makes of an end, and how long it is patient. */
#include "patience.h"
#include "policy.h"

#include <string.h>

#include "suite.h"

static const pt_policy policy = {.restarts = 4, .backoff_max_s = 3};
static const int64_t S = 1000000000;

static pt_verdict judge(int64_t failures, int64_t step_before, pt_ending ending)
{
    pt_record record = {.step = step_before, .failures = failures};
    return pt_policy_judge(&policy, &record, &ending);
}

static void test_final_codes(void **state)
{
    static const int codes[] = {0, 2, 75};
    (void)state;
    for (size_t i = 0; i < sizeof codes / sizeof *codes; i++) {
        pt_verdict v = judge(0, -1, (pt_ending){.code = codes[i], .step = 8});
        assert_false(v.restart);
        assert_false(v.gave_up);
        assert_int_equal(v.code, codes[i]);
    }
}

static void test_failures_are_restarted(void **state)
{
    static const int codes[] = {1, 3, 130, 134, 137, 139, 143, 255};
    (void)state;
    for (size_t i = 0; i < sizeof codes / sizeof *codes; i++)
        assert_true(judge(0, -1, (pt_ending){.code = codes[i], .step = -1}).restart);
    for (int cause = PT_CAUSE_STALLED; cause <= PT_CAUSE_TOO_FEW_HOSTS; cause++) {
        /* Whatever its code would have been. */
        pt_ending ending = {.cause = (pt_cause)cause, .code = 0, .step = -1};
        assert_true(judge(0, -1, ending).restart);
    }
}

/* At once, then 1, 2, 3 (instead of 4) seconds, then no more; a new step begins it all again. */
static void test_backoff_and_budget(void **state)
{
    static const double delays[] = {0, 1, 2, 3};
    pt_record record = {.step = 8, .failures = 0};
    const pt_ending killed = {.code = 137, .step = 8};
    (void)state;
    for (int i = 0; i < 4; i++) {
        pt_verdict v = pt_policy_judge(&policy, &record, &killed);
        assert_true(v.restart);
        assert_true(v.delay_s == delays[i]);
        record = v.record;
        assert_int_equal(record.failures, i + 1);
    }
    pt_verdict v = pt_policy_judge(&policy, &record, &killed);
    assert_false(v.restart);
    assert_true(v.gave_up);
    assert_int_equal(v.code, 1);

    v = pt_policy_judge(&policy, &record, &(pt_ending){.code = 137, .step = 12});
    assert_true(v.restart);
    assert_true(v.delay_s == 0);
    assert_int_equal(v.record.failures, 1);
    assert_int_equal(v.record.step, 12);
}

static void test_no_restarts(void **state)
{
    const pt_policy none = {.restarts = 0, .backoff_max_s = 60};
    const pt_record record = {.step = -1};
    (void)state;
    pt_verdict v = pt_policy_judge(&none, &record, &(pt_ending){.code = 137, .step = 4});
    assert_false(v.restart);
    assert_true(v.gave_up);
}

static void test_long_backoff(void **state)
{
    const pt_policy patient = {.restarts = 1000, .backoff_max_s = 60};
    const pt_record record = {.step = 4, .failures = 500};
    (void)state;
    pt_verdict v = pt_policy_judge(&patient, &record, &(pt_ending){.code = 1, .step = 4});
    assert_true(v.delay_s == 60);
}

/* Whoever was asked to stop is not started again. */
static void test_wishes(void **state)
{
    (void)state;
    pt_ending ending = {.code = 138, .step = 8, .has_begun = true, .wish = PT_WISH_STOP};
    assert_false(judge(0, 8, ending).restart);
    assert_int_equal(judge(0, 8, ending).code, 75);
    ending.step = -1;
    assert_int_equal(judge(0, -1, ending).code, 1);
    ending.code = 0;
    assert_int_equal(judge(0, -1, ending).code, 0);
    ending = (pt_ending){.cause = PT_CAUSE_STALLED, .step = 8, .wish = PT_WISH_STOP};
    assert_int_equal(judge(0, 8, ending).code, 75);
    ending.wish = PT_WISH_END_NOW;
    assert_int_equal(judge(0, 8, ending).code, 130);
}

/* A rank that was sent SIGTERM is no wish, unless the launcher was told something, too; and then it
 * is what the launcher was told. */
static void test_interrupted(void **state)
{
    pt_ending ending = {.code = 130, .step = 8};
    (void)state;
    assert_true(judge(0, 8, ending).restart);
    pt_verdict v = judge(4, 8, ending);
    assert_true(v.gave_up);
    assert_int_equal(v.code, 1);
    ending.wish = PT_WISH_STOP;
    v = judge(0, 8, ending);
    assert_false(v.restart);
    assert_int_equal(v.code, 75);
    ending.step = -1;
    assert_int_equal(judge(0, -1, ending).code, 75); /* nothing was trained … */
    ending.has_begun = true;
    assert_int_equal(judge(0, -1, ending).code, 1); /* … and here it was, and is lost */
    ending.wish = PT_WISH_END_NOW;
    assert_int_equal(judge(0, 8, ending).code, 130);
}

static void test_descriptions(void **state)
{
    char text[128];
    pt_ending ending = {.code = 137};
    (void)state;
    assert_string_equal(pt_policy_describe(&ending, text, sizeof text),
                        "was ended by signal 9 (Killed)");
    ending.code = 130;
    assert_non_null(
        strstr(pt_policy_describe(&ending, text, sizeof text), "to a rank or to mpirun"));
    ending.code = 3;
    assert_string_equal(pt_policy_describe(&ending, text, sizeof text), "ended with exit code 3");
    ending.code = 205; /* mpirun's, when it has lost a host: no signal has the number 77 */
    assert_string_equal(pt_policy_describe(&ending, text, sizeof text), "ended with exit code 205");
    ending.cause = PT_CAUSE_STALLED;
    assert_non_null(strstr(pt_policy_describe(&ending, text, sizeof text), "no progress"));
}

/* ---- progress ---------------------------------------------------------------------------------
 */

static void test_progress_lines(void **state)
{
    static const char *const bad[] = {"",
                                      "\n",
                                      "launch 3 step 120 of 4690 median-step-us 31800", /* no end */
                                      "launch 3 step 120 of 4690\n",
                                      "launch 3 step 120 of 4690 median-step-us 31800 x\n",
                                      "launch 3 step -1 of 4690 median-step-us 31800\n"};
    pt_progress p = {.launch = 77};
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(pt_progress_parse(bad[i], &p));
    assert_int_equal(p.launch, 77);
    assert_true(pt_progress_parse("launch 3 step 120 of 4690 median-step-us 31800     \n", &p));
    assert_int_equal(p.launch, 3);
    assert_int_equal(p.step, 120);
    assert_int_equal(p.total, 4690);
    assert_int_equal(p.median_us, 31800);
}

static void test_stall_words(void **state)
{
    static const char *const bad[] = {"", "0", "-1", "soon", "5s", "1e9", "nan"};
    pt_error err = {PT_OK, ""};
    pt_stall stall;
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_fails(pt_stall_parse("--stall", bad[i], &stall, &err), PT_EINPUT, "auto", &err);
    assert_ok(pt_stall_parse("--stall", "off", &stall, &err), &err);
    assert_int_equal(pt_stall_limit_ns(&stall, 1000), 0);
    assert_ok(pt_stall_parse("--stall", "1.5", &stall, &err), &err);
    assert_int_equal(pt_stall_limit_ns(&stall, 100 * 1000000), 3 * S / 2);
    assert_ok(pt_stall_parse("--stall", "auto", &stall, &err), &err);
    assert_int_equal(pt_stall_limit_ns(&stall, 0), 5 * S);
    assert_int_equal(pt_stall_limit_ns(&stall, 499999), 5 * S);
    assert_int_equal(pt_stall_limit_ns(&stall, 700000), 7 * S);
}

static pt_cause over_at(const pt_patience *p, int64_t now_ns)
{
    pt_cause cause = PT_CAUSE_ENDED;
    return pt_patience_is_over(p, now_ns, &cause) ? cause : PT_CAUSE_ENDED;
}

static void test_patience(void **state)
{
    pt_patience p = {.stall = {.seconds = 3}, .start_limit_ns = 60 * S};
    pt_progress at = {.launch = 1, .step = 4, .modified_ns = 1};
    (void)state;
    pt_patience_start(&p, 100 * S);
    assert_int_equal(over_at(&p, 160 * S), PT_CAUSE_ENDED);
    assert_int_equal(over_at(&p, 160 * S + 1), PT_CAUSE_SLOW_START);
    pt_patience_see(&p, NULL, 150 * S);
    assert_int_equal(over_at(&p, 160 * S + 1), PT_CAUSE_SLOW_START);
    pt_patience_see(&p, &at, 150 * S); /* training begins; its first step may be a slow one */
    assert_int_equal(over_at(&p, 160 * S), PT_CAUSE_ENDED);
    assert_int_equal(over_at(&p, 160 * S + 1), PT_CAUSE_SLOW_START);

    at.step = 5;
    pt_patience_see(&p, &at, 158 * S);
    pt_patience_see(&p, &at, 160 * S);                      /* nothing new */
    assert_int_equal(over_at(&p, 163 * S), PT_CAUSE_ENDED); /* 3 s, and 2 s of grace */
    assert_int_equal(over_at(&p, 163 * S + 1), PT_CAUSE_STALLED);
    at.modified_ns = 2; /* touched, with the same step: an evaluation goes on */
    pt_patience_see(&p, &at, 162 * S);
    assert_int_equal(over_at(&p, 163 * S + 1), PT_CAUSE_ENDED);
    at.step = 6;
    pt_patience_see(&p, &at, 164 * S);
    assert_int_equal(over_at(&p, 169 * S + 1), PT_CAUSE_STALLED);
    p.stall.is_off = true;
    assert_int_equal(over_at(&p, 1000 * S), PT_CAUSE_ENDED);

    pt_patience_start(&p, 2000 * S); /* the next launch */
    assert_int_equal(over_at(&p, 2060 * S + 1), PT_CAUSE_SLOW_START);
}

/* A launch that goes on knows the median of its own first step. */
static void test_patience_with_a_median(void **state)
{
    pt_patience p = {.stall = {.is_auto = true}};
    pt_progress at = {.launch = 2, .step = 5, .median_us = 1000000};
    (void)state;
    pt_patience_start(&p, 100 * S);
    pt_patience_see(&p, &at, 200 * S);
    assert_int_equal(over_at(&p, 212 * S), PT_CAUSE_ENDED); /* 10 steps of 1 s, and 2 s */
    assert_int_equal(over_at(&p, 212 * S + 1), PT_CAUSE_STALLED);
}

/* Nobody but the launcher sees a stopped mpirun, so there is no grace. */
static void test_patience_with_a_stopped_mpirun(void **state)
{
    pt_patience p = {.stall = {.seconds = 3}};
    (void)state;
    pt_patience_start(&p, 100 * S);
    p.suspended_ns = 110 * S;
    assert_int_equal(over_at(&p, 113 * S), PT_CAUSE_ENDED);
    assert_int_equal(over_at(&p, 113 * S + 1), PT_CAUSE_SUSPENDED);
    p.suspended_ns = 0;
    assert_int_equal(over_at(&p, 113 * S + 1), PT_CAUSE_ENDED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_final_codes),
        cmocka_unit_test(test_failures_are_restarted),
        cmocka_unit_test(test_backoff_and_budget),
        cmocka_unit_test(test_no_restarts),
        cmocka_unit_test(test_long_backoff),
        cmocka_unit_test(test_wishes),
        cmocka_unit_test(test_interrupted),
        cmocka_unit_test(test_descriptions),
        cmocka_unit_test(test_progress_lines),
        cmocka_unit_test(test_stall_words),
        cmocka_unit_test(test_patience),
        cmocka_unit_test(test_patience_with_a_median),
        cmocka_unit_test(test_patience_with_a_stopped_mpirun),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
