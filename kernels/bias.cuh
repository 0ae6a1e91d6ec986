/* Bias: y += b, and its gradient, the sum over the rows. */
#ifndef PIPETRAIN_KERNELS_BIAS_CUH
#define PIPETRAIN_KERNELS_BIAS_CUH

#include "kernels/channels.cuh"

namespace
{

template <int V> struct nothing {
};

template <typename T> struct bias_body {
    static const int WIDE = pt_wide<T>::N, DEPTH = 4;
    const float *b;
    T *y;

    template <int V> struct constants {
        pt_pack<V> b;
    };

    template <int V> struct held {
        pt_pack<V> y;
    };

    template <int V> __device__ void open(int64_t c, constants<V> &k) const
    {
        k.b = pt_read_channels<V>(b + c);
    }

    template <int V> __device__ void load(int64_t i, held<V> &h) const
    {
        h.y = pt_read<V>(y + i);
    }

    template <int V> __device__ void store(int64_t i, const constants<V> &k, held<V> &h) const
    {
#pragma unroll
        for (int v = 0; v < V; v++)
            h.y.at[v] += k.b.at[v];
        pt_write<V>(y + i, h.y);
    }
};

template <typename T> struct bias_back_body {
    static const int WIDE = pt_wide<T>::N, DEPTH = 4, SUMS = 1;
    const T *dy;

    template <int V> using constants = nothing<V>;

    template <int V> struct held {
        pt_pack<V> dy;
    };

    template <int V> __device__ void open(int64_t, nothing<V> &) const
    {
    }

    template <int V> __device__ void load(int64_t i, held<V> &h) const
    {
        h.dy = pt_read<V>(dy + i);
    }

    template <int V>
    __device__ void add(int64_t, const nothing<V> &, const held<V> &h, pt_pack<V> *sums) const
    {
#pragma unroll
        for (int v = 0; v < V; v++)
            sums[0].at[v] += h.dy.at[v];
    }
};

__global__ void __launch_bounds__(PT_ROWS_THREADS)
    bias_finish_kernel(pt_tiling t, const float *partials, float *db, bool accumulate)
{
    const int64_t c = pt_finish_channel();
    const pt_partial value = {partials, 1, 0, t.channels, c};
    const double sum = pt_over_slices(t, c, value);
    if (c < t.channels && threadIdx.x < PT_FINISH_CHANNELS)
        pt_give(&db[c], sum, accumulate);
}

template <typename T>
cudaError_t bias_back(cudaStream_t s, int64_t rows, int64_t channels, const void *dy, float *db,
                      bool accumulate, float *partials)
{
    const bool wide = pt_all_wide<T>(channels, dy);
    const pt_tiling t = pt_tiling_for(rows, channels, wide ? pt_wide<T>::N : 1, PT_SUM_BLOCKS);
    const bias_back_body<T> body = {(const T *)dy};
    const cudaError_t error = pt_sums(s, t, wide, body, partials);
    if (error != cudaSuccess)
        return error;
    return pt_finish(bias_finish_kernel, channels, s, t, partials, db, accumulate);
}

} // namespace

#endif
