/* Batch-norm backward: one kernel sums Σ dy and Σ dy·(x - mean), where dy is what relu lets
 * through, and one makes dx of them. */
#ifndef PIPETRAIN_KERNELS_NORM_BACK_CUH
#define PIPETRAIN_KERNELS_NORM_BACK_CUH

#include "kernels/channels.cuh"
#include "kernels/norm.h"

namespace
{

/* Sums Σ dy and Σ dy·(x - mean), and writes what relu lets through where that is wanted. */
template <typename T, bool RELU> struct back_sums_body {
    static const int WIDE = pt_wide<T>::N, DEPTH = 2, SUMS = 2;
    const T *x, *y, *dy;
    const float *mean;
    T *passed;

    template <int V> struct constants {
        pt_pack<V> mean;
    };

    template <int V> struct held {
        pt_pack<V> x, y, dy;
    };

    template <int V> __device__ void open(int64_t c, constants<V> &k) const
    {
        k.mean = pt_read_channels<V>(mean + c);
    }

    template <int V> __device__ void load(int64_t i, held<V> &h) const
    {
        h.x = pt_read<V>(x + i);
        h.dy = pt_read<V>(dy + i);
        if (RELU)
            h.y = pt_read<V>(y + i);
    }

    template <int V>
    __device__ void add(int64_t i, const constants<V> &k, held<V> &h, pt_pack<V> *sums) const
    {
#pragma unroll
        for (int v = 0; v < V; v++) {
            if (RELU)
                h.dy.at[v] = pt_element_relu_back(h.y.at[v], h.dy.at[v]);
            sums[0].at[v] += h.dy.at[v];
            sums[1].at[v] = fmaf(h.dy.at[v], h.x.at[v] - k.mean.at[v], sums[1].at[v]);
        }
        if (passed)
            pt_write<V>(passed + i, h.dy);
    }
};

/* shares: (2, channels), for dx: db/count and rstd·dw/count */
__global__ void __launch_bounds__(PT_ROWS_THREADS)
    back_finish_kernel(pt_tiling t, const float *partials, const float *saved, float *dw, float *db,
                       bool accumulate, float *shares)
{
    const int64_t c = pt_finish_channel();
    const pt_partial plain = {partials, 2, 0, t.channels, c},
                     by_x = {partials, 2, 1, t.channels, c};
    const double shift = pt_over_slices(t, c, plain), product = pt_over_slices(t, c, by_x);
    if (c >= t.channels || threadIdx.x >= PT_FINISH_CHANNELS)
        return;
    const double rstd = (double)saved[t.channels + c], slope = product * rstd;
    if (dw)
        pt_give(&dw[c], slope, accumulate);
    if (db)
        pt_give(&db[c], shift, accumulate);
    shares[c] = (float)(shift / (double)t.rows);
    shares[t.channels + c] = (float)(rstd * slope / (double)t.rows);
}

template <typename T, bool RELU> struct back_body {
    static const int WIDE = pt_wide<T>::N, DEPTH = 2;
    const T *x, *y, *dy;
    const float *w, *mean, *rstd, *db_share, *dw_share;
    T *dx;

    template <int V> struct constants {
        pt_pack<V> mean, scale, db_share, dw_share;
    };

    template <int V> struct held {
        pt_pack<V> x, y, dy;
    };

    template <int V> __device__ void open(int64_t c, constants<V> &k) const
    {
        const pt_pack<V> rstd_ = pt_read_channels<V>(rstd + c);
        k.mean = pt_read_channels<V>(mean + c);
        k.scale = pt_read_channels<V>(w + c);
        k.db_share = pt_read_channels<V>(db_share + c);
        k.dw_share = pt_read_channels<V>(dw_share + c);
#pragma unroll
        for (int v = 0; v < V; v++)
            k.scale.at[v] *= rstd_.at[v];
    }

    template <int V> __device__ void load(int64_t i, held<V> &h) const
    {
        h.x = pt_read<V>(x + i);
        h.dy = pt_read<V>(dy + i);
        if (RELU)
            h.y = pt_read<V>(y + i);
    }

    template <int V> __device__ void store(int64_t i, const constants<V> &k, held<V> &h) const
    {
#pragma unroll
        for (int v = 0; v < V; v++) {
            if (RELU)
                h.dy.at[v] = pt_element_relu_back(h.y.at[v], h.dy.at[v]);
            h.dy.at[v] = pt_element_norm_back(h.x.at[v], h.dy.at[v], k.mean.at[v], k.scale.at[v],
                                              k.db_share.at[v], k.dw_share.at[v]);
        }
        pt_write<V>(dx + i, h.dy);
    }
};

template <typename T, bool RELU>
cudaError_t back_sums(cudaStream_t s, const pt_cu_norm *n, const pt_cu_norm_args *a, bool wide,
                      const pt_tiling &t, float *shares)
{
    /* Without relu the residual's gradient is dy itself, and may lie where dy does. */
    T *passed = a->d_residual == a->dy && !RELU ? NULL : (T *)a->d_residual;
    const back_sums_body<T, RELU> body = {(const T *)a->x, (const T *)a->y, (const T *)a->dy,
                                          a->saved, passed};
    float *partials = (float *)a->partials;
    const cudaError_t error = pt_sums(s, t, wide, body, partials);
    if (error != cudaSuccess)
        return error;
    return pt_finish(back_finish_kernel, n->channels, s, t, partials, a->saved, a->dw, a->db,
                     a->accumulate, shares);
}

/* dy: what relu has let through already, unless RELU. */
template <typename T, bool RELU>
cudaError_t back_apply(cudaStream_t s, const pt_cu_norm *n, const pt_cu_norm_args *a, bool wide,
                       const void *dy, const float *shares)
{
    const back_body<T, RELU> body = {
        (const T *)a->x,        (const T *)a->y, (const T *)dy,        a->w,      a->saved,
        a->saved + n->channels, shares,          shares + n->channels, (T *)a->dx};
    return pt_apply(s, n->rows, n->channels, wide, body);
}

template <typename T>
cudaError_t back(cudaStream_t s, const pt_cu_norm *n, const pt_cu_norm_args *a)
{
    const bool wide = pt_all_wide<T>(n->channels, a->x, a->dy, a->dx, a->d_residual) &&
                      (!n->relu || pt_aligned(a->y));
    const pt_tiling t =
        pt_tiling_for(n->rows, n->channels, wide ? pt_wide<T>::N : 1, PT_SUM_BLOCKS);
    float *shares = (float *)a->partials + t.slices * 2 * n->channels;
    const cudaError_t error = n->relu ? back_sums<T, true>(s, n, a, wide, t, shares)
                                      : back_sums<T, false>(s, n, a, wide, t, shares);
    if (error != cudaSuccess || !a->dx)
        return error;
    if (a->d_residual) /* saves reading y a second time */
        return back_apply<T, false>(s, n, a, wide, a->d_residual, shares);
    return n->relu ? back_apply<T, true>(s, n, a, wide, a->dy, shares)
                   : back_apply<T, false>(s, n, a, wide, a->dy, shares);
}

} // namespace

#endif
