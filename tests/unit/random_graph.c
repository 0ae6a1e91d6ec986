/* See random_graph.h. Every image has SIDE rows and columns, so that whatever has equal channels
 * can be added and anything can be joined. */
#include "random_graph.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "suite.h"

enum { SIDE = 5, IMAGE_CHANNELS = 3, MOST_CHANNELS = 24, LEAST_NODES = 6, MORE_NODES = 12 };

void graph_begin(pt_graph *graph, pt_shape input, int64_t classes)
{
    *graph = (pt_graph){.input = input};
    graph->loss = (pt_loss){
        .kind = PT_LOSS_CROSS_ENTROPY, .smoothing = 0.1, .shape = {.ndim = 1, .dims = {classes}}};
}

pt_op graph_op(pt_op_kind kind)
{
    pt_op op = {0};
    pt_op_defaults(&op, kind);
    return op;
}

int graph_add(pt_graph *graph, pt_op op, const int *inputs, int n_inputs)
{
    pt_error err = {PT_OK, ""};
    pt_node node = {.op = op, .name = malloc(16)};
    assert_non_null(node.name);
    snprintf(node.name, 16, "n%d", graph->n_nodes);
    node.op.layer = (uint32_t)graph->n_nodes;
    node.op.n_inputs = n_inputs;
    for (int i = 0; i < n_inputs; i++) {
        node.inputs[i] = inputs[i];
        node.op.in[i] = *pt_graph_value_shape(graph, inputs[i]);
    }
    assert_ok(pt_op_infer(&node.op, &err), &err);
    graph->nodes = realloc(graph->nodes, ((size_t)graph->n_nodes + 1) * sizeof node);
    assert_non_null(graph->nodes);
    graph->nodes[graph->n_nodes++] = node;
    return graph->n_nodes;
}

int graph_add1(pt_graph *graph, pt_op op, int input)
{
    return graph_add(graph, op, &input, 1);
}

int graph_readers(const pt_graph *graph, int value)
{
    int n = 0;
    for (int i = 0; i < graph->n_nodes; i++)
        for (int j = 0; j < graph->nodes[i].op.n_inputs; j++)
            n += graph->nodes[i].inputs[j] == value;
    return n;
}

/* ---- random graphs ----------------------------------------------------------------------------
 */

static int64_t channels(const pt_graph *graph, int value)
{
    return pt_graph_value_shape(graph, value)->dims[0];
}

/* Half of the time one of the newest, so that chains are as common as long skips. */
static int pick(const pt_graph *graph, pt_rng *rng)
{
    uint32_t n = (uint32_t)graph->n_nodes + 1;
    if (pt_rng_below(rng, 2) == 0)
        return (int)(n - 1 - pt_rng_below(rng, n < 3 ? n : 3));
    return (int)pt_rng_below(rng, n);
}

static pt_op random_simple_op(pt_rng *rng)
{
    static const pt_op_kind kinds[] = {
        PT_OP_CONV2D, PT_OP_CONV2D, PT_OP_CONV2D,  PT_OP_BATCH_NORM, PT_OP_RELU,     PT_OP_RELU,
        PT_OP_RELU,   PT_OP_GELU,   PT_OP_DROPOUT, PT_OP_MAX_POOL,   PT_OP_AVG_POOL, PT_OP_CONV2D};
    pt_op op = graph_op(kinds[pt_rng_below(rng, sizeof kinds / sizeof kinds[0])]);
    if (op.kind == PT_OP_CONV2D || op.kind == PT_OP_MAX_POOL || op.kind == PT_OP_AVG_POOL)
        for (int d = 0; d < 2; d++) { /* keeps the size */
            op.kernel[d] = 3;
            op.stride[d] = op.padding[d] = 1;
        }
    if (op.kind == PT_OP_CONV2D)
        op.features = 2 + pt_rng_below(rng, 2);
    if (op.kind == PT_OP_DROPOUT)
        op.p = 0.25;
    return op;
}

