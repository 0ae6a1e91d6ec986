/* conv2d:
 *
 *   y[n,o,h,w] = b[o] + sum_{i,u,v} x[n, i + g·C/G, h·S+u-P, w·S+v-P] · wt[o,i,u,v]
 *
 *   x (N,C,H,W)  wt (O,C/G,KH,KW)  b (O)  y (N,O,H',W')   g = group of o
 *
 * The three passes are the same sum read from three sides, so each walks the same pairs of an
 * output and an input position; each element of a result has one sum of its own, in a fixed order.
 */
#include "ref.h"

/* The sizes of one convolution under short names, and where its tensors are. */
typedef struct conv {
    int64_t N, C, H, W, O, OH, OW, KH, KW, SH, SW, PH, PW;
    int64_t CG, OG; /* input and output channels of one group */
} conv;

static conv conv_of(const pt_kernel *k)
{
    const pt_op *op = &k->op;
    return (conv){
        .N = k->samples,
        .C = op->in[0].dims[0],
        .H = op->in[0].dims[1],
        .W = op->in[0].dims[2],
        .O = op->features,
        .OH = op->out.dims[1],
        .OW = op->out.dims[2],
        .KH = op->kernel[0],
        .KW = op->kernel[1],
        .SH = op->stride[0],
        .SW = op->stride[1],
        .PH = op->padding[0],
        .PW = op->padding[1],
        .CG = op->in[0].dims[0] / op->groups,
        .OG = op->features / op->groups,
    };
}

/* sum_{i,u,v} of one output element; x and wt begin at the group's first channel. */
static double window_sum(const conv *c, const float *x, const float *wt, int64_t oh, int64_t ow)
{
    double sum = 0;
    for (int64_t i = 0; i < c->CG; i++)
        for (int64_t u = 0; u < c->KH; u++) {
            int64_t h = oh * c->SH + u - c->PH;
            if (h < 0 || h >= c->H)
                continue;
            for (int64_t v = 0; v < c->KW; v++) {
                int64_t w = ow * c->SW + v - c->PW;
                if (w >= 0 && w < c->W)
                    sum += (double)x[(i * c->H + h) * c->W + w] *
                           (double)wt[(i * c->KH + u) * c->KW + v];
            }
        }
    return sum;
}

/* One image of one output channel. */
static void forward_plane(void *context, int index)
{
    const pt_ref_job *job = context;
    const conv c = conv_of(job->k);
    const int64_t n = index / c.O, o = index % c.O, g = o / c.OG;
    const float *x = (const float *)job->args->dev_in[0] + (n * c.C + g * c.CG) * c.H * c.W;
    const float *wt = job->args->dev_param[0] + o * c.CG * c.KH * c.KW;
    const double bias = job->k->op.bias ? (double)job->args->dev_param[1][o] : 0;
    float *y = (float *)job->args->dev_out + index * c.OH * c.OW;
    for (int64_t oh = 0; oh < c.OH; oh++)
        for (int64_t ow = 0; ow < c.OW; ow++)
            y[oh * c.OW + ow] = (float)(bias + window_sum(&c, x, wt, oh, ow));
}

static void forward(const pt_kernel *k, const pt_kernel_args *args)
{
    pt_ref_parallel(k, args, k->samples * k->op.features, forward_plane);
}

/* The output row (column) whose window has input position `at` under kernel position `u`, or -1. */
static int64_t output_at(int64_t at, int64_t u, int64_t stride, int64_t padding, int64_t outputs)
{
    int64_t scaled = at + padding - u;
    if (scaled < 0 || scaled % stride != 0 || scaled / stride >= outputs)
        return -1;
    return scaled / stride;
}

/* dx[n,c,h,w] = sum_{o,u,v} dy[n,o,oh,ow] · wt[o,i,u,v] over the windows that see (h,w); dy begins
 * at the group's first output channel, wt there too at the input channel within the group. */
