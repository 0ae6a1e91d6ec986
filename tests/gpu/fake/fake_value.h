/* Elements of fp32 or bf16, and the dirt that a library leaves in its workspace. */
#ifndef PIPETRAIN_TESTS_FAKE_VALUE_H
#define PIPETRAIN_TESTS_FAKE_VALUE_H

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#include "fake_inside.h"
#include "kernels/bf16.h"
#include "pipetrain/backend.h"

static inline double pt_fake_load(bool bf16, const void *at, int64_t i)
{
    return bf16 ? (double)pt_float_of_bf16(((const pt_bf16 *)at)[i])
                : (double)((const float *)at)[i];
}

static inline void pt_fake_store(bool bf16, void *at, int64_t i, double value)
{
    if (bf16)
        ((pt_bf16 *)at)[i] = pt_bf16_of_float((float)value);
    else
        ((float *)at)[i] = (float)value;
}

/* The libraries are promised addresses that are multiples of 16. */
static inline void pt_fake_check_aligned(const char *what, const void *const *at, int n)
{
    for (int i = 0; i < n; i++)
        if ((uintptr_t)at[i] % 16 != 0)
            pt_fake_misuse("%s: address %p is no multiple of 16", what, at[i]);
}

/* NaNs: whoever keeps something there will see it. */
static inline void pt_fake_soil(void *workspace, size_t bytes)
{
    memset(workspace, 0xff, bytes);
}

#endif
