/* What a backend does beside ops: registry, memory, events and flat buffers. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "backend_row.h"
#include "ops_tests.h"
#include "pipetrain/arena.h"
#include "pipetrain/clock.h"
#include "pipetrain/rng.h"
#include "suite.h"

/* One fp32 operation after another on values near 1: three roundings of 6e-8. */
static const double flat_bound = 4e-7;
/* Sums in double over fp32 squares. */
static const double square_bound = 1e-12;

/* Not a multiple of anything, and more than one piece for each of three threads. */
enum { FLAT = 100003, STEPS = 3 };

static float *random_floats(uint64_t seed, size_t n)
{
    pt_rng rng;
    float *x = calloc(n, sizeof *x);
    assert_non_null(x);
    pt_rng_init(&rng, seed, PT_RNG_CHECK, 0, 0);
    for (size_t i = 0; i < n; i++)
        x[i] = pt_rng_normal(&rng);
    return x;
}

static float *to_device(pt_backend *b, const float *x, size_t n)
{
    pt_error err = {PT_OK, ""};
    void *dev = NULL;
    assert_ok(b->row->dev_new(b, n * sizeof *x, &dev, &err), &err);
    assert_ok(b->row->upload(b, dev, x, n * sizeof *x, &err), &err);
    return dev;
}

static void from_device(pt_backend *b, const float *dev, float *x, size_t n)
{
    pt_error err = {PT_OK, ""};
    assert_ok(b->row->finish(b, &err), &err);
    assert_ok(b->row->download(b, x, dev, n * sizeof *x, &err), &err);
}

static bool opens(const pt_backend_row *row)
{
    const pt_backend_config config = {.threads = 1};
    pt_error err = {PT_OK, ""};
    pt_backend *b = NULL;
    bool opened = row->open(&config, &b, &err) == PT_OK;
    if (opened)
        row->close(b);
    return opened;
}

void ops_test_registry(void **state)
{
    const ops_subject *s = *state;
    const char *const *names = pt_backend_names();
    const pt_backend_row *row = NULL, *first = NULL;
    pt_error err = {PT_OK, ""}, passed;
    bool listed = false;
    for (int n = 0; names[n]; n++) {
        row = backend_row(names[n]); /* that of GPUs may not be had */
        if (row)
            assert_string_equal(row->name, names[n]);
        if (row && !first && opens(row)) /* CPUs always do */
            first = row;
        listed = listed || row == s->row;
    }
    assert_true(listed);
    assert_ptr_equal(backend_row("auto"), first);
    assert_fails(pt_backend_find("abacus", &row, &passed, &err), PT_EINPUT, "abacus", &err);
}

void ops_test_memory(void **state)
{
    const ops_subject *s = *state;
    pt_backend *b = ops_open(s->row, 1);
    pt_error err = {PT_OK, ""};
    void *first = NULL, *second = NULL, *host = NULL;
    char bytes[100], zero[100] = {0};
    size_t now, peak;
    assert_ok(s->row->dev_new(b, 100, &first, &err), &err);
    assert_ok(s->row->dev_new(b, 1000, &second, &err), &err);
    assert_int_equal((uintptr_t)first % PT_ALIGN, 0);
    assert_ok(s->row->download(b, bytes, first, sizeof bytes, &err), &err);
    assert_memory_equal(bytes, zero, sizeof zero);
    s->row->memory(b, &now, &peak);
    assert_int_equal(now, 1100);
    s->row->dev_free(b, second);
    s->row->dev_free(b, NULL);
    s->row->memory(b, &now, &peak);
    assert_int_equal(now, 100);
    assert_int_equal(peak, 1100);
    assert_ok(s->row->host_new(b, 100, &host, &err), &err);
    assert_int_equal((uintptr_t)host % PT_ALIGN, 0);
    assert_memory_equal(host, zero, sizeof zero);
    memset(host, 7, 100);
    assert_ok(s->row->upload(b, first, host, 100, &err), &err);
    assert_ok(s->row->copy(b, (char *)first + 50, first, 50, &err), &err);
    assert_ok(s->row->download(b, bytes, first, 100, &err), &err);
    assert_memory_equal(bytes, host, 100);
    assert_fails(s->row->dev_new(b, SIZE_MAX - 8, &second, &err), PT_ENOMEM, "micro-batch", &err);
    s->row->host_free(b, host);
    s->row->host_free(b, NULL);
    s->row->dev_free(b, first);
    s->row->close(b);
    s->row->close(NULL);
}

