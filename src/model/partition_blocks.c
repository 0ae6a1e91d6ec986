/* Checks the form of `blocks:`. What a block's layers say is checked where the block is used, when
 * its parameters are known. */
#include <stdio.h>
#include <string.h>

#include "partition_internal.h"

static const char *const block_keys[] = {"parameters", "layers"};

/* A parameter must not hide a key that instances have anyway. */
static const char *const taken[] = {"name", "block", "inputs", "when", "repeat", "kind"};

static pt_status check_parameter(pt_yaml_place place, const pt_yaml *list, int i)
{
    const pt_yaml *node = list->items[i];
    const char *name = NULL;

    PT_TRY(pt_yaml_text(place, node, "a parameter's name", &name));
    if (!pt_name_is_sound(name))
        return pt_yaml_fail(place, node,
                            "'%.40s' is no name of a parameter; use letters, digits and '_' (and "
                            "write '$' only where it is used)",
                            name);
    for (size_t k = 0; k < sizeof taken / sizeof taken[0]; k++)
        if (!strcmp(name, taken[k]))
            return pt_yaml_fail(place, node, "'%s' is a key of every layer; call it otherwise",
                                name);
    for (int k = 0; k < i; k++)
        if (!strcmp(name, list->items[k]->text))
            return pt_yaml_fail(place, node, "parameter '%.40s' stands here twice; keep one", name);
    return PT_OK;
}

static pt_status check_parameters(pt_yaml_place place, const pt_yaml *list)
{
    PT_TRY(pt_yaml_want(place, list, PT_YAML_LIST, "'parameters'"));
    if (list->n_items > PT_MAX_BLOCK_PARAMETERS)
        return pt_yaml_fail(place, list, "a block has at most %d parameters, not %d",
                            PT_MAX_BLOCK_PARAMETERS, list->n_items);
    for (int i = 0; i < list->n_items; i++)
        PT_TRY(check_parameter(place, list, i));
    return PT_OK;
}

static pt_status check_block(pt_yaml_place place, const char *name, const pt_yaml *block)
{
    const pt_yaml *parameters, *layers = NULL;
    char what[64];

    snprintf(what, sizeof what, "block '%.40s'", name);
    PT_TRY(pt_yaml_want(place, block, PT_YAML_MAP, what));
    PT_TRY(pt_yaml_keys(place, block, block_keys, 2, what));
    parameters = pt_yaml_get(block, "parameters");
    if (parameters)
        PT_TRY(check_parameters(place, parameters));
    PT_TRY(pt_yaml_need(place, block, "layers", what, &layers));
    PT_TRY(pt_yaml_want(place, layers, PT_YAML_LIST, "'layers'"));
    if (!layers->n_items)
        return pt_yaml_fail(place, layers, "%s has no layers; add one or remove it", what);
    return PT_OK;
}

pt_status pt_blocks_check(pt_yaml_place place, const pt_yaml *blocks)
{
    PT_TRY(pt_yaml_want(place, blocks, PT_YAML_MAP, "'blocks'"));
    for (int i = 0; i < blocks->n_items; i += 2)
        PT_TRY(check_block(place, blocks->items[i]->text, blocks->items[i + 1]));
    return PT_OK;
}
