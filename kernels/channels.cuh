/* The two things that are done to (rows, channels): something is summed over the rows, or every
 * element is changed by constants of its channel.
 *
 * A body says what. open(c, k) reads the constants of V channels; load(i, held) reads V elements at
 * i; then add(i, k, held, sums) adds to Body::SUMS sums, or store(i, k, held) writes. As long as
 * there are rows for it, a thread makes Body::DEPTH loads before it looks at the first; what is
 * left it does row by row. */
#ifndef PIPETRAIN_KERNELS_CHANNELS_CUH
#define PIPETRAIN_KERNELS_CHANNELS_CUH

#include "kernels/rows.cuh"

namespace
{

/* partials[slice][k][channel] */
template <int K, int V>
__device__ inline void pt_write_partials(const pt_tiling &t, const pt_tile &at,
                                         const pt_pack<V> *sums, float *partials)
{
    if (!at.in || at.line > 0)
        return;
#pragma unroll
    for (int k = 0; k < K; k++)
#pragma unroll
        for (int v = 0; v < V; v++)
            partials[(at.slice * K + k) * t.channels + at.c + v] = sums[k].at[v];
}

/* What a thread adds: Body::SUMS sums of V channels. */
template <int V, typename Body>
__device__ inline void pt_sum_rows(const pt_tiling &t, const pt_tile &at, const Body &body,
                                   pt_pack<V> *sums)
{
    const int64_t step = t.slices * t.lines, next = step * t.channels;
    typename Body::template constants<V> k;
    typename Body::template held<V> held[Body::DEPTH];
    int64_t r = at.slice * t.lines + at.line, i = r * t.channels + at.c;
    if (!at.in)
        return;
    body.open(at.c, k);
    for (; r + (Body::DEPTH - 1) * step < t.rows;
         r += Body::DEPTH * step, i += Body::DEPTH * next) {
#pragma unroll
        for (int u = 0; u < Body::DEPTH; u++)
            body.load(i + u * next, held[u]);
#pragma unroll
        for (int u = 0; u < Body::DEPTH; u++)
            body.add(i + u * next, k, held[u], sums);
    }
#pragma unroll 1
    for (; r < t.rows; r += step, i += next) {
        body.load(i, held[0]);
        body.add(i, k, held[0], sums);
    }
}

template <int V, typename Body>
__global__ void __launch_bounds__(PT_ROWS_THREADS)
    pt_sums_kernel(pt_tiling t, Body body, float *partials)
{
    const pt_tile at = pt_tile_of<V>(t);
    pt_pack<V> sums[Body::SUMS] = {};
    pt_sum_rows<V>(t, at, body, sums);
    pt_fold_lines<Body::SUMS, V>(t, at, sums);
    pt_write_partials<Body::SUMS, V>(t, at, sums, partials);
}

/* From the last row to the first: what a summing kernel read last may still be in a cache. */
template <int V, typename Body>
__global__ void __launch_bounds__(PT_ROWS_THREADS) pt_apply_kernel(pt_tiling t, Body body)
{
    const pt_tile at = pt_tile_of<V>(t);
    const int64_t step = t.slices * t.lines;
    typename Body::template constants<V> k;
    typename Body::template held<V> held[Body::DEPTH];
    const int64_t next = step * t.channels;
    int64_t r = t.rows - 1 - at.slice * t.lines - at.line, i = r * t.channels + at.c;
    if (!at.in || r < 0)
        return;
    body.open(at.c, k);
    for (; r >= (Body::DEPTH - 1) * step; r -= Body::DEPTH * step, i -= Body::DEPTH * next) {
#pragma unroll
        for (int u = 0; u < Body::DEPTH; u++)
            body.load(i - u * next, held[u]);
#pragma unroll
        for (int u = 0; u < Body::DEPTH; u++)
            body.store(i - u * next, k, held[u]);
    }
#pragma unroll 1
    for (; r >= 0; r -= step, i -= next) {
        body.load(i, held[0]);
        body.store(i, k, held[0]);
    }
}

/* Can T be read in packs: do all addresses (or NULL) and the number of channels allow it? */
template <typename T>
bool pt_all_wide(int64_t channels, const void *a, const void *b = NULL, const void *c = NULL,
                 const void *d = NULL)
{
    return channels % pt_wide<T>::N == 0 && pt_aligned(a) && pt_aligned(b) && pt_aligned(c) &&
           pt_aligned(d);
}

/* wide: channels are a multiple of Body::WIDE and all values lie at multiples of 16 bytes. */
template <typename Body>
cudaError_t pt_apply(cudaStream_t s, int64_t rows, int64_t channels, bool wide, const Body &body)
{
    const int V = wide ? Body::WIDE : 1;
    const pt_tiling t = pt_tiling_for(rows, channels, V, PT_APPLY_BLOCKS);
    if (wide)
        return pt_rows_start<Body::WIDE>(pt_apply_kernel<Body::WIDE, Body>, t, 0, s, t, body);
    return pt_rows_start<1>(pt_apply_kernel<1, Body>, t, 0, s, t, body);
}

template <typename Body>
cudaError_t pt_sums(cudaStream_t s, const pt_tiling &t, bool wide, const Body &body,
                    float *partials)
{
    if (wide)
        return pt_rows_start<Body::WIDE>(pt_sums_kernel<Body::WIDE, Body>, t, Body::SUMS, s, t,
                                         body, partials);
    return pt_rows_start<1>(pt_sums_kernel<1, Body>, t, Body::SUMS, s, t, body, partials);
}

/* ---- finishing: a block joins the slices of a few channels, in double --------------------------
 */

enum { PT_FINISH_CHANNELS = 8, PT_FINISH_LINES = PT_ROWS_THREADS / PT_FINISH_CHANNELS };

__device__ inline int64_t pt_finish_channel()
{
    return (int64_t)blockIdx.x * PT_FINISH_CHANNELS + threadIdx.x % PT_FINISH_CHANNELS;
}

/* Σ_slice value(slice); all threads of the block take part, and those of a channel get its sum. */
template <typename Value>
__device__ inline double pt_over_slices(const pt_tiling &t, int64_t c, Value value)
{
    double *shared = pt_shared<double>();
    double sum = 0;
    if (c < t.channels)
#pragma unroll 8
        for (int64_t slice = threadIdx.x / PT_FINISH_CHANNELS; slice < t.slices;
             slice += PT_FINISH_LINES)
            sum += value(slice);
    __syncthreads(); /* the last sum's readers have gone */
    shared[threadIdx.x] = sum;
    __syncthreads();
    for (int half = PT_ROWS_THREADS / 2; half >= PT_FINISH_CHANNELS; half /= 2) {
        if (threadIdx.x < (unsigned)half)
            shared[threadIdx.x] += shared[threadIdx.x + half];
        __syncthreads();
    }
    return shared[threadIdx.x % PT_FINISH_CHANNELS];
}

/* partials[slice][k][c] */
struct pt_partial {
    const float *partials;
    int64_t sums, k, channels, c;

    __device__ double operator()(int64_t slice) const
    {
        return (double)partials[(slice * sums + k) * channels + c];
    }
};

template <typename... P>
cudaError_t pt_finish(void (*kernel)(P...), int64_t channels, cudaStream_t s,
                      typename pt_same<P>::type... args)
{
    dim3 grid;
    if (channels == 0)
        return cudaSuccess;
    const cudaError_t error = pt_grid(pt_quotient_up(channels, PT_FINISH_CHANNELS), &grid);
    if (error != cudaSuccess)
        return error;
    return pt_start(kernel, grid, PT_ROWS_THREADS, PT_ROWS_THREADS * sizeof(double), s, args...);
}

/* *p (+)= value */
__device__ inline void pt_give(float *p, double value, bool accumulate)
{
    *p = accumulate ? (float)((double)*p + value) : (float)value;
}

} // namespace

#endif
