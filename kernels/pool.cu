/* Pools on NHWC: a thread makes V neighbouring channels of one place. */
#include "kernels/rows.cuh"
#include "kernels/window.h"

namespace
{

enum { THREADS = 256 };

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

/* A thread's place among (samples, h, w, channels / V). */
struct place {
    int64_t n, h, w, c;
};

template <int V>
__device__ inline bool place_of(int64_t samples, int64_t height, int64_t width, int64_t channels,
                                place *ret_place)
{
    const int64_t packs = channels / V, id = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (id >= samples * height * width * packs)
        return false;
    int64_t c;
    int64_t rest = pt_split(id, packs, &c);
    rest = pt_split(rest, width, &ret_place->w);
    ret_place->n = pt_split(rest, height, &ret_place->h);
    ret_place->c = c * V;
    return true;
}

/* The first of V channels of one place. */
__device__ inline int64_t element(int64_t n, int64_t h, int64_t w, int64_t height, int64_t width,
                                  int64_t channels, int64_t c)
{
    return ((n * height + h) * width + w) * channels + c;
}

/* ---- maximum ----------------------------------------------------------------------------------
 */

template <typename T, int V>
__global__ void __launch_bounds__(THREADS)
    max_kernel(const __grid_constant__ pt_cu_window p, const T *x, T *y, int32_t *which)
{
    place at;
    if (!place_of<V>(p.samples, p.out_h, p.out_w, p.channels, &at))
        return;
    const pt_span rows = pt_element_window(at.h, p.kernel[0], p.stride[0], p.padding[0], p.in_h);
    const pt_span columns = pt_element_window(at.w, p.kernel[1], p.stride[1], p.padding[1], p.in_w);
    pt_pack<V> best =
        pt_read<V>(x + element(at.n, rows.begin, columns.begin, p.in_h, p.in_w, p.channels, at.c));
    int_pack<V> winner;
    const int64_t top = at.h * p.stride[0] - p.padding[0], left = at.w * p.stride[1] - p.padding[1];
#pragma unroll
    for (int v = 0; v < V; v++)
        winner.at[v] = (int32_t)((rows.begin - top) * p.kernel[1] + columns.begin - left);
    for (int64_t h = rows.begin; h < rows.end; h++)
        for (int64_t w = columns.begin; w < columns.end; w++) {
            const pt_pack<V> next =
                pt_read<V>(x + element(at.n, h, w, p.in_h, p.in_w, p.channels, at.c));
            const int32_t tap = (int32_t)((h - top) * p.kernel[1] + w - left);
#pragma unroll
            for (int v = 0; v < V; v++)
                if (pt_element_beats(next.at[v], best.at[v])) {
                    best.at[v] = next.at[v];
                    winner.at[v] = tap;
                }
        }
    const int64_t out = element(at.n, at.h, at.w, p.out_h, p.out_w, p.channels, at.c);
    pt_write<V>(y + out, best);
    if (which)
        write_ints<V>(which + out, winner);
}

/* Every input asks the windows over it, in their order, whether it won. */
template <typename T, int V>
__global__ void __launch_bounds__(THREADS) max_back_kernel(const __grid_constant__ pt_cu_window p,
                                                           const int32_t *which, const T *dy, T *dx)
{
    place at;
    if (!place_of<V>(p.samples, p.in_h, p.in_w, p.channels, &at))
        return;
    const pt_span rows =
        pt_element_windows_over(at.h, p.kernel[0], p.stride[0], p.padding[0], p.out_h);
    const pt_span columns =
        pt_element_windows_over(at.w, p.kernel[1], p.stride[1], p.padding[1], p.out_w);
    pt_pack<V> sum = {};
    for (int64_t h = rows.begin; h < rows.end; h++)
        for (int64_t w = columns.begin; w < columns.end; w++) {
            const int64_t out = element(at.n, h, w, p.out_h, p.out_w, p.channels, at.c);
            const int64_t tap = (at.h + p.padding[0] - h * p.stride[0]) * p.kernel[1] + at.w +
                                p.padding[1] - w * p.stride[1];
            const int_pack<V> winner = read_ints<V>(which + out);
            const pt_pack<V> gradient = pt_read<V>(dy + out);
#pragma unroll
            for (int v = 0; v < V; v++)
                sum.at[v] += winner.at[v] == (int32_t)tap ? gradient.at[v] : 0.0f;
        }
    pt_write<V>(dx + element(at.n, at.h, at.w, p.in_h, p.in_w, p.channels, at.c), sum);
}

/* ---- mean -------------------------------------------------------------------------------------
 */

template <int V> __device__ inline void scale_down(pt_pack<V> *sum, int64_t count)
{
#pragma unroll
    for (int v = 0; v < V; v++)
        sum->at[v] /= (float)count;
}

template <typename T, int V>
__device__ inline pt_pack<V> sum_of(const T *x, int64_t n, pt_span rows, pt_span columns,
                                    int64_t height, int64_t width, int64_t channels, int64_t c)
{
    pt_pack<V> sum = {};
    for (int64_t h = rows.begin; h < rows.end; h++)
        for (int64_t w = columns.begin; w < columns.end; w++) {
            const pt_pack<V> next = pt_read<V>(x + element(n, h, w, height, width, channels, c));
#pragma unroll
            for (int v = 0; v < V; v++)
                sum.at[v] += next.at[v];
        }
    return sum;
}

template <typename T, int V>
__global__ void __launch_bounds__(THREADS)
    avg_kernel(const __grid_constant__ pt_cu_window p, const T *x, T *y)
{
    place at;
    if (!place_of<V>(p.samples, p.out_h, p.out_w, p.channels, &at))
        return;
    const pt_span rows = pt_element_window(at.h, p.kernel[0], p.stride[0], p.padding[0], p.in_h);
    const pt_span columns = pt_element_window(at.w, p.kernel[1], p.stride[1], p.padding[1], p.in_w);
    pt_pack<V> sum = sum_of<T, V>(x, at.n, rows, columns, p.in_h, p.in_w, p.channels, at.c);
    scale_down(&sum, p.kernel[0] * p.kernel[1]);
    pt_write<V>(y + element(at.n, at.h, at.w, p.out_h, p.out_w, p.channels, at.c), sum);
}

template <typename T, int V>
__global__ void __launch_bounds__(THREADS)
    avg_back_kernel(const __grid_constant__ pt_cu_window p, const T *dy, T *dx)
{
    place at;
    if (!place_of<V>(p.samples, p.in_h, p.in_w, p.channels, &at))
        return;
    const pt_span rows =
        pt_element_windows_over(at.h, p.kernel[0], p.stride[0], p.padding[0], p.out_h);
    const pt_span columns =
        pt_element_windows_over(at.w, p.kernel[1], p.stride[1], p.padding[1], p.out_w);
    pt_pack<V> sum = sum_of<T, V>(dy, at.n, rows, columns, p.out_h, p.out_w, p.channels, at.c);
    scale_down(&sum, p.kernel[0] * p.kernel[1]);
    pt_write<V>(dx + element(at.n, at.h, at.w, p.in_h, p.in_w, p.channels, at.c), sum);
}

/* ---- the mean of a whole plane: a sample's rows are folded by one block ------------------------
 */

template <typename T, int V>
__global__ void __launch_bounds__(PT_ROWS_THREADS) global_kernel(pt_tiling t, const T *x, T *y)
{
    const pt_tile at = pt_tile_of<V>(t);
    pt_pack<V> sum[1] = {};
    if (at.in)
        for (int64_t r = at.line; r < t.rows; r += PT_ROWS_DEPTH * t.lines) {
            pt_pack<V> held[PT_ROWS_DEPTH];
#pragma unroll
            for (int u = 0; u < PT_ROWS_DEPTH; u++) {
                held[u] = pt_pack<V>();
                if (r + u * t.lines < t.rows)
                    held[u] =
                        pt_read<V>(x + (at.slice * t.rows + r + u * t.lines) * t.channels + at.c);
            }
#pragma unroll
            for (int u = 0; u < PT_ROWS_DEPTH; u++)
#pragma unroll
                for (int v = 0; v < V; v++)
                    sum[0].at[v] += held[u].at[v];
        }
    pt_fold_lines<1, V>(t, at, sum);
    if (!at.in || at.line > 0)
        return;
    scale_down(&sum[0], t.rows);
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
    scale_down(&share, t.rows);
    for (int64_t r = at.line; r < t.rows; r += t.lines)
        pt_write<V>(dx + (at.slice * t.rows + r) * t.channels + at.c, share);
}

/* ---- launching --------------------------------------------------------------------------------
 */

bool window_ok(const pt_cu_window *w)
{
    return w->samples >= 0 && w->channels >= 0 && w->in_h >= 0 && w->in_w >= 0 && w->out_h >= 0 &&
           w->out_w >= 0 && w->kernel[0] > 0 && w->kernel[1] > 0 && w->stride[0] > 0 &&
           w->stride[1] > 0 && w->kernel[0] * w->kernel[1] <= INT32_MAX;
}

/* `elements` are made, V a thread. */
template <typename... P>
cudaError_t start(void (*kernel)(P...), int64_t elements, int V, cudaStream_t s,
                  typename pt_same<P>::type... args)
{
    dim3 grid;
    if (elements == 0)
        return cudaSuccess;
    const cudaError_t error = pt_grid(pt_quotient_up(elements / V, THREADS), &grid);
    if (error != cudaSuccess)
        return error;
    return pt_start(kernel, grid, THREADS, 0, s, args...);
}

template <typename T> struct pools {
    static const int V = pt_wide<T>::N;

    static bool wide(int64_t channels, const void *a, const void *b, const void *c = NULL)
    {
        return channels % V == 0 && pt_aligned(a) && pt_aligned(b) && pt_aligned(c);
    }

    static int64_t ins(const pt_cu_window *w)
    {
        return w->samples * w->in_h * w->in_w * w->channels;
    }

    static int64_t outs(const pt_cu_window *w)
    {
        return w->samples * w->out_h * w->out_w * w->channels;
    }

    static cudaError_t max(cudaStream_t s, const pt_cu_window *w, const T *x, T *y, int32_t *which)
    {
        if (wide(w->channels, x, y, which))
            return start(max_kernel<T, V>, outs(w), V, s, *w, x, y, which);
        return start(max_kernel<T, 1>, outs(w), 1, s, *w, x, y, which);
    }

    static cudaError_t max_back(cudaStream_t s, const pt_cu_window *w, const int32_t *which,
                                const T *dy, T *dx)
    {
        if (wide(w->channels, dy, dx, which))
            return start(max_back_kernel<T, V>, ins(w), V, s, *w, which, dy, dx);
        return start(max_back_kernel<T, 1>, ins(w), 1, s, *w, which, dy, dx);
    }

    static cudaError_t avg(cudaStream_t s, const pt_cu_window *w, const T *x, T *y)
    {
        if (wide(w->channels, x, y))
            return start(avg_kernel<T, V>, outs(w), V, s, *w, x, y);
        return start(avg_kernel<T, 1>, outs(w), 1, s, *w, x, y);
    }

    static cudaError_t avg_back(cudaStream_t s, const pt_cu_window *w, const T *dy, T *dx)
    {
        if (wide(w->channels, dy, dx))
            return start(avg_back_kernel<T, V>, ins(w), V, s, *w, dy, dx);
        return start(avg_back_kernel<T, 1>, ins(w), 1, s, *w, dy, dx);
    }

    /* A slice of the tiling is a sample. */
    static cudaError_t global(cudaStream_t s, int64_t samples, int64_t area, int64_t channels,
                              const T *x, T *y)
    {
        const bool is_wide = wide(channels, x, y);
        const pt_tiling t = pt_tiling_of(area, channels, is_wide ? V : 1, samples);
        if (is_wide)
            return pt_rows_start<V>(global_kernel<T, V>, t, 1, s, t, x, y);
        return pt_rows_start<1>(global_kernel<T, 1>, t, 1, s, t, x, y);
    }

    static cudaError_t global_back(cudaStream_t s, int64_t samples, int64_t area, int64_t channels,
                                   const T *dy, T *dx)
    {
        const bool is_wide = wide(channels, dy, dx);
        const pt_tiling t = pt_tiling_of(area, channels, is_wide ? V : 1, samples);
        if (is_wide)
            return pt_rows_start<V>(global_back_kernel<T, V>, t, 0, s, t, dy, dx);
        return pt_rows_start<1>(global_back_kernel<T, 1>, t, 0, s, t, dy, dx);
    }
};

} // namespace

