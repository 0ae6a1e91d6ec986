/* Expands `layers:` into a graph: blocks are put in where they are used, repeats are written out,
 * names become full names, and shapes are inferred as each layer is added.
 *
 *   layers: [conv, {name: g.0, block: basic}, fc]      scope of the file: prefix ""
 *                        |
 *                        +-- basic's layers            scope of the instance: prefix "g.0."
 *
 * A parameter's value is read in the scope where the instance stands, so that a block can hand its
 * own parameters on to blocks inside it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "partition_internal.h"

enum { MAX_REPEAT = 10000, FIRST_ROOM = 64 };

/* Keys that an instance has beside its block's parameters. */
static const char *const instance_keys[] = {"name", "block", "inputs", "when", "repeat"};
enum { N_INSTANCE_KEYS = sizeof instance_keys / sizeof instance_keys[0] };

static pt_status read_list(pt_layers *layers, const pt_yaml *list, pt_scope *scope);

/* ---- one layer ---- */

/* Room for one more node; the array doubles. */
static bool make_room(pt_layers *layers)
{
    if (layers->graph->n_nodes < layers->room)
        return true;
    int room = layers->room ? 2 * layers->room : FIRST_ROOM;
    pt_node *nodes = realloc(layers->graph->nodes, sizeof *nodes * (size_t)room);
    if (!nodes)
        return false;
    layers->graph->nodes = nodes;
    layers->room = room;
    return true;
}

static pt_status new_node(pt_layers *layers, const pt_yaml *item, const char *name,
                          pt_node **ret_node)
{
    pt_graph *graph = layers->graph;
    char *copy = make_room(layers) ? strdup(name) : NULL;

    if (!copy)
        return pt_fail(layers->place.err, PT_ENOMEM, "%s: no memory for layer %d",
                       layers->place.file, graph->n_nodes + 1);
    pt_node *node = &graph->nodes[graph->n_nodes];
    *node = (pt_node){.name = copy, .line = item->line, .column = item->column};
    node->op.layer = (uint32_t)graph->n_nodes++;
    *ret_node = node;
    return PT_OK;
}

/* Weight decay of the layer's parameters, on unless said otherwise. */
static pt_status read_decay(const pt_layers *layers, const pt_yaml *item, const pt_scope *scope,
                            pt_node *node)
{
    const pt_yaml *value = pt_yaml_get(item, "decay");
    bool decays = true;

    if (!value)
        return PT_OK;
    PT_TRY(pt_scope_resolve(layers->place, value, scope, &value, &scope));
    PT_TRY(pt_yaml_switch(layers->place, value, "'decay'", &decays));
    node->spared = !decays;
    return PT_OK;
}

static pt_status read_kind(const pt_layers *layers, const pt_yaml *item, const pt_scope *scope,
                           pt_op_kind *ret_kind)
{
    const pt_yaml *node = pt_yaml_get(item, "kind");
    const char *names[PT_OP_KINDS];
    int kind = 0;

    for (int i = 0; i < PT_OP_KINDS; i++)
        names[i] = pt_op_rows[i].name;
    PT_TRY(pt_scope_resolve(layers->place, node, scope, &node, &scope));
    PT_TRY(pt_yaml_choice(layers->place, node, "kind", names, PT_OP_KINDS, &kind));
    *ret_kind = (pt_op_kind)kind;
    return PT_OK;
}

static pt_status read_layer(pt_layers *layers, const pt_yaml *item, pt_scope *scope,
                            const char *name, const int *inputs, int n_inputs)
{
    pt_graph *graph = layers->graph;
    char what[PT_MAX_NAME + 32];
    pt_op_kind kind = PT_OP_KINDS;
    pt_node *node = NULL;

    PT_TRY(read_kind(layers, item, scope, &kind));
    PT_TRY(new_node(layers, item, name, &node));
    snprintf(what, sizeof what, "layer '%s'", name);
    PT_TRY(pt_attributes_read(layers->place, item, scope, kind, what, &node->op));
    PT_TRY(read_decay(layers, item, scope, node));
    node->op.n_inputs = n_inputs;
    for (int i = 0; i < n_inputs; i++) {
        node->inputs[i] = inputs[i];
        node->op.in[i] = *pt_graph_value_shape(graph, inputs[i]);
    }
    if (pt_op_infer(&node->op, layers->place.err) != PT_OK)
        return pt_fail_within(layers->place.err, "%s:%d:%d: %s", layers->place.file, item->line,
                              item->column, what);
    scope->previous = graph->n_nodes;
    return PT_OK;
}

/* ---- one block instance ---- */

static pt_status find_block(const pt_layers *layers, const pt_yaml *item, const pt_scope *scope,
                            const pt_yaml **ret_block)
{
    const char *names[PT_YAML_MAX_KEYS];
    const pt_yaml *node = pt_yaml_get(item, "block");
    int n = 0, index = 0;

    PT_TRY(pt_scope_resolve(layers->place, node, scope, &node, &scope));
    if (!layers->blocks)
        return pt_yaml_fail(layers->place, node,
                            "this file defines no blocks; add 'blocks:' above 'layers:'");
    for (int i = 0; i < layers->blocks->n_items; i += 2)
        names[n++] = layers->blocks->items[i]->text;
    PT_TRY(pt_yaml_choice(layers->place, node, "block", names, n, &index));
    *ret_block = layers->blocks->items[2 * index + 1];
    return PT_OK;
}

