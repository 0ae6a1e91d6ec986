/* Lists that were changed by hand: what the checker refuses, with the cell that its picture marks,
 * and what it still lets through. */
#include <stdint.h>
#include <string.h>

#include "schedule_edits.h"
#include "schedule_rig.h"

enum { SLOTS = 2 };

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_held_gradients),
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
    };
    return cmocka_run_group_tests_name("schedule_checked", tests, NULL, NULL);
}
