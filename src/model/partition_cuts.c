/* `cuts:`: where stages begin, read from a file.
 *
 * A list of stage beginnings cannot lose a layer by itself; what people get wrong is the number of
 * entries, their order, or the same layer twice. Each of these would drop, double or reorder
 * layers, and the message says so in those words. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "partition_internal.h"

const pt_cut *pt_partition_cut(const pt_partition *partition, int stages)
{
    for (int i = 0; i < partition->n_cuts; i++)
        if (partition->cuts[i].stages == stages)
            return &partition->cuts[i];
    return NULL;
}

static pt_status find_begin(pt_yaml_place place, const pt_yaml *item, const pt_names *names,
                            int *ret_node)
{
    const char *word = NULL, *nearest;

    PT_TRY(pt_yaml_text(place, item, "an entry of a cut", &word));
    const pt_name *entry = pt_names_find(names, word);
    if (entry && entry->first_node < 0)
        return pt_yaml_fail(place, item,
                            "the cut begins a stage at '%.80s', which 'when: off' dropped; name a "
                            "layer that is there",
                            word);
    if (entry) {
        *ret_node = entry->first_node;
        return PT_OK;
    }
    nearest = pt_names_nearest(names, "", word);
    return pt_yaml_fail(place, item, "the cut names '%.80s', which is no layer of this model%s%s%s",
                        word, nearest ? "; did you mean '" : "", nearest ? nearest : "",
                        nearest ? "'?" : "");
}

static pt_status check_order(const pt_partition *partition, pt_yaml_place place,
                             const pt_yaml *item, const int *begins, int stage)
{
    const pt_node *nodes = partition->graph.nodes;
    const char *now = nodes[begins[stage]].name, *before = nodes[begins[stage - 1]].name;

    if (begins[stage] > begins[stage - 1])
        return PT_OK;
    if (begins[stage] == 0)
        return pt_yaml_fail(place, item,
                            "the cut drops stage 1: layer '%s' is the model's first, so nothing "
                            "stands before it; begin stage %d at a later layer",
                            now, stage + 1);
    if (begins[stage] == begins[stage - 1])
        return pt_yaml_fail(place, item,
                            "the cut doubles layer '%s': stages %d and %d both begin there; begin "
                            "stage %d at a later layer",
                            now, stage, stage + 1, stage + 1);
    return pt_yaml_fail(place, item,
                        "the cut reorders: layer '%s' begins stage %d but comes before layer '%s' "
                        "of stage %d; write the layers in their order",
                        now, stage + 1, before, stage);
}

static pt_status check_count(const pt_partition *partition, pt_yaml_place place,
                             const pt_yaml *list, int stages)
{
    PT_TRY(pt_yaml_want(place, list, PT_YAML_LIST, "a cut"));
    if (stages > partition->graph.n_nodes)
        return pt_yaml_fail(place, list,
                            "%d stages are more than the %d layers of this model; cut it into "
                            "fewer",
                            stages, partition->graph.n_nodes);
    if (list->n_items == stages - 1)
        return PT_OK;
    return pt_yaml_fail(place, list,
                        "a cut into %d stages needs %d entries (where stages 2 to %d begin), but "
                        "here are %d: it %s a stage",
                        stages, stages - 1, stages, list->n_items,
                        list->n_items < stages - 1 ? "drops" : "doubles");
}

/* Reads one entry of `cuts:` into the partition's next free cut. */
static pt_status read_cut(pt_partition *partition, pt_yaml_place place, const pt_yaml *key,
                          const pt_yaml *list, const pt_names *names)
{
    int64_t stages = 0;
    pt_cut *cut = &partition->cuts[partition->n_cuts];

    PT_TRY(pt_yaml_whole(place, key, "the number of stages", 1, PT_MAX_LAYERS, &stages));
    PT_TRY(check_count(partition, place, list, (int)stages));
    if (stages > 1 && pt_partition_cut(partition, (int)stages))
        return pt_yaml_fail(place, key, "a second cut into %d stages; keep one", (int)stages);
    if (stages == 1)
        return PT_OK; /* it is there already */
    cut->begins = calloc((size_t)stages, sizeof *cut->begins);
    if (!cut->begins)
        return pt_fail(place.err, PT_ENOMEM, "%s: no memory for a cut", place.file);
    *cut = (pt_cut){(int)stages, cut->begins, key->line, key->column};
    partition->n_cuts++;
    for (int s = 1; s < stages; s++) {
        PT_TRY(find_begin(place, list->items[s - 1], names, &cut->begins[s]));
        PT_TRY(check_order(partition, place, list->items[s - 1], cut->begins, s));
    }
    return PT_OK;
}

pt_status pt_cuts_read(pt_partition *partition, pt_yaml_place place, const pt_yaml *cuts,
                       const pt_names *names)
{
    bool none = !cuts || (cuts->kind == PT_YAML_SCALAR && cuts->plain && !cuts->text[0]);

    if (!none)
        PT_TRY(pt_yaml_want(place, cuts, PT_YAML_MAP, "'cuts'"));
    int n = none ? 0 : cuts->n_items / 2;
    partition->cuts = calloc((size_t)n + 1, sizeof *partition->cuts);
    int *begins = calloc(1, sizeof *begins);
    if (!partition->cuts || !begins) {
        free(begins);
        return pt_fail(place.err, PT_ENOMEM, "%s: no memory for its cuts", place.file);
    }
    partition->cuts[partition->n_cuts++] = (pt_cut){1, begins, 1, 1};
    for (int i = 0; i < n; i++)
        PT_TRY(read_cut(partition, place, cuts->items[2 * i], cuts->items[2 * i + 1], names));
    return PT_OK;
}
