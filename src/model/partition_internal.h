/* What the files that read a partition share. */
#ifndef PIPETRAIN_MODEL_PARTITION_INTERNAL_H
#define PIPETRAIN_MODEL_PARTITION_INTERNAL_H

#include "names.h"
#include "pipetrain/partition.h"
#include "yaml.h"

/* Limits on what a file may describe; repeat and nested blocks multiply, so that a short file could
 * ask for any number of layers. */
enum {
    PT_MAX_LAYERS = 100000,
    PT_MAX_NAME = 200, /* bytes; a name becomes part of a checkpoint's file names */
    PT_MAX_BLOCK_DEPTH = 8,
    PT_MAX_BLOCK_PARAMETERS = 32
};

/* A list of layers while it is read: the file's own, or that of one block instance. */
typedef struct pt_scope {
    const struct pt_scope *outer; /* NULL: the file's own list */
    const char *prefix;           /* of the names, "group1.0."; "" for the file's own list */
    const pt_yaml *block;         /* the block's definition, NULL in the file's own list */
    const pt_yaml *instance;      /* the mapping that gives its parameters, read in `outer` */
    int block_input;              /* the value of "@" */
    int previous;                 /* the value that a layer without `inputs` takes */
    int depth;
} pt_scope;

typedef struct pt_layers {
    pt_yaml_place place;
    const pt_yaml *blocks; /* NULL: none */
    pt_graph *graph;
    pt_names names;
    int room;    /* nodes that graph->nodes has memory for */
    int visited; /* layers and instances read so far, dropped ones included */
} pt_layers;

/* Follows "$name" to what the instance gives; *ret_scope is where that text stands. The result is
 * never a "$name". */
pt_status pt_scope_resolve(pt_yaml_place place, const pt_yaml *node, const pt_scope *scope,
                           const pt_yaml **ret_node, const pt_scope **ret_scope);

/* The word that stands under `key`, "$name" followed; NULL when the key is absent. */
pt_status pt_scope_text(pt_yaml_place place, const pt_yaml *map, const char *key,
                        const pt_scope *scope, const char **ret_text);

/* Fills op from a layer's keys (all but its inputs and shapes); `what` names the layer. */
pt_status pt_attributes_read(pt_yaml_place place, const pt_yaml *layer, const pt_scope *scope,
                             pt_op_kind kind, const char *what, pt_op *op);

/* Checks `blocks:`, so that instances can rely on its form. */
pt_status pt_blocks_check(pt_yaml_place place, const pt_yaml *blocks);

/* Letters, digits, '_', '.', '-', none of the last two in front. */
bool pt_name_is_sound(const char *name);

/* The full name of the layer or instance that `item` describes; it must be new. `repetition` stands
 * for {i}; -1 when the item is not repeated. */
pt_status pt_name_full(const pt_layers *layers, const pt_yaml *item, const pt_scope *scope,
                       int repetition, char full[PT_MAX_NAME + 1]);

/* Makes a name known; its line is the item's. */
pt_status pt_name_define(pt_layers *layers, const pt_yaml *item, const pt_name *entry);

/* The values that an item's `inputs` name; without that key the value before it. */
pt_status pt_inputs_read(const pt_layers *layers, const pt_yaml *item, const pt_scope *scope,
                         int ret_values[PT_MAX_INPUTS], int *ret_n);

/* Expands `layers:` into layers->graph and layers->names. */
pt_status pt_layers_read(pt_layers *layers, const pt_yaml *list);

/* Reads `cuts:` (NULL: none); the cut {0} of one stage is always there. */
pt_status pt_cuts_read(pt_partition *partition, pt_yaml_place place, const pt_yaml *cuts,
                       const pt_names *names);

#endif
