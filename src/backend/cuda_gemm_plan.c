/* Products as cuBLASLt sees them, and the choice of an algorithm.
 *
 * The library counts columns first: to it, a row-major matrix (r,c) is the matrix (c,r) with
 * leading dimension c, its own transpose. So y = x·wᵀ is asked for as yᵀ = w·xᵀ, and so on:
 *
 *     forward            (o,n) = (i,o)ᵀ·(i,n)     A = w   B = x    D = y    b: rows of D
 *     backward-input     (i,n) = (i,o)·(o,n)      A = w   B = dy   D = dx
 *     backward-weight    (i,o) = (i,n)·(o,n)ᵀ     A = x   B = dy   D = dw   db = Σ_n of B
 *
 * Results are fp32 or, for values in bf16 mode, bf16; sums are always fp32. */
#include "cuda_gemm_plan.h"

#include <stdio.h>

enum {
    ALIGNMENT = 16, /* bytes, of every address */
    CANDIDATES = 16 /* asked of the heuristic */
};

typedef enum axis { SAMPLES, INPUTS, OUTPUTS } axis;

/* rows and columns, as the library sees them */
typedef struct pass_row {
    const char *words;
    axis a[2], b[2], d[2];
    cublasOperation_t op_a, op_b;
    cublasLtEpilogue_t epilogue; /* with a bias */
    bool makes_weight;
} pass_row;

static const pass_row passes[PT_GEMM_PASSES] = {
    [PT_GEMM_FORWARD] = {"the output",
                         {INPUTS, OUTPUTS},
                         {INPUTS, SAMPLES},
                         {OUTPUTS, SAMPLES},
                         CUBLAS_OP_T,
                         CUBLAS_OP_N,
                         CUBLASLT_EPILOGUE_BIAS,
                         false},
    [PT_GEMM_BACKWARD_INPUT] = {"the input gradient",
                                {INPUTS, OUTPUTS},
                                {OUTPUTS, SAMPLES},
                                {INPUTS, SAMPLES},
                                CUBLAS_OP_N,
                                CUBLAS_OP_N,
                                CUBLASLT_EPILOGUE_DEFAULT,
                                false},
    [PT_GEMM_BACKWARD_WEIGHT] = {"the weight gradient",
                                 {INPUTS, SAMPLES},
                                 {OUTPUTS, SAMPLES},
                                 {INPUTS, OUTPUTS},
                                 CUBLAS_OP_N,
                                 CUBLAS_OP_T,
                                 CUBLASLT_EPILOGUE_BGRADB,
                                 true},
};

static const cublasComputeType_t computes[PT_PRECISIONS] = {
    [PT_FP32] = CUBLAS_COMPUTE_32F,
    [PT_TF32] = CUBLAS_COMPUTE_32F_FAST_TF32,
    [PT_BF16] = CUBLAS_COMPUTE_32F,
};

pt_status pt_cublas_check(cublasStatus_t status, const char *doing, pt_error *err)
{
    if (status == CUBLAS_STATUS_SUCCESS)
        return PT_OK;
    return pt_fail(err, PT_EBACKEND, "cuBLASLt: %s: %s (%s)", doing, cublasLtGetStatusName(status),
                   cublasLtGetStatusString(status));
}

void pt_gemm_describe(const pt_gemm_shape *s, char words[PT_GEMM_WORDS])
{
    snprintf(words, PT_GEMM_WORDS,
             "%s in %s of a linear layer with %lld inputs and %lld outputs, %lld samples%s",
             passes[s->pass].words, pt_precision_names[s->precision], (long long)s->inputs,
             (long long)s->outputs, (long long)s->samples,
             s->deterministic ? ", deterministic" : "");
}

static pt_status layout(cublasLtMatrixLayout_t *ret_layout, const pt_gemm_shape *s,
                        const axis sides[2], cudaDataType_t type, pt_error *err)
{
    const int64_t length[] = {[SAMPLES] = s->samples, [INPUTS] = s->inputs, [OUTPUTS] = s->outputs};
    const int64_t rows = length[sides[0]], columns = length[sides[1]];
    return pt_cublas_check(cublasLtMatrixLayoutCreate(ret_layout, type, (uint64_t)rows,
                                                      (uint64_t)columns,
                                                      /*ld=*/rows),
                           "describing a matrix", err);
}

static pt_status set(cublasLtMatmulDesc_t product, cublasLtMatmulDescAttributes_t name,
                     const void *value, size_t size, pt_error *err)
{
    return pt_cublas_check(cublasLtMatmulDescSetAttribute(product, name, value, size),
                           "describing a product", err);
}

pt_status pt_gemm_set_bias(cublasLtMatmulDesc_t product, const void *address, pt_error *err)
{
    return set(product, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &address, sizeof address, err);
}

static pt_status describe_product(pt_cuda_gemm *g, pt_error *err)
{
    const pass_row *row = &passes[g->shape.pass];
    const cudaDataType_t value = g->shape.precision == PT_BF16 ? CUDA_R_16BF : CUDA_R_32F;
    PT_TRY(layout(&g->a, &g->shape, row->a, value, err));
    PT_TRY(layout(&g->b, &g->shape, row->b, value, err));
    PT_TRY(layout(&g->d, &g->shape, row->d, row->makes_weight ? CUDA_R_32F : value, err));
    PT_TRY(pt_cublas_check(
        cublasLtMatmulDescCreate(&g->product, computes[g->shape.precision], /*scale=*/CUDA_R_32F),
        "describing a product", err));
    PT_TRY(set(g->product, CUBLASLT_MATMUL_DESC_TRANSA, &row->op_a, sizeof row->op_a, err));
    return set(g->product, CUBLASLT_MATMUL_DESC_TRANSB, &row->op_b, sizeof row->op_b, err);
}

