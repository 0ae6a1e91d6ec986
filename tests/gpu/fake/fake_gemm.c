/* Stands for src/backend/cuda_gemm.c when it is linked with the fake runtime: the formulas of
 * cuda_gemm.h as loops, sums in double, run when the stream comes to them. What the
 * library may leave to the caller is made for even numbers of outputs alone, so that both cases are
 * met: the gradient of the bias, and in fp32 the bias. */
#include <stdlib.h>

#include "fake_value.h"
#include "src/backend/cuda_gemm.h"
#include "tests/gpu/emulate/enqueue.h"

enum { MOST_SOIL = 4000 };

struct pt_cuda_gemm {
    pt_gemm_shape shape;
    size_t workspace;
    pt_cuda_gemm *next;
};

struct pt_cuda_gemms {
    size_t workspace;
    pt_cuda_gemm *first;
};

typedef struct call {
    pt_gemm_shape s;
    pt_gemm_args a;
    void *workspace;
    size_t workspace_bytes;
} call;

/* ---- loops ---------------------------------------------------------------------------------- */

static void forward(const pt_gemm_shape *s, const pt_gemm_args *a, bool bf16)
{
    for (int64_t n = 0; n < s->samples; n++)
        for (int64_t o = 0; o < s->outputs; o++) {
            double sum = a->b ? (double)a->b[o] : 0;
            for (int64_t i = 0; i < s->inputs; i++)
                sum += pt_fake_load(bf16, a->x, n * s->inputs + i) *
                       pt_fake_load(bf16, a->w, o * s->inputs + i);
            pt_fake_store(bf16, a->y, n * s->outputs + o, sum);
        }
}

static void backward_input(const pt_gemm_shape *s, const pt_gemm_args *a, bool bf16)
{
    for (int64_t n = 0; n < s->samples; n++)
        for (int64_t i = 0; i < s->inputs; i++) {
            double sum = 0;
            for (int64_t o = 0; o < s->outputs; o++)
                sum += pt_fake_load(bf16, a->y, n * s->outputs + o) *
                       pt_fake_load(bf16, a->w, o * s->inputs + i);
            pt_fake_store(bf16, a->dx, n * s->inputs + i, sum);
        }
}

static void backward_weight(const pt_gemm_shape *s, const pt_gemm_args *a, bool bf16)
{
    for (int64_t o = 0; o < s->outputs; o++) {
        double bias = 0;
        for (int64_t i = 0; i < s->inputs; i++) {
            double sum = s->accumulate ? (double)a->dw[o * s->inputs + i] : 0;
            for (int64_t n = 0; n < s->samples; n++)
                sum += pt_fake_load(bf16, a->y, n * s->outputs + o) *
                       pt_fake_load(bf16, a->x, n * s->inputs + i);
            a->dw[o * s->inputs + i] = (float)sum;
        }
        for (int64_t n = 0; n < s->samples; n++)
            bias += pt_fake_load(bf16, a->y, n * s->outputs + o);
        if (a->db)
            a->db[o] = (float)bias;
    }
}

static void (*const passes[PT_GEMM_PASSES])(const pt_gemm_shape *s, const pt_gemm_args *a,
                                            bool bf16) = {
    [PT_GEMM_FORWARD] = forward,
    [PT_GEMM_BACKWARD_INPUT] = backward_input,
    [PT_GEMM_BACKWARD_WEIGHT] = backward_weight,
};

static void run(void *closure)
{
    const call *c = closure;
    pt_fake_soil(c->workspace, c->workspace_bytes < MOST_SOIL ? c->workspace_bytes : MOST_SOIL);
    passes[c->s.pass](&c->s, &c->a, c->s.precision == PT_BF16);
}

/* ---- the interface -------------------------------------------------------------------------- */

pt_status pt_cuda_gemms_open(size_t workspace_bytes, pt_cuda_gemms **ret_gemms, pt_error *err)
{
    pt_cuda_gemms *gemms = calloc(1, sizeof *gemms);
    if (!gemms)
        return pt_fail(err, PT_ENOMEM, "no memory for products");
    gemms->workspace = workspace_bytes;
    *ret_gemms = gemms;
    return PT_OK;
}

void pt_cuda_gemms_close(pt_cuda_gemms *gemms)
{
    if (!gemms)
        return;
    for (pt_cuda_gemm *gemm = gemms->first, *next; gemm; gemm = next) {
        next = gemm->next;
        free(gemm);
    }
    free(gemms);
}

pt_status pt_cuda_gemm_plan(pt_cuda_gemms *gemms, const pt_gemm_shape *shape,
                            pt_cuda_gemm **ret_gemm, pt_error *err)
{
    pt_cuda_gemm *gemm = calloc(1, sizeof *gemm);
    if (!gemm)
        return pt_fail(err, PT_ENOMEM, "no memory for a product");
    gemm->shape = *shape;
    gemm->workspace = gemms->workspace;
    gemm->next = gemms->first;
    gemms->first = gemm;
    *ret_gemm = gemm;
    return PT_OK;
}

bool pt_cuda_gemm_adds_bias(const pt_cuda_gemm *gemm)
{
    return gemm->shape.bias && gemm->shape.pass == PT_GEMM_FORWARD &&
           gemm->shape.precision != PT_BF16 && gemm->shape.outputs % 2 == 0;
}

bool pt_cuda_gemm_makes_bias_gradient(const pt_cuda_gemm *gemm)
{
    return gemm->shape.bias && gemm->shape.pass == PT_GEMM_BACKWARD_WEIGHT &&
           gemm->shape.outputs % 2 == 0;
}

pt_status pt_cuda_gemm_run(pt_cuda_gemm *gemm, cudaStream_t stream, const pt_gemm_args *args,
                           void *workspace, pt_error *err)
{
    const void *const addresses[] = {args->x,  args->w,  args->b,  args->y,
                                     args->dx, args->dw, args->db, workspace};
    pt_fake_check_aligned("product", addresses, 8);
    call *c = malloc(sizeof *c);
    if (!c)
        return pt_fail(err, PT_ENOMEM, "no memory for a call");
    *c = (call){gemm->shape, *args, workspace, gemm->workspace};
    cudaError_t error = pt_fake_enqueue(stream, run, c);
    if (error != cudaSuccess)
        return pt_fail(err, PT_EBACKEND, "product: %s", cudaGetErrorString(error));
    return PT_OK;
}
