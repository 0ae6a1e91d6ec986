/* Rules for late gradients, on flat fp32 buffers. The bits of the CPU backends: see flat.cu. */
#include "kernels/each.cuh"

namespace
{

struct mean_squares_body {
    static const int WIDE = 4, DEPTH = 4; /* of two inputs */
    float keep, rest;
    const float *x;
    float *average;

    template <int V> struct held {
        pt_pack<V> x, average;
    };

    template <int V> __device__ void load(int64_t i, held<V> &h) const
    {
        h.x = pt_read<V>(x + i);
        h.average = pt_read<V>(average + i);
    }

    template <int V> __device__ void store(int64_t i, held<V> &h) const
    {
#pragma unroll
        for (int k = 0; k < V; k++)
            h.average.at[k] = pt_element_mean_square(keep, rest, h.x.at[k], h.average.at[k]);
        pt_write<V>(average + i, h.average);
    }
};

template <bool ACCUMULATES> struct gap_body {
    static const int WIDE = 4, DEPTH = 1; /* of five inputs, or four */
    pt_gap rule;
    const float *forward, *theta, *average, *own;
    float *gradient;

    template <int V> struct held {
        pt_pack<V> forward, theta, average, own, gradient;
    };

    template <int V> __device__ void load(int64_t i, held<V> &h) const
    {
        h.forward = pt_read<V>(forward + i);
        h.theta = pt_read<V>(theta + i);
        h.average = pt_read<V>(average + i);
        h.own = pt_read<V>(own + i);
        if (ACCUMULATES)
            h.gradient = pt_read<V>(gradient + i);
    }

    template <int V> __device__ void store(int64_t i, const held<V> &h) const
    {
        pt_pack<V> out;
#pragma unroll
        for (int k = 0; k < V; k++) {
            const float own_ = pt_element_gap(rule.top, rule.unbias, rule.least, h.forward.at[k],
                                              h.theta.at[k], h.average.at[k], h.own.at[k]);
            out.at[k] = ACCUMULATES ? h.gradient.at[k] + own_ : own_;
        }
        pt_write<V>(gradient + i, out);
    }
};

template <bool ACCUMULATES>
cudaError_t gap(cudaStream_t s, int64_t n, const pt_gap *rule, const float *forward,
                const float *theta, const float *average, const float *own, float *gradient)
{
    const gap_body<ACCUMULATES> body = {*rule, forward, theta, average, own, gradient};
    const bool wide = pt_aligned(forward) && pt_aligned(theta) && pt_aligned(average) &&
                      pt_aligned(own) && pt_aligned(gradient);
    return pt_each(s, n, wide, body);
}

struct look_back_body {
    static const int WIDE = 4, DEPTH = 2; /* of three inputs */
    pt_look_back rule;
    const float *theta;
    float *drift, *back;

    template <int V> struct held {
        pt_pack<V> theta, drift, back;
    };

    template <int V> __device__ void load(int64_t i, held<V> &h) const
    {
        h.theta = pt_read<V>(theta + i);
        h.drift = pt_read<V>(drift + i);
        h.back = pt_read<V>(back + i);
    }

    template <int V> __device__ void store(int64_t i, held<V> &h) const
    {
#pragma unroll
        for (int k = 0; k < V; k++)
            h.back.at[k] = pt_element_look_back(rule.keep, rule.rest, rule.delay, h.theta.at[k],
                                                h.back.at[k], &h.drift.at[k]);
        pt_write<V>(drift + i, h.drift);
        pt_write<V>(back + i, h.back);
    }
};

} // namespace

cudaError_t pt_cu_mean_squares(cudaStream_t s, size_t n, float keep, float rest, const float *x,
                               float *average)
{
    const mean_squares_body body = {keep, rest, x, average};
    return pt_each(s, (int64_t)n, pt_aligned(x) && pt_aligned(average), body);
}

cudaError_t pt_cu_gap(cudaStream_t s, size_t n, const pt_gap *rule, const float *forward,
                      const float *theta, const float *average, const float *own, float *gradient)
{
    return (rule->accumulate ? gap<true> : gap<false>)(s, (int64_t)n, rule, forward, theta, average,
                                                       own, gradient);
}

cudaError_t pt_cu_look_back(cudaStream_t s, size_t n, const pt_look_back *rule, const float *theta,
                            float *drift, float *back)
{
    const look_back_body body = {*rule, theta, drift, back};
    return pt_each(s, (int64_t)n, pt_aligned(theta) && pt_aligned(drift) && pt_aligned(back), body);
}
