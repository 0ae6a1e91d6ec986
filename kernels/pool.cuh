/* What pools over windows share: a thread makes V neighbouring channels of one place. */
#ifndef PIPETRAIN_KERNELS_POOL_CUH
#define PIPETRAIN_KERNELS_POOL_CUH

#include "kernels/pack.cuh"
#include "kernels/window.h"

namespace
{

/* POOL_DEPTH: neighbours that a thread reads before it looks at the first of them. POOL_MOST: no
 * sum of two lengths and a tap leaves 32 bits. */
enum { POOL_THREADS = 256, POOL_DEPTH = 3, POOL_MOST = 1 << 28 };

/* pt_cu_window in 32 bits: arithmetic of 64 would take these kernels longer than their memory. Only
 * places in memory need more. */
struct pool_window {
    int64_t samples;
    int32_t channels, in_h, in_w, out_h, out_w;
    int32_t kernel[2], stride[2], padding[2];
};

inline bool pool_length_ok(int64_t n)
{
    return n >= 0 && n <= POOL_MOST;
}

/* Along one axis: every window looks at some input, so that there is something to read. */
inline bool pool_axis_ok(int64_t in, int64_t out, int64_t kernel, int64_t stride, int64_t padding)
{
    return pool_length_ok(in) && pool_length_ok(out) && pool_length_ok(kernel) &&
           pool_length_ok(stride) && stride > 0 && padding >= 0 && padding < kernel &&
           (out == 0 || (in > 0 && (out - 1) * stride - padding < in));
}

inline bool pool_window_of(const pt_cu_window *w, pool_window *ret_window)
{
    if (w->samples < 0 || !pool_length_ok(w->channels) ||
        !pool_axis_ok(w->in_h, w->out_h, w->kernel[0], w->stride[0], w->padding[0]) ||
        !pool_axis_ok(w->in_w, w->out_w, w->kernel[1], w->stride[1], w->padding[1]) ||
        w->kernel[0] * w->kernel[1] > POOL_MOST)
        return false;
    *ret_window = {w->samples,
                   (int32_t)w->channels,
                   (int32_t)w->in_h,
                   (int32_t)w->in_w,
                   (int32_t)w->out_h,
                   (int32_t)w->out_w,
                   {(int32_t)w->kernel[0], (int32_t)w->kernel[1]},
                   {(int32_t)w->stride[0], (int32_t)w->stride[1]},
                   {(int32_t)w->padding[0], (int32_t)w->padding[1]}};
    return true;
}

/* A thread's place among (samples, h, w, channels / V). */
struct pool_place {
    int64_t n;
    int32_t h, w, c;
};

template <int V>
__device__ inline bool pool_place_of(int64_t samples, int32_t height, int32_t width,
                                     int32_t channels, pool_place *ret_place)
{
    const int64_t id = (int64_t)blockIdx.x * POOL_THREADS + threadIdx.x;
    int64_t c, w, h;
    const int64_t row = pt_split(pt_split(id, channels / V, &c), width, &w);
    ret_place->n = pt_split(row, height, &h);
    ret_place->h = (int32_t)h;
    ret_place->w = (int32_t)w;
    ret_place->c = (int32_t)c * V;
    return ret_place->n < samples;
}

/* Channel c of the first place of row h. */
__device__ inline int64_t pool_row(int64_t n, int32_t h, int32_t height, int32_t width,
                                   int32_t channels, int32_t c)
{
    return (n * height + h) * width * channels + c;
}

/* From a row's first place to place w, or to the last of the span if that comes first: reads that
 * ask no questions are not waited for one by one. */
__device__ inline int64_t pool_step(int32_t w, pt_span span, int32_t channels)
{
    return (int64_t)(w < span.end ? w : span.end - 1) * channels;
}

__device__ inline int64_t pool_out(const pool_window &p, const pool_place &at)
{
    return pool_row(at.n, at.h, p.out_h, p.out_w, p.channels, at.c) + (int64_t)at.w * p.channels;
}

__device__ inline int64_t pool_in(const pool_window &p, const pool_place &at)
{
    return pool_row(at.n, at.h, p.in_h, p.in_w, p.channels, at.c) + (int64_t)at.w * p.channels;
}

__device__ inline pt_span pool_inputs(const pool_window &p, const pool_place &at, int axis)
{
    return pt_element_window(axis == 0 ? at.h : at.w, p.kernel[axis], p.stride[axis],
                             p.padding[axis], axis == 0 ? p.in_h : p.in_w);
}

__device__ inline pt_span pool_outputs(const pool_window &p, const pool_place &at, int axis)
{
    return pt_element_windows_over(axis == 0 ? at.h : at.w, p.kernel[axis], p.stride[axis],
                                   p.padding[axis], axis == 0 ? p.out_h : p.out_w);
}

/* sum / count, as the CPU backends divide */
template <int V> __device__ inline void pool_scale_down(pt_pack<V> *sum, int64_t count)
{
#pragma unroll
    for (int v = 0; v < V; v++)
        sum->at[v] /= (float)count;
}

inline int64_t pool_ins(const pool_window &p)
{
    return p.samples * p.in_h * p.in_w * p.channels;
}

inline int64_t pool_outs(const pool_window &p)
{
    return p.samples * p.out_h * p.out_w * p.channels;
}

/* Can V channels of T be one access? */
template <typename T>
bool pool_wide(int64_t channels, const void *a, const void *b, const void *c = NULL)
{
    return channels % pt_wide<T>::N == 0 && pt_aligned(a) && pt_aligned(b) && pt_aligned(c);
}

/* `elements` are made, V a thread. */
template <typename... P>
cudaError_t pool_start(void (*kernel)(P...), int64_t elements, int V, cudaStream_t s,
                       typename pt_same<P>::type... args)
{
    dim3 grid;
    if (elements == 0)
        return cudaSuccess;
    const cudaError_t error = pt_grid(pt_quotient_up(elements / V, POOL_THREADS), &grid);
    if (error != cudaSuccess)
        return error;
    return pt_start(kernel, grid, POOL_THREADS, 0, s, args...);
}

} // namespace

#endif
