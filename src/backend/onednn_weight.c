/* What conv2d and linear share: three primitives, and weights that are plain outside and as the
 * library likes them inside.
 *
 * Forward and backward-data want different layouts of the same weights, and the gradient comes in
 * the layout of backward-weights; parameters and their gradients stay plain. Forward and
 * backward-data keep their reordered copy as long as the parameters' version does not change. */
#include "onednn.h"

#include <string.h>

static const char *const pass_names[PT_DNN_PASSES] = {"forward", "backward-data",
                                                      "backward-weights"};

static const struct {
    int src, weight, dst; /* the primitive's names for them */
} names[PT_DNN_PASSES] = {
    {DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DST},
    {DNNL_ARG_DIFF_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DIFF_DST},
    {DNNL_ARG_SRC, DNNL_ARG_DIFF_WEIGHTS, DNNL_ARG_DIFF_DST},
};

/* ---- plan ----------------------------------------------------------------------------------- */

/* The library's free choice; unless the layouts that are there get the same implementation, which
 * saves reorders. A convolution of 6 channels is the case where they do not: fast from plain,
 * a reference implementation from blocked. */
static pt_status choose(pt_dnn_weighted *w, pt_dnn_pass pass, const dnnl_memory_desc_t *in,
                        const dnnl_memory_desc_t *out, pt_error *err)
{
    pt_dnn_call *call = &w->pass[pass].call, fixed = {0};
    pt_error ignored;
    PT_TRY(w->ask(w, pass, &w->src, &w->dst, call, err));
    bool agrees = pt_dnn_same(pt_dnn_call_md(call, names[pass].src), in) &&
                  (!out || pt_dnn_same(pt_dnn_call_md(call, names[pass].dst), out));
    if (!agrees && w->ask(w, pass, in, out ? out : &w->dst, &fixed, &ignored) == PT_OK &&
        strcmp(pt_dnn_call_name(&fixed), pt_dnn_call_name(call)) == 0) {
        pt_dnn_call_clear(call);
        *call = fixed;
    } else {
        pt_dnn_call_clear(&fixed);
    }
    call->what = pass_names[pass];
    return pt_dnn_call_accept(call, err);
}

static const int reorder_args[] = {DNNL_ARG_FROM, DNNL_ARG_TO, 0};

static pt_status plan_kept(pt_dnn_weighted *w, pt_dnn_pass pass, pt_error *err)
{
    struct pt_dnn_kept *kept = &w->kept[pass];
    pt_dnn_kernel *k = &w->base;
    const dnnl_memory_desc_t *wanted = pt_dnn_call_md(&w->pass[pass].call, DNNL_ARG_WEIGHTS);
    if (pt_dnn_same(&w->weight, wanted))
        return PT_OK;
    PT_TRY(pt_dnn_call_plan_reorder(&kept->reorder, pt_dnn_of(k), &k->base.op, &w->weight, wanted,
                                    /*add=*/false, err));
    PT_TRY(pt_dnn_use(k, &kept->reorder, reorder_args, err));
    kept->bytes = dnnl_memory_desc_get_size(wanted);
    k->base.private_bytes += kept->bytes;
    return PT_OK;
}

static pt_status plan_gradient(pt_dnn_weighted *w, pt_error *err)
{
    pt_dnn_kernel *k = &w->base;
    pt_dnn *dnn = pt_dnn_of(k);
    const pt_op *op = &k->base.op;
    const dnnl_memory_desc_t *made =
        pt_dnn_call_md(&w->pass[PT_DNN_WEIGHT].call, DNNL_ARG_DIFF_WEIGHTS);
    pt_dnn_need(k, PT_DNN_ROOM_W, dnnl_memory_desc_get_size(made));
    pt_dnn_need(k, PT_DNN_ROOM_B, (size_t)op->features * sizeof(float));
    PT_TRY(pt_dnn_call_plan_reorder(&w->add_weight, dnn, op, made, &w->weight, /*add=*/true, err));
    PT_TRY(pt_dnn_use(k, &w->add_weight, reorder_args, err));
    if (pt_dnn_same(&w->weight, made))
        return PT_OK;
    PT_TRY(pt_dnn_call_plan_reorder(&w->set_weight, dnn, op, made, &w->weight, /*add=*/false, err));
    return pt_dnn_use(k, &w->set_weight, reorder_args, err);
}