static void add_random_sum(pt_graph *graph, pt_rng *rng)
{
    int inputs[PT_MAX_INPUTS] = {pick(graph, rng)}, n = 1;
    int wanted = 2 + (int)pt_rng_below(rng, 2);
    for (int tries = 0; tries < 20 && n < wanted; tries++) {
        int other = pick(graph, rng);
        if (channels(graph, other) == channels(graph, inputs[0]))
            inputs[n++] = other;
    }
    if (n > 1)
        graph_add(graph, graph_op(PT_OP_ADD), inputs, n);
}

/* Rows that a stage may make one op of: batch-norm, a sum, relu, with or without somebody who reads
 * a value in between. */
static void add_random_row(pt_graph *graph, pt_rng *rng)
{
    int input = pick(graph, rng), other = pick(graph, rng);
    int value = graph_add1(graph, graph_op(PT_OP_BATCH_NORM), input);
    if (pt_rng_below(rng, 3) == 0)
        graph_add1(graph, random_simple_op(rng), pt_rng_below(rng, 2) ? input : other);
    if (channels(graph, other) == channels(graph, value)) {
        bool first = pt_rng_below(rng, 2) == 0;
        const int both[] = {first ? value : other, first ? other : value};
        value = graph_add(graph, graph_op(PT_OP_ADD), both, 2);
    }
    if (pt_rng_below(rng, 3) == 0)
        graph_add1(graph, random_simple_op(rng), other);
    if (pt_rng_below(rng, 4) > 0)
        graph_add1(graph, graph_op(PT_OP_RELU), value);
}

static void add_random_concat(pt_graph *graph, pt_rng *rng)
{
    int inputs[PT_MAX_INPUTS], n = 2 + (int)pt_rng_below(rng, 2);
    int64_t sum = 0;
    for (int i = 0; i < n; i++) {
        inputs[i] = pick(graph, rng);
        sum += channels(graph, inputs[i]);
    }
    if (sum <= MOST_CHANNELS)
        graph_add(graph, graph_op(PT_OP_CONCAT), inputs, n);
}

/* One value out of all that nobody reads, a few at a time. */
static int join_loose_ends(pt_graph *graph)
{
    for (;;) {
        int loose[PT_MAX_INPUTS], n = 0;
        for (int v = 0; v <= graph->n_nodes && n < PT_MAX_INPUTS; v++)
            if (graph_readers(graph, v) == 0)
                loose[n++] = v;
        if (n == 1)
            return loose[0];
        graph_add(graph, graph_op(PT_OP_CONCAT), loose, n);
    }
}

void graph_random(pt_graph *graph, uint64_t seed, int64_t classes)
{
    pt_rng rng;
    pt_rng_init(&rng, seed, PT_RNG_CHECK, 1, 0);
    graph_begin(graph, (pt_shape){.ndim = 3, .dims = {IMAGE_CHANNELS, SIDE, SIDE}}, classes);
    int wanted = LEAST_NODES + (int)pt_rng_below(&rng, MORE_NODES);
    while (graph->n_nodes < wanted) {
        uint32_t way = pt_rng_below(&rng, 10);
        if (way < 2)
            add_random_row(graph, &rng);
        else if (way < 6)
            graph_add1(graph, random_simple_op(&rng), pick(graph, &rng));
        else if (way < 9)
            add_random_sum(graph, &rng);
        else
            add_random_concat(graph, &rng);
    }
    int value = join_loose_ends(graph);
    if (pt_rng_below(&rng, 2) == 0)
        value = graph_add1(graph, graph_op(PT_OP_RELU), value);
    value = graph_add1(
        graph, graph_op(pt_rng_below(&rng, 2) ? PT_OP_FLATTEN : PT_OP_GLOBAL_AVG_POOL), value);
    pt_op linear = graph_op(PT_OP_LINEAR);
    linear.features = classes;
    graph_add1(graph, linear, value);
}

void graph_random_cut(const pt_graph *graph, pt_rng *rng, int stages, int *begins)
{
    begins[0] = 0;
    for (int s = 1; s < stages; s++) {
        /* room is left for the stages behind */
        int low = begins[s - 1] + 1, high = graph->n_nodes - (stages - s);
        begins[s] = low + (int)pt_rng_below(rng, (uint32_t)(high - low + 1));
    }
}
