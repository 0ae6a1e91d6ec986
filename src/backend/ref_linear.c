/* linear: y[n,o] = b[o] + sum_i x[n,i] w[o,i]     x (N,I)  w (O,I)  b (O)  y (N,O) */
#include "ref.h"

static void forward_sample(void *context, int n)
{
    const pt_ref_job *job = context;
    const int64_t inputs = job->k->op.in[0].dims[0], outputs = job->k->op.features;
    const float *x = (const float *)job->args->dev_in[0] + n * inputs;
    const float *w = job->args->dev_param[0], *b = job->args->dev_param[1];
    float *y = (float *)job->args->dev_out + n * outputs;
    for (int64_t o = 0; o < outputs; o++) {
        double sum = job->k->op.bias ? (double)b[o] : 0;
        for (int64_t i = 0; i < inputs; i++)
            sum += (double)x[i] * (double)w[o * inputs + i];
        y[o] = (float)sum;
    }
}

static void forward(const pt_kernel *k, const pt_kernel_args *args)
{
    pt_ref_parallel(k, args, k->samples, forward_sample);
}

/* dx[n,i] = sum_o dy[n,o] w[o,i] */
static void backward_sample(void *context, int n)
{
    const pt_ref_job *job = context;
    const int64_t inputs = job->k->op.in[0].dims[0], outputs = job->k->op.features;
    const float *dy = (const float *)job->args->dev_d_out + n * outputs;
    const float *w = job->args->dev_param[0];
    float *dx = (float *)job->args->dev_d_in[0] + n * inputs;
    for (int64_t i = 0; i < inputs; i++) {
        double sum = 0;
        for (int64_t o = 0; o < outputs; o++)
            sum += (double)dy[o] * (double)w[o * inputs + i];
        dx[i] = (float)sum;
    }
}

static void backward_input(const pt_kernel *k, const pt_kernel_args *args)
{
    if (args->dev_d_in[0])
        pt_ref_parallel(k, args, k->samples, backward_sample);
}

/* dw[o,i] = sum_n dy[n,o] x[n,i]     db[o] = sum_n dy[n,o] */
static void backward_output(void *context, int o)
{
    const pt_ref_job *job = context;
    const pt_kernel_args *args = job->args;
    const int64_t inputs = job->k->op.in[0].dims[0], outputs = job->k->op.features;
    const float *x = args->dev_in[0], *dy = args->dev_d_out;
    for (int64_t i = 0; i < inputs; i++) {
        double sum = 0;
        for (int64_t n = 0; n < job->k->samples; n++)
            sum += (double)dy[n * outputs + o] * (double)x[n * inputs + i];
        pt_ref_store(&args->dev_d_param[0][o * inputs + i], sum, args->accumulate);
    }
    if (!job->k->op.bias)
        return;
    double sum = 0;
    for (int64_t n = 0; n < job->k->samples; n++)
        sum += (double)dy[n * outputs + o];
    pt_ref_store(&args->dev_d_param[1][o], sum, args->accumulate);
}

static void backward_weight(const pt_kernel *k, const pt_kernel_args *args)
{
    pt_ref_parallel(k, args, k->op.features, backward_output);
}

const pt_ref_op pt_ref_linear = {
    .train_flags = PT_READS_INPUT_FOR_WEIGHT | PT_SPLITS_BACKWARD,
    .forward = forward,
    .backward_input = backward_input,
    .backward_weight = backward_weight,
};
