/* Graphs, and what crosses the borders of stages.
 *
 *   value   made by         used up to        begins = 0, 2, 4
 *     1     node 0          node 5            crosses both borders: stage 1 hands it on
 *     2     node 1          node 2            crosses the first
 *     4     node 3          node 4            crosses the second
 */
#include "pipetrain/graph.h"

#include <stdlib.h>
#include <string.h>

void pt_graph_clear(pt_graph *graph)
{
    for (int i = 0; i < graph->n_nodes; i++)
        free(graph->nodes[i].name);
    free(graph->nodes);
    *graph = (pt_graph){0};
}

const pt_shape *pt_graph_value_shape(const pt_graph *graph, int value)
{
    return value == 0 ? &graph->input : &graph->nodes[value - 1].op.out;
}

int pt_graph_find(const pt_graph *graph, const char *name)
{
    for (int i = 0; i < graph->n_nodes; i++)
        if (!strcmp(graph->nodes[i].name, name))
            return i;
    return -1;
}

int64_t pt_graph_parameters(const pt_graph *graph, int first, int end)
{
    int64_t total = 0;

    for (int i = first; i < end; i++) {
        pt_op_tensor params[PT_MAX_PARAMS];
        int n = pt_op_params(&graph->nodes[i].op, params);
        for (int k = 0; k < n; k++)
            total += params[k].elements;
    }
    return total;
}

/* ---- cuts ---- */

static pt_status check_begins(const pt_graph *graph, const int *begins, int stages, pt_error *err)
{
    if (stages < 1)
        return pt_fail(err, PT_EINPUT, "%d stages; at least 1 is needed", stages);
    if (stages > graph->n_nodes)
        return pt_fail(err, PT_EINPUT,
                       "%d stages are more than the %d layers of this model; use fewer ranks",
                       stages, graph->n_nodes);
    if (begins[0] != 0)
        return pt_fail(err, PT_EINPUT, "the first stage begins at layer %d, not at the first one",
                       begins[0]);
    for (int s = 1; s < stages; s++)
        if (begins[s] <= begins[s - 1] || begins[s] >= graph->n_nodes)
            return pt_fail(err, PT_EINPUT,
                           "stage %d begins at layer %d and stage %d at layer %d of %d; beginnings "
                           "must ascend",
                           s, begins[s - 1], s + 1, begins[s], graph->n_nodes);
    return PT_OK;
}

/* last[v]: the last node that uses value v, -1 when none does. */
static int *last_uses(const pt_graph *graph)
{
    int *last = malloc(sizeof *last * ((size_t)graph->n_nodes + 1));

    if (!last)
        return NULL;
    for (int v = 0; v <= graph->n_nodes; v++)
        last[v] = -1;
    for (int i = 0; i < graph->n_nodes; i++)
        for (int k = 0; k < graph->nodes[i].op.n_inputs; k++)
            last[graph->nodes[i].inputs[k]] = i;
    return last;
}

/* The values that cross the border before node `first`: made before it (value v by node v-1) and
 * used at or after it. */
static int *crossing(const int *last, int first, int *ret_n)
{
    int n = 0;

    for (int v = 0; v <= first; v++)
        n += last[v] >= first;
    int *values = malloc(sizeof *values * (n ? (size_t)n : 1));
    if (!values)
        return NULL;
    n = 0;
    for (int v = 0; v <= first; v++)
        if (last[v] >= first)
            values[n++] = v;
    *ret_n = n;
    return values;
}

/* Both sides of a border list the same values; each spec owns its copy. */
static bool fill_specs(const pt_graph *graph, const int *begins, int stages, const int *last,
                       pt_stage_spec *specs)
{
    for (int s = 0; s < stages; s++) {
        pt_stage_spec *spec = &specs[s];
        spec->stage = s;
        spec->stages = stages;
        spec->first = begins[s];
        spec->end = s + 1 < stages ? begins[s + 1] : graph->n_nodes;
        if (s > 0 && !(spec->in = crossing(last, spec->first, &spec->n_in)))
            return false;
        if (s + 1 < stages && !(spec->out = crossing(last, spec->end, &spec->n_out)))
            return false;
    }
    return true;
}

pt_status pt_stage_specs_new(const pt_graph *graph, const int *begins, int stages,
                             pt_stage_spec **ret_specs, pt_error *err)
{
    PT_TRY(check_begins(graph, begins, stages, err));
    pt_stage_spec *specs = calloc((size_t)stages, sizeof *specs);
    int *last = last_uses(graph);
    bool filled = specs && last && fill_specs(graph, begins, stages, last, specs);

    free(last);
    if (!filled) {
        pt_stage_specs_free(specs, stages);
        return pt_fail(err, PT_ENOMEM, "no memory for the plan of %d stages", stages);
    }
    *ret_specs = specs;
    return PT_OK;
}

void pt_stage_specs_free(pt_stage_spec *specs, int stages)
{
    if (!specs)
        return;
    for (int s = 0; s < stages; s++) {
        free(specs[s].in);
        free(specs[s].out);
    }
    free(specs);
}
