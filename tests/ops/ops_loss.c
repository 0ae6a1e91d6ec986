/* Losses on one backend: gradients against slopes, known values, arg-max, bad labels. */
#include <math.h>
#include <string.h>

#include "ops_tests.h"
#include "pipetrain/rng.h"
#include "suite.h"

/* The loss is a double, its arguments are fp32; the differences are of fourth order with a step of
 * 1/32, and d_y is rounded to fp32. */
static const double slope_bound = 1e-5;
/* Logarithms and exponentials in fp32 or better, of values near 10. */
static const double known_bound = 1e-5;

enum { SAMPLES = 5, CLASSES = 7, MOST = SAMPLES * CLASSES };

/* A loss on a backend with its memory. */
typedef struct bench {
    pt_backend *b;
    pt_layout *layout;
    void *dev_y, *dev_d_y, *dev_answer, *host_result;
    pt_loss loss;
    pt_loss_args args;
} bench;

static bench bench_new(const pt_backend_row *row, pt_loss loss, int samples)
{
    pt_error err = {PT_OK, ""};
    bench t = {.b = ops_open(row, 1), .loss = loss};
    assert_ok(row->plain_layout(t.b, &loss.shape, samples, &t.layout, &err), &err);
    assert_ok(row->dev_new(t.b, t.layout->bytes, &t.dev_y, &err), &err);
    assert_ok(row->dev_new(t.b, t.layout->bytes, &t.dev_d_y, &err), &err);
    assert_ok(row->dev_new(t.b, MOST * sizeof(float), &t.dev_answer, &err), &err);
    assert_ok(row->host_new(t.b, sizeof(pt_loss_result), &t.host_result, &err), &err);
    t.args = (pt_loss_args){.layout = t.layout,
                            .samples = samples,
                            .dev_y = t.dev_y,
                            .dev_label = t.dev_answer,
                            .dev_target = t.dev_answer,
                            .host_result = t.host_result};
    return t;
}

/* Labels or targets. */
static void answer(bench *t, const void *host, size_t bytes)
{
    pt_error err = {PT_OK, ""};
    assert_ok(t->b->row->upload(t->b, t->dev_answer, host, bytes, &err), &err);
}

static void bench_free(bench *t)
{
    const pt_backend_row *row = t->b->row;
    row->dev_free(t->b, t->dev_y);
    row->dev_free(t->b, t->dev_d_y);
    row->dev_free(t->b, t->dev_answer);
    row->host_free(t->b, t->host_result);
    row->layout_free(t->b, t->layout);
    row->close(t->b);
}

static size_t bytes_of(const bench *t)
{
    return (size_t)t->args.samples * (size_t)pt_shape_elements(&t->loss.shape) * sizeof(float);
}

/* Runs the loss on y; d_y is wanted unless NULL. */
static pt_loss_result run(bench *t, const float *y, float *d_y)
{
    pt_error err = {PT_OK, ""};
    const pt_backend_row *row = t->b->row;
    assert_ok(row->upload(t->b, t->dev_y, y, bytes_of(t), &err), &err);
    t->args.dev_d_y = d_y ? t->dev_d_y : NULL;
    assert_ok(row->loss(t->b, &t->loss, &t->args, &err), &err);
    assert_ok(row->finish(t->b, &err), &err);
    if (d_y)
        assert_ok(row->download(t->b, d_y, t->dev_d_y, bytes_of(t), &err), &err);
    return *(const pt_loss_result *)t->host_result;
}

static void check_slopes(bench *t, float *y)
{
    const float step = 1.0f / 32, factor[4] = {-2, -1, 1, 2};
    float d_y[MOST], measured[MOST];
    int64_t n = (int64_t)(bytes_of(t) / sizeof(float));
    double with = run(t, y, d_y).loss;
    assert_true(with == run(t, y, NULL).loss);
    for (int64_t i = 0; i < n; i++) {
        const float old = y[i];
        double v[4];
        for (int j = 0; j < 4; j++) {
            y[i] = old + factor[j] * step;
            v[j] = run(t, y, NULL).loss;
        }
        y[i] = old;
        double slope = (8 * (v[2] - v[1]) - (v[3] - v[0])) / (12 * (double)step);
        measured[i] = (float)(slope * (double)t->args.scale);
    }
    ops_assert_near("d_y", d_y, measured, n, slope_bound, 0);
}

