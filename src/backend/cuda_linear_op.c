/* linear. The weights have the library's order; bf16 keeps converted copies. Bias and its gradient
 * ride along with the products where cuBLASLt has an epilogue for that. */
#include "cuda.h"

typedef struct linear {
    pt_cuda_kernel base;
    pt_cuda_gemm *forward, *input;
    pt_cuda_gemm *weight[2]; /* [accumulate] */
    pt_cuda_weight kept;
} linear;

/* ---- plan ----------------------------------------------------------------------------------- */

static pt_status plan_pass(linear *l, pt_gemm_pass pass, bool accumulate, pt_cuda_gemm **ret_gemm,
                           pt_error *err)
{
    const pt_cuda_kernel *k = &l->base;
    const pt_op *op = &k->base.op;
    const pt_gemm_shape shape = {
        .samples = k->base.samples,
        .inputs = op->in[0].dims[0],
        .outputs = op->features,
        .pass = (int32_t)pass,
        .precision = (int32_t)pt_cuda_of(k)->config.precision,
        .bias = op->bias && pass != PT_GEMM_BACKWARD_INPUT,
        .accumulate = accumulate,
        .deterministic = pt_cuda_of(k)->config.deterministic,
    };
    if (pt_cuda_gemm_plan(pt_cuda_of(k)->gemms, &shape, ret_gemm, err) != PT_OK)
        return pt_fail_within(err, "linear (layer %u)", op->layer);
    return PT_OK;
}

static pt_status plan(pt_cuda_kernel *k, pt_error *err)
{
    linear *l = (linear *)k;
    const pt_op *op = &k->base.op;
    PT_TRY(plan_pass(l, PT_GEMM_FORWARD, /*accumulate=*/false, &l->forward, err));
    pt_cuda_weight_plan(&l->kept, k, op->features, /*rows=*/1, op->in[0].dims[0]);
    pt_cuda_need(k, PT_CUDA_ROOM_WORKSPACE, PT_CUDA_GEMM_WORKSPACE);
    if (k->base.mode == PT_EVAL)
        return PT_OK;
    k->base.flags = PT_READS_INPUT_FOR_WEIGHT | PT_SPLITS_BACKWARD;
    PT_TRY(plan_pass(l, PT_GEMM_BACKWARD_INPUT, /*accumulate=*/false, &l->input, err));
    for (int i = 0; i < 2; i++)
        PT_TRY(plan_pass(l, PT_GEMM_BACKWARD_WEIGHT, /*accumulate=*/i, &l->weight[i], err));
    if (!op->bias)
        return PT_OK;
    pt_cuda_need(k, PT_CUDA_ROOM_B, (size_t)op->features * sizeof(float));
    pt_cuda_need(k, PT_CUDA_ROOM_PARTIALS, pt_cu_partials_bytes(k->base.samples, op->features));
    return PT_OK;
}

static pt_status build(pt_cuda_kernel *k, pt_error *err)
{
    return pt_cuda_weight_build(&((linear *)k)->kept, k, err);
}

static void clear(pt_cuda_kernel *k)
{
    pt_cuda_weight_clear(&((linear *)k)->kept, k);
}

/* ---- run ------------------------------------------------------------------------------------ */

static pt_status run_gemm(linear *l, pt_cuda_gemm *gemm, const pt_gemm_args *args, pt_error *err)
{
    const pt_cuda_kernel *k = &l->base;
    if (pt_cuda_gemm_run(gemm, pt_cuda_stream(k), args, pt_cuda_room_of(k, PT_CUDA_ROOM_WORKSPACE),
                         err) != PT_OK)
        return pt_fail_within(err, "linear (layer %u)", k->base.op.layer);
    return PT_OK;
}

static pt_status forward(pt_cuda_kernel *k, const pt_kernel_args *args, pt_error *err)
{
    linear *l = (linear *)k;
    const bool fused = pt_cuda_gemm_adds_bias(l->forward);
    const void *weight;
    PT_TRY(pt_cuda_weight_take(&l->kept, k, args, &weight, err));
    const pt_gemm_args product = {
        .x = args->dev_in[0],
        .w = weight,
        .b = fused ? args->dev_param[1] : NULL,
        .y = args->dev_out,
    };
    PT_TRY(run_gemm(l, l->forward, &product, err));
    if (fused || !k->base.op.bias)
        return PT_OK;
    return pt_cuda_check(pt_cu_bias(pt_cuda_stream(k), k->out.type, k->base.samples,
                                    k->base.op.features, args->dev_param[1], args->dev_out),
                         &k->base.op, "pt_cu_bias", err);
}

static pt_status backward_input(pt_cuda_kernel *k, const pt_kernel_args *args, pt_error *err)
{
    linear *l = (linear *)k;
    const void *weight;
    if (!args->dev_d_in[0])
        return PT_OK;
    PT_TRY(pt_cuda_weight_take(&l->kept, k, args, &weight, err));
    const pt_gemm_args product = {
        .w = weight, .y = (void *)args->dev_d_out, .dx = args->dev_d_in[0]};
    return run_gemm(l, l->input, &product, err);
}

/* The gradient of the bias when the product does not make it. */
static pt_status sum_bias(pt_cuda_kernel *k, const pt_kernel_args *args, pt_error *err)
{
    return pt_cuda_check(pt_cu_bias_back(pt_cuda_stream(k), k->out.type, k->base.samples,
                                         k->base.op.features, args->dev_d_out, args->dev_d_param[1],
                                         args->accumulate,
                                         pt_cuda_room_of(k, PT_CUDA_ROOM_PARTIALS)),
                         &k->base.op, "pt_cu_bias_back", err);
}

/* The product adds up the gradient of the weights, but overwrites that of the bias. */
static pt_status backward_weight(pt_cuda_kernel *k, const pt_kernel_args *args, pt_error *err)
{
    linear *l = (linear *)k;
    pt_cuda_gemm *gemm = l->weight[args->accumulate];
    const bool bias = k->base.op.bias, fused = bias && pt_cuda_gemm_makes_bias_gradient(gemm);
    float *d_bias = args->dev_d_param[1];
    float *room = pt_cuda_room_of(k, PT_CUDA_ROOM_B);
    const pt_gemm_args product = {
        .x = args->dev_in[0],
        .y = (void *)args->dev_d_out,
        .dw = args->dev_d_param[0],
        .db = !fused             ? NULL
              : args->accumulate ? room
                                 : d_bias,
    };
    PT_TRY(run_gemm(l, gemm, &product, err));
    if (bias && !fused)
        return sum_bias(k, args, err);
    if (!fused || !args->accumulate)
        return PT_OK;
    return pt_cuda_axpby(k->base.backend, (size_t)k->base.op.features, 1, d_bias, 1, room, d_bias,
                         err);
}

const pt_cuda_kind pt_cuda_kind_linear = {
    .bytes = sizeof(linear),
    .plan = plan,
    .build = build,
    .clear = clear,
    .forward = forward,
    .backward_input = backward_input,
    .backward_weight = backward_weight,
};
