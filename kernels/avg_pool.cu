/* Avg-pool and its gradient: both are sums over a rectangle. */
#include "kernels/pool.cuh"

namespace
{

/* Over images of height × width places, of the sample and the channels of `at`. */
template <typename T, int V>
__device__ inline pt_pack<V> sum_of(const T *x, const pool_place &at, pt_span rows, pt_span columns,
                                    int32_t height, int32_t width, int32_t channels)
{
    pt_pack<V> sum = {};
    for (int32_t h = rows.begin; h < rows.end; h++) {
        const T *row = x + pool_row(at.n, h, height, width, channels, at.c);
        for (int32_t w = columns.begin; w < columns.end; w += POOL_DEPTH) {
            pt_pack<V> held[POOL_DEPTH];
#pragma unroll
            for (int u = 0; u < POOL_DEPTH; u++)
                held[u] = pt_read<V>(row + pool_step(w + u, columns, channels));
#pragma unroll
            for (int u = 0; u < POOL_DEPTH; u++)
#pragma unroll
                for (int v = 0; v < V; v++)
                    sum.at[v] = w + u < columns.end ? sum.at[v] + held[u].at[v] : sum.at[v];
        }
    }
    return sum;
}

template <typename T, int V>
__global__ void __launch_bounds__(POOL_THREADS)
    avg_kernel(const __grid_constant__ pool_window p, const T *x, T *y)
{
    pool_place at;
    if (!pool_place_of<V>(p.samples, p.out_h, p.out_w, p.channels, &at))
        return;
    pt_pack<V> sum = sum_of<T, V>(x, at, pool_inputs(p, at, 0), pool_inputs(p, at, 1), p.in_h,
                                  p.in_w, p.channels);
    pool_scale_down(&sum, p.kernel[0] * p.kernel[1]);
    pt_write<V>(y + pool_out(p, at), sum);
}

template <typename T, int V>
__global__ void __launch_bounds__(POOL_THREADS)
    avg_back_kernel(const __grid_constant__ pool_window p, const T *dy, T *dx)
{
    pool_place at;
    if (!pool_place_of<V>(p.samples, p.in_h, p.in_w, p.channels, &at))
        return;
    pt_pack<V> sum = sum_of<T, V>(dy, at, pool_outputs(p, at, 0), pool_outputs(p, at, 1), p.out_h,
                                  p.out_w, p.channels);
    pool_scale_down(&sum, p.kernel[0] * p.kernel[1]);
    pt_write<V>(dx + pool_in(p, at), sum);
}

template <typename T>
cudaError_t avg_pool(cudaStream_t s, const pool_window &p, const void *x, void *y)
{
    const int V = pt_wide<T>::N;
    if (pool_wide<T>(p.channels, x, y))
        return pool_start(avg_kernel<T, V>, pool_outs(p), V, s, p, (const T *)x, (T *)y);
    return pool_start(avg_kernel<T, 1>, pool_outs(p), 1, s, p, (const T *)x, (T *)y);
}

template <typename T>
cudaError_t avg_pool_back(cudaStream_t s, const pool_window &p, const void *dy, void *dx)
{
    const int V = pt_wide<T>::N;
    if (pool_wide<T>(p.channels, dy, dx))
        return pool_start(avg_back_kernel<T, V>, pool_ins(p), V, s, p, (const T *)dy, (T *)dx);
    return pool_start(avg_back_kernel<T, 1>, pool_ins(p), 1, s, p, (const T *)dy, (T *)dx);
}

} // namespace

cudaError_t pt_cu_avg_pool(cudaStream_t s, pt_cu_type type, const pt_cu_window *w, const void *x,
                           void *y)
{
    pool_window p;
    if (!pool_window_of(w, &p))
        return cudaErrorInvalidValue;
    return type == PT_CU_BF16 ? avg_pool<pt_bf16>(s, p, x, y) : avg_pool<float>(s, p, x, y);
}

cudaError_t pt_cu_avg_pool_back(cudaStream_t s, pt_cu_type type, const pt_cu_window *w,
                                const void *dy, void *dx)
{
    pool_window p;
    if (!pool_window_of(w, &p))
        return cudaErrorInvalidValue;
    return type == PT_CU_BF16 ? avg_pool_back<pt_bf16>(s, p, dy, dx)
                              : avg_pool_back<float>(s, p, dy, dx);
}
