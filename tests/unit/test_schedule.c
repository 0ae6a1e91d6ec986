/* Schedules: what is generated, what lowering adds, and what the checker counts in it. */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "schedule_rig.h"

enum { MOST_STAGES = 8, MOST_MICRO_BATCHES = 20, MOST_PER_STEP = 5, SLOTS = 2 };

static const char *const trained[] = {"gpipe", "1f1b", "zb-h1", "async"};

/* "F0 B0 W0 U0 …": upper case computes, r s receive and send activations, R S gradients. */
static void spell(const pt_action_list *list, char *text, size_t bytes)
{
    static const char letters[] = "FBWCUIrsRS";
    size_t at = 0;
    text[0] = 0;
    for (int i = 0; i < list->n && at < bytes; i++)
        at += (size_t)snprintf(text + at, bytes - at, "%s%c%d", i ? " " : "",
                               letters[list->actions[i].kind], list->actions[i].micro_batch);
}

/* ---- rows and specs ---- */

static void test_rows(void **state)
{
    (void)state;
    int n;
    const pt_schedule_row *rows = pt_schedule_rows(&n);
    const char *const *names = pt_schedule_names();
    assert_int_equal(n, 5);
    for (int i = 0; i < n; i++) {
        assert_string_equal(names[i], rows[i].name);
        assert_ptr_equal(pt_schedule_find(names[i]), &rows[i]);
        assert_non_null(rows[i].help);
    }
    assert_null(names[n]);
    assert_null(pt_schedule_find("infer"));
    assert_null(pt_schedule_find(NULL));
    assert_string_equal(pt_action_name(PT_FORWARD), "FORWARD");
    assert_string_equal(pt_action_name(PT_SEND_GRAD), "SEND_GRAD");
    assert_string_equal(pt_action_name(PT_ACTION_KINDS), "unknown action");
}

static void test_bad_specs(void **state)
{
    (void)state;
    static const struct {
        pt_schedule_spec spec;
        const char *words;
    } cases[] = {
        {{"zigzag", 2, 2, 1, 0, false, 1},
         "unknown schedule 'zigzag' (gpipe, 1f1b, interleaved, zb-h1, async)"},
        {{NULL, 2, 2, 1, 0, false, 1}, "unknown schedule"},
        {{"1f1b", 0, 2, 1, 0, false, 1}, "0 stages; give 1"},
        {{"1f1b", 2, 0, 1, 0, false, 1}, "0 micro-batches in a span"},
        {{"1f1b", 2, 2, 0, 0, false, 1}, "0 micro-batches a step"},
        {{"async", 2, 2, 1, -1, false, 1}, "-1 forwards in flight"},
        {{"1f1b", 2, INT32_MAX, 1, 0, false, 1}, "give 1 to"},
        {{"gpipe", 2, 2, 1, 1, false, 1}, "flushes at every step"},
        {{"1f1b", 2, 2, 1, 3, false, 1}, "--in-flight"},
        {{"async", 2, 2, 1, 0, true, 1}, "not known yet when the last stage has to update"},
    };
    static pt_error err;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        pt_schedule *untouched = NULL;
        assert_fails(pt_schedule_generate(&cases[i].spec, &untouched, &err), PT_EINPUT,
                     cases[i].words, &err);
        assert_null(untouched);
    }
    pt_schedule *untouched = NULL;
    assert_fails(pt_schedule_infer(2, 1, 0, &untouched, &err), PT_EINPUT, "0 micro-batches", &err);
    assert_null(untouched);
    pt_schedule_free(NULL);
}

