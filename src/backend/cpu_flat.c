/* Maths on flat fp32 buffers: what optimizers, predictors and clipping are made of.
 *
 * Buffers are cut into pieces of a fixed size, whatever the number of threads. Element-wise results
 * cannot depend on who computes them; the sum of squares adds its pieces in order. */
#include "cpu.h"

#include <limits.h>

#include "kernels/elements.h"

enum {
    PIECE = 16384,  /* elements of a piece of element-wise work: 64 KiB a buffer */
    BLOCK = 4096,   /* elements of one partial sum */
    PARTIALS = 256, /* partial sums that are made before they are added up */
    LANES = 8       /* independent sums in a block, so that additions overlap */
};

typedef struct range_job {
    size_t n;
    void (*body)(void *context, size_t begin, size_t end);
    void *context;
} range_job;

static void run_piece(void *context, int piece)
{
    const range_job *job = context;
    size_t begin = (size_t)piece * PIECE;
    job->body(job->context, begin, job->n - begin < PIECE ? job->n : begin + PIECE);
}

/* Pieces are counted in an int: 128 TiB of floats, which no buffer has. */
pt_status pt_cpu_ranges(pt_backend *b, size_t n,
                        void (*body)(void *context, size_t begin, size_t end), void *context,
                        pt_error *err)
{
    range_job job = {n, body, context};
    if (n / PIECE >= INT_MAX)
        return pt_fail(err, PT_EINTERNAL, "a flat buffer of %zu elements", n);
    pt_cpu_parallel((const pt_cpu *)b, (int)((n + PIECE - 1) / PIECE), run_piece, &job);
    return PT_OK;
}

typedef struct sum_job {
    float a, c;
    const float *x, *y;
    float *out;
} sum_job;

static void add_piece(void *context, size_t begin, size_t end)
{
    const sum_job *job = context;
    const float *x = job->x, *y = job->y;
    float *out = job->out;
    for (size_t i = begin; i < end; i++)
        out[i] = x[i] + y[i];
}

pt_status pt_cpu_add_flat(pt_backend *b, size_t n, const float *x, const float *y, float *out,
                          pt_error *err)
{
    sum_job job = {.x = x, .y = y, .out = out};
    return pt_cpu_ranges(b, n, add_piece, &job, err);
}

pt_status pt_cpu_add(pt_backend *b, const pt_layout *layout, const void *x, const void *y,
                     void *out, pt_error *err)
{
    return pt_cpu_add_flat(b, layout->bytes / sizeof(float), x, y, out, err);
}

static void axpby_piece(void *context, size_t begin, size_t end)
{
    const sum_job *job = context;
    const float a = job->a, c = job->c, *x = job->x, *y = job->y;
    float *out = job->out;
    for (size_t i = begin; i < end; i++)
        out[i] = a * x[i] + c * y[i];
}

pt_status pt_cpu_axpby(pt_backend *b, size_t n, float a, const float *x, float c, const float *y,
                       float *out, pt_error *err)
{
    sum_job job = {.a = a, .c = c, .x = x, .y = y, .out = out};
    return pt_cpu_ranges(b, n, axpby_piece, &job, err);
}

typedef struct square_job {
    const float *x;
    size_t n;
    double partial[PARTIALS];
} square_job;

/* Element i of a block belongs to lane i % LANES; the lanes are added in order. */
static void square_block(void *context, int block)
{
    square_job *job = context;
    const float *x = job->x + (size_t)block * BLOCK;
    size_t left = job->n - (size_t)block * BLOCK;
    size_t count = left < BLOCK ? left : BLOCK;
    double lane[LANES] = {0};
    size_t i = 0;
    for (; i + LANES <= count; i += LANES)
        for (size_t l = 0; l < LANES; l++)
            lane[l] += (double)x[i + l] * (double)x[i + l];
    for (; i < count; i++)
        lane[i % LANES] += (double)x[i] * (double)x[i];
    double sum = 0;
    for (int l = 0; l < LANES; l++)
        sum += lane[l];
    job->partial[block] = sum;
}

