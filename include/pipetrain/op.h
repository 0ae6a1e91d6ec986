/* Ops as data: a kind, shapes and attributes. What each kind computes is stated here once; every
 * backend implements exactly this, and the `ref` backend is the oracle.
 *
 * Notation: n sample, c channel, h/w row and column, KH KW kernel, S stride, P padding, G groups.
 *
 *  conv2d           y[n,o,h,w] = b[o] + sum_{i,u,v} x[n, i + g·I/G, h·S+u-P, w·S+v-P] · w[o,i,u,v]
 *                   x (C,H,W)  w (O,C/G,KH,KW)  b (O)  y (O,H',W')   g = group of o
 *  linear           y[n,o] = b[o] + sum_i x[n,i] w[o,i]           x (I)  w (O,I)  b (O)  y (O)
 *  batch-norm       y = w[c]·(x - mean_c)/sqrt(var_c + eps) + b[c]     x (C,H,W) or (F)
 *                   Training: mean and biased variance over (n,h,w) of the micro-batch, and
 *                   running ← (1-momentum)·running + momentum·batch, the variance by its unbiased
 *                   estimate (·count/(count-1); biased when count is 1).
 *                   Inference: the running ones.
 *                   A second input is added to y, and relu of that follows where `relu` is set:
 *                   forms that a stage makes of batch-norm, add and relu in a row
 *                   (program_fuse.c); no partition file says them. Same bits as one after another.
 *  relu             y = max(x, 0)
 *  gelu             y = x·Φ(x), Φ by erf (not the tanh approximation)
 *  max-pool         maximum over the window; padding counts as -inf; the first maximum wins
 *  avg-pool         mean over the window; padding counts as zeros (PyTorch's count_include_pad)
 *  global-avg-pool  (C,H,W) → (C)
 *  flatten          (C,H,W) → (C·H·W), row-major
 *  add              sum of all inputs, equal shapes
 *  concat           along channels (dimension 0 of the sample shape)
 *  dropout          training: y = x·m/(1-p), m = 1 with probability 1-p; inference: y = x.
 *                   Element e (row-major in the sample) is kept when
 *                   u32 number e%4 of block e/4 of stream (DROPOUT, layer<<32|epoch, sample)
 *                   is >= p·2^32.
 *
 * Windows: H' = floor((H + 2P - KH)/S) + 1, rows left over at the end are not read. */
#ifndef PIPETRAIN_OP_H
#define PIPETRAIN_OP_H

#include <stdbool.h>
#include <stdint.h>

#include "pipetrain/shape.h"
#include "pipetrain/status.h"

typedef enum pt_op_kind {
    PT_OP_CONV2D,
    PT_OP_LINEAR,
    PT_OP_BATCH_NORM,
    PT_OP_RELU,
    PT_OP_GELU,
    PT_OP_MAX_POOL,
    PT_OP_AVG_POOL,
    PT_OP_GLOBAL_AVG_POOL,
    PT_OP_FLATTEN,
    PT_OP_ADD,
    PT_OP_CONCAT,
    PT_OP_DROPOUT,
    PT_OP_KINDS
} pt_op_kind;

enum { PT_MAX_INPUTS = 8, PT_MAX_PARAMS = 2, PT_MAX_STATE = 2 };

typedef struct pt_op {
    pt_op_kind kind;
    int n_inputs;
    pt_shape in[PT_MAX_INPUTS]; /* per sample */
    pt_shape out;               /* per sample; set by pt_op_infer */
    uint32_t layer; /* index in the whole graph: keys dropout masks and initial values */
    /* Attributes; those that a kind does not use are zero. */
    int64_t features;   /* conv2d: output channels O; linear: outputs O */
    int64_t kernel[2];  /* conv2d, pools: KH, KW */
    int64_t stride[2];  /* conv2d, pools */
    int64_t padding[2]; /* conv2d, pools: rows above and below, columns left and right */
    int64_t groups;     /* conv2d */
    bool bias;          /* conv2d, linear */
    double eps;         /* batch-norm */
    double momentum;    /* batch-norm */
    bool relu;          /* batch-norm */
    double p;           /* dropout: probability of zero, 0 <= p < 1 */
} pt_op;

/* A parameter (trained) or a state tensor (kept, not trained) of an op, by its PyTorch name. */
typedef struct pt_op_tensor {
    const char *name; /* "weight", "bias"; "running_mean", "running_var" */
    int ndim;
    int64_t dims[4];
    int64_t elements;
} pt_op_tensor;

typedef enum pt_op_value {
    PT_OP_INTEGER, /* 3 */
    PT_OP_REAL,    /* 0.1 */
    PT_OP_SWITCH   /* true or false, handed on as 1 or 0 */
} pt_op_value;

/* One attribute that a partition file may give for a kind. */
typedef struct pt_op_attribute {
    const char *name; /* as written in the file, e.g. "kernel" */
    bool required;
    double min, max;
    int n_values;    /* 1, or 2 when a pair [h, w] is accepted too (one number means both) */
    double fallback; /* the stride of a pool falls back to 0: pt_op_infer makes it the kernel */
    const char *help;
    pt_op_value type;
} pt_op_attribute;

enum { PT_MAX_ATTRIBUTES = 8 };

/* One row per kind. */
typedef struct pt_op_row {
    const char *name; /* "conv2d", "batch-norm", … as in partition files */
    const char *help;
    int min_inputs, max_inputs;
    pt_op_attribute attributes[PT_MAX_ATTRIBUTES]; /* ended by a row without a name */
} pt_op_row;

extern const pt_op_row pt_op_rows[PT_OP_KINDS];

/* The kind called `name`, or PT_OP_KINDS. */
pt_op_kind pt_op_find(const char *name);

/* Sets an attribute from its one or two values, already range-checked against its row. */
void pt_op_set(pt_op *op, const char *attribute, const double values[2]);

/* Gives every attribute its fallback; all else of the op stays as it is, zero as a rule. */
void pt_op_defaults(pt_op *op, pt_op_kind kind);

/* Checks the inputs against the kind and sets op->out (and a pool's stride, when it is 0, to its
 * kernel). PT_EINPUT says which shapes do not meet and what would (for instance the features that
 * a linear layer should expect). */
pt_status pt_op_infer(pt_op *op, pt_error *err);

/* Parameters and state of an inferred op, by PyTorch's names and shapes; returns how many. */
int pt_op_params(const pt_op *op, pt_op_tensor ret_params[PT_MAX_PARAMS]);
int pt_op_state(const pt_op *op, pt_op_tensor ret_state[PT_MAX_STATE]);

/* Floating-point operations of one forward for one sample (a multiply-add counts two), for cost
 * models; the backward of an op with weights costs twice that, of another once. */
double pt_op_flops(const pt_op *op);

#endif