/* Lists written by hand from the definitions. */
static void test_lists(void **state)
{
    (void)state;
    static const struct {
        pt_schedule_spec spec;
        int rank;
        const char *computes, *lowered;
    } cases[] = {
        {{"gpipe", 2, 3, 2, 0, false, 1},
         0,
         "F0 F1 B0 W0 B1 W1 U1 F2 B2 W2 U2",
         "F0 s0 F1 s1 R0 B0 W0 R1 B1 W1 U1 F2 s2 R2 B2 W2 U2"},
        {{"gpipe", 2, 3, 2, 0, true, 1},
         1,
         "F0 F1 B0 W0 B1 W1 C1 U1 F2 B2 W2 C2 U2",
         "r0 F0 r1 F1 B0 S0 W0 B1 S1 W1 C1 U1 r2 F2 B2 S2 W2 C2 U2"},
        {{"1f1b", 2, 5, 3, 0, false, 1},
         0,
         "F0 F1 B0 W0 F2 B1 W1 B2 W2 U2 F3 F4 B3 W3 B4 W4 U4",
         "F0 s0 F1 s1 R0 B0 W0 F2 s2 R1 B1 W1 R2 B2 W2 U2 "
         "F3 s3 F4 s4 R3 B3 W3 R4 B4 W4 U4"},
        {{"1f1b", 3, 2, 2, 0, false, 1},
         1,
         "F0 F1 B0 W0 B1 W1 U1",
         "r0 F0 s0 r1 F1 s1 R0 B0 S0 W0 R1 B1 S1 W1 U1"},
        /* Figure 3 above of Qi et al. has 4 stages; here are the middle and the last of 3. */
        {{"zb-h1", 3, 5, 5, 0, false, 1},
         1,
         "F0 F1 B0 F2 B1 W0 F3 B2 W1 F4 B3 W2 B4 W3 W4 U4",
         "r0 F0 s0 r1 F1 s1 R0 B0 S0 r2 F2 s2 R1 B1 S1 W0 r3 F3 s3 R2 B2 S2 W1 "
         "r4 F4 s4 R3 B3 S3 W2 R4 B4 S4 W3 W4 U4"},
        {{"zb-h1", 3, 5, 4, 0, true, 1},
         2,
         "F0 B0 F1 B1 F2 B2 W0 F3 B3 W1 W2 W3 C3 U3 F4 B4 W4 C4 U4",
         "r0 F0 B0 S0 r1 F1 B1 S1 r2 F2 B2 S2 W0 r3 F3 B3 S3 W1 W2 W3 C3 U3 "
         "r4 F4 B4 S4 W4 C4 U4"},
        {{"zb-h1", 3, 3, 3, 0, false, 1},
         0,
         "F0 F1 F2 B0 W0 B1 W1 B2 W2 U2",
         "F0 s0 F1 s1 F2 s2 R0 B0 W0 R1 B1 W1 R2 B2 W2 U2"},
        {{"async", 2, 4, 2, 0, false, 1},
         0,
         "F0 F1 B0 W0 F2 B1 W1 U1 F3 B2 W2 B3 W3 U3",
         "F0 s0 F1 s1 R0 B0 W0 F2 s2 R1 B1 W1 U1 F3 s3 R2 B2 W2 R3 B3 W3 U3"},
        {{"async", 1, 2, 1, 1, false, 1}, 0, "F0 B0 W0 U0 F1 B1 W1 U1", "F0 B0 W0 U0 F1 B1 W1 U1"},
        {{"async", 2, 4, 1, 1, false, 1},
         0,
         "F0 F1 F2 B0 W0 U0 F3 B1 W1 U1 B2 W2 U2 B3 W3 U3",
         "F0 s0 F1 s1 F2 s2 R0 B0 W0 U0 F3 s3 R1 B1 W1 U1 R2 B2 W2 U2 R3 B3 W3 U3"},
        {{"1f1b", 1, 1, 1, 0, false, 1}, 0, "F0 B0 W0 U0", "F0 B0 W0 U0"},
    };
    static pt_error err;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char text[512];
        pt_schedule *schedule = NULL;
        assert_ok(pt_schedule_generate(&cases[i].spec, &schedule, &err), &err);
        assert_false(schedule->lowered);
        spell(&schedule->ranks[cases[i].rank], text, sizeof(text));
        assert_string_equal(text, cases[i].computes);
        for (int again = 0; again < 2; again++) { /* lowering twice changes nothing */
            assert_ok(pt_schedule_lower(schedule, &err), &err);
            spell(&schedule->ranks[cases[i].rank], text, sizeof(text));
            assert_string_equal(text, cases[i].lowered);
        }
        pt_schedule_free(schedule);
    }
}