/* The primitive is chosen; here is how its arguments come and go. */
static pt_status plan_pass(pt_dnn_weighted *w, pt_dnn_pass pass, pt_error *err)
{
    pt_dnn_kernel *k = &w->base;
    struct pt_dnn_weighted_pass *p = &w->pass[pass];
    const dnnl_memory_desc_t *value = &k->in[0]->md;
    int indices[5] = {names[pass].src, names[pass].weight, names[pass].dst};
    if (k->base.op.bias && pass != PT_DNN_DATA)
        indices[3] = pass == PT_DNN_FORWARD ? DNNL_ARG_BIAS : DNNL_ARG_DIFF_BIAS;
    PT_TRY(pt_dnn_use(k, &p->call, indices, err));
    const dnnl_memory_desc_t *src = pt_dnn_call_md(&p->call, names[pass].src);
    const dnnl_memory_desc_t *dst = pt_dnn_call_md(&p->call, names[pass].dst);
    if (pass == PT_DNN_DATA)
        PT_TRY(pt_dnn_port_plan_out(&p->src, k, PT_DNN_ROOM_X, src, value, err));
    else
        PT_TRY(pt_dnn_port_plan_in(&p->src, k, PT_DNN_ROOM_X, value, src, err));
    if (pass == PT_DNN_FORWARD) /* the output's layout is the one it makes */
        return PT_OK;
    return pt_dnn_port_plan_in(&p->dst, k, PT_DNN_ROOM_Y, &k->out.md, dst, err);
}

pt_status pt_dnn_weighted_plan(pt_dnn_weighted *w, pt_error *err)
{
    pt_dnn_kernel *k = &w->base;
    k->base.flags = PT_READS_INPUT_FOR_WEIGHT | PT_SPLITS_BACKWARD;
    PT_TRY(choose(w, PT_DNN_FORWARD, &k->in[0]->md, NULL, err));
    pt_dnn_set_out(k, pt_dnn_call_md(&w->pass[PT_DNN_FORWARD].call, DNNL_ARG_DST));
    PT_TRY(plan_pass(w, PT_DNN_FORWARD, err));
    PT_TRY(plan_kept(w, PT_DNN_FORWARD, err));
    if (k->base.mode == PT_EVAL)
        return PT_OK;
    PT_TRY(choose(w, PT_DNN_DATA, &k->in[0]->md, &k->out.md, err));
    PT_TRY(plan_pass(w, PT_DNN_DATA, err));
    PT_TRY(plan_kept(w, PT_DNN_DATA, err));
    PT_TRY(choose(w, PT_DNN_WEIGHT, &k->in[0]->md, &k->out.md, err));
    PT_TRY(plan_pass(w, PT_DNN_WEIGHT, err));
    return plan_gradient(w, err);
}

/* ---- build ---------------------------------------------------------------------------------- */

pt_status pt_dnn_weighted_build(pt_dnn_kernel *k, pt_error *err)
{
    pt_dnn_weighted *w = (pt_dnn_weighted *)k;
    for (int i = 0; i < 2; i++)
        if (w->kept[i].bytes)
            PT_TRY(pt_cpu_dev_new(k->base.backend, w->kept[i].bytes, &w->kept[i].copy, err));
    return PT_OK;
}

void pt_dnn_weighted_clear(pt_dnn_kernel *k)
{
    pt_dnn_weighted *w = (pt_dnn_weighted *)k;
    for (int i = 0; i < PT_DNN_PASSES; i++) {
        pt_dnn_port_clear(&w->pass[i].src);
        pt_dnn_port_clear(&w->pass[i].dst);
        pt_dnn_call_clear(&w->pass[i].call);
    }
    for (int i = 0; i < 2; i++) {
        pt_dnn_call_clear(&w->kept[i].reorder);
        pt_cpu_dev_free(k->base.backend, w->kept[i].copy);
    }
    pt_dnn_call_clear(&w->set_weight);
    pt_dnn_call_clear(&w->add_weight);
}

