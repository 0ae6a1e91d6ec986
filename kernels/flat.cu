/* Flat fp32 buffers: what optimizers, predictors and clipping are made of.
 *
 * The bits of the CPU backends: products are rounded before they are added, so the kernels must be
 * compiled without contraction to fused multiply-adds (-fmad=false), as those are. */
#include "kernels/each.cuh"
#include "kernels/fold.cuh"

namespace
{

struct axpby_body {
    static const int WIDE = 4, DEPTH = 4;
    float a, c;
    const float *x, *y;
    float *out;

    template <int V> struct held {
        pt_pack<V> x, y;
    };

    template <int V> __device__ void load(int64_t i, held<V> &h) const
    {
        h.x = pt_read<V>(x + i);
        h.y = pt_read<V>(y + i);
    }

    template <int V> __device__ void store(int64_t i, const held<V> &h) const
    {
        pt_pack<V> sum;
#pragma unroll
        for (int v = 0; v < V; v++)
            sum.at[v] = pt_element_axpby(a, h.x.at[v], c, h.y.at[v]);
        pt_write<V>(out + i, sum);
    }
};

/* ---- SGD --------------------------------------------------------------------------------------
 */

enum sgd_kind { PLAIN, MOMENTUM, NESTEROV };

/* What a pass writes. */
enum what { STEP, STEP_AND_FORESIGHT, FORESIGHT };

template <int KIND, int WHAT> struct sgd_body {
    static const int WIDE = 4, DEPTH = 2; /* of three inputs */
    pt_sgd rule;
    float *theta, *velocity;
    const float *gradient;
    pt_foresight foresight;

    template <int V> struct held {
        pt_pack<V> theta, velocity, gradient;
    };

    template <int V> __device__ void load(int64_t i, held<V> &h) const
    {
        h.theta = pt_read<V>(theta + i);
        h.gradient = pt_read<V>(gradient + i);
        if (KIND != PLAIN)
            h.velocity = pt_read<V>(velocity + i);
    }

    __device__ float step(float g, float *v, float theta_) const
    {
        const float d = pt_element_gradient(rule.scale, g, rule.decay, theta_);
        if (KIND == NESTEROV)
            return pt_element_nesterov(rule.lr, rule.momentum, d, v, theta_);
        if (KIND == MOMENTUM)
            return pt_element_momentum(rule.lr, rule.momentum, d, v, theta_);
        return pt_element_sgd(rule.lr, d, theta_);
    }

    __device__ float ahead(float theta_, float v) const
    {
        return KIND == PLAIN ? foresight.a * theta_
                             : pt_element_axpby(foresight.a, theta_, foresight.b, v);
    }

    template <int V> __device__ void store(int64_t i, held<V> &h) const
    {
        pt_pack<V> out;
#pragma unroll
        for (int k = 0; k < V; k++) {
            h.theta.at[k] = step(h.gradient.at[k], &h.velocity.at[k], h.theta.at[k]);
            out.at[k] = ahead(h.theta.at[k], h.velocity.at[k]);
        }
        if (WHAT != FORESIGHT)
            pt_write<V>(theta + i, h.theta);
        if (WHAT != FORESIGHT && KIND != PLAIN)
            pt_write<V>(velocity + i, h.velocity);
        if (WHAT != STEP)
            pt_write<V>(foresight.dev_out + i, out);
    }
};

template <int KIND, int WHAT>
cudaError_t sgd(cudaStream_t s, int64_t n, const pt_sgd *rule, float *theta, float *velocity,
                const float *gradient, pt_foresight foresight)
{
    const bool wide = pt_aligned(theta) && pt_aligned(velocity) && pt_aligned(gradient) &&
                      pt_aligned(foresight.dev_out);
    const sgd_body<KIND, WHAT> body = {*rule, theta, velocity, gradient, foresight};
    return pt_each(s, n, wide, body);
}

/* ---- Adam -------------------------------------------------------------------------------------
 */

enum adam_ahead { NOTHING, STRAIGHT, IN_A_LOOP };

/* Whether a step is made, and whether it stays. */
enum adam_steps { STAYS, MOVES, MOVES_APART };

template <int STEPS, int AHEAD> struct adam_body {
    static const int WIDE = 4, DEPTH = STEPS == STAYS ? 2 : 1; /* of three inputs, or four */
    pt_adam rule;
    float *theta, *m, *v;
    const float *gradient;
    pt_adam_foresight foresight;

    template <int V> struct held {
        pt_pack<V> theta, m, v, gradient;
    };

    template <int V> __device__ void load(int64_t i, held<V> &h) const
    {
        h.theta = pt_read<V>(theta + i);
        h.m = pt_read<V>(m + i);
        h.v = pt_read<V>(v + i);
        if (STEPS != STAYS)
            h.gradient = pt_read<V>(gradient + i);
    }

    __device__ float step(float g, float *m_, float *v_, float theta_) const
    {
        const float d = pt_element_gradient(rule.scale, g, rule.decay, theta_);
        pt_element_adam_moments(rule.beta1, rule.rest1, rule.beta2, rule.rest2, d, m_, v_);
        return pt_element_adam(rule.keep, theta_, rule.rate, *m_, rule.now, d,
                               pt_element_adam_below(rule.root, rule.eps, *v_));
    }

    __device__ float ahead(float theta_, float m_, float v_) const
    {
        const pt_rates &rates = foresight.rates;
        if (AHEAD == IN_A_LOOP)
            return pt_element_adam_ahead(rates.at, rates.root, rates.keep, rates.n, rule.beta1,
                                         rule.rest1 * rule.decay, rule.eps, v_, m_, theta_);
        return pt_element_axpby(foresight.a, theta_, foresight.b,
                                m_ / pt_element_adam_below(rule.root, rule.eps, v_));
    }

    template <int V> __device__ void store(int64_t i, held<V> &h) const
    {
        pt_pack<V> out;
#pragma unroll
        for (int k = 0; k < V; k++) {
            if (STEPS != STAYS)
                h.theta.at[k] = step(h.gradient.at[k], &h.m.at[k], &h.v.at[k], h.theta.at[k]);
            if (AHEAD != NOTHING)
                out.at[k] = ahead(h.theta.at[k], h.m.at[k], h.v.at[k]);
        }
        if (STEPS == MOVES) {
            pt_write<V>(theta + i, h.theta);
            pt_write<V>(m + i, h.m);
            pt_write<V>(v + i, h.v);
        }
        if (AHEAD != NOTHING)
            pt_write<V>(foresight.dev_out + i, out);
    }
};

template <int STEPS, int AHEAD>
cudaError_t adam(cudaStream_t s, int64_t n, const pt_adam *rule, float *theta, float *m, float *v,
                 const float *gradient, const pt_adam_foresight *foresight)
{
    adam_body<STEPS, AHEAD> body = {*rule, theta, m, v, gradient, {}};
    if (AHEAD != NOTHING)
        body.foresight = *foresight;
    const bool wide = pt_aligned(theta) && pt_aligned(m) && pt_aligned(v) && pt_aligned(gradient) &&
                      pt_aligned(body.foresight.dev_out);
    return pt_each(s, n, wide, body);
}

/* ---- sum of squares: every thread, then every block, then all blocks, each in a fixed order ----
 */

enum { SQUARE_BLOCKS = 1024, SQUARE_DEPTH = 8 };

/* The square of an fp32 is exact in double. */
__global__ void __launch_bounds__(PT_FOLD_THREADS)
    squares_kernel(int64_t n, const float *x, double *partials)
{
    const int64_t step = (int64_t)gridDim.x * PT_FOLD_THREADS;
    double sum = 0;
    for (int64_t i = (int64_t)blockIdx.x * PT_FOLD_THREADS + threadIdx.x; i < n;
         i += SQUARE_DEPTH * step) {
        float at[SQUARE_DEPTH];
#pragma unroll
        for (int u = 0; u < SQUARE_DEPTH; u++)
            at[u] = i + u * step < n ? x[i + u * step] : 0.0f;
#pragma unroll
        for (int u = 0; u < SQUARE_DEPTH; u++)
            sum += (double)at[u] * (double)at[u];
    }
    sum = pt_fold_block(sum);
    if (threadIdx.x == 0)
        partials[blockIdx.x] = sum;
}

__global__ void __launch_bounds__(PT_FOLD_THREADS)
    squares_finish_kernel(int blocks, const double *partials, double *ret_sum)
{
    double sum = 0;
    for (int i = (int)threadIdx.x; i < blocks; i += PT_FOLD_THREADS)
        sum += partials[i];
    sum = pt_fold_block(sum);
    if (threadIdx.x == 0)
        *ret_sum = sum;
}

} // namespace

