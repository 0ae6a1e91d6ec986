/* Reading and writing V neighbouring elements as floats, 16 bytes an access where V allows. */
#ifndef PIPETRAIN_KERNELS_PACK_CUH
#define PIPETRAIN_KERNELS_PACK_CUH

#include "kernels/bf16.h"
#include "kernels/launch.h"
#include "kernels/start.cuh"

namespace
{

enum { PT_WIDE_BYTES = 16 }; /* the longest access of one thread */

/* How many elements of T one access takes. */
template <typename T> struct pt_wide {
    static const int N = PT_WIDE_BYTES / (int)sizeof(T);
};

inline bool pt_aligned(const void *p)
{
    return (uintptr_t)p % PT_WIDE_BYTES == 0;
}

/* ---- 8 or 16 bytes at an address that is a multiple of them ------------------------------------
 */

template <int N> struct pt_words {
    uint32_t at[N];
};

#ifdef PT_EMULATED

template <int N> inline void pt_check_address(const void *p)
{
    if ((uintptr_t)p % (N * sizeof(uint32_t)) != 0)
        pt_emulate_fail("an access of several words at an address that is no multiple of them");
}

template <int N> inline pt_words<N> pt_read_words(const void *p)
{
    pt_words<N> w;
    pt_check_address<N>(p);
    memcpy(&w, p, sizeof w);
    return w;
}

template <int N> inline void pt_write_words(void *p, pt_words<N> w)
{
    pt_check_address<N>(p);
    memcpy(p, &w, sizeof w);
}

#else

template <int N> __device__ inline pt_words<N> pt_read_words(const void *p)
{
    static_assert(N == 2 || N == 4, "8 or 16 bytes");
    pt_words<N> w;
    if (N == 4) {
        const uint4 q = *reinterpret_cast<const uint4 *>(p);
        w.at[0] = q.x;
        w.at[1] = q.y;
        w.at[N - 2] = q.z;
        w.at[N - 1] = q.w;
    } else {
        const uint2 q = *reinterpret_cast<const uint2 *>(p);
        w.at[0] = q.x;
        w.at[1] = q.y;
    }
    return w;
}

/* By hand: nvcc takes an assignment of uint4 apart, and does not always find together again what
 * belongs together; where it does not, one access becomes four. */
template <int N> __device__ inline void pt_write_words(void *p, pt_words<N> w)
{
    static_assert(N == 2 || N == 4, "8 or 16 bytes");
    const size_t to = __cvta_generic_to_global(p);
    if (N == 4)
        asm volatile("st.global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(to), "r"(w.at[0]),
                     "r"(w.at[1]), "r"(w.at[N - 2]), "r"(w.at[N - 1])
                     : "memory");
    else
        asm volatile("st.global.v2.u32 [%0], {%1, %2};" ::"l"(to), "r"(w.at[0]), "r"(w.at[1])
                     : "memory");
}

#endif

/* ---- V elements ------------------------------------------------------------------------------ */

template <int V> struct pt_pack {
    float at[V];
};

__device__ inline float pt_to_float(float x)
{
    return x;
}

__device__ inline float pt_to_float(pt_bf16 x)
{
    return pt_float_of_bf16(x);
}

template <typename T> __device__ inline T pt_from_float(float x);

template <> __device__ inline float pt_from_float<float>(float x)
{
    return x;
}

template <> __device__ inline pt_bf16 pt_from_float<pt_bf16>(float x)
{
    return pt_bf16_of_float(x);
}

/* What x becomes when it is stored as T and read again. */
template <typename T> __device__ inline float pt_rounded(float x)
{
    return pt_to_float(pt_from_float<T>(x));
}

template <int V> __device__ inline pt_pack<V> pt_read(const float *p)
{
    pt_pack<V> x;
    if (V == 1)
        x.at[0] = *p;
#pragma unroll
    for (int first = 0; V > 1 && first < V; first += 4) {
        const pt_words<4> w = pt_read_words<4>(p + first);
#pragma unroll
        for (int i = 0; i < 4; i++)
            x.at[(first + i) % V] = pt_float_of_bits(w.at[i]);
    }
    return x;
}

template <int V> __device__ inline void pt_write(float *p, pt_pack<V> x)
{
    if (V == 1)
        *p = x.at[0];
#pragma unroll
    for (int first = 0; V > 1 && first < V; first += 4) {
        pt_words<4> w;
#pragma unroll
        for (int i = 0; i < 4; i++)
            w.at[i] = pt_bits_of_float(x.at[(first + i) % V]);
        pt_write_words<4>(p + first, w);
    }
}

template <int V> __device__ inline pt_pack<V> pt_read(const pt_bf16 *p)
{
    pt_pack<V> x;
    if (V == 1) {
        x.at[0] = pt_float_of_bf16(*p);
        return x;
    }
    const int N = V == 8 ? 4 : 2;
    const pt_words<N> w = pt_read_words<N>(p);
#pragma unroll
    for (int i = 0; i < V / 2; i++) {
        x.at[2 * i] = pt_float_of_bits(w.at[i] << 16);
        x.at[(2 * i + 1) % V] = pt_float_of_bits(w.at[i] & 0xffff0000u);
    }
    return x;
}

template <int V> __device__ inline void pt_write(pt_bf16 *p, pt_pack<V> x)
{
    if (V == 1) {
        *p = pt_bf16_of_float(x.at[0]);
        return;
    }
    const int N = V == 8 ? 4 : 2;
    pt_words<N> w;
#pragma unroll
    for (int i = 0; i < V / 2; i++)
        w.at[i] = pt_bf16_pair(x.at[2 * i], x.at[(2 * i + 1) % V]);
    pt_write_words<N>(p, w);
}

/* Of a parameter per channel, whose address may be any. */
template <int V> __device__ inline pt_pack<V> pt_read_channels(const float *p)
{
    pt_pack<V> x;
    if (V > 1 && (uintptr_t)p % PT_WIDE_BYTES == 0)
        return pt_read<V>(p);
#pragma unroll
    for (int i = 0; i < V; i++)
        x.at[i] = p[i];
    return x;
}

/* ---- counting ---------------------------------------------------------------------------------
 */

/* value / by, the remainder in *ret_rest; both >= 0. Division of 64 bits is several times slower,
 * and hardly ever needed. */
__device__ inline int64_t pt_split(int64_t value, int64_t by, int64_t *ret_rest)
{
    if (((value | by) >> 32) == 0) {
        const uint32_t quotient = (uint32_t)value / (uint32_t)by;
        *ret_rest = (uint32_t)value - quotient * (uint32_t)by;
        return quotient;
    }
    const int64_t quotient = value / by;
    *ret_rest = value - quotient * by;
    return quotient;
}

inline int64_t pt_quotient_up(int64_t value, int64_t by)
{
    return value / by + (value % by != 0);
}

/* Blocks side by side; a launch takes up to 2^31 - 1. */
inline cudaError_t pt_grid(int64_t blocks, dim3 *ret_grid)
{
    if (blocks < 0 || blocks > INT32_MAX)
        return cudaErrorInvalidValue;
    *ret_grid = dim3((unsigned)blocks);
    return cudaSuccess;
}

} // namespace

#endif
