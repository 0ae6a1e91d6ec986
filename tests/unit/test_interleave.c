/* Several chunks on each rank: the order of interleaved 1F1B, what the checker proves of it, its
 * memory and its bubble. What is refused is in test_interleave_refused.c. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "schedule_rig.h"

enum { MOST_STAGES = 8, MOST_CHUNKS = 4, MOST_BLOCKS = 64, GROUPS = 3 };

/* Times are sums of a few thousand terms near 1: rounding stays far below this. */
static const double ROUNDING = 1e-9;

/* "F0a B0b …": as in test_schedule.c, and the chunk; compute alone, or all. */
static void spell(const pt_action_list *list, bool all, char *text, size_t bytes)
{
    static const char letters[] = "FBWCUIrsRS";
    size_t at = 0;
    text[0] = 0;
    for (int i = 0; i < list->n && at < bytes; i++) {
        const pt_action *a = &list->actions[i];
        if (all || a->kind < PT_RECV_ACT)
            at += (size_t)snprintf(text + at, bytes - at, "%s%c%d%c", at ? " " : "",
                                   letters[a->kind], a->micro_batch, 'a' + a->chunk);
    }
}

/* ---- the order ---- */

/* Written by hand from the paper's figure 4 and section 2.2.2: the first of 2 ranks runs 2 + 2 more
 * forwards than it would alone, then by turns; groups of 2. */
