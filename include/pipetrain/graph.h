/* The network as a graph: nodes (layers after blocks were expanded) in topological order, and the
 * values between them. Value 0 is the model's input; value i+1 is the output of node i. */
#ifndef PIPETRAIN_GRAPH_H
#define PIPETRAIN_GRAPH_H

#include <stddef.h>
#include <stdint.h>

#include "pipetrain/backend.h"
#include "pipetrain/op.h"
#include "pipetrain/shape.h"
#include "pipetrain/status.h"

typedef struct pt_node {
    char *name; /* unique; the prefix of its tensors' names, e.g. "group1.0.conv1" */
    pt_op op;
    int inputs[PT_MAX_INPUTS]; /* values; each smaller than this node's own output */
    int line, column;          /* in the partition file, from 1 */
    bool spared;               /* decay: off */
} pt_node;

typedef struct pt_graph {
    pt_shape input;
    pt_node *nodes;
    int n_nodes;
    pt_loss loss;
} pt_graph;

void pt_graph_clear(pt_graph *graph);

/* The shape of a value. */
const pt_shape *pt_graph_value_shape(const pt_graph *graph, int value);

/* Index of the node called `name`, or -1. */
int pt_graph_find(const pt_graph *graph, const char *name);

/* Trained parameters of the nodes [first, end), elements. */
int64_t pt_graph_parameters(const pt_graph *graph, int first, int end);

/* ---- cuts -------------------------------------------------------------------------------------
 */

/* One stage: the nodes [first, end) and the values that cross its borders. */
typedef struct pt_stage_spec {
    int stage, stages;
    int first, end;
    int *in; /* values that arrive: made before `first` and used at or after it, ascending. The
                first stage receives nothing; the model's input crosses later cuts when a later
                layer uses it. A value that skips this stage is in both lists: it is passed on. */
    int n_in;
    int *out; /* values that leave; the last stage sends none */
    int n_out;
} pt_stage_spec;

/* begins[0 … stages-1]: index of each stage's first node, begins[0] = 0, strictly ascending. */
pt_status pt_stage_specs_new(const pt_graph *graph, const int *begins, int stages,
                             pt_stage_spec **ret_specs, pt_error *err);
void pt_stage_specs_free(pt_stage_spec *specs, int stages);

#endif
