/* Batch-norm forward: statistics of a batch, and normalising with these or with the running ones.
 *
 * Each thread joins groups of four rows, each block its threads, and a last small kernel the
 * blocks, in double. */
#ifndef PIPETRAIN_KERNELS_NORM_TRAIN_CUH
#define PIPETRAIN_KERNELS_NORM_TRAIN_CUH

#include "kernels/channels.cuh"
#include "kernels/norm.h"

namespace
{

/* ---- statistics of a batch --------------------------------------------------------------------
 */

enum { MOMENTS = 3 }; /* n, mean, m2; n is not written: it follows from the slice */

struct join_moments {
    __device__ void operator()(float (&a)[MOMENTS], const float (&b)[MOMENTS]) const
    {
        const pt_moments first = {a[0], a[1], a[2]}, second = {b[0], b[1], b[2]};
        const pt_moments both = pt_element_merge(first, second);
        a[0] = both.n;
        a[1] = both.mean;
        a[2] = both.m2;
    }
};

/* Of V channels. They have the same number of values, so that one division serves all. */
template <int V> struct moments_pack {
    float n, share;
    pt_pack<V> mean, m2;

    /* more > 0 values will be joined to those of every channel. */
    __device__ void expect(float more)
    {
        share = more / (n + more);
    }

    __device__ void join(int v, pt_moments other)
    {
        const pt_moments both =
            pt_element_merge_by({n, mean.at[v], m2.at[v]}, other, n + other.n, share);
        mean.at[v] = both.mean;
        m2.at[v] = both.m2;
    }
};

/* Four rows of a thread are a group; what is left is joined one by one. */
template <typename T, int V>
__global__ void __launch_bounds__(PT_ROWS_THREADS)
    moments_kernel(pt_tiling t, const T *x, float *partials)
{
    static_assert((int)PT_ROWS_DEPTH == (int)PT_MOMENTS_GROUP, "a round of a thread is a group");
    const pt_tile at = pt_tile_of<V>(t);
    const int64_t step = t.slices * t.lines, next = step * t.channels;
    const int64_t rows = at.in ? t.rows : 0;
    int64_t r = at.slice * t.lines + at.line;
    const T *p = x + r * t.channels + at.c;
    moments_pack<V> mine = {};
    for (; r + (PT_ROWS_DEPTH - 1) * step < rows;
         r += PT_ROWS_DEPTH * step, p += PT_ROWS_DEPTH * next) {
        pt_pack<V> held[PT_ROWS_DEPTH];
#pragma unroll
        for (int u = 0; u < PT_ROWS_DEPTH; u++)
            held[u] = pt_read<V>(p + u * next);
        mine.expect(PT_ROWS_DEPTH);
#pragma unroll
        for (int v = 0; v < V; v++) {
            const float group[] = {held[0].at[v], held[1].at[v], held[2].at[v], held[3].at[v]};
            mine.join(v, pt_element_moments(group));
        }
        mine.n += PT_ROWS_DEPTH;
    }
#pragma unroll 1
    for (; r < rows; r += step, p += next) {
        const pt_pack<V> one = pt_read<V>(p);
        mine.expect(1);
#pragma unroll
        for (int v = 0; v < V; v++)
            mine.join(v, {1.0f, one.at[v], 0.0f});
        mine.n += 1;
    }
    pt_pack<V> all[MOMENTS];
#pragma unroll
    for (int v = 0; v < V; v++)
        all[0].at[v] = mine.n;
    all[1] = mine.mean;
    all[2] = mine.m2;
    pt_fold_lines<MOMENTS, V>(t, at, all, join_moments());
    pt_write_partials<2, V>(t, at, all + 1, partials);
}

struct weighted_mean {
    pt_tiling t;
    pt_partial mean;

    __device__ double operator()(int64_t slice) const
    {
        return (double)pt_slice_rows(t, slice) * mean(slice);
    }
};

struct spread {
    pt_tiling t;
    pt_partial mean, m2;
    double whole_mean;

