/* Matrix products of linear layers by cuBLASLt, with fused epilogues. All matrices are row-major.
 * Private to src/backend. */
#ifndef PIPETRAIN_BACKEND_CUDA_GEMM_H
#define PIPETRAIN_BACKEND_CUDA_GEMM_H

#include <cuda_runtime_api.h>

#include "pipetrain/backend.h"

typedef struct pt_cuda_gemms pt_cuda_gemms; /* a cuBLASLt handle and the plans */

typedef enum pt_gemm_pass {
    PT_GEMM_FORWARD,         /* y(n,o) = x(n,i)·w(o,i)ᵀ + b(o)   epilogue: bias, see adds_bias */
    PT_GEMM_BACKWARD_INPUT,  /* dx(n,i) = dy(n,o)·w(o,i) */
    PT_GEMM_BACKWARD_WEIGHT, /* dw(o,i) (+)= dy(n,o)ᵀ·x(n,i), db(o) = Σ_n dy: fused where the
                                library offers it, fp32 results */
    PT_GEMM_PASSES
} pt_gemm_pass;

/* The key of the plans. Every byte counts: set unused ones to 0. */
typedef struct pt_gemm_shape {
    int64_t samples, inputs, outputs;
    int32_t pass;          /* pt_gemm_pass */
    int32_t precision;     /* pt_precision: PT_BF16 has bf16 x, y, w, dx; others fp32 */
    int32_t bias;          /* 0, 1 */
    int32_t accumulate;    /* 0, 1: backward-weight adds to dw (not to db) */
    int32_t deterministic; /* 0, 1 */
    int32_t pad;
} pt_gemm_shape;

/* Addresses are multiples of 16. */
typedef struct pt_gemm_args {
    const void *x, *w;
    const float *b;
    void *y; /* forward: output; backward: the gradient, read */
    void *dx;
    float *dw;
    float *db; /* only where the plan makes it */
} pt_gemm_args;

typedef struct pt_cuda_gemm pt_cuda_gemm; /* one plan; owned by pt_cuda_gemms */

/* workspace_bytes: what pt_cuda_gemm_run may use. */
pt_status pt_cuda_gemms_open(size_t workspace_bytes, pt_cuda_gemms **ret_gemms, pt_error *err);
void pt_cuda_gemms_close(pt_cuda_gemms *gemms); /* NULL is fine */

/* Needs a device: the heuristics ask it. PT_EINPUT says which product has no algorithm. */
pt_status pt_cuda_gemm_plan(pt_cuda_gemms *gemms, const pt_gemm_shape *shape,
                            pt_cuda_gemm **ret_gemm, pt_error *err);
/* Does this forward add b? Otherwise the caller does, after it (bf16: the library wants b in the
 * type of y). */
bool pt_cuda_gemm_adds_bias(const pt_cuda_gemm *gemm);
/* Does this backward-weight make db too? Otherwise the caller sums dy. */
bool pt_cuda_gemm_makes_bias_gradient(const pt_cuda_gemm *gemm);
/* Enqueues. workspace: the bytes given to pt_cuda_gemms_open. */
pt_status pt_cuda_gemm_run(pt_cuda_gemm *gemm, cudaStream_t stream, const pt_gemm_args *args,
                           void *workspace, pt_error *err);

#endif
