/* Everything that is asked of one op: that it agrees with ref, that its gradients are the slopes of
 * ref's forward, that it adds, repeats and aliases as its contract says. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "backend_row.h"
#include "ops_rig.h"
#include "ops_tests.h"
#include "suite.h"

/* A backend sums up to a thousand fp32 products in an order of its own: about sqrt(1000) roundings
 * of 6e-8 of the largest term, 2e-6, and a margin for other processors. ref sums in double. */
static const double ref_bound = 1e-5;
/* Outputs are rounded to fp32 (6e-8 of values near 10) and divided by a step of 1/32: 2e-5, and a
 * margin. Slopes are compared with the largest of their tensor. */
static const double slope_bound = 2e-4;
/* d_param += adds two rounded numbers: two roundings of fp32. */
static const double add_bound = 3e-7;
/* Below this a tensor counts as zero: gradients that cancel (batch-norm of one value). */
static const double zero_floor = 1e-2;

/* tf32 rounds the factors of products to 11 bits, half a unit each: 5e-4 of the largest term, of
 * which many average out; twice that for sums of few. bf16 rounds weights and results to 8 bits:
 * 2e-3 each of the largest term; twice that for a result that is the sum of rounded ones. Inputs
 * are rounded before, for ref as well. */
static const double precision_bounds[PT_PRECISIONS] = {
    [PT_FP32] = 0, [PT_TF32] = 2e-3, [PT_BF16] = 8e-3};

enum { SLOPES_PER_TENSOR = 32, SEED_A = 11, SEED_B = 12 };

pt_precision ops_precision = PT_FP32;

double ops_bound(double fp32_bound)
{
    const double bound = precision_bounds[ops_precision];
    return bound > fp32_bound ? bound : fp32_bound;
}

pt_backend *ops_open(const pt_backend_row *row, int threads)
{
    pt_error err = {PT_OK, ""};
    pt_backend *b = NULL;
    const pt_backend_config config = {
        .threads = threads,
        .precision = strcmp(row->name, "ref") == 0 ? PT_FP32 : ops_precision,
    };
    assert_ok(row->open(&config, &b, &err), &err);
    assert_ptr_equal(b->row, row);
    return b;
}

void ops_assert_near(const char *what, const float *a, const float *b, int64_t n, double bound,
                     double floor)
{
    double most = 0, largest = 0;
    int64_t at = 0;
    for (int64_t i = 0; i < n; i++) {
        double difference = fabs((double)a[i] - (double)b[i]);
        if (!(difference <= most)) {
            most = difference;
            at = i;
        }
        if (fabs((double)b[i]) > largest)
            largest = fabs((double)b[i]);
    }
    if (!(most <= bound * (largest + floor)))
        fail_msg("%s[%lld]: %.9g, expected %.9g; error %.3g of %.3g, bound %.1g", what,
                 (long long)at, (double)a[at], (double)b[at], most, largest + floor, bound);
}

static void assert_results_near(const ops_result *a, const ops_result *b, double bound)
{
    assert_int_equal(a->n, b->n);
    for (int i = 0; i < a->n; i++)
        ops_assert_near(a->t[i].name, a->t[i].at, b->t[i].at, a->t[i].n, bound, zero_floor);
}

static void assert_same_bits(const char *why, const ops_tensor *a, const ops_tensor *b)
{
    if (memcmp(a->at, b->at, (size_t)a->n * sizeof(float)) != 0)
        fail_msg("%s: the bits of %s differ", why, a->name);
}

static void assert_results_same(const char *why, const ops_result *a, const ops_result *b)
{
    assert_int_equal(a->n, b->n);
    for (int i = 0; i < a->n; i++)
        assert_same_bits(why, &a->t[i], &b->t[i]);
}

/* ---- slopes -----------------------------------------------------------------------------------
 */

/* sum out·d_out: the scalar whose gradients the backward makes from d_out. */
static double value(ops_rig *ref, const ops_data *data)
{
    const ops_tensor *out = ops_rig_forward(ref, data, 0);
    double sum = 0;
    for (int64_t i = 0; i < out->n; i++)
        sum += (double)out->at[i] * (double)data->d_out.at[i];
    return sum;
}

/* Central differences of fourth order; steps of powers of two, so that x ± step is near exact. */
static double slope(ops_rig *ref, const ops_data *data, float *x)
{
    const float step = 1.0f / 32, old = *x;
    double v[4];
    const float factor[4] = {-2, -1, 1, 2};
    for (int i = 0; i < 4; i++) {
        *x = old + factor[i] * step;
        v[i] = value(ref, data);
    }
    *x = old;
    return (8 * (v[2] - v[1]) - (v[3] - v[0])) / (12 * (double)step);
}