static void fill(float *x, int n, uint64_t seed)
{
    pt_rng rng;
    pt_rng_init(&rng, seed, PT_RNG_CHECK, 0, 0);
    for (int i = 0; i < n; i++)
        x[i] = pt_rng_normal(&rng);
}

void ops_test_entropy(void **state)
{
    const ops_subject *s = *state;
    const double smoothing[] = {0, 0.1, 1};
    const int32_t label[SAMPLES] = {3, 0, 6, 6, 1};
    float y[MOST];
    for (int i = 0; i < 3; i++) {
        pt_loss loss = {PT_LOSS_CROSS_ENTROPY, smoothing[i], {1, {CLASSES}}};
        bench t = bench_new(s->row, loss, SAMPLES);
        answer(&t, label, sizeof label);
        t.args.scale = 0.125f;
        fill(y, MOST, 5);
        check_slopes(&t, y);
        bench_free(&t);
    }
}

void ops_test_mse(void **state)
{
    const ops_subject *s = *state;
    float y[MOST], target[MOST];
    pt_loss loss = {PT_LOSS_MSE, 0, {1, {CLASSES}}};
    bench t = bench_new(s->row, loss, SAMPLES);
    t.args.scale = 0.2f;
    fill(y, MOST, 6);
    fill(target, MOST, 7);
    answer(&t, target, sizeof target);
    check_slopes(&t, y);
    double expected = 0;
    for (int i = 0; i < MOST; i++)
        expected += ((double)y[i] - (double)target[i]) * ((double)y[i] - (double)target[i]);
    pt_loss_result result = run(&t, y, NULL);
    assert_true(fabs(result.loss - expected / CLASSES) <= known_bound * expected);
    assert_int_equal(result.correct, 0);
    bench_free(&t);
}

/* The three losses of these logits with smoothing 0.1 are PyTorch 1.13's. */
void ops_test_loss_known(void **state)
{
    const ops_subject *s = *state;
    pt_error err = {PT_OK, ""};
    const float y[12] = {-5, 2, -2, 5, 1, -3, 4, 0, -4, 3, -1, -5};
    const float equal[12] = {0}, huge[12] = {1000, -1000, 0, 0, 0, 1000, 0, 0, 0, 0, 0, 1000};
    int32_t label[3] = {1, 3, 0};
    pt_loss loss = {PT_LOSS_CROSS_ENTROPY, 0.1, {1, {4}}};
    bench t = bench_new(s->row, loss, 3);
    answer(&t, label, sizeof label);
    t.args.scale = 1;
    double sum = 3.24949861 + 4.01673698 + 6.79437351;
    pt_loss_result result = run(&t, y, NULL);
    assert_true(fabs(result.loss - sum) <= known_bound * sum);
    assert_int_equal(result.correct, 0);
    t.loss.smoothing = 0;
    label[1] = 2;
    answer(&t, label, sizeof label);
    result = run(&t, equal, NULL); /* a tie goes to class 0: the last sample is right */
    assert_true(fabs(result.loss - 3 * log(4)) <= known_bound);
    assert_int_equal(result.correct, 1);
    label[0] = 0;
    label[1] = 1;
    label[2] = 3;
    answer(&t, label, sizeof label);
    result = run(&t, huge, NULL); /* no exponential may overflow */
    assert_true(fabs(result.loss) <= known_bound);
    assert_int_equal(result.correct, 3);
    label[1] = 4;
    assert_fails(pt_loss_check_labels(&t.loss, label, 3, &err), PT_EINPUT, "label 4", &err);
    label[1] = -1;
    assert_fails(pt_loss_check_labels(&t.loss, label, 3, &err), PT_EINPUT, "label -1", &err);
    label[1] = 3;
    assert_ok(pt_loss_check_labels(&t.loss, label, 3, &err), &err);
    bench_free(&t);
}