    __device__ double operator()(int64_t slice) const
    {
        const double off = mean(slice) - whole_mean;
        return m2(slice) + (double)pt_slice_rows(t, slice) * off * off;
    }
};

__global__ void __launch_bounds__(PT_ROWS_THREADS)
    moments_finish_kernel(pt_tiling t, const float *partials, double eps, double momentum,
                          float *running_mean, float *running_var, float *saved)
{
    const int64_t c = pt_finish_channel();
    const pt_partial means = {partials, 2, 0, t.channels, c}, m2 = {partials, 2, 1, t.channels, c};
    const weighted_mean weighted = {t, means};
    const double count = (double)t.rows, mean = pt_over_slices(t, c, weighted) / count;
    const spread around = {t, means, m2, mean};
    const double square = pt_over_slices(t, c, around);
    if (c >= t.channels || threadIdx.x >= PT_FINISH_CHANNELS)
        return;
    saved[c] = (float)mean;
    saved[t.channels + c] = (float)(1 / sqrt(square / count + eps));
    if (!running_mean)
        return;
    running_mean[c] = pt_element_blend(running_mean[c], mean, momentum);
    running_var[c] =
        pt_element_blend(running_var[c], square / (count > 1 ? count - 1 : count), momentum);
}

/* ---- normalising ------------------------------------------------------------------------------
 */

/* mean and 1/sqrt(var + eps) stand in `saved`, or mean and var in `saved` and `var`. */
template <typename T, bool RESIDUAL, bool RELU> struct norm_body {
    static const int WIDE = pt_wide<T>::N, DEPTH = RESIDUAL ? 2 : 4;
    const T *x, *residual;
    const float *w, *b, *mean, *rstd, *var;
    float eps;
    T *y;

    template <int V> struct constants {
        pt_pack<V> mean, scale, b;
    };

    template <int V> struct held {
        pt_pack<V> x, residual;
    };

    template <int V> __device__ void open(int64_t c, constants<V> &k) const
    {
        const pt_pack<V> second = pt_read_channels<V>((rstd ? rstd : var) + c);
        k.mean = pt_read_channels<V>(mean + c);
        k.scale = pt_read_channels<V>(w + c);
        k.b = pt_read_channels<V>(b + c);
#pragma unroll
        for (int v = 0; v < V; v++)
            k.scale.at[v] *= rstd ? second.at[v] : pt_element_rstd(second.at[v], eps);
    }

    template <int V> __device__ void load(int64_t i, held<V> &h) const
    {
        h.x = pt_read<V>(x + i);
        if (RESIDUAL)
            h.residual = pt_read<V>(residual + i);
    }

    template <int V> __device__ void store(int64_t i, const constants<V> &k, held<V> &h) const
    {
#pragma unroll
        for (int v = 0; v < V; v++) {
            float y_ = pt_element_norm(h.x.at[v], k.mean.at[v], k.scale.at[v], k.b.at[v]);
            if (RESIDUAL)
                y_ = pt_rounded<T>(y_) + h.residual.at[v];
            if (RELU)
                y_ = pt_element_relu(pt_rounded<T>(y_));
            h.x.at[v] = y_;
        }
        pt_write<V>(y + i, h.x);
    }
};

template <typename T, bool RESIDUAL, bool RELU>
cudaError_t normalise(cudaStream_t s, const pt_cu_norm *n, const pt_cu_norm_args *a, bool train)
{
    const norm_body<T, RESIDUAL, RELU> body = {
        (const T *)a->x,
        (const T *)a->residual,
        a->w,
        a->b,
        train ? a->saved : a->running_mean,
        train ? a->saved + n->channels : NULL,
        a->running_var,
        (float)n->eps,
        (T *)a->y,
    };
    return pt_apply(s, n->rows, n->channels, pt_all_wide<T>(n->channels, a->x, a->residual, a->y),
                    body);
}

template <typename T>
cudaError_t normalise_any(cudaStream_t s, const pt_cu_norm *n, const pt_cu_norm_args *a, bool train)
{
    if (a->residual)
        return n->relu ? normalise<T, true, true>(s, n, a, train)
                       : normalise<T, true, false>(s, n, a, train);
    return n->relu ? normalise<T, false, true>(s, n, a, train)
                   : normalise<T, false, false>(s, n, a, train);
}

template <typename T>
cudaError_t train(cudaStream_t s, const pt_cu_norm *n, const pt_cu_norm_args *a)
{
    const bool wide = pt_all_wide<T>(n->channels, a->x);
    const int V = wide ? pt_wide<T>::N : 1;
    const pt_tiling t = pt_tiling_for(n->rows, n->channels, V, PT_SUM_BLOCKS);
    float *partials = (float *)a->partials;
    const T *x = (const T *)a->x;
    const int N = pt_wide<T>::N;
    cudaError_t error = wide
                            ? pt_rows_start<N>(moments_kernel<T, N>, t, MOMENTS, s, t, x, partials)
                            : pt_rows_start<1>(moments_kernel<T, 1>, t, MOMENTS, s, t, x, partials);
    if (error == cudaSuccess)
        error = pt_finish(moments_finish_kernel, n->channels, s, t, partials, n->eps, n->momentum,
                          a->running_mean, a->running_var, a->saved);
    return error == cudaSuccess ? normalise_any<T>(s, n, a, true) : error;
}

} // namespace

#endif
