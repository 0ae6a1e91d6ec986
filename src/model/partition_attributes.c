/* From the keys of one layer to an op: parameters of blocks put in, every key and value checked
 * against the row of the layer's kind. */
#include <stdio.h>
#include <string.h>

#include "partition_internal.h"

/* Keys that every layer may have, whatever its kind. */
static const char *const common_keys[] = {"name", "kind", "inputs", "when", "repeat", "decay"};

enum { N_COMMON = sizeof common_keys / sizeof common_keys[0], WHAT_TEXT = PT_MAX_NAME + 64 };

static bool is_parameter_of(const pt_yaml *block, const char *name)
{
    const pt_yaml *parameters = pt_yaml_get(block, "parameters");
    for (int i = 0; parameters && i < parameters->n_items; i++)
        if (!strcmp(parameters->items[i]->text, name))
            return true;
    return false;
}

/* Each turn goes one scope outwards, so the walk ends. */
pt_status pt_scope_resolve(pt_yaml_place place, const pt_yaml *node, const pt_scope *scope,
                           const pt_yaml **ret_node, const pt_scope **ret_scope)
{
    while (node->kind == PT_YAML_SCALAR && node->text[0] == '$') {
        if (!scope->block)
            return pt_yaml_fail(place, node,
                                "'%.40s' stands outside of a block; parameters exist only inside",
                                node->text);
        if (!is_parameter_of(scope->block, node->text + 1))
            return pt_yaml_fail(place, node,
                                "'%.40s' is no parameter of this block; add '%.40s' to its "
                                "'parameters'",
                                node->text, node->text + 1);
        node = pt_yaml_get(scope->instance, node->text + 1);
        scope = scope->outer;
    }
    *ret_node = node;
    *ret_scope = scope;
    return PT_OK;
}

pt_status pt_scope_text(pt_yaml_place place, const pt_yaml *map, const char *key,
                        const pt_scope *scope, const char **ret_text)
{
    char what[64];
    const pt_yaml *node = pt_yaml_get(map, key);

    if (!node) {
        *ret_text = NULL;
        return PT_OK;
    }
    snprintf(what, sizeof what, "'%s'", key);
    PT_TRY(pt_scope_resolve(place, node, scope, &node, &scope));
    return pt_yaml_text(place, node, what, ret_text);
}

static pt_status read_value(pt_yaml_place place, const pt_yaml *node, const pt_scope *scope,
                            const pt_op_attribute *attribute, const char *what, double *ret_value)
{
    int64_t whole = 0;
    bool on = false;

    PT_TRY(pt_scope_resolve(place, node, scope, &node, &scope));
    switch (attribute->type) {
    case PT_OP_INTEGER:
        PT_TRY(pt_yaml_whole(place, node, what, (int64_t)attribute->min, (int64_t)attribute->max,
                             &whole));
        *ret_value = (double)whole;
        return PT_OK;
    case PT_OP_SWITCH:
        PT_TRY(pt_yaml_switch(place, node, what, &on));
        *ret_value = on;
        return PT_OK;
    case PT_OP_REAL:
        break;
    }
    return pt_yaml_real(place, node, what, attribute->min, attribute->max, ret_value);
}

static pt_status read_attribute(pt_yaml_place place, const pt_yaml *node, const pt_scope *scope,
                                const pt_op_attribute *attribute, const char *what, pt_op *op)
{
    double values[2] = {0};
    int n = attribute->n_values;

    PT_TRY(pt_scope_resolve(place, node, scope, &node, &scope));
    if (node->kind == PT_YAML_LIST && n == 2) {
        if (node->n_items != n)
            return pt_yaml_fail(place, node,
                                "%s must be one number or a pair [rows, columns]; "
                                "this list has %d items",
                                what, node->n_items);
        for (int i = 0; i < n; i++)
            PT_TRY(read_value(place, node->items[i], scope, attribute, what, &values[i]));
    } else {
        PT_TRY(read_value(place, node, scope, attribute, what, &values[0]));
        values[1] = values[0];
    }
    pt_op_set(op, attribute->name, values);
    return PT_OK;
}

pt_status pt_attributes_read(pt_yaml_place place, const pt_yaml *layer, const pt_scope *scope,
                             pt_op_kind kind, const char *what, pt_op *op)
{
    const pt_op_row *row = &pt_op_rows[kind];
    const char *known[N_COMMON + PT_MAX_ATTRIBUTES];
    char text[WHAT_TEXT];
    int n = 0;

    while (n < PT_MAX_ATTRIBUTES && row->attributes[n].name) {
        known[n] = row->attributes[n].name;
        n++;
    }
    memcpy(known + n, common_keys, sizeof common_keys);
    snprintf(text, sizeof text, "%s of kind %s", what, row->name);
    PT_TRY(pt_yaml_keys(place, layer, known, n + N_COMMON, text));
    pt_op_defaults(op, kind);
    for (int i = 0; i < n; i++) {
        const pt_op_attribute *attribute = &row->attributes[i];
        const pt_yaml *node = pt_yaml_get(layer, attribute->name);
        if (!node && attribute->required)
            return pt_yaml_fail(place, layer, "%s lacks '%s' (%s); add '%s: …'", text,
                                attribute->name, attribute->help, attribute->name);
        if (!node)
            continue;
        char value[WHAT_TEXT];
        snprintf(value, sizeof value, "'%s' of %s", attribute->name, what);
        PT_TRY(read_attribute(place, node, scope, attribute, value, op));
    }
    return PT_OK;
}
