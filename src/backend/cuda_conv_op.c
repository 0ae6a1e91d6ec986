/* conv2d. cuDNN convolves NHWC values with OHWI weights and makes OHWI gradients, all of the
 * values' type; parameters and their gradients are OIHW in fp32. Bias is added by a kernel of ours,
 * and its gradient is a sum over rows.
 *
 * Evaluation asks for the plan of training's forward: the bits of a value do not depend on the
 * mode. */
#include "cuda.h"

#include <string.h>

typedef struct conv {
    pt_cuda_kernel base;
    pt_cuda_conv *pass[PT_CONV_PASSES];
    pt_cuda_weight weight;
    pt_cuda_turn gradient; /* OHWI of the values' type → OIHW in fp32 */
    int64_t rows;          /* N·H'·W' */
} conv;

/* ---- plan ----------------------------------------------------------------------------------- */

static pt_conv_shape shape_of(const pt_cuda_kernel *k, pt_conv_pass pass)
{
    const pt_op *op = &k->base.op;
    const pt_backend_config *config = &pt_cuda_of(k)->config;
    pt_conv_shape s;
    memset(&s, 0, sizeof s);
    s.n = k->base.samples;
    s.c = op->in[0].dims[0];
    s.h = op->in[0].dims[1];
    s.w = op->in[0].dims[2];
    s.k = op->features;
    s.out_h = op->out.dims[1];
    s.out_w = op->out.dims[2];
    s.r = op->kernel[0];
    s.s = op->kernel[1];
    for (int i = 0; i < 2; i++) {
        s.stride[i] = op->stride[i];
        s.padding[i] = op->padding[i];
    }
    s.groups = op->groups;
    s.pass = (int32_t)pass;
    s.precision = (int32_t)config->precision;
    s.deterministic = config->deterministic;
    return s;
}

static pt_status plan_pass(conv *c, pt_conv_pass pass, pt_error *err)
{
    pt_cuda_kernel *k = &c->base;
    const pt_conv_shape shape = shape_of(k, pass);
    if (pt_cuda_conv_plan(pt_cuda_of(k)->convs, &shape, &c->pass[pass], err) != PT_OK)
        return pt_fail_within(err, "conv2d (layer %u)", k->base.op.layer);
    pt_cuda_need(k, PT_CUDA_ROOM_WORKSPACE, pt_cuda_conv_workspace(c->pass[pass]));
    return PT_OK;
}

static pt_status plan(pt_cuda_kernel *k, pt_error *err)
{
    conv *c = (conv *)k;
    const pt_op *op = &k->base.op;
    const int64_t inputs = op->in[0].dims[0] / op->groups, window = op->kernel[0] * op->kernel[1];
    c->rows = k->base.samples * op->out.dims[1] * op->out.dims[2];
    PT_TRY(plan_pass(c, PT_CONV_FORWARD, err));
    pt_cuda_weight_plan(&c->weight, k, op->features, inputs, window);
    if (k->base.mode == PT_EVAL)
        return PT_OK;
    k->base.flags = PT_READS_INPUT_FOR_WEIGHT | PT_SPLITS_BACKWARD;
    PT_TRY(plan_pass(c, PT_CONV_BACKWARD_INPUT, err));
    PT_TRY(plan_pass(c, PT_CONV_BACKWARD_WEIGHT, err));
    c->gradient = (pt_cuda_turn){.n = op->features,
                                 .rows = window,
                                 .columns = inputs,
                                 .from = k->out.type,
                                 .to = PT_CU_FP32};
    pt_cuda_need(k, PT_CUDA_ROOM_W,
                 (size_t)(op->features * inputs * window) * pt_cuda_type_bytes(k->out.type));
    if (op->bias)
        pt_cuda_need(k, PT_CUDA_ROOM_PARTIALS, pt_cu_partials_bytes(c->rows, op->features));
    return PT_OK;
}

static pt_status build(pt_cuda_kernel *k, pt_error *err)
{
    return pt_cuda_weight_build(&((conv *)k)->weight, k, err);
}

static void clear(pt_cuda_kernel *k)
{
    pt_cuda_weight_clear(&((conv *)k)->weight, k);
}

/* ---- run ------------------------------------------------------------------------------------ */

static pt_status run_pass(conv *c, pt_conv_pass pass, const void *x, const void *w, const void *y,
                          pt_error *err)
{
    const pt_cuda_kernel *k = &c->base;
    if (pt_cuda_conv_run(c->pass[pass], pt_cuda_stream(k), (void *)x, (void *)w, (void *)y,
                         pt_cuda_room_of(k, PT_CUDA_ROOM_WORKSPACE), err) != PT_OK)
        return pt_fail_within(err, "conv2d (layer %u)", k->base.op.layer);
    return PT_OK;
}

static pt_status forward(pt_cuda_kernel *k, const pt_kernel_args *args, pt_error *err)
{
    conv *c = (conv *)k;
    const pt_op *op = &k->base.op;
    const void *weight;
    PT_TRY(pt_cuda_weight_take(&c->weight, k, args, &weight, err));
    PT_TRY(run_pass(c, PT_CONV_FORWARD, args->dev_in[0], weight, args->dev_out, err));
    if (!op->bias)
        return PT_OK;
    return pt_cuda_check(pt_cu_bias(pt_cuda_stream(k), k->out.type, c->rows, op->features,
                                    args->dev_param[1], args->dev_out),
                         op, "pt_cu_bias", err);
}

static pt_status backward_input(pt_cuda_kernel *k, const pt_kernel_args *args, pt_error *err)
{
    conv *c = (conv *)k;
    const void *weight;
    if (!args->dev_d_in[0])
        return PT_OK;
    PT_TRY(pt_cuda_weight_take(&c->weight, k, args, &weight, err));
    return run_pass(c, PT_CONV_BACKWARD_INPUT, args->dev_d_in[0], weight, args->dev_d_out, err);
}

/* cuDNN overwrites: it writes the gradient itself where type and order agree and nothing is added.
 */
static pt_status backward_weight(pt_cuda_kernel *k, const pt_kernel_args *args, pt_error *err)
{
    conv *c = (conv *)k;
    const pt_op *op = &k->base.op;
    pt_cuda_turn turn = c->gradient;
    turn.accumulate = args->accumulate;
    bool direct = !turn.accumulate && turn.from == turn.to && (turn.rows == 1 || turn.columns == 1);
    void *made = direct ? args->dev_d_param[0] : pt_cuda_room_of(k, PT_CUDA_ROOM_W);
    PT_TRY(run_pass(c, PT_CONV_BACKWARD_WEIGHT, args->dev_in[0], made, args->dev_d_out, err));
    if (!direct)
        PT_TRY(pt_cuda_turn_run(pt_cuda_of(k), op, &turn, made, args->dev_d_param[0], err));
    if (!op->bias)
        return PT_OK;
    return pt_cuda_check(pt_cu_bias_back(pt_cuda_stream(k), k->out.type, c->rows, op->features,
                                         args->dev_d_out, args->dev_d_param[1], args->accumulate,
                                         pt_cuda_room_of(k, PT_CUDA_ROOM_PARTIALS)),
                         op, "pt_cu_bias_back", err);
}

const pt_cuda_kind pt_cuda_kind_conv = {
    .bytes = sizeof(conv),
    .plan = plan,
    .build = build,
    .clear = clear,
    .forward = forward,
    .backward_input = backward_input,
    .backward_weight = backward_weight,
};
