/* Graphs for tests, built by hand or at random. */
#ifndef PIPETRAIN_TESTS_RANDOM_GRAPH_H
#define PIPETRAIN_TESTS_RANDOM_GRAPH_H

#include "pipetrain/graph.h"
#include "pipetrain/rng.h"

/* An empty graph with a cross-entropy loss over `classes`. */
void graph_begin(pt_graph *graph, pt_shape input, int64_t classes);

/* An op with its attributes at their fallbacks; set others in the result. */
pt_op graph_op(pt_op_kind kind);

/* Appends a node and returns the value that it makes; fails the test when shapes do not meet. */
int graph_add(pt_graph *graph, pt_op op, const int *inputs, int n_inputs);
int graph_add1(pt_graph *graph, pt_op op, int input);

/* Residual, dense and repeated reads of the same value, all kinds of ops, every value used; ends in
 * a linear layer of `classes`. A pure function of the seed. */
void graph_random(pt_graph *graph, uint64_t seed, int64_t classes);

/* Ascending beginnings of `stages` stages, at random; the graph has nodes enough. */
void graph_random_cut(const pt_graph *graph, pt_rng *rng, int stages, int *begins);

/* How many inputs of ops are this value. */
int graph_readers(const pt_graph *graph, int value);

#endif
