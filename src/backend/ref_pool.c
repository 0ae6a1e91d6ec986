/* Pools: maximum or mean of each window, and the mean of a whole channel.   x (N,C,H,W)
 *
 * A task is one plane: one channel of one sample. */
#include "ref.h"

#include <math.h>
#include <string.h>

/* Sizes under short names, and one plane's place. */
typedef struct plane {
    int64_t H, W, OH, OW;
    int64_t in, out; /* first element of the plane in the input and the output */
} plane;

static plane plane_of(const pt_kernel *k, int index)
{
    const pt_shape *in = &k->op.in[0], *out = &k->op.out;
    return (plane){in->dims[1],
                   in->dims[2],
                   out->dims[1],
                   out->dims[2],
                   index * in->dims[1] * in->dims[2],
                   index * out->dims[1] * out->dims[2]};
}

/* The part of a window that lies inside the input, [begin, end) in rows or columns. */
static void window(int64_t at, int64_t kernel, int64_t stride, int64_t padding, int64_t size,
                   int64_t *ret_begin, int64_t *ret_end)
{
    int64_t begin = at * stride - padding, end = begin + kernel;
    *ret_begin = begin < 0 ? 0 : begin;
    *ret_end = end > size ? size : end;
}

typedef struct box {
    int64_t top, bottom, left, right; /* bottom and right are excluded */
} box;

static box window_of(const pt_op *op, const plane *p, int64_t oh, int64_t ow)
{
    box b;
    window(oh, op->kernel[0], op->stride[0], op->padding[0], p->H, &b.top, &b.bottom);
    window(ow, op->kernel[1], op->stride[1], op->padding[1], p->W, &b.left, &b.right);
    return b;
}

static void parallel(const pt_kernel *k, const pt_kernel_args *args, void (*body)(void *, int))
{
    pt_ref_parallel(k, args, k->samples * k->op.in[0].dims[0], body);
}

/* ---- maximum: saves the index of the winner within its plane, int32 for each output ------------
 */

/* A NaN wins, so that a diverging run shows. */
static int64_t first_max(const float *x, const box *b, int64_t width)
{
    int64_t best = b->top * width + b->left;
    for (int64_t h = b->top; h < b->bottom; h++)
        for (int64_t w = b->left; w < b->right; w++) {
            int64_t i = h * width + w;
            if (x[i] > x[best] || (isnan(x[i]) && !isnan(x[best])))
                best = i;
        }
    return best;
}

static void max_forward_plane(void *context, int index)
{
    const pt_ref_job *job = context;
    const plane p = plane_of(job->k, index);
    const float *x = (const float *)job->args->dev_in[0] + p.in;
    float *y = (float *)job->args->dev_out + p.out;
    int32_t *winner = job->k->mode == PT_TRAIN ? (int32_t *)job->args->dev_saved + p.out : NULL;
    for (int64_t oh = 0; oh < p.OH; oh++)
        for (int64_t ow = 0; ow < p.OW; ow++) {
            box b = window_of(&job->k->op, &p, oh, ow);
            int64_t best = first_max(x, &b, p.W);
            y[oh * p.OW + ow] = x[best];
            if (winner)
                winner[oh * p.OW + ow] = (int32_t)best;
        }
}

static void max_forward(const pt_kernel *k, const pt_kernel_args *args)
{
    parallel(k, args, max_forward_plane);
}

/* Overlapping windows may share a winner: its gradient is the sum of theirs. */
static void max_backward_plane(void *context, int index)
{
    const pt_ref_job *job = context;
    const plane p = plane_of(job->k, index);
    const float *dy = (const float *)job->args->dev_d_out + p.out;
    const int32_t *winner = (const int32_t *)job->args->dev_saved + p.out;
    float *dx = (float *)job->args->dev_d_in[0] + p.in;
    memset(dx, 0, (size_t)(p.H * p.W) * sizeof *dx);
    for (int64_t i = 0; i < p.OH * p.OW; i++)
        dx[winner[i]] += dy[i];
}

static void max_backward(const pt_kernel *k, const pt_kernel_args *args)
{
    if (args->dev_d_in[0])
        parallel(k, args, max_backward_plane);
}

static size_t max_saved(const pt_op *op, int samples)
{
    return (size_t)samples * (size_t)pt_shape_elements(&op->out) * sizeof(int32_t);
}

