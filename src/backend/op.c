/* The table of op kinds: names, attributes, parameters and cost. What the kinds compute is stated
 * in op.h; their shapes are checked in op_infer.c. */
#include "pipetrain/op.h"

#include <assert.h>
#include <stddef.h>
#include <string.h>

/* Upper ends that no real layer reaches: they keep products of sizes inside 64 bits. */
#define MOST_FEATURES 1048576
#define MOST_KERNEL   1024

#define FEATURES(help_)                                                                            \
    {                                                                                              \
        "features", true, 1, MOST_FEATURES, 1, 0, help_, PT_OP_INTEGER                             \
    }
#define KERNEL                                                                                     \
    {                                                                                              \
        "kernel", true, 1, MOST_KERNEL, 2, 0, "window size: one number, or [rows, columns]",       \
            PT_OP_INTEGER                                                                          \
    }
#define STRIDE(fallback_, help_)                                                                   \
    {                                                                                              \
        "stride", false, 1, MOST_KERNEL, 2, fallback_, help_, PT_OP_INTEGER                        \
    }
#define PADDING(help_)                                                                             \
    {                                                                                              \
        "padding", false, 0, MOST_KERNEL, 2, 0, help_, PT_OP_INTEGER                               \
    }
#define BIAS                                                                                       \
    {                                                                                              \
        "bias", false, 0, 1, 1, 1, "whether a bias is added", PT_OP_SWITCH                         \
    }

const pt_op_row pt_op_rows[PT_OP_KINDS] = {
    [PT_OP_CONV2D] = {"conv2d",
                      "convolution of an image",
                      1,
                      1,
                      {FEATURES("output channels"),
                       KERNEL,
                       STRIDE(1, "step of the window: one number, or [rows, columns]"),
                       PADDING("zeros around the image: one number, or [rows, columns]"),
                       {"groups", false, 1, MOST_FEATURES, 1, 1,
                        "groups of channels that do not see each other; the number of channels "
                        "makes a depthwise convolution",
                        PT_OP_INTEGER},
                       BIAS}},
    [PT_OP_LINEAR] = {"linear", "fully connected layer", 1, 1, {FEATURES("output features"), BIAS}},
    [PT_OP_BATCH_NORM] = {"batch-norm",
                          "batch normalisation of each channel or feature",
                          1,
                          1,
                          {{"eps", false, 1e-12, 1, 1, 1e-5, "added to the variance", PT_OP_REAL},
                           {"momentum", false, 0, 1, 1, 0.1,
                            "weight of a batch in the running statistics", PT_OP_REAL}}},
    [PT_OP_RELU] = {"relu", "max(x, 0)", 1, 1, {{0}}},
    [PT_OP_GELU] = {"gelu", "x·Φ(x), exact", 1, 1, {{0}}},
    [PT_OP_MAX_POOL] = {"max-pool",
                        "maximum of each window",
                        1,
                        1,
                        {KERNEL, STRIDE(0, "step of the window; the kernel unless given"),
                         PADDING("rows and columns that never win, at most half the kernel")}},
    [PT_OP_AVG_POOL] = {"avg-pool",
                        "mean of each window",
                        1,
                        1,
                        {KERNEL, STRIDE(0, "step of the window; the kernel unless given"),
                         PADDING("zeros that count in the mean, at most half the kernel")}},
    [PT_OP_GLOBAL_AVG_POOL] = {"global-avg-pool", "mean of each channel", 1, 1, {{0}}},
    [PT_OP_FLATTEN] = {"flatten", "image to features", 1, 1, {{0}}},
    [PT_OP_ADD] = {"add", "sum of equal shapes", 2, PT_MAX_INPUTS, {{0}}},
    [PT_OP_CONCAT] =
        {"concat", "inputs one after the other along channels", 2, PT_MAX_INPUTS, {{0}}},
    [PT_OP_DROPOUT] = {"dropout",
                       "zeros at random in training",
                       1,
                       1,
                       {{"p", false, 0, 0.999, 1, 0.5, "probability of a zero", PT_OP_REAL}}},
};

pt_op_kind pt_op_find(const char *name)
{
    int kind = 0;
    while (kind < PT_OP_KINDS && strcmp(name, pt_op_rows[kind].name) != 0)
        kind++;
    return (pt_op_kind)kind;
}

/* Where each attribute of the table lives in a pt_op. */
typedef struct op_field {
    const char *name;
    size_t offset;
    pt_op_value type;
    int n_values;
} op_field;