cudaError_t pt_cu_axpby(cudaStream_t s, size_t n, float a, const float *x, float c, const float *y,
                        float *out)
{
    const axpby_body body = {a, c, x, y, out};
    return pt_each(s, (int64_t)n, pt_aligned(x) && pt_aligned(y) && pt_aligned(out), body);
}

cudaError_t pt_cu_sgd(cudaStream_t s, size_t n, const pt_sgd *rule, float *theta, float *velocity,
                      const float *gradient, const pt_foresight *foresight)
{
    typedef cudaError_t (*sgd_call)(cudaStream_t, int64_t, const pt_sgd *, float *, float *,
                                    const float *, pt_foresight);
    static const sgd_call calls[][3] = {
        {sgd<PLAIN, STEP>, sgd<PLAIN, STEP_AND_FORESIGHT>, sgd<PLAIN, FORESIGHT>},
        {sgd<MOMENTUM, STEP>, sgd<MOMENTUM, STEP_AND_FORESIGHT>, sgd<MOMENTUM, FORESIGHT>},
        {sgd<NESTEROV, STEP>, sgd<NESTEROV, STEP_AND_FORESIGHT>, sgd<NESTEROV, FORESIGHT>},
    };
    const pt_foresight none = {0, 0, NULL, false};
    if (!velocity && rule->momentum != 0.0f)
        return cudaErrorInvalidValue;
    const int kind = !velocity ? PLAIN : rule->nesterov ? NESTEROV : MOMENTUM;
    const int what = !foresight ? STEP : foresight->apart ? FORESIGHT : STEP_AND_FORESIGHT;
    return calls[kind][what](s, (int64_t)n, rule, theta, velocity, gradient,
                             foresight ? *foresight : none);
}

