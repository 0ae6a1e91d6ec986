/* The cuda backend's lanes, events and memory on the fake runtime (fake/fake.h): whatever order the
 * adversary takes, nothing is read before its event; and each edge that is left out is noticed. */
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "backend_row.h"
#include "fake/fake.h"
#include "pipetrain/arena.h"
#include "pipetrain/backend.h"
#include "pipetrain/clock.h"
#include "suite.h"

enum { SEEDS = 64 };

static pt_backend *open_cuda(uint64_t seed)
{
    const pt_backend_config config = {.threads = 1};
    const pt_backend_row *row = backend_row("cuda");
    pt_error err = {PT_OK, ""};
    pt_backend *b = NULL;
    pt_fake_reset(seed);
    assert_non_null(row);
    assert_ok(row->open(&config, &b, &err), &err);
    return b;
}

static void assert_nothing_left(void)
{
    const pt_fake_live live = pt_fake_count_live();
    assert_int_equal(live.device_blocks, 0);
    assert_int_equal(live.host_blocks, 0);
    assert_int_equal(live.streams, 0);
    assert_int_equal(live.events, 0);
}

static void close_cuda(pt_backend *b)
{
    b->row->close(b);
    assert_nothing_left();
}

static void *device(pt_backend *b, size_t bytes)
{
    pt_error err = {PT_OK, ""};
    void *dev = NULL;
    assert_ok(b->row->dev_new(b, bytes, &dev, &err), &err);
    assert_int_equal((uintptr_t)dev % PT_ALIGN, 0);
    return dev;
}

static void *pinned(pt_backend *b, size_t bytes)
{
    pt_error err = {PT_OK, ""};
    void *host = NULL;
    assert_ok(b->row->host_new(b, bytes, &host, &err), &err);
    return host;
}

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

/* ---- memory -----------------------------------------------------------------------------------
 */

static void test_reserve_allocates_once(void **state)
{
    (void)state;
    enum { BLOCKS = 50 };
    pt_error err = {PT_OK, ""};
    pt_backend *b = open_cuda(1);
    void *dev[BLOCKS], *more = NULL;
    size_t bytes = 0, now, peak, there = 0;
    for (size_t i = 0; i < BLOCKS; i++)
        bytes += 37 * i;
    assert_ok(b->row->reserve(b, bytes, &there, &err), &err);
    int64_t calls = pt_fake_calls(PT_FAKE_ALLOCATION);
    for (size_t i = 0; i < BLOCKS; i++)
        dev[i] = device(b, 37 * i);
    b->row->memory(b, &now, &peak);
    assert_int_equal(now, bytes); /* as asked, not as rounded */
    assert_int_equal(pt_fake_calls(PT_FAKE_ALLOCATION), calls);
    assert_fails(b->row->dev_new(b, (size_t)64 << 20, &more, &err), PT_ENOMEM, "67108864 bytes",
                 &err);
    assert_non_null(strstr(err.text, "micro-batch"));
    assert_fails(b->row->reserve(b, bytes, NULL, &err), PT_EINTERNAL, "second time", &err);
    for (size_t i = 0; i < BLOCKS; i++)
        b->row->dev_free(b, dev[i]);
    assert_ok(b->row->reserve(b, 2 * bytes, NULL, &err), &err); /* nothing is in use: anew */
    b->row->memory(b, &now, &peak);
    assert_int_equal(now, 0);
    assert_int_equal(peak, bytes);
    close_cuda(b);
}

/* What does not fit is refused at once, and what is said to fit does. */
static void test_reserve_knows_the_limit(void **state)
{
    (void)state;
    pt_error err = {PT_OK, ""};
    pt_backend *b = open_cuda(1);
    size_t there = 0, again = 0;
    pt_fake_set_memory((size_t)400 << 20);
    assert_fails(b->row->reserve(b, (size_t)400 << 20, &there, &err), PT_ENOMEM, "419430400 bytes",
                 &err);
    assert_in_range(there, 1 << 20, (400 - 256) << 20); /* some is left to the libraries */
    assert_fails(b->row->reserve(b, there + 1, NULL, &err), PT_ENOMEM, "left", &err);
    assert_ok(b->row->reserve(b, there, &again, &err), &err);
    assert_int_equal(there, again);
    void *all = device(b, there);
    b->row->dev_free(b, all);
    assert_ok(b->row->reserve(b, there, &again, &err), &err); /* gives the old one back first */
    assert_int_equal(there, again);
    close_cuda(b);
}

