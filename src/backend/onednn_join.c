/* Ops of several inputs: add and concat.
 *
 * add takes the layout of its first input and reorders the others where they differ. concat is a
 * reorder per input into its part of the output, and back for the gradients: no pass over memory
 * beside the copy itself. The output keeps a blocked layout where every part begins and ends with
 * a block, and is plain otherwise. */
#include "onednn.h"

static const int reorder_args[] = {DNNL_ARG_FROM, DNNL_ARG_TO, 0};

/* ---- add ------------------------------------------------------------------------------------ */

typedef struct add {
    pt_dnn_kernel base;
    pt_dnn_call sum;                 /* dst = src0 + src1 */
    pt_dnn_port in[PT_MAX_INPUTS];   /* input i in the output's layout */
    pt_dnn_call d_in[PT_MAX_INPUTS]; /* empty where the layouts agree */
} add;

/* Input i comes to the output's layout, and its gradient back. */
static pt_status add_plan_input(add *a, int i, pt_error *err)
{
    pt_dnn_kernel *k = &a->base;
    const dnnl_memory_desc_t *in = &k->in[i]->md, *out = &k->out.md;
    PT_TRY(pt_dnn_port_plan_in(&a->in[i], k, PT_DNN_ROOM_X, in, out, err));
    if (pt_dnn_same(in, out))
        return PT_OK;
    k->base.flags &= ~(unsigned)PT_PASSES_GRADIENT;
    if (k->base.mode == PT_EVAL)
        return PT_OK;
    PT_TRY(pt_dnn_call_plan_reorder(&a->d_in[i], pt_dnn_of(k), &k->base.op, out, in, /*add=*/false,
                                    err));
    return pt_dnn_use(k, &a->d_in[i], reorder_args, err);
}

static pt_status add_plan(pt_dnn_kernel *k, pt_error *err)
{
    static const int args[] = {DNNL_ARG_SRC_0, DNNL_ARG_SRC_1, DNNL_ARG_DST, 0};
    add *a = (add *)k;
    const pt_op *op = &k->base.op;
    const dnnl_memory_desc_t *md = &k->in[0]->md;
    dnnl_binary_desc_t desc;
    PT_TRY(pt_dnn_check(dnnl_binary_desc_init(&desc, dnnl_binary_add, md, md, md), op, "sum", err));
    PT_TRY(pt_dnn_call_plan(&a->sum, pt_dnn_of(k), op, "sum", &desc, NULL, err));
    PT_TRY(pt_dnn_call_accept(&a->sum, err));
    PT_TRY(pt_dnn_use(k, &a->sum, args, err));
    pt_dnn_set_out(k, md);
    k->base.flags = PT_MAY_RUN_IN_PLACE | PT_PASSES_GRADIENT;
    for (int i = 1; i < op->n_inputs; i++)
        PT_TRY(add_plan_input(a, i, err));
    return PT_OK;
}

static void add_clear(pt_dnn_kernel *k)
{
    add *a = (add *)k;
    for (int i = 0; i < PT_MAX_INPUTS; i++) {
        pt_dnn_port_clear(&a->in[i]);
        pt_dnn_call_clear(&a->d_in[i]);
    }
    pt_dnn_call_clear(&a->sum);
}

/* From left to right. */
static pt_status add_forward(pt_dnn_kernel *k, const pt_kernel_args *args, pt_error *err)
{
    add *a = (add *)k;
    const void *left = args->dev_in[0], *right;
    if (k->base.op.n_inputs == 1)
        return pt_cpu_copy(k->base.backend, args->dev_out, left, k->out.base.bytes, err);
    for (int i = 1; i < k->base.op.n_inputs; i++) {
        PT_TRY(pt_dnn_port_take(&a->in[i], args->dev_in[i], &right, err));
        PT_TRY(pt_dnn_call_run(&a->sum, (const void *const[]){left, right, args->dev_out}, err));
        left = args->dev_out;
    }
    return PT_OK;
}

static pt_status add_backward(pt_dnn_kernel *k, const pt_kernel_args *args, pt_error *err)
{
    add *a = (add *)k;
    for (int i = k->base.op.n_inputs - 1; i >= 0; i--) { /* d_in[0] may be d_out's memory */
        void *d_in = args->dev_d_in[i];
        if (!d_in)
            continue;
        if (!a->d_in[i].primitive)
            PT_TRY(pt_cpu_copy(k->base.backend, d_in, args->dev_d_out, k->out.base.bytes, err));
        else
            PT_TRY(pt_dnn_call_run(&a->d_in[i], (const void *const[]){args->dev_d_out, d_in}, err));
    }
    return PT_OK;
}

