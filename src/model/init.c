/* Initial values: one random stream for each parameter tensor, keyed by its layer's index. */
#include "pipetrain/init.h"

#include <math.h>
#include <string.h>

#include "pipetrain/rng.h"

/* Inputs that one output sees: the product of all dimensions of the weight but the first. */
static double fan_in(const pt_op_tensor *weight)
{
    return (double)(weight->elements / weight->dims[0]);
}

/* Outputs that one input reaches, counted as PyTorch and the wide-resnet code do: O · KH · KW,
 * whatever the groups. */
static double fan_out(const pt_op_tensor *weight)
{
    double fan = (double)weight->dims[0];
    for (int d = 2; d < weight->ndim; d++)
        fan *= (double)weight->dims[d];
    return fan;
}

static void fill(float *dst, int64_t n, float value)
{
    for (int64_t i = 0; i < n; i++)
        dst[i] = value;
}

static void fill_uniform(pt_rng *rng, float *dst, int64_t n, float bound)
{
    for (int64_t i = 0; i < n; i++)
        dst[i] = bound * (2 * pt_rng_unit(rng) - 1);
}

static void fill_normal(pt_rng *rng, float *dst, int64_t n, float deviation)
{
    for (int64_t i = 0; i < n; i++)
        dst[i] = deviation * pt_rng_normal(rng);
}

void pt_init_param(const pt_op *op, int param, pt_init_kind kind, uint64_t seed, float *dst)
{
    pt_op_tensor params[PT_MAX_PARAMS];
    pt_rng rng;

    pt_op_params(op, params);
    const pt_op_tensor *tensor = &params[param];
    bool is_weight = param == 0;
    pt_rng_init(&rng, seed, PT_RNG_INIT, op->layer, (uint64_t)param);
    if (op->kind == PT_OP_BATCH_NORM)
        fill(dst, tensor->elements, is_weight ? 1 : 0);
    else if (kind == PT_INIT_HE && !is_weight)
        fill(dst, tensor->elements, 0);
    else if (kind == PT_INIT_HE && op->kind == PT_OP_CONV2D)
        fill_normal(&rng, dst, tensor->elements, (float)sqrt(2 / fan_out(tensor)));
    else /* torch.nn: weight and bias alike, by the weight's fan */
        fill_uniform(&rng, dst, tensor->elements, (float)(1 / sqrt(fan_in(&params[0]))));
}

void pt_init_state(const pt_op *op, int state, float *dst)
{
    pt_op_tensor states[PT_MAX_STATE];

    pt_op_state(op, states);
    fill(dst, states[state].elements, strcmp(states[state].name, "running_var") == 0 ? 1 : 0);
}
