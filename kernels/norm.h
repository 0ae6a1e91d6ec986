/* Batch-norm, one value at a time, and the merging of moments.
 * S. Ioffe, C. Szegedy, "Batch normalization", ICML 2015, algorithm 1 and section 3. */
#ifndef PIPETRAIN_KERNELS_NORM_H
#define PIPETRAIN_KERNELS_NORM_H

#include "kernels/elements.h"

/* Of n values: their mean and the sum of the squares of their deviations from it. */
typedef struct pt_moments {
    float n, mean, m2;
} pt_moments;

enum { PT_MOMENTS_GROUP = 4 };

/* Both of two sets together, n values of which `share` are b's. Never subtracts large sums from
 * each other. T. Chan, G. Golub, R. LeVeque, "Algorithms for computing the sample variance", 1983,
 * eq. 2.1. */
PT_ELEMENT pt_moments pt_element_merge_by(pt_moments a, pt_moments b, float n, float share)
{
    const float delta = b.mean - a.mean;
    const pt_moments both = {n, fmaf(delta, share, a.mean),
                             a.m2 + fmaf(delta * delta, a.n * share, b.m2)};
    return both;
}

PT_ELEMENT pt_moments pt_element_merge(pt_moments a, pt_moments b)
{
    const pt_moments none = {0.0f, 0.0f, 0.0f};
    const float n = a.n + b.n;
    return n == 0.0f ? none : pt_element_merge_by(a, b, n, b.n / n);
}

/* Of a group of four: mean first, then the deviations. */
PT_ELEMENT pt_moments pt_element_moments(const float x[PT_MOMENTS_GROUP])
{
    const float mean = 0.25f * ((x[0] + x[1]) + (x[2] + x[3]));
    float m2 = 0.0f;
    for (int i = 0; i < PT_MOMENTS_GROUP; i++)
        m2 = fmaf(x[i] - mean, x[i] - mean, m2);
    const pt_moments group = {(float)PT_MOMENTS_GROUP, mean, m2};
    return group;
}

/* running ← (1 - momentum)·running + momentum·batch */
PT_ELEMENT float pt_element_blend(float running, double batch, double momentum)
{
    return (float)((1 - momentum) * (double)running + momentum * batch);
}

PT_ELEMENT float pt_element_rstd(float variance, float eps)
{
    return 1.0f / sqrtf(variance + eps);
}

/* scale = w·rstd */
PT_ELEMENT float pt_element_norm(float x, float mean, float scale, float b)
{
    return fmaf(x - mean, scale, b);
}

/* dx = w·rstd · (dy - db/count - (x - mean)·rstd · dw/count)
 * scale = w·rstd, db_share = db/count, dw_share = rstd·dw/count */
PT_ELEMENT float pt_element_norm_back(float x, float dy, float mean, float scale, float db_share,
                                      float dw_share)
{
    return scale * fmaf(mean - x, dw_share, dy - db_share);
}

#endif
