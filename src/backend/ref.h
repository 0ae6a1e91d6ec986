/* The ref backend's inside: one set of functions for each kind of op. Private to src/backend/ref*.
 *
 * Every value is plain row-major fp32: (n, shape). Sums run in double: ref is the oracle that other
 * backends are measured against. */
#ifndef PIPETRAIN_BACKEND_REF_H
#define PIPETRAIN_BACKEND_REF_H

#include "cpu.h"

/* What ref does for one kind. */
typedef struct pt_ref_op {
    unsigned train_flags, eval_flags;
    unsigned relu_flags; /* and these in training, when the op ends in relu */
    size_t (*saved)(const pt_op *op, int samples); /* bytes; NULL: none */
    void (*forward)(const pt_kernel *k, const pt_kernel_args *args);
    void (*backward_input)(const pt_kernel *k, const pt_kernel_args *args);
    void (*backward_weight)(const pt_kernel *k, const pt_kernel_args *args); /* NULL: none */
} pt_ref_op;

extern const pt_ref_op pt_ref_conv2d, pt_ref_linear, pt_ref_batch_norm, pt_ref_relu, pt_ref_gelu,
    pt_ref_max_pool, pt_ref_avg_pool, pt_ref_global_avg_pool, pt_ref_flatten, pt_ref_add,
    pt_ref_concat, pt_ref_dropout;

/* What the bodies of a parallel loop see; body i writes elements that are its own. */
typedef struct pt_ref_job {
    const pt_kernel *k;
    const pt_kernel_args *args;
} pt_ref_job;

/* Runs body(&(pt_ref_job){k, args}, i) for i in [0, n) on the rank's threads. */
void pt_ref_parallel(const pt_kernel *k, const pt_kernel_args *args, int64_t n,
                     void (*body)(void *job, int i));

/* Elements of a whole micro-batch of the output. */
int64_t pt_ref_out_elements(const pt_kernel *k);

/* *at = value, or += with accumulate. */
static inline void pt_ref_store(float *at, double value, bool accumulate)
{
    *at = accumulate ? (float)((double)*at + value) : (float)value;
}

#endif
