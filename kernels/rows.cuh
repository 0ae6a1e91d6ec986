/* How blocks share (rows, channels) among themselves.
 *
 * A block is `lanes` packs of V channels wide and `lines` rows high, 256 threads in all. Tiles of
 * lanes·V channels lie side by side; the rows are dealt out to slices, `lines` rows at a time, and
 * block number slice·tiles + tile does one slice of one tile. All of it follows from the shape (and
 * V), never from the device, so that sums have the same order everywhere. */
#ifndef PIPETRAIN_KERNELS_ROWS_CUH
#define PIPETRAIN_KERNELS_ROWS_CUH

#include "kernels/pack.cuh"

namespace
{

enum { PT_ROWS_THREADS = 256, PT_ROWS_DEPTH = 4, PT_ROWS_LANES = 32 };
/* Enough for the largest devices, and partial sums stay small beside what is summed. */
enum { PT_SUM_BLOCKS = 1024, PT_APPLY_BLOCKS = 2048 };

struct pt_tiling {
    int64_t rows, channels;
    int64_t tiles, slices;
    int64_t lanes, lines; /* of threads in a block */
};

inline int64_t pt_smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* With the number of slices given. */
inline pt_tiling pt_tiling_of(int64_t rows, int64_t channels, int V, int64_t slices)
{
    const int64_t packs = pt_quotient_up(channels, V);
    pt_tiling t = {rows, channels, 0, slices, 1, 0};
    while (t.lanes < packs && t.lanes < PT_ROWS_LANES)
        t.lanes *= 2;
    t.lines = PT_ROWS_THREADS / t.lanes;
    t.tiles = pt_quotient_up(packs, t.lanes);
    return t;
}

/* With as many slices as give each thread two rounds, and about `blocks` blocks at most. */
inline pt_tiling pt_tiling_for(int64_t rows, int64_t channels, int V, int64_t blocks)
{
    pt_tiling t = pt_tiling_of(rows, channels, V, 0);
    const int64_t most = t.tiles > 0 && t.tiles < blocks ? blocks / t.tiles : 1;
    t.slices = pt_smaller(pt_quotient_up(rows, 2 * PT_ROWS_DEPTH * t.lines), most);
    return t;
}

/* Rows of one slice. */
__device__ inline int64_t pt_slice_rows(const pt_tiling &t, int64_t slice)
{
    const int64_t round = t.slices * t.lines;
    const int64_t left = t.rows % round - slice * t.lines;
    return t.rows / round * t.lines + (left < 0 ? 0 : left > t.lines ? t.lines : left);
}

/* A thread's place. */
struct pt_tile {
    int64_t slice, line, c;
    bool in; /* is there such a channel? */
};

template <int V> __device__ inline pt_tile pt_tile_of(const pt_tiling &t)
{
    int64_t tile;
    pt_tile at;
    at.slice = pt_split(blockIdx.x, t.tiles, &tile);
    at.line = threadIdx.x / (uint32_t)t.lanes;
    at.c = (tile * t.lanes + threadIdx.x % (uint32_t)t.lanes) * V;
    at.in = at.c < t.channels;
    return at;
}

struct pt_join_added {
    template <int K> __device__ void operator()(float (&a)[K], const float (&b)[K]) const
    {
#pragma unroll
        for (int k = 0; k < K; k++)
            a[k] += b[k];
    }
};

/* Joins what the lines of a block hold, K numbers a channel, halves to halves; line 0 gets it.
 * Needs K·V floats of shared memory a thread. All threads of the block take part. */
template <int K, int V, typename Join>
__device__ inline void pt_fold_lines(const pt_tiling &t, const pt_tile &at, pt_pack<V> (&mine)[K],
                                     Join join)
{
    float *shared = pt_shared<float>() + threadIdx.x;
#pragma unroll
    for (int i = 0; i < K * V; i++)
        shared[i * PT_ROWS_THREADS] = mine[i / V].at[i % V];
    __syncthreads();
    for (int64_t half = t.lines / 2; half > 0; half /= 2) {
        const int other = (int)(half * t.lanes);
#pragma unroll
        for (int v = 0; v < V; v++) {
            if (at.line >= half)
                continue;
            float a[K], b[K];
#pragma unroll
            for (int k = 0; k < K; k++) {
                a[k] = shared[(k * V + v) * PT_ROWS_THREADS];
                b[k] = shared[(k * V + v) * PT_ROWS_THREADS + other];
            }
            join(a, b);
#pragma unroll
            for (int k = 0; k < K; k++)
                shared[(k * V + v) * PT_ROWS_THREADS] = a[k];
        }
        __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < K * V; i++)
        mine[i / V].at[i % V] = shared[i * PT_ROWS_THREADS];
}

template <int K, int V>
__device__ inline void pt_fold_lines(const pt_tiling &t, const pt_tile &at, pt_pack<V> (&mine)[K])
{
    pt_fold_lines<K, V>(t, at, mine, pt_join_added());
}

/* K: what pt_fold_lines takes, 0 where it is not called. */
template <int V, typename... P>
cudaError_t pt_rows_start(void (*kernel)(P...), const pt_tiling &t, int K, cudaStream_t s,
                          typename pt_same<P>::type... args)
{
    dim3 grid;
    if (t.tiles * t.slices == 0)
        return cudaSuccess;
    const cudaError_t error = pt_grid(t.tiles * t.slices, &grid);
    if (error != cudaSuccess)
        return error;
    return pt_start(kernel, grid, PT_ROWS_THREADS,
                    (size_t)(K * V * PT_ROWS_THREADS) * sizeof(float), s, args...);
}

} // namespace

#endif