static void test_lists(void **state)
{
    (void)state;
    static const struct {
        int stages, n, per_step, chunks, rank;
        const char *computes;
    } cases[] = {
        {2, 4, 4, 2, 0,
         "F0a F1a F0b F1b F2a B0b W0b F3a B1b W1b F2b B0a W0a F3b B1a W1a "
         "B2b W2b B3b W3b B2a W2a B3a W3a U3a"},
        {2, 4, 4, 2, 1,
         "F0a F1a F0b B0b W0b F1b B1b W1b F2a B0a W0a F3a B1a W1a F2b B2b W2b "
         "F3b B3b W3b B2a W2a B3a W3a U3a"},
        /* One group: all forwards first. */
        {2, 2, 2, 2, 1, "F0a F1a F0b F1b B0b W0b B1b W1b B0a W0a B1a W1a U1a"},
        {2, 2, 2, 3, 0,
         "F0a F1a F0b F1b F0c F1c B0c W0c B1c W1c B0b W0b B1b W1b B0a W0a B1a W1a U1a"},
        /* A short last step is the full one without what it lacks: micro-batch 7 here. */
        {2, 7, 4, 2, 1,
         "F0a F1a F0b B0b W0b F1b B1b W1b F2a B0a W0a F3a B1a W1a F2b B2b W2b "
         "F3b B3b W3b B2a W2a B3a W3a U3a "
         "F4a F5a F4b B4b W4b F5b B5b W5b F6a B4a W4a B5a W5a F6b B6b W6b B6a W6a U6a"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[1024];
        pt_schedule *s =
            make(interleaved(cases[i].stages, cases[i].n, cases[i].per_step, cases[i].chunks));
        spell(&s->ranks[cases[i].rank], false, text, sizeof text);
        assert_string_equal(text, cases[i].computes);
        pt_schedule_free(s);
    }
}

/* A message goes to the block behind: from the last rank's chunk to the first rank's next one. */
static void test_messages(void **state)
{
    (void)state;
    static const char *const lowered[] = {
        "F0a s0a F1a s1a r0b F0b s0b r1b F1b s1b R0b B0b S0b W0b R1b B1b S1b W1b R0a B0a W0a R1a "
        "B1a W1a U1a",
        "r0a F0a s0a r1a F1a s1a r0b F0b r1b F1b B0b S0b W0b B1b S1b W1b R0a B0a S0a W0a R1a B1a "
        "S1a W1a U1a",
    };
    pt_schedule *s = make(interleaved(2, 2, 2, 2));
    for (int rank = 0; rank < 2; rank++) {
        char text[1024];
        spell(&s->ranks[rank], true, text, sizeof text);
        assert_string_equal(text, lowered[rank]);
        for (int i = 0; i < s->ranks[rank].n; i++) {
            const pt_action *a = &s->ranks[rank].actions[i];
            assert_int_equal(a->peer, a->kind >= PT_RECV_ACT ? 1 - rank : -1);
        }
    }
    pt_schedule_free(s);
    s = make(interleaved(3, 3, 3, 2));
    for (int i = 0; i < s->ranks[2].n; i++) {
        const pt_action *a = &s->ranks[2].actions[i];
        if (a->kind >= PT_RECV_ACT)
            assert_int_equal(a->peer, a->kind == PT_SEND_ACT || a->kind == PT_RECV_GRAD ? 0 : 1);
    }
    pt_schedule_free(s);
}

static void test_one_chunk_is_1f1b(void **state)
{
    (void)state;
    for (int stages = 1; stages <= MOST_STAGES; stages++)
        for (int per_step = 1; per_step <= 2 * MOST_STAGES; per_step++) {
            pt_schedule_spec spec = interleaved(stages, 2 * per_step + 1, per_step, 1);
            pt_schedule *one = make(spec);
            spec.name = "1f1b";
            pt_schedule *other = make(spec);
            for (int rank = 0; rank < stages; rank++) {
                assert_int_equal(one->ranks[rank].n, other->ranks[rank].n);
                assert_memory_equal(one->ranks[rank].actions, other->ranks[rank].actions,
                                    (size_t)one->ranks[rank].n * sizeof(pt_action));
            }
            pt_schedule_free(one);
            pt_schedule_free(other);
        }
}

/* ---- what the checker proves ---- */

static int min(int a, int b)
{
    return a < b ? a : b;
}

/* Activations of one chunk and of all, counted without the checker. */
static void count_stash(const pt_schedule *s, int rank, int peaks[MOST_CHUNKS], int *ret_all)
{
    int now[MOST_CHUNKS] = {0}, all = 0;
    *ret_all = 0;
    memset(peaks, 0, MOST_CHUNKS * sizeof *peaks);
    for (int i = 0; i < s->ranks[rank].n; i++) {
        const pt_action *a = &s->ranks[rank].actions[i];
        int change = (a->kind == PT_FORWARD) - (a->kind == PT_BACKWARD_WEIGHT);
        now[a->chunk] += change;
        all += change;
        if (now[a->chunk] > peaks[a->chunk])
            peaks[a->chunk] = now[a->chunk];
        if (all > *ret_all)
            *ret_all = all;
    }
}

static void check_memory(const pt_schedule *s, const pt_schedule_rank *found)
{
    const pt_schedule_spec *spec = &s->spec;
    for (int rank = 0; rank < spec->stages; rank++) {
        int peaks[MOST_CHUNKS], all;
        count_stash(s, rank, peaks, &all);
        for (int c = 0; c < spec->chunks; c++) {
            const pt_schedule_rank *at = &found[pt_schedule_block(spec, rank, c)];
            assert_int_equal(at->stash_peak, peaks[c]);
            assert_int_equal(at->all_stash_peak, all);
            assert_int_equal(at->held_peak, 0);
            assert_int_equal(at->versions_peak, 1);
            assert_int_equal(at->staleness_max, 0);
        }
        if (spec->micro_batches < spec->per_step)
            continue;
        int warm_up = 2 * (spec->stages - 1 - rank) + (spec->chunks - 1) * spec->stages;
        int units = spec->per_step * spec->chunks;
        assert_int_equal(all, spec->per_step == spec->stages ? units : min(warm_up + 1, units));
    }
}

/* Every length of a span, so that every kind of short step occurs. */
static void check_spans(int stages, int chunks, int groups, bool clip)
{
    static pt_error err;
    int per_step = groups * stages;
    for (int n = 1; n <= 2 * per_step; n++) {
        pt_schedule_rank found[MOST_BLOCKS];
        pt_schedule_spec spec = interleaved(stages, n, per_step, chunks);
        spec.clip = clip;
        pt_schedule *s = make(spec);
        assert_ok(pt_schedule_check(s, /*slots=*/1, NULL, &err), &err);
        assert_ok(pt_schedule_check(s, pt_schedule_slots(&spec), found, &err), &err);
        check_memory(s, found);
        pt_schedule_free(s);
    }
}

static void test_all_pass(void **state)
{
    (void)state;
    for (int stages = 2; stages <= MOST_STAGES; stages++)
        for (int chunks = 2; chunks <= MOST_CHUNKS; chunks++)
            for (int groups = 1; groups <= GROUPS; groups++)
                check_spans(stages, chunks, groups, (groups + chunks) % 2 == 0);
}

static void test_infer(void **state)
{
    (void)state;
    static pt_error err;
    char text[256];
    for (int stages = 2; stages <= MOST_STAGES; stages++)
        for (int chunks = 1; chunks <= MOST_CHUNKS; chunks++)
            for (int n = 1; n <= 2 * stages + 1; n++) {
                pt_schedule *s = NULL;
                assert_ok(pt_schedule_infer(stages, chunks, n, &s, &err), &err);
                assert_int_equal(s->ranks[0].n, n * chunks);
                assert_ok(pt_schedule_lower(s, &err), &err);
                assert_ok(pt_schedule_check(s, /*slots=*/1, NULL, &err), &err);
                if (stages == 2 && chunks == 2 && n == 3) {
                    spell(&s->ranks[0], false, text, sizeof text);
                    assert_string_equal(text, "I0a I1a I0b I1b I2a I2b");
                }
                pt_schedule_free(s);
            }
}

/* ---- time ---- */

/* The whole span, when every block takes the V-th part of its rank's F, B, W. */
static double simulate(const pt_schedule *s, double f, double b, double w)
{
    static pt_error err;
    pt_stage_cost costs[MOST_BLOCKS];
    double total = -1, v = s->spec.chunks;
    for (int i = 0; i < pt_schedule_blocks(&s->spec); i++)
        costs[i] =
            (pt_stage_cost){.forward = f / v, .backward_input = b / v, .backward_weight = w / v};
    assert_ok(
        pt_schedule_simulate(s, costs, pt_schedule_slots(&s->spec), NULL, NULL, NULL, &total, &err),
        &err);
    return total;
}

static void check_bubble(int stages, int chunks, int groups, const double cost[3])
{
    enum { STEPS = 2 };
    double f = cost[0], b = cost[1], w = cost[2];
    int per_step = groups * stages;
    pt_schedule *s = make(interleaved(stages, STEPS * per_step, per_step, chunks));
    double bubble = (stages - 1) * (f + b);
    if (chunks > 1 && groups > 1)
        bubble += fmax(0, (stages - 1) * (w - f) - (b + w));
    double total = simulate(s, f, b, w),
           wanted = STEPS * (per_step * (f + b + w) + bubble / chunks);
    if (!(fabs(total - wanted) <= ROUNDING))
        fail_msg("P %d, V %d, M %d, F %g, B %g, W %g: %.12g is not %.12g", stages, chunks, per_step,
                 f, b, w, total, wanted);
    pt_schedule_free(s);
}

/* interleave.c. The paper's own case is W = 0, its B being all of the backward. */
static void test_bubble(void **state)
{
    (void)state;
    static const double costs[][3] = {{1, 2, 0}, {1, 1, 1},    {1.5, 2.25, 0.75}, {3, 1, 3},
                                      {4, 1, 2}, {1, 0.25, 1}, {1, 1, 2},         {1, 3, 4}};
    for (size_t i = 0; i < sizeof costs / sizeof costs[0]; i++)
        for (int stages = 2; stages <= 2 * MOST_STAGES; stages += stages < MOST_STAGES ? 1 : 4)
            for (int chunks = 1; chunks <= MOST_CHUNKS; chunks++)
                for (int groups = 1; groups <= GROUPS; groups++)
                    check_bubble(stages, chunks, groups, costs[i]);
}

/* With the two slots of other schedules the last rank's gradients do not fit: a group of 16 comes
 * back while 8 are taken. */
static void test_that_slots_matter(void **state)
{
    (void)state;
    static pt_error err;
    const pt_schedule_spec spec = interleaved(16, 32, 32, 2);
    pt_stage_cost costs[MOST_BLOCKS];
    double two, enough;
    pt_schedule *s = make(spec);
    for (int i = 0; i < MOST_BLOCKS; i++)
        costs[i] = (pt_stage_cost){.forward = 1, .backward_input = 1, .backward_weight = 1};
    assert_int_equal(pt_schedule_slots(&spec), 8);
    assert_int_equal(pt_schedule_slots(&(pt_schedule_spec){.stages = 4, .chunks = 2}), 2);
    assert_int_equal(pt_schedule_slots(&(pt_schedule_spec){.stages = 16, .chunks = 1}), 2);
    assert_int_equal(
        pt_schedule_slots(&(pt_schedule_spec){.stages = 5, .chunks = 2, .in_flight = 4}), 7);
    assert_ok(pt_schedule_simulate(s, costs, 2, NULL, NULL, NULL, &two, &err), &err);
    assert_ok(pt_schedule_simulate(s, costs, 8, NULL, NULL, NULL, &enough, &err), &err);
    assert_true(fabs(enough - (32 * 6 + 15 * 2)) <= ROUNDING);
    assert_true(two > enough + 1);
    pt_schedule_free(s);
}

/* Every block costs something else: CLIP and UPDATE take what all of the rank's do. */
static void test_costs_of_blocks(void **state)
{
    (void)state;
    static pt_error err;
    pt_stage_cost costs[4];
    pt_simulated_rank ranks[2];
    double total;
    pt_schedule_spec spec = interleaved(2, 2, 2, 2);
    spec.clip = true;
    pt_schedule *s = make(spec);
    for (int i = 0; i < 4; i++)
        costs[i] = (pt_stage_cost){.forward = pow(8, i), .update = 100 * (i + 1), .clip = i + 1};
    assert_ok(pt_schedule_simulate(s, costs, 2, NULL, NULL, ranks, &total, &err), &err);
    /* Two micro-batches through 1, 8, 64, 512: the last block is at work from 73 to 1097. */
    assert_true(fabs(ranks[0].busy - (2 * (1 + 64) + 1 + 3 + 100 + 300)) <= ROUNDING);
    assert_true(fabs(ranks[1].busy - (2 * (8 + 512) + 2 + 4 + 200 + 400)) <= ROUNDING);
    assert_true(fabs(total - (1097 + 6 + 600)) <= ROUNDING);
    costs[3].forward = -1;
    assert_fails(pt_schedule_simulate(s, costs, 2, NULL, NULL, NULL, &total, &err), PT_EINPUT,
                 "stage 3: a cost of -1", &err);
    pt_schedule_free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lists),
        cmocka_unit_test(test_messages),
        cmocka_unit_test(test_one_chunk_is_1f1b),
        cmocka_unit_test(test_all_pass),
        cmocka_unit_test(test_infer),
        cmocka_unit_test(test_bubble),
        cmocka_unit_test(test_that_slots_matter),
        cmocka_unit_test(test_costs_of_blocks),
    };
    return cmocka_run_group_tests_name("interleave", tests, NULL, NULL);
}
