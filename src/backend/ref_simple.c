/* Element-wise ops and ops that only move: relu, gelu, flatten, add, concat, dropout. */
#include "ref.h"

#include <string.h>

#include "kernels/elements.h"

static void move(void *to, const void *from, int64_t elements)
{
    if (to != from)
        memmove(to, from, (size_t)elements * sizeof(float));
}

/* ---- relu -------------------------------------------------------------------------------------
 */

/* A NaN stays one, so that a diverging run shows. */
static void relu_forward(const pt_kernel *k, const pt_kernel_args *args)
{
    const float *x = args->dev_in[0];
    float *y = args->dev_out;
    for (int64_t i = 0; i < pt_ref_out_elements(k); i++)
        y[i] = x[i] <= 0 ? 0 : x[i];
}

static void relu_backward(const pt_kernel *k, const pt_kernel_args *args)
{
    const float *y = args->dev_out, *dy = args->dev_d_out;
    float *dx = args->dev_d_in[0];
    if (!dx)
        return;
    for (int64_t i = 0; i < pt_ref_out_elements(k); i++)
        dx[i] = y[i] <= 0 ? 0 : dy[i];
}

const pt_ref_op pt_ref_relu = {
    .train_flags = PT_READS_OUTPUT_FOR_INPUT | PT_MAY_RUN_IN_PLACE,
    .eval_flags = PT_MAY_RUN_IN_PLACE,
    .forward = relu_forward,
    .backward_input = relu_backward,
};

/* ---- gelu ---- */

static void gelu_forward(const pt_kernel *k, const pt_kernel_args *args)
{
    const float *x = args->dev_in[0];
    float *y = args->dev_out;
    for (int64_t i = 0; i < pt_ref_out_elements(k); i++)
        y[i] = (float)pt_element_gelu((double)x[i]);
}

static void gelu_backward(const pt_kernel *k, const pt_kernel_args *args)
{
    const float *x = args->dev_in[0], *dy = args->dev_d_out;
    float *dx = args->dev_d_in[0];
    if (!dx)
        return;
    for (int64_t i = 0; i < pt_ref_out_elements(k); i++)
        dx[i] = (float)((double)dy[i] * pt_element_gelu_slope((double)x[i]));
}

const pt_ref_op pt_ref_gelu = {
    .train_flags = PT_READS_INPUT_FOR_INPUT,
    .eval_flags = PT_MAY_RUN_IN_PLACE,
    .forward = gelu_forward,
    .backward_input = gelu_backward,
};

/* ---- flatten: the bytes stay where they are ----------------------------------------------------
 */

static void flatten_forward(const pt_kernel *k, const pt_kernel_args *args)
{
    move(args->dev_out, args->dev_in[0], pt_ref_out_elements(k));
}

static void flatten_backward(const pt_kernel *k, const pt_kernel_args *args)
{
    if (args->dev_d_in[0])
        move(args->dev_d_in[0], args->dev_d_out, pt_ref_out_elements(k));
}

const pt_ref_op pt_ref_flatten = {
    .train_flags = PT_PASSES_VALUE | PT_PASSES_GRADIENT | PT_MAY_RUN_IN_PLACE,
    .eval_flags = PT_PASSES_VALUE | PT_MAY_RUN_IN_PLACE,
    .forward = flatten_forward,
    .backward_input = flatten_backward,
};

/* ---- add --------------------------------------------------------------------------------------
 */

static void add_forward(const pt_kernel *k, const pt_kernel_args *args)
{
    float *y = args->dev_out;
    for (int64_t i = 0; i < pt_ref_out_elements(k); i++) {
        double sum = 0;
        for (int j = 0; j < k->op.n_inputs; j++)
            sum += (double)((const float *)args->dev_in[j])[i];
        y[i] = (float)sum;
    }
}

static void add_backward(const pt_kernel *k, const pt_kernel_args *args)
{
    for (int j = 0; j < k->op.n_inputs; j++)
        if (args->dev_d_in[j])
            move(args->dev_d_in[j], args->dev_d_out, pt_ref_out_elements(k));
}

const pt_ref_op pt_ref_add = {
    .train_flags = PT_PASSES_GRADIENT | PT_MAY_RUN_IN_PLACE,
    .eval_flags = PT_MAY_RUN_IN_PLACE,
    .forward = add_forward,
    .backward_input = add_backward,
};

/* ---- concat: the rows of each sample, one input after the other --------------------------------
 */

static void concat_forward(const pt_kernel *k, const pt_kernel_args *args)
{
    float *y = args->dev_out;
    for (int n = 0; n < k->samples; n++)
        for (int j = 0; j < k->op.n_inputs; j++) {
            int64_t elements = pt_shape_elements(&k->op.in[j]);
            move(y, (const float *)args->dev_in[j] + n * elements, elements);
            y += elements;
        }
}

static void concat_backward(const pt_kernel *k, const pt_kernel_args *args)
{
    const float *dy = args->dev_d_out;
    for (int n = 0; n < k->samples; n++)
        for (int j = 0; j < k->op.n_inputs; j++) {
            int64_t elements = pt_shape_elements(&k->op.in[j]);
            if (args->dev_d_in[j])
                move((float *)args->dev_d_in[j] + n * elements, dy, elements);
            dy += elements;
        }
}

const pt_ref_op pt_ref_concat = {
    .forward = concat_forward,
    .backward_input = concat_backward,
};

/* ---- dropout ----------------------------------------------------------------------------------
 */

static void dropout_forward(const pt_kernel *k, const pt_kernel_args *args)
{
    if (k->mode == PT_TRAIN)
        pt_cpu_dropout(&k->op, k->samples, args, args->dev_in[0], args->dev_out);
    else
        move(args->dev_out, args->dev_in[0], pt_ref_out_elements(k));
}

static void dropout_backward(const pt_kernel *k, const pt_kernel_args *args)
{
    if (args->dev_d_in[0])
        pt_cpu_dropout(&k->op, k->samples, args, args->dev_d_out, args->dev_d_in[0]);
}

const pt_ref_op pt_ref_dropout = {
    .train_flags = PT_MAY_RUN_IN_PLACE,
    .eval_flags = PT_PASSES_VALUE | PT_MAY_RUN_IN_PLACE,
    .forward = dropout_forward,
    .backward_input = dropout_backward,
};
