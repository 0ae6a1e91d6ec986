/* Transposes, conversions between types, and copies of channels. */
#include "kernels/each.cuh"

namespace
{

enum { THREADS = 256 };

/* ---- transpose: where both sides are long, a tile at a time through shared memory -------------
 *
 * A tile of 64 × 64 is read row by row and written column by column, both in runs of neighbours;
 * a row of it takes 65 places, so that the threads of a warp meet no bank twice. A thread has read
 * all it needs of one array before it touches the other, so that its reads are under way together.
 */

enum { TILE = 64, TILE_ROWS = THREADS / TILE, TILE_LINE = TILE + 1, TILE_DEPTH = TILE / TILE_ROWS };

/* As many tiles as cover one matrix, and the matrices one after the other. */
struct tiles {
    int64_t rows, columns, down, across;
};

template <typename From, typename To, bool ACCUMULATE>
__global__ void __launch_bounds__(THREADS) tile_kernel(tiles t, const From *src, To *dst)
{
    float *tile = pt_shared<float>();
    int64_t across, down;
    const int64_t matrix = pt_split(pt_split(blockIdx.x, t.across, &across), t.down, &down);
    const int lane = (int)threadIdx.x % TILE, line = (int)threadIdx.x / TILE;
    const int64_t first = matrix * t.rows * t.columns;
    const int64_t row0 = down * TILE, column0 = across * TILE;
    float x[TILE_DEPTH];
#pragma unroll
    for (int u = 0; u < TILE_DEPTH; u++) {
        const int64_t row = row0 + line + u * TILE_ROWS, column = column0 + lane;
        x[u] = row < t.rows && column < t.columns
                   ? pt_to_float(src[first + row * t.columns + column])
                   : 0.0f;
    }
#pragma unroll
    for (int u = 0; u < TILE_DEPTH; u++)
        tile[(line + u * TILE_ROWS) * TILE_LINE + lane] = x[u];
    __syncthreads();
#pragma unroll
    for (int u = 0; ACCUMULATE && u < TILE_DEPTH; u++) {
        const int64_t row = row0 + lane, column = column0 + line + u * TILE_ROWS;
        x[u] = row < t.rows && column < t.columns ? pt_to_float(dst[first + column * t.rows + row])
                                                  : 0.0f;
    }
#pragma unroll
    for (int u = 0; u < TILE_DEPTH; u++) {
        const int64_t row = row0 + lane, column = column0 + line + u * TILE_ROWS;
        const float value = tile[lane * TILE_LINE + line + u * TILE_ROWS];
        if (row < t.rows && column < t.columns)
            dst[first + column * t.rows + row] =
                pt_from_float<To>(ACCUMULATE ? x[u] + value : value);
    }
}

template <typename From, typename To, bool ACCUMULATE>
cudaError_t transpose_tiles(cudaStream_t s, int64_t n, int64_t rows, int64_t columns,
                            const From *src, To *dst)
{
    const tiles t = {rows, columns, pt_quotient_up(rows, TILE), pt_quotient_up(columns, TILE)};
    dim3 grid;
    const cudaError_t error = pt_grid(n * t.down * t.across, &grid);
    if (error != cudaSuccess)
        return error;
    return pt_start(tile_kernel<From, To, ACCUMULATE>, grid, THREADS,
                    TILE * TILE_LINE * sizeof(float), s, t, src, dst);
}

/* ---- transpose: where one side is short (pixels of few channels, the taps of a convolution) ----
 *
 * Element e of the array in which the short side is innermost is element (e % narrow)·long + e /
 * narrow of the other. Neighbouring threads touch neighbours in the one, and `narrow` runs of
 * neighbours in the other. */

enum { NARROW = 16, STRIP_DEPTH = 4, STRIP = THREADS * STRIP_DEPTH };

struct strips {
    int64_t narrow, length, per_matrix; /* of elements, of elements, of strips */
};

template <typename From, typename To, bool ACCUMULATE, bool FROM_NARROW>
__global__ void __launch_bounds__(THREADS) strip_kernel(strips t, const From *src, To *dst)
{
    int64_t strip, to[STRIP_DEPTH];
    const int64_t matrix = pt_split(blockIdx.x, t.per_matrix, &strip);
    const int64_t elements = t.narrow * t.length, first = matrix * elements;
    From x[STRIP_DEPTH];
    To old[STRIP_DEPTH];
#pragma unroll
    for (int u = 0; u < STRIP_DEPTH; u++) {
        const int64_t e = strip * STRIP + u * THREADS + threadIdx.x;
        int64_t place;
        to[u] = -1;
        if (e >= elements)
            continue;
        const int64_t along = pt_split(e, t.narrow, &place);
        const int64_t other = place * t.length + along;
        x[u] = src[first + (FROM_NARROW ? e : other)];
        to[u] = first + (FROM_NARROW ? other : e);
        if (ACCUMULATE)
            old[u] = dst[to[u]];
    }
#pragma unroll
    for (int u = 0; u < STRIP_DEPTH; u++)
        if (to[u] >= 0)
            dst[to[u]] = pt_from_float<To>(ACCUMULATE ? pt_to_float(old[u]) + pt_to_float(x[u])
                                                      : pt_to_float(x[u]));
}

template <typename From, typename To, bool ACCUMULATE>
cudaError_t transpose_strips(cudaStream_t s, int64_t n, int64_t rows, int64_t columns,
                             const From *src, To *dst)
{
    const bool from_narrow = columns < rows;
    const strips t = {from_narrow ? columns : rows, from_narrow ? rows : columns,
                      pt_quotient_up(rows * columns, STRIP)};
    dim3 grid;
    const cudaError_t error = pt_grid(n * t.per_matrix, &grid);
    if (error != cudaSuccess)
        return error;
    if (from_narrow)
        return pt_start(strip_kernel<From, To, ACCUMULATE, true>, grid, THREADS, 0, s, t, src, dst);
    return pt_start(strip_kernel<From, To, ACCUMULATE, false>, grid, THREADS, 0, s, t, src, dst);
}

/* ---- convert ----------------------------------------------------------------------------------
 */

template <typename From, typename To, bool ACCUMULATE> struct convert_body {
    static const int WIDE = pt_wide<From>::N > pt_wide<To>::N ? pt_wide<From>::N : pt_wide<To>::N;
    static const int DEPTH = 4;
    const From *src;
    To *dst;

    template <int V> struct held {
        pt_pack<V> x, old;
    };

    template <int V> __device__ void load(int64_t i, held<V> &h) const
    {
        h.x = pt_read<V>(src + i);
        if (ACCUMULATE)
            h.old = pt_read<V>(dst + i);
    }

    template <int V> __device__ void store(int64_t i, held<V> &h) const
    {
#pragma unroll
        for (int v = 0; ACCUMULATE && v < V; v++)
            h.x.at[v] = h.old.at[v] + h.x.at[v];
        pt_write<V>(dst + i, h.x);
    }
};

template <typename From, typename To, bool ACCUMULATE>
cudaError_t convert(cudaStream_t s, int64_t n, const From *src, To *dst)
{
    const convert_body<From, To, ACCUMULATE> body = {src, dst};
    return pt_each(s, n, pt_aligned(src) && pt_aligned(dst), body);
}

/* Matrices of one row or one column stay as they are. */
template <typename From, typename To, bool ACCUMULATE>
cudaError_t transpose(cudaStream_t s, int64_t n, int64_t rows, int64_t columns, const void *src,
                      void *dst)
{
    const From *from = (const From *)src;
    To *to = (To *)dst;
    if (rows == 1 || columns == 1)
        return convert<From, To, ACCUMULATE>(s, n * rows * columns, from, to);
    if (rows <= NARROW || columns <= NARROW)
        return transpose_strips<From, To, ACCUMULATE>(s, n, rows, columns, from, to);
    return transpose_tiles<From, To, ACCUMULATE>(s, n, rows, columns, from, to);
}

/* [from][to][accumulate] */
typedef cudaError_t (*transpose_call)(cudaStream_t, int64_t, int64_t, int64_t, const void *,
                                      void *);
const transpose_call transposes[2][2][2] = {
    {{transpose<float, float, false>, transpose<float, float, true>},
     {transpose<float, pt_bf16, false>, transpose<float, pt_bf16, true>}},
    {{transpose<pt_bf16, float, false>, transpose<pt_bf16, float, true>},
     {transpose<pt_bf16, pt_bf16, false>, transpose<pt_bf16, pt_bf16, true>}},
};

/* ---- channels: bits are moved in the longest units that fit both sides ------------------------
 */

enum { COPY_DEPTH = 4 };

/* All in units. */
struct copy_places {
    int64_t units, channels, src_channels, dst_channels;
};

template <typename Unit>
__global__ void __launch_bounds__(THREADS) copy_kernel(copy_places p, const Unit *src, Unit *dst)
{
    const int64_t first = (int64_t)blockIdx.x * (THREADS * COPY_DEPTH) + threadIdx.x;
    Unit held[COPY_DEPTH];
    int64_t to[COPY_DEPTH];
#pragma unroll
    for (int u = 0; u < COPY_DEPTH; u++) {
        int64_t j;
        to[u] = -1;
        if (first + u * THREADS >= p.units)
            continue;
        const int64_t row = pt_split(first + u * THREADS, p.channels, &j);
        held[u] = src[row * p.src_channels + j];
        to[u] = row * p.dst_channels + j;
    }
#pragma unroll
    for (int u = 0; u < COPY_DEPTH; u++)
        if (to[u] >= 0)
            dst[to[u]] = held[u];
}

template <typename Unit>
cudaError_t copy_units(cudaStream_t s, int64_t rows, int64_t channels, const char *src,
                       int64_t src_channels, char *dst, int64_t dst_channels)
{
    const int64_t size = (int64_t)sizeof(Unit);
    const copy_places p = {rows * (channels / size), channels / size, src_channels / size,
                           dst_channels / size};
    dim3 grid;
    const cudaError_t error = pt_grid(pt_quotient_up(p.units, THREADS * COPY_DEPTH), &grid);
    if (error != cudaSuccess)
        return error;
    return pt_start(copy_kernel<Unit>, grid, THREADS, 0, s, p, (const Unit *)src, (Unit *)dst);
}

} // namespace

