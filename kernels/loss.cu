/* Losses: a block for each sample, in double; a last block adds the samples one after the other, as
 * the CPU backends do. */
#include "kernels/loss.h"

#include "kernels/fold.cuh"

namespace
{

/* What a sample leaves for the last block. */
struct share {
    double loss;
    int64_t correct;
};

template <typename T> struct loss_job {
    int64_t width; /* classes or features */
    double smoothing, scale;
    const T *y;
    const int32_t *label;
    const float *target;
    T *dy;
    share *shares;
};

struct join_tops {
    __device__ pt_top operator()(pt_top a, pt_top b) const
    {
        return pt_element_top(a, b);
    }
};

/* The first largest of a row. A NaN is never larger; one in front is never beaten. */
template <typename T> __device__ inline pt_top first_largest(const T *row, int64_t width)
{
    pt_top mine = {-INFINITY, INT64_MAX};
    for (int64_t c = threadIdx.x; c < width; c += blockDim.x) {
        const float value = pt_to_float(row[c]);
        const pt_top here = {value != value ? -INFINITY : value, c};
        mine = pt_element_top(mine, here);
    }
    const pt_top top = pt_fold_block_by(mine, join_tops());
    const float front = pt_to_float(row[0]);
    const pt_top stuck = {front, 0};
    return front != front ? stuck : top;
}

template <typename T> __global__ void cross_entropy_kernel(loss_job<T> job)
{
    const int64_t n = blockIdx.x;
    const T *row = job.y + n * job.width;
    const pt_top top = first_largest(row, job.width);
    const double max = (double)top.value, classes = (double)job.width;
    double sum = 0, mean = 0;
    for (int64_t c = threadIdx.x; c < job.width; c += blockDim.x) {
        const double above = (double)pt_to_float(row[c]) - max;
        sum += exp(above);
        mean += above / classes;
    }
    sum = pt_fold_block(sum);
    mean = pt_fold_block(mean);
    const int32_t label = job.label[n];
    if (threadIdx.x == 0) {
        const double at_label = (double)pt_to_float(row[label]) - max;
        const share mine = {pt_element_cross_entropy(sum, mean, at_label, job.smoothing),
                            top.at == label};
        job.shares[n] = mine;
    }
    if (!job.dy)
        return;
    __syncthreads(); /* dy may be y */
    for (int64_t c = threadIdx.x; c < job.width; c += blockDim.x) {
        const double above = (double)pt_to_float(row[c]) - max;
        const double slope =
            pt_element_cross_entropy_slope(above, sum, c == label, job.smoothing, classes);
        job.dy[n * job.width + c] = pt_from_float<T>((float)(job.scale * slope));
    }
}

template <typename T> __global__ void square_kernel(loss_job<T> job)
{
    const int64_t n = blockIdx.x, first = n * job.width;
    const double features = (double)job.width;
    double sum = 0;
    for (int64_t f = threadIdx.x; f < job.width; f += blockDim.x) {
        const double difference =
            (double)pt_to_float(job.y[first + f]) - (double)job.target[first + f];
        sum += difference * difference;
        if (job.dy)
            job.dy[first + f] = pt_from_float<T>(
                (float)(job.scale * pt_element_square_slope(difference, features)));
    }
    sum = pt_fold_block(sum);
    if (threadIdx.x == 0) {
        const share mine = {sum / features, 0};
        job.shares[n] = mine;
    }
}

/* All threads fetch, one adds. */
__global__ void __launch_bounds__(PT_FOLD_THREADS)
    loss_finish_kernel(int64_t samples, const share *shares, pt_loss_result *result)
{
    share *some = pt_shared<share>();
    pt_loss_result sum = {0, 0};
    for (int64_t first = 0; first < samples; first += PT_FOLD_THREADS) {
        if (first + threadIdx.x < samples)
            some[threadIdx.x] = shares[first + threadIdx.x];
        __syncthreads();
        for (int64_t n = 0; threadIdx.x == 0 && n < PT_FOLD_THREADS && first + n < samples; n++) {
            sum.loss += some[n].loss;
            sum.correct += some[n].correct;
        }
        __syncthreads();
    }
    if (threadIdx.x == 0)
        *result = sum;
}

enum { FEW_THREADS = 32, FEW = 256 }; /* threads for a row of so many elements at most */

template <typename T>
cudaError_t run(cudaStream_t s, const pt_loss *loss, int64_t samples, loss_job<T> job)
{
    const unsigned threads = job.width <= FEW ? (unsigned)FEW_THREADS : (unsigned)PT_FOLD_THREADS;
    dim3 grid;
    const cudaError_t error = pt_grid(samples, &grid);
    if (error != cudaSuccess)
        return error;
    if (loss->kind == PT_LOSS_MSE)
        return pt_start(square_kernel<T>, grid, threads, threads * sizeof(double), s, job);
    return pt_start(cross_entropy_kernel<T>, grid, threads, threads * sizeof(pt_top), s, job);
}

int64_t width_of(const pt_loss *loss)
{
    int64_t width = 1;
    for (int d = 0; d < loss->shape.ndim; d++)
        width *= loss->shape.dims[d];
    return width;
}

} // namespace

size_t pt_cu_loss_bytes(int64_t samples)
{
    return (size_t)samples * sizeof(share);
}

cudaError_t pt_cu_loss(cudaStream_t s, pt_cu_type type, const pt_loss *loss, int64_t samples,
                       const void *y, const int32_t *label, const float *target, float scale,
                       void *dy, pt_loss_result *result, void *partials)
{
    const int64_t width = width_of(loss);
    const double factor = (double)scale;
    share *shares = (share *)partials;
    cudaError_t error = cudaSuccess;
    if (samples < 0 || width < 1)
        return cudaErrorInvalidValue;
    if (samples > 0 && type == PT_CU_BF16)
        error = run<pt_bf16>(s, loss, samples,
                             {width, loss->smoothing, factor, (const pt_bf16 *)y, label, target,
                              (pt_bf16 *)dy, shares});
    else if (samples > 0)
        error = run<float>(
            s, loss, samples,
            {width, loss->smoothing, factor, (const float *)y, label, target, (float *)dy, shares});
    if (error != cudaSuccess)
        return error;
    return pt_start(loss_finish_kernel, dim3(1), PT_FOLD_THREADS, PT_FOLD_THREADS * sizeof(share),
                    s, samples, shares, result);
}
