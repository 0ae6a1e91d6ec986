/* The primitives of each kind of layer. */
#include "floor.h"

typedef struct window {
    dnnl_dims_t kernel, stride, padding;
} window;

static window window_of(const pt_op *op)
{
    bool whole = op->kind == PT_OP_GLOBAL_AVG_POOL;
    window w = {{0}, {0}, {0}};
    for (int i = 0; i < 2; i++) {
        w.kernel[i] = whole ? op->in[0].dims[i + 1] : op->kernel[i];
        w.stride[i] = whole ? 1 : op->stride[i];
        w.padding[i] = op->padding[i];
    }
    return w;
}

static dnnl_memory_desc_t input_md(const bench *b, int node)
{
    return b->values[b->graph->nodes[node].inputs[0]].md;
}
/* ---- layers with weights -----------------------------------------------------------------------
 */

typedef union weighted_desc {
    dnnl_convolution_desc_t conv;
    dnnl_inner_product_desc_t linear;
} weighted_desc;

static dnnl_primitive_desc_t describe_weighted(bench *b, int node, pass which)
{
    const pt_op *op = &b->graph->nodes[node].op;
    const int64_t g = op->groups, *k = op->kernel;
    window w = window_of(op);
    bool conv = op->kind == PT_OP_CONV2D;
    dnnl_memory_desc_t src = floor_shaped(b, &op->in[0], dnnl_format_tag_any);
    dnnl_memory_desc_t dst = floor_shaped(b, &op->out, dnnl_format_tag_any);
    dnnl_dims_t grouped = {g, g ? op->features / g : 0, g ? op->in[0].dims[0] / g : 0, k[0], k[1]};
    dnnl_dims_t whole = {op->features, op->in[0].dims[0], k[0], k[1]}, o = {op->features};
    dnnl_memory_desc_t weight, bias;
    floor_check(dnnl_memory_desc_init_by_tag(&weight, conv ? (g > 1 ? 5 : 4) : 2,
                                             g > 1 ? grouped : whole, dnnl_f32,
                                             dnnl_format_tag_any),
                "weights");
    floor_check(dnnl_memory_desc_init_by_tag(&bias, 1, o, dnnl_f32, dnnl_a), "bias");
    const dnnl_memory_desc_t *with = op->bias ? &bias : NULL;
    const dnnl_alg_kind_t how = dnnl_convolution_direct;
    const dnnl_prop_kind_t train = dnnl_forward_training;
    weighted_desc d;
    dnnl_status_t status;
    if (conv && which == FORWARD)
        status = dnnl_convolution_forward_desc_init(&d.conv, train, how, &src, &weight, with, &dst,
                                                    w.stride, w.padding, w.padding);
    else if (conv && which == BACKWARD_DATA)
        status = dnnl_convolution_backward_data_desc_init(&d.conv, how, &src, &weight, &dst,
                                                          w.stride, w.padding, w.padding);
    else if (conv)
        status = dnnl_convolution_backward_weights_desc_init(&d.conv, how, &src, &weight, with,
                                                             &dst, w.stride, w.padding, w.padding);
    else if (which == FORWARD)
        status = dnnl_inner_product_forward_desc_init(&d.linear, train, &src, &weight, with, &dst);
    else if (which == BACKWARD_DATA)
        status = dnnl_inner_product_backward_data_desc_init(&d.linear, &src, &weight, &dst);
    else
        status =
            dnnl_inner_product_backward_weights_desc_init(&d.linear, &src, &weight, with, &dst);
    floor_check(status, b->graph->nodes[node].name);
    return floor_describe(b, &d, node);
}

static void weighted_forward(bench *b, int node, int in, int out)
{
    const pt_op *op = &b->graph->nodes[node].op;
    b->forward[node] = describe_weighted(b, node, FORWARD);
    call *c = floor_add_call(b, FORWARD, node, b->forward[node]);
    floor_add_arg(b, c, DNNL_ARG_SRC, in);
    floor_add_arg(b, c, DNNL_ARG_WEIGHTS, floor_new_block(b));
    if (op->bias)
        floor_add_arg(b, c, DNNL_ARG_BIAS, floor_new_block(b));
    floor_add_arg(b, c, DNNL_ARG_DST, out);
    b->values[node + 1].md = *floor_md_of(c->pd, DNNL_ARG_DST);
}