static void test_infer(void **state)
{
    (void)state;
    static pt_error err;
    char text[128];
    pt_schedule *schedule = NULL;
    pt_schedule_rank ranks[3];
    assert_ok(pt_schedule_infer(3, 1, 2, &schedule, &err), &err);
    assert_ok(pt_schedule_lower(schedule, &err), &err);
    spell(&schedule->ranks[1], text, sizeof(text));
    assert_string_equal(text, "r0 I0 s0 r1 I1 s1");
    assert_ok(pt_schedule_check(schedule, /*slots=*/1, ranks, &err), &err);
    assert_int_equal(ranks[1].stash_peak, 0);
    assert_int_equal(ranks[1].versions_peak, 1);
    schedule->ranks[2].n--;
    assert_fails(pt_schedule_check(schedule, 1, NULL, &err), PT_EINPUT, "1I!", &err);
    schedule->ranks[2].n++;
    schedule->ranks[2].actions[1].kind = PT_FORWARD;
    assert_fails(pt_schedule_check(schedule, 1, NULL, &err), PT_EINPUT, "no place in a span of inf",
                 &err);
    pt_schedule_free(schedule);
}

/* ---- everything that is generated passes ---- */

static int min(int a, int b)
{
    return a < b ? a : b;
}

/* Staleness counted twice without the generator's formula: by the definition, and in the list. */
static void check_staleness(const pt_schedule *s, int rank, const pt_schedule_rank *found)
{
    const pt_action_list *list = &s->ranks[rank];
    int n = s->spec.micro_batches, per_step = s->spec.per_step;
    int forwards = 0, backwards = 0, most = 0, sum = 0;
    for (int i = 0; i < list->n; i++) {
        const pt_action *a = &list->actions[i];
        backwards += a->kind == PT_BACKWARD_INPUT;
        if (a->kind != PT_FORWARD)
            continue;
        int defined = 0, listed = 0;
        for (int x = backwards; x < forwards; x++)
            defined += x % per_step == per_step - 1 || x == n - 1;
        for (int j = i; list->actions[j].kind != PT_BACKWARD_INPUT ||
                        list->actions[j].micro_batch != a->micro_batch;
             j++)
            listed += list->actions[j].kind == PT_UPDATE;
        assert_int_equal(a->staleness, defined);
        assert_int_equal(a->staleness, listed);
        if (s->synchronous)
            assert_int_equal(a->staleness, 0);
        forwards++;
        sum += listed;
        most = listed > most ? listed : most;
    }
    assert_int_equal(found->staleness_max, most);
    assert_true(found->staleness_mean == (double)sum / n);
}

static void check_peaks(const pt_schedule *s, int rank, const pt_schedule_rank *found)
{
    const pt_schedule_spec *spec = &s->spec;
    int depth = spec->stages - 1 - rank, step = min(spec->per_step, spec->micro_batches);
    if (strcmp(spec->name, "gpipe") == 0)
        assert_int_equal(found->stash_peak, step);
    else if (strcmp(spec->name, "1f1b") == 0)
        assert_int_equal(found->stash_peak, min(step, depth + 1));
    else if (strcmp(spec->name, "zb-h1") == 0)
        assert_int_equal(found->stash_peak, min(step, spec->stages));
    else
        assert_int_equal(found->stash_peak,
                         min(spec->micro_batches, depth * (1 + spec->in_flight) + 1));
    bool waits = strcmp(spec->name, "zb-h1") == 0 && rank > 0 && step > 1;
    assert_int_equal(found->held_peak, waits ? min(step, rank + 1) : 0);
    if (s->synchronous)
        assert_int_equal(found->versions_peak, 1);
    else if (spec->per_step == 1 && spec->micro_batches > 2 * (depth + 1) && !spec->in_flight)
        assert_int_equal(found->versions_peak, depth + 1);
}

