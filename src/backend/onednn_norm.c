/* batch-norm. The library makes batch mean and biased variance, which the forward leaves in `saved`
 * for the backward; the running ones are updated here, by the unbiased estimate.
 *
 * The library has no separate pass for the parameters' gradients: backward_input makes them. */
#include "onednn.h"

#include "pipetrain/arena.h"

typedef struct norm {
    pt_dnn_kernel base;
    dnnl_memory_desc_t md; /* the primitive's layout; a vector (F) is an image of 1 × 1 */
    pt_dnn_call forward, backward;
    pt_dnn_port in, d_in; /* the output has the primitive's layout */
    double count;         /* elements behind one mean */
} norm;

enum { FLAGS = dnnl_use_scale | dnnl_use_shift };

static size_t vector_bytes(const pt_dnn_kernel *k)
{
    return pt_align_up((size_t)k->base.op.in[0].dims[0] * sizeof(float));
}

/* ---- plan ----------------------------------------------------------------------------------- */

static pt_status plan_forward(pt_dnn_kernel *k, const dnnl_memory_desc_t *md, pt_dnn_call *ret_call,
                              pt_error *err)
{
    const pt_op *op = &k->base.op;
    bool train = k->base.mode == PT_TRAIN;
    unsigned flags = FLAGS | (train ? 0u : (unsigned)dnnl_use_global_stats);
    dnnl_batch_normalization_desc_t desc;
    dnnl_status_t status = dnnl_batch_normalization_forward_desc_init(
        &desc, train ? dnnl_forward_training : dnnl_forward_inference, md, (float)op->eps, flags);
    PT_TRY(pt_dnn_check(status, op, "forward", err));
    return pt_dnn_call_plan(ret_call, pt_dnn_of(k), op, "forward", &desc, NULL, err);
}

static pt_status plan_backward(norm *n, pt_error *err)
{
    pt_dnn_kernel *k = &n->base;
    const pt_op *op = &k->base.op;
    dnnl_batch_normalization_desc_t desc;
    dnnl_status_t status = dnnl_batch_normalization_backward_desc_init(
        &desc, dnnl_backward, &n->md, &n->md, (float)op->eps, FLAGS);
    PT_TRY(pt_dnn_check(status, op, "backward", err));
    PT_TRY(pt_dnn_call_plan(&n->backward, pt_dnn_of(k), op, "backward", &desc, &n->forward, err));
    return pt_dnn_call_accept(&n->backward, err);
}

/* An image keeps the layout of its input where the library has code for that. */
static pt_status plan_image(norm *n, pt_error *err)
{
    pt_dnn_kernel *k = &n->base;
    PT_TRY(pt_dnn_plan_first(k, plan_forward, &n->forward, &n->md, err));
    pt_dnn_set_out(k, &n->md);
    return PT_OK;
}

/* Plain vectors are channels-last images. */
static pt_status plan_vector(norm *n, pt_error *err)
{
    pt_dnn_kernel *k = &n->base;
    PT_TRY(pt_dnn_image(&k->base.op.in[0], k->base.samples, dnnl_nhwc, &n->md, err));
    PT_TRY(plan_forward(k, &n->md, &n->forward, err));
    PT_TRY(pt_dnn_call_accept(&n->forward, err));
    pt_dnn_set_out(k, &k->in[0]->md);
    return PT_OK;
}

static pt_status use_backward(norm *n, pt_error *err)
{
    /* The shift does not matter, but release 2.6 counts its arguments. */
    static const int args[] = {DNNL_ARG_SRC,        DNNL_ARG_MEAN,
                               DNNL_ARG_VARIANCE,   DNNL_ARG_SCALE,
                               DNNL_ARG_SHIFT,      DNNL_ARG_DIFF_DST,
                               DNNL_ARG_DIFF_SRC,   DNNL_ARG_DIFF_SCALE,
                               DNNL_ARG_DIFF_SHIFT, 0};
    pt_dnn_kernel *k = &n->base;
    PT_TRY(plan_backward(n, err));
    PT_TRY(pt_dnn_use(k, &n->backward, args, err));
    /* Where nobody wants the input's gradient, it goes to a room. */
    pt_dnn_need(k, PT_DNN_ROOM_W, dnnl_memory_desc_get_size(&n->md));
    pt_dnn_need(k, PT_DNN_ROOM_B, 2 * vector_bytes(k));
    if (k->base.op.in[0].ndim != 3)
        return PT_OK;
    return pt_dnn_port_plan_out(&n->d_in, k, PT_DNN_ROOM_Y, &n->md, &k->in[0]->md, err);
}