static void weighted_backward(bench *b, int node, int in, int d_out, int d_in)
{
    const pt_op *op = &b->graph->nodes[node].op;
    if (d_in >= 0) {
        call *c = floor_add_call(b, BACKWARD_DATA, node, describe_weighted(b, node, BACKWARD_DATA));
        floor_add_arg(b, c, DNNL_ARG_DIFF_DST, d_out);
        floor_add_arg(b, c, DNNL_ARG_WEIGHTS, floor_new_block(b));
        floor_add_arg(b, c, DNNL_ARG_DIFF_SRC, d_in);
    }
    call *c =
        floor_add_call(b, BACKWARD_WEIGHTS, node, describe_weighted(b, node, BACKWARD_WEIGHTS));
    floor_add_arg(b, c, DNNL_ARG_SRC, in);
    floor_add_arg(b, c, DNNL_ARG_DIFF_DST, d_out);
    floor_add_arg(b, c, DNNL_ARG_DIFF_WEIGHTS, floor_new_block(b));
    if (op->bias)
        floor_add_arg(b, c, DNNL_ARG_DIFF_BIAS, floor_new_block(b));
}

/* ---- layers that follow their input's layout ---------------------------------------------------
 */

typedef dnnl_primitive_desc_t describe_fn(bench *b, int node, const dnnl_memory_desc_t *md);

/* The layout of the input, or the first for which the library has more than a reference. */
static void follow(bench *b, int node, describe_fn *ask)
{
    static const dnnl_format_tag_t tags[] = {dnnl_nChw16c, dnnl_nChw8c, dnnl_nhwc, dnnl_nchw};
    const pt_shape *shape = &b->graph->nodes[node].op.in[0];
    dnnl_memory_desc_t md = shape->ndim == 3 ? input_md(b, node) : floor_image(b, shape, dnnl_nhwc);
    b->forward[node] = ask(b, node, &md);
    for (size_t i = 0; floor_is_reference(b->forward[node]) && i < sizeof tags / sizeof *tags;
         i++) {
        dnnl_primitive_desc_destroy(b->forward[node]);
        b->forward[node] = NULL; /* no hint for the next */
        md = floor_image(b, shape, tags[i]);
        b->forward[node] = ask(b, node, &md);
    }
    b->values[node + 1].md = *floor_md_of(b->forward[node], DNNL_ARG_DST);
}

enum { NORM_FLAGS = dnnl_use_scale | dnnl_use_shift };

static dnnl_primitive_desc_t describe_norm(bench *b, int node, const dnnl_memory_desc_t *md)
{
    dnnl_batch_normalization_desc_t d;
    floor_check(dnnl_batch_normalization_forward_desc_init(
                    &d, dnnl_forward_training, md, (float)b->graph->nodes[node].op.eps, NORM_FLAGS),
                "batch-norm");
    return floor_describe(b, &d, node);
}

static const int norm_args[4] = {DNNL_ARG_MEAN, DNNL_ARG_VARIANCE, DNNL_ARG_SCALE, DNNL_ARG_SHIFT};

static void norm_forward(bench *b, int node, int in, int out)
{
    follow(b, node, describe_norm);
    call *c = floor_add_call(b, FORWARD, node, b->forward[node]);
    floor_add_arg(b, c, DNNL_ARG_SRC, in);
    floor_add_arg(b, c, DNNL_ARG_DST, out);
    for (int i = 0; i < 4; i++) {
        int at = floor_new_block(b);
        b->stats[node] = i ? b->stats[node] : at;
        floor_add_arg(b, c, norm_args[i], at);
    }
}