static const op_field fields[] = {
    {"features", offsetof(pt_op, features), PT_OP_INTEGER, 1},
    {"kernel", offsetof(pt_op, kernel), PT_OP_INTEGER, 2},
    {"stride", offsetof(pt_op, stride), PT_OP_INTEGER, 2},
    {"padding", offsetof(pt_op, padding), PT_OP_INTEGER, 2},
    {"groups", offsetof(pt_op, groups), PT_OP_INTEGER, 1},
    {"bias", offsetof(pt_op, bias), PT_OP_SWITCH, 1},
    {"eps", offsetof(pt_op, eps), PT_OP_REAL, 1},
    {"momentum", offsetof(pt_op, momentum), PT_OP_REAL, 1},
    {"p", offsetof(pt_op, p), PT_OP_REAL, 1},
};

enum { N_FIELDS = sizeof fields / sizeof fields[0] };

static const op_field *find_field(const char *attribute)
{
    for (int i = 0; i < N_FIELDS; i++)
        if (strcmp(fields[i].name, attribute) == 0)
            return &fields[i];
    return NULL;
}

void pt_op_set(pt_op *op, const char *attribute, const double values[2])
{
    const op_field *field = find_field(attribute);
    assert(field);
    if (!field)
        return;
    void *at = (char *)op + field->offset;
    switch (field->type) {
    case PT_OP_INTEGER:
        for (int i = 0; i < field->n_values; i++)
            ((int64_t *)at)[i] = (int64_t)values[i];
        break;
    case PT_OP_REAL:
        *(double *)at = values[0];
        break;
    case PT_OP_SWITCH:
        *(bool *)at = values[0] != 0;
        break;
    }
}

void pt_op_defaults(pt_op *op, pt_op_kind kind)
{
    op->kind = kind;
    for (const pt_op_attribute *a = pt_op_rows[kind].attributes; a->name; a++)
        pt_op_set(op, a->name, (const double[2]){a->fallback, a->fallback});
}

/* ---- parameters and state ---------------------------------------------------------------------
 */

/* A tensor too big to count has INT64_MAX elements; pt_op_infer refuses it. */
static pt_op_tensor tensor(const char *name, int ndim, const int64_t dims[])
{
    pt_op_tensor t = {.name = name, .ndim = ndim, .elements = 1};
    for (int i = 0; i < ndim; i++) {
        t.dims[i] = dims[i];
        if (__builtin_mul_overflow(t.elements, dims[i], &t.elements))
            t.elements = INT64_MAX;
    }
    return t;
}

int pt_op_params(const pt_op *op, pt_op_tensor ret_params[PT_MAX_PARAMS])
{
    const int64_t channels = op->in[0].dims[0];
    switch (op->kind) {
    case PT_OP_CONV2D:
        ret_params[0] = tensor(
            "weight", 4,
            (const int64_t[]){op->features, channels / op->groups, op->kernel[0], op->kernel[1]});
        break;
    case PT_OP_LINEAR:
        ret_params[0] = tensor("weight", 2, (const int64_t[]){op->features, channels});
        break;
    case PT_OP_BATCH_NORM:
        ret_params[0] = tensor("weight", 1, &channels);
        ret_params[1] = tensor("bias", 1, &channels);
        return 2;
    default:
        return 0;
    }
    if (!op->bias)
        return 1;
    ret_params[1] = tensor("bias", 1, &op->features);
    return 2;
}

int pt_op_state(const pt_op *op, pt_op_tensor ret_state[PT_MAX_STATE])
{
    if (op->kind != PT_OP_BATCH_NORM)
        return 0;
    ret_state[0] = tensor("running_mean", 1, &op->in[0].dims[0]);
    ret_state[1] = tensor("running_var", 1, &op->in[0].dims[0]);
    return 2;
}

/* ---- cost -------------------------------------------------------------------------------------
 */

/* Operations for each element of the output: a rough
 * count, since these ops wait for memory and not for arithmetic. */
static double flops_per_element(const pt_op *op)
{
    switch (op->kind) {
    case PT_OP_CONV2D:
        return 2.0 * (double)(op->in[0].dims[0] / op->groups * op->kernel[0] * op->kernel[1]) +
               op->bias;
    case PT_OP_LINEAR:
        return 2.0 * (double)op->in[0].dims[0] + op->bias;
    case PT_OP_BATCH_NORM:
        return 8; /* three passes: mean, variance, the map */
    case PT_OP_GELU:
        return 16; /* erf is a polynomial */
    case PT_OP_DROPOUT:
        return 16; /* a quarter of ten Philox rounds */
    case PT_OP_MAX_POOL:
    case PT_OP_AVG_POOL:
        return (double)(op->kernel[0] * op->kernel[1]);
    case PT_OP_GLOBAL_AVG_POOL:
        return (double)(op->in[0].dims[1] * op->in[0].dims[2]);
    case PT_OP_ADD:
        return op->n_inputs - 1;
    case PT_OP_RELU:
        return 1;
    default:
        return 0; /* flatten and concat only move */
    }
}

double pt_op_flops(const pt_op *op)
{
    return flops_per_element(op) * (double)pt_shape_elements(&op->out);
}
