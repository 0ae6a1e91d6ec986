/* kernels/norm.cu against sums in double. */
#include <math.h>

#include "cases.h"
#include "rig.h"
#include "suite.h"

static const double eps = 1e-5, momentum = 0.1;

/* One row; fewer rows than lines; several slices; channels in packs, single, and over many tiles.
 */
static const int64_t shapes[][2] = {{1, 3},    {2, 8},     {7, 10},   {100, 16}, {1000, 6},
                                    {513, 64}, {131, 300}, {64, 520}, {3000, 8}};
enum { SHAPES = sizeof shapes / sizeof *shapes };

/* ---- bias -------------------------------------------------------------------------------------
 */

static void bias(pt_cu_type type)
{
    for (int i = 0; i < 2 * SHAPES; i++) {
        const int64_t rows = shapes[i / 2][0], channels = shapes[i / 2][1];
        const bool accumulate = i % 2;
        vals y = rig_normal(type, rows * channels), dy = rig_same(&y), expected = rig_same(&y);
        vals b = rig_normal(PT_CU_FP32, channels), db = rig_same(&b), again = rig_same(&b);
        double *sum = rig_doubles(channels);
        for (int64_t c = 0; c < channels; c++)
            sum[c] = accumulate ? (double)b.host[c] : 0;
        for (int64_t k = 0; k < y.n; k++) {
            sum[k % channels] += (double)dy.host[k];
            expected.host[k] = rig_round(type, y.host[k] + b.host[k % channels]);
        }
        void *partials = rig_bytes(pt_cu_partials_bytes(rows, channels), NULL);
        launch(pt_cu_bias(NULL, type, rows, channels, b.dev, y.dev));
        rig_assert_same("bias", &y, expected.host);
        launch(pt_cu_bias_back(NULL, type, rows, channels, dy.dev, db.dev, accumulate, partials));
        rig_assert_near("bias gradient", &db, sum, rig_bound(PT_CU_FP32));
        launch(
            pt_cu_bias_back(NULL, type, rows, channels, dy.dev, again.dev, accumulate, partials));
        rig_assert_same("bias gradient again", &again, db.host);
    }
    vals db = rig_normal(PT_CU_FP32, 5);
    static const float zeros[5] = {0};
    launch(pt_cu_bias_back(NULL, type, 0, 5, NULL, db.dev, false,
                           rig_bytes(pt_cu_partials_bytes(0, 5), NULL)));
    rig_assert_same("bias gradient of nothing", &db, zeros);
}

void norm_bias(void **state)
{
    (void)state;
    rig_each_type(bias);
}

/* ---- batch-norm -------------------------------------------------------------------------------
 */

/* All values and parameters of one layer, and what they should become. */
typedef struct layer {
    pt_cu_norm norm;
    pt_cu_norm_args args;
    vals x, y, residual, w, b, mean, var, saved;
    double *wanted, *wanted_mean, *wanted_var, *wanted_saved;
} layer;

static layer layer_new(pt_cu_type type, const int64_t shape[2], double offset)
{
    layer l = {.norm = {type, shape[0], shape[1], eps, momentum, false}};
    const int64_t channels = shape[1], all = shape[0] * channels;
    l.x = rig_normal(type, all);
    for (int64_t i = 0; i < all; i++)
        l.x.host[i] += (float)offset;
    l.x = rig_same(&l.x);
    l.residual = rig_normal(type, all);
    l.y = rig_empty(type, all);
    l.w = rig_normal(PT_CU_FP32, channels);
    l.b = rig_normal(PT_CU_FP32, channels);
    l.mean = rig_normal(PT_CU_FP32, channels);
    l.var = rig_normal(PT_CU_FP32, channels);
    for (int64_t c = 0; c < channels; c++)
        l.var.host[c] = 0.5f + fabsf(l.var.host[c]);
    l.var = rig_same(&l.var);
    l.saved = rig_empty(PT_CU_FP32, 2 * channels);
    l.args =
        (pt_cu_norm_args){.x = l.x.dev,
                          .w = l.w.dev,
                          .b = l.b.dev,
                          .running_mean = l.mean.dev,
                          .running_var = l.var.dev,
                          .saved = l.saved.dev,
                          .y = l.y.dev,
                          .partials = rig_bytes(pt_cu_partials_bytes(shape[0], channels), NULL)};
    return l;
}

