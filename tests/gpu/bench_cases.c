/* Every launch function of kernels/launch.h at least once. */
#include "bench_cases.h"

enum { AVERAGED = 2 }; /* an average pool's kernel and stride */

int64_t rig_values(const rig *r)
{
    return r->samples * r->side * r->side * r->channels;
}

int64_t rig_loss_samples(const rig *r)
{
    return rig_values(r) / r->classes;
}

static int64_t rows(const rig *r)
{
    return r->samples * r->side * r->side;
}

size_t rig_partials_bytes(const rig *r)
{
    const size_t sizes[] = {pt_cu_partials_bytes(rows(r), r->channels), pt_cu_squares_bytes(),
                            pt_cu_loss_bytes(rig_loss_samples(r))};
    size_t most = 0;
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
        most = sizes[i] > most ? sizes[i] : most;
    return most;
}

/* Bytes of `values` elements of the rig's type. */
static double of_type(const rig *r, double values)
{
    return values * (r->type == PT_CU_BF16 ? 2 : 4);
}

/* Bytes of so many whole values. */
static double whole(const rig *r, double times)
{
    return of_type(r, times * (double)rig_values(r));
}

static double flat(const rig *r, double times)
{
    return 4 * times * (double)rig_values(r);
}

/* ---- flat buffers -------------------------------------------------------------------------------
 */

static cudaError_t axpby(const rig *r, double *ret_bytes)
{
    *ret_bytes = flat(r, 3);
    return pt_cu_axpby(r->stream, (size_t)rig_values(r), 0.5F, r->value[0], 0.5F, r->value[1],
                       r->value[2]);
}

static const pt_sgd rule = {.lr = 1e-6F, .momentum = 0.9F, .decay = 1e-4F, .scale = 1};

static cudaError_t sgd_plain(const rig *r, double *ret_bytes)
{
    pt_sgd plain = rule;
    plain.momentum = 0; /* there is no velocity */
    *ret_bytes = flat(r, 3);
    return pt_cu_sgd(r->stream, (size_t)rig_values(r), &plain, r->value[0], NULL, r->value[2],
                     NULL);
}

static cudaError_t sgd_momentum(const rig *r, double *ret_bytes)
{
    *ret_bytes = flat(r, 5);
    return pt_cu_sgd(r->stream, (size_t)rig_values(r), &rule, r->value[0], r->value[1], r->value[2],
                     NULL);
}

static cudaError_t sgd_foresight(const rig *r, double *ret_bytes)
{
    const pt_foresight foresight = {.a = 1, .b = -1e-6F, .dev_out = r->value[3]};
    *ret_bytes = flat(r, 6);
    return pt_cu_sgd(r->stream, (size_t)rig_values(r), &rule, r->value[0], r->value[1], r->value[2],
                     &foresight);
}

static cudaError_t sum_of_squares(const rig *r, double *ret_bytes)
{
    *ret_bytes = flat(r, 1);
    return pt_cu_sum_of_squares(r->stream, (size_t)rig_values(r), r->value[0], r->partials,
                                r->result);
}

/* As momentum makes them: v stands for what is squared. */
static cudaError_t mean_squares(const rig *r, double *ret_bytes)
{
    *ret_bytes = flat(r, 3);
    return pt_cu_mean_squares(r->stream, (size_t)rig_values(r), 0.999F, 0.001F, r->value[0],
                              r->value[1]);
}

/* The rig has four buffers: one is the weights and the mean of squares, and read from memory once.
 */
static cudaError_t gap(const rig *r, double *ret_bytes)
{
    const pt_gap late = {.top = 0.1F, .unbias = 1, .least = 1e-3F};
    *ret_bytes = flat(r, 4);
    return pt_cu_gap(r->stream, (size_t)rig_values(r), &late, r->value[0], r->value[1], r->value[1],
                     r->value[2], r->value[3]);
}

static cudaError_t look_back(const rig *r, double *ret_bytes)
{
    const pt_look_back late = {.keep = 0.5F, .rest = 0.5F, .delay = 3};
    *ret_bytes = flat(r, 5);
    return pt_cu_look_back(r->stream, (size_t)rig_values(r), &late, r->value[0], r->value[1],
                           r->value[2]);
}

/* ---- moving and converting ----------------------------------------------------------------------
 */