cudaError_t pt_cu_transpose(cudaStream_t s, int64_t n, int64_t rows, int64_t columns,
                            pt_cu_type from, const void *src, pt_cu_type to, void *dst,
                            bool accumulate)
{
    if (n < 0 || rows < 0 || columns < 0)
        return cudaErrorInvalidValue;
    if (n == 0 || rows == 0 || columns == 0)
        return cudaSuccess;
    return transposes[from][to][accumulate](s, n, rows, columns, src, dst);
}

cudaError_t pt_cu_convert(cudaStream_t s, int64_t n, pt_cu_type from, const void *src,
                          pt_cu_type to, void *dst, bool accumulate)
{
    return pt_cu_transpose(s, n, /*rows=*/1, /*columns=*/1, from, src, to, dst, accumulate);
}

cudaError_t pt_cu_copy_channels(cudaStream_t s, pt_cu_type type, int64_t rows, int64_t channels,
                                const void *src, int64_t src_channels, int64_t src_first, void *dst,
                                int64_t dst_channels, int64_t dst_first)
{
    const int64_t size = type == PT_CU_BF16 ? (int64_t)sizeof(pt_bf16) : (int64_t)sizeof(float);
    if (rows < 0 || channels < 0 || src_first + channels > src_channels ||
        dst_first + channels > dst_channels)
        return cudaErrorInvalidValue;
    if (rows == 0 || channels == 0)
        return cudaSuccess;
    const char *from = (const char *)src + src_first * size;
    char *to = (char *)dst + dst_first * size;
    channels *= size;
    src_channels *= size;
    dst_channels *= size;
    const uint64_t all = (uint64_t)channels | (uint64_t)src_channels | (uint64_t)dst_channels |
                         (uintptr_t)from | (uintptr_t)to;
    if (all % sizeof(uint4) == 0)
        return copy_units<uint4>(s, rows, channels, from, src_channels, to, dst_channels);
    if (all % sizeof(uint2) == 0)
        return copy_units<uint2>(s, rows, channels, from, src_channels, to, dst_channels);
    if (all % sizeof(uint32_t) == 0)
        return copy_units<uint32_t>(s, rows, channels, from, src_channels, to, dst_channels);
    return copy_units<uint16_t>(s, rows, channels, from, src_channels, to, dst_channels);
}
