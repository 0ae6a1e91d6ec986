/* The cuda backend's lanes and events on the fake runtime (fake/fake.h): whatever order the
 * adversary takes, nothing is read before its event; and each edge that is left out is noticed. */
#include <string.h>

#include "fake/fake.h"
#include "fake_rig.h"
#include "pipetrain/clock.h"
#include "suite.h"

/* ---- the conveyor -----------------------------------------------------------------------------
 *
 *   host_in → dev_in → dev_out → host_out[round]
 *      copy_in   axpby    copy_out
 *
 * One buffer in each place, used again in every round: six edges keep the lanes and the host apart.
 */

typedef enum edge {
    HOST_WAITS_FOR_IN, /* before it fills host_in again */
    IN_WAITS_FOR_COMPUTE,
    COMPUTE_WAITS_FOR_IN,
    COMPUTE_WAITS_FOR_OUT,
    OUT_WAITS_FOR_COMPUTE,
    HOST_WAITS_FOR_OUT, /* before it reads host_out */
    EDGES               /* none is left out */
} edge;

enum { ROUNDS = 6, WIDTH = 40 };

typedef struct conveyor {
    pt_backend *b;
    edge omitted;
    float *host_in, *host_out[ROUNDS], *dev_in, *dev_out;
    pt_event *arrived, *made, *left;
} conveyor;

static void conveyor_init(conveyor *c, uint64_t seed, edge omitted)
{
    pt_error err = {PT_OK, ""};
    const size_t bytes = WIDTH * sizeof(float);
    memset(c, 0, sizeof *c);
    c->b = open_cuda(seed);
    c->omitted = omitted;
    c->host_in = pinned(c->b, bytes);
    for (int r = 0; r < ROUNDS; r++)
        c->host_out[r] = pinned(c->b, bytes);
    c->dev_in = device(c->b, bytes);
    c->dev_out = device(c->b, bytes);
    assert_ok(c->b->row->event_new(c->b, &c->arrived, &err), &err);
    assert_ok(c->b->row->event_new(c->b, &c->made, &err), &err);
    assert_ok(c->b->row->event_new(c->b, &c->left, &err), &err);
}

static void conveyor_clear(conveyor *c)
{
    const pt_backend_row *row = c->b->row;
    row->event_free(c->b, c->arrived);
    row->event_free(c->b, c->made);
    row->event_free(c->b, c->left);
    row->host_free(c->b, c->host_in);
    for (int r = 0; r < ROUNDS; r++)
        row->host_free(c->b, c->host_out[r]);
    row->dev_free(c->b, c->dev_in);
    row->dev_free(c->b, c->dev_out);
    close_cuda(c->b);
}

static void lane_waits(conveyor *c, edge e, pt_lane lane, pt_event *event)
{
    pt_error err = {PT_OK, ""};
    if (e != c->omitted)
        assert_ok(c->b->row->event_wait(c->b, lane, event, &err), &err);
}

static void host_waits(conveyor *c, edge e, pt_event *event)
{
    pt_error err = {PT_OK, ""};
    bool done = e == c->omitted;
    while (!done)
        assert_ok(c->b->row->event_done(c->b, event, &done, &err), &err);
}

static float sent(int round, int i)
{
    return (float)(100 * round + i + 1);
}

static void convey(conveyor *c, int round)
{
    pt_error err = {PT_OK, ""};
    pt_backend *b = c->b;
    const pt_backend_row *row = b->row;
    const size_t bytes = WIDTH * sizeof(float);
    host_waits(c, HOST_WAITS_FOR_IN, c->arrived);
    for (int i = 0; i < WIDTH; i++)
        c->host_in[i] = sent(round, i);
    lane_waits(c, IN_WAITS_FOR_COMPUTE, PT_LANE_IN, c->made);
    assert_ok(row->copy_in(b, c->dev_in, c->host_in, bytes, &err), &err);
    assert_ok(row->event_record(b, PT_LANE_IN, c->arrived, &err), &err);
    lane_waits(c, COMPUTE_WAITS_FOR_IN, PT_LANE_COMPUTE, c->arrived);
    lane_waits(c, COMPUTE_WAITS_FOR_OUT, PT_LANE_COMPUTE, c->left);
    assert_ok(row->axpby(b, WIDTH, 2, c->dev_in, 1, c->dev_in, c->dev_out, &err), &err);
    assert_ok(row->event_record(b, PT_LANE_COMPUTE, c->made, &err), &err);
    lane_waits(c, OUT_WAITS_FOR_COMPUTE, PT_LANE_OUT, c->made);
    assert_ok(row->copy_out(b, c->host_out[round], c->dev_out, bytes, &err), &err);
    assert_ok(row->event_record(b, PT_LANE_OUT, c->left, &err), &err);
}