/* Statistics of the batch, and the running ones after it. */
static void expect_statistics(layer *l)
{
    const int64_t rows = l->norm.rows, channels = l->norm.channels;
    l->wanted_saved = rig_doubles(2 * channels);
    l->wanted_mean = rig_doubles(channels);
    l->wanted_var = rig_doubles(channels);
    for (int64_t c = 0; c < channels; c++) {
        double mean = 0, square = 0;
        for (int64_t r = 0; r < rows; r++)
            mean += (double)l->x.host[r * channels + c] / (double)rows;
        for (int64_t r = 0; r < rows; r++)
            square += pow((double)l->x.host[r * channels + c] - mean, 2);
        l->wanted_saved[c] = mean;
        l->wanted_saved[channels + c] = 1 / sqrt(square / (double)rows + eps);
        l->wanted_mean[c] = (1 - momentum) * (double)l->mean.host[c] + momentum * mean;
        l->wanted_var[c] = (1 - momentum) * (double)l->var.host[c] +
                           momentum * square / (double)(rows > 1 ? rows - 1 : rows);
    }
}

static void expect_output(layer *l, const double *mean, const double *rstd)
{
    const int64_t channels = l->norm.channels;
    l->wanted = rig_doubles(l->x.n);
    for (int64_t i = 0; i < l->x.n; i++) {
        const int64_t c = i % channels;
        l->wanted[i] = (double)l->w.host[c] * ((double)l->x.host[i] - mean[c]) * rstd[c] +
                       (double)l->b.host[c];
    }
}

/* After a first time. */
static void train_for_backward(layer *l)
{
    vals y = rig_empty(l->norm.type, l->y.n), saved = rig_empty(PT_CU_FP32, l->saved.n);
    rig_fetch(&l->mean);
    rig_fetch(&l->var);
    const float *mean = rig_same(&l->mean).host, *var = rig_same(&l->var).host;
    l->args.y = y.dev;
    l->args.saved = saved.dev;
    l->args.running_mean = l->args.running_var = NULL;
    launch(pt_cu_norm_train(NULL, &l->norm, &l->args));
    rig_assert_same("normalised for a backward", &y, l->y.host);
    rig_assert_same("batch statistics for a backward", &saved, l->saved.host);
    rig_assert_same("the running mean is as it was", &l->mean, mean);
    rig_assert_same("the running variance is as it was", &l->var, var);
}

static void train(pt_cu_type type)
{
    for (int i = 0; i < SHAPES; i++) {
        layer l = layer_new(type, shapes[i], 0.5);
        expect_statistics(&l);
        expect_output(&l, l.wanted_saved, l.wanted_saved + l.norm.channels);
        launch(pt_cu_norm_train(NULL, &l.norm, &l.args));
        rig_assert_near("normalised", &l.y, l.wanted, rig_bound(type));
        rig_assert_near("batch mean and 1/deviation", &l.saved, l.wanted_saved, 1e-12);
        rig_assert_near("running mean", &l.mean, l.wanted_mean, 1e-12);
        rig_assert_near("running variance", &l.var, l.wanted_var, 1e-12);
        vals again = rig_empty(type, l.x.n);
        l.args.y = again.dev;
        launch(pt_cu_norm_train(NULL, &l.norm, &l.args));
        rig_assert_same("normalised again", &again, l.y.host);
        train_for_backward(&l);
    }
}

void norm_train(void **state)
{
    (void)state;
    rig_each_type(train);
}

/* Deviations of 1 around 1,000 leave three digits in a difference of sums of squares. The mean is
 * saved in fp32, off by up to 3e-5 of a deviation: 1e-9 of the square. */
void norm_far_from_zero(void **state)
{
    (void)state;
    for (int i = 2; i < SHAPES; i++) {
        layer l = layer_new(PT_CU_FP32, shapes[i], 1000);
        expect_statistics(&l);
        expect_output(&l, l.wanted_saved, l.wanted_saved + l.norm.channels);
        launch(pt_cu_norm_train(NULL, &l.norm, &l.args));
        rig_assert_near("running variance", &l.var, l.wanted_var, 1e-11);
        rig_assert_near("normalised", &l.y, l.wanted, 1e-8);
    }
}

static void eval(pt_cu_type type)
{
    for (int i = 0; i < SHAPES; i++) {
        layer l = layer_new(type, shapes[i], 0.5);
        double *mean = rig_doubles(l.norm.channels), *rstd = rig_doubles(l.norm.channels);
        for (int64_t c = 0; c < l.norm.channels; c++) {
            mean[c] = (double)l.mean.host[c];
            rstd[c] = 1 / sqrt((double)l.var.host[c] + eps);
        }
        expect_output(&l, mean, rstd);
        const vals mean_before = l.mean;
        launch(pt_cu_norm_eval(NULL, &l.norm, &l.args));
        rig_assert_near("normalised by running statistics", &l.y, l.wanted, rig_bound(type));
        float *host = rig_same(&mean_before).host;
        rig_assert_same("the running mean stays", &l.mean, host);
    }
}

void norm_eval(void **state)
{
    (void)state;
    rig_each_type(eval);
}