/* Images of a loader, NCHW fp32, become values. */
static cudaError_t nhwc_of_nchw(const rig *r, double *ret_bytes)
{
    *ret_bytes = flat(r, 1) + whole(r, 1);
    return pt_cu_transpose(r->stream, r->samples, r->channels, r->side * r->side, PT_CU_FP32,
                           r->value[0], r->type, r->value[1], /*accumulate=*/false);
}

static cudaError_t nchw_of_nhwc(const rig *r, double *ret_bytes)
{
    *ret_bytes = flat(r, 1) + whole(r, 1);
    return pt_cu_transpose(r->stream, r->samples, r->side * r->side, r->channels, r->type,
                           r->value[0], PT_CU_FP32, r->value[1], /*accumulate=*/false);
}

/* A gradient is added where it belongs: read, read, written. */
static cudaError_t transpose_add(const rig *r, double *ret_bytes)
{
    *ret_bytes = flat(r, 3);
    return pt_cu_transpose(r->stream, r->samples, r->side * r->side, r->channels, PT_CU_FP32,
                           r->value[0], PT_CU_FP32, r->value[1], /*accumulate=*/true);
}

static cudaError_t convert(const rig *r, double *ret_bytes)
{
    *ret_bytes = flat(r, 1) + whole(r, 1);
    return pt_cu_convert(r->stream, rig_values(r), PT_CU_FP32, r->value[0], r->type, r->value[1],
                         /*accumulate=*/false);
}

/* Half of the channels, to the other half. */
static cudaError_t copy_channels(const rig *r, double *ret_bytes)
{
    const int64_t half = r->channels / 2;
    *ret_bytes = of_type(r, 2.0 * (double)(rows(r) * half));
    return pt_cu_copy_channels(r->stream, r->type, rows(r), half, r->value[0], r->channels, 0,
                               r->value[1], r->channels, r->channels - half);
}

/* ---- element by element -------------------------------------------------------------------------
 */

static cudaError_t relu(const rig *r, double *ret_bytes)
{
    *ret_bytes = whole(r, 2);
    return pt_cu_relu(r->stream, r->type, rig_values(r), r->value[0], r->value[1]);
}

static cudaError_t relu_back(const rig *r, double *ret_bytes)
{
    *ret_bytes = whole(r, 3);
    return pt_cu_relu_back(r->stream, r->type, rig_values(r), r->value[0], r->value[1],
                           r->value[2]);
}

static cudaError_t gelu(const rig *r, double *ret_bytes)
{
    *ret_bytes = whole(r, 2);
    return pt_cu_gelu(r->stream, r->type, rig_values(r), r->value[0], r->value[1]);
}

static cudaError_t gelu_back(const rig *r, double *ret_bytes)
{
    *ret_bytes = whole(r, 3);
    return pt_cu_gelu_back(r->stream, r->type, rig_values(r), r->value[0], r->value[1],
                           r->value[2]);
}

static cudaError_t sum(const rig *r, double *ret_bytes)
{
    const void *const x[] = {r->value[0], r->value[1]};
    *ret_bytes = whole(r, 3);
    return pt_cu_sum(r->stream, r->type, rig_values(r), 2, x, r->value[2]);
}

static cudaError_t dropout(const rig *r, double *ret_bytes)
{
    const pt_cu_dropout_spec spec = {.samples = r->samples,
                                     .area = r->side * r->side,
                                     .channels = r->channels,
                                     .p = 0.5,
                                     .seed = 1,
                                     .layer = 1,
                                     .epoch = 0,
                                     .sample = r->sample};
    *ret_bytes = whole(r, 2);
    return pt_cu_dropout(r->stream, r->type, &spec, r->value[0], r->value[1]);
}

/* ---- pools --------------------------------------------------------------------------------------
 */

static pt_cu_window window(const rig *r, int64_t kernel, int64_t stride, int64_t padding)
{
    const int64_t out = (r->side + 2 * padding - kernel) / stride + 1;
    return (pt_cu_window){r->samples, r->channels,      r->side,          r->side,           out,
                          out,        {kernel, kernel}, {stride, stride}, {padding, padding}};
}

static double pooled(const pt_cu_window *w)
{
    return (double)(w->samples * w->out_h * w->out_w * w->channels);
}

