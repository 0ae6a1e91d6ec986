/* Bias and batch-norm over (rows, channels). */
#include "kernels/bias.cuh"
#include "kernels/norm_back.cuh"
#include "kernels/norm_train.cuh"

namespace
{

bool is_bf16(const pt_cu_norm *n)
{
    return n->type == PT_CU_BF16;
}

} // namespace

size_t pt_cu_partials_bytes(int64_t rows, int64_t channels)
{
    static const int widths[] = {1, pt_wide<float>::N, pt_wide<pt_bf16>::N};
    int64_t slices = 0;
    for (int V : widths) {
        const int64_t some = pt_tiling_for(rows, channels, V, PT_SUM_BLOCKS).slices;
        slices = some > slices ? some : slices;
    }
    /* two sums a slice, and the two shares of the backward */
    return (size_t)((slices + 1) * 2 * channels) * sizeof(float);
}

cudaError_t pt_cu_bias(cudaStream_t s, pt_cu_type type, int64_t rows, int64_t channels,
                       const float *b, void *y)
{
    if (type == PT_CU_BF16)
        return pt_apply(s, rows, channels, pt_all_wide<pt_bf16>(channels, y),
                        bias_body<pt_bf16>{b, (pt_bf16 *)y});
    return pt_apply(s, rows, channels, pt_all_wide<float>(channels, y),
                    bias_body<float>{b, (float *)y});
}

cudaError_t pt_cu_bias_back(cudaStream_t s, pt_cu_type type, int64_t rows, int64_t channels,
                            const void *dy, float *db, bool accumulate, void *partials)
{
    float *sums = (float *)partials;
    return type == PT_CU_BF16 ? bias_back<pt_bf16>(s, rows, channels, dy, db, accumulate, sums)
                              : bias_back<float>(s, rows, channels, dy, db, accumulate, sums);
}

cudaError_t pt_cu_norm_train(cudaStream_t s, const pt_cu_norm *norm, const pt_cu_norm_args *a)
{
    if (norm->rows <= 0)
        return norm->rows < 0 ? cudaErrorInvalidValue : cudaSuccess;
    return is_bf16(norm) ? train<pt_bf16>(s, norm, a) : train<float>(s, norm, a);
}

cudaError_t pt_cu_norm_eval(cudaStream_t s, const pt_cu_norm *norm, const pt_cu_norm_args *a)
{
    return is_bf16(norm) ? normalise_any<pt_bf16>(s, norm, a, false)
                         : normalise_any<float>(s, norm, a, false);
}

cudaError_t pt_cu_norm_back(cudaStream_t s, const pt_cu_norm *norm, const pt_cu_norm_args *a)
{
    return is_bf16(norm) ? back<pt_bf16>(s, norm, a) : back<float>(s, norm, a);
}
