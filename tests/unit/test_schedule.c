/* Schedules: what is generated, what lowering adds, what the checker lets through and refuses. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "pipetrain/schedule.h"
#include "suite.h"

enum { MOST_STAGES = 8, MOST_MICRO_BATCHES = 20, MOST_PER_STEP = 5, SLOTS = 2 };

static const char *const trained[] = {"gpipe", "1f1b", "zb-h1", "async"};

static pt_schedule *make(pt_schedule_spec spec)
{
    static pt_error err;
    pt_schedule *schedule = NULL;
    assert_ok(pt_schedule_generate(&spec, &schedule, &err), &err);
    assert_ok(pt_schedule_lower(schedule, &err), &err);
    return schedule;
}

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

/* ---- what must be refused ---- */

typedef enum edit_kind { DROP, DOUBLE, SWAP, MOVE_BEFORE, SET } edit_kind;

typedef struct edit {
    edit_kind what;
    int rank;
    pt_action_kind kind; /* the action that is edited … */
    int micro_batch;
    pt_action_kind other_kind; /* … and, for SWAP and MOVE_BEFORE, the other one */
    int other_micro_batch;
    pt_action set; /* SET: what stands there instead */
} edit;

static int find(const pt_action_list *list, pt_action_kind kind, int micro_batch)
{
    for (int i = 0; i < list->n; i++)
        if (list->actions[i].kind == kind && list->actions[i].micro_batch == micro_batch)
            return i;
    fail_msg("the list has no %s of micro-batch %d", pt_action_name(kind), micro_batch);
    return -1;
}

static void remove_at(pt_action_list *list, int at)
{
    memmove(&list->actions[at], &list->actions[at + 1],
            sizeof(pt_action) * (size_t)(list->n - at - 1));
    list->n--;
}

static void insert_at(pt_action_list *list, int at, pt_action action)
{
    list->actions = realloc(list->actions, sizeof(pt_action) * (size_t)(list->n + 1));
    assert_non_null(list->actions);
    memmove(&list->actions[at + 1], &list->actions[at], sizeof(pt_action) * (size_t)(list->n - at));
    list->actions[at] = action;
    list->n++;
}

static void apply(const edit *e, pt_schedule *s)
{
    pt_action_list *list = &s->ranks[e->rank];
    int at = find(list, e->kind, e->micro_batch);
    pt_action action = list->actions[at];
    int other = -1;
    if (e->what == SWAP || e->what == MOVE_BEFORE)
        other = find(list, e->other_kind, e->other_micro_batch);
    switch (e->what) {
    case DROP:
        remove_at(list, at);
        break;
    case DOUBLE:
        insert_at(list, at, action);
        break;
    case SWAP:
        list->actions[at] = list->actions[other];
        list->actions[other] = action;
        break;
    case MOVE_BEFORE:
        remove_at(list, at);
        insert_at(list, other - (at < other), action);
        break;
    case SET:
        list->actions[at] = e->set;
        break;
    }
}

typedef struct refusal {
    edit edit;
    const char *reason, *cell; /* in the message; the cell is the one with the mark */
} refusal;

static void check_refusals(pt_schedule_spec spec, const refusal *cases, size_t n)
{
    static pt_error err;
    for (size_t i = 0; i < n; i++) {
        pt_schedule *s = make(spec);
        pt_schedule_rank untouched = {.stash_peak = -7};
        assert_ok(pt_schedule_check(s, SLOTS, NULL, &err), &err);
        apply(&cases[i].edit, s);
        assert_fails(pt_schedule_check(s, SLOTS, &untouched, &err), PT_EINPUT, cases[i].reason,
                     &err);
        if (!strstr(err.text, cases[i].cell))
            fail_msg("the picture lacks the cell \"%s\":\n%s", cases[i].cell, err.text);
        assert_non_null(strstr(err.text, "rank 0 |"));
        assert_int_equal(untouched.stash_peak, -7);
        pt_schedule_free(s);
    }
}

#define DROP_(rank_, kind_, m)                                                                     \
    {                                                                                              \
        .what = DROP, .rank = rank_, .kind = kind_, .micro_batch = m                               \
    }
#define DOUBLE_(rank_, kind_, m)                                                                   \
    {                                                                                              \
        .what = DOUBLE, .rank = rank_, .kind = kind_, .micro_batch = m                             \
    }
#define SWAP_(rank_, kind_, m, other, other_m)                                                     \
    {                                                                                              \
        .what = SWAP, .rank = rank_, .kind = kind_, .micro_batch = m, .other_kind = other,         \
        .other_micro_batch = other_m                                                               \
    }
