/* Ops of one input without parameters: relu, gelu, flatten, dropout. */
#include "cuda.h"

/* ---- relu, gelu ----------------------------------------------------------------------------- */

static pt_status relu_plan(pt_cuda_kernel *k, pt_error *err)
{
    (void)err;
    k->base.flags = PT_MAY_RUN_IN_PLACE;
    if (k->base.mode == PT_TRAIN)
        k->base.flags |= PT_READS_OUTPUT_FOR_INPUT;
    return PT_OK;
}

static pt_status relu_forward(pt_cuda_kernel *k, const pt_kernel_args *args, pt_error *err)
{
    return pt_cuda_check(pt_cu_relu(pt_cuda_stream(k), k->out.type,
                                    pt_cuda_elements(k, &k->base.op.out), args->dev_in[0],
                                    args->dev_out),
                         &k->base.op, "pt_cu_relu", err);
}

static pt_status relu_backward(pt_cuda_kernel *k, const pt_kernel_args *args, pt_error *err)
{
    if (!args->dev_d_in[0])
        return PT_OK;
    return pt_cuda_check(pt_cu_relu_back(pt_cuda_stream(k), k->out.type,
                                         pt_cuda_elements(k, &k->base.op.out), args->dev_out,
                                         args->dev_d_out, args->dev_d_in[0]),
                         &k->base.op, "pt_cu_relu_back", err);
}

const pt_cuda_kind pt_cuda_kind_relu = {
    .bytes = sizeof(pt_cuda_kernel),
    .plan = relu_plan,
    .forward = relu_forward,
    .backward_input = relu_backward,
};

/* In training the input is read again, so that it is not overwritten. */
static pt_status gelu_plan(pt_cuda_kernel *k, pt_error *err)
{
    (void)err;
    k->base.flags = k->base.mode == PT_TRAIN ? PT_READS_INPUT_FOR_INPUT : PT_MAY_RUN_IN_PLACE;
    return PT_OK;
}

static pt_status gelu_forward(pt_cuda_kernel *k, const pt_kernel_args *args, pt_error *err)
{
    return pt_cuda_check(pt_cu_gelu(pt_cuda_stream(k), k->out.type,
                                    pt_cuda_elements(k, &k->base.op.out), args->dev_in[0],
                                    args->dev_out),
                         &k->base.op, "pt_cu_gelu", err);
}

static pt_status gelu_backward(pt_cuda_kernel *k, const pt_kernel_args *args, pt_error *err)
{
    if (!args->dev_d_in[0])
        return PT_OK;
    return pt_cuda_check(pt_cu_gelu_back(pt_cuda_stream(k), k->out.type,
                                         pt_cuda_elements(k, &k->base.op.out), args->dev_in[0],
                                         args->dev_d_out, args->dev_d_in[0]),
                         &k->base.op, "pt_cu_gelu_back", err);
}

const pt_cuda_kind pt_cuda_kind_gelu = {
    .bytes = sizeof(pt_cuda_kernel),
    .plan = gelu_plan,
    .forward = gelu_forward,
    .backward_input = gelu_backward,
};

/* ---- flatten -------------------------------------------------------------------------------- */

/* Takes values from outside as they lie: an image that is plain already is flat. */
static pt_status flatten_plan(pt_cuda_kernel *k, pt_error *err)
{
    (void)err;
    if (k->in[0]->channels_last || k->in[0]->type != k->out.type)
        return PT_OK;
    k->base.flags = PT_PASSES_VALUE | PT_MAY_RUN_IN_PLACE;
    if (k->base.mode == PT_TRAIN)
        k->base.flags |= PT_PASSES_GRADIENT;
    return PT_OK;
}

/* The output as an image in CHW order: what `move` is to make of the input. */
static pt_cuda_layout flat_image(const pt_cuda_kernel *k)
{
    return pt_cuda_layout_of(&k->base.op.in[0], k->base.samples, k->out.type,
                             /*channels_last=*/false);
}

static pt_status flatten_forward(pt_cuda_kernel *k, const pt_kernel_args *args, pt_error *err)
{
    const pt_op *op = &k->base.op;
    const pt_cuda_layout flat = flat_image(k);
    return pt_cuda_move(pt_cuda_of(k), op, &op->in[0], k->base.samples, k->in[0], args->dev_in[0],
                        &flat, args->dev_out, err);
}

static pt_status flatten_backward(pt_cuda_kernel *k, const pt_kernel_args *args, pt_error *err)
{
    const pt_op *op = &k->base.op;
    const pt_cuda_layout flat = flat_image(k);
    if (!args->dev_d_in[0])
        return PT_OK;
    return pt_cuda_move(pt_cuda_of(k), op, &op->in[0], k->base.samples, &flat, args->dev_d_out,
                        k->in[0], args->dev_d_in[0], err);
}

const pt_cuda_kind pt_cuda_kind_flatten = {
    .bytes = sizeof(pt_cuda_kernel),
    .any_layout = true,
    .plan = flatten_plan,
    .forward = flatten_forward,
    .backward_input = flatten_backward,
};

/* ---- dropout -------------------------------------------------------------------------------- */

static pt_status dropout_plan(pt_cuda_kernel *k, pt_error *err)
{
    (void)err;
    k->base.flags = PT_MAY_RUN_IN_PLACE;
    if (k->base.mode == PT_EVAL)
        k->base.flags |= PT_PASSES_VALUE;
    return PT_OK;
}

/* The mask is remade from the counters: the gradient is the same map. */
static pt_status drop(pt_cuda_kernel *k, const pt_kernel_args *args, const void *x, void *y,
                      pt_error *err)
{
    const pt_op *op = &k->base.op;
    const pt_cuda_extent e = pt_cuda_extent_of(&op->in[0]);
    const pt_cu_dropout_spec spec = {
        .samples = k->base.samples,
        .area = e.area,
        .channels = e.channels,
        .p = op->p,
        .seed = args->seed,
        .layer = op->layer,
        .epoch = args->epoch,
        .sample = args->dev_sample,
    };
    return pt_cuda_check(pt_cu_dropout(pt_cuda_stream(k), k->out.type, &spec, x, y), op,
                         "pt_cu_dropout", err);
}

static pt_status dropout_forward(pt_cuda_kernel *k, const pt_kernel_args *args, pt_error *err)
{
    if (k->base.mode == PT_EVAL)
        return pt_cuda_copy(k->base.backend, args->dev_out, args->dev_in[0], k->out.base.bytes,
                            err);
    return drop(k, args, args->dev_in[0], args->dev_out, err);
}

static pt_status dropout_backward(pt_cuda_kernel *k, const pt_kernel_args *args, pt_error *err)
{
    if (!args->dev_d_in[0])
        return PT_OK;
    return drop(k, args, args->dev_d_out, args->dev_d_in[0], err);
}

const pt_cuda_kind pt_cuda_kind_dropout = {
    .bytes = sizeof(pt_cuda_kernel),
    .plan = dropout_plan,
    .forward = dropout_forward,
    .backward_input = dropout_backward,
};
