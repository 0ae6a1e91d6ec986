/* The mean of a whole plane: a sample's rows are folded by one block. A slice of the tiling is a
 * sample. */
#include "kernels/pool.cuh"
#include "kernels/rows.cuh"

namespace
{

template <typename T, int V>
__global__ void __launch_bounds__(PT_ROWS_THREADS) global_kernel(pt_tiling t, const T *x, T *y)
{
    const pt_tile at = pt_tile_of<V>(t);
    const T *plane = x + at.slice * t.rows * t.channels + at.c;
    pt_pack<V> sum[1] = {};
    for (int64_t r = at.line; at.in && r < t.rows; r += PT_ROWS_DEPTH * t.lines) {
        pt_pack<V> held[PT_ROWS_DEPTH];
#pragma unroll
        for (int u = 0; u < PT_ROWS_DEPTH; u++) { /* all at once, the last row in place of none */
            const int64_t row = r + u * t.lines;
            held[u] = pt_read<V>(plane + (row < t.rows ? row : t.rows - 1) * t.channels);
        }
#pragma unroll
        for (int u = 0; u < PT_ROWS_DEPTH; u++)
#pragma unroll
            for (int v = 0; v < V; v++)
                sum[0].at[v] += r + u * t.lines < t.rows ? held[u].at[v] : 0.0f;
    }
    pt_fold_lines<1, V>(t, at, sum);
    if (!at.in || at.line > 0)
        return;
    pool_scale_down(&sum[0], t.rows);
    pt_write<V>(y + at.slice * t.channels + at.c, sum[0]);
}

template <typename T, int V>
__global__ void __launch_bounds__(PT_ROWS_THREADS)
    global_back_kernel(pt_tiling t, const T *dy, T *dx)
{
    const pt_tile at = pt_tile_of<V>(t);
    if (!at.in)
        return;
    pt_pack<V> share = pt_read<V>(dy + at.slice * t.channels + at.c);
    pool_scale_down(&share, t.rows);
    for (int64_t r = at.line; r < t.rows; r += t.lines)
        pt_write<V>(dx + (at.slice * t.rows + r) * t.channels + at.c, share);
}

template <typename T>
cudaError_t global_pool(cudaStream_t s, int64_t samples, int64_t area, int64_t channels,
                        const void *x, void *y)
{
    const int V = pt_wide<T>::N;
    const bool wide = pool_wide<T>(channels, x, y);
    const pt_tiling t = pt_tiling_of(area, channels, wide ? V : 1, samples);
    if (wide)
        return pt_rows_start<V>(global_kernel<T, V>, t, 1, s, t, (const T *)x, (T *)y);
    return pt_rows_start<1>(global_kernel<T, 1>, t, 1, s, t, (const T *)x, (T *)y);
}

template <typename T>
cudaError_t global_pool_back(cudaStream_t s, int64_t samples, int64_t area, int64_t channels,
                             const void *dy, void *dx)
{
    const int V = pt_wide<T>::N;
    const bool wide = pool_wide<T>(channels, dy, dx);
    const pt_tiling t = pt_tiling_of(area, channels, wide ? V : 1, samples);
    if (wide)
        return pt_rows_start<V>(global_back_kernel<T, V>, t, 0, s, t, (const T *)dy, (T *)dx);
    return pt_rows_start<1>(global_back_kernel<T, 1>, t, 0, s, t, (const T *)dy, (T *)dx);
}

} // namespace

cudaError_t pt_cu_global_pool(cudaStream_t s, pt_cu_type type, int64_t samples, int64_t area,
                              int64_t channels, const void *x, void *y)
{
    if (samples < 0 || area < 0 || channels < 0)
        return cudaErrorInvalidValue;
    if (samples == 0 || area == 0 || channels == 0)
        return cudaSuccess;
    return type == PT_CU_BF16 ? global_pool<pt_bf16>(s, samples, area, channels, x, y)
                              : global_pool<float>(s, samples, area, channels, x, y);
}

cudaError_t pt_cu_global_pool_back(cudaStream_t s, pt_cu_type type, int64_t samples, int64_t area,
                                   int64_t channels, const void *dy, void *dx)
{
    if (samples < 0 || area < 0 || channels < 0)
        return cudaErrorInvalidValue;
    if (samples == 0 || area == 0 || channels == 0)
        return cudaSuccess;
    return type == PT_CU_BF16 ? global_pool_back<pt_bf16>(s, samples, area, channels, dy, dx)
                              : global_pool_back<float>(s, samples, area, channels, dy, dx);
}