/* Compares some elements of `gradient` with the slopes at the same elements of x. */
static void check_tensor(ops_rig *ref, const ops_data *data, ops_tensor *x,
                         const ops_tensor *gradient)
{
    float measured[SLOPES_PER_TENSOR + 1], given[SLOPES_PER_TENSOR + 1];
    int64_t step = x->n / SLOPES_PER_TENSOR + 1, count = 0;
    for (int64_t i = 0; i < x->n; i += step, count++) {
        measured[count] = (float)slope(ref, data, &x->at[i]);
        given[count] = gradient->at[i];
    }
    ops_assert_near(gradient->name, given, measured, count, slope_bound, zero_floor);
}

static void check_slopes(pt_backend *ref_backend, const ops_case *c, ops_data *data,
                         const ops_result *result)
{
    ops_rig *ref = ops_rig_new(ref_backend, c, PT_TRAIN, false);
    const ops_tensor *gradient = &result->t[1];
    for (int i = 0; i < c->op.n_inputs; i++)
        check_tensor(ref, data, &data->in[i], gradient++);
    for (int i = 0; i < PT_MAX_PARAMS && data->param[i].at; i++)
        check_tensor(ref, data, &data->param[i], gradient++);
    ops_rig_free(ref);
}

/* ---- the contract -----------------------------------------------------------------------------
 */

static void check_accumulate(ops_rig *rig, const ops_data *data, const ops_result *plain)
{
    ops_result sum;
    ops_rig_run(rig, data, OPS_ACCUMULATE, &sum);
    int first = 1 + ops_rig_kernel(rig)->op.n_inputs;
    /* On a device a library may add up by another algorithm than it multiplies. */
    bool device = ops_rig_kernel(rig)->backend->row->on_device;
    for (int i = 0; i < PT_MAX_PARAMS && data->d_param[i].at; i++) {
        const ops_tensor *old = &data->d_param[i], *added = &plain->t[first + i];
        float *expected = calloc((size_t)old->n, sizeof *expected);
        assert_non_null(expected);
        for (int64_t e = 0; e < old->n; e++)
            expected[e] = old->at[e] + added->at[e];
        ops_assert_near("accumulated gradient", sum.t[first + i].at, expected, old->n,
                        device ? ops_bound(ref_bound) : add_bound, zero_floor);
        free(expected);
    }
    ops_result_free(&sum);
}

/* Other data, other parameters, then the first ones again: nothing may be left of what was there
 * between, above all no reordered copy of old weights. */
static void check_repeat(ops_rig *rig, const ops_case *c, const ops_data *data,
                         const ops_result *first)
{
    ops_data other;
    ops_result between, again;
    ops_data_new(c, SEED_B, &other);
    ops_rig_run(rig, &other, 0, &between);
    ops_rig_run(rig, data, 0, &again);
    assert_results_same("the same call twice", &again, first);
    ops_result_free(&between);
    ops_result_free(&again);
    ops_data_free(&other);
}

static void check_aliases(ops_rig *rig, const ops_data *data, const ops_result *plain)
{
    unsigned flags = ops_rig_kernel(rig)->flags;
    if (flags & PT_PASSES_VALUE)
        assert_true(ops_rig_passes_value(rig));
    for (int i = 0; (flags & PT_PASSES_GRADIENT) && i < ops_rig_kernel(rig)->op.n_inputs; i++)
        assert_true(ops_rig_passes_gradient(rig, i));
    if (!ops_rig_can_run_in_place(rig))
        return;
    ops_result in_place;
    ops_rig_run(rig, data, OPS_IN_PLACE, &in_place);
    assert_results_same("in place", &in_place, plain);
    ops_result_free(&in_place);
}

/* Without the gradient of in[0] all others keep their bits: of the other inputs, and of the
 * parameters where backward_input makes them. */
static void check_fewer_gradients(ops_rig *rig, const ops_data *data, const ops_result *plain)
{
    const pt_kernel *k = ops_rig_kernel(rig);
    bool makes_weights = data->param[0].at && !(k->flags & PT_SPLITS_BACKWARD);
    if (k->op.n_inputs == 1 && !makes_weights)
        return;
    ops_result fewer;
    ops_rig_run(rig, data, OPS_FEWER_GRADIENTS, &fewer);
    for (int i = 2; i < plain->n; i++)
        assert_same_bits("without the first gradient", &fewer.t[i], &plain->t[i]);
    ops_result_free(&fewer);
}

/* ref's sums have one order, whatever the number of threads. */
static void check_threads(const ops_subject *s, const ops_data *data, const ops_result *plain)
{
    pt_backend *b = ops_open(s->row, 3);
    ops_rig *rig = ops_rig_new(b, s->c, PT_TRAIN, s->inner);
    ops_result result;
    ops_rig_run(rig, data, 0, &result);
    if (s->row == backend_row("ref"))
        assert_results_same("three threads", &result, plain);
    else
        assert_results_near(&result, plain, ops_bound(ref_bound));
    ops_result_free(&result);
    ops_rig_free(rig);
    s->row->close(b);
}

