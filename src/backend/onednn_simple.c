/* Ops that keep their input's layout or make it plain: relu, gelu, flatten, dropout.
 *
 * Element-wise primitives run over padding as well, and map its zeros to zeros. Flatten and dropout
 * number their elements, so they work on plain memory; what they write has no padding. */
#include "onednn.h"

/* ---- relu, gelu ----------------------------------------------------------------------------- */

typedef struct eltwise {
    pt_dnn_kernel base;
    pt_dnn_call forward, backward;
} eltwise;

/* relu's gradient looks at the output, so that it may run in place; gelu's looks at the input. */
static bool is_relu(const pt_dnn_kernel *k)
{
    return k->base.op.kind == PT_OP_RELU;
}

static pt_status eltwise_plan_forward(eltwise *e, pt_error *err)
{
    pt_dnn_kernel *k = &e->base;
    const pt_op *op = &k->base.op;
    dnnl_eltwise_desc_t desc;
    PT_TRY(pt_dnn_check(
        dnnl_eltwise_forward_desc_init(
            &desc, k->base.mode == PT_TRAIN ? dnnl_forward_training : dnnl_forward_inference,
            is_relu(k) ? dnnl_eltwise_relu : dnnl_eltwise_gelu_erf, &k->in[0]->md, /*alpha=*/0,
            /*beta=*/0),
        op, "forward", err));
    PT_TRY(pt_dnn_call_plan(&e->forward, pt_dnn_of(k), op, "forward", &desc, NULL, err));
    PT_TRY(pt_dnn_call_accept(&e->forward, err));
    return pt_dnn_use(k, &e->forward, (const int[]){DNNL_ARG_SRC, DNNL_ARG_DST, 0}, err);
}

static pt_status eltwise_plan_backward(eltwise *e, pt_error *err)
{
    pt_dnn_kernel *k = &e->base;
    const pt_op *op = &k->base.op;
    const dnnl_memory_desc_t *md = &k->out.md;
    dnnl_eltwise_desc_t desc;
    PT_TRY(pt_dnn_check(
        dnnl_eltwise_backward_desc_init(
            &desc, is_relu(k) ? dnnl_eltwise_relu_use_dst_for_bwd : dnnl_eltwise_gelu_erf, md, md,
            /*alpha=*/0, /*beta=*/0),
        op, "backward", err));
    PT_TRY(pt_dnn_call_plan(&e->backward, pt_dnn_of(k), op, "backward", &desc, &e->forward, err));
    PT_TRY(pt_dnn_call_accept(&e->backward, err));
    return pt_dnn_use(k, &e->backward,
                      (const int[]){is_relu(k) ? DNNL_ARG_DST : DNNL_ARG_SRC, DNNL_ARG_DIFF_DST,
                                    DNNL_ARG_DIFF_SRC, 0},
                      err);
}

static pt_status eltwise_plan(pt_dnn_kernel *k, pt_error *err)
{
    eltwise *e = (eltwise *)k;
    bool train = k->base.mode == PT_TRAIN;
    PT_TRY(eltwise_plan_forward(e, err));
    pt_dnn_set_out(k, &k->in[0]->md);
    k->base.flags = is_relu(k) || !train ? PT_MAY_RUN_IN_PLACE : 0;
    if (!train)
        return PT_OK;
    k->base.flags |= is_relu(k) ? PT_READS_OUTPUT_FOR_INPUT : PT_READS_INPUT_FOR_INPUT;
    return eltwise_plan_backward(e, err);
}

static void eltwise_clear(pt_dnn_kernel *k)
{
    eltwise *e = (eltwise *)k;
    pt_dnn_call_clear(&e->backward);
    pt_dnn_call_clear(&e->forward);
}

static pt_status eltwise_forward(pt_dnn_kernel *k, const pt_kernel_args *args, pt_error *err)
{
    return pt_dnn_call_run(&((eltwise *)k)->forward,
                           (const void *const[]){args->dev_in[0], args->dev_out}, err);
}

static pt_status eltwise_backward(pt_dnn_kernel *k, const pt_kernel_args *args, pt_error *err)
{
    const void *kept = is_relu(k) ? args->dev_out : args->dev_in[0];
    if (!args->dev_d_in[0])
        return PT_OK;
    return pt_dnn_call_run(&((eltwise *)k)->backward,
                           (const void *const[]){kept, args->dev_d_out, args->dev_d_in[0]}, err);
}

const pt_dnn_kind pt_dnn_relu = {
    .bytes = sizeof(eltwise),
    .plan = eltwise_plan,
    .clear = eltwise_clear,
    .forward = eltwise_forward,
    .backward_input = eltwise_backward,
};

const pt_dnn_kind pt_dnn_gelu = {
    .bytes = sizeof(eltwise),
    .plan = eltwise_plan,
    .clear = eltwise_clear,
    .forward = eltwise_forward,
    .backward_input = eltwise_backward,
};

/* ---- flatten, dropout ----------------------------------------------------------------------- */

/* A value in its own layout on one side, plain on the other. */
typedef struct plainer {
    pt_dnn_kernel base;
    pt_dnn_call to_plain, from_plain; /* empty where the input is plain */
} plainer;

