/* What the CUDA kernels do, as C functions that put them on a stream. Nothing here waits; the error
 * is that of the launch alone. All addresses are device memory unless they are called host.
 *
 * A value lies as (rows, channels), channels innermost: an image batch is NHWC with rows = N·H·W, a
 * batch of vectors has rows = N. Its elements are fp32 or bf16; all sums are made in fp32 or wider,
 * in an order that depends on the shape and on whether addresses are multiples of 16 bytes, never
 * on the device or on time, so that every run gives the same bits. Any alignment of an element is
 * right; multiples of 16 bytes are fast.
 *
 * `partials` is a scratch block of pt_cu_partials_bytes(rows, channels), contents of no meaning
 * before and after. */
#ifndef PIPETRAIN_KERNELS_LAUNCH_H
#define PIPETRAIN_KERNELS_LAUNCH_H

#include <cuda_runtime_api.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "pipetrain/backend.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum pt_cu_type { PT_CU_FP32, PT_CU_BF16 } pt_cu_type;

/* ---- flat fp32 buffers (kernels/flat.cu): the bits of the CPU backends -------------------------
 */
cudaError_t pt_cu_axpby(cudaStream_t s, size_t n, float a, const float *x, float c, const float *y,
                        float *out);
/* One fused pass: weights, velocity (NULL: none, then momentum must be 0, and a foresight is a·θ)
 * and, unless foresight is NULL, prediction. */
cudaError_t pt_cu_sgd(cudaStream_t s, size_t n, const pt_sgd *rule, float *theta, float *velocity,
                      const float *gradient, const pt_foresight *foresight);
/* gradient NULL: no step; foresight NULL: none. */
cudaError_t pt_cu_adam(cudaStream_t s, size_t n, const pt_adam *rule, float *theta, float *m,
                       float *v, const float *gradient, const pt_adam_foresight *foresight);
/* *sum = Σ x² (device), in double, in an order of its own: not the CPU's bits. partials:
 * pt_cu_squares_bytes(). */
size_t pt_cu_squares_bytes(void);
cudaError_t pt_cu_sum_of_squares(cudaStream_t s, size_t n, const float *x, void *partials,
                                 double *sum);

/* ---- rules for late gradients, flat fp32 buffers (kernels/late.cu): the bits of the CPU backends
 * --
 */
/* average = keep·average + rest·x² */
cudaError_t pt_cu_mean_squares(cudaStream_t s, size_t n, float keep, float rest, const float *x,
                               float *average);
/* own may be gradient, unless the rule accumulates. */
cudaError_t pt_cu_gap(cudaStream_t s, size_t n, const pt_gap *rule, const float *forward,
                      const float *theta, const float *average, const float *own, float *gradient);
cudaError_t pt_cu_look_back(cudaStream_t s, size_t n, const pt_look_back *rule, const float *theta,
                            float *drift, float *back);

/* ---- moving and converting (kernels/move.cu) ---------------------------------------------------
 */
/* dst[n,c,r] = src[n,r,c] for n matrices of rows × columns; accumulate: dst +=. With (C, H·W) it
 * makes NHWC of NCHW, with (H·W, C) the way back, with (I, KH·KW) it makes OHWI weights of OIHW. */
cudaError_t pt_cu_transpose(cudaStream_t s, int64_t n, int64_t rows, int64_t columns,
                            pt_cu_type from, const void *src, pt_cu_type to, void *dst,
                            bool accumulate);
cudaError_t pt_cu_convert(cudaStream_t s, int64_t n, pt_cu_type from, const void *src,
                          pt_cu_type to, void *dst, bool accumulate);
/* concat: dst[row, dst_first + j] = src[row, src_first + j] for j < channels. */
cudaError_t pt_cu_copy_channels(cudaStream_t s, pt_cu_type type, int64_t rows, int64_t channels,
                                const void *src, int64_t src_channels, int64_t src_first, void *dst,
                                int64_t dst_channels, int64_t dst_first);

/* ---- element by element (kernels/elementwise.cu) -----------------------------------------------
 * out may be an input. */
cudaError_t pt_cu_relu(cudaStream_t s, pt_cu_type type, int64_t n, const void *x, void *y);
cudaError_t pt_cu_relu_back(cudaStream_t s, pt_cu_type type, int64_t n, const void *y,
                            const void *dy, void *dx);
cudaError_t pt_cu_gelu(cudaStream_t s, pt_cu_type type, int64_t n, const void *x, void *y);
cudaError_t pt_cu_gelu_back(cudaStream_t s, pt_cu_type type, int64_t n, const void *x,
                            const void *dy, void *dx);
/* y = Σ x[i], i < n_inputs <= PT_MAX_INPUTS, added in fp32 in that order; y may be one of them. */
cudaError_t pt_cu_sum(cudaStream_t s, pt_cu_type type, int64_t n, int n_inputs,
                      const void *const x[], void *y);
