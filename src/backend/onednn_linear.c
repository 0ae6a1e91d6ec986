/* linear: an inner product of plain rows. Only the weights' layout is the library's choice. */
#include "onednn.h"

static pt_status ask(pt_dnn_weighted *w, pt_dnn_pass pass, const dnnl_memory_desc_t *src,
                     const dnnl_memory_desc_t *dst, pt_dnn_call *ret_call, pt_error *err)
{
    const pt_op *op = &w->base.base.op;
    const dnnl_dims_t bias_dims = {op->features};
    dnnl_memory_desc_t weight, bias;
    dnnl_inner_product_desc_t desc;
    dnnl_status_t status = dnnl_memory_desc_init_by_tag(&weight, w->weight.ndims, w->weight.dims,
                                                        dnnl_f32, dnnl_format_tag_any);
    if (status == dnnl_success)
        status = dnnl_memory_desc_init_by_tag(&bias, 1, bias_dims, dnnl_f32, dnnl_a);
    const dnnl_memory_desc_t *b = op->bias ? &bias : NULL;
    if (status == dnnl_success && pass == PT_DNN_FORWARD)
        status = dnnl_inner_product_forward_desc_init(&desc, dnnl_forward_training, src, &weight, b,
                                                      dst);
    else if (status == dnnl_success && pass == PT_DNN_DATA)
        status = dnnl_inner_product_backward_data_desc_init(&desc, src, &weight, dst);
    else if (status == dnnl_success)
        status = dnnl_inner_product_backward_weights_desc_init(&desc, src, &weight, b, dst);
    PT_TRY(pt_dnn_check(status, op, "inner product", err));
    return pt_dnn_call_plan(ret_call, pt_dnn_of(&w->base), op, "inner product", &desc,
                            pass == PT_DNN_FORWARD ? NULL : &w->pass[PT_DNN_FORWARD].call, err);
}

static pt_status plan(pt_dnn_kernel *k, pt_error *err)
{
    pt_dnn_weighted *w = (pt_dnn_weighted *)k;
    const pt_op *op = &k->base.op;
    const dnnl_dims_t dims = {op->features, op->in[0].dims[0]};
    PT_TRY(pt_dnn_check(dnnl_memory_desc_init_by_tag(&w->weight, 2, dims, dnnl_f32, dnnl_oi), op,
                        "weights", err));
    PT_TRY(pt_dnn_plain(&op->in[0], k->base.samples, &w->src, err));
    PT_TRY(pt_dnn_plain(&op->out, k->base.samples, &w->dst, err));
    w->ask = ask;
    return pt_dnn_weighted_plan(w, err);
}

const pt_dnn_kind pt_dnn_linear = {
    .bytes = sizeof(pt_dnn_weighted),
    .plan = plan,
    .build = pt_dnn_weighted_build,
    .clear = pt_dnn_weighted_clear,
    .forward = pt_dnn_weighted_forward,
    .backward_input = pt_dnn_weighted_backward_input,
    .backward_weight = pt_dnn_weighted_backward_weight,
};
