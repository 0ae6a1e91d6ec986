/* Convolutions by cuDNN's graph API: one plan for one pass of one shape. Values are NHWC, weights
 * and their gradients OHWI (groups: I is C/G), all of the values' type: cuDNN has no engine that
 * makes fp32 weight gradients of bf16 values, so the caller converts them (every sum inside is
 * fp32). Private to src/backend.
 *
 * Plans are chosen on a device, or, for tests, on the description of one: nothing here needs a GPU
 * before pt_cuda_conv_run. */
#ifndef PIPETRAIN_BACKEND_CUDA_CONV_H
#define PIPETRAIN_BACKEND_CUDA_CONV_H

#include <cuda_runtime_api.h>

#include "pipetrain/backend.h"

typedef struct pt_cuda_convs pt_cuda_convs; /* a cuDNN handle and the cache of plans */
typedef struct pt_cuda_conv pt_cuda_conv;   /* one plan; owned by the cache */

typedef enum pt_conv_pass {
    PT_CONV_FORWARD,         /* y = x * w */
    PT_CONV_BACKWARD_INPUT,  /* dx from dy, w */
    PT_CONV_BACKWARD_WEIGHT, /* dw from dy, x */
    PT_CONV_PASSES
} pt_conv_pass;

/* The key of the cache. Every byte counts: set unused ones to 0. */
typedef struct pt_conv_shape {
    int64_t n, c, h, w;      /* x */
    int64_t k, out_h, out_w; /* y */
    int64_t r, s;            /* kernel */
    int64_t stride[2], padding[2];
    int64_t groups;
    int32_t pass;          /* pt_conv_pass */
    int32_t precision;     /* pt_precision: PT_BF16 has bf16 values and weights, others fp32 */
    int32_t deterministic; /* 0, 1 */
    int32_t pad;
} pt_conv_shape;

/* device_json: NULL to plan for the current device, else a cuDNN device description, which can plan
 * but not run. */
pt_status pt_cuda_convs_open(const char *device_json, pt_cuda_convs **ret_convs, pt_error *err);
void pt_cuda_convs_close(pt_cuda_convs *convs); /* NULL is fine */

/* Chooses an engine: the heuristics' candidates in their order, then the fallback list; the first
 * that the precision and determinism allow and that finalizes. fp32 refuses tensor cores and
 * down-conversion. PT_EINPUT says which convolution has no engine. */
pt_status pt_cuda_conv_plan(pt_cuda_convs *convs, const pt_conv_shape *shape,
                            pt_cuda_conv **ret_conv, pt_error *err);
size_t pt_cuda_conv_workspace(const pt_cuda_conv *conv); /* bytes */
/* For logs and tests: cuDNN's name of the engine, e.g. "eng38_k2=…". */
const char *pt_cuda_conv_engine(const pt_cuda_conv *conv);
/* Bit 1 << n for each cudnnBackendNumericalNote_t n that cuDNN tells of the engine. */
unsigned pt_cuda_conv_notes(const pt_cuda_conv *conv);

/* Enqueues. Forward reads x, w and writes y; backward-input reads y (the gradient), w and writes x;
 * backward-weight reads x, y (the gradient) and writes w, all by overwriting. Addresses are
 * multiples of 16; workspace may be NULL where none is wanted. */
pt_status pt_cuda_conv_run(pt_cuda_conv *conv, cudaStream_t stream, void *x, void *w, void *y,
                           void *workspace, pt_error *err);

#endif