static pt_status use_forward(norm *n, pt_error *err)
{
    static const int args[] = {DNNL_ARG_SRC,
                               DNNL_ARG_MEAN,
                               DNNL_ARG_VARIANCE,
                               DNNL_ARG_SCALE,
                               DNNL_ARG_SHIFT,
                               DNNL_ARG_DST,
                               0};
    pt_dnn_kernel *k = &n->base;
    PT_TRY(pt_dnn_use(k, &n->forward, args, err));
    if (k->base.op.in[0].ndim != 3)
        return PT_OK;
    return pt_dnn_port_plan_in(&n->in, k, PT_DNN_ROOM_X, &k->in[0]->md, &n->md, err);
}

static pt_status plan(pt_dnn_kernel *k, pt_error *err)
{
    norm *n = (norm *)k;
    const pt_shape *shape = &k->base.op.in[0];
    PT_TRY(shape->ndim == 3 ? plan_image(n, err) : plan_vector(n, err));
    n->count = (double)k->base.samples * (double)pt_shape_elements(shape) / (double)shape->dims[0];
    PT_TRY(use_forward(n, err));
    if (k->base.mode == PT_TRAIN) {
        k->base.flags = PT_READS_INPUT_FOR_INPUT;
        k->base.saved_bytes = 2 * vector_bytes(k);
        return use_backward(n, err);
    }
    if (pt_dnn_same(&k->in[0]->md, &k->out.md))
        k->base.flags = PT_MAY_RUN_IN_PLACE;
    return PT_OK;
}

static void clear(pt_dnn_kernel *k)
{
    norm *n = (norm *)k;
    pt_dnn_port_clear(&n->in);
    pt_dnn_port_clear(&n->d_in);
    pt_dnn_call_clear(&n->backward);
    pt_dnn_call_clear(&n->forward);
}

/* ---- run ------------------------------------------------------------------------------------ */

/* running <- (1 - m) running + m scale batch */
static void blend(int64_t channels, double m, double scale, const float *batch, float *running)
{
    for (int64_t c = 0; c < channels; c++)
        running[c] = (float)((1 - m) * (double)running[c] + m * scale * (double)batch[c]);
}

static pt_status forward(pt_dnn_kernel *k, const pt_kernel_args *args, pt_error *err)
{
    norm *n = (norm *)k;
    const pt_op *op = &k->base.op;
    bool train = k->base.mode == PT_TRAIN;
    float *mean = train ? args->dev_saved : args->dev_state[0];
    float *variance = train ? mean + vector_bytes(k) / sizeof(float) : args->dev_state[1];
    const void *src;
    PT_TRY(pt_dnn_port_take(&n->in, args->dev_in[0], &src, err));
    PT_TRY(pt_dnn_call_run(&n->forward,
                           (const void *const[]){src, mean, variance, args->dev_param[0],
                                                 args->dev_param[1], args->dev_out},
                           err));
    if (!train || args->again)
        return PT_OK;
    double unbiased = n->count > 1 ? n->count / (n->count - 1) : 1;
    blend(op->in[0].dims[0], op->momentum, 1, mean, args->dev_state[0]);
    blend(op->in[0].dims[0], op->momentum, unbiased, variance, args->dev_state[1]);
    return PT_OK;
}

/* Gradients of the parameters go through a room where they are added up or not wanted. */
static pt_status backward_input(pt_dnn_kernel *k, const pt_kernel_args *args, pt_error *err)
{
    norm *n = (norm *)k;
    float *mean = args->dev_saved, *d_param[2];
    for (int i = 0; i < 2; i++)
        d_param[i] = args->accumulate || !args->dev_d_param[i]
                         ? (float *)((char *)pt_dnn_room_of(k, PT_DNN_ROOM_B) + i * vector_bytes(k))
                         : args->dev_d_param[i];
    void *d_in = args->dev_d_in[0] ? pt_dnn_port_address(&n->d_in, args->dev_d_in[0])
                                   : pt_dnn_room_of(k, PT_DNN_ROOM_W);
    const void *src;
    PT_TRY(pt_dnn_port_take(&n->in, args->dev_in[0], &src, err));
    PT_TRY(pt_dnn_call_run(&n->backward,
                           (const void *const[]){src, mean, mean + vector_bytes(k) / sizeof(float),
                                                 args->dev_param[0], args->dev_param[1],
                                                 args->dev_d_out, d_in, d_param[0], d_param[1]},
                           err));
    if (args->dev_d_in[0])
        PT_TRY(pt_dnn_port_give(&n->d_in, args->dev_d_in[0], err));
    for (int i = 0; i < 2 && args->accumulate; i++)
        if (args->dev_d_param[i])
            PT_TRY(pt_cpu_add_flat(k->base.backend, (size_t)k->base.op.in[0].dims[0],
                                   args->dev_d_param[i], d_param[i], args->dev_d_param[i], err));
    return PT_OK;
}

const pt_dnn_kind pt_dnn_norm = {
    .bytes = sizeof(norm),
    .plan = plan,
    .clear = clear,
    .forward = forward,
    .backward_input = backward_input,
};