const pt_ref_op pt_ref_max_pool = {
    .saved = max_saved,
    .forward = max_forward,
    .backward_input = max_backward,
};

/* ---- mean: padding counts, so the divisor is always the whole kernel ---------------------------
 */

static void avg_forward_plane(void *context, int index)
{
    const pt_ref_job *job = context;
    const pt_op *op = &job->k->op;
    const plane p = plane_of(job->k, index);
    const float *x = (const float *)job->args->dev_in[0] + p.in;
    float *y = (float *)job->args->dev_out + p.out;
    for (int64_t oh = 0; oh < p.OH; oh++)
        for (int64_t ow = 0; ow < p.OW; ow++) {
            box b = window_of(op, &p, oh, ow);
            double sum = 0;
            for (int64_t h = b.top; h < b.bottom; h++)
                for (int64_t w = b.left; w < b.right; w++)
                    sum += (double)x[h * p.W + w];
            y[oh * p.OW + ow] = (float)(sum / (double)(op->kernel[0] * op->kernel[1]));
        }
}

static void avg_forward(const pt_kernel *k, const pt_kernel_args *args)
{
    parallel(k, args, avg_forward_plane);
}

/* First and last output whose window holds input position `at`. */
static void windows_over(int64_t at, int64_t kernel, int64_t stride, int64_t padding,
                         int64_t outputs, int64_t *ret_begin, int64_t *ret_end)
{
    int64_t top = at + padding - kernel; /* the last window start that ends before `at` */
    *ret_begin = top < 0 ? 0 : top / stride + 1;
    int64_t end = (at + padding) / stride + 1;
    *ret_end = end > outputs ? outputs : end;
}

static void avg_backward_plane(void *context, int index)
{
    const pt_ref_job *job = context;
    const pt_op *op = &job->k->op;
    const plane p = plane_of(job->k, index);
    const float *dy = (const float *)job->args->dev_d_out + p.out;
    float *dx = (float *)job->args->dev_d_in[0] + p.in;
    for (int64_t h = 0; h < p.H; h++)
        for (int64_t w = 0; w < p.W; w++) {
            box b;
            windows_over(h, op->kernel[0], op->stride[0], op->padding[0], p.OH, &b.top, &b.bottom);
            windows_over(w, op->kernel[1], op->stride[1], op->padding[1], p.OW, &b.left, &b.right);
            double sum = 0;
            for (int64_t oh = b.top; oh < b.bottom; oh++)
                for (int64_t ow = b.left; ow < b.right; ow++)
                    sum += (double)dy[oh * p.OW + ow];
            dx[h * p.W + w] = (float)(sum / (double)(op->kernel[0] * op->kernel[1]));
        }
}

static void avg_backward(const pt_kernel *k, const pt_kernel_args *args)
{
    if (args->dev_d_in[0])
        parallel(k, args, avg_backward_plane);
}

const pt_ref_op pt_ref_avg_pool = {
    .forward = avg_forward,
    .backward_input = avg_backward,
};

/* ---- mean of the whole plane ------------------------------------------------------------------
 */

static void global_forward_plane(void *context, int index)
{
    const pt_ref_job *job = context;
    const int64_t area = job->k->op.in[0].dims[1] * job->k->op.in[0].dims[2];
    const float *x = (const float *)job->args->dev_in[0] + index * area;
    double sum = 0;
    for (int64_t e = 0; e < area; e++)
        sum += (double)x[e];
    ((float *)job->args->dev_out)[index] = (float)(sum / (double)area);
}

static void global_forward(const pt_kernel *k, const pt_kernel_args *args)
{
    parallel(k, args, global_forward_plane);
}

static void global_backward_plane(void *context, int index)
{
    const pt_ref_job *job = context;
    const int64_t area = job->k->op.in[0].dims[1] * job->k->op.in[0].dims[2];
    const float *dy = job->args->dev_d_out;
    float *dx = (float *)job->args->dev_d_in[0] + index * area;
    float share = (float)((double)dy[index] / (double)area);
    for (int64_t e = 0; e < area; e++)
        dx[e] = share;
}

static void global_backward(const pt_kernel *k, const pt_kernel_args *args)
{
    if (args->dev_d_in[0])
        parallel(k, args, global_backward_plane);
}

const pt_ref_op pt_ref_global_avg_pool = {
    .forward = global_forward,
    .backward_input = global_backward,
};