static void check_all_sizes(const char *name, int in_flight, bool clip)
{
    static pt_error err;
    for (int stages = 1; stages <= MOST_STAGES; stages++) {
        for (int n = 1; n <= MOST_MICRO_BATCHES; n++) {
            for (int per_step = 1; per_step <= MOST_PER_STEP; per_step++) {
                pt_schedule_rank ranks[MOST_STAGES];
                pt_schedule *s =
                    make((pt_schedule_spec){name, stages, n, per_step, in_flight, clip, 1});
                /* what is more in flight needs as many slots more */
                assert_ok(pt_schedule_check(s, /*slots=*/1 + in_flight, ranks, &err), &err);
                assert_ok(pt_schedule_check(s, SLOTS + in_flight, ranks, &err), &err);
                for (int rank = 0; rank < stages; rank++) {
                    check_staleness(s, rank, &ranks[rank]);
                    check_peaks(s, rank, &ranks[rank]);
                }
                pt_schedule_free(s);
            }
        }
    }
}

static void test_all_pass(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(trained) / sizeof(trained[0]); i++)
        check_all_sizes(trained[i], 0, false);
}

static void test_all_pass_with_clip_or_flight(void **state)
{
    (void)state;
    check_all_sizes("gpipe", 0, true);
    check_all_sizes("1f1b", 0, true);
    check_all_sizes("zb-h1", 0, true);
    check_all_sizes("async", 1, false);
    check_all_sizes("async", 5, false);
}

static void test_known_staleness(void **state)
{
    (void)state;
    static const int expected[] = {0, 1, 2, 3, 3, 3, 3, 3, 3, 3};
    pt_schedule *s = make((pt_schedule_spec){"async", 4, 10, 1, 0, false, 1});
    int m = 0;
    for (int i = 0; i < s->ranks[0].n; i++)
        if (s->ranks[0].actions[i].kind == PT_FORWARD)
            assert_int_equal(s->ranks[0].actions[i].staleness, expected[m++]);
    assert_int_equal(m, 10);
    pt_schedule_free(s);
}

static void test_extreme_numbers(void **state)
{
    (void)state;
    static pt_error err;
    pt_schedule_rank rank[2];
    pt_schedule *s = make((pt_schedule_spec){"async", 2, 3, INT32_MAX, INT32_MAX, false, 1});
    assert_int_equal(pt_schedule_slots(&s->spec), INT32_MAX); /* and not a number below 0 */
    assert_ok(pt_schedule_check(s, INT32_MAX, rank, &err), &err);
    assert_int_equal(rank[0].stash_peak, 3);
    assert_int_equal(rank[0].staleness_max, 0);
    assert_fails(pt_schedule_check(s, 0, NULL, &err), PT_EINPUT, "0 slots", &err);
    pt_schedule_free(s);
}

/* An algorithm that scans a list for every action needs minutes for this; one pass needs about a
 * tenth of a second, and some ten times that under a sanitizer. */
static const double MOST_SECONDS = 5.0;

static void test_large_is_fast(void **state)
{
    (void)state;
    static pt_error err;
    clock_t start = clock();
    pt_schedule_rank ranks[8];
    pt_schedule *s = make((pt_schedule_spec){"async", 8, 40000, 1, 0, false, 1});
    assert_ok(pt_schedule_check(s, SLOTS, ranks, &err), &err);
    assert_int_equal(ranks[0].staleness_max, 7);
    assert_int_equal(ranks[0].versions_peak, 8);
    pt_schedule_free(s);
    assert_true((double)(clock() - start) / CLOCKS_PER_SEC < MOST_SECONDS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows),
        cmocka_unit_test(test_bad_specs),
        cmocka_unit_test(test_lists),
        cmocka_unit_test(test_infer),
        cmocka_unit_test(test_all_pass),
        cmocka_unit_test(test_all_pass_with_clip_or_flight),
        cmocka_unit_test(test_known_staleness),
        cmocka_unit_test(test_extreme_numbers),
        cmocka_unit_test(test_large_is_fast),
    };
    return cmocka_run_group_tests_name("schedule", tests, NULL, NULL);
}
