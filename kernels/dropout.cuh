/* Dropout on NHWC, with the mask of op.h, whose elements are counted in CHW order.
 *
 * Numbers come in blocks of four for elements 4g … 4g+3 in CHW order. A thread makes one block and
 * serves the elements of it that lie in its channel; neighbouring threads have neighbouring
 * channels. In a vector, where a channel is one element, a thread serves all four instead. */
#ifndef PIPETRAIN_KERNELS_DROPOUT_CUH
#define PIPETRAIN_KERNELS_DROPOUT_CUH

#include <math.h>

#include "kernels/pack.cuh"
#include "kernels/philox.h"
#include "pipetrain/rng.h"

namespace
{

enum { DROP_THREADS = 256, DROP_DEPTH = 4, DROP_BLOCK = 4 };

struct drop_rule {
    uint64_t seed, layer_epoch, threshold;
    float scale;
    const uint32_t *sample;
    int64_t area, channels, blocks; /* blocks: of threads, for each sample */
    int64_t jobs;                   /* of threads, in a sample */
};

/* The sample's stream, made once for a block of threads. */
__device__ inline pt_element_stream drop_stream(const drop_rule &rule, int64_t sample)
{
    pt_element_stream *shared = pt_shared<pt_element_stream>();
    if (threadIdx.x == 0)
        *shared =
            pt_element_stream_of(rule.seed, PT_RNG_DROPOUT, rule.layer_epoch, rule.sample[sample]);
    __syncthreads();
    return *shared;
}

template <typename T>
__global__ void __launch_bounds__(DROP_THREADS) drop_image_kernel(drop_rule rule, const T *x, T *y)
{
    int64_t part;
    const int64_t sample = pt_split(blockIdx.x, rule.blocks, &part);
    const pt_element_stream stream = drop_stream(rule, sample);
    const int64_t first = sample * rule.area * rule.channels;
    for (int u = 0; u < DROP_DEPTH; u++) {
        const int64_t job = (part * DROP_DEPTH + u) * DROP_THREADS + threadIdx.x;
        if (job >= rule.jobs)
            return;
        int64_t c;
        const int64_t nth = pt_split(job, rule.channels, &c); /* block of this channel */
        const int64_t begin = c * rule.area, end = begin + rule.area;
        const int64_t group = begin / DROP_BLOCK + nth;
        const pt_element_block random = pt_element_block_at(&stream, (uint32_t)group);
        T held[DROP_BLOCK];
#pragma unroll
        for (int k = 0; k < DROP_BLOCK; k++) {
            const int64_t e = group * DROP_BLOCK + k;
            if (e >= begin && e < end)
                held[k] = x[first + (e - begin) * rule.channels + c];
        }
#pragma unroll
        for (int k = 0; k < DROP_BLOCK; k++) {
            const int64_t e = group * DROP_BLOCK + k;
            if (e >= begin && e < end)
                y[first + (e - begin) * rule.channels + c] = pt_from_float<T>(pt_element_drop(
                    random.at[k], rule.threshold, rule.scale, pt_to_float(held[k])));
        }
    }
}

/* WIDE: a block of four is one access. */
template <typename T, bool WIDE>
__global__ void __launch_bounds__(DROP_THREADS) drop_vector_kernel(drop_rule rule, const T *x, T *y)
{
    const int V = WIDE ? DROP_BLOCK : 1;
    int64_t part;
    const int64_t sample = pt_split(blockIdx.x, rule.blocks, &part);
    const pt_element_stream stream = drop_stream(rule, sample);
    for (int u = 0; u < DROP_DEPTH; u++) {
        const int64_t group = (part * DROP_DEPTH + u) * DROP_THREADS + threadIdx.x;
        if (group >= rule.jobs)
            return;
        const pt_element_block random = pt_element_block_at(&stream, (uint32_t)group);
#pragma unroll
        for (int k = 0; k < DROP_BLOCK; k += V) {
            const int64_t c = group * DROP_BLOCK + k, i = sample * rule.channels + c;
            if (c >= rule.channels)
                return;
            pt_pack<V> held = pt_read<V>(x + i);
#pragma unroll
            for (int v = 0; v < V; v++)
                held.at[v] = pt_element_drop(random.at[(k + v) % DROP_BLOCK], rule.threshold,
                                             rule.scale, held.at[v]);
            pt_write<V>(y + i, held);
        }
    }
}

/* How many blocks of four a run of `area` elements may touch, wherever it begins. */
int64_t blocks_touched(int64_t area)
{
    return area % DROP_BLOCK == 0 ? area / DROP_BLOCK : (area + 2) / DROP_BLOCK + 1;
}

template <typename T>
cudaError_t dropout(cudaStream_t s, const pt_cu_dropout_spec *spec, const T *x, T *y)
{
    drop_rule rule = {spec->seed,
                      (uint64_t)spec->layer << 32 | spec->epoch,
                      (uint64_t)ceil(spec->p * 4294967296.0),
                      (float)(1 / (1 - spec->p)),
                      spec->sample,
                      spec->area,
                      spec->channels,
                      0,
                      0};
    const bool vector = spec->area == 1;
    rule.jobs = vector ? pt_quotient_up(spec->channels, DROP_BLOCK)
                       : spec->channels * blocks_touched(spec->area);
    rule.blocks = pt_quotient_up(rule.jobs, DROP_THREADS * DROP_DEPTH);
    dim3 grid;
    const cudaError_t error = pt_grid(spec->samples * rule.blocks, &grid);
    if (error != cudaSuccess)
        return error;
    const bool wide = pt_aligned(x) && pt_aligned(y) && spec->channels % DROP_BLOCK == 0;
    const size_t shared = sizeof(pt_element_stream);
    if (!vector)
        return pt_start(drop_image_kernel<T>, grid, DROP_THREADS, shared, s, rule, x, y);
    if (wide)
        return pt_start(drop_vector_kernel<T, true>, grid, DROP_THREADS, shared, s, rule, x, y);
    return pt_start(drop_vector_kernel<T, false>, grid, DROP_THREADS, shared, s, rule, x, y);
}

} // namespace

#endif
