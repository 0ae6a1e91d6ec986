/* What a plan of a product is made of, and choosing its algorithm. Private to
 * src/backend/cuda_gemm*. */
#ifndef PIPETRAIN_BACKEND_CUDA_GEMM_PLAN_H
#define PIPETRAIN_BACKEND_CUDA_GEMM_PLAN_H

#include <cublasLt.h>

#include "cuda_gemm.h"

struct pt_cuda_gemm {
    pt_cuda_gemm *next;
    pt_cuda_gemms *gemms;
    pt_gemm_shape shape; /* the key: compared byte by byte */
    cublasLtMatmulDesc_t product;
    cublasLtMatrixLayout_t a, b, d;
    cublasLtMatmulAlgo_t algorithm;
    bool fused; /* the epilogue adds b or makes db */
};

struct pt_cuda_gemms {
    cublasLtHandle_t handle;
    uint64_t workspace; /* bytes */
    pt_cuda_gemm *plans;
};

/* Describes the product and takes the first algorithm that is allowed; g->gemms and g->shape are
 * set. PT_EINPUT when there is none; what was made by then is the caller's to free. */
pt_status pt_gemm_choose(pt_cuda_gemm *g, pt_error *err);

/* Where b is, or where db goes. */
pt_status pt_gemm_set_bias(cublasLtMatmulDesc_t product, const void *address, pt_error *err);

/* The product in words, e.g. "the output in fp32 of a linear layer with 784 inputs …". */
enum { PT_GEMM_WORDS = 192 };
void pt_gemm_describe(const pt_gemm_shape *shape, char words[PT_GEMM_WORDS]);

/* PT_EBACKEND with cuBLASLt's name of the failure, unless status is success. */
pt_status pt_cublas_check(cublasStatus_t status, const char *doing, pt_error *err);

#endif