void ops_test_events(void **state)
{
    const ops_subject *s = *state;
    pt_backend *b = ops_open(s->row, 1);
    pt_error err = {PT_OK, ""};
    pt_event *event = NULL, *later = NULL;
    bool done = false;
    assert_ok(s->row->event_new(b, &event, &err), &err);
    assert_ok(s->row->event_new(b, &later, &err), &err);
    assert_ok(s->row->event_done(b, event, &done, &err), &err);
    assert_true(done); /* nothing was recorded, nothing is awaited */
    assert_int_equal(s->row->event_ns(b, event), 0);
    for (int lane = 0; lane < PT_LANES; lane++) {
        int64_t before = pt_clock_ns();
        assert_ok(s->row->event_record(b, (pt_lane)lane, event, &err), &err);
        assert_ok(s->row->event_wait(b, (pt_lane)((lane + 1) % PT_LANES), event, &err), &err);
        assert_ok(s->row->event_record(b, (pt_lane)lane, later, &err), &err);
        assert_ok(s->row->finish(b, &err), &err);
        done = false;
        assert_ok(s->row->event_done(b, event, &done, &err), &err);
        assert_true(done);
        int64_t first = s->row->event_ns(b, event), second = s->row->event_ns(b, later);
        assert_true(first <= second);
        if (!s->row->on_device) /* a device's clock is compared with the host's now and then */
            assert_true(before <= first && second <= pt_clock_ns());
    }
    s->row->event_free(b, event);
    s->row->event_free(b, later);
    s->row->event_free(b, NULL);
    char text[200] = "";
    s->row->describe(b, text, sizeof text);
    assert_non_null(strstr(text, s->row->on_device ? "CUDA" : "thread"));
    s->row->close(b);
}

/* A message in, work on it, a message out, each on its lane: the order is that of the events. */
void ops_test_lanes(void **state)
{
    enum { ROUNDS = 20 };
    const ops_subject *s = *state;
    const size_t bytes = FLAT * sizeof(float);
    pt_backend *b = ops_open(s->row, 1);
    pt_error err = {PT_OK, ""};
    void *in = NULL, *out = NULL, *dev = NULL, *twice = NULL;
    pt_event *arrived = NULL, *made = NULL, *left = NULL;
    assert_ok(s->row->host_new(b, bytes, &in, &err), &err);
    assert_ok(s->row->host_new(b, bytes, &out, &err), &err);
    assert_ok(s->row->dev_new(b, bytes, &dev, &err), &err);
    assert_ok(s->row->dev_new(b, bytes, &twice, &err), &err);
    assert_ok(s->row->event_new(b, &arrived, &err), &err);
    assert_ok(s->row->event_new(b, &made, &err), &err);
    assert_ok(s->row->event_new(b, &left, &err), &err);
    for (int round = 0; round < ROUNDS; round++) {
        float *x = in, *y = out;
        bool done = false;
        for (int i = 0; i < FLAT; i++)
            x[i] = (float)(round + i % 7);
        /* What compute read, and what out still copies, must not be overwritten. */
        assert_ok(s->row->event_wait(b, PT_LANE_IN, made, &err), &err);
        assert_ok(s->row->copy_in(b, dev, in, bytes, &err), &err);
        assert_ok(s->row->event_record(b, PT_LANE_IN, arrived, &err), &err);
        assert_ok(s->row->event_wait(b, PT_LANE_COMPUTE, arrived, &err), &err);
        assert_ok(s->row->event_wait(b, PT_LANE_COMPUTE, left, &err), &err);
        assert_ok(s->row->axpby(b, FLAT, 1, dev, 1, dev, twice, &err), &err);
        assert_ok(s->row->event_record(b, PT_LANE_COMPUTE, made, &err), &err);
        assert_ok(s->row->event_wait(b, PT_LANE_OUT, made, &err), &err);
        assert_ok(s->row->copy_out(b, out, twice, bytes, &err), &err);
        assert_ok(s->row->event_record(b, PT_LANE_OUT, left, &err), &err);
        while (!done)
            assert_ok(s->row->event_done(b, left, &done, &err), &err);
        for (int i = 0; i < FLAT; i++)
            assert_true(y[i] == 2.0f * (float)(round + i % 7));
    }
    s->row->event_free(b, arrived);
    s->row->event_free(b, made);
    s->row->event_free(b, left);
    s->row->dev_free(b, dev);
    s->row->dev_free(b, twice);
    s->row->host_free(b, in);
    s->row->host_free(b, out);
    s->row->close(b);
}

