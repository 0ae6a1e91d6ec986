/* What a backend does beside ops: registry, memory, events and flat buffers. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "ops_tests.h"
#include "pipetrain/arena.h"
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

void ops_test_registry(void **state)
{
    const ops_subject *s = *state;
    const pt_backend_row *const *rows = pt_backend_rows();
    const char *const *names = pt_backend_names();
    bool listed = false;
    int n = 0;
    for (; rows[n]; n++) {
        assert_string_equal(rows[n]->name, names[n]);
        assert_ptr_equal(pt_backend_find(names[n]), rows[n]);
        listed = listed || rows[n] == s->row;
    }
    assert_null(names[n]);
    assert_true(listed);
    assert_ptr_equal(pt_backend_find("auto"), rows[0]); /* CPUs always open */
    assert_null(pt_backend_find("abacus"));
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
    pt_event *event = NULL;
    assert_ok(s->row->event_new(b, &event, &err), &err);
    assert_true(s->row->event_done(b, event)); /* nothing was recorded, nothing is awaited */
    assert_ok(s->row->event_record(b, event, &err), &err);
    assert_ok(s->row->finish(b, &err), &err);
    assert_true(s->row->event_done(b, event));
    s->row->event_free(b, event);
    s->row->event_free(b, NULL);
    char text[200] = "";
    s->row->describe(b, text, sizeof text);
    assert_non_null(strstr(text, "thread"));
    s->row->close(b);
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
    assert_ok(s->row->add(b, FLAT, dev_x, dev_y, dev_x, &err), &err); /* out is x */
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
        assert_ok(s->row->sgd(b, FLAT, rule, dev_theta, dev_velocity, dev_gradient, &err), &err);
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