static void test_too_much_is_said(void **state)
{
    (void)state;
    pt_error err = {PT_OK, ""};
    pt_backend *b = open_cuda(1);
    void *dev = NULL;
    pt_fake_set_memory((size_t)100 << 20);
    assert_fails(b->row->dev_new(b, (size_t)200 << 20, &dev, &err), PT_ENOMEM,
                 "cudaErrorMemoryAllocation (out of memory); use a smaller --micro-batch", &err);
    assert_fails(b->row->dev_new(b, SIZE_MAX - 8, &dev, &err), PT_ENOMEM, "micro-batch", &err);
    assert_null(dev);
    close_cuda(b);
}

/* What makes the other tests believable: the host that reads device memory does not survive. */
static void test_host_cannot_read_the_device(void **state)
{
    (void)state;
    pt_backend *b = open_cuda(1);
    volatile char *dev = device(b, 64);
    int status = 0;
    pid_t child = fork();
    if (child == 0) {
        (void)signal(SIGSEGV, SIG_DFL); /* not cmocka's */
        (void)close(STDERR_FILENO);     /* a sanitizer's report */
        _exit(dev[0]);                  /* zero: would be success */
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_false(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    b->row->dev_free(b, (void *)dev);
    close_cuda(b);
}

/* ---- opening ----------------------------------------------------------------------------------
 */

static void refuses(const char *words)
{
    const pt_backend_config config = {.threads = 1};
    pt_error err = {PT_OK, ""};
    pt_backend *b = NULL;
    assert_fails(backend_row("cuda")->open(&config, &b, &err), PT_EINPUT, words, &err);
    assert_non_null(strstr(err.text, "--backend onednn"));
    assert_null(b);
    assert_int_equal(cudaPeekAtLastError(), cudaSuccess);
    assert_nothing_left();
}

static void test_no_device(void **state)
{
    (void)state;
    pt_fake_reset(1);
    pt_fake_set_devices(0, cudaSuccess);
    refuses("no CUDA device: no CUDA-capable device is detected (cudaErrorNoDevice)");
    pt_fake_set_devices(0, cudaErrorInsufficientDriver);
    pt_fake_set_driver(11080);
    refuses("the driver knows CUDA 11.8, this build needs ");
    pt_fake_set_driver(0);
    refuses("this machine has no NVIDIA driver");
}

static void test_ranks_share_devices(void **state)
{
    (void)state;
    static const char *const names[] = {"GPU 0: ", "GPU 1: ", "GPU 2: ", "GPU 0: ", "GPU 1: "};
    for (int rank = 0; rank < 5; rank++) {
        const pt_backend_config config = {.threads = 1, .local_rank = rank, .precision = PT_BF16};
        const pt_backend_row *row = backend_row("cuda");
        pt_error err = {PT_OK, ""};
        pt_backend *b = NULL;
        char text[200];
        pt_fake_reset(1);
        pt_fake_set_devices(3, cudaSuccess);
        assert_ok(row->open(&config, &b, &err), &err);
        row->describe(b, text, sizeof text);
        assert_memory_equal(text, names[rank], strlen(names[rank]));
        assert_non_null(strstr(text, "bf16"));
        assert_non_null(strstr(text, "cuDNN 9."));
        close_cuda(b);
    }
}

/* --backend auto tries it on the device that the process has chosen, and leaves no context on the
 * first one, which is another rank's. */
static void test_auto_stays_on_its_device(void **state)
{
    (void)state;
    const pt_backend_row *row = NULL;
    pt_error err = {PT_OK, ""}, passed;
    int device_now = -1;
    pt_fake_reset(1);
    pt_fake_set_devices(3, cudaSuccess);
    pt_backend_choose_device("auto", 4);
    assert_ok(pt_backend_find("auto", &row, &passed, &err), &err);
    assert_string_equal(row->name, "cuda");
    assert_int_equal(passed.code, PT_OK);
    assert_int_equal(cudaGetDevice(&device_now), cudaSuccess);
    assert_int_equal(device_now, 1);
    assert_nothing_left();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_edges_order_lanes),
        cmocka_unit_test(test_every_edge_is_needed),
        cmocka_unit_test(test_download_comes_last),
        cmocka_unit_test(test_zeros_come_first),
        cmocka_unit_test(test_events_tell_times),
        cmocka_unit_test(test_times_follow_the_clock),
        cmocka_unit_test(test_done_does_not_wait),
        cmocka_unit_test(test_reserve_allocates_once),
        cmocka_unit_test(test_reserve_knows_the_limit),
        cmocka_unit_test(test_too_much_is_said),
        cmocka_unit_test(test_host_cannot_read_the_device),
        cmocka_unit_test(test_no_device),
        cmocka_unit_test(test_ranks_share_devices),
        cmocka_unit_test(test_auto_stays_on_its_device),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