/* How many of the numbers that came out are wrong. */
static int wrong_numbers(uint64_t seed, edge omitted)
{
    conveyor c;
    int wrong = 0;
    conveyor_init(&c, seed, omitted);
    for (int r = 0; r < ROUNDS; r++)
        convey(&c, r);
    host_waits(&c, HOST_WAITS_FOR_OUT, c.left);
    for (int r = 0; r < ROUNDS; r++)
        for (int i = 0; i < WIDTH; i++)
            wrong += c.host_out[r][i] != 3 * sent(r, i);
    conveyor_clear(&c);
    return wrong;
}

static void test_edges_order_lanes(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < SEEDS; seed++)
        assert_int_equal(wrong_numbers(seed, EDGES), 0);
}

/* The proof that the test above can fail. */
static void test_every_edge_is_needed(void **state)
{
    (void)state;
    for (int e = 0; e < EDGES; e++) {
        int caught = 0;
        for (uint64_t seed = 0; seed < SEEDS; seed++)
            caught += wrong_numbers(seed, (edge)e) > 0;
        if (caught == 0)
            fail_msg("%d seeds, and none notices that edge %d is missing", SEEDS, e);
    }
}

/* ---- copies and events ------------------------------------------------------------------------
 */

/* upload and download come after what was asked of any lane, without an event. */
static void test_download_comes_last(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        pt_error err = {PT_OK, ""};
        pt_backend *b = open_cuda(seed);
        const pt_backend_row *row = b->row;
        int *host = pinned(b, sizeof *host), *dev = device(b, 2 * sizeof *dev), got[2];
        *host = 41;
        assert_ok(row->copy_in(b, dev, host, sizeof *host, &err), &err);
        assert_ok(row->download(b, got, dev, sizeof got, &err), &err);
        assert_int_equal(got[0], 41);
        assert_int_equal(got[1], 0);
        assert_ok(row->copy_out(b, host, dev + 1, sizeof *host, &err), &err);
        got[1] = 43;
        assert_ok(row->upload(b, dev, got, sizeof got, &err), &err);
        assert_int_equal(*host, 0); /* not what was uploaded after it */
        assert_ok(row->copy(b, dev, dev + 1, sizeof *dev, &err), &err);
        assert_ok(row->download(b, got, dev, sizeof got, &err), &err);
        assert_int_equal(got[0], 43);
        row->host_free(b, host);
        row->dev_free(b, dev);
        close_cuda(b);
    }
}

/* A new block's zeros come before what any lane is asked next, in an arena and out of it. */
static void test_zeros_come_first(void **state)
{
    (void)state;
    enum { BYTES = 1000 };
    static const char zero[BYTES];
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        pt_error err = {PT_OK, ""};
        pt_backend *b = open_cuda(seed);
        const pt_backend_row *row = b->row;
        char *host = pinned(b, BYTES), got[BYTES];
        if (seed % 2)
            assert_ok(row->reserve(b, 2 * BYTES, NULL, &err), &err);
        for (int i = 0; i < 3; i++) { /* in the arena: the same bytes again */
            char *dev = device(b, BYTES);
            memset(host, 7, BYTES);
            assert_ok(row->copy_out(b, host, dev, BYTES, &err), &err);
            assert_ok(row->finish(b, &err), &err);
            assert_memory_equal(host, zero, BYTES);
            memset(got, 9, BYTES);
            memcpy(host, got, BYTES);
            assert_ok(row->copy_in(b, dev, host, BYTES / 2, &err), &err);
            assert_ok(row->download(b, got, dev, BYTES, &err), &err);
            assert_memory_equal(got, host, BYTES / 2);
            assert_memory_equal(got + BYTES / 2, zero, BYTES / 2);
            assert_ok(row->copy_in(b, dev, host, BYTES, &err), &err);
            row->dev_free(b, dev);
        }
        row->host_free(b, host);
        close_cuda(b);
    }
}

/* The host of a test may be stopped for long: a tenth of a second is no precision, but far from a
 * mistaken unit or clock. */
static const int64_t clock_slack_ns = 100000000;

