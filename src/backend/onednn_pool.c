/* max-pool, avg-pool, global-avg-pool. A maximum's place is kept in the library's own workspace,
 * which is all that `saved` holds. The global average is an average over the whole image whose
 * 1 × 1 results are handed out as a plain vector. */
#include "onednn.h"

typedef struct pool {
    pt_dnn_kernel base;
    dnnl_memory_desc_t src, dst; /* the primitive's layouts */
    dnnl_dims_t kernel, stride, padding;
    pt_dnn_call forward, backward;
    pt_dnn_port in, out, d_in, d_out;
} pool;

static dnnl_alg_kind_t algorithm(const pt_op *op)
{
    return op->kind == PT_OP_MAX_POOL ? dnnl_pooling_max : dnnl_pooling_avg_include_padding;
}

static bool is_global(const pt_op *op)
{
    return op->kind == PT_OP_GLOBAL_AVG_POOL;
}

/* ---- plan ----------------------------------------------------------------------------------- */

static void set_window(pool *p)
{
    const pt_op *op = &p->base.base.op;
    for (int i = 0; i < 2; i++) {
        p->kernel[i] = is_global(op) ? op->in[0].dims[i + 1] : op->kernel[i];
        p->stride[i] = is_global(op) ? 1 : op->stride[i];
        p->padding[i] = op->padding[i];
    }
}

static pt_status plan_forward(pt_dnn_kernel *k, const dnnl_memory_desc_t *md, pt_dnn_call *ret_call,
                              pt_error *err)
{
    pool *p = (pool *)k;
    const pt_op *op = &k->base.op;
    dnnl_memory_desc_t dst;
    dnnl_pooling_desc_t desc;
    PT_TRY(pt_dnn_image(&op->out, k->base.samples, dnnl_format_tag_any, &dst, err));
    dnnl_status_t status = dnnl_pooling_forward_desc_init(
        &desc, k->base.mode == PT_TRAIN ? dnnl_forward_training : dnnl_forward_inference,
        algorithm(op), md, &dst, p->stride, p->kernel, p->padding, p->padding);
    PT_TRY(pt_dnn_check(status, op, "forward", err));
    return pt_dnn_call_plan(ret_call, pt_dnn_of(k), op, "forward", &desc, NULL, err);
}

static pt_status plan_backward(pool *p, pt_error *err)
{
    pt_dnn_kernel *k = &p->base;
    const pt_op *op = &k->base.op;
    dnnl_pooling_desc_t desc;
    dnnl_status_t status = dnnl_pooling_backward_desc_init(
        &desc, algorithm(op), &p->src, &p->dst, p->stride, p->kernel, p->padding, p->padding);
    PT_TRY(pt_dnn_check(status, op, "backward", err));
    PT_TRY(pt_dnn_call_plan(&p->backward, pt_dnn_of(k), op, "backward", &desc, &p->forward, err));
    return pt_dnn_call_accept(&p->backward, err);
}

/* Ports on the output's side: needed by the global average alone. */
static pt_status plan_vector_ports(pool *p, pt_error *err)
{
    pt_dnn_kernel *k = &p->base;
    dnnl_memory_desc_t plain;
    PT_TRY(pt_dnn_plain_like(&p->dst, &plain, err));
    PT_TRY(pt_dnn_port_plan_out(&p->out, k, PT_DNN_ROOM_Y, &p->dst, &plain, err));
    if (k->base.mode == PT_EVAL)
        return PT_OK;
    return pt_dnn_port_plan_in(&p->d_out, k, PT_DNN_ROOM_Y, &plain, &p->dst, err);
}

static pt_status plan_calls(pool *p, pt_error *err)
{
    pt_dnn_kernel *k = &p->base;
    const dnnl_memory_desc_t *value = &k->in[0]->md;
    int workspace = k->base.saved_bytes ? DNNL_ARG_WORKSPACE : 0;
    PT_TRY(
        pt_dnn_use(k, &p->forward, (const int[]){DNNL_ARG_SRC, DNNL_ARG_DST, workspace, 0}, err));
    PT_TRY(pt_dnn_port_plan_in(&p->in, k, PT_DNN_ROOM_X, value, &p->src, err));
    if (is_global(&k->base.op))
        PT_TRY(plan_vector_ports(p, err));
    if (k->base.mode == PT_EVAL)
        return PT_OK;
    PT_TRY(plan_backward(p, err));
    PT_TRY(pt_dnn_use(k, &p->backward,
                      (const int[]){DNNL_ARG_DIFF_DST, DNNL_ARG_DIFF_SRC, workspace, 0}, err));
    return pt_dnn_port_plan_out(&p->d_in, k, PT_DNN_ROOM_X, &p->src, value, err);
}

static pt_status plan(pt_dnn_kernel *k, pt_error *err)
{
    pool *p = (pool *)k;
    const pt_op *op = &k->base.op;
    set_window(p);
    PT_TRY(pt_dnn_plan_first(k, plan_forward, &p->forward, &p->src, err));
    p->dst = *pt_dnn_call_md(&p->forward, DNNL_ARG_DST);
    dnnl_memory_desc_t out = p->dst;
    if (is_global(op))
        PT_TRY(pt_dnn_plain(&op->out, k->base.samples, &out, err));
    pt_dnn_set_out(k, &out);
    if (k->base.mode == PT_TRAIN && op->kind == PT_OP_MAX_POOL)
        k->base.saved_bytes = dnnl_memory_desc_get_size(
            dnnl_primitive_desc_query_md(p->forward.pd, dnnl_query_workspace_md, 0));
    return plan_calls(p, err);
}

static void clear(pt_dnn_kernel *k)
{
    pool *p = (pool *)k;
    pt_dnn_port_clear(&p->in);
    pt_dnn_port_clear(&p->out);
    pt_dnn_port_clear(&p->d_in);
    pt_dnn_port_clear(&p->d_out);
    pt_dnn_call_clear(&p->backward);
    pt_dnn_call_clear(&p->forward);
}

/* ---- run ------------------------------------------------------------------------------------ */

static pt_status forward(pt_dnn_kernel *k, const pt_kernel_args *args, pt_error *err)
{
    pool *p = (pool *)k;
    const void *src;
    void *dst = pt_dnn_port_address(&p->out, args->dev_out);
    PT_TRY(pt_dnn_port_take(&p->in, args->dev_in[0], &src, err));
    PT_TRY(pt_dnn_call_run(&p->forward, (const void *const[]){src, dst, args->dev_saved}, err));
    return pt_dnn_port_give(&p->out, args->dev_out, err);
}

static pt_status backward_input(pt_dnn_kernel *k, const pt_kernel_args *args, pt_error *err)
{
    pool *p = (pool *)k;
    void *d_in = args->dev_d_in[0];
    if (!d_in)
        return PT_OK;
    const void *d_out;
    PT_TRY(pt_dnn_port_take(&p->d_out, args->dev_d_out, &d_out, err));
    PT_TRY(pt_dnn_call_run(
        &p->backward,
        (const void *const[]){d_out, pt_dnn_port_address(&p->d_in, d_in), args->dev_saved}, err));
    return pt_dnn_port_give(&p->d_in, d_in, err);
}

const pt_dnn_kind pt_dnn_pool = {
    .bytes = sizeof(pool),
    .plan = plan,
    .clear = clear,
    .forward = forward,
    .backward_input = backward_input,
};
