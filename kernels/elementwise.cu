/* Ops that look at one element at a time: relu, gelu, sums, dropout. */
#include "kernels/dropout.cuh"
#include "kernels/each.cuh"

namespace
{

/* ---- one input: y = f(x) ----------------------------------------------------------------------
 */

struct relu {
    __device__ float operator()(float x) const
    {
        return pt_element_relu(x);
    }
};

struct gelu {
    __device__ float operator()(float x) const
    {
        return pt_element_gelu_fp32(x);
    }
};

template <typename T, typename F> struct map_body {
    static const int WIDE = pt_wide<T>::N, DEPTH = 4;
    const T *x;
    T *y;

    template <int V> struct held {
        pt_pack<V> x;
    };

    template <int V> __device__ void load(int64_t i, held<V> &h) const
    {
        h.x = pt_read<V>(x + i);
    }

    template <int V> __device__ void store(int64_t i, held<V> &h) const
    {
#pragma unroll
        for (int v = 0; v < V; v++)
            h.x.at[v] = F()(h.x.at[v]);
        pt_write<V>(y + i, h.x);
    }
};

template <typename T, typename F> cudaError_t map(cudaStream_t s, int64_t n, const void *x, void *y)
{
    const map_body<T, F> body = {(const T *)x, (T *)y};
    return pt_each(s, n, pt_aligned(x) && pt_aligned(y), body);
}

/* ---- two inputs: dx = f(what the forward kept, dy) --------------------------------------------
 */

struct relu_back {
    __device__ float operator()(float y, float dy) const
    {
        return pt_element_relu_back(y, dy);
    }
};

struct gelu_back {
    __device__ float operator()(float x, float dy) const
    {
        return dy * pt_element_gelu_slope_fp32(x);
    }
};

template <typename T, typename F> struct back_body {
    static const int WIDE = pt_wide<T>::N, DEPTH = 4;
    const T *kept, *dy;
    T *dx;

    template <int V> struct held {
        pt_pack<V> kept, dy;
    };

    template <int V> __device__ void load(int64_t i, held<V> &h) const
    {
        h.kept = pt_read<V>(kept + i);
        h.dy = pt_read<V>(dy + i);
    }

    template <int V> __device__ void store(int64_t i, held<V> &h) const
    {
#pragma unroll
        for (int v = 0; v < V; v++)
            h.dy.at[v] = F()(h.kept.at[v], h.dy.at[v]);
        pt_write<V>(dx + i, h.dy);
    }
};

template <typename T, typename F>
cudaError_t back(cudaStream_t s, int64_t n, const void *kept, const void *dy, void *dx)
{
    const back_body<T, F> body = {(const T *)kept, (const T *)dy, (T *)dx};
    return pt_each(s, n, pt_aligned(kept) && pt_aligned(dy) && pt_aligned(dx), body);
}

/* ---- many inputs ------------------------------------------------------------------------------
 */

/* N inputs, or as many as `n` says where N is 0. */
template <typename T, int N> struct sum_body {
    static const int WIDE = pt_wide<T>::N, DEPTH = N == 2 ? 4 : 2;
    int n;
    const T *x[PT_MAX_INPUTS];
    T *y;

    template <int V> struct held {
        pt_pack<V> sum;
    };

    template <int V> __device__ void load(int64_t i, held<V> &h) const
    {
        h.sum = pt_read<V>(x[0] + i);
#pragma unroll
        for (int j = 1; j < (N > 0 ? N : n); j++) {
            const pt_pack<V> next = pt_read<V>(x[j] + i);
#pragma unroll
            for (int v = 0; v < V; v++)
                h.sum.at[v] += next.at[v];
        }
    }

    template <int V> __device__ void store(int64_t i, held<V> &h) const
    {
        pt_write<V>(y + i, h.sum);
    }
};

template <typename T, int N>
cudaError_t sum(cudaStream_t s, int64_t n, int n_inputs, const void *const x[], void *y)
{
    sum_body<T, N> body = {n_inputs, {NULL}, (T *)y};
    bool wide = pt_aligned(y);
    for (int j = 0; j < n_inputs; j++) {
        body.x[j] = (const T *)x[j];
        wide = wide && pt_aligned(x[j]);
    }
    return pt_each(s, n, wide, body);
}

template <typename T>
cudaError_t sum_any(cudaStream_t s, int64_t n, int n_inputs, const void *const x[], void *y)
{
    return n_inputs == 2 ? sum<T, 2>(s, n, n_inputs, x, y) : sum<T, 0>(s, n, n_inputs, x, y);
}

} // namespace

cudaError_t pt_cu_relu(cudaStream_t s, pt_cu_type type, int64_t n, const void *x, void *y)
{
    return type == PT_CU_BF16 ? map<pt_bf16, relu>(s, n, x, y) : map<float, relu>(s, n, x, y);
}

cudaError_t pt_cu_relu_back(cudaStream_t s, pt_cu_type type, int64_t n, const void *y,
                            const void *dy, void *dx)
{
    return type == PT_CU_BF16 ? back<pt_bf16, relu_back>(s, n, y, dy, dx)
                              : back<float, relu_back>(s, n, y, dy, dx);
}

cudaError_t pt_cu_gelu(cudaStream_t s, pt_cu_type type, int64_t n, const void *x, void *y)
{
    return type == PT_CU_BF16 ? map<pt_bf16, gelu>(s, n, x, y) : map<float, gelu>(s, n, x, y);
}

cudaError_t pt_cu_gelu_back(cudaStream_t s, pt_cu_type type, int64_t n, const void *x,
                            const void *dy, void *dx)
{
    return type == PT_CU_BF16 ? back<pt_bf16, gelu_back>(s, n, x, dy, dx)
                              : back<float, gelu_back>(s, n, x, dy, dx);
}

cudaError_t pt_cu_sum(cudaStream_t s, pt_cu_type type, int64_t n, int n_inputs,
                      const void *const x[], void *y)
{
    if (n_inputs < 1 || n_inputs > PT_MAX_INPUTS)
        return cudaErrorInvalidValue;
    return type == PT_CU_BF16 ? sum_any<pt_bf16>(s, n, n_inputs, x, y)
                              : sum_any<float>(s, n, n_inputs, x, y);
}

cudaError_t pt_cu_dropout(cudaStream_t s, pt_cu_type type, const pt_cu_dropout_spec *spec,
                          const void *x, void *y)
{
    if (spec->samples < 0 || spec->area < 0 || spec->channels < 0 || !(spec->p >= 0 && spec->p < 1))
        return cudaErrorInvalidValue;
    if (spec->samples == 0 || spec->area == 0 || spec->channels == 0)
        return cudaSuccess;
    return type == PT_CU_BF16 ? dropout(s, spec, (const pt_bf16 *)x, (pt_bf16 *)y)
                              : dropout(s, spec, (const float *)x, (float *)y);
}
