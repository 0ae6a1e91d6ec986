/* The simulator against formulas and times worked out by hand; the picture against its text. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "schedule_rig.h"

enum { MOST_STAGES = 8, SLOTS = 2 };

/* Times are sums of a few thousand terms near 1: rounding stays far below this. */
static const double ROUNDING = 1e-9;
/* A span of some hundred micro-batches begins and ends its window somewhere in a period of P
 * micro-batches: up to one period of a few hundred is cut off at either end. */
static const double EDGE_EFFECT = 0.02;

static void assert_near(double value, double expected, double tolerance)
{
    if (!(fabs(value - expected) <= tolerance))
        fail_msg("%.12g is not %.12g", value, expected);
}

static pt_schedule *make_infer(int stages, int n)
{
    static pt_error err;
    pt_schedule *schedule = NULL;
    assert_ok(pt_schedule_infer(stages, 1, n, &schedule, &err), &err);
    return lowered(schedule);
}

/* Every stage costs the same. */
static double simulate(const pt_schedule *s, pt_stage_cost cost, int slots,
                       pt_simulated_rank *ret_ranks)
{
    static pt_error err;
    pt_stage_cost costs[MOST_STAGES];
    double total = -1;
    for (int rank = 0; rank < s->spec.stages; rank++)
        costs[rank] = cost;
    assert_ok(pt_schedule_simulate(s, costs, slots, NULL, NULL, ret_ranks, &total, &err), &err);
    return total;
}

/* ---- synchronous schedules ---- */

/* Per step: M (F + B) of work and a bubble of (P-1)(F + B'), where B' is what the stage before
 * waits for: all of the backward when it is one pass, its input half when it is split, because the
 * gradient leaves before the weight half begins. */
static void check_flushed(const char *name, int stages, int n, int per_step, double f, double input,
                          double weight)
{
    pt_schedule *s = make((pt_schedule_spec){name, stages, n, per_step, 0, false, 1});
    pt_simulated_rank ranks[MOST_STAGES];
    double total = simulate(
        s, (pt_stage_cost){.forward = f, .backward_input = input, .backward_weight = weight}, SLOTS,
        ranks);
    int steps = (n + per_step - 1) / per_step;
    double work = n * (f + input + weight), bubble = steps * (stages - 1) * (f + input);
    assert_near(total, work + bubble, ROUNDING);
    for (int rank = 0; rank < stages; rank++) {
        assert_near(ranks[rank].busy, work, ROUNDING);
        assert_near(ranks[rank].bubble, bubble / (work + bubble), ROUNDING);
    }
    assert_near(ranks[0].idle, bubble, ROUNDING);
    pt_schedule_free(s);
}