/* Evaluation: running statistics as given and left alone, nothing dropped. */
static void expected_evaluation(const ops_case *c, const ops_data *data, const ops_tensor *train,
                                float *out)
{
    memcpy(out, train->at, (size_t)train->n * sizeof *out);
    if (c->op.kind == PT_OP_DROPOUT)
        memcpy(out, data->in[0].at, (size_t)train->n * sizeof *out);
    if (c->op.kind != PT_OP_BATCH_NORM)
        return;
    int64_t channels = c->op.in[0].dims[0];
    int64_t area = pt_shape_elements(&c->op.in[0]) / channels;
    for (int64_t i = 0; i < train->n; i++) {
        int64_t at = i / area % channels;
        double deviation = sqrt((double)data->state[1].at[at] + c->op.eps);
        double normal = ((double)data->in[0].at[i] - (double)data->state[0].at[at]) / deviation;
        out[i] = (float)(normal * (double)data->param[0].at[at] + (double)data->param[1].at[at]);
    }
}

static void check_evaluation(pt_backend *b, const ops_subject *s, const ops_data *data,
                             const ops_result *train)
{
    ops_rig *rig = ops_rig_new(b, s->c, PT_EVAL, s->inner);
    ops_result result;
    assert_int_equal(ops_rig_kernel(rig)->saved_bytes, 0);
    ops_rig_run(rig, data, 0, &result);
    float *expected = calloc((size_t)result.t[0].n, sizeof *expected);
    assert_non_null(expected);
    expected_evaluation(s->c, data, &train->t[0], expected);
    ops_assert_near("evaluation", result.t[0].at, expected, result.t[0].n, ops_bound(ref_bound),
                    zero_floor);
    for (int i = 1; i < result.n; i++)
        assert_same_bits("evaluation", &result.t[i], &data->state[i - 1]);
    if (ops_rig_kernel(rig)->flags & PT_PASSES_VALUE)
        assert_true(ops_rig_passes_value(rig));
    if (ops_rig_can_run_in_place(rig)) {
        ops_result in_place;
        ops_rig_run(rig, data, OPS_IN_PLACE, &in_place);
        assert_results_same("evaluation in place", &in_place, &result);
        ops_result_free(&in_place);
    }
    free(expected);
    ops_result_free(&result);
    ops_rig_free(rig);
}

/* Training updates the running statistics: checked by the formula, not by ref. */
static void check_running(const ops_case *c, const ops_data *data, const ops_result *result)
{
    int64_t channels = c->op.in[0].dims[0];
    int64_t area = pt_shape_elements(&c->op.in[0]) / channels, count = c->samples * area;
    for (int64_t at = 0; at < channels; at++) {
        double sum = 0, square = 0;
        for (int64_t i = 0; i < data->in[0].n; i++)
            if (i / area % channels == at) {
                sum += (double)data->in[0].at[i];
                square += (double)data->in[0].at[i] * (double)data->in[0].at[i];
            }
        double mean = sum / (double)count, variance = square / (double)count - mean * mean;
        if (count > 1)
            variance *= (double)count / (double)(count - 1);
        const double batch[2] = {mean, variance};
        for (int i = 0; i < 2; i++) {
            float expected = (float)((1 - c->op.momentum) * (double)data->state[i].at[at] +
                                     c->op.momentum * batch[i]);
            const ops_tensor *running = &result->t[result->n - 2 + i];
            ops_assert_near(running->name, &running->at[at], &expected, 1, ref_bound, zero_floor);
        }
    }
}

static void check_against_ref(pt_backend *ref, const ops_case *c, const ops_data *data,
                              const ops_result *result)
{
    ops_rig *rig = ops_rig_new(ref, c, PT_TRAIN, false);
    ops_result oracle;
    ops_rig_run(rig, data, 0, &oracle);
    assert_results_near(result, &oracle, ops_bound(ref_bound));
    ops_result_free(&oracle);
    ops_rig_free(rig);
}

void ops_test_case(void **state)
{
    const ops_subject *s = *state;
    const pt_backend_row *ref_row = backend_row("ref");
    pt_backend *ref = ops_open(ref_row, 1), *b = ops_open(s->row, 1);
    ops_data data;
    ops_result result;
    ops_data_new(s->c, SEED_A, &data);
    ops_rig *rig = ops_rig_new(b, s->c, PT_TRAIN, s->inner);
    ops_rig_run(rig, &data, 0, &result);
    check_aliases(rig, &data, &result);
    if (s->row != ref_row)
        check_against_ref(ref, s->c, &data, &result);
    if (s->c->op.kind == PT_OP_BATCH_NORM)
        check_running(s->c, &data, &result);
    if (ops_precision == PT_FP32) /* coarser ones agree with ref, whose gradients are slopes */
        check_slopes(ref, s->c, &data, &result);
    check_accumulate(rig, &data, &result);
    check_repeat(rig, s->c, &data, &result);
    check_fewer_gradients(rig, &data, &result);
    check_evaluation(b, s, &data, &result);
    check_threads(s, &data, &result);
    ops_rig_free(rig);
    ops_result_free(&result);
    ops_data_free(&data);
    size_t now, peak;
    s->row->memory(b, &now, &peak);
    assert_int_equal(now, 0);
    ref_row->close(ref);
    s->row->close(b);
}