static double gradient_sum(const conv *c, const float *dy, const float *wt, int64_t h, int64_t w)
{
    double sum = 0;
    for (int64_t o = 0; o < c->OG; o++)
        for (int64_t u = 0; u < c->KH; u++) {
            int64_t oh = output_at(h, u, c->SH, c->PH, c->OH);
            if (oh < 0)
                continue;
            for (int64_t v = 0; v < c->KW; v++) {
                int64_t ow = output_at(w, v, c->SW, c->PW, c->OW);
                if (ow >= 0)
                    sum += (double)dy[(o * c->OH + oh) * c->OW + ow] *
                           (double)wt[(o * c->CG * c->KH + u) * c->KW + v];
            }
        }
    return sum;
}

/* One image of one input channel. */
static void backward_plane(void *context, int index)
{
    const pt_ref_job *job = context;
    const conv c = conv_of(job->k);
    const int64_t n = index / c.C, channel = index % c.C, g = channel / c.CG, i = channel % c.CG;
    const float *dy = (const float *)job->args->dev_d_out + (n * c.O + g * c.OG) * c.OH * c.OW;
    const float *wt = job->args->dev_param[0] + (g * c.OG * c.CG + i) * c.KH * c.KW;
    float *dx = (float *)job->args->dev_d_in[0] + index * c.H * c.W;
    for (int64_t h = 0; h < c.H; h++)
        for (int64_t w = 0; w < c.W; w++)
            dx[h * c.W + w] = (float)gradient_sum(&c, dy, wt, h, w);
}

static void backward_input(const pt_kernel *k, const pt_kernel_args *args)
{
    if (args->dev_d_in[0])
        pt_ref_parallel(k, args, k->samples * k->op.in[0].dims[0], backward_plane);
}

/* dwt[o,i,u,v] = sum_{n,oh,ow} dy[n,o,oh,ow] · x[n,c,h,w]; x begins at channel c of sample 0, dy at
 * channel o of sample 0. */
static double weight_sum(const conv *c, const float *x, const float *dy, int64_t u, int64_t v)
{
    double sum = 0;
    for (int64_t n = 0; n < c->N; n++, x += c->C * c->H * c->W, dy += c->O * c->OH * c->OW)
        for (int64_t oh = 0; oh < c->OH; oh++) {
            int64_t h = oh * c->SH + u - c->PH;
            if (h < 0 || h >= c->H)
                continue;
            for (int64_t ow = 0; ow < c->OW; ow++) {
                int64_t w = ow * c->SW + v - c->PW;
                if (w >= 0 && w < c->W)
                    sum += (double)dy[oh * c->OW + ow] * (double)x[h * c->W + w];
            }
        }
    return sum;
}

/* db[o] = sum_{n,oh,ow} dy[n,o,oh,ow] */
static double bias_sum(const conv *c, const float *dy)
{
    double sum = 0;
    for (int64_t n = 0; n < c->N; n++, dy += c->O * c->OH * c->OW)
        for (int64_t e = 0; e < c->OH * c->OW; e++)
            sum += (double)dy[e];
    return sum;
}

/* All weights that make one output channel. */
static void backward_channel(void *context, int o)
{
    const pt_ref_job *job = context;
    const pt_kernel_args *args = job->args;
    const conv c = conv_of(job->k);
    const float *x = (const float *)args->dev_in[0] + o / c.OG * c.CG * c.H * c.W;
    const float *dy = (const float *)args->dev_d_out + o * c.OH * c.OW;
    float *dwt = args->dev_d_param[0] + o * c.CG * c.KH * c.KW;
    for (int64_t i = 0; i < c.CG; i++)
        for (int64_t u = 0; u < c.KH; u++)
            for (int64_t v = 0; v < c.KW; v++, dwt++)
                pt_ref_store(dwt, weight_sum(&c, x + i * c.H * c.W, dy, u, v), args->accumulate);
    if (job->k->op.bias)
        pt_ref_store(&args->dev_d_param[1][o], bias_sum(&c, dy), args->accumulate);
}

static void backward_weight(const pt_kernel *k, const pt_kernel_args *args)
{
    pt_ref_parallel(k, args, k->op.features, backward_channel);
}

const pt_ref_op pt_ref_conv2d = {
    .train_flags = PT_READS_INPUT_FOR_WEIGHT | PT_SPLITS_BACKWARD,
    .forward = forward,
    .backward_input = backward_input,
    .backward_weight = backward_weight,
};