static void fused(pt_cu_type type)
{
    for (int i = 0; i < SHAPES; i++)
        for (int kind = 0; kind < 4; kind++) {
            layer l = layer_new(type, shapes[i], 0.5);
            vals sum = rig_empty(type, l.x.n), expected = rig_empty(type, l.x.n);
            launch(pt_cu_norm_train(NULL, &l.norm, &l.args));
            const void *const terms[] = {l.y.dev, l.residual.dev};
            launch(pt_cu_sum(NULL, type, l.x.n, kind & 1 ? 2 : 1, terms, sum.dev));
            if (kind & 2)
                launch(pt_cu_relu(NULL, type, l.x.n, sum.dev, expected.dev));
            rig_fetch(kind & 2 ? &expected : &sum);
            l.args.residual = kind & 1 ? l.residual.dev : NULL;
            l.norm.relu = kind & 2;
            launch(pt_cu_norm_train(NULL, &l.norm, &l.args));
            rig_assert_same("fused", &l.y, kind & 2 ? expected.host : sum.host);
        }
}

void norm_fused_is_the_three_ops(void **state)
{
    (void)state;
    rig_each_type(fused);
}

/* ---- backward ---------------------------------------------------------------------------------
 */

typedef struct gradients {
    vals dy, dx, d_residual, dw, db;
    double *wanted_dx, *wanted_dw, *wanted_db;
    float *passed; /* what relu lets through */
} gradients;

static void expect_gradients(const layer *l, gradients *g, bool accumulate)
{
    const int64_t rows = l->norm.rows, channels = l->norm.channels;
    const float *mean = l->saved.host, *rstd = mean + channels;
    double *sum = rig_doubles(channels), *by_x = rig_doubles(channels);
    g->wanted_dx = rig_doubles(l->x.n);
    g->wanted_dw = rig_doubles(channels);
    g->wanted_db = rig_doubles(channels);
    g->passed = rig_same(&g->dy).host;
    for (int64_t i = 0; i < l->x.n; i++) {
        const int64_t c = i % channels;
        if (l->norm.relu && l->y.host[i] <= 0)
            g->passed[i] = 0;
        sum[c] += (double)g->passed[i];
        by_x[c] +=
            (double)g->passed[i] * ((double)l->x.host[i] - (double)mean[c]) * (double)rstd[c];
    }
    for (int64_t c = 0; c < channels; c++) {
        g->wanted_dw[c] = by_x[c] + (accumulate ? (double)g->dw.host[c] : 0);
        g->wanted_db[c] = sum[c] + (accumulate ? (double)g->db.host[c] : 0);
    }
    for (int64_t i = 0; i < l->x.n; i++) {
        const int64_t c = i % channels;
        const double normal = ((double)l->x.host[i] - (double)mean[c]) * (double)rstd[c];
        g->wanted_dx[i] =
            (double)l->w.host[c] * (double)rstd[c] *
            ((double)g->passed[i] - sum[c] / (double)rows - normal * by_x[c] / (double)rows);
    }
}

/* kind: bits for relu, a residual, accumulation, dx in dy's memory. */
static void back(pt_cu_type type, const int64_t shape[2], int kind)
{
    layer l = layer_new(type, shape, 0.5);
    l.norm.relu = kind & 1;
    l.args.residual = l.residual.dev;
    launch(pt_cu_norm_train(NULL, &l.norm, &l.args));
    rig_fetch(&l.y);
    rig_fetch(&l.saved);
    gradients g = {.dy = rig_normal(type, l.x.n),
                   .dx = rig_empty(type, l.x.n),
                   .d_residual = rig_empty(type, l.x.n),
                   .dw = rig_normal(PT_CU_FP32, shape[1]),
                   .db = rig_normal(PT_CU_FP32, shape[1])};
    expect_gradients(&l, &g, kind & 4);
    if (kind & 8)
        g.dx = g.dy;
    l.args.dy = g.dy.dev;
    l.args.dx = g.dx.dev;
    l.args.d_residual = kind & 2 ? g.d_residual.dev : NULL;
    l.args.dw = g.dw.dev;
    l.args.db = g.db.dev;
    l.args.accumulate = kind & 4;
    launch(pt_cu_norm_back(NULL, &l.norm, &l.args));
    /* dx is a difference of terms that nearly cancel where there are few rows: one row gives 0. */
    if (shape[0] > 2)
        rig_assert_near("dx", &g.dx, g.wanted_dx, 4 * rig_bound(type));
    rig_assert_near("dw", &g.dw, g.wanted_dw, 1e-11);
    rig_assert_near("db", &g.db, g.wanted_db, 1e-11);
    if (kind & 2)
        rig_assert_same("the residual's gradient", &g.d_residual, g.passed);
}

static void backs(pt_cu_type type)
{
    for (int i = 0; i < SHAPES; i++)
        for (int kind = 0; kind < 16; kind++)
            back(type, shapes[i], kind);
}

void norm_back(void **state)
{
    (void)state;
    rig_each_type(backs);
}
