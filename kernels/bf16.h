/* bf16: the upper half of an fp32, 8 bits of exponent and 7 of fraction. Rounding is to the
 * nearest, ties to even; every NaN becomes 0x7fff, as the hardware has it. */
#ifndef PIPETRAIN_KERNELS_BF16_H
#define PIPETRAIN_KERNELS_BF16_H

#include <string.h>

#include "kernels/elements.h"

typedef struct pt_bf16 {
    uint16_t bits;
} pt_bf16;

PT_ELEMENT float pt_float_of_bits(uint32_t bits)
{
#ifdef __CUDA_ARCH__
    return __uint_as_float(bits);
#else
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
#endif
}

PT_ELEMENT uint32_t pt_bits_of_float(float x)
{
#ifdef __CUDA_ARCH__
    return __float_as_uint(x);
#else
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
#endif
}

PT_ELEMENT float pt_float_of_bf16(pt_bf16 x)
{
    return pt_float_of_bits((uint32_t)x.bits << 16);
}

PT_ELEMENT pt_bf16 pt_bf16_of_float(float x)
{
    pt_bf16 y;
#ifdef __CUDA_ARCH__
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
#else
    const uint32_t bits = pt_bits_of_float(x);
    const uint32_t half = 0x7fffu + (bits >> 16 & 1u); /* what rounds up, or to even */
    y.bits = x != x ? (uint16_t)0x7fff : (uint16_t)((bits + half) >> 16);
#endif
    return y;
}

/* Two at once: `low` comes first in memory. */
PT_ELEMENT uint32_t pt_bf16_pair(float low, float high)
{
#ifdef __CUDA_ARCH__
    uint32_t pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
#else
    return (uint32_t)pt_bf16_of_float(high).bits << 16 | pt_bf16_of_float(low).bits;
#endif
}

#endif