#define MOVE_(rank_, kind_, m, other, other_m)                                                     \
    {                                                                                              \
        .what = MOVE_BEFORE, .rank = rank_, .kind = kind_, .micro_batch = m, .other_kind = other,  \
        .other_micro_batch = other_m                                                               \
    }
#define SET_(rank_, kind_, m, ...)                                                                 \
    {                                                                                              \
        .what = SET, .rank = rank_, .kind = kind_, .micro_batch = m, .set = { __VA_ARGS__, 0 }     \
    }
#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* Memory of gradients: whoever computes, or receives, between a micro-batch's first gradient and
 * its BACKWARD_WEIGHT makes it wait. Rank 0 of 2 is F0 s0 F1 s1 R0 B0 W0 F2 s2 R1 B1 W1 …, and
 * without the edit nothing waits. */
static void test_held_gradients(void **state)
{
    (void)state;
    static pt_error err;
    static const struct {
        edit edit;
        int held;
    } cases[] = {
        {MOVE_(0, PT_SEND_ACT, 1, PT_BACKWARD_WEIGHT, 0), 0}, /* sending reads the stash alone */
        {MOVE_(0, PT_FORWARD, 2, PT_BACKWARD_WEIGHT, 0), 1},
        {MOVE_(0, PT_FORWARD, 2, PT_BACKWARD_INPUT, 0), 1}, /* RECV_GRAD has come */
        {MOVE_(0, PT_RECV_GRAD, 1, PT_BACKWARD_WEIGHT, 0), 2},
        {MOVE_(1, PT_RECV_ACT, 1, PT_BACKWARD_WEIGHT, 0), 1},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        pt_schedule_rank ranks[2];
        pt_schedule *s = make((pt_schedule_spec){"1f1b", 2, 3, 3, 0, false, 1});
        apply(&cases[i].edit, s);
        assert_ok(pt_schedule_check(s, SLOTS, ranks, &err), &err);
        int rank = cases[i].edit.rank;
        assert_int_equal(ranks[rank].held_peak, cases[i].held);
        assert_int_equal(ranks[1 - rank].held_peak, 0);
        pt_schedule_free(s);
    }
}

static const pt_schedule_spec async_spec = {"async", 3, 6, 2, 0, false, 1};

/* The lists of async_spec begin like this (see spell):
 *   rank 0   F0 s0 F1 s1 F2 s2 R0 B0 W0 F3 s3 R1 B1 W1 U1 …
 *   rank 1   r0 F0 s0 r1 F1 s1 R0 B0 S0 W0 r2 F2 s2 R1 B1 S1 W1 U1 …
 *   rank 2   r0 F0 B0 S0 W0 r1 F1 B1 S1 W1 U1 …                       */
static void test_refuses_missing_and_doubled(void **state)
{
    (void)state;
    static const refusal cases[] = {
        {DROP_(0, PT_FORWARD, 0), "before the FORWARD of the same micro-batch", "0>!"},
        {DROP_(1, PT_RECV_ACT, 2), "before the RECV_ACT of the same micro-batch", "2F!"},
        {DROP_(0, PT_SEND_ACT, 2), "SEND_ACT of micro-batch 2: it is missing", "2>!"},
        {DROP_(1, PT_SEND_ACT, 5), "SEND_ACT of micro-batch 5: it is missing", "5>!"},
        {DROP_(0, PT_RECV_GRAD, 1), "before the RECV_GRAD of the same", "1B!"},
        {DROP_(2, PT_SEND_GRAD, 2), "SEND_GRAD of micro-batch 2: it is missing", "2<!"},
        {DROP_(1, PT_BACKWARD_INPUT, 3), "before the BACKWARD_INPUT", "3<!"},
        {DROP_(1, PT_BACKWARD_WEIGHT, 2), "the next BACKWARD_WEIGHT is that of micro-batch 2",
         "3W!"},
        {DROP_(2, PT_BACKWARD_WEIGHT, 5), "before the BACKWARD_WEIGHT of micro-batch 5", "5*!"},
        {DROP_(1, PT_UPDATE, 1), "step 0, whose UPDATE is missing", "2B!"},
        {DROP_(0, PT_UPDATE, 5), "UPDATE of micro-batch 5: it is missing", "5*!"},
        {DOUBLE_(1, PT_FORWARD, 1), "the second FORWARD", "1F!"},
        {DOUBLE_(0, PT_BACKWARD_WEIGHT, 4), "the second BACKWARD_WEIGHT", "4W!"},
        {DOUBLE_(2, PT_RECV_ACT, 3), "the second RECV_ACT", "3>!"},
        {DOUBLE_(2, PT_SEND_GRAD, 5), "the second SEND_GRAD", "5<!"},
        {DOUBLE_(0, PT_UPDATE, 3), "the next UPDATE is that of step 2", "3*!"},
    };
    check_refusals(async_spec, cases, COUNT(cases));
}

