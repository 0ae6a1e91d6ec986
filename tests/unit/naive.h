/* A network evaluated the plain way: every value, every gradient and every sum of gradients has
 * memory of its own, every op runs, nothing is in place, aliased or planned. What pt_program does
 * with less memory must give the same bits.
 *
 * Gradients of a value are added from its last reader to its first. */
#ifndef PIPETRAIN_TESTS_NAIVE_H
#define PIPETRAIN_TESTS_NAIVE_H

#include "pipetrain/flat.h"
#include "pipetrain/graph.h"

typedef struct naive naive;

typedef struct naive_run {
    const float *dev_params; /* flat maps of the whole graph */
    float *dev_gradient, *dev_state;
    bool accumulate;
    uint64_t seed;
    uint32_t epoch;
    const uint32_t *sample;
    const float *input;   /* host (samples, input) */
    const int32_t *label; /* host */
    float scale;          /* of the loss' gradient */
    /* Layers that run again before the backward, but for the last one; where stages begin, whose
     * layers see what their forward was sent, and not what another stage computes again; and the
     * parameters for all that. NULL: none, or the same. */
    const bool *recompute; /* [node] */
    const int *begins;     /* [stage] */
    int stages;
    const float *dev_params_back;
} naive_run;

naive *naive_new(pt_backend *b, const pt_graph *graph, const pt_flat *flat, int samples,
                 pt_mode mode);
void naive_free(naive *n);

/* Forward, loss and (in training) the whole backward. Predictions are plain (samples, classes). */
void naive_evaluate(naive *n, const naive_run *run, float *ret_predictions,
                    pt_loss_result *ret_loss);

const pt_kernel *naive_kernel(const naive *n, int node);
/* Bytes of all values together. */
size_t naive_value_bytes(const naive *n);

#endif
