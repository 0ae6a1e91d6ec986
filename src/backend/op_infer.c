/* Shape inference: what each kind demands of its inputs and what it gives. A message names the
 * shapes at hand and what to write instead, because a user reads it beside a line of a file. */
#include "pipetrain/op.h"

#include <stdint.h>

/* Elements of one value or parameter: 4 GiB of floats; positions in random streams and int
 * dimensions of libraries stay in range below it. */
#define MOST_ELEMENTS 1073741824.0

static const char *const axis[2] = {"rows", "columns"};

static const char *name_of(const pt_op *op)
{
    return pt_op_rows[op->kind].name;
}

static pt_status need_image(const pt_op *op, pt_error *err)
{
    char text[PT_SHAPE_TEXT];
    if (op->in[0].ndim == 3)
        return PT_OK;
    return pt_fail(err, PT_EINPUT,
                   "%s needs an image (C, H, W), but its input is %s; put it before the layer that "
                   "flattens the image",
                   name_of(op), pt_shape_print(&op->in[0], text));
}

/* What counts for every kind with windows: sizes that make sense and at least one window. */
static pt_status windows(const pt_op *op, pt_shape *out, pt_error *err)
{
    char text[PT_SHAPE_TEXT];
    for (int i = 0; i < 2; i++) {
        if (op->kernel[i] < 1 || op->stride[i] < 1 || op->padding[i] < 0)
            return pt_fail(err, PT_EINPUT,
                           "%s has kernel %lld, stride %lld and padding %lld over %s; kernel and "
                           "stride are at least 1, padding at least 0",
                           name_of(op), (long long)op->kernel[i], (long long)op->stride[i],
                           (long long)op->padding[i], axis[i]);
        int64_t padded = op->in[0].dims[1 + i] + 2 * op->padding[i];
        if (op->kernel[i] > padded)
            return pt_fail(err, PT_EINPUT,
                           "%s with a kernel of %lld %s does not fit its input %s, which has %lld "
                           "%s with padding %lld; use a kernel of at most %lld, more padding or "
                           "less stride before it",
                           name_of(op), (long long)op->kernel[i], axis[i],
                           pt_shape_print(&op->in[0], text), (long long)padded, axis[i],
                           (long long)op->padding[i], (long long)padded);
        out->dims[1 + i] = (padded - op->kernel[i]) / op->stride[i] + 1;
    }
    return PT_OK;
}

static pt_status infer_conv2d(pt_op *op, pt_shape *out, pt_error *err)
{
    PT_TRY(need_image(op, err));
    int64_t channels = op->in[0].dims[0];
    if (op->features < 1 || op->groups < 1)
        return pt_fail(err, PT_EINPUT,
                       "conv2d has features %lld and groups %lld; both are at least 1",
                       (long long)op->features, (long long)op->groups);
    if (channels % op->groups != 0 || op->features % op->groups != 0)
        return pt_fail(err, PT_EINPUT,
                       "conv2d has groups %lld, which does not divide both its %lld input channels "
                       "and its %lld features; use a common divisor",
                       (long long)op->groups, (long long)channels, (long long)op->features);
    *out = op->in[0];
    out->dims[0] = op->features;
    return windows(op, out, err);
}

static pt_status infer_linear(pt_op *op, pt_shape *out, pt_error *err)
{
    char text[PT_SHAPE_TEXT];
    const pt_shape *in = &op->in[0];
    if (in->ndim != 1)
        return pt_fail(err, PT_EINPUT,
                       "linear needs features (F), but its input is %s; put a flatten layer before "
                       "it, then it sees %lld features",
                       pt_shape_print(in, text), (long long)pt_shape_elements(in));
    if (op->features < 1)
        return pt_fail(err, PT_EINPUT, "linear has features %lld; give at least 1",
                       (long long)op->features);
    *out = (pt_shape){1, {op->features}};
    return PT_OK;
}

static pt_status infer_batch_norm(pt_op *op, pt_shape *out, pt_error *err)
{
    char text[PT_SHAPE_TEXT];
    if (op->in[0].ndim != 1 && op->in[0].ndim != 3)
        return pt_fail(err, PT_EINPUT,
                       "batch-norm needs features (F) or an image (C, H, W), but its input is %s",
                       pt_shape_print(&op->in[0], text));
    if (!(op->eps > 0) || !(op->momentum >= 0 && op->momentum <= 1))
        return pt_fail(err, PT_EINPUT,
                       "batch-norm has eps %g and momentum %g; eps is above 0, momentum between 0 "
                       "and 1",
                       op->eps, op->momentum);
    *out = op->in[0];
    return PT_OK;
}

static pt_status infer_same(pt_op *op, pt_shape *out, pt_error *err)
{
    (void)err;
    *out = op->in[0];
    return PT_OK;
}

static pt_status infer_pool(pt_op *op, pt_shape *out, pt_error *err)
{
    PT_TRY(need_image(op, err));
    for (int i = 0; i < 2; i++) {
        if (op->stride[i] == 0)
            op->stride[i] = op->kernel[i];
        if (op->padding[i] > op->kernel[i] / 2)
            return pt_fail(err, PT_EINPUT,
                           "%s has padding %lld for a kernel of %lld %s; use at most half the "
                           "kernel, %lld",
                           name_of(op), (long long)op->padding[i], (long long)op->kernel[i],
                           axis[i], (long long)(op->kernel[i] / 2));
    }
    *out = op->in[0];
    return windows(op, out, err);
}

