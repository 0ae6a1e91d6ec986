/* Partition files: the graph and its shapes, the cuts of the file and of the planner, a cut that is
 * written back, and the settings. */
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"
#include "pipetrain/partition.h"
#include "pipetrain/planner.h"
#include "pipetrain/settings.h"

enum {
    MOST_STAGES = 4,
    MOST_NODES = 300, /* beyond these, quadratic work behind the parser would only be slow */
    FLOPS_PER_BYTE = 8
};

static const char NAME[] = "p.yaml";

static void check_graph(const pt_graph *graph)
{
    FUZZ_PROMISE(graph->n_nodes >= 1);
    for (int i = 0; i < graph->n_nodes; i++) {
        const pt_node *node = &graph->nodes[i];
        int64_t elements = pt_shape_elements(&node->op.out);
        FUZZ_PROMISE(elements >= 1 && elements <= 1 << 30);
        FUZZ_PROMISE(pt_graph_find(graph, node->name) == i);
        for (int k = 0; k < node->op.n_inputs; k++) {
            FUZZ_PROMISE(node->inputs[k] >= 0 && node->inputs[k] <= i);
            FUZZ_PROMISE(
                pt_shape_equal(&node->op.in[k], pt_graph_value_shape(graph, node->inputs[k])));
        }
    }
    FUZZ_PROMISE(graph->nodes[graph->n_nodes - 1].op.out.ndim == 1);
    FUZZ_PROMISE(pt_graph_parameters(graph, 0, graph->n_nodes) >= 0);
}

/* What one stage sends the next one takes. */
static void check_stages(const pt_graph *graph, const int *begins, int stages)
{
    pt_stage_spec *specs = NULL;
    pt_error err = {0};
    FUZZ_PROMISE(pt_stage_specs_new(graph, begins, stages, &specs, &err) == PT_OK);
    FUZZ_PROMISE(specs[0].first == 0 && specs[stages - 1].end == graph->n_nodes);
    for (int s = 1; s < stages; s++) {
        FUZZ_PROMISE(specs[s].first == specs[s - 1].end && specs[s].n_in == specs[s - 1].n_out);
        FUZZ_PROMISE(memcmp(specs[s].in, specs[s - 1].out, sizeof(int) * (size_t)specs[s].n_in) ==
                     0);
    }
    pt_stage_specs_free(specs, stages);
}

static void write_cut(const pt_partition *partition, const char *text, const int *begins,
                      int stages)
{
    char *with_cut = NULL;
    pt_partition *again = NULL;
    pt_error err = {0};
    if (!fuzz_accepts(pt_partition_with_cut(partition, text, begins, stages, &with_cut, &err), &err,
                      NAME))
        return;
    FUZZ_PROMISE(pt_partition_parse(NAME, with_cut, strlen(with_cut), &again, &err) == PT_OK);
    FUZZ_PROMISE(again->graph.n_nodes == partition->graph.n_nodes);
    FUZZ_PROMISE(again->n_settings == partition->n_settings);
    const pt_cut *cut = pt_partition_cut(again, stages);
    FUZZ_PROMISE(cut && memcmp(cut->begins, begins, sizeof(int) * (size_t)stages) == 0);
    pt_partition_free(again);
    free(with_cut);
}

static void cut_it(const pt_partition *partition, const char *text)
{
    const pt_graph *graph = &partition->graph;
    double *cost = malloc(sizeof *cost * (size_t)graph->n_nodes);
    FUZZ_PROMISE(cost);
    pt_plan_estimate(graph, FLOPS_PER_BYTE, cost);
    for (int stages = 1; stages <= MOST_STAGES && stages <= graph->n_nodes; stages++) {
        int begins[MOST_STAGES];
        pt_error err = {0};
        FUZZ_PROMISE(pt_plan_balance(cost, graph->n_nodes, stages, begins, &err) == PT_OK);
        check_stages(graph, begins, stages);
        write_cut(partition, text, begins, stages);
    }
    for (int i = 0; i < partition->n_cuts; i++)
        check_stages(graph, partition->cuts[i].begins, partition->cuts[i].stages);
    free(cost);
}

static bool settle(const pt_partition *partition)
{
    pt_config config;
    pt_error err = {0};
    FUZZ_PROMISE(pt_config_init(&config, &err) == PT_OK);
    bool good = fuzz_accepts(pt_config_apply(&config, partition, &err), &err, NAME) &&
                fuzz_accepts(pt_config_settle(&config, &err), &err, "");
    pt_config_clear(&config);
    return good;
}

bool fuzz_one(const uint8_t *data, size_t bytes)
{
    pt_partition *partition = NULL;
    pt_error err = {0};
    if (!fuzz_accepts(pt_partition_parse(NAME, (const char *)data, bytes, &partition, &err), &err,
                      NAME)) {
        FUZZ_PROMISE(!partition);
        return false;
    }
    bool good = settle(partition);
    if (partition->graph.n_nodes <= MOST_NODES) {
        char *text = calloc(bytes + 1, 1);
        FUZZ_PROMISE(text);
        memcpy(text, data, bytes);
        FUZZ_PROMISE(strlen(text) == bytes);
        check_graph(&partition->graph);
        cut_it(partition, text);
        free(text);
    }
    pt_partition_free(partition);
    return good;
}
