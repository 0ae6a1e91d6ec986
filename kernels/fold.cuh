/* Adding up what the threads of one block hold, in an order that is always the same: halves are
 * added to halves. Needs one T of shared memory a thread. */
#ifndef PIPETRAIN_KERNELS_FOLD_CUH
#define PIPETRAIN_KERNELS_FOLD_CUH

#include "kernels/pack.cuh"

namespace
{

enum { PT_FOLD_THREADS = 256 };

/* join(a, b) for what all threads hold; every thread gets the result. The number of threads is a
 * power of two. */
template <typename T, typename Join> __device__ inline T pt_fold_block_by(T mine, Join join)
{
    T *all = pt_shared<T>();
    __syncthreads(); /* the last fold's readers have gone */
    all[threadIdx.x] = mine;
    __syncthreads();
    for (unsigned half = blockDim.x / 2; half > 0; half /= 2) {
        if (threadIdx.x < half)
            all[threadIdx.x] = join(all[threadIdx.x], all[threadIdx.x + half]);
        __syncthreads();
    }
    return all[0];
}

struct pt_join_sums {
    __device__ double operator()(double a, double b) const
    {
        return a + b;
    }
};

__device__ inline double pt_fold_block(double mine)
{
    return pt_fold_block_by(mine, pt_join_sums());
}

} // namespace

#endif