static pt_status check_instance(const pt_layers *layers, const pt_yaml *item, const pt_yaml *block,
                                const char *what)
{
    const char *known[PT_MAX_BLOCK_PARAMETERS + N_INSTANCE_KEYS];
    const pt_yaml *parameters = pt_yaml_get(block, "parameters"), *value;
    int n = parameters ? parameters->n_items : 0;

    for (int i = 0; i < n; i++)
        known[i] = parameters->items[i]->text;
    memcpy(known + n, instance_keys, sizeof instance_keys);
    PT_TRY(pt_yaml_keys(layers->place, item, known, n + N_INSTANCE_KEYS, what));
    for (int i = 0; i < n; i++)
        PT_TRY(pt_yaml_need(layers->place, item, known[i], what, &value));
    return PT_OK;
}

static pt_status read_instance(pt_layers *layers, const pt_yaml *item, pt_scope *scope,
                               const char *name, const int *inputs, int n_inputs)
{
    char prefix[PT_MAX_NAME + 2], what[PT_MAX_NAME + 32];
    const pt_yaml *block = NULL;

    PT_TRY(find_block(layers, item, scope, &block));
    snprintf(what, sizeof what, "block instance '%s'", name);
    PT_TRY(check_instance(layers, item, block, what));
    if (n_inputs != 1)
        return pt_yaml_fail(layers->place, item, "%s takes one input, not %d", what, n_inputs);
    if (scope->depth >= PT_MAX_BLOCK_DEPTH)
        return pt_yaml_fail(layers->place, item,
                            "blocks nest deeper than %d here; a block may not use itself",
                            PT_MAX_BLOCK_DEPTH);
    snprintf(prefix, sizeof prefix, "%s.", name);
    pt_scope inside = {.outer = scope,
                       .prefix = prefix,
                       .block = block,
                       .instance = item,
                       .block_input = inputs[0],
                       .previous = inputs[0],
                       .depth = scope->depth + 1};
    PT_TRY(read_list(layers, pt_yaml_get(block, "layers"), &inside));
    scope->previous = inside.previous;
    return PT_OK;
}

/* ---- lists ---- */

static pt_status is_wanted(const pt_layers *layers, const pt_yaml *item, const pt_scope *scope,
                           bool *ret_wanted)
{
    const pt_yaml *node = pt_yaml_get(item, "when");

    *ret_wanted = true;
    if (!node)
        return PT_OK;
    PT_TRY(pt_scope_resolve(layers->place, node, scope, &node, &scope));
    return pt_yaml_switch(layers->place, node, "'when'", ret_wanted);
}

/* One repetition of an item. A dropped layer passes its first input on under its own name. */
static pt_status read_once(pt_layers *layers, const pt_yaml *item, pt_scope *scope, int repetition)
{
    char name[PT_MAX_NAME + 1];
    int inputs[PT_MAX_INPUTS] = {0}, n_inputs = 0, first_node = layers->graph->n_nodes;
    bool wanted = true, is_layer = pt_yaml_get(item, "kind") != NULL;

    if (++layers->visited > PT_MAX_LAYERS)
        return pt_yaml_fail(layers->place, item,
                            "more than %d layers; fewer repetitions are needed", PT_MAX_LAYERS);
    PT_TRY(pt_name_full(layers, item, scope, repetition, name));
    PT_TRY(is_wanted(layers, item, scope, &wanted));
    if (repetition > 0) { /* a chain: each repetition takes what the one before gives */
        inputs[0] = scope->previous;
        n_inputs = 1;
    } else {
        PT_TRY(pt_inputs_read(layers, item, scope, inputs, &n_inputs));
    }
    if (repetition >= 0 && n_inputs > 1)
        return pt_yaml_fail(layers->place, item,
                            "'%s' is repeated, so it takes one input, not %d; write the layers out",
                            name, n_inputs);
    if (!wanted)
        scope->previous = inputs[0];
    else if (is_layer)
        PT_TRY(read_layer(layers, item, scope, name, inputs, n_inputs));
    else
        PT_TRY(read_instance(layers, item, scope, name, inputs, n_inputs));
    bool kept = layers->graph->n_nodes > first_node;
    return pt_name_define(
        layers, item,
        &(pt_name){.name = name, .value = scope->previous, .first_node = kept ? first_node : -1});
}

static pt_status read_item(pt_layers *layers, const pt_yaml *item, pt_scope *scope)
{
    pt_yaml_place place = layers->place;
    const pt_scope *unused;
    int64_t repeat = 0;

    PT_TRY(pt_yaml_want(place, item, PT_YAML_MAP, "a layer"));
    if (!pt_yaml_get(item, "kind") == !pt_yaml_get(item, "block"))
        return pt_yaml_fail(place, item,
                            "a layer has either 'kind: …' (an operation) or 'block: …' (a block of "
                            "layers)");
    const pt_yaml *node = pt_yaml_get(item, "repeat");
    if (!node)
        return read_once(layers, item, scope, /*repetition=*/-1);
    PT_TRY(pt_scope_resolve(place, node, scope, &node, &unused));
    PT_TRY(pt_yaml_whole(place, node, "'repeat'", 1, MAX_REPEAT, &repeat));
    for (int i = 0; i < repeat; i++)
        PT_TRY(read_once(layers, item, scope, i));
    return PT_OK;
}

static pt_status read_list(pt_layers *layers, const pt_yaml *list, pt_scope *scope)
{
    for (int i = 0; i < list->n_items; i++)
        PT_TRY(read_item(layers, list->items[i], scope));
    return PT_OK;
}

pt_status pt_layers_read(pt_layers *layers, const pt_yaml *list)
{
    pt_scope scope = {.prefix = ""};

    PT_TRY(pt_yaml_want(layers->place, list, PT_YAML_LIST, "'layers'"));
    PT_TRY(read_list(layers, list, &scope));
    if (!layers->graph->n_nodes)
        return pt_yaml_fail(layers->place, list, "'layers' is empty; a model has at least one");
    return PT_OK;
}