pt_status pt_cpu_sum_of_squares(pt_backend *b, size_t n, const float *x, double *ret_sum,
                                pt_error *err)
{
    (void)err;
    const size_t most = (size_t)PARTIALS * BLOCK;
    square_job job;
    double sum = 0;
    for (size_t begin = 0; begin < n; begin += most) {
        job.x = x + begin;
        job.n = n - begin < most ? n - begin : most;
        int blocks = (int)((job.n + BLOCK - 1) / BLOCK);
        pt_cpu_parallel((const pt_cpu *)b, blocks, square_block, &job);
        for (int i = 0; i < blocks; i++)
            sum += job.partial[i];
    }
    *ret_sum = sum;
    return PT_OK;
}

typedef struct sgd_job {
    pt_sgd rule;
    float *theta, *velocity;
    const float *gradient;
    const pt_foresight *foresight; /* NULL: none */
} sgd_job;

/* While the piece is still in the cache; operation by operation as axpby does it. */
static void foresee_piece(const sgd_job *job, size_t begin, size_t end)
{
    if (!job->foresight)
        return;
    const float a = job->foresight->a, b = job->foresight->b;
    const float *theta = job->theta, *v = job->velocity;
    float *out = job->foresight->dev_out;
    for (size_t i = begin; v && i < end; i++)
        out[i] = a * theta[i] + b * v[i];
    for (size_t i = begin; !v && i < end; i++)
        out[i] = a * theta[i];
}

static void plain_sgd_piece(void *context, size_t begin, size_t end)
{
    const sgd_job *job = context;
    const float lr = job->rule.lr, decay = job->rule.decay, scale = job->rule.scale;
    const float *g = job->gradient;
    float *theta = job->theta;
    for (size_t i = begin; i < end; i++)
        theta[i] = pt_element_sgd(lr, pt_element_gradient(scale, g[i], decay, theta[i]), theta[i]);
    foresee_piece(job, begin, end);
}

static void momentum_sgd_piece(void *context, size_t begin, size_t end)
{
    const sgd_job *job = context;
    const float lr = job->rule.lr, momentum = job->rule.momentum;
    const float decay = job->rule.decay, scale = job->rule.scale;
    const float *g = job->gradient;
    float *theta = job->theta, *v = job->velocity;
    for (size_t i = begin; i < end; i++) {
        float d = pt_element_gradient(scale, g[i], decay, theta[i]);
        theta[i] = pt_element_momentum(lr, momentum, d, &v[i], theta[i]);
    }
    foresee_piece(job, begin, end);
}

static void nesterov_piece(void *context, size_t begin, size_t end)
{
    const sgd_job *job = context;
    const float lr = job->rule.lr, momentum = job->rule.momentum;
    const float decay = job->rule.decay, scale = job->rule.scale;
    const float *g = job->gradient;
    float *theta = job->theta, *v = job->velocity;
    for (size_t i = begin; i < end; i++) {
        float d = pt_element_gradient(scale, g[i], decay, theta[i]);
        theta[i] = pt_element_nesterov(lr, momentum, d, &v[i], theta[i]);
    }
    foresee_piece(job, begin, end);
}

/* The step of one weight; v of a rule without momentum is never read. */
static float sgd_step(const pt_sgd *r, bool plain, float g, float *v, float theta)
{
    float d = pt_element_gradient(r->scale, g, r->decay, theta);
    if (plain)
        return pt_element_sgd(r->lr, d, theta);
    return r->nesterov ? pt_element_nesterov(r->lr, r->momentum, d, v, theta)
                       : pt_element_momentum(r->lr, r->momentum, d, v, theta);
}

static void sgd_apart_piece(void *context, size_t begin, size_t end)
{
    const sgd_job *job = context;
    const float a = job->foresight->a, b = job->foresight->b;
    float *out = job->foresight->dev_out;
    for (size_t i = begin; i < end; i++) {
        float v = job->velocity ? job->velocity[i] : 0;
        float theta = sgd_step(&job->rule, !job->velocity, job->gradient[i], &v, job->theta[i]);
        out[i] = job->velocity ? pt_element_axpby(a, theta, b, v) : a * theta;
    }
}