/* CPUs have nothing to set aside; a device refuses what it has not. */
void ops_test_reserve(void **state)
{
    const ops_subject *s = *state;
    pt_backend *b = ops_open(s->row, 1);
    pt_error err = {PT_OK, ""};
    size_t there = 0;
    assert_ok(s->row->reserve(b, 1000, &there, &err), &err);
    assert_true(there >= 1000);
    assert_ok(s->row->reserve(b, 2000, NULL, &err), &err);
    if (s->row->on_device)
        assert_fails(s->row->reserve(b, SIZE_MAX / 2, &there, &err), PT_ENOMEM, "bytes", &err);
    else
        assert_true(there == SIZE_MAX);
    s->row->close(b);
}

/* Rounding that nobody asked for must not creep in: a CPU computes in fp32 or not at all. */
void ops_test_precision(void **state)
{
    const ops_subject *s = *state;
    pt_error err = {PT_OK, ""};
    for (int p = PT_TF32; p < PT_PRECISIONS && !s->row->on_device; p++) {
        pt_backend_config config = {.threads = 1, .precision = (pt_precision)p};
        pt_backend *b = NULL;
        assert_fails(s->row->open(&config, &b, &err), PT_EINPUT, "--precision fp32", &err);
        assert_non_null(strstr(err.text, pt_precision_names[p]));
        assert_null(b);
    }
    assert_null(pt_precision_names[PT_PRECISIONS]);
}

static void check_flat(const ops_subject *s, int threads, float *ret_out, double *ret_sum)
{
    pt_backend *b = ops_open(s->row, threads);
    pt_error err = {PT_OK, ""};
    float *x = random_floats(1, FLAT), *y = random_floats(2, FLAT);
    float *expected = calloc(FLAT, sizeof *expected);
    float *dev_x = to_device(b, x, FLAT), *dev_y = to_device(b, y, FLAT);
    double sum = 0;
    assert_non_null(expected);
    for (int i = 0; i < FLAT; i++) {
        expected[i] = x[i] + y[i];
        sum += (double)x[i] * (double)x[i];
    }
    assert_ok(s->row->sum_of_squares(b, FLAT, dev_x, ret_sum, &err), &err);
    assert_true(fabs(*ret_sum - sum) <= square_bound * sum);
    assert_ok(s->row->axpby(b, FLAT, 1, dev_x, 1, dev_y, dev_x, &err), &err); /* out is x */
    from_device(b, dev_x, ret_out, FLAT);
    assert_memory_equal(ret_out, expected, FLAT * sizeof *expected);
    for (int i = 0; i < FLAT; i++)
        expected[i] = (float)(0.75 * (double)ret_out[i] - 1.25 * (double)y[i]);
    assert_ok(s->row->axpby(b, FLAT, 0.75f, dev_x, -1.25f, dev_y, dev_y, &err), &err);
    from_device(b, dev_y, ret_out, FLAT);
    ops_assert_near("axpby", ret_out, expected, FLAT, flat_bound, 0);
    s->row->dev_free(b, dev_x);
    s->row->dev_free(b, dev_y);
    free(x);
    free(y);
    free(expected);
    s->row->close(b);
}

void ops_test_flat(void **state)
{
    float *one = calloc(FLAT, sizeof *one), *three = calloc(FLAT, sizeof *three);
    double sum_one, sum_three;
    assert_non_null(one);
    assert_non_null(three);
    check_flat(*state, 1, one, &sum_one);
    check_flat(*state, 3, three, &sum_three);
    assert_memory_equal(one, three, FLAT * sizeof *one);
    assert_memory_equal(&sum_one, &sum_three, sizeof sum_one);
    free(one);
    free(three);
}

/* The formula of backend.h in double, rounded to fp32 after each step as the buffers are. */
static void sgd_formula(const pt_sgd *rule, float *theta, float *velocity, const float *gradient)
{
    for (int i = 0; i < FLAT; i++) {
        double d =
            (double)rule->scale * (double)gradient[i] + (double)rule->decay * (double)theta[i];
        double v = (double)rule->momentum * (double)velocity[i] + d;
        double move = rule->nesterov ? d + (double)rule->momentum * v : v;
        velocity[i] = (float)v;
        theta[i] = (float)((double)theta[i] - (double)rule->lr * move);
    }
}

