/* Plans of products: keeping them, and putting them on a stream. How one is made:
 * cuda_gemm_plan.c. */
#include "cuda_gemm_plan.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

pt_status pt_cuda_gemms_open(size_t workspace_bytes, pt_cuda_gemms **ret_gemms, pt_error *err)
{
    pt_cuda_gemms *gemms = calloc(1, sizeof *gemms);
    if (!gemms)
        return pt_fail(err, PT_ENOMEM, "out of memory");
    gemms->workspace = workspace_bytes;
    pt_status status = pt_cublas_check(cublasLtCreate(&gemms->handle), "opening", err);
    if (status == PT_OK)
        *ret_gemms = gemms;
    else
        pt_cuda_gemms_close(gemms);
    return status;
}

static void gemm_free(pt_cuda_gemm *gemm)
{
    if (!gemm)
        return;
    if (gemm->product)
        cublasLtMatmulDescDestroy(gemm->product);
    cublasLtMatrixLayout_t layouts[] = {gemm->a, gemm->b, gemm->d};
    for (size_t i = 0; i < sizeof layouts / sizeof *layouts; i++)
        if (layouts[i])
            cublasLtMatrixLayoutDestroy(layouts[i]);
    free(gemm);
}

void pt_cuda_gemms_close(pt_cuda_gemms *gemms)
{
    if (!gemms)
        return;
    while (gemms->plans) {
        pt_cuda_gemm *next = gemms->plans->next;
        gemm_free(gemms->plans);
        gemms->plans = next;
    }
    if (gemms->handle)
        cublasLtDestroy(gemms->handle);
    free(gemms);
}

pt_status pt_cuda_gemm_plan(pt_cuda_gemms *gemms, const pt_gemm_shape *shape,
                            pt_cuda_gemm **ret_gemm, pt_error *err)
{
    assert(shape->pass >= 0 && shape->pass < PT_GEMM_PASSES);
    for (pt_cuda_gemm *g = gemms->plans; g; g = g->next)
        if (memcmp(&g->shape, shape, sizeof *shape) == 0) {
            *ret_gemm = g;
            return PT_OK;
        }
    pt_cuda_gemm *g = calloc(1, sizeof *g);
    if (!g)
        return pt_fail(err, PT_ENOMEM, "out of memory");
    g->gemms = gemms;
    g->shape = *shape;
    pt_status status = pt_gemm_choose(g, err);
    if (status != PT_OK) {
        gemm_free(g);
        return status;
    }
    g->next = gemms->plans;
    *ret_gemm = gemms->plans = g;
    return PT_OK;
}

bool pt_cuda_gemm_adds_bias(const pt_cuda_gemm *gemm)
{
    return gemm->fused && gemm->shape.pass == PT_GEMM_FORWARD;
}

bool pt_cuda_gemm_makes_bias_gradient(const pt_cuda_gemm *gemm)
{
    return gemm->fused && gemm->shape.pass == PT_GEMM_BACKWARD_WEIGHT;
}

pt_status pt_cuda_gemm_run(pt_cuda_gemm *g, cudaStream_t stream, const pt_gemm_args *args,
                           void *workspace, pt_error *err)
{
    const struct {
        const void *a, *b;
        void *d;
        const void *bias;
    } operands[PT_GEMM_PASSES] =
        {
            [PT_GEMM_FORWARD] = {args->w, args->x, args->y, args->b},
            [PT_GEMM_BACKWARD_INPUT] = {args->w, args->y, args->dx, NULL},
            [PT_GEMM_BACKWARD_WEIGHT] = {args->x, args->y, args->dw, args->db},
        },
      *at = &operands[g->shape.pass];
    const float alpha = 1, beta = g->shape.accumulate ? 1 : 0;
    pt_status status = PT_OK;
    if (g->fused)
        PT_GOTO(status, pt_gemm_set_bias(g->product, at->bias, err));
    status = pt_cublas_check(cublasLtMatmul(g->gemms->handle, g->product, &alpha, at->a, g->a,
                                            at->b, g->b, &beta, at->d, g->d, at->d, g->d,
                                            &g->algorithm, workspace, g->gemms->workspace, stream),
                             "starting", err);
out:
    if (status != PT_OK) {
        char words[PT_GEMM_WORDS];
        pt_gemm_describe(&g->shape, words);
        pt_fail_within(err, "%s", words);
    }
    return status;
}
