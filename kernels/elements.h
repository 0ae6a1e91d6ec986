/* Maths on single elements, shared by every backend: gcc compiles it for the CPU backends and nvcc
 * for the kernels beside this file, so that a formula stands once. No state, no memory, no branches
 * on the backend. */
#ifndef PIPETRAIN_KERNELS_ELEMENTS_H
#define PIPETRAIN_KERNELS_ELEMENTS_H

#ifdef __CUDACC__
#define PT_ELEMENT static inline __host__ __device__
#else
#define PT_ELEMENT static inline
#endif

#include <math.h>
#include <stdint.h>

/* ---- activations ------------------------------------------------------------------------------
 */

/* Φ(x), the normal distribution function; erfc keeps its digits far to the left. */
PT_ELEMENT double pt_element_normal_cdf(double x)
{
    const double root_half = 0.70710678118654752440;
    return 0.5 * erfc(-x * root_half);
}

/* x·Φ(x)   (D. Hendrycks, K. Gimpel, "Gaussian error linear units", 2016, section 2) */
PT_ELEMENT double pt_element_gelu(double x)
{
    return x * pt_element_normal_cdf(x);
}

/* d gelu/dx = Φ(x) + x·φ(x) */
PT_ELEMENT double pt_element_gelu_slope(double x)
{
    const double root_half_over_pi = 0.39894228040143267794;
    return pt_element_normal_cdf(x) + x * root_half_over_pi * exp(-0.5 * x * x);
}

/* The same two in fp32 for kernels, where double would cost more than the memory does. */
PT_ELEMENT float pt_element_normal_cdf_fp32(float x)
{
    return 0.5f * erfcf(-x * 0.70710678f);
}

PT_ELEMENT float pt_element_gelu_fp32(float x)
{
    return x * pt_element_normal_cdf_fp32(x);
}

PT_ELEMENT float pt_element_gelu_slope_fp32(float x)
{
    return pt_element_normal_cdf_fp32(x) + x * 0.39894228f * expf(-0.5f * x * x);
}

/* max(x, 0); a NaN stays one, so that a diverging run shows. */
PT_ELEMENT float pt_element_relu(float x)
{
    return x <= 0.0f ? 0.0f : x;
}

/* From relu's output y. */
PT_ELEMENT float pt_element_relu_back(float y, float dy)
{
    return y <= 0.0f ? 0.0f : dy;
}

/* a·x + c·y, each product rounded */
PT_ELEMENT float pt_element_axpby(float a, float x, float c, float y)
{
    return a * x + c * y;
}

/* ---- SGD, one weight: see pt_sgd in backend.h for the rule --------------------------------------
 */

/* s·g + λ·θ */
PT_ELEMENT float pt_element_gradient(float scale, float g, float decay, float theta)
{
    return scale * g + decay * theta;
}

/* γ = 0, no velocity kept */
PT_ELEMENT float pt_element_sgd(float lr, float d, float theta)
{
    return theta - lr * d;
}

PT_ELEMENT float pt_element_momentum(float lr, float momentum, float d, float *v, float theta)
{
    *v = momentum * *v + d;
    return theta - lr * *v;
}

PT_ELEMENT float pt_element_nesterov(float lr, float momentum, float d, float *v, float theta)
{
    *v = momentum * *v + d;
    return theta - lr * (d + momentum * *v);
}

/* ---- Adam, one weight: see pt_adam in backend.h for the rule ------------------------------------
 */

/* root·√v + ε */
PT_ELEMENT float pt_element_adam_below(float root, float eps, float v)
{
    return root * sqrtf(v) + eps;
}

/* Moves m and v. */
PT_ELEMENT void pt_element_adam_moments(float beta1, float rest1, float beta2, float rest2, float d,
                                        float *m, float *v)
{
    *m = beta1 * *m + rest1 * d;
    *v = beta2 * *v + rest2 * (d * d);
}

/* keep·θ - (rate·m + now·d) / below */
PT_ELEMENT float pt_element_adam(float keep, float theta, float rate, float m, float now, float d,
                                 float below)
{
    return keep * theta - (rate * m + now * d) / below;
}

/* n steps without gradients, pull = (1-β1)·λ */
PT_ELEMENT float pt_element_adam_ahead(const float *rate, const float *root, const float *keep,
                                       int n, float beta1, float pull, float eps, float v, float m,
                                       float theta)
{
    for (int i = 0; i < n; i++) {
        theta = keep[i] * theta;
        m = beta1 * m + pull * theta;
        theta = theta - rate[i] * (m / pt_element_adam_below(root[i], eps, v));
    }
    return theta;
}

/* ---- rules for late gradients, one weight: see pt_gap and pt_look_back in backend.h -------------
 */

/* keep·average + rest·x² */
PT_ELEMENT float pt_element_mean_square(float keep, float rest, float x, float average)
{
    return keep * average + rest * (x * x);
}

PT_ELEMENT float pt_element_gap(float top, float unbias, float least, float forward, float theta,
                                float average, float own)
{
    const float move = top * (sqrtf(unbias * average) + least);
    return own / (1.0f + fabsf(forward - theta) / move);
}

/* Moves drift and gives the weight of before. */
PT_ELEMENT float pt_element_look_back(float keep, float rest, float delay, float theta, float last,
                                      float *drift)
{
    *drift = keep * *drift + rest * (theta - last);
    return theta - delay * *drift;
}

/* ---- dropout ------------------------------------------------------------------------------------
 */

/* `random` is uniform in [0, 2^32), threshold is p·2^32, scale 1/(1-p). */
PT_ELEMENT float pt_element_dropout(uint32_t random, double threshold, float scale, float x)
{
    return (double)random >= threshold ? x * scale : 0.0f;
}

/* The same by an integer threshold, ⌈p·2^32⌉ <= 2^32. */
PT_ELEMENT float pt_element_drop(uint32_t random, uint64_t threshold, float scale, float x)
{
    return random >= threshold ? x * scale : 0.0f;
}

#endif
