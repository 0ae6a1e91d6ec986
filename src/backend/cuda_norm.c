/* batch-norm, with add and relu behind it where the op says so. Forward leaves mean and 1/sqrt(var
 * + eps) in `saved`; backward_input makes the parameters' gradients too. */
#include "cuda.h"

typedef struct norm {
    pt_cuda_kernel base;
    pt_cu_norm spec;
} norm;

static pt_status plan(pt_cuda_kernel *k, pt_error *err)
{
    (void)err;
    norm *n = (norm *)k;
    const pt_op *op = &k->base.op;
    const pt_cuda_extent e = pt_cuda_extent_of(&op->in[0]);
    n->spec = (pt_cu_norm){
        .type = k->out.type,
        .rows = k->base.samples * e.area,
        .channels = e.channels,
        .eps = op->eps,
        .momentum = op->momentum,
        .relu = op->relu,
    };
    if (k->base.mode == PT_EVAL) {
        k->base.flags = PT_MAY_RUN_IN_PLACE;
        return PT_OK;
    }
    const size_t vector = (size_t)e.channels * sizeof(float);
    k->base.flags = PT_READS_INPUT_FOR_INPUT | (op->relu ? PT_READS_OUTPUT_FOR_INPUT : 0);
    k->base.saved_bytes = 2 * vector;
    pt_cuda_need(k, PT_CUDA_ROOM_B, 2 * vector);
    pt_cuda_need(k, PT_CUDA_ROOM_PARTIALS, pt_cu_partials_bytes(n->spec.rows, e.channels));
    return PT_OK;
}

static pt_status forward(pt_cuda_kernel *k, const pt_kernel_args *args, pt_error *err)
{
    const norm *n = (const norm *)k;
    bool train = k->base.mode == PT_TRAIN;
    bool blends = !args->again;
    const pt_cu_norm_args a = {
        .x = args->dev_in[0],
        .residual = args->dev_in[1],
        .w = args->dev_param[0],
        .b = args->dev_param[1],
        .running_mean = blends ? args->dev_state[0] : NULL,
        .running_var = blends ? args->dev_state[1] : NULL,
        .saved = args->dev_saved,
        .y = args->dev_out,
        .partials = pt_cuda_room_of(k, PT_CUDA_ROOM_PARTIALS),
    };
    if (train)
        return pt_cuda_check(pt_cu_norm_train(pt_cuda_stream(k), &n->spec, &a), &k->base.op,
                             "pt_cu_norm_train", err);
    return pt_cuda_check(pt_cu_norm_eval(pt_cuda_stream(k), &n->spec, &a), &k->base.op,
                         "pt_cu_norm_eval", err);
}

/* Gradients that nobody wants go to a room. */
static pt_status backward_input(pt_cuda_kernel *k, const pt_kernel_args *args, pt_error *err)
{
    const norm *n = (const norm *)k;
    float *d_w = args->dev_d_param[0], *d_b = args->dev_d_param[1];
    float *room = pt_cuda_room_of(k, PT_CUDA_ROOM_B);
    const pt_cu_norm_args a = {
        .x = args->dev_in[0],
        .w = args->dev_param[0],
        .b = args->dev_param[1],
        .saved = args->dev_saved,
        .dy = args->dev_d_out,
        .y = args->dev_out,
        .dx = args->dev_d_in[0],
        .d_residual = args->dev_d_in[1],
        .dw = d_w ? d_w : room,
        .db = d_b ? d_b : room + n->spec.channels,
        .accumulate = args->accumulate,
        .partials = pt_cuda_room_of(k, PT_CUDA_ROOM_PARTIALS),
    };
    return pt_cuda_check(pt_cu_norm_back(pt_cuda_stream(k), &n->spec, &a), &k->base.op,
                         "pt_cu_norm_back", err);
}

const pt_cuda_kind pt_cuda_kind_norm = {
    .bytes = sizeof(norm),
    .plan = plan,
    .forward = forward,
    .backward_input = backward_input,
};