static void check_sgd(const ops_subject *s, const pt_sgd *rule, int threads, bool has_velocity)
{
    pt_backend *b = ops_open(s->row, threads);
    pt_error err = {PT_OK, ""};
    float *theta = random_floats(3, FLAT), *velocity = calloc(FLAT, sizeof *velocity);
    float *gradient = random_floats(4, FLAT), *got = calloc(FLAT, sizeof *got);
    assert_non_null(velocity);
    assert_non_null(got);
    float *dev_theta = to_device(b, theta, FLAT), *dev_gradient = to_device(b, gradient, FLAT);
    float *dev_velocity = has_velocity ? to_device(b, velocity, FLAT) : NULL;
    for (int step = 0; step < STEPS; step++) {
        sgd_formula(rule, theta, velocity, gradient);
        assert_ok(s->row->sgd(b, FLAT, rule, dev_theta, dev_velocity, dev_gradient, NULL, &err),
                  &err);
    }
    from_device(b, dev_theta, got, FLAT);
    ops_assert_near("theta", got, theta, FLAT, STEPS * flat_bound, 0);
    if (has_velocity) {
        from_device(b, dev_velocity, got, FLAT);
        ops_assert_near("velocity", got, velocity, FLAT, STEPS * flat_bound, 0);
    }
    s->row->dev_free(b, dev_theta);
    s->row->dev_free(b, dev_velocity);
    s->row->dev_free(b, dev_gradient);
    free(theta);
    free(velocity);
    free(gradient);
    free(got);
    s->row->close(b);
}

/* The bits of the fused pass are those of a step and an axpby after it. */
static void check_foresight(const ops_subject *s, const pt_sgd *rule, int threads)
{
    enum { BUFFERS = 6 };
    const float a = 0.98f, c = -0.137f;
    pt_backend *b = ops_open(s->row, threads);
    pt_error err = {PT_OK, ""};
    float *start = random_floats(5, FLAT), *gradient = random_floats(6, FLAT);
    float *want = calloc(FLAT, sizeof *want), *got = calloc(FLAT, sizeof *got), *dev[BUFFERS];
    assert_non_null(want);
    assert_non_null(got);
    for (int i = 0; i < BUFFERS; i++) /* θ, v and foreseen, twice */
        dev[i] = to_device(b, start, FLAT);
    float *dev_gradient = to_device(b, gradient, FLAT);
    float *dev_apart = to_device(b, start, FLAT), *apart = calloc(FLAT, sizeof *apart);
    assert_non_null(apart);
    pt_foresight foresight = {a, c, dev[2], false}, alone = {a, c, dev_apart, true};
    for (int step = 0; step < STEPS; step++) {
        assert_ok(s->row->sgd(b, FLAT, rule, dev[0], dev[1], dev_gradient, &alone, &err), &err);
        assert_ok(s->row->sgd(b, FLAT, rule, dev[0], dev[1], dev_gradient, &foresight, &err), &err);
        assert_ok(s->row->sgd(b, FLAT, rule, dev[3], dev[4], dev_gradient, NULL, &err), &err);
        assert_ok(s->row->axpby(b, FLAT, a, dev[3], c, dev[4], dev[5], &err), &err);
        for (int i = 0; i < BUFFERS / 2; i++) {
            from_device(b, dev[i], got, FLAT);
            from_device(b, dev[i + BUFFERS / 2], want, FLAT);
            assert_memory_equal(got, want, FLAT * sizeof *got); /* alone has moved nothing */
        }
        from_device(b, dev_apart, apart, FLAT);
        assert_memory_equal(apart, want, FLAT * sizeof *want);
    }
    for (int i = 0; i < BUFFERS; i++)
        s->row->dev_free(b, dev[i]);
    s->row->dev_free(b, dev_apart);
    free(apart);
    s->row->dev_free(b, dev_gradient);
    free(start);
    free(gradient);
    free(want);
    free(got);
    s->row->close(b);
}

void ops_test_foresight(void **state)
{
    const pt_sgd plain = {.lr = 0.05f, .momentum = 0.9f, .decay = 1e-2f, .scale = 0.25f};
    pt_sgd nesterov = plain;
    nesterov.nesterov = true;
    for (int threads = 1; threads <= 3; threads += 2) {
        check_foresight(*state, &plain, threads);
        check_foresight(*state, &nesterov, threads);
    }
}

void ops_test_sgd(void **state)
{
    const ops_subject *s = *state;
    const pt_sgd rules[] = {
        {.lr = 0.1f, .scale = 1},
        {.lr = 0.1f, .decay = 5e-4f, .scale = 0.5f},
        {.lr = 0.05f, .momentum = 0.9f, .decay = 1e-2f, .scale = 0.25f},
        {.lr = 0.05f, .momentum = 0.9f, .decay = 1e-2f, .scale = 0.25f, .nesterov = true},
    };
    for (size_t i = 0; i < sizeof rules / sizeof rules[0]; i++) {
        check_sgd(s, &rules[i], 1, true);
        check_sgd(s, &rules[i], 3, true);
        if (rules[i].momentum == 0.0f)
            check_sgd(s, &rules[i], 1, false);
    }
}