const pt_dnn_kind pt_dnn_add = {
    .bytes = sizeof(add),
    .plan = add_plan,
    .clear = add_clear,
    .forward = add_forward,
    .backward_input = add_backward,
};

/* ---- concat --------------------------------------------------------------------------------- */

typedef struct concat {
    pt_dnn_kernel base;
    pt_dnn_call in[PT_MAX_INPUTS], d_in[PT_MAX_INPUTS];
} concat;

/* Where input i lies in the output. */
static dnnl_status_t part_of(const pt_dnn_kernel *k, const dnnl_memory_desc_t *out, int i,
                             dnnl_memory_desc_t *ret_part)
{
    dnnl_dims_t begin = {0};
    for (int j = 0; j < i; j++)
        begin[1] += k->in[j]->md.dims[1];
    return dnnl_memory_desc_init_submemory(ret_part, out, k->in[i]->md.dims, begin);
}

/* Channels in blocks of the first input's size, if each part is made of whole blocks. */
static bool keeps_blocks(const pt_dnn_kernel *k, dnnl_memory_desc_t *ret_out)
{
    static const dnnl_format_tag_t tags[] = {dnnl_nChw16c, dnnl_nChw8c};
    static const int64_t blocks[] = {16, 8};
    const pt_op *op = &k->base.op;
    pt_error ignored;
    dnnl_memory_desc_t first;
    for (int t = 0; t < 2 && op->out.ndim == 3; t++) {
        if (pt_dnn_image(&op->in[0], k->base.samples, tags[t], &first, &ignored) != PT_OK ||
            !pt_dnn_same(&first, &k->in[0]->md))
            continue;
        bool whole = true;
        for (int i = 0; i < op->n_inputs; i++)
            whole = whole && op->in[i].dims[0] % blocks[t] == 0;
        return whole &&
               pt_dnn_image(&op->out, k->base.samples, tags[t], ret_out, &ignored) == PT_OK;
    }
    return false;
}

static pt_status concat_plan(pt_dnn_kernel *k, pt_error *err)
{
    concat *c = (concat *)k;
    const pt_op *op = &k->base.op;
    dnnl_memory_desc_t out, part;
    if (!keeps_blocks(k, &out))
        PT_TRY(pt_dnn_plain(&op->out, k->base.samples, &out, err));
    pt_dnn_set_out(k, &out);
    for (int i = 0; i < op->n_inputs; i++) {
        const dnnl_memory_desc_t *in = &k->in[i]->md;
        PT_TRY(pt_dnn_check(part_of(k, &out, i, &part), op, "part of the output", err));
        PT_TRY(pt_dnn_call_plan_reorder(&c->in[i], pt_dnn_of(k), op, in, &part, false, err));
        PT_TRY(pt_dnn_use(k, &c->in[i], reorder_args, err));
        if (k->base.mode == PT_EVAL)
            continue;
        PT_TRY(pt_dnn_call_plan_reorder(&c->d_in[i], pt_dnn_of(k), op, &part, in, false, err));
        PT_TRY(pt_dnn_use(k, &c->d_in[i], reorder_args, err));
    }
    return PT_OK;
}

static void concat_clear(pt_dnn_kernel *k)
{
    concat *c = (concat *)k;
    for (int i = 0; i < PT_MAX_INPUTS; i++) {
        pt_dnn_call_clear(&c->in[i]);
        pt_dnn_call_clear(&c->d_in[i]);
    }
}

static pt_status concat_forward(pt_dnn_kernel *k, const pt_kernel_args *args, pt_error *err)
{
    concat *c = (concat *)k;
    for (int i = 0; i < k->base.op.n_inputs; i++)
        PT_TRY(
            pt_dnn_call_run(&c->in[i], (const void *const[]){args->dev_in[i], args->dev_out}, err));
    return PT_OK;
}

static pt_status concat_backward(pt_dnn_kernel *k, const pt_kernel_args *args, pt_error *err)
{
    concat *c = (concat *)k;
    for (int i = 0; i < k->base.op.n_inputs; i++)
        if (args->dev_d_in[i])
            PT_TRY(pt_dnn_call_run(&c->d_in[i],
                                   (const void *const[]){args->dev_d_out, args->dev_d_in[i]}, err));
    return PT_OK;
}

const pt_dnn_kind pt_dnn_concat = {
    .bytes = sizeof(concat),
    .plan = concat_plan,
    .clear = concat_clear,
    .forward = concat_forward,
    .backward_input = concat_backward,
};