static void norm_backward(bench *b, int node, int in, int d_out, int d_in)
{
    const dnnl_memory_desc_t *md = floor_md_of(b->forward[node], DNNL_ARG_SRC);
    dnnl_batch_normalization_desc_t d;
    floor_check(dnnl_batch_normalization_backward_desc_init(
                    &d, dnnl_backward, md, md, (float)b->graph->nodes[node].op.eps, NORM_FLAGS),
                "batch-norm");
    call *c = floor_add_call(b, BACKWARD_DATA, node, floor_describe(b, &d, node));
    floor_add_arg(b, c, DNNL_ARG_SRC, in);
    floor_add_arg(b, c, DNNL_ARG_DIFF_DST, d_out);
    floor_add_arg(b, c, DNNL_ARG_DIFF_SRC, d_in >= 0 ? d_in : floor_new_block(b));
    for (int i = 0; i < 4; i++)
        floor_add_arg(b, c, norm_args[i], b->stats[node] + i);
    floor_add_arg(b, c, DNNL_ARG_DIFF_SCALE, floor_new_block(b));
    floor_add_arg(b, c, DNNL_ARG_DIFF_SHIFT, floor_new_block(b));
}

static dnnl_alg_kind_t pool_of(const pt_op *op)
{
    return op->kind == PT_OP_MAX_POOL ? dnnl_pooling_max : dnnl_pooling_avg_include_padding;
}

static dnnl_primitive_desc_t describe_pool(bench *b, int node, const dnnl_memory_desc_t *md)
{
    const pt_op *op = &b->graph->nodes[node].op;
    window w = window_of(&b->graph->nodes[node].op);
    dnnl_memory_desc_t dst = floor_image(b, &op->out, dnnl_format_tag_any);
    dnnl_pooling_desc_t d;
    floor_check(dnnl_pooling_forward_desc_init(&d, dnnl_forward_training, pool_of(op), md, &dst,
                                               w.stride, w.kernel, w.padding, w.padding),
                "pool");
    return floor_describe(b, &d, node);
}

static void pool_forward(bench *b, int node, int in, int out)
{
    follow(b, node, describe_pool);
    call *c = floor_add_call(b, FORWARD, node, b->forward[node]);
    floor_add_arg(b, c, DNNL_ARG_SRC, in);
    floor_add_arg(b, c, DNNL_ARG_DST, out);
    if (b->graph->nodes[node].op.kind == PT_OP_MAX_POOL)
        floor_add_arg(b, c, DNNL_ARG_WORKSPACE, b->workspace[node] = floor_new_block(b));
}

static void pool_backward(bench *b, int node, int in, int d_out, int d_in)
{
    (void)in;
    if (d_in < 0)
        return;
    window w = window_of(&b->graph->nodes[node].op);
    dnnl_pooling_desc_t d;
    floor_check(dnnl_pooling_backward_desc_init(&d, pool_of(&b->graph->nodes[node].op),
                                                floor_md_of(b->forward[node], DNNL_ARG_SRC),
                                                floor_md_of(b->forward[node], DNNL_ARG_DST),
                                                w.stride, w.kernel, w.padding, w.padding),
                "pool");
    call *c = floor_add_call(b, BACKWARD_DATA, node, floor_describe(b, &d, node));
    floor_add_arg(b, c, DNNL_ARG_DIFF_DST, d_out);
    floor_add_arg(b, c, DNNL_ARG_DIFF_SRC, d_in);
    if (b->workspace[node] >= 0)
        floor_add_arg(b, c, DNNL_ARG_WORKSPACE, b->workspace[node]);
}

/* ---- element by element ------------------------------------------------------------------------
 */

static void curve_forward(bench *b, int node, int in, int out)
{
    bool relu = b->graph->nodes[node].op.kind == PT_OP_RELU;
    dnnl_memory_desc_t md = input_md(b, node);
    dnnl_eltwise_desc_t d;
    floor_check(dnnl_eltwise_forward_desc_init(&d, dnnl_forward_training,
                                               relu ? dnnl_eltwise_relu : dnnl_eltwise_gelu_erf,
                                               &md, 0, 0),
                "eltwise");
    b->forward[node] = floor_describe(b, &d, node);
    call *c = floor_add_call(b, FORWARD, node, b->forward[node]);
    floor_add_arg(b, c, DNNL_ARG_SRC, in);
    floor_add_arg(b, c, DNNL_ARG_DST, out);
    b->values[node + 1].md = md;
}