cudaError_t pt_cu_max_pool(cudaStream_t s, pt_cu_type type, const pt_cu_window *w, const void *x,
                           void *y, int32_t *which)
{
    if (!window_ok(w))
        return cudaErrorInvalidValue;
    return type == PT_CU_BF16 ? pools<pt_bf16>::max(s, w, (const pt_bf16 *)x, (pt_bf16 *)y, which)
                              : pools<float>::max(s, w, (const float *)x, (float *)y, which);
}

cudaError_t pt_cu_max_pool_back(cudaStream_t s, pt_cu_type type, const pt_cu_window *w,
                                const int32_t *which, const void *dy, void *dx)
{
    if (!window_ok(w))
        return cudaErrorInvalidValue;
    return type == PT_CU_BF16
               ? pools<pt_bf16>::max_back(s, w, which, (const pt_bf16 *)dy, (pt_bf16 *)dx)
               : pools<float>::max_back(s, w, which, (const float *)dy, (float *)dx);
}

cudaError_t pt_cu_avg_pool(cudaStream_t s, pt_cu_type type, const pt_cu_window *w, const void *x,
                           void *y)
{
    if (!window_ok(w))
        return cudaErrorInvalidValue;
    return type == PT_CU_BF16 ? pools<pt_bf16>::avg(s, w, (const pt_bf16 *)x, (pt_bf16 *)y)
                              : pools<float>::avg(s, w, (const float *)x, (float *)y);
}

