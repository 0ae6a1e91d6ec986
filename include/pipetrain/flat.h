/* Where each parameter lies in a stage's flat buffers. Weights, gradients, velocities, predicted
 * and stashed weights all share this map; optimizers and predictors see one long vector. */
#ifndef PIPETRAIN_FLAT_H
#define PIPETRAIN_FLAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "pipetrain/graph.h"
#include "pipetrain/status.h"

typedef struct pt_flat_tensor {
    int node;           /* in the whole graph */
    int index;          /* which parameter, or state tensor, of the node */
    size_t offset;      /* elements from the start of the buffer; a multiple of 16 */
    pt_op_tensor shape; /* PyTorch name and dimensions */
} pt_flat_tensor;

typedef struct pt_flat {
    int first, end;         /* nodes of the stage */
    pt_flat_tensor *params; /* in layer order */
    int n_params;
    pt_flat_tensor *state; /* running statistics, in layer order */
    int n_state;
    size_t param_elements;   /* padding included: what a parameter buffer holds … */
    size_t decayed_elements; /* … and how many of them, from its start, have weight decay */
    size_t state_elements;
    int *first_param; /* [node - first]: index of the node's first entry in params … */
    int *first_state; /* … and in state */
} pt_flat;

/* Parameters with weight decay come first, so that each kind is one piece: all but those of layers
 * that say `decay: off` and, with spare_vectors, those of one dimension (biases, batch-norm). */
pt_status pt_flat_init_sparing(pt_flat *flat, const pt_graph *graph, int first, int end,
                               bool spare_vectors, pt_error *err);
pt_status pt_flat_init(pt_flat *flat, const pt_graph *graph, int first, int end, pt_error *err);
void pt_flat_clear(pt_flat *flat);

#endif
