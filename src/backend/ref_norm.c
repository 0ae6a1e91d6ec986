/* batch-norm: y = w[c]·x̂ + b[c], x̂ = (x - mean_c)/sqrt(var_c + eps)   x (N,C,H,W) or (N,C)
 * and its longer forms, y = relu(y + z).
 *
 * S. Ioffe, C. Szegedy, "Batch normalization", ICML 2015, algorithm 1 and the gradients of section
 * 3. A training forward saves mean and 1/sqrt(var + eps) of each channel, in double. */
#include "ref.h"

#include <math.h>

/* The elements of channel c: N rows of `area` neighbours, `step` apart. */
typedef struct channel {
    int64_t samples, area, step, first;
    double count;
} channel;

static channel channel_of(const pt_kernel *k, int c)
{
    const pt_shape *shape = &k->op.in[0];
    int64_t elements = pt_shape_elements(shape), area = elements / shape->dims[0];
    return (channel){k->samples, area, elements, c * area, (double)(k->samples * area)};
}

static double mean_of(const channel *at, const float *x)
{
    double sum = 0;
    for (int64_t n = 0; n < at->samples; n++)
        for (int64_t e = 0; e < at->area; e++)
            sum += (double)x[n * at->step + at->first + e];
    return sum / at->count;
}

static double variance_of(const channel *at, const float *x, double mean)
{
    double sum = 0;
    for (int64_t n = 0; n < at->samples; n++)
        for (int64_t e = 0; e < at->area; e++) {
            double difference = (double)x[n * at->step + at->first + e] - mean;
            sum += difference * difference;
        }
    return sum / at->count;
}

static void blend(float *running, double batch, double momentum)
{
    *running = (float)((1 - momentum) * (double)*running + momentum * batch);
}

/* Batch statistics of one channel: saved for the backward, and mixed into the running ones. */
static void statistics(const pt_ref_job *job, const channel *at, int c, double *ret_mean,
                       double *ret_inverse)
{
    const pt_op *op = &job->k->op;
    const float *x = job->args->dev_in[0];
    double *saved = job->args->dev_saved;
    double mean = mean_of(at, x), variance = variance_of(at, x, mean);
    double unbiased = at->count > 1 ? variance * at->count / (at->count - 1) : variance;
    if (!job->args->again) {
        blend(&job->args->dev_state[0][c], mean, op->momentum);
        blend(&job->args->dev_state[1][c], unbiased, op->momentum);
    }
    saved[2 * c] = *ret_mean = mean;
    saved[2 * c + 1] = *ret_inverse = 1 / sqrt(variance + op->eps);
}

/* What comes behind batch-norm: the bits of add and relu as ops of their own. */
static float behind(const pt_ref_job *job, int64_t i, float y)
{
    const float *z = job->args->dev_in[1];
    if (job->k->op.n_inputs > 1)
        y += z[i];
    return job->k->op.relu && y <= 0 ? 0 : y;
}

/* The gradient of batch-norm itself, from that of what came behind it. */
static float before(const pt_ref_job *job, int64_t i)
{
    const float *y = job->args->dev_out, *dy = job->args->dev_d_out;
    return job->k->op.relu && y[i] <= 0 ? 0 : dy[i];
}

static void forward_channel(void *context, int c)
{
    const pt_ref_job *job = context;
    const pt_kernel_args *args = job->args;
    const channel at = channel_of(job->k, c);
    double mean, inverse;
    if (job->k->mode == PT_TRAIN) {
        statistics(job, &at, c, &mean, &inverse);
    } else {
        mean = (double)args->dev_state[0][c];
        inverse = 1 / sqrt((double)args->dev_state[1][c] + job->k->op.eps);
    }
    const double w = (double)args->dev_param[0][c], b = (double)args->dev_param[1][c];
    const float *x = args->dev_in[0];
    float *y = args->dev_out;
    for (int64_t n = 0; n < at.samples; n++)
        for (int64_t e = at.first; e < at.first + at.area; e++) {
            int64_t i = n * at.step + e;
            y[i] = behind(job, i, (float)(w * ((double)x[i] - mean) * inverse + b));
        }
}

static void forward(const pt_kernel *k, const pt_kernel_args *args)
{
    pt_ref_parallel(k, args, k->op.in[0].dims[0], forward_channel);
}

/* db = sum dy,  dw = sum dy·x̂,  dx = w/sqrt(var + eps) · (dy - db/count - x̂·dw/count) */
static void backward_channel(void *context, int c)
{
    const pt_ref_job *job = context;
    const pt_kernel_args *args = job->args;
    const channel at = channel_of(job->k, c);
    const double *saved = args->dev_saved;
    const double mean = saved[2 * c], inverse = saved[2 * c + 1];
    const float *x = args->dev_in[0];
    float *dz = args->dev_d_in[1];
    double dw = 0, db = 0;
    for (int64_t n = 0; n < at.samples; n++)
        for (int64_t e = at.first; e < at.first + at.area; e++) {
            int64_t i = n * at.step + e;
            const double dy = (double)before(job, i);
            db += dy;
            dw += dy * ((double)x[i] - mean) * inverse;
            if (dz)
                dz[i] = before(job, i);
        }
    pt_ref_store(&args->dev_d_param[0][c], dw, args->accumulate);
    pt_ref_store(&args->dev_d_param[1][c], db, args->accumulate);
    if (!args->dev_d_in[0])
        return;
    const double scale = (double)args->dev_param[0][c] * inverse;
    float *dx = args->dev_d_in[0];
    for (int64_t n = 0; n < at.samples; n++)
        for (int64_t e = at.first; e < at.first + at.area; e++) {
            int64_t i = n * at.step + e;
            double normal = ((double)x[i] - mean) * inverse;
            double dy = (double)before(job, i);
            dx[i] = (float)(scale * (dy - db / at.count - normal * dw / at.count));
        }
}

static void backward(const pt_kernel *k, const pt_kernel_args *args)
{
    pt_ref_parallel(k, args, k->op.in[0].dims[0], backward_channel);
}

static size_t saved(const pt_op *op, int samples)
{
    (void)samples;
    return 2 * (size_t)op->in[0].dims[0] * sizeof(double);
}

const pt_ref_op pt_ref_batch_norm = {
    .train_flags = PT_READS_INPUT_FOR_INPUT,
    .eval_flags = PT_MAY_RUN_IN_PLACE,
    .relu_flags = PT_READS_OUTPUT_FOR_INPUT,
    .saved = saved,
    .forward = forward,
    .backward_input = backward,
};
