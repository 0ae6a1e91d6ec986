/* max-pool, avg-pool, global-avg-pool. A maximum's place in its window is what `saved` holds. */
#include "cuda.h"

typedef struct pool {
    pt_cuda_kernel base;
    pt_cu_window window;
} pool;

/* ---- windows -------------------------------------------------------------------------------- */

static pt_status plan_window(pt_cuda_kernel *k, pt_error *err)
{
    (void)err;
    const pt_op *op = &k->base.op;
    pt_cu_window *w = &((pool *)k)->window;
    *w = (pt_cu_window){
        .samples = k->base.samples,
        .channels = op->in[0].dims[0],
        .in_h = op->in[0].dims[1],
        .in_w = op->in[0].dims[2],
        .out_h = op->out.dims[1],
        .out_w = op->out.dims[2],
    };
    for (int i = 0; i < 2; i++) {
        w->kernel[i] = op->kernel[i];
        w->stride[i] = op->stride[i];
        w->padding[i] = op->padding[i];
    }
    if (op->kind == PT_OP_MAX_POOL && k->base.mode == PT_TRAIN)
        k->base.saved_bytes = (size_t)pt_cuda_elements(k, &op->out) * sizeof(int32_t);
    return PT_OK;
}

static pt_status max_forward(pt_cuda_kernel *k, const pt_kernel_args *args, pt_error *err)
{
    return pt_cuda_check(pt_cu_max_pool(pt_cuda_stream(k), k->out.type, &((pool *)k)->window,
                                        args->dev_in[0], args->dev_out,
                                        k->base.saved_bytes ? args->dev_saved : NULL),
                         &k->base.op, "pt_cu_max_pool", err);
}

static pt_status max_backward(pt_cuda_kernel *k, const pt_kernel_args *args, pt_error *err)
{
    if (!args->dev_d_in[0])
        return PT_OK;
    return pt_cuda_check(pt_cu_max_pool_back(pt_cuda_stream(k), k->out.type, &((pool *)k)->window,
                                             args->dev_saved, args->dev_d_out, args->dev_d_in[0]),
                         &k->base.op, "pt_cu_max_pool_back", err);
}

static pt_status avg_forward(pt_cuda_kernel *k, const pt_kernel_args *args, pt_error *err)
{
    return pt_cuda_check(pt_cu_avg_pool(pt_cuda_stream(k), k->out.type, &((pool *)k)->window,
                                        args->dev_in[0], args->dev_out),
                         &k->base.op, "pt_cu_avg_pool", err);
}

static pt_status avg_backward(pt_cuda_kernel *k, const pt_kernel_args *args, pt_error *err)
{
    if (!args->dev_d_in[0])
        return PT_OK;
    return pt_cuda_check(pt_cu_avg_pool_back(pt_cuda_stream(k), k->out.type, &((pool *)k)->window,
                                             args->dev_d_out, args->dev_d_in[0]),
                         &k->base.op, "pt_cu_avg_pool_back", err);
}

const pt_cuda_kind pt_cuda_kind_max_pool = {
    .bytes = sizeof(pool),
    .plan = plan_window,
    .forward = max_forward,
    .backward_input = max_backward,
};

const pt_cuda_kind pt_cuda_kind_avg_pool = {
    .bytes = sizeof(pool),
    .plan = plan_window,
    .forward = avg_forward,
    .backward_input = avg_backward,
};

/* ---- the whole image ------------------------------------------------------------------------ */

static pt_status global_forward(pt_cuda_kernel *k, const pt_kernel_args *args, pt_error *err)
{
    const pt_cuda_extent e = pt_cuda_extent_of(&k->base.op.in[0]);
    return pt_cuda_check(pt_cu_global_pool(pt_cuda_stream(k), k->out.type, k->base.samples, e.area,
                                           e.channels, args->dev_in[0], args->dev_out),
                         &k->base.op, "pt_cu_global_pool", err);
}

static pt_status global_backward(pt_cuda_kernel *k, const pt_kernel_args *args, pt_error *err)
{
    const pt_cuda_extent e = pt_cuda_extent_of(&k->base.op.in[0]);
    if (!args->dev_d_in[0])
        return PT_OK;
    return pt_cuda_check(pt_cu_global_pool_back(pt_cuda_stream(k), k->out.type, k->base.samples,
                                                e.area, e.channels, args->dev_d_out,
                                                args->dev_d_in[0]),
                         &k->base.op, "pt_cu_global_pool_back", err);
}

const pt_cuda_kind pt_cuda_kind_global_pool = {
    .bytes = sizeof(pt_cuda_kernel),
    .forward = global_forward,
    .backward_input = global_backward,
};
