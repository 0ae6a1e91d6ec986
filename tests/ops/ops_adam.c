/* A backend's Adam: the formula of backend.h in double, any number of threads, and foresight. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "ops_flat.h"
#include "ops_tests.h"
#include "suite.h"

enum { ELEMENTS = OPS_FLAT, STEPS = 3 };

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

static flats flats_new(pt_backend *b)
{
    return (flats){ops_flat_new(b, 0, false), ops_flat_new(b, 1, false), ops_flat_new(b, 2, true),
                   ops_flat_new(b, 3, false), ops_flat_new(b, 4, false)};
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
    float *theta = ops_flat_get(b, f.theta), *m = ops_flat_get(b, f.m), *v = ops_flat_get(b, f.v);
    float *g = ops_flat_get(b, f.g);
    for (int step = 0; step < STEPS; step++) {
        formula(rule, theta, m, v, g);
        assert_ok(row->adam(b, ELEMENTS, rule, f.theta, f.m, f.v, f.g, NULL, &err), &err);
    }
    float *got_theta = ops_flat_get(b, f.theta), *got_m = ops_flat_get(b, f.m),
          *got_v = ops_flat_get(b, f.v);
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
    if (f->rates.n == 0)
        return (double)f->a * theta +
               (double)f->b * m / ((double)r->root * sqrt(v) + (double)r->eps);
    for (int i = 0; i < f->rates.n; i++) {
        double below = (double)f->rates.root[i] * sqrt(v) + (double)r->eps;
        theta *= (double)f->rates.keep[i];
        m = (double)r->beta1 * m + (double)r->rest1 * (double)r->decay * theta;
        theta -= (double)f->rates.at[i] * m / below;
    }
    return theta;
}

static void check_foresight(const pt_backend_row *row, const pt_adam_foresight *wanted, int threads)
{
    pt_error err = {PT_OK, ""};
    pt_backend *b = ops_open(row, threads);
    flats f = flats_new(b), fresh = flats_new(b);
    float *before[] = {ops_flat_get(b, fresh.theta), ops_flat_get(b, fresh.m),
                       ops_flat_get(b, fresh.v)};
    pt_adam_foresight foresight = *wanted;
    foresight.dev_out = f.ahead;
    assert_ok(row->adam(b, ELEMENTS, &coupled, f.theta, f.m, f.v, f.g, &foresight, &err), &err);
    float *together = ops_flat_get(b, f.ahead), *theta = ops_flat_get(b, f.theta),
          *m = ops_flat_get(b, f.m);
    float *v = ops_flat_get(b, f.v), *want = calloc(ELEMENTS, sizeof *want);
    assert_non_null(want);
    for (int i = 0; i < ELEMENTS; i++)
        want[i] = (float)ahead_of(&coupled, wanted, (double)theta[i], (double)m[i], (double)v[i]);
    ops_assert_near("foresight", together, want, ELEMENTS, bound, 0);
    /* Alone: the same bits, and nothing else moves. */
    assert_ok(row->adam(b, ELEMENTS, &coupled, f.theta, f.m, f.v, NULL, &foresight, &err), &err);
    float *alone = ops_flat_get(b, f.ahead), *theta_ = ops_flat_get(b, f.theta),
          *m_ = ops_flat_get(b, f.m);
    float *v_ = ops_flat_get(b, f.v);
    assert_memory_equal(alone, together, ELEMENTS * sizeof *alone);
    assert_memory_equal(theta_, theta, ELEMENTS * sizeof *alone);
    assert_memory_equal(m_, m, ELEMENTS * sizeof *alone);
    assert_memory_equal(v_, v, ELEMENTS * sizeof *alone);
    /* Apart from the weights that it began with: the same bits, and nothing else moves. */
    foresight.dev_out = fresh.ahead;
    foresight.apart = true;
    assert_ok(
        row->adam(b, ELEMENTS, &coupled, fresh.theta, fresh.m, fresh.v, fresh.g, &foresight, &err),
        &err);
    float *apart = ops_flat_get(b, fresh.ahead);
    float *after[] = {ops_flat_get(b, fresh.theta), ops_flat_get(b, fresh.m),
                      ops_flat_get(b, fresh.v)};
    assert_memory_equal(apart, together, ELEMENTS * sizeof *apart);
    for (int i = 0; i < 3; i++) {
        assert_memory_equal(after[i], before[i], ELEMENTS * sizeof *apart);
        free(before[i]);
        free(after[i]);
    }
    float *const all[] = {together, theta, m, v, want, alone, theta_, m_, v_, apart};
    for (int i = 0; i < 10; i++)
        free(all[i]);
    flats_free(b, &f);
    flats_free(b, &fresh);
    b->row->close(b);
}

void ops_test_adam(void **state)
{
    const ops_subject *s = *state;
    const pt_adam_foresight straight = {.a = 0.999f, .b = -0.11f};
    const pt_adam_foresight looped = {
        .rates = {3, {0.04f, 0.03f, 0.02f}, {1.3f, 1.2f, 1.1f}, {1, 0.99f, 0.97f}}};
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
