/* A whole network: which primitives, in which order, on which blocks. */
#include "floor.h"

#include <stdlib.h>

static void plan_forward(bench *b)
{
    const pt_graph *g = b->graph;
    b->values[0].md = floor_shaped(b, &g->input, g->input.ndim == 3 ? dnnl_nchw : dnnl_ab);
    b->values[0].block = floor_new_block(b);
    for (int i = 0; i < g->n_nodes; i++)
        for (int j = 0; j < g->nodes[i].op.n_inputs; j++)
            b->values[g->nodes[i].inputs[j]].readers++;
    for (int i = 0; i < g->n_nodes; i++) {
        const pt_node *n = &g->nodes[i];
        const kind *k = &floor_kinds[n->op.kind];
        const value *in = &b->values[n->inputs[0]];
        if (!k->forward)
            floor_die(n->name, "the floor of this kind of layer is not known");
        bool own = n->inputs[0] > 0 && in->readers == 1;
        b->values[i + 1].block = k->same_bytes && own ? in->block : floor_new_block(b);
        k->forward(b, i, in->block, b->values[i + 1].block);
    }
}

/* A block for a new gradient: the one that became free last is the warmest. */
static int gradient_block(bench *b, const int *freed, int *n_freed)
{
    return *n_freed > 0 ? freed[--*n_freed] : floor_new_block(b);
}

static void contribute(bench *b, int node, int v, int contribution, int *freed, int *n_freed)
{
    int before = b->gradient[v];
    b->holders[contribution]++;
    b->gradient[v] = contribution;
    if (before < 0)
        return;
    floor_sum_call(b, BACKWARD_DATA, node, &b->values[v].md, before, contribution, contribution);
    if (--b->holders[before] == 0)
        freed[(*n_freed)++] = before;
}

/* Node by node from the last, weights right after data, while the gradient is still warm. */
static void plan_backward(bench *b)
{
    const pt_graph *g = b->graph;
    int n_freed = 0,
        *freed = floor_table((size_t)g->n_nodes * (PT_MAX_INPUTS + 1) + 1, sizeof *freed);
    for (int v = 0; v <= g->n_nodes; v++)
        b->gradient[v] = -1;
    int loss =
        floor_new_block(b); /* never freed: it holds the same numbers for every micro-batch */
    b->holders[loss] = 2;
    b->gradient[g->n_nodes] = loss;
    for (int i = g->n_nodes - 1; i >= 0; i--) {
        const pt_node *n = &g->nodes[i];
        const kind *k = &floor_kinds[n->op.kind];
        int d_out = b->gradient[i + 1], d_in = -1;
        if (n->inputs[0] > 0)
            d_in = k->same_bytes ? d_out : gradient_block(b, freed, &n_freed);
        if (k->backward)
            k->backward(b, i, b->values[n->inputs[0]].block, d_out, d_in);
        for (int j = n->op.n_inputs - 1; j >= 0; j--)
            if (n->inputs[j] > 0)
                contribute(b, i, n->inputs[j], j ? d_out : d_in, freed, &n_freed);
        if (--b->holders[d_out] == 0)
            freed[n_freed++] = d_out;
    }
    free(freed);
}

void floor_plan(bench *b)
{
    size_t n = (size_t)b->graph->n_nodes;
    b->values = floor_table(n + 1, sizeof *b->values);
    b->forward = floor_table(n, sizeof(dnnl_primitive_desc_t));
    b->workspace = floor_table(n, sizeof *b->workspace);
    b->stats = floor_table(n, sizeof *b->stats);
    b->gradient = floor_table(n + 1, sizeof *b->gradient);
    for (size_t i = 0; i < n; i++)
        b->workspace[i] = b->stats[i] = -1;
    plan_forward(b);
    plan_backward(b);
}