/* ---- run ------------------------------------------------------------------------------------ */

/* The weights as this pass wants them. */
static pt_status take_weight(struct pt_dnn_kept *kept, const pt_kernel_args *args,
                             const void **ret_weight, pt_error *err)
{
    const float *param = args->dev_param[0];
    if (!kept->copy) {
        *ret_weight = param;
        return PT_OK;
    }
    if (args->param_version == 0 || args->param_version != kept->version ||
        param != kept->address) {
        kept->version = 0;
        PT_TRY(pt_dnn_call_run(&kept->reorder, (const void *const[]){param, kept->copy}, err));
        kept->version = args->param_version;
        kept->address = param;
    }
    *ret_weight = kept->copy;
    return PT_OK;
}

pt_status pt_dnn_weighted_forward(pt_dnn_kernel *k, const pt_kernel_args *args, pt_error *err)
{
    pt_dnn_weighted *w = (pt_dnn_weighted *)k;
    struct pt_dnn_weighted_pass *p = &w->pass[PT_DNN_FORWARD];
    const void *src, *weight;
    PT_TRY(pt_dnn_port_take(&p->src, args->dev_in[0], &src, err));
    PT_TRY(take_weight(&w->kept[PT_DNN_FORWARD], args, &weight, err));
    return pt_dnn_call_run(
        &p->call, (const void *const[]){src, weight, args->dev_out, args->dev_param[1]}, err);
}

pt_status pt_dnn_weighted_backward_input(pt_dnn_kernel *k, const pt_kernel_args *args,
                                         pt_error *err)
{
    pt_dnn_weighted *w = (pt_dnn_weighted *)k;
    struct pt_dnn_weighted_pass *p = &w->pass[PT_DNN_DATA];
    void *d_in = args->dev_d_in[0];
    if (!d_in)
        return PT_OK;
    const void *d_out, *weight;
    PT_TRY(pt_dnn_port_take(&p->dst, args->dev_d_out, &d_out, err));
    PT_TRY(take_weight(&w->kept[PT_DNN_DATA], args, &weight, err));
    PT_TRY(pt_dnn_call_run(
        &p->call, (const void *const[]){pt_dnn_port_address(&p->src, d_in), weight, d_out}, err));
    return pt_dnn_port_give(&p->src, d_in, err);
}

/* The primitive overwrites: it writes the plain gradient itself where its layout is plain and
 * nothing is added up. */
pt_status pt_dnn_weighted_backward_weight(pt_dnn_kernel *k, const pt_kernel_args *args,
                                          pt_error *err)
{
    pt_dnn_weighted *w = (pt_dnn_weighted *)k;
    struct pt_dnn_weighted_pass *p = &w->pass[PT_DNN_WEIGHT];
    float *d_weight = args->dev_d_param[0], *d_bias = args->dev_d_param[1];
    bool direct = !args->accumulate && !w->set_weight.primitive;
    void *weight_room = direct ? d_weight : pt_dnn_room_of(k, PT_DNN_ROOM_W);
    void *bias_room = args->accumulate ? pt_dnn_room_of(k, PT_DNN_ROOM_B) : d_bias;
    const void *src, *d_out;
    PT_TRY(pt_dnn_port_take(&p->src, args->dev_in[0], &src, err));
    PT_TRY(pt_dnn_port_take(&p->dst, args->dev_d_out, &d_out, err));
    PT_TRY(
        pt_dnn_call_run(&p->call, (const void *const[]){src, weight_room, d_out, bias_room}, err));
    if (!direct)
        PT_TRY(pt_dnn_call_run(args->accumulate ? &w->add_weight : &w->set_weight,
                               (const void *const[]){weight_room, d_weight}, err));
    if (!args->accumulate || !k->base.op.bias)
        return PT_OK;
    return pt_cpu_add_flat(k->base.backend, (size_t)k->base.op.features, d_bias, bias_room, d_bias,
                           err);
}
