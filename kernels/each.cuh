/* Kernels that do the same to every element of flat arrays.
 *
 * A body says what: load(i, held) reads V elements at i into `held`, store(i, held) computes and
 * writes; an output may be an input. Body::WIDE elements are an access of 16 bytes. A thread makes
 * all its loads before its first store, and asks no questions between them: behind a branch a load
 * is converted at once, and so waited for. */
#ifndef PIPETRAIN_KERNELS_EACH_CUH
#define PIPETRAIN_KERNELS_EACH_CUH

#include "kernels/pack.cuh"

namespace
{

enum { PT_EACH_THREADS = 256 };

template <int V, typename Body>
__global__ void __launch_bounds__(PT_EACH_THREADS)
    pt_each_kernel(const __grid_constant__ Body body, int64_t n)
{
    const int64_t packs = n / V, rest = packs * V + threadIdx.x;
    const int64_t first = (int64_t)blockIdx.x * (PT_EACH_THREADS * Body::DEPTH) + threadIdx.x;
    typename Body::template held<V> held[Body::DEPTH];
    if (first + (Body::DEPTH - 1) * PT_EACH_THREADS < packs) {
#pragma unroll
        for (int u = 0; u < Body::DEPTH; u++)
            body.template load<V>((first + u * PT_EACH_THREADS) * V, held[u]);
#pragma unroll
        for (int u = 0; u < Body::DEPTH; u++)
            body.template store<V>((first + u * PT_EACH_THREADS) * V, held[u]);
    } else { /* the last block */
#pragma unroll 1
        for (int64_t pack = first; pack < packs; pack += PT_EACH_THREADS) {
            body.template load<V>(pack * V, held[0]);
            body.template store<V>(pack * V, held[0]);
        }
    }
    if (V > 1 && blockIdx.x == 0 && rest < n) { /* fewer than V elements */
        typename Body::template held<1> one;
        body.template load<1>(rest, one);
        body.template store<1>(rest, one);
    }
}

/* wide: all addresses are multiples of 16 bytes. */
template <typename Body> cudaError_t pt_each(cudaStream_t s, int64_t n, bool wide, Body body)
{
    dim3 grid;
    if (n <= 0)
        return n < 0 ? cudaErrorInvalidValue : cudaSuccess;
    const int64_t packs = wide ? n / Body::WIDE : n;
    const int64_t blocks = pt_quotient_up(packs > 0 ? packs : 1, PT_EACH_THREADS * Body::DEPTH);
    const cudaError_t error = pt_grid(blocks, &grid);
    if (error != cudaSuccess)
        return error;
    if (wide)
        return pt_start(pt_each_kernel<Body::WIDE, Body>, grid, PT_EACH_THREADS, 0, s, body, n);
    return pt_start(pt_each_kernel<1, Body>, grid, PT_EACH_THREADS, 0, s, body, n);
}

} // namespace

#endif