static void test_refuses_wrong_order(void **state)
{
    (void)state;
    static const refusal cases[] = {
        {SWAP_(1, PT_RECV_ACT, 1, PT_RECV_ACT, 2),
         "rank 1, action 4, FORWARD of micro-batch 1: it comes before the RECV_ACT", "1F!"},
        {SWAP_(0, PT_FORWARD, 4, PT_SEND_ACT, 4), "before the FORWARD of the same", "4>!"},
        {SWAP_(0, PT_FORWARD, 1, PT_FORWARD, 2), "the next FORWARD is that of micro-batch 1",
         "2F!"},
        {SWAP_(2, PT_UPDATE, 1, PT_BACKWARD_WEIGHT, 1),
         "UPDATE of micro-batch 1: it comes before the BACKWARD_WEIGHT of micro-batch 1", "1*!"},
        {MOVE_(2, PT_UPDATE, 3, PT_BACKWARD_WEIGHT, 1), "the next UPDATE is that of step 0", "3*!"},
        /* each list is right by itself, but the two ends disagree */
        {MOVE_(0, PT_SEND_ACT, 1, PT_SEND_ACT, 0), "before the FORWARD", "1>!"},
        {MOVE_(1, PT_RECV_ACT, 1, PT_RECV_ACT, 0),
         "RECV_ACT of micro-batch 1: the next message from rank 0 is that of micro-batch 0: the "
         "orders of the two ranks cross",
         "1>!"},
    };
    check_refusals(async_spec, cases, COUNT(cases));
    /* A send may come late, though: this order is unusual and right. */
    static pt_error err;
    static const edit late = MOVE_(0, PT_FORWARD, 1, PT_SEND_ACT, 0);
    pt_schedule *s = make(async_spec);
    apply(&late, s);
    assert_ok(pt_schedule_check(s, SLOTS, NULL, &err), &err);
    pt_schedule_free(s);
}

static void test_refuses_wrong_fields(void **state)
{
    (void)state;
    static const refusal cases[] = {
        {SET_(0, PT_FORWARD, 4, PT_FORWARD, 0, 4, 2, 2, -1),
         "it says staleness 2, but this rank makes 1 updates", "4F!"},
        {SET_(2, PT_FORWARD, 4, PT_FORWARD, 0, 4, 2, -1, -1), "it says staleness -1", "4F!"},
        {SET_(1, PT_UPDATE, 3, PT_UPDATE, 0, 3, 1, 1, -1), "that is no FORWARD", "3*!"},
        {SET_(2, PT_SEND_GRAD, 3, PT_SEND_GRAD, 0, 3, 1, 0, 0), "rank 0 and must be rank 1", "3<!"},
        {SET_(0, PT_FORWARD, 3, PT_RECV_ACT, 0, 3, 1, 0, -1), "no stage on that side of rank 0",
         "3>!"},
        {SET_(2, PT_FORWARD, 3, PT_SEND_ACT, 0, 3, 1, 0, 3), "no stage on that side of rank 2",
         "3>!"},
        {SET_(1, PT_FORWARD, 0, PT_FORWARD, 0, 0, 0, 0, 2), "but is no message", "0F!"},
        {SET_(1, PT_FORWARD, 2, PT_FORWARD, 1, 2, 1, 0, -1), "chunk 1", "2F!"},
        {SET_(1, PT_FORWARD, 2, PT_FORWARD, 0, 2, 0, 0, -1), "belongs to step 1", "2F!"},
        {SET_(1, PT_FORWARD, 2, PT_FORWARD, 0, 6, 3, 0, -1), "this span are 0 to 5", "6F!"},
        {SET_(1, PT_FORWARD, 2, PT_FORWARD, 0, -1, 0, 0, -1), "this span are 0 to 5", "?F!"},
        {SET_(1, PT_FORWARD, 2, PT_INFER, 0, 2, 1, 0, -1), "no place in a span of training", "2I!"},
        {SET_(1, PT_UPDATE, 3, PT_CLIP, 0, 3, 1, 0, -1), "for step 1, but the next CLIP", "3#!"},
        {SET_(1, PT_UPDATE, 1, PT_CLIP, 0, 1, 0, 0, -1), "this schedule does not clip", "1#!"},
        {SET_(1, PT_UPDATE, 3, PT_UPDATE, 0, 2, 1, 0, -1), "the last micro-batch of its step",
         "2*!"},
        {SET_(1, PT_UPDATE, 3, PT_ACTION_KINDS, 0, 3, 1, 0, -1), "no kind of action", "3?!"},
    };
    check_refusals(async_spec, cases, COUNT(cases));
}

