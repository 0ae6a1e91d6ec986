/* Ops of several inputs: add and concat. */
#include "cuda.h"

/* ---- add ------------------------------------------------------------------------------------ */

static pt_status add_plan(pt_cuda_kernel *k, pt_error *err)
{
    (void)err;
    k->base.flags = PT_MAY_RUN_IN_PLACE;
    if (k->base.mode == PT_TRAIN)
        k->base.flags |= PT_PASSES_GRADIENT;
    return PT_OK;
}

static pt_status add_forward(pt_cuda_kernel *k, const pt_kernel_args *args, pt_error *err)
{
    const pt_op *op = &k->base.op;
    if (op->n_inputs == 1)
        return pt_cuda_copy(k->base.backend, args->dev_out, args->dev_in[0], k->out.base.bytes,
                            err);
    return pt_cuda_check(pt_cu_sum(pt_cuda_stream(k), k->out.type, pt_cuda_elements(k, &op->out),
                                   op->n_inputs, args->dev_in, args->dev_out),
                         op, "pt_cu_sum", err);
}

static pt_status add_backward(pt_cuda_kernel *k, const pt_kernel_args *args, pt_error *err)
{
    for (int i = 0; i < k->base.op.n_inputs; i++)
        if (args->dev_d_in[i])
            PT_TRY(pt_cuda_copy(k->base.backend, args->dev_d_in[i], args->dev_d_out,
                                k->out.base.bytes, err));
    return PT_OK;
}

const pt_cuda_kind pt_cuda_kind_add = {
    .bytes = sizeof(pt_cuda_kernel),
    .plan = add_plan,
    .forward = add_forward,
    .backward_input = add_backward,
};

/* ---- concat --------------------------------------------------------------------------------- */

static pt_status concat_forward(pt_cuda_kernel *k, const pt_kernel_args *args, pt_error *err)
{
    const pt_op *op = &k->base.op;
    const pt_cuda_extent out = pt_cuda_extent_of(&op->out);
    int64_t first = 0;
    for (int i = 0; i < op->n_inputs; i++) {
        int64_t channels = pt_cuda_extent_of(&op->in[i]).channels;
        PT_TRY(
            pt_cuda_check(pt_cu_copy_channels(pt_cuda_stream(k), k->out.type,
                                              k->base.samples * out.area, channels, args->dev_in[i],
                                              channels, 0, args->dev_out, out.channels, first),
                          op, "pt_cu_copy_channels", err));
        first += channels;
    }
    return PT_OK;
}

static pt_status concat_backward(pt_cuda_kernel *k, const pt_kernel_args *args, pt_error *err)
{
    const pt_op *op = &k->base.op;
    const pt_cuda_extent out = pt_cuda_extent_of(&op->out);
    int64_t first = 0;
    for (int i = 0; i < op->n_inputs; i++) {
        int64_t channels = pt_cuda_extent_of(&op->in[i]).channels;
        if (args->dev_d_in[i])
            PT_TRY(pt_cuda_check(pt_cu_copy_channels(pt_cuda_stream(k), k->out.type,
                                                     k->base.samples * out.area, channels,
                                                     args->dev_d_out, out.channels, first,
                                                     args->dev_d_in[i], channels, 0),
                                 op, "pt_cu_copy_channels", err));
        first += channels;
    }
    return PT_OK;
}

const pt_cuda_kind pt_cuda_kind_concat = {
    .bytes = sizeof(pt_cuda_kernel),
    .forward = concat_forward,
    .backward_input = concat_backward,
};
