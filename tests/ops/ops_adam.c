/* A backend's Adam: the formula of backend.h in double, any number of threads, and foresight. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "ops_tests.h"
#include "pipetrain/rng.h"
#include "suite.h"

enum { ELEMENTS = 40003, STEPS = 3 }; /* several pieces of work, and one that is not full */

/* Six digits of fp32 a step, of values below 6. */
static const double bound = 1e-6;

static const pt_adam coupled = {.rate = 0.03f,
                                .root = 1.3f,
                                .keep = 1,
                                .beta1 = 0.9f,
                                .beta2 = 0.97f,
                                .rest1 = 0.1f,
                                .rest2 = 0.03f,
                                .eps = 1e-3f,
                                .decay = 0.01f,
                                .scale = 0.7f};

typedef struct flats {
    float *theta, *m, *v, *g, *ahead;
} flats;

static float *to_device(pt_backend *b, int stream, bool squared)
{
    pt_error err = {PT_OK, ""};
    void *dev = NULL;
    float *host = malloc(ELEMENTS * sizeof *host);
    pt_rng rng;
    assert_non_null(host);
    pt_rng_init(&rng, /*seed=*/21, PT_RNG_CHECK, (uint32_t)stream, 0);
    for (int i = 0; i < ELEMENTS; i++) {
        host[i] = pt_rng_normal(&rng);
        host[i] *= squared ? host[i] : 1;
    }
    assert_ok(b->row->dev_new(b, ELEMENTS * sizeof *host, &dev, &err), &err);
    assert_ok(b->row->upload(b, dev, host, ELEMENTS * sizeof *host, &err), &err);
    free(host);
    return dev;
}

static float *to_host(pt_backend *b, const float *dev)
{
    pt_error err = {PT_OK, ""};
    float *host = malloc(ELEMENTS * sizeof *host);
    assert_non_null(host);
    assert_ok(b->row->download(b, host, dev, ELEMENTS * sizeof *host, &err), &err);
    return host;
}

static flats flats_new(pt_backend *b)
{
    return (flats){to_device(b, 0, false), to_device(b, 1, false), to_device(b, 2, true),
                   to_device(b, 3, false), to_device(b, 4, false)};
}

static void flats_free(pt_backend *b, flats *f)
{
    float *const all[] = {f->theta, f->m, f->v, f->g, f->ahead};
    for (int i = 0; i < 5; i++)
        b->row->dev_free(b, all[i]);
}

static void formula(const pt_adam *r, float *theta, float *m, float *v, const float *g)
{
    for (int i = 0; i < ELEMENTS; i++) {
        double d = (double)r->scale * (double)g[i] + (double)r->decay * (double)theta[i];
        double mean = (double)r->beta1 * (double)m[i] + (double)r->rest1 * d;
        double square = (double)r->beta2 * (double)v[i] + (double)r->rest2 * d * d;
        double below = (double)r->root * sqrt(square) + (double)r->eps;
        double way = (double)r->rate * mean + (double)r->now * d;
        theta[i] = (float)((double)r->keep * (double)theta[i] - way / below);
        m[i] = (float)mean;
        v[i] = (float)square;
    }
}

static void check_formula(const pt_backend_row *row, const pt_adam *rule, int threads)
{
    pt_error err = {PT_OK, ""};
    pt_backend *b = ops_open(row, threads);
    flats f = flats_new(b);
    float *theta = to_host(b, f.theta), *m = to_host(b, f.m), *v = to_host(b, f.v);
    float *g = to_host(b, f.g);
    for (int step = 0; step < STEPS; step++) {
        formula(rule, theta, m, v, g);
        assert_ok(row->adam(b, ELEMENTS, rule, f.theta, f.m, f.v, f.g, NULL, &err), &err);
    }
    float *got_theta = to_host(b, f.theta), *got_m = to_host(b, f.m), *got_v = to_host(b, f.v);
    ops_assert_near("theta", got_theta, theta, ELEMENTS, STEPS * bound, 0);
    ops_assert_near("mean", got_m, m, ELEMENTS, STEPS * bound, 0);
    ops_assert_near("mean of squares", got_v, v, ELEMENTS, STEPS * bound, 0);
    float *const all[] = {theta, m, v, g, got_theta, got_m, got_v};
    for (int i = 0; i < 7; i++)
        free(all[i]);
    flats_free(b, &f);
    b->row->close(b);
}

/* a·θ + b·u, or the loop over the rates. */
static double ahead_of(const pt_adam *r, const pt_adam_foresight *f, double theta, double m,
                       double v)
{
    double below = (double)r->root * sqrt(v) + (double)r->eps;
    if (f->rates.n == 0)
        return (double)f->a * theta + (double)f->b * m / below;
    for (int i = 0; i < f->rates.n; i++) {
        m = (double)r->beta1 * m + (double)r->rest1 * (double)r->decay * theta;
        theta -= (double)f->rates.at[i] * m / below;
    }
    return theta;
}

static void check_foresight(const pt_backend_row *row, const pt_adam_foresight *wanted, int threads)
{
    pt_error err = {PT_OK, ""};
    pt_backend *b = ops_open(row, threads);
    flats f = flats_new(b);
    pt_adam_foresight foresight = *wanted;
    foresight.dev_out = f.ahead;
    assert_ok(row->adam(b, ELEMENTS, &coupled, f.theta, f.m, f.v, f.g, &foresight, &err), &err);
    float *together = to_host(b, f.ahead), *theta = to_host(b, f.theta), *m = to_host(b, f.m);
    float *v = to_host(b, f.v), *want = calloc(ELEMENTS, sizeof *want);
    assert_non_null(want);
    for (int i = 0; i < ELEMENTS; i++)
        want[i] = (float)ahead_of(&coupled, wanted, (double)theta[i], (double)m[i], (double)v[i]);
    ops_assert_near("foresight", together, want, ELEMENTS, bound, 0);
    /* Alone: the same bits, and nothing else moves. */
    assert_ok(row->adam(b, ELEMENTS, &coupled, f.theta, f.m, f.v, NULL, &foresight, &err), &err);
    float *alone = to_host(b, f.ahead), *theta_ = to_host(b, f.theta), *m_ = to_host(b, f.m);
    float *v_ = to_host(b, f.v);
    assert_memory_equal(alone, together, ELEMENTS * sizeof *alone);
    assert_memory_equal(theta_, theta, ELEMENTS * sizeof *alone);
    assert_memory_equal(m_, m, ELEMENTS * sizeof *alone);
    assert_memory_equal(v_, v, ELEMENTS * sizeof *alone);
    float *const all[] = {together, theta, m, v, want, alone, theta_, m_, v_};
    for (int i = 0; i < 9; i++)
        free(all[i]);
    flats_free(b, &f);
    b->row->close(b);
}

void ops_test_adam(void **state)
{
    const ops_subject *s = *state;
    const pt_adam_foresight straight = {.a = 0.999f, .b = -0.11f};
    const pt_adam_foresight looped = {.rates = {3, {0.04f, 0.03f, 0.02f}}};
    pt_adam decoupled = coupled;
    decoupled.keep = 0.9997f;
    decoupled.decay = 0;
    decoupled.now = 0.02f;
    for (int threads = 1; threads <= 3; threads += 2) {
        check_formula(s->row, &coupled, threads);
        check_formula(s->row, &decoupled, threads);
        check_foresight(s->row, &straight, threads);
        check_foresight(s->row, &looped, threads);
    }
}