static void test_refuses_clip_faults(void **state)
{
    (void)state;
    static const refusal cases[] = {
        {DROP_(1, PT_CLIP, 1), "the CLIP of step 0 is missing before it", "1*!"},
        {DOUBLE_(0, PT_CLIP, 3), "the next CLIP is that of step 2", "3#!"},
        {SWAP_(2, PT_CLIP, 5, PT_UPDATE, 5), "the CLIP of step 2 is missing", "5*!"},
        {MOVE_(0, PT_CLIP, 1, PT_BACKWARD_WEIGHT, 1), "before the BACKWARD_WEIGHT of micro-batch 1",
         "1#!"},
    };
    check_refusals((pt_schedule_spec){"1f1b", 3, 6, 2, 0, true, 1}, cases, COUNT(cases));
}

/* A synchronous schedule whose steps overlap tells the truth about its staleness, and still lies
 * about being synchronous. */
static void test_refuses_stale_synchronous(void **state)
{
    (void)state;
    static pt_error err;
    pt_schedule *s = make((pt_schedule_spec){"async", 2, 4, 1, 0, false, 1});
    s->synchronous = true;
    assert_fails(pt_schedule_check(s, SLOTS, NULL, &err), PT_EINPUT, "promises never to be stale",
                 &err);
    assert_non_null(strstr(err.text, "1F!"));
    pt_schedule_free(s);
}

static void test_refuses_deadlock(void **state)
{
    (void)state;
    static pt_error err;
    static const edit swap = MOVE_(0, PT_RECV_GRAD, 0, PT_SEND_ACT, 1);
    pt_schedule *s = make(async_spec);
    apply(&swap, s);
    assert_fails(pt_schedule_check(s, SLOTS, NULL, &err), PT_EINPUT, "it would never end", &err);
    assert_non_null(strstr(err.text, "rank 0 waits in RECV_GRAD of micro-batch 0 from rank 1\n"));
    assert_non_null(strstr(err.text, "rank 1 waits in RECV_ACT of micro-batch 1 from rank 0\n"));
    assert_non_null(strstr(err.text, "rank 2 waits in RECV_ACT of micro-batch 1 from rank 1\n"));
    assert_non_null(strstr(err.text, "0<!"));
    assert_non_null(strstr(err.text, "1>!"));
    pt_schedule_free(s);
}

/* Two schedules that are each right, one per rank: whether they fit depends on the slots. */
static void test_slots_decide(void **state)
{
    (void)state;
    static pt_error err;
    pt_schedule *all = make((pt_schedule_spec){"gpipe", 2, 4, 4, 0, false, 1});
    pt_schedule *turns = make((pt_schedule_spec){"1f1b", 2, 4, 4, 0, false, 1});
    pt_action_list kept = all->ranks[1];
    all->ranks[1] = turns->ranks[1];
    turns->ranks[1] = kept;
    assert_ok(pt_schedule_check(all, /*slots=*/2, NULL, &err), &err);
    assert_fails(pt_schedule_check(all, /*slots=*/1, NULL, &err), PT_EINPUT,
                 "with 1 slot an edge it would never end", &err);
    assert_non_null(strstr(err.text, "rank 0 waits in SEND_ACT of micro-batch 3 for a free slot"));
    assert_non_null(strstr(err.text, "rank 1 waits in SEND_GRAD of micro-batch 1 for a free slot"));
    pt_schedule_free(all);
    pt_schedule_free(turns);
}

static void test_clip_is_a_meeting(void **state)
{
    (void)state;
    static pt_error err;
    pt_schedule *s = make((pt_schedule_spec){"1f1b", 2, 2, 1, 0, true, 1});
    /* Rank 1 wants the next step's activation before it comes to the CLIP. */
    static const edit early = MOVE_(1, PT_RECV_ACT, 1, PT_CLIP, 0);
    apply(&early, s);
    assert_fails(pt_schedule_check(s, SLOTS, NULL, &err), PT_EINPUT,
                 "rank 0 waits in CLIP of step 0 for the other ranks", &err);
    assert_non_null(strstr(err.text, "0#!"));
    pt_schedule_free(s);
}

