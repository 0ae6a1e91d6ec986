/* Kernels whose answer, or whose fault, is known: what the emulation must see. */
#include "known.h"

#include "kernels/pack.cuh"

namespace
{

/* Every thread adds what its neighbour wrote before the barrier. */
__global__ void neighbour_kernel(int *out)
{
    int *shared = pt_shared<int>();
    const int i = (int)threadIdx.x, n = (int)blockDim.x, first = (int)blockIdx.x * n;
    for (int round = 0; round < 3; round++) {
        shared[i] = i + round;
        __syncthreads();
        out[first + i] += shared[(i + 1) % n];
        __syncthreads();
    }
}

__global__ void shuffle_kernel(int *out)
{
    const int lane = (int)threadIdx.x % 32;
    int sum = (int)threadIdx.x;
    if (threadIdx.x >= 64) /* whole warps stay away */
        return;
    for (int bits = 16; bits > 0; bits /= 2)
        sum += __shfl_xor_sync(0xffffffffu, sum, bits);
    const int down = __shfl_down_sync(0xffffffffu, lane, 3u, 8);
    const int from = __shfl_sync(0xffffffffu, lane, 5);
    __syncwarp();
    out[threadIdx.x] = 10000 * sum + 100 * down + from;
}

__global__ void parting_kernel(int *out)
{
    if (threadIdx.x == 3)
        return;
    __syncthreads();
    out[threadIdx.x] = 1;
}

__global__ void warp_parting_kernel(int *out)
{
    if (threadIdx.x % 2 == 0)
        out[threadIdx.x] = __shfl_xor_sync(0xffffffffu, 1, 1);
}

__global__ void unset_kernel(float *out)
{
    out[threadIdx.x] = pt_shared<float>()[threadIdx.x];
}

__global__ void odd_address_kernel(float *out)
{
    pt_write<4>(out + 1, pt_read<4>(out + 4));
}

} // namespace

cudaError_t pt_known_neighbour(cudaStream_t s, unsigned blocks, unsigned threads, int *out)
{
    return pt_start(neighbour_kernel, dim3(blocks), threads, threads * sizeof(int), s, out);
}

cudaError_t pt_known_shuffle(cudaStream_t s, int *out)
{
    return pt_start(shuffle_kernel, dim3(1), 96, 0, s, out);
}

cudaError_t pt_known_parting(cudaStream_t s, int *out)
{
    return pt_start(parting_kernel, dim3(1), 64, 0, s, out);
}

cudaError_t pt_known_warp_parting(cudaStream_t s, int *out)
{
    return pt_start(warp_parting_kernel, dim3(1), 32, 0, s, out);
}

cudaError_t pt_known_unset(cudaStream_t s, float *out)
{
    return pt_start(unset_kernel, dim3(1), 4, 4 * sizeof(float), s, out);
}

cudaError_t pt_known_odd_address(cudaStream_t s, float *out)
{
    return pt_start(odd_address_kernel, dim3(1), 1, 0, s, out);
}

cudaError_t pt_known_too_large(cudaStream_t s, int *out)
{
    return pt_start(parting_kernel, dim3(1), 2048, 0, s, out);
}