/* ResNet's: 3 × 3, stride 2, padding 1. */
static cudaError_t max_pool(const rig *r, double *ret_bytes)
{
    const pt_cu_window w = window(r, 3, 2, 1);
    *ret_bytes = whole(r, 1) + of_type(r, pooled(&w)) + 4 * pooled(&w);
    return pt_cu_max_pool(r->stream, r->type, &w, r->value[0], r->value[1], r->which);
}

/* Follows max_pool in the table: `which` is what that left. */
static cudaError_t max_pool_back(const rig *r, double *ret_bytes)
{
    const pt_cu_window w = window(r, 3, 2, 1);
    *ret_bytes = whole(r, 1) + of_type(r, pooled(&w)) + 4 * pooled(&w);
    return pt_cu_max_pool_back(r->stream, r->type, &w, r->which, r->value[1], r->value[2]);
}

static cudaError_t avg_pool(const rig *r, double *ret_bytes)
{
    const pt_cu_window w = window(r, AVERAGED, AVERAGED, 0);
    *ret_bytes = whole(r, 1) + of_type(r, pooled(&w));
    return pt_cu_avg_pool(r->stream, r->type, &w, r->value[0], r->value[1]);
}

static cudaError_t avg_pool_back(const rig *r, double *ret_bytes)
{
    const pt_cu_window w = window(r, AVERAGED, AVERAGED, 0);
    *ret_bytes = whole(r, 1) + of_type(r, pooled(&w));
    return pt_cu_avg_pool_back(r->stream, r->type, &w, r->value[1], r->value[2]);
}

static cudaError_t global_pool(const rig *r, double *ret_bytes)
{
    *ret_bytes = whole(r, 1) + of_type(r, (double)(r->samples * r->channels));
    return pt_cu_global_pool(r->stream, r->type, r->samples, r->side * r->side, r->channels,
                             r->value[0], r->value[1]);
}

static cudaError_t global_pool_back(const rig *r, double *ret_bytes)
{
    *ret_bytes = whole(r, 1) + of_type(r, (double)(r->samples * r->channels));
    return pt_cu_global_pool_back(r->stream, r->type, r->samples, r->side * r->side, r->channels,
                                  r->value[1], r->value[2]);
}

/* ---- channels -----------------------------------------------------------------------------------
 */

static cudaError_t bias(const rig *r, double *ret_bytes)
{
    *ret_bytes = whole(r, 2);
    return pt_cu_bias(r->stream, r->type, rows(r), r->channels, r->per_channel[0], r->value[1]);
}

static cudaError_t bias_back(const rig *r, double *ret_bytes)
{
    *ret_bytes = whole(r, 1);
    return pt_cu_bias_back(r->stream, r->type, rows(r), r->channels, r->value[0], r->per_channel[1],
                           /*accumulate=*/false, r->partials);
}

static pt_cu_norm norm(const rig *r, bool with_relu)
{
    return (pt_cu_norm){.type = r->type,
                        .rows = rows(r),
                        .channels = r->channels,
                        .eps = 1e-5,
                        .momentum = 0.1,
                        .relu = with_relu};
}

static pt_cu_norm_args norm_args(const rig *r)
{
    return (pt_cu_norm_args){.x = r->value[0],
                             .w = r->per_channel[0],
                             .b = r->per_channel[1],
                             .running_mean = r->per_channel[2],
                             .running_var = r->per_channel[2] + r->channels,
                             .saved = r->per_channel[3],
                             .y = r->value[1],
                             .dw = r->per_channel[4],
                             .db = r->per_channel[5],
                             .partials = r->partials};
}

/* x is read for the mean, for the deviations and for y. */
static cudaError_t norm_train(const rig *r, double *ret_bytes)
{
    const pt_cu_norm n = norm(r, /*with_relu=*/true);
    const pt_cu_norm_args a = norm_args(r);
    *ret_bytes = whole(r, 4);
    return pt_cu_norm_train(r->stream, &n, &a);
}

static cudaError_t norm_train_add(const rig *r, double *ret_bytes)
{
    const pt_cu_norm n = norm(r, /*with_relu=*/true);
    pt_cu_norm_args a = norm_args(r);
    a.residual = r->value[2];
    *ret_bytes = whole(r, 5);
    return pt_cu_norm_train(r->stream, &n, &a);
}

static cudaError_t norm_eval(const rig *r, double *ret_bytes)
{
    const pt_cu_norm n = norm(r, /*with_relu=*/true);
    const pt_cu_norm_args a = norm_args(r);
    *ret_bytes = whole(r, 2);
    return pt_cu_norm_eval(r->stream, &n, &a);
}