static void test_must_be_lowered(void **state)
{
    (void)state;
    static pt_error err;
    pt_schedule *s = NULL;
    assert_ok(pt_schedule_generate(&async_spec, &s, &err), &err);
    assert_fails(pt_schedule_check(s, SLOTS, NULL, &err), PT_EINTERNAL, "lowered", &err);
    pt_schedule_free(s);
}

/* A refusal of many ranks and long numbers fits its message and shows the place. */
static void test_large_refusal(void **state)
{
    (void)state;
    static pt_error err;
    static const edit missing = DROP_(33, PT_SEND_ACT, 1234);
    pt_schedule *s = make((pt_schedule_spec){"async", 64, 2000, 3, 0, false, 1});
    apply(&missing, s);
    assert_fails(pt_schedule_check(s, SLOTS, NULL, &err), PT_EINPUT, " 1234>!", &err);
    assert_non_null(strstr(err.text, "rank 33 |"));
    assert_non_null(strstr(err.text, "! here\n"));
    pt_schedule_free(s);
    static const edit early = MOVE_(0, PT_RECV_GRAD, 0, PT_SEND_ACT, 0);
    s = make((pt_schedule_spec){"async", 64, 2000, 3, 0, false, 1});
    apply(&early, s);
    assert_fails(pt_schedule_check(s, SLOTS, NULL, &err), PT_EINPUT, "and 56 more ranks wait",
                 &err);
    assert_non_null(strstr(err.text, "! here\n"));
    pt_schedule_free(s);
}

/* The next number below n of a fixed sequence. */
static int next(uint32_t *seed, int n)
{
    *seed = *seed * 1664525u + 1013904223u;
    return (int)((*seed >> 8) % (uint32_t)n);
}

/* Lists with noise in them: the checker never breaks, and what it lets through can be timed. */
static void test_noise(void **state)
{
    (void)state;
    enum { ROUNDS = 3000, MOST_EDITS = 3 };
    static pt_error err;
    uint32_t seed = 12345;
    int passed = 0, refused = 0;
    for (int round = 0; round < ROUNDS; round++) {
        pt_schedule *s = make(async_spec);
        for (int edits = 1 + next(&seed, MOST_EDITS); edits > 0; edits--) {
            pt_action_list *list = &s->ranks[next(&seed, s->spec.stages)];
            int i = next(&seed, list->n - 1), j = next(&seed, 4) ? i + 1 : next(&seed, list->n);
            pt_action kept = list->actions[i];
            list->actions[i] = list->actions[j];
            list->actions[j] = kept;
            unsigned char *byte = (unsigned char *)&list->actions[i];
            if (next(&seed, 4) == 0)
                byte[next(&seed, sizeof(pt_action))] ^= (unsigned char)(1 << next(&seed, 8));
        }
        pt_stage_cost costs[3] = {{.forward = 1}, {.forward = 2}, {.forward = 3}};
        double total;
        pt_status status = pt_schedule_check(s, 1, NULL, &err);
        pt_status timed = pt_schedule_simulate(s, costs, 1, NULL, NULL, NULL, &total, &err);
        if (status == PT_OK)
            assert_int_equal(timed, PT_OK);
        else
            assert_int_equal(status, PT_EINPUT);
        passed += status == PT_OK;
        refused += status != PT_OK;
        pt_schedule_free(s);
    }
    /* Some swaps are harmless (two actions that do not depend on each other); most are not. */
    assert_true(passed > 0 && refused > passed);
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
        cmocka_unit_test(test_held_gradients),
        cmocka_unit_test(test_known_staleness),
        cmocka_unit_test(test_extreme_numbers),
        cmocka_unit_test(test_refuses_missing_and_doubled),
        cmocka_unit_test(test_refuses_wrong_order),
        cmocka_unit_test(test_refuses_wrong_fields),
        cmocka_unit_test(test_refuses_clip_faults),
        cmocka_unit_test(test_refuses_stale_synchronous),
        cmocka_unit_test(test_refuses_deadlock),
        cmocka_unit_test(test_slots_decide),
        cmocka_unit_test(test_clip_is_a_meeting),
        cmocka_unit_test(test_must_be_lowered),
        cmocka_unit_test(test_large_refusal),
        cmocka_unit_test(test_noise),
        cmocka_unit_test(test_large_is_fast),
    };
    return cmocka_run_group_tests_name("schedule", tests, NULL, NULL);
}