static pt_status infer_global_pool(pt_op *op, pt_shape *out, pt_error *err)
{
    PT_TRY(need_image(op, err));
    *out = (pt_shape){1, {op->in[0].dims[0]}};
    return PT_OK;
}

static pt_status infer_flatten(pt_op *op, pt_shape *out, pt_error *err)
{
    (void)err;
    *out = (pt_shape){1, {pt_shape_elements(&op->in[0])}};
    return PT_OK;
}

static pt_status infer_add(pt_op *op, pt_shape *out, pt_error *err)
{
    char first[PT_SHAPE_TEXT], other[PT_SHAPE_TEXT];
    for (int i = 1; i < op->n_inputs; i++)
        if (!pt_shape_equal(&op->in[0], &op->in[i]))
            return pt_fail(err, PT_EINPUT,
                           "add needs equal shapes, but input 1 is %s and input %d is %s; bring "
                           "them together with a convolution (kernel 1) on one of them",
                           pt_shape_print(&op->in[0], first), i + 1,
                           pt_shape_print(&op->in[i], other));
    *out = op->in[0];
    return PT_OK;
}

static pt_status infer_concat(pt_op *op, pt_shape *out, pt_error *err)
{
    char first[PT_SHAPE_TEXT], other[PT_SHAPE_TEXT];
    *out = op->in[0];
    for (int i = 1; i < op->n_inputs; i++) {
        pt_shape same = op->in[i];
        same.dims[0] = op->in[0].dims[0];
        if (!pt_shape_equal(&op->in[0], &same))
            return pt_fail(err, PT_EINPUT,
                           "concat joins channels, so all else must be equal, but input 1 is %s "
                           "and input %d is %s",
                           pt_shape_print(&op->in[0], first), i + 1,
                           pt_shape_print(&op->in[i], other));
        out->dims[0] += op->in[i].dims[0];
    }
    return PT_OK;
}

static pt_status infer_dropout(pt_op *op, pt_shape *out, pt_error *err)
{
    if (!(op->p >= 0 && op->p < 1))
        return pt_fail(err, PT_EINPUT, "dropout has p %g; use 0 <= p < 1", op->p);
    *out = op->in[0];
    return PT_OK;
}

typedef pt_status (*infer_function)(pt_op *op, pt_shape *out, pt_error *err);

static const infer_function infer_of[PT_OP_KINDS] = {
    [PT_OP_CONV2D] = infer_conv2d,
    [PT_OP_LINEAR] = infer_linear,
    [PT_OP_BATCH_NORM] = infer_batch_norm,
    [PT_OP_RELU] = infer_same,
    [PT_OP_GELU] = infer_same,
    [PT_OP_MAX_POOL] = infer_pool,
    [PT_OP_AVG_POOL] = infer_pool,
    [PT_OP_GLOBAL_AVG_POOL] = infer_global_pool,
    [PT_OP_FLATTEN] = infer_flatten,
    [PT_OP_ADD] = infer_add,
    [PT_OP_CONCAT] = infer_concat,
    [PT_OP_DROPOUT] = infer_dropout,
};

static double elements_of(const pt_shape *shape)
{
    double elements = 1; /* pt_shape_elements could overflow */
    for (int d = 0; d < shape->ndim; d++)
        elements *= (double)shape->dims[d];
    return elements;
}

static pt_status too_big(const pt_op *op, double elements, const char *what, pt_error *err)
{
    char text[PT_SHAPE_TEXT];
    return pt_fail(err, PT_EINPUT,
                   "%s on %s would have %.3g elements in its %s, more than %.0f; make it smaller",
                   name_of(op), pt_shape_print(&op->in[0], text), elements, what, MOST_ELEMENTS);
}

static pt_status check_inputs(const pt_op *op, pt_error *err)
{
    const pt_op_row *row = &pt_op_rows[op->kind];
    if (op->n_inputs < row->min_inputs || op->n_inputs > row->max_inputs) {
        if (row->min_inputs == row->max_inputs)
            return pt_fail(err, PT_EINPUT, "%s takes %d input, not %d", row->name, row->min_inputs,
                           op->n_inputs);
        return pt_fail(err, PT_EINPUT, "%s takes %d to %d inputs, not %d", row->name,
                       row->min_inputs, row->max_inputs, op->n_inputs);
    }
    for (int i = 0; i < op->n_inputs; i++) {
        char text[PT_SHAPE_TEXT];
        for (int d = 0; d < op->in[i].ndim; d++)
            if (op->in[i].dims[d] < 1)
                return pt_fail(err, PT_EINPUT, "%s gets the empty shape %s", row->name,
                               pt_shape_print(&op->in[i], text));
        if (elements_of(&op->in[i]) > MOST_ELEMENTS)
            return too_big(op, elements_of(&op->in[i]), "input", err);
    }
    return PT_OK;
}

static pt_status check_size(const pt_op *op, const pt_shape *out, pt_error *err)
{
    if (elements_of(out) > MOST_ELEMENTS)
        return too_big(op, elements_of(out), "output", err);
    pt_op_tensor params[PT_MAX_PARAMS];
    if (pt_op_params(op, params) > 0 && (double)params[0].elements > MOST_ELEMENTS)
        return too_big(op, (double)params[0].elements, "weight", err);
    return PT_OK;
}

pt_status pt_op_infer(pt_op *op, pt_error *err)
{
    pt_shape out = {0};
    PT_TRY(check_inputs(op, err));
    PT_TRY(infer_of[op->kind](op, &out, err));
    PT_TRY(check_size(op, &out, err));
    op->out = out;
    return PT_OK;
}
