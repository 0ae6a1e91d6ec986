/* Where to cut a graph: contiguous blocks that minimise the slowest stage (ties: the smallest sum
 * of squares of stage costs, then the earliest cut). Exact, by dynamic programming over nodes x
 * stages. Source of the objective: PipeDream (Narayanan et al., SOSP 2019), section 3.1, without
 * replication and without link time, which the compute of other micro-batches hides. */
#ifndef PIPETRAIN_PLANNER_H
#define PIPETRAIN_PLANNER_H

#include "pipetrain/graph.h"
#include "pipetrain/status.h"

/* cost[i]: forward + backward of node i, any unit. begins[stages] is filled.
 * PT_EINPUT when there are more stages than nodes. */
pt_status pt_plan_balance(const double *cost, int n_nodes, int stages, int *begins, pt_error *err);

/* Cost of every node from its floating-point operations and the bytes it moves: a stand-in where
 * nothing was measured. `flops_per_byte` is how many operations a machine does in the time it moves
 * one byte (about 8 for a CPU core whose values stay in its caches: measured from 3 for relu to 12
 * for batch-norm against 3x3 convolutions). cost has graph->n_nodes entries, unit: operations. */
void pt_plan_estimate(const pt_graph *graph, double flops_per_byte, double *cost);

#endif