static void curve_backward(bench *b, int node, int in, int d_out, int d_in)
{
    bool relu = b->graph->nodes[node].op.kind == PT_OP_RELU;
    const dnnl_memory_desc_t *md = &b->values[node + 1].md;
    dnnl_eltwise_desc_t d;
    if (d_in < 0)
        return;
    floor_check(
        dnnl_eltwise_backward_desc_init(
            &d, relu ? dnnl_eltwise_relu_use_dst_for_bwd : dnnl_eltwise_gelu_erf, md, md, 0, 0),
        "eltwise");
    call *c = floor_add_call(b, BACKWARD_DATA, node, floor_describe(b, &d, node));
    floor_add_arg(b, c, relu ? DNNL_ARG_DST : DNNL_ARG_SRC, relu ? b->values[node + 1].block : in);
    floor_add_arg(b, c, DNNL_ARG_DIFF_DST, d_out);
    floor_add_arg(b, c, DNNL_ARG_DIFF_SRC, d_in);
}

/* x + y → sum, all in the layout md. */
void floor_sum_call(bench *b, pass which, int node, const dnnl_memory_desc_t *md, int x, int y,
                    int sum)
{
    dnnl_binary_desc_t d;
    dnnl_primitive_desc_t pd = NULL;
    floor_check(dnnl_binary_desc_init(&d, dnnl_binary_add, md, md, md), "sum");
    floor_check(dnnl_primitive_desc_create(&pd, &d, NULL, b->engine, NULL), "sum");
    call *c = floor_add_call(b, which, node, pd);
    floor_add_arg(b, c, DNNL_ARG_SRC_0, x);
    floor_add_arg(b, c, DNNL_ARG_SRC_1, y);
    floor_add_arg(b, c, DNNL_ARG_DST, sum);
}

static void add_forward(bench *b, int node, int in, int out)
{
    const pt_node *n = &b->graph->nodes[node];
    dnnl_memory_desc_t md = input_md(b, node);
    for (int i = 1; i < n->op.n_inputs; i++, in = out)
        floor_sum_call(b, FORWARD, node, &md, in, b->values[n->inputs[i]].block, out);
    b->values[node + 1].md = md;
}

/* Another name for the same bytes. */
static void name_forward(bench *b, int node, int in, int out)
{
    (void)in;
    (void)out;
    const pt_op *op = &b->graph->nodes[node].op;
    b->values[node + 1].md = pt_shape_equal(&op->in[0], &op->out)
                                 ? input_md(b, node)
                                 : floor_shaped(b, &op->out, dnnl_ab);
}

/* ---- the table ---------------------------------------------------------------------------------
 */

const kind floor_kinds[PT_OP_KINDS] = {
    [PT_OP_CONV2D] = {weighted_forward, weighted_backward, false},
    [PT_OP_LINEAR] = {weighted_forward, weighted_backward, false},
    [PT_OP_BATCH_NORM] = {norm_forward, norm_backward, false},
    [PT_OP_RELU] = {curve_forward, curve_backward, true},
    [PT_OP_GELU] = {curve_forward, curve_backward, false},
    [PT_OP_MAX_POOL] = {pool_forward, pool_backward, false},
    [PT_OP_AVG_POOL] = {pool_forward, pool_backward, false},
    [PT_OP_GLOBAL_AVG_POOL] = {pool_forward, pool_backward, false},
    [PT_OP_ADD] = {add_forward, NULL, true},
    [PT_OP_FLATTEN] = {name_forward, NULL, true},
    [PT_OP_DROPOUT] = {name_forward, NULL, true}, /* no primitive: costs nothing here */
};
