/* conv2d. Groups are a dimension of their own in the library's weights (G, O/G, C/G, KH, KW), which
 * is the same plain memory as PyTorch's (O, C/G, KH, KW).
 *
 * Evaluation asks for the forward of training as well: the one for inference is no faster and
 * prefers other layouts, while a value's layout should not depend on the mode. */
#include "onednn.h"

static pt_status ask(pt_dnn_weighted *w, pt_dnn_pass pass, const dnnl_memory_desc_t *src,
                     const dnnl_memory_desc_t *dst, pt_dnn_call *ret_call, pt_error *err)
{
    const pt_op *op = &w->base.base.op;
    const dnnl_dims_t strides = {op->stride[0], op->stride[1]};
    const dnnl_dims_t padding = {op->padding[0], op->padding[1]};
    const dnnl_dims_t bias_dims = {op->features};
    const dnnl_alg_kind_t how = dnnl_convolution_direct;
    dnnl_memory_desc_t weight, bias;
    dnnl_convolution_desc_t desc;
    dnnl_status_t status = dnnl_memory_desc_init_by_tag(&weight, w->weight.ndims, w->weight.dims,
                                                        dnnl_f32, dnnl_format_tag_any);
    if (status == dnnl_success)
        status = dnnl_memory_desc_init_by_tag(&bias, 1, bias_dims, dnnl_f32, dnnl_a);
    const dnnl_memory_desc_t *b = op->bias ? &bias : NULL;
    if (status == dnnl_success && pass == PT_DNN_FORWARD)
        status = dnnl_convolution_forward_desc_init(&desc, dnnl_forward_training, how, src, &weight,
                                                    b, dst, strides, padding, padding);
    else if (status == dnnl_success && pass == PT_DNN_DATA)
        status = dnnl_convolution_backward_data_desc_init(&desc, how, src, &weight, dst, strides,
                                                          padding, padding);
    else if (status == dnnl_success)
        status = dnnl_convolution_backward_weights_desc_init(&desc, how, src, &weight, b, dst,
                                                             strides, padding, padding);
    PT_TRY(pt_dnn_check(status, op, "convolution", err));
    return pt_dnn_call_plan(ret_call, pt_dnn_of(&w->base), op, "convolution", &desc,
                            pass == PT_DNN_FORWARD ? NULL : &w->pass[PT_DNN_FORWARD].call, err);
}

static pt_status plan(pt_dnn_kernel *k, pt_error *err)
{
    pt_dnn_weighted *w = (pt_dnn_weighted *)k;
    const pt_op *op = &k->base.op;
    const int64_t g = op->groups, o = op->features, c = op->in[0].dims[0];
    const dnnl_dims_t grouped = {g, o / g, c / g, op->kernel[0], op->kernel[1]};
    const dnnl_dims_t whole = {o, c, op->kernel[0], op->kernel[1]};
    PT_TRY(pt_dnn_check(dnnl_memory_desc_init_by_tag(&w->weight, g > 1 ? 5 : 4,
                                                     g > 1 ? grouped : whole, dnnl_f32,
                                                     g > 1 ? dnnl_goihw : dnnl_oihw),
                        op, "weights", err));
    PT_TRY(pt_dnn_image(&op->in[0], k->base.samples, dnnl_format_tag_any, &w->src, err));
    PT_TRY(pt_dnn_image(&op->out, k->base.samples, dnnl_format_tag_any, &w->dst, err));
    w->ask = ask;
    return pt_dnn_weighted_plan(w, err);
}

const pt_dnn_kind pt_dnn_conv = {
    .bytes = sizeof(pt_dnn_weighted),
    .plan = plan,
    .build = pt_dnn_weighted_build,
    .clear = pt_dnn_weighted_clear,
    .forward = pt_dnn_weighted_forward,
    .backward_input = pt_dnn_weighted_backward_input,
    .backward_weight = pt_dnn_weighted_backward_weight,
};