static pt_status plainer_plan(plainer *p, pt_error *err)
{
    static const int args[] = {DNNL_ARG_FROM, DNNL_ARG_TO, 0};
    pt_dnn_kernel *k = &p->base;
    pt_dnn *dnn = pt_dnn_of(k);
    const pt_op *op = &k->base.op;
    const dnnl_memory_desc_t *value = &k->in[0]->md;
    dnnl_memory_desc_t plain;
    if (pt_dnn_is_plain(value))
        return PT_OK;
    PT_TRY(pt_dnn_plain_like(value, &plain, err));
    PT_TRY(pt_dnn_call_plan_reorder(&p->to_plain, dnn, op, value, &plain, /*add=*/false, err));
    PT_TRY(pt_dnn_use(k, &p->to_plain, args, err));
    if (k->base.mode == PT_EVAL)
        return PT_OK;
    PT_TRY(pt_dnn_call_plan_reorder(&p->from_plain, dnn, op, &plain, value, /*add=*/false, err));
    return pt_dnn_use(k, &p->from_plain, args, err);
}

static void plainer_clear(pt_dnn_kernel *k)
{
    plainer *p = (plainer *)k;
    pt_dnn_call_clear(&p->to_plain);
    pt_dnn_call_clear(&p->from_plain);
}

static bool is_plain(const plainer *p)
{
    return !p->to_plain.pd;
}

static pt_status plainer_move(plainer *p, pt_dnn_call *reorder, const void *from, void *to,
                              pt_error *err)
{
    if (is_plain(p))
        return pt_cpu_copy(p->base.base.backend, to, from, p->base.out.base.bytes, err);
    return pt_dnn_call_run(reorder, (const void *const[]){from, to}, err);
}

static pt_status flatten_plan(pt_dnn_kernel *k, pt_error *err)
{
    plainer *p = (plainer *)k;
    dnnl_memory_desc_t out;
    PT_TRY(plainer_plan(p, err));
    PT_TRY(pt_dnn_plain(&k->base.op.out, k->base.samples, &out, err));
    pt_dnn_set_out(k, &out);
    if (is_plain(p))
        k->base.flags = PT_PASSES_VALUE | PT_PASSES_GRADIENT | PT_MAY_RUN_IN_PLACE;
    return PT_OK;
}

static pt_status flatten_forward(pt_dnn_kernel *k, const pt_kernel_args *args, pt_error *err)
{
    plainer *p = (plainer *)k;
    return plainer_move(p, &p->to_plain, args->dev_in[0], args->dev_out, err);
}

static pt_status flatten_backward(pt_dnn_kernel *k, const pt_kernel_args *args, pt_error *err)
{
    plainer *p = (plainer *)k;
    if (!args->dev_d_in[0])
        return PT_OK;
    return plainer_move(p, &p->from_plain, args->dev_d_out, args->dev_d_in[0], err);
}

const pt_dnn_kind pt_dnn_flatten = {
    .bytes = sizeof(plainer),
    .plan = flatten_plan,
    .clear = plainer_clear,
    .forward = flatten_forward,
    .backward_input = flatten_backward,
};

/* The output is plain in both modes, so that a value's layout does not depend on the mode. */
static pt_status dropout_plan(pt_dnn_kernel *k, pt_error *err)
{
    plainer *p = (plainer *)k;
    dnnl_memory_desc_t out;
    PT_TRY(plainer_plan(p, err));
    PT_TRY(pt_dnn_plain_like(&k->in[0]->md, &out, err));
    pt_dnn_set_out(k, &out);
    if (is_plain(p))
        k->base.flags = PT_MAY_RUN_IN_PLACE;
    if (is_plain(p) && k->base.mode == PT_EVAL)
        k->base.flags |= PT_PASSES_VALUE;
    if (!is_plain(p) && k->base.mode == PT_TRAIN)
        pt_dnn_need(k, PT_DNN_ROOM_X, k->out.base.bytes); /* the gradient before its reorder */
    return PT_OK;
}

static pt_status dropout_forward(pt_dnn_kernel *k, const pt_kernel_args *args, pt_error *err)
{
    plainer *p = (plainer *)k;
    bool eval = k->base.mode == PT_EVAL;
    if (eval || !is_plain(p))
        PT_TRY(plainer_move(p, &p->to_plain, args->dev_in[0], args->dev_out, err));
    if (!eval)
        pt_cpu_dropout(&k->base.op, k->base.samples, args,
                       is_plain(p) ? args->dev_in[0] : args->dev_out, args->dev_out);
    return PT_OK;
}

static pt_status dropout_backward(pt_dnn_kernel *k, const pt_kernel_args *args, pt_error *err)
{
    plainer *p = (plainer *)k;
    void *d_in = args->dev_d_in[0];
    if (!d_in)
        return PT_OK;
    void *plain = is_plain(p) ? d_in : pt_dnn_room_of(k, PT_DNN_ROOM_X);
    pt_cpu_dropout(&k->base.op, k->base.samples, args, args->dev_d_out, plain);
    if (is_plain(p))
        return PT_OK;
    return pt_dnn_call_run(&p->from_plain, (const void *const[]){plain, d_in}, err);
}

const pt_dnn_kind pt_dnn_dropout = {
    .bytes = sizeof(plainer),
    .plan = dropout_plan,
    .clear = plainer_clear,
    .forward = dropout_forward,
    .backward_input = dropout_backward,
};