cudaError_t pt_cu_avg_pool_back(cudaStream_t s, pt_cu_type type, const pt_cu_window *w,
                                const void *dy, void *dx)
{
    if (!window_ok(w))
        return cudaErrorInvalidValue;
    return type == PT_CU_BF16 ? pools<pt_bf16>::avg_back(s, w, (const pt_bf16 *)dy, (pt_bf16 *)dx)
                              : pools<float>::avg_back(s, w, (const float *)dy, (float *)dx);
}

cudaError_t pt_cu_global_pool(cudaStream_t s, pt_cu_type type, int64_t samples, int64_t area,
                              int64_t channels, const void *x, void *y)
{
    if (samples < 0 || area < 0 || channels < 0)
        return cudaErrorInvalidValue;
    if (samples == 0 || area == 0 || channels == 0)
        return cudaSuccess;
    return type == PT_CU_BF16
               ? pools<pt_bf16>::global(s, samples, area, channels, (const pt_bf16 *)x,
                                        (pt_bf16 *)y)
               : pools<float>::global(s, samples, area, channels, (const float *)x, (float *)y);
}

cudaError_t pt_cu_global_pool_back(cudaStream_t s, pt_cu_type type, int64_t samples, int64_t area,
                                   int64_t channels, const void *dy, void *dx)
{
    if (samples < 0 || area < 0 || channels < 0)
        return cudaErrorInvalidValue;
    if (samples == 0 || area == 0 || channels == 0)
        return cudaSuccess;
    return type == PT_CU_BF16 ? pools<pt_bf16>::global_back(s, samples, area, channels,
                                                            (const pt_bf16 *)dy, (pt_bf16 *)dx)
                              : pools<float>::global_back(s, samples, area, channels,
                                                          (const float *)dy, (float *)dx);
}