static void test_events_tell_times(void **state)
{
    (void)state;
    pt_error err = {PT_OK, ""};
    pt_backend *b = open_cuda(1);
    const pt_backend_row *row = b->row;
    float *dev = device(b, WIDTH * sizeof *dev);
    pt_event *first = NULL, *second = NULL;
    bool done = false;
    assert_ok(row->event_new(b, &first, &err), &err);
    assert_ok(row->event_new(b, &second, &err), &err);
    assert_ok(row->event_done(b, first, &done, &err), &err);
    assert_true(done); /* never recorded */
    assert_int_equal(row->event_ns(b, first), 0);
    assert_ok(row->event_wait(b, PT_LANE_OUT, first, &err), &err);
    int64_t before = pt_clock_ns();
    assert_ok(row->event_record(b, PT_LANE_COMPUTE, first, &err), &err);
    assert_ok(row->axpby(b, WIDTH, 1, dev, 1, dev, dev, &err), &err);
    assert_ok(row->event_record(b, PT_LANE_COMPUTE, second, &err), &err);
    assert_ok(row->finish(b, &err), &err);
    assert_ok(row->event_done(b, second, &done, &err), &err);
    assert_true(done);
    assert_true(row->event_ns(b, first) <= row->event_ns(b, second));
    assert_true(row->event_ns(b, first) >= before - clock_slack_ns);
    assert_true(row->event_ns(b, second) <= pt_clock_ns() + clock_slack_ns);
    row->event_free(b, first);
    row->event_free(b, second);
    row->event_free(b, NULL);
    row->dev_free(b, dev);
    close_cuda(b);
}

/* The device's clock is another than the host's: once all lanes are finished, and the last look at
 * the clocks is a while ago, times are the host's again. What was recorded before keeps its own. */
static void test_times_follow_the_clock(void **state)
{
    (void)state;
    const int64_t hour_ns = (int64_t)3600 * 1000000000;
    pt_error err = {PT_OK, ""};
    pt_backend *b = open_cuda(1);
    const pt_backend_row *row = b->row;
    pt_event *old = NULL, *young = NULL;
    assert_ok(row->event_new(b, &old, &err), &err);
    assert_ok(row->event_new(b, &young, &err), &err);
    assert_ok(row->event_record(b, PT_LANE_OUT, old, &err), &err);
    assert_ok(row->finish(b, &err), &err);
    int64_t known = row->event_ns(b, old);
    pt_fake_set_clock(hour_ns);
    int64_t ahead = 2 * clock_slack_ns;
    for (int i = 0; i < 1000 && ahead > clock_slack_ns; i++) {
        pt_clock_sleep_ns(1000000); /* nothing tells when an origin is old enough */
        assert_ok(row->finish(b, &err), &err);
        assert_ok(row->event_record(b, PT_LANE_OUT, young, &err), &err);
        assert_ok(row->finish(b, &err), &err);
        ahead = row->event_ns(b, young) - pt_clock_ns();
    }
    assert_in_range(ahead + clock_slack_ns, 0, 2 * clock_slack_ns);
    assert_int_equal(row->event_ns(b, old), known);
    row->event_free(b, old);
    row->event_free(b, young);
    close_cuda(b);
}

/* event_done never waits: there is an order in which the answer is no. */
static void test_done_does_not_wait(void **state)
{
    (void)state;
    int no = 0;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        pt_error err = {PT_OK, ""};
        pt_backend *b = open_cuda(seed);
        const pt_backend_row *row = b->row;
        float *dev = device(b, WIDTH * sizeof *dev);
        pt_event *event = NULL;
        bool done = false;
        assert_ok(row->event_new(b, &event, &err), &err);
        assert_ok(row->axpby(b, WIDTH, 1, dev, 1, dev, dev, &err), &err);
        assert_ok(row->event_record(b, PT_LANE_COMPUTE, event, &err), &err);
        assert_ok(row->event_done(b, event, &done, &err), &err);
        no += !done;
        assert_int_equal(cudaPeekAtLastError(), cudaSuccess); /* "not ready" is no error */
        assert_ok(row->finish(b, &err), &err);
        assert_ok(row->event_done(b, event, &done, &err), &err);
        assert_true(done);
        row->event_free(b, event);
        row->dev_free(b, dev);
        close_cuda(b);
    }
    assert_in_range(no, 1, SEEDS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_edges_order_lanes),   cmocka_unit_test(test_every_edge_is_needed),
        cmocka_unit_test(test_download_comes_last), cmocka_unit_test(test_zeros_come_first),
        cmocka_unit_test(test_events_tell_times),   cmocka_unit_test(test_times_follow_the_clock),
        cmocka_unit_test(test_done_does_not_wait),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
