/* Max-pool and its gradient. */
#include "kernels/pool.cuh"

namespace
{

template <int V> struct int_pack {
    int32_t at[V];
};

template <int V> __device__ inline int_pack<V> read_ints(const int32_t *p)
{
    int_pack<V> x;
    if (V == 1)
        x.at[0] = *p;
#pragma unroll
    for (int first = 0; V > 1 && first < V; first += 4) {
        const pt_words<4> w = pt_read_words<4>(p + first);
#pragma unroll
        for (int i = 0; i < 4; i++)
            x.at[(first + i) % V] = (int32_t)w.at[i];
    }
    return x;
}

template <int V> __device__ inline void write_ints(int32_t *p, const int_pack<V> &x)
{
    if (V == 1)
        *p = x.at[0];
#pragma unroll
    for (int first = 0; V > 1 && first < V; first += 4) {
        pt_words<4> w;
#pragma unroll
        for (int i = 0; i < 4; i++)
            w.at[i] = (uint32_t)x.at[(first + i) % V];
        pt_write_words<4>(p + first, w);
    }
}

/* The largest so far, and where in the window it is. */
template <int V> struct winner {
    pt_pack<V> best;
    int_pack<V> tap;

    __device__ void meet(const pt_pack<V> &next, int32_t tap_)
    {
#pragma unroll
        for (int v = 0; v < V; v++)
            if (pt_element_beats(next.at[v], best.at[v])) {
                best.at[v] = next.at[v];
                tap.at[v] = tap_;
            }
    }
};

template <typename T, int V>
__global__ void __launch_bounds__(POOL_THREADS)
    max_kernel(const __grid_constant__ pool_window p, const T *x, T *y, int32_t *which)
{
    pool_place at;
    if (!pool_place_of<V>(p.samples, p.out_h, p.out_w, p.channels, &at))
        return;
    const pt_span rows = pool_inputs(p, at, 0), columns = pool_inputs(p, at, 1);
    /* of the window's first row and column, in the padding or not */
    const int32_t top = at.h * p.stride[0] - p.padding[0], left = at.w * p.stride[1] - p.padding[1];
    winner<V> of;
#pragma unroll
    for (int v = 0; v < V; v++) {
        of.best.at[v] = -INFINITY;
        of.tap.at[v] = (rows.begin - top) * p.kernel[1] + columns.begin - left;
    }
    for (int32_t h = rows.begin; h < rows.end; h++) {
        const T *row = x + pool_row(at.n, h, p.in_h, p.in_w, p.channels, at.c);
        const int32_t tap = (h - top) * p.kernel[1] - left;
        for (int32_t w = columns.begin; w < columns.end; w += POOL_DEPTH) {
            pt_pack<V> held[POOL_DEPTH];
#pragma unroll
            for (int u = 0; u < POOL_DEPTH; u++)
                held[u] = pt_read<V>(row + pool_step(w + u, columns, p.channels));
#pragma unroll
            for (int u = 0; u < POOL_DEPTH; u++) /* a place that comes twice changes nothing */
                of.meet(held[u], tap + w + u);
        }
    }
    const int64_t out = pool_out(p, at);
    pt_write<V>(y + out, of.best);
    if (which)
        write_ints<V>(which + out, of.tap);
}

enum { BACK_DEPTH = 2 };

/* Every input asks the windows over it, in their order, whether it won. */
template <typename T, int V>
__global__ void __launch_bounds__(POOL_THREADS)
    max_back_kernel(const __grid_constant__ pool_window p, const int32_t *which, const T *dy, T *dx)
{
    pool_place at;
    if (!pool_place_of<V>(p.samples, p.in_h, p.in_w, p.channels, &at))
        return;
    const pt_span rows = pool_outputs(p, at, 0), columns = pool_outputs(p, at, 1);
    pt_pack<V> sum = {};
    for (int32_t h = rows.begin; h < rows.end; h++) {
        const int64_t row = pool_row(at.n, h, p.out_h, p.out_w, p.channels, at.c);
        const int32_t tap =
            (at.h + p.padding[0] - h * p.stride[0]) * p.kernel[1] + at.w + p.padding[1];
        for (int32_t w = columns.begin; w < columns.end; w += BACK_DEPTH) {
            int_pack<V> taps[BACK_DEPTH];
            pt_pack<V> gradient[BACK_DEPTH];
#pragma unroll
            for (int u = 0; u < BACK_DEPTH; u++) {
                const int64_t out = row + pool_step(w + u, columns, p.channels);
                taps[u] = read_ints<V>(which + out);
                gradient[u] = pt_read<V>(dy + out);
            }
#pragma unroll
            for (int u = 0; u < BACK_DEPTH; u++) {
                const bool in = w + u < columns.end;
                const int32_t mine = tap - (w + u) * p.stride[1];
#pragma unroll
                for (int v = 0; v < V; v++)
                    sum.at[v] += in && taps[u].at[v] == mine ? gradient[u].at[v] : 0.0f;
            }
        }
    }
    pt_write<V>(dx + pool_in(p, at), sum);
}

template <typename T>
cudaError_t max_pool(cudaStream_t s, const pool_window &p, const void *x, void *y, int32_t *which)
{
    const int V = pt_wide<T>::N;
    if (pool_wide<T>(p.channels, x, y, which))
        return pool_start(max_kernel<T, V>, pool_outs(p), V, s, p, (const T *)x, (T *)y, which);
    return pool_start(max_kernel<T, 1>, pool_outs(p), 1, s, p, (const T *)x, (T *)y, which);
}

template <typename T>
cudaError_t max_pool_back(cudaStream_t s, const pool_window &p, const int32_t *which,
                          const void *dy, void *dx)
{
    const int V = pt_wide<T>::N;
    if (pool_wide<T>(p.channels, dy, dx, which))
        return pool_start(max_back_kernel<T, V>, pool_ins(p), V, s, p, which, (const T *)dy,
                          (T *)dx);
    return pool_start(max_back_kernel<T, 1>, pool_ins(p), 1, s, p, which, (const T *)dy, (T *)dx);
}

} // namespace

cudaError_t pt_cu_max_pool(cudaStream_t s, pt_cu_type type, const pt_cu_window *w, const void *x,
                           void *y, int32_t *which)
{
    pool_window p;
    if (!pool_window_of(w, &p))
        return cudaErrorInvalidValue;
    return type == PT_CU_BF16 ? max_pool<pt_bf16>(s, p, x, y, which)
                              : max_pool<float>(s, p, x, y, which);
}

cudaError_t pt_cu_max_pool_back(cudaStream_t s, pt_cu_type type, const pt_cu_window *w,
                                const int32_t *which, const void *dy, void *dx)
{
    pool_window p;
    if (!pool_window_of(w, &p))
        return cudaErrorInvalidValue;
    return type == PT_CU_BF16 ? max_pool_back<pt_bf16>(s, p, which, dy, dx)
                              : max_pool_back<float>(s, p, which, dy, dx);
}
