/* Losses, one sample or one class at a time: see pt_loss in backend.h. All in double. */
#ifndef PIPETRAIN_KERNELS_LOSS_H
#define PIPETRAIN_KERNELS_LOSS_H

#include "kernels/elements.h"

/* A candidate for the first arg-max. */
typedef struct pt_top {
    float value;
    int64_t at;
} pt_top;

/* Of two candidates the larger, or the earlier of equals; values are no NaN. */
PT_ELEMENT pt_top pt_element_top(pt_top a, pt_top b)
{
    return b.value > a.value || (b.value == a.value && b.at < a.at) ? b : a;
}

/* l = log sum_c exp y_c - sum_c q_c y_c with the largest y taken out of the exponentials:
 * sum = Σ exp(y_c - max), mean = Σ (y_c - max)/C, at_label = y_label - max */
PT_ELEMENT double pt_element_cross_entropy(double sum, double mean, double at_label,
                                           double smoothing)
{
    return log(sum) - (1 - smoothing) * at_label - smoothing * mean;
}

/* ∂l/∂y_c = softmax(y)_c - q_c;  above = y_c - max */
PT_ELEMENT double pt_element_cross_entropy_slope(double above, double sum, int is_label,
                                                 double smoothing, double classes)
{
    const double q = smoothing / classes + (is_label ? 1 - smoothing : 0);
    return exp(above) / sum - q;
}

/* ∂/∂y of 1/F · (y - t)² */
PT_ELEMENT double pt_element_square_slope(double difference, double features)
{
    return 2 * difference / features;
}

#endif