cudaError_t pt_cu_adam(cudaStream_t s, size_t n, const pt_adam *rule, float *theta, float *m,
                       float *v, const float *gradient, const pt_adam_foresight *foresight)
{
    typedef cudaError_t (*adam_call)(cudaStream_t, int64_t, const pt_adam *, float *, float *,
                                     float *, const float *, const pt_adam_foresight *);
    static const adam_call calls[][3] = {
        {NULL, adam<STAYS, STRAIGHT>, adam<STAYS, IN_A_LOOP>},
        {adam<MOVES, NOTHING>, adam<MOVES, STRAIGHT>, adam<MOVES, IN_A_LOOP>},
        {NULL, adam<MOVES_APART, STRAIGHT>, adam<MOVES_APART, IN_A_LOOP>},
    };
    if (!gradient && !foresight)
        return cudaSuccess;
    const int ahead = !foresight ? NOTHING : foresight->rates.n ? IN_A_LOOP : STRAIGHT;
    const int steps = !gradient ? STAYS : foresight && foresight->apart ? MOVES_APART : MOVES;
    return calls[steps][ahead](s, (int64_t)n, rule, theta, m, v, gradient, foresight);
}

size_t pt_cu_squares_bytes(void)
{
    return SQUARE_BLOCKS * sizeof(double);
}

cudaError_t pt_cu_sum_of_squares(cudaStream_t s, size_t n, const float *x, void *partials,
                                 double *sum)
{
    const int64_t wanted = pt_quotient_up((int64_t)n, PT_FOLD_THREADS * SQUARE_DEPTH);
    const int blocks = wanted < SQUARE_BLOCKS ? (int)wanted : SQUARE_BLOCKS;
    const size_t shared = PT_FOLD_THREADS * sizeof(double);
    if (blocks > 0) {
        const cudaError_t error = pt_start(squares_kernel, dim3((unsigned)blocks), PT_FOLD_THREADS,
                                           shared, s, (int64_t)n, x, (double *)partials);
        if (error != cudaSuccess)
            return error;
    }
    return pt_start(squares_finish_kernel, dim3(1), PT_FOLD_THREADS, shared, s, blocks,
                    (const double *)partials, sum);
}