pt_status pt_cpu_sgd(pt_backend *b, size_t n, const pt_sgd *rule, float *theta, float *velocity,
                     const float *gradient, const pt_foresight *foresight, pt_error *err)
{
    if (!velocity && rule->momentum != 0.0f)
        return pt_fail(err, PT_EINTERNAL, "SGD with momentum %g has no velocity buffer",
                       (double)rule->momentum);
    sgd_job job = {*rule, theta, velocity, gradient, foresight};
    if (foresight && foresight->apart)
        return pt_cpu_ranges(b, n, sgd_apart_piece, &job, err);
    if (!velocity)
        return pt_cpu_ranges(b, n, plain_sgd_piece, &job, err);
    return pt_cpu_ranges(b, n, rule->nesterov ? nesterov_piece : momentum_sgd_piece, &job, err);
}

typedef struct adam_job {
    pt_adam rule;
    float *theta, *m, *v;
    const float *gradient;              /* NULL: no step */
    const pt_adam_foresight *foresight; /* NULL: none */
} adam_job;

static float adam_step(const pt_adam *r, float g, float *m, float *v, float theta)
{
    float d = pt_element_gradient(r->scale, g, r->decay, theta);
    pt_element_adam_moments(r->beta1, r->rest1, r->beta2, r->rest2, d, m, v);
    return pt_element_adam(r->keep, theta, r->rate, *m, r->now, d,
                           pt_element_adam_below(r->root, r->eps, *v));
}

static float adam_ahead(const pt_adam *r, const pt_adam_foresight *f, float theta, float m, float v)
{
    const pt_rates *rates = &f->rates;
    if (rates->n == 0)
        return pt_element_axpby(f->a, theta, f->b, m / pt_element_adam_below(r->root, r->eps, v));
    return pt_element_adam_ahead(rates->at, rates->root, rates->keep, rates->n, r->beta1,
                                 r->rest1 * r->decay, r->eps, v, m, theta);
}

static void adam_step_piece(const adam_job *job, size_t begin, size_t end)
{
    const pt_adam r = job->rule;
    const float *g = job->gradient;
    float *theta = job->theta, *m = job->m, *v = job->v;
    for (size_t i = begin; i < end; i++)
        theta[i] = adam_step(&r, g[i], &m[i], &v[i], theta[i]);
}

static void adam_foresee_piece(const adam_job *job, size_t begin, size_t end)
{
    const pt_adam r = job->rule;
    const pt_adam_foresight *f = job->foresight;
    const float *theta = job->theta, *m = job->m, *v = job->v;
    float *out = f->dev_out;
    for (size_t i = begin; i < end; i++)
        out[i] = adam_ahead(&r, f, theta[i], m[i], v[i]);
}

static void adam_apart_piece(void *context, size_t begin, size_t end)
{
    const adam_job *job = context;
    const pt_adam r = job->rule;
    for (size_t i = begin; i < end; i++) {
        float m = job->m[i], v = job->v[i];
        float theta = adam_step(&r, job->gradient[i], &m, &v, job->theta[i]);
        job->foresight->dev_out[i] = adam_ahead(&r, job->foresight, theta, m, v);
    }
}

static void adam_piece(void *context, size_t begin, size_t end)
{
    const adam_job *job = context;
    if (job->gradient)
        adam_step_piece(job, begin, end);
    if (job->foresight)
        adam_foresee_piece(job, begin, end);
}

pt_status pt_cpu_adam(pt_backend *b, size_t n, const pt_adam *rule, float *theta, float *m,
                      float *v, const float *gradient, const pt_adam_foresight *foresight,
                      pt_error *err)
{
    adam_job job = {*rule, theta, m, v, gradient, foresight};
    if (gradient && foresight && foresight->apart)
        return pt_cpu_ranges(b, n, adam_apart_piece, &job, err);
    return pt_cpu_ranges(b, n, adam_piece, &job, err);
}
