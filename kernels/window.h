/* Windows of pools along one axis, and the choice of a maximum. */
#ifndef PIPETRAIN_KERNELS_WINDOW_H
#define PIPETRAIN_KERNELS_WINDOW_H

#include "kernels/elements.h"

/* [begin, end) */
typedef struct pt_span {
    int32_t begin, end;
} pt_span;

/* The inputs that output `at` looks at; padding is left out. */
PT_ELEMENT pt_span pt_element_window(int32_t at, int32_t kernel, int32_t stride, int32_t padding,
                                     int32_t inputs)
{
    const int32_t begin = at * stride - padding, end = begin + kernel;
    const pt_span s = {begin < 0 ? 0 : begin, end > inputs ? inputs : end};
    return s;
}

/* The outputs that look at input `at`. */
PT_ELEMENT pt_span pt_element_windows_over(int32_t at, int32_t kernel, int32_t stride,
                                           int32_t padding, int32_t outputs)
{
    const int32_t before = at + padding - kernel; /* the last start of a window that ends before */
    const int32_t end = (at + padding) / stride + 1;
    const pt_span s = {before < 0 ? 0 : before / stride + 1, end > outputs ? outputs : end};
    return s;
}

/* Does x take the place of the best so far? The first maximum stays, a NaN wins. */
PT_ELEMENT int pt_element_beats(float x, float best)
{
    return x > best || (x != x && best == best);
}

#endif