/* Values of (samples, area, channels); the mask is that of op.h, whose elements are counted in CHW
 * order. The gradient is the same map applied to dy. */
typedef struct pt_cu_dropout_spec {
    int64_t samples, area, channels;
    double p;
    uint64_t seed;
    uint32_t layer, epoch;
    const uint32_t *sample; /* device */
} pt_cu_dropout_spec;
cudaError_t pt_cu_dropout(cudaStream_t s, pt_cu_type type, const pt_cu_dropout_spec *spec,
                          const void *x, void *y);

/* ---- pools (kernels/max_pool.cu, avg_pool.cu, global_pool.cu) ----------------------------------
 * Padding is less than the kernel, and the last window begins before the input ends. */
typedef struct pt_cu_window {
    int64_t samples, channels, in_h, in_w, out_h, out_w;
    int64_t kernel[2], stride[2], padding[2];
} pt_cu_window;
/* which[out element] is the place u·KW + v of the first maximum in its window; NULL: not wanted. */
cudaError_t pt_cu_max_pool(cudaStream_t s, pt_cu_type type, const pt_cu_window *w, const void *x,
                           void *y, int32_t *which);
cudaError_t pt_cu_max_pool_back(cudaStream_t s, pt_cu_type type, const pt_cu_window *w,
                                const int32_t *which, const void *dy, void *dx);
cudaError_t pt_cu_avg_pool(cudaStream_t s, pt_cu_type type, const pt_cu_window *w, const void *x,
                           void *y);
cudaError_t pt_cu_avg_pool_back(cudaStream_t s, pt_cu_type type, const pt_cu_window *w,
                                const void *dy, void *dx);
/* x (samples, area, channels) → y (samples, channels) */
cudaError_t pt_cu_global_pool(cudaStream_t s, pt_cu_type type, int64_t samples, int64_t area,
                              int64_t channels, const void *x, void *y);
cudaError_t pt_cu_global_pool_back(cudaStream_t s, pt_cu_type type, int64_t samples, int64_t area,
                                   int64_t channels, const void *dy, void *dx);

/* ---- channels: bias and batch-norm (kernels/norm.cu) -------------------------------------------
 */
size_t pt_cu_partials_bytes(int64_t rows, int64_t channels);
/* y += b, in place. */
cudaError_t pt_cu_bias(cudaStream_t s, pt_cu_type type, int64_t rows, int64_t channels,
                       const float *b, void *y);
/* db (+)= Σ_rows dy */
cudaError_t pt_cu_bias_back(cudaStream_t s, pt_cu_type type, int64_t rows, int64_t channels,
                            const void *dy, float *db, bool accumulate, void *partials);

/* y = relu?( w·(x - mean)·rstd + b  [+ residual] ). Rounded to the value's type before the residual
 * is added and again before relu: the bits of the three ops one after the other. */
typedef struct pt_cu_norm {
    pt_cu_type type;
    int64_t rows, channels;
    double eps, momentum;
    bool relu;
} pt_cu_norm;
typedef struct pt_cu_norm_args {
    const void *x;
    const void *residual; /* NULL: none */
    const float *w, *b;
    float *running_mean, *running_var; /* train: NULL leaves them as they are */
    float *saved; /* (2, channels): mean, 1/sqrt(var + eps); train writes it, back reads it */
    void *y;
    const void *dy;
    void *dx;
    void *d_residual; /* NULL: not wanted */
    float *dw, *db;
    bool accumulate; /* dw, db += */
    void *partials;
} pt_cu_norm_args;
/* Batch statistics; updates the running ones. Groups of four rows give mean first, then deviations;
 * groups are joined without subtracting large sums from each other (kernels/norm.h). No rows:
 * nothing happens. */
cudaError_t pt_cu_norm_train(cudaStream_t s, const pt_cu_norm *norm, const pt_cu_norm_args *a);
/* The running ones. */
cudaError_t pt_cu_norm_eval(cudaStream_t s, const pt_cu_norm *norm, const pt_cu_norm_args *a);
/* dx, d_residual, dw, db (NULL: not wanted) from x, saved, w, dy and (relu) y. dx or d_residual may
 * be dy. */
cudaError_t pt_cu_norm_back(cudaStream_t s, const pt_cu_norm *norm, const pt_cu_norm_args *a);

/* ---- losses (kernels/loss.cu) ------------------------------------------------------------------
 * Exactly pt_loss of backend.h. y and dy: (samples, classes). partials: pt_cu_loss_bytes(samples).
 * result: host memory that the device can write (cudaHostAlloc) or device memory. */
size_t pt_cu_loss_bytes(int64_t samples);
cudaError_t pt_cu_loss(cudaStream_t s, pt_cu_type type, const pt_loss *loss, int64_t samples,
                       const void *y, const int32_t *label, const float *target, float scale,
                       void *dy, pt_loss_result *result, void *partials);

#ifdef __cplusplus
}
#endif

#endif
