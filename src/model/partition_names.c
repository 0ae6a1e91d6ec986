/* Names of layers and what they mean as inputs.
 *
 * A name is looked up in the innermost scope first, then outwards: inside the instance "g.0" the
 * word "conv1" is tried as "g.0.conv1", then as "conv1". */
#include <stdio.h>
#include <string.h>

#include "partition_internal.h"

#define LETTERS "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_"

bool pt_name_is_sound(const char *name)
{
    return name[0] && strspn(name, LETTERS) > 0 && !name[strspn(name, LETTERS ".-")];
}

/* Writes prefix + name with every "{i}" replaced; false when it would be too long. */
static bool put_together(const char *prefix, const char *name, int i, char full[PT_MAX_NAME + 1])
{
    size_t room = PT_MAX_NAME + 1;
    int used = snprintf(full, room, "%s", prefix);

    while (*name && used >= 0 && (size_t)used < room) {
        if (!strncmp(name, "{i}", 3)) {
            used += snprintf(full + used, room - (size_t)used, "%d", i);
            name += 3;
        } else {
            used += snprintf(full + used, room - (size_t)used, "%c", *name++);
        }
    }
    return used >= 0 && (size_t)used < room;
}

pt_status pt_name_full(const pt_layers *layers, const pt_yaml *item, const pt_scope *scope,
                       int repetition, char full[PT_MAX_NAME + 1])
{
    pt_yaml_place place = layers->place;
    const char *name = NULL;

    PT_TRY(pt_scope_text(place, item, "name", scope, &name));
    if (!name)
        return pt_yaml_fail(place, item, "this layer lacks a name; add 'name: …'");
    const pt_yaml *at = pt_yaml_get(item, "name");
    if (repetition < 0 && strstr(name, "{i}"))
        return pt_yaml_fail(place, at, "'{i}' in '%.40s' counts repetitions; add 'repeat: N'",
                            name);
    if (repetition >= 0 && !strstr(name, "{i}"))
        return pt_yaml_fail(place, at,
                            "'%.40s' is repeated, so its name needs {i}, as in \"%.40s.{i}\"", name,
                            name);
    if (!put_together(scope->prefix, name, repetition, full))
        return pt_yaml_fail(place, at, "the name '%.40s…' has more than %d letters", full,
                            PT_MAX_NAME);
    if (!pt_name_is_sound(full + strlen(scope->prefix)))
        return pt_yaml_fail(place, at,
                            "'%.40s' is no name of a layer; begin with a letter or a digit and "
                            "use letters, digits, '_', '.' and '-'",
                            full + strlen(scope->prefix));
    if (!strcmp(full + strlen(scope->prefix), "input"))
        return pt_yaml_fail(place, at,
                            "'input' means the model's input; name this layer otherwise");
    const pt_name *other = pt_names_find(&layers->names, full);
    if (other)
        return pt_yaml_fail(place, at, "the name '%.80s' is taken by line %d; names must differ",
                            full, other->line);
    return PT_OK;
}

pt_status pt_name_define(pt_layers *layers, const pt_yaml *item, const pt_name *entry)
{
    pt_name copy = *entry;

    copy.line = item->line;
    if (pt_names_add(&layers->names, &copy))
        return PT_OK;
    return pt_fail(layers->place.err, PT_ENOMEM, "%s: no memory for the name of a layer",
                   layers->place.file);
}

static const pt_name *look_up(const pt_names *names, const pt_scope *scope, const char *word)
{
    char full[PT_MAX_NAME + 1];

    for (; scope; scope = scope->outer) {
        int length = snprintf(full, sizeof full, "%s%s", scope->prefix, word);
        if (length < 0 || (size_t)length >= sizeof full)
            continue;
        const pt_name *entry = pt_names_find(names, full);
        if (entry)
            return entry;
    }
    return NULL;
}

static pt_status read_input(const pt_layers *layers, const pt_yaml *node, const pt_scope *scope,
                            int *ret_value)
{
    pt_yaml_place place = layers->place;
    char hint[PT_MAX_NAME + 32] = "";
    const char *word = NULL;

    PT_TRY(pt_scope_resolve(place, node, scope, &node, &scope));
    PT_TRY(pt_yaml_text(place, node, "an input", &word));
    if (!strcmp(word, "@") && !scope->block)
        return pt_yaml_fail(place, node,
                            "\"@\" means a block's input, but this is no block; 'input' is the "
                            "model's");
    if (!strcmp(word, "@") || !strcmp(word, "input")) {
        *ret_value = word[0] == '@' ? scope->block_input : 0;
        return PT_OK;
    }
    const pt_name *entry = look_up(&layers->names, scope, word);
    if (entry) {
        *ret_value = entry->value;
        return PT_OK;
    }
    const char *nearest = pt_names_nearest(&layers->names, scope->prefix, word);
    if (nearest)
        snprintf(hint, sizeof hint, "; did you mean '%s'?", nearest);
    return pt_yaml_fail(place, node, "no layer before this one is called '%.40s'%s", word, hint);
}

pt_status pt_inputs_read(const pt_layers *layers, const pt_yaml *item, const pt_scope *scope,
                         int ret_values[PT_MAX_INPUTS], int *ret_n)
{
    pt_yaml_place place = layers->place;
    const pt_yaml *node = pt_yaml_get(item, "inputs");

    if (!node) {
        ret_values[0] = scope->previous;
        *ret_n = 1;
        return PT_OK;
    }
    PT_TRY(pt_yaml_want(place, node, PT_YAML_LIST, "'inputs'"));
    if (node->n_items < 1 || node->n_items > PT_MAX_INPUTS)
        return pt_yaml_fail(place, node, "'inputs' must name 1 to %d layers, not %d", PT_MAX_INPUTS,
                            node->n_items);
    for (int i = 0; i < node->n_items; i++)
        PT_TRY(read_input(layers, node->items[i], scope, &ret_values[i]));
    *ret_n = node->n_items;
    return PT_OK;
}