/* x, y and dy are read for the sums and for dx. Reads what norm_train left in `saved`. */
static cudaError_t norm_back(const rig *r, double *ret_bytes)
{
    const pt_cu_norm n = norm(r, /*with_relu=*/true);
    pt_cu_norm_args a = norm_args(r);
    a.dy = r->value[2];
    a.dx = r->value[3];
    *ret_bytes = whole(r, 7);
    return pt_cu_norm_back(r->stream, &n, &a);
}

/* The sums read x, y, dy and write the residual's gradient; dx reads x and that. */
static cudaError_t norm_back_add(const rig *r, double *ret_bytes)
{
    const pt_cu_norm n = norm(r, /*with_relu=*/true);
    pt_cu_norm_args a = norm_args(r);
    a.residual = r->value[2];
    a.dy = r->value[2];
    a.dx = r->value[3];
    a.d_residual = r->value[4];
    *ret_bytes = whole(r, 7);
    return pt_cu_norm_back(r->stream, &n, &a);
}

/* ---- loss ---------------------------------------------------------------------------------------
 */

static cudaError_t cross_entropy(const rig *r, double *ret_bytes)
{
    const pt_loss loss = {PT_LOSS_CROSS_ENTROPY, 0, {1, {r->classes}}};
    const int64_t samples = rig_loss_samples(r);
    *ret_bytes = of_type(r, 2.0 * (double)(samples * r->classes));
    return pt_cu_loss(r->stream, r->type, &loss, samples, r->value[0], r->label, NULL,
                      1 / (float)samples, r->value[1], r->result, r->partials);
}

/* The gelu takes erfc and exp in double for each element, dropout a Philox block. */
const rig_case rig_cases[] = {
    {"axpby", BOUND_MEMORY, true, axpby},
    {"sgd, no momentum", BOUND_MEMORY, true, sgd_plain},
    {"sgd, momentum", BOUND_MEMORY, true, sgd_momentum},
    {"sgd, foresight", BOUND_MEMORY, true, sgd_foresight},
    {"sum of squares", BOUND_MEMORY, true, sum_of_squares},
    {"mean of squares", BOUND_MEMORY, true, mean_squares},
    {"gap", BOUND_MEMORY, true, gap},
    {"look back", BOUND_MEMORY, true, look_back},
    {"transpose, accumulate", BOUND_MEMORY, true, transpose_add},
    {"NCHW to NHWC", BOUND_MEMORY, false, nhwc_of_nchw},
    {"NHWC to NCHW", BOUND_MEMORY, false, nchw_of_nhwc},
    {"convert", BOUND_MEMORY, false, convert},
    {"copy channels", BOUND_MEMORY, false, copy_channels},
    {"relu", BOUND_MEMORY, false, relu},
    {"relu, backward", BOUND_MEMORY, false, relu_back},
    {"gelu", BOUND_ARITHMETIC, false, gelu},
    {"gelu, backward", BOUND_ARITHMETIC, false, gelu_back},
    {"sum of two", BOUND_MEMORY, false, sum},
    {"dropout", BOUND_ARITHMETIC, false, dropout},
    {"max-pool", BOUND_MEMORY, false, max_pool},
    {"max-pool, backward", BOUND_MEMORY, false, max_pool_back},
    {"avg-pool", BOUND_MEMORY, false, avg_pool},
    {"avg-pool, backward", BOUND_MEMORY, false, avg_pool_back},
    {"global pool", BOUND_MEMORY, false, global_pool},
    {"global pool, backward", BOUND_MEMORY, false, global_pool_back},
    {"bias", BOUND_MEMORY, false, bias},
    {"bias, backward", BOUND_MEMORY, false, bias_back},
    {"batch-norm relu", BOUND_MEMORY, false, norm_train},
    {"batch-norm add relu", BOUND_MEMORY, false, norm_train_add},
    {"batch-norm relu, evaluation", BOUND_MEMORY, false, norm_eval},
    {"batch-norm relu, backward", BOUND_MEMORY, false, norm_back},
    {"batch-norm add relu, backward", BOUND_MEMORY, false, norm_back_add},
    {"cross-entropy", BOUND_MEMORY, false, cross_entropy},
};
const int rig_n_cases = sizeof rig_cases / sizeof rig_cases[0];