static void test_bubble_of_flushing(void **state)
{
    (void)state;
    static const char *const names[] = {"gpipe", "1f1b"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        for (int stages = 1; stages <= MOST_STAGES; stages++)
            for (int per_step = 1; per_step <= 12; per_step++) {
                check_flushed(names[i], stages, 3 * per_step, per_step, 1, 2, 0);
                check_flushed(names[i], stages, 3 * per_step, per_step, 1, 1, 1);
                check_flushed(names[i], stages, 2 * per_step + 1, per_step + 1, 1.5, 2.25, 0);
            }
}

/* Weight gradients that are put off to the end hide under what would be idle, P-1 of them or as
 * many as the step has behind the first: (P-1)(F+B) - (P-1) W of bubble for M >= P. For W <= F and
 * W <= B; see generate.c. */
static void check_zero_bubble(int stages, int per_step, int steps, double f, double b, double w)
{
    const pt_stage_cost cost = {.forward = f, .backward_input = b, .backward_weight = w};
    pt_schedule *s =
        make((pt_schedule_spec){"zb-h1", stages, steps * per_step, per_step, 0, false, 1});
    pt_schedule *plain =
        make((pt_schedule_spec){"1f1b", stages, steps * per_step, per_step, 0, false, 1});
    pt_simulated_rank ranks[MOST_STAGES];
    double total = simulate(s, cost, SLOTS, ranks);
    int delay = (stages < per_step ? stages : per_step) - 1;
    double work = steps * per_step * (f + b + w);
    double bubble = steps * ((stages - 1) * (f + b) - delay * w);
    assert_near(total, work + bubble, ROUNDING);
    assert_near(ranks[0].idle, bubble, ROUNDING);
    assert_near(simulate(plain, cost, SLOTS, NULL) - total, steps * delay * w, ROUNDING);
    pt_schedule_free(s);
    pt_schedule_free(plain);
}

static void test_bubble_of_zb_h1(void **state)
{
    (void)state;
    static const double costs[][3] = {
        {1, 1, 1}, {1, 2, 1}, {1.5, 1, 0.75}, {3, 2.5, 0.5}, {1, 2, 0}};
    for (size_t i = 0; i < sizeof(costs) / sizeof(costs[0]); i++)
        for (int stages = 1; stages <= MOST_STAGES; stages++)
            for (int per_step = 1; per_step <= 20; per_step++)
                for (int steps = 1; steps <= 3; steps++)
                    check_zero_bubble(stages, per_step, steps, costs[i][0], costs[i][1],
                                      costs[i][2]);
}

/* W > F: the first stage never catches up with what it put behind, and pays the fill. */
static void test_bubble_of_zb_h1_with_long_weights(void **state)
{
    (void)state;
    const pt_stage_cost cost = {.forward = 1, .backward_input = 3, .backward_weight = 2};
    for (int stages = 2; stages <= MOST_STAGES; stages++)
        for (int per_step = stages; per_step <= 20; per_step++) {
            pt_schedule *s =
                make((pt_schedule_spec){"zb-h1", stages, per_step, per_step, 0, false, 1});
            assert_near(simulate(s, cost, SLOTS, NULL), per_step * 6 + (stages - 1) * 3, ROUNDING);
            pt_schedule_free(s);
            /* W > B: after a single step the last stage is still at it. */
            const pt_stage_cost late = {.forward = 2, .backward_input = 1, .backward_weight = 2};
            s = make((pt_schedule_spec){"zb-h1", stages, 3 * per_step, per_step, 0, false, 1});
            assert_near(simulate(s, late, SLOTS, NULL),
                        3 * (per_step * 5 + (stages - 1) * 1) + (stages - 1) * 1, ROUNDING);
            pt_schedule_free(s);
        }
}

static void test_clip_and_update_cost(void **state)
{
    (void)state;
    static pt_error err;
    pt_schedule *s = make((pt_schedule_spec){"gpipe", 2, 1, 1, 0, true, 1});
    const pt_stage_cost costs[2] = {
        {.forward = 1, .backward_input = 2, .backward_weight = 4, .update = 8, .clip = 16},
        {.forward = 32, .backward_input = 64, .backward_weight = 128, .update = 256, .clip = 512},
    };
    double start[2][8], end[2][8], total;
    double *starts[2] = {start[0], start[1]}, *ends[2] = {end[0], end[1]};
    pt_simulated_rank ranks[2];
    assert_int_equal(s->ranks[0].n, 7); /* F s R B W C U */
    assert_int_equal(s->ranks[1].n, 7); /* r F B S W C U */
    assert_ok(pt_schedule_simulate(s, costs, SLOTS, starts, ends, ranks, &total, &err), &err);
    static const double starts0[] = {0, 1, 1, 97, 99, 225, 241};
    static const double ends0[] = {1, 1, 97, 99, 103, 241, 249};
    static const double starts1[] = {0, 1, 33, 97, 97, 225, 737};
    static const double ends1[] = {1, 33, 97, 97, 225, 737, 993};
    for (int i = 0; i < 7; i++) {
        assert_near(start[0][i], starts0[i], ROUNDING);
        assert_near(end[0][i], ends0[i], ROUNDING);
        assert_near(start[1][i], starts1[i], ROUNDING);
        assert_near(end[1][i], ends1[i], ROUNDING);
    }
    assert_near(total, 993, ROUNDING);
    assert_near(ranks[0].busy, 31, ROUNDING);
    assert_near(ranks[0].idle, 249 - 31, ROUNDING);
    assert_near(ranks[1].busy, 992, ROUNDING);
    assert_near(ranks[1].idle, 1, ROUNDING);
    assert_near(ranks[1].bubble, 1 - 992.0 / 993, ROUNDING);
    pt_schedule_free(s);
}

static void test_one_stage(void **state)
{
    (void)state;
    static const char *const names[] = {"gpipe", "1f1b", "async"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        pt_simulated_rank rank;
        pt_schedule *s = make((pt_schedule_spec){names[i], 1, 1, 1, 0, false, 1});
        const pt_stage_cost cost = {
            .forward = 1, .backward_input = 2, .backward_weight = 3, .update = 4, .send_act = 99};
        assert_near(simulate(s, cost, 1, &rank), 10, ROUNDING);
        assert_near(rank.busy, 10, ROUNDING);
        assert_near(rank.idle, 0, ROUNDING);
        assert_near(rank.bubble, 0, ROUNDING);
        assert_near(simulate(s, (pt_stage_cost){0}, 1, &rank), 0, ROUNDING);
        assert_near(rank.bubble, 0, ROUNDING);
        pt_schedule_free(s);
    }
}

/* ---- asynchronous schedules ---- */

static void test_no_bubble_when_balanced(void **state)
{
    (void)state;
    for (int stages = 1; stages <= MOST_STAGES; stages++)
        for (int per_step = 1; per_step <= 4; per_step++) {
            pt_simulated_rank ranks[MOST_STAGES];
            pt_schedule *s = make((pt_schedule_spec){"async", stages, 400, per_step, 0, false, 1});
            const pt_stage_cost whole = {.forward = 1, .backward_input = 2};
            const pt_stage_cost split = {.forward = 1, .backward_input = 1, .backward_weight = 1};
            simulate(s, whole, SLOTS, ranks);
            for (int rank = 0; rank < stages; rank++)
                assert_near(ranks[rank].bubble, 0, EDGE_EFFECT);
            simulate(s, split, SLOTS, ranks);
            for (int rank = 0; rank < stages; rank++)
                assert_near(ranks[rank].bubble, 0, EDGE_EFFECT);
            pt_schedule_free(s);
        }
}

/* A message under way for l keeps P micro-batches busy for P (f+b) + 2 l (P-1): efficiency is
 * 1 / (1 + 2 l (P-1) / (P (f+b))) with nothing more in flight. */
static void test_latency_costs(void **state)
{
    (void)state;
    static const double latencies[] = {0, 0.25, 1, 3};
    const double f = 1, b = 2;
    for (int stages = 2; stages <= MOST_STAGES; stages++)
        for (size_t i = 0; i < sizeof(latencies) / sizeof(latencies[0]); i++) {
            double l = latencies[i];
            const pt_stage_cost cost = {
                .forward = f, .backward_input = b, .send_act = l, .send_grad = l};
            pt_simulated_rank ranks[MOST_STAGES];
            pt_schedule *s = make((pt_schedule_spec){"async", stages, 600, 1, 0, false, 1});
            simulate(s, cost, /*slots=*/8, ranks);
            double efficiency = 1 / (1 + 2 * l * (stages - 1) / (stages * (f + b)));
            for (int rank = 0; rank < stages; rank++)
                assert_near(1 - ranks[rank].bubble, efficiency, EDGE_EFFECT);
            pt_schedule_free(s);
        }
}

/* k more per link hide latency once the micro-batches that a link keeps busy, (1+k) (f+b), outlast
 * the round trip of (f+b) + 2 l: k >= 2 l / (f+b). */
static void test_in_flight_hides_latency(void **state)
{
    (void)state;
    const pt_stage_cost cost = {
        .forward = 1, .backward_input = 2, .send_act = 1.5, .send_grad = 1.5};
    for (int stages = 2; stages <= MOST_STAGES; stages++) {
        pt_simulated_rank ranks[MOST_STAGES];
        pt_schedule *s = make((pt_schedule_spec){"async", stages, 600, 1, 1, false, 1});
        simulate(s, cost, /*slots=*/8, ranks);
        for (int rank = 0; rank < stages; rank++)
            assert_near(ranks[rank].bubble, 0, EDGE_EFFECT);
        pt_schedule_free(s);
    }
}

/* The slowest stage sets the pace and is never idle; another one is busy for its share. */
static void test_unbalanced(void **state)
{
    (void)state;
    static pt_error err;
    const pt_stage_cost costs[3] = {{.forward = 1, .backward_input = 2},
                                    {.forward = 2, .backward_input = 4},
                                    {.forward = 1, .backward_input = 1}};
    static const double bubbles[3] = {0.5, 0, 2.0 / 3};
    pt_simulated_rank ranks[3];
    double total;
    pt_schedule *s = make((pt_schedule_spec){"async", 3, 400, 1, 0, false, 1});
    assert_ok(pt_schedule_simulate(s, costs, SLOTS, NULL, NULL, ranks, &total, &err), &err);
    for (int rank = 0; rank < 3; rank++)
        assert_near(ranks[rank].bubble, bubbles[rank], EDGE_EFFECT);
    assert_near(total, 400 * 6, 6 * 3 + ROUNDING);
    pt_schedule_free(s);
}

/* Fewer micro-batches than stages: no steady state, so the whole span is the window. */
static void test_span_without_steady_state(void **state)
{
    (void)state;
    pt_simulated_rank ranks[4];
    pt_schedule *s = make((pt_schedule_spec){"async", 4, 1, 1, 0, false, 1});
    double total = simulate(s, (pt_stage_cost){.forward = 1, .backward_input = 1}, SLOTS, ranks);
    assert_near(total, 8, ROUNDING);
    for (int rank = 0; rank < 4; rank++)
        assert_near(ranks[rank].bubble, 0.75, ROUNDING);
    pt_schedule_free(s);
}

/* ---- slots ---- */

/* Forward 1, under way 5, three messages. With one slot a message leaves when the one before has
 * arrived: 1, 6, 11; with two the third waits for the first: 1, 2, 6; with three nobody waits. */
static void test_slots_of_the_sender(void **state)
{
    (void)state;
    static const double totals[] = {17, 12, 9, 9};
    pt_schedule *s = make_infer(2, 3);
    for (int slots = 1; slots <= 4; slots++)
        assert_near(simulate(s, (pt_stage_cost){.forward = 1, .send_act = 5}, slots, NULL),
                    totals[slots - 1], ROUNDING);
    pt_schedule_free(s);
}

/* A slow receiver: one message in its slot, one in the sender's, and then the sender must wait for
 * the slow stage to begin its second micro-batch (11) with its fourth message (3 + 1). */
static void test_slots_of_the_receiver(void **state)
{
    (void)state;
    static pt_error err;
    const pt_stage_cost costs[2] = {{.forward = 1}, {.forward = 10}};
    double start[2][8], end[2][8], total;
    double *starts[2] = {start[0], start[1]}, *ends[2] = {end[0], end[1]};
    pt_simulated_rank ranks[2];
    pt_schedule *s = make_infer(2, 4);
    assert_ok(pt_schedule_simulate(s, costs, /*slots=*/1, starts, ends, ranks, &total, &err), &err);
    static const double send_ends[4] = {1, 2, 3, 11};
    for (int m = 0; m < 4; m++)
        assert_near(end[0][2 * m + 1], send_ends[m], ROUNDING);
    assert_near(start[0][7], 4, ROUNDING);
    assert_near(ranks[0].idle, 7, ROUNDING);
    assert_near(total, 41, ROUNDING);
    pt_schedule_free(s);
}

/* ---- refusals ---- */

static void test_bad_input(void **state)
{
    (void)state;
    static pt_error err;
    double total = -7;
    pt_schedule *s = make((pt_schedule_spec){"1f1b", 2, 2, 2, 0, false, 1});
    pt_stage_cost costs[2] = {{.forward = 1}, {.forward = 1, .update = -1}};
    assert_fails(pt_schedule_simulate(s, costs, 1, NULL, NULL, NULL, &total, &err), PT_EINPUT,
                 "stage 1: a cost of -1", &err);
    costs[1].update = NAN;
    assert_fails(pt_schedule_simulate(s, costs, 1, NULL, NULL, NULL, &total, &err), PT_EINPUT,
                 "finite", &err);
    costs[1].update = 0;
    assert_fails(pt_schedule_simulate(s, costs, 0, NULL, NULL, NULL, &total, &err), PT_EINPUT,
                 "0 slots", &err);
    s->ranks[0].n = 1; /* its SEND_ACT is gone */
    assert_fails(pt_schedule_simulate(s, costs, 1, NULL, NULL, NULL, &total, &err), PT_EINPUT,
                 "rank 1 waits in RECV_ACT of micro-batch 0 from rank 0", &err);
    assert_fails(pt_schedule_draw(s, 100, stdout, &err), PT_EINPUT, "cannot be drawn", &err);
    assert_near(total, -7, 0);
    pt_schedule_free(s);
}

/* ---- the picture ---- */

static void check_drawn(pt_schedule *s, int columns, const char *expected)
{
    static pt_error err;
    char *text = NULL;
    size_t bytes;
    FILE *out = open_memstream(&text, &bytes);
    assert_non_null(out);
    assert_ok(pt_schedule_draw(s, columns, out, &err), &err);
    assert_int_equal(fclose(out), 0);
    assert_string_equal(text, expected);
    free(text);
    pt_schedule_free(s);
}

static void test_picture(void **state)
{
    (void)state;
    check_drawn(make((pt_schedule_spec){"1f1b", 2, 4, 2, 0, false, 1}), 100,
                "1f1b: 2 stages, 4 micro-batches, 2 a step\n"
                "  time   0              5              10             15\n"
                "rank 0 | 0F 1F  . 0B 0W  . 1B 1W*2F 3F  . 2B 2W  . 3B 3W*\n"
                "rank 1 |  . 0F 0B 0W 1F 1B 1W* .  . 2F 2B 2W 3F 3B 3W* .\n"
                "F forward  B gradient of inputs  W gradient of weights  * update  . idle\n");
    check_drawn(make((pt_schedule_spec){"async", 2, 3, 1, 0, false, 1}), 100,
                "async: 2 stages, 3 micro-batches, 1 a step\n"
                "  time   0              5              10\n"
                "rank 0 | 0F 1F  . 0B 0W*2F 1B 1W* . 2B 2W*\n"
                "rank 1 |  . 0F 0B 0W*1F 1B 1W*2F 2B 2W* .\n"
                "F forward  B gradient of inputs  W gradient of weights  * update  . idle\n");
    check_drawn(make_infer(3, 2), 100,
                "infer: 3 stages, 2 micro-batches\n"
                "  time   0\n"
                "rank 0 | 0I 1I  .  .\n"
                "rank 1 |  . 0I 1I  .\n"
                "rank 2 |  .  . 0I 1I\n"
                "I inference  . idle\n");
}

static void test_picture_is_cut(void **state)
{
    (void)state;
    check_drawn(make((pt_schedule_spec){"gpipe", 1, 100, 2, 0, true, 1}), 30,
                "gpipe: 1 stage, 100 micro-batches, 2 a step\n"
                "  time   0              5\n"
                "rank 0 | 0F 1F 0B 0W 1B 1W#2F\n"
                "F forward  B gradient of inputs  W gradient of weights  # clip and update  . "
                "idle\n"
                "cut: 7 of 300 columns are shown\n");
    check_drawn(make_infer(1, 1), 1,
                "infer: 1 stage, 1 micro-batch\n"
                "  time   0\n"
                "rank 0 | 0I\n"
                "I inference  . idle\n");
}

/* However much is in flight: what the checker lets through can be drawn. */
static void test_picture_of_more_in_flight(void **state)
{
    (void)state;
    static pt_error err;
    for (int in_flight = 0; in_flight <= 40; in_flight++)
        for (int stages = 2; stages <= 4; stages++) {
            char *text = NULL;
            size_t bytes;
            pt_schedule *s = make((pt_schedule_spec){"async", stages, 60, 1, in_flight, false, 1});
            FILE *out = open_memstream(&text, &bytes);
            assert_non_null(out);
            assert_ok(pt_schedule_check(s, pt_schedule_slots(&s->spec), NULL, &err), &err);
            assert_ok(pt_schedule_draw(s, 100, out, &err), &err);
            assert_int_equal(fclose(out), 0);
            free(text);
            pt_schedule_free(s);
        }
}

/* No line of a picture is wider than it was told to be. */
static void test_picture_keeps_its_width(void **state)
{
    (void)state;
    static pt_error err;
    for (int n = 1; n <= 20000; n = n * 3 + 1)
        for (int columns = 80; columns <= 100; columns++) {
            char *text = NULL;
            size_t bytes;
            pt_schedule *s = make((pt_schedule_spec){"async", 11, n, 2, 0, false, 1});
            FILE *out = open_memstream(&text, &bytes);
            assert_non_null(out);
            assert_ok(pt_schedule_draw(s, columns, out, &err), &err);
            assert_int_equal(fclose(out), 0);
            int lines = 0;
            for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n"), lines++)
                assert_in_range(strlen(line), 1, columns);
            assert_in_range(lines, 14, 15);
            free(text);
            pt_schedule_free(s);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bubble_of_flushing),
        cmocka_unit_test(test_bubble_of_zb_h1),
        cmocka_unit_test(test_bubble_of_zb_h1_with_long_weights),
        cmocka_unit_test(test_clip_and_update_cost),
        cmocka_unit_test(test_one_stage),
        cmocka_unit_test(test_no_bubble_when_balanced),
        cmocka_unit_test(test_latency_costs),
        cmocka_unit_test(test_in_flight_hides_latency),
        cmocka_unit_test(test_unbalanced),
        cmocka_unit_test(test_span_without_steady_state),
        cmocka_unit_test(test_slots_of_the_sender),
        cmocka_unit_test(test_slots_of_the_receiver),
        cmocka_unit_test(test_bad_input),
        cmocka_unit_test(test_picture),
        cmocka_unit_test(test_picture_is_cut),
        cmocka_unit_test(test_picture_of_more_in_flight),
        cmocka_unit_test(test_picture_keeps_its_width),
    };
    return cmocka_run_group_tests_name("simulate", tests, NULL, NULL);
}
