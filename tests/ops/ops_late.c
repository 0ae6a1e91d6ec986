/* A backend's rules for late gradients: the formulas of backend.h in double. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "ops_flat.h"
#include "ops_tests.h"
#include "suite.h"

/* Some six roundings of fp32. */
static const double bound = 1e-6;

static void check_mean_squares(const pt_backend_row *row, int threads)
{
    pt_error err = {PT_OK, ""};
    pt_backend *b = ops_open(row, threads);
    const float keep = 0.875f, rest = 0.25f; /* that they make 1 is not the pass's business */
    float *dev_x = ops_flat_new(b, 0, false), *dev_average = ops_flat_new(b, 1, true);
    float *x = ops_flat_get(b, dev_x), *want = ops_flat_get(b, dev_average);
    for (int i = 0; i < OPS_FLAT; i++)
        want[i] = (float)(0.875 * (double)want[i] + 0.25 * (double)x[i] * (double)x[i]);
    assert_ok(row->mean_squares(b, OPS_FLAT, keep, rest, dev_x, dev_average, &err), &err);
    float *got = ops_flat_get(b, dev_average), *x_ = ops_flat_get(b, dev_x);
    ops_assert_near("mean of squares", got, want, OPS_FLAT, bound, 0);
    assert_memory_equal(x, x_, OPS_FLAT * sizeof *x);
    float *const all[] = {x, want, got, x_};
    for (int i = 0; i < 4; i++)
        free(all[i]);
    b->row->dev_free(b, dev_x);
    b->row->dev_free(b, dev_average);
    b->row->close(b);
}

typedef enum gap_way { APART, ADDED, IN_PLACE } gap_way;

static void check_gap(const pt_backend_row *row, gap_way way, int threads)
{
    enum { FORWARD, THETA, AVERAGE, OWN, GRADIENT, BUFFERS };
    pt_error err = {PT_OK, ""};
    pt_backend *b = ops_open(row, threads);
    const pt_gap rule = {.top = 0.5f, .unbias = 3, .least = 0.125f, .accumulate = way == ADDED};
    float *dev[BUFFERS], *before[BUFFERS], *after[BUFFERS];
    for (int i = 0; i < BUFFERS; i++) {
        dev[i] = ops_flat_new(b, i, i == AVERAGE);
        before[i] = ops_flat_get(b, dev[i]);
    }
    int to = way == IN_PLACE ? OWN : GRADIENT;
    float *want = calloc(OPS_FLAT, sizeof *want);
    assert_non_null(want);
    for (int i = 0; i < OPS_FLAT; i++) {
        double size = 0.5 * (sqrt(3 * (double)before[AVERAGE][i]) + 0.125);
        double gap = fabs((double)before[FORWARD][i] - (double)before[THETA][i]) / size;
        double left = (double)before[OWN][i] / (1 + gap);
        want[i] = (float)((way == ADDED ? (double)before[GRADIENT][i] : 0) + left);
    }
    assert_ok(row->gap(b, OPS_FLAT, &rule, dev[FORWARD], dev[THETA], dev[AVERAGE], dev[OWN],
                       dev[to], &err),
              &err);
    for (int i = 0; i < BUFFERS; i++) {
        after[i] = ops_flat_get(b, dev[i]);
        if (i == to)
            ops_assert_near("gap", after[i], want, OPS_FLAT, bound, 0);
        else
            assert_memory_equal(after[i], before[i], OPS_FLAT * sizeof *want);
        b->row->dev_free(b, dev[i]);
        free(before[i]);
        free(after[i]);
    }
    free(want);
    b->row->close(b);
}

static void check_look_back(const pt_backend_row *row, int threads)
{
    pt_error err = {PT_OK, ""};
    pt_backend *b = ops_open(row, threads);
    const pt_look_back rule = {.keep = 0.75f, .rest = 0.5f, .delay = 2.5f};
    float *dev[3], *theta, *drift, *back, *got[3];
    for (int i = 0; i < 3; i++)
        dev[i] = ops_flat_new(b, i, false);
    theta = ops_flat_get(b, dev[0]);
    drift = ops_flat_get(b, dev[1]);
    back = ops_flat_get(b, dev[2]);
    for (int i = 0; i < OPS_FLAT; i++) {
        double moved = 0.75 * (double)drift[i] + 0.5 * ((double)theta[i] - (double)back[i]);
        drift[i] = (float)moved;
        back[i] = (float)((double)theta[i] - 2.5 * moved);
    }
    assert_ok(row->look_back(b, OPS_FLAT, &rule, dev[0], dev[1], dev[2], &err), &err);
    for (int i = 0; i < 3; i++)
        got[i] = ops_flat_get(b, dev[i]);
    assert_memory_equal(got[0], theta, OPS_FLAT * sizeof *theta);
    ops_assert_near("drift", got[1], drift, OPS_FLAT, bound, 0);
    ops_assert_near("weights of before", got[2], back, OPS_FLAT, bound, 0);
    float *const all[] = {theta, drift, back, got[0], got[1], got[2]};
    for (int i = 0; i < 6; i++)
        free(all[i]);
    for (int i = 0; i < 3; i++)
        b->row->dev_free(b, dev[i]);
    b->row->close(b);
}

void ops_test_late(void **state)
{
    const ops_subject *s = *state;
    for (int threads = 1; threads <= 3; threads += 2) {
        check_mean_squares(s->row, threads);
        check_gap(s->row, APART, threads);
        check_gap(s->row, ADDED, threads);
        check_gap(s->row, IN_PLACE, threads);
        check_look_back(s->row, threads);
    }
}