/* Whether the epilogue can be tried: b and db are fp32, and the library wants both in the type of
 * D. It looks at the address for its alignment alone until the product runs. */
static bool may_fuse(const pt_gemm_shape *s)
{
    const pass_row *row = &passes[s->pass];
    return s->bias && row->epilogue != CUBLASLT_EPILOGUE_DEFAULT &&
           (s->precision != PT_BF16 || row->makes_weight);
}

static pt_status set_epilogue(pt_cuda_gemm *g, bool fused, pt_error *err)
{
    const cublasLtEpilogue_t epilogue =
        fused ? passes[g->shape.pass].epilogue : CUBLASLT_EPILOGUE_DEFAULT;
    const int32_t type = CUDA_R_32F;
    PT_TRY(set(g->product, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof epilogue, err));
    if (!fused)
        return pt_gemm_set_bias(g->product, NULL, err);
    PT_TRY(set(g->product, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, &type, sizeof type, err));
    return pt_gemm_set_bias(g->product, (const void *)(uintptr_t)ALIGNMENT, err);
}

/* Splitting the sum over samples or inputs: in fp32 partial sums that a second kernel adds up in a
 * fixed order. The other schemes keep partial sums in the type of D or in the order of arrival;
 * they are for fp32 results where bits may vary. */
static uint32_t reductions(const pt_gemm_shape *s)
{
    const bool fp32 = s->precision != PT_BF16 || passes[s->pass].makes_weight;
    return !s->deterministic && fp32 ? CUBLASLT_REDUCTION_SCHEME_MASK
                                     : CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
}

static pt_status prefer(cublasLtMatmulPreference_t wish, const pt_cuda_gemm *g, pt_error *err)
{
    const uint32_t alignment = ALIGNMENT, schemes = reductions(&g->shape);
    const struct {
        cublasLtMatmulPreferenceAttributes_t name;
        const void *value;
        size_t size;
    } rows[] = {
        {CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &g->gemms->workspace,
         sizeof g->gemms->workspace},
        {CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &schemes, sizeof schemes},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, &alignment, sizeof alignment},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, &alignment, sizeof alignment},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, &alignment, sizeof alignment},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, &alignment, sizeof alignment},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        PT_TRY(pt_cublas_check(
            cublasLtMatmulPreferenceSetAttribute(wish, rows[i].name, rows[i].value, rows[i].size),
            "saying what is wanted", err));
    return PT_OK;
}

/* fp32 is strict: the compute type promises it, and this makes sure of it. An algorithm that does
 * not tell is taken at the compute type's word. */
static bool allowed(const cublasLtMatmulAlgo_t *algorithm, const pt_gemm_shape *s)
{
    uint64_t flags = 0;
    size_t written = 0;
    return s->precision != PT_FP32 ||
           cublasLtMatmulAlgoCapGetAttribute(algorithm, CUBLASLT_ALGO_CAP_NUMERICAL_IMPL_FLAGS,
                                             &flags, sizeof flags,
                                             &written) != CUBLAS_STATUS_SUCCESS ||
           (flags & CUBLASLT_NUMERICAL_IMPL_FLAGS_TENSOR_OP_MASK) == 0;
}

/* Takes the heuristic's best allowed algorithm, with or without the fused epilogue. That there is
 * none is no failure yet: *ret_found. */
static pt_status search(pt_cuda_gemm *g, cublasLtMatmulPreference_t wish, bool fused,
                        bool *ret_found, pt_error *err)
{
    cublasLtMatmulHeuristicResult_t results[CANDIDATES];
    int n = 0;
    PT_TRY(set_epilogue(g, fused, err));
    cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(
        g->gemms->handle, g->product, g->a, g->b, g->d, g->d, wish, CANDIDATES, results, &n);
    /* This is how combinations that the library lacks are told. */
    if (status == CUBLAS_STATUS_NOT_SUPPORTED || (fused && status == CUBLAS_STATUS_INVALID_VALUE))
        n = 0;
    else
        PT_TRY(pt_cublas_check(status, "asking for algorithms", err));
    *ret_found = false;
    for (int i = 0; i < n && !*ret_found; i++)
        if (results[i].state == CUBLAS_STATUS_SUCCESS && allowed(&results[i].algo, &g->shape)) {
            g->algorithm = results[i].algo;
            g->fused = fused;
            *ret_found = true;
        }
    return PT_OK;
}

pt_status pt_gemm_choose(pt_cuda_gemm *g, pt_error *err)
{
    cublasLtMatmulPreference_t wish = NULL;
    bool found = false;
    pt_status status;
    PT_GOTO(status, describe_product(g, err));
    PT_GOTO(status,
            pt_cublas_check(cublasLtMatmulPreferenceCreate(&wish), "saying what is wanted", err));
    PT_GOTO(status, prefer(wish, g, err));
    if (may_fuse(&g->shape))
        PT_GOTO(status, search(g, wish, /*fused=*/true, &found, err));
    if (!found)
        PT_GOTO(status, search(g, wish, /*fused=*/false, &found, err));
    if (!found)
        status =
            pt_fail(err, PT_EINPUT, "cuBLASLt has no algorithm for it; write another --precision%s",
                    g->shape.deterministic ? ", or leave --deterministic out" : "");
out:
    if (wish)
        cublasLtMatmulPreferenceDestroy(wish);
    if (status != PT_OK) {
        char words[PT_GEMM_WORDS];
        pt_gemm_describe(&g->shape, words);
        pt_fail_within(err, "%s", words);
    }
    return status;
}
