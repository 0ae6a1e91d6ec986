/* The top level of a partition file: its sections, and what only the whole model can tell. */
#include "pipetrain/partition.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "partition_internal.h"

static const char *const sections[] = {"name", "input", "blocks", "layers",
                                       "loss", "init",  "cuts",   "train"};
static const char *const input_keys[] = {"shape", "mean", "std"};
static const char *const loss_keys[] = {"kind", "smoothing"};
static const char *const loss_names[PT_LOSS_KINDS] = {"cross-entropy", "mse"};
static const char *const init_names[] = {"pytorch", "he"};

/* Upper ends that no real input reaches; pt_op_infer bounds everything behind the input. */
#define MOST_DIM        1048576
#define MOST_ELEMENTS   1073741824.0
#define MOST_MEAN       1e6
#define SMALLEST_STD    1e-6
#define LARGEST_STD     1e6
#define MOST_LIST_ITEMS 64 /* of one setting */

static pt_status no_memory(pt_yaml_place place)
{
    return pt_fail(place.err, PT_ENOMEM, "%s: no memory for what it says", place.file);
}

/* ---- input ---- */

static pt_status read_shape(pt_yaml_place place, const pt_yaml *list, pt_shape *ret_shape)
{
    pt_shape shape = {0};
    double elements = 1;

    PT_TRY(pt_yaml_want(place, list, PT_YAML_LIST, "'shape'"));
    if (list->n_items != 1 && list->n_items != 3)
        return pt_yaml_fail(place, list,
                            "'shape' is [channels, rows, columns] or [features], not %d numbers",
                            list->n_items);
    shape.ndim = list->n_items;
    for (int i = 0; i < shape.ndim; i++) {
        PT_TRY(pt_yaml_whole(place, list->items[i], "a dimension of 'shape'", 1, MOST_DIM,
                             &shape.dims[i]));
        elements *= (double)shape.dims[i];
    }
    if (elements > MOST_ELEMENTS)
        return pt_yaml_fail(place, list, "'shape' has %.3g elements, more than %.0f", elements,
                            MOST_ELEMENTS);
    *ret_shape = shape;
    return PT_OK;
}

/* A list of one number for all channels or of one for each; absent: `fallback`. */
static pt_status read_channels(pt_yaml_place place, const pt_yaml *input, const char *key,
                               const pt_shape *shape, double fallback, double min, double max,
                               double *values, int *ret_n)
{
    char what[32];
    const pt_yaml *list = pt_yaml_get(input, key);
    int64_t channels = shape->ndim == 3 ? shape->dims[0] : 1;

    values[0] = fallback;
    *ret_n = 1;
    if (!list)
        return PT_OK;
    snprintf(what, sizeof what, "'%s'", key);
    PT_TRY(pt_yaml_want(place, list, PT_YAML_LIST, what));
    if (list->n_items != 1 && (list->n_items != channels || channels > PT_MAX_CHANNELS))
        return pt_yaml_fail(place, list,
                            "%s has %d numbers; give one, or one for each channel (%lld here, at "
                            "most %d)",
                            what, list->n_items, (long long)channels, PT_MAX_CHANNELS);
    for (int i = 0; i < list->n_items; i++)
        PT_TRY(pt_yaml_real(place, list->items[i], what, min, max, &values[i]));
    *ret_n = list->n_items;
    return PT_OK;
}

static pt_status read_input(pt_yaml_place place, const pt_yaml *input, pt_partition *p)
{
    pt_normalisation *norm = &p->normalisation;
    const pt_yaml *shape = NULL;
    int n_mean = 1, n_std = 1;

    PT_TRY(pt_yaml_want(place, input, PT_YAML_MAP, "'input'"));
    PT_TRY(pt_yaml_keys(place, input, input_keys, 3, "'input'"));
    PT_TRY(pt_yaml_need(place, input, "shape", "'input'", &shape));
    PT_TRY(read_shape(place, shape, &p->graph.input));
    PT_TRY(read_channels(place, input, "mean", &p->graph.input, 0, -MOST_MEAN, MOST_MEAN,
                         norm->mean, &n_mean));
    PT_TRY(read_channels(place, input, "std", &p->graph.input, 1, SMALLEST_STD, LARGEST_STD,
                         norm->std, &n_std));
    norm->n = n_mean > n_std ? n_mean : n_std;
    for (int i = n_mean; i < norm->n; i++)
        norm->mean[i] = norm->mean[0];
    for (int i = n_std; i < norm->n; i++)
        norm->std[i] = norm->std[0];
    return PT_OK;
}

/* ---- the graph ---- */

/* A value that nobody uses is a layer that never learns: a slip in `inputs`. */
static pt_status check_uses(pt_yaml_place place, const pt_graph *graph)
{
    bool *used = calloc((size_t)graph->n_nodes + 1, sizeof *used);
    int unused = 0;

    if (!used)
        return no_memory(place);
    for (int i = 0; i < graph->n_nodes; i++)
        for (int k = 0; k < graph->nodes[i].op.n_inputs; k++)
            used[graph->nodes[i].inputs[k]] = true;
    while (unused < graph->n_nodes - 1 && used[unused + 1])
        unused++;
    free(used);
    if (unused == graph->n_nodes - 1)
        return PT_OK;
    const pt_node *node = &graph->nodes[unused];
    return pt_yaml_fail(place, &(pt_yaml){.line = node->line, .column = node->column},
                        "layer '%s' feeds nothing; name it in the 'inputs' of a later layer or "
                        "remove it",
                        node->name);
}

static pt_status check_output(pt_yaml_place place, pt_graph *graph)
{
    char text[PT_SHAPE_TEXT];
    const pt_node *last = &graph->nodes[graph->n_nodes - 1];
    const pt_shape *out = &last->op.out;
    bool classes = graph->loss.kind == PT_LOSS_CROSS_ENTROPY;
    pt_yaml at = {.line = last->line, .column = last->column};

    graph->loss.shape = *out;
    if (out->ndim != 1)
        return pt_yaml_fail(place, &at,
                            "the last layer '%s' gives %s, but the loss %s needs %s; end with "
                            "flatten or global-avg-pool, then linear",
                            last->name, pt_shape_print(out, text), loss_names[graph->loss.kind],
                            classes ? "one number for each class, (C)" : "a vector, (F)");
    if (classes && out->dims[0] < 2)
        return pt_yaml_fail(place, &at,
                            "the last layer '%s' gives one number, but cross-entropy needs one for "
                            "each of at least 2 classes",
                            last->name);
    return PT_OK;
}

static pt_status read_loss(pt_yaml_place place, const pt_yaml *node, pt_loss *loss)
{
    const pt_yaml *kind = NULL, *smoothing;
    int index = 0;

    if (!node)
        return PT_OK;
    PT_TRY(pt_yaml_want(place, node, PT_YAML_MAP, "'loss'"));
    PT_TRY(pt_yaml_keys(place, node, loss_keys, 2, "'loss'"));
    PT_TRY(pt_yaml_need(place, node, "kind", "'loss'", &kind));
    PT_TRY(pt_yaml_choice(place, kind, "loss", loss_names, PT_LOSS_KINDS, &index));
    loss->kind = (pt_loss_kind)index;
    smoothing = pt_yaml_get(node, "smoothing");
    if (smoothing && loss->kind != PT_LOSS_CROSS_ENTROPY)
        return pt_yaml_fail(place, smoothing, "'smoothing' belongs to cross-entropy; leave it out");
    if (smoothing)
        PT_TRY(pt_yaml_real(place, smoothing, "'smoothing'", 0, 1, &loss->smoothing));
    return PT_OK;
}

static pt_status read_graph(pt_yaml_place place, const pt_yaml *root, pt_partition *p,
                            pt_layers *layers)
{
    const pt_yaml *list = NULL;

    PT_TRY(pt_yaml_need(place, root, "layers", "the file", &list));
    if (layers->blocks)
        PT_TRY(pt_blocks_check(place, layers->blocks));
    PT_TRY(pt_layers_read(layers, list));
    PT_TRY(check_uses(place, &p->graph));
    PT_TRY(read_loss(place, pt_yaml_get(root, "loss"), &p->graph.loss));
    return check_output(place, &p->graph);
}

/* ---- train ---- */

/* A scalar's text, or a list's items with commas between them; NULL when memory ran out. */
static char *setting_text(const pt_yaml *value)
{
    size_t bytes = 1;

    if (value->kind == PT_YAML_SCALAR)
        return strdup(value->text);
    for (int i = 0; i < value->n_items; i++)
        bytes += strlen(value->items[i]->text) + 1;
    char *text = calloc(bytes, 1), *at = text;
    for (int i = 0; text && i < value->n_items; i++) {
        at = stpcpy(at, i ? "," : "");
        at = stpcpy(at, value->items[i]->text);
    }
    return text;
}

static pt_status check_setting(pt_yaml_place place, const pt_yaml *key, const pt_yaml *value)
{
    char what[64];
    const char *text = NULL;

    snprintf(what, sizeof what, "'%.40s'", key->text);
    if (value->kind == PT_YAML_MAP || value->n_items > MOST_LIST_ITEMS)
        return pt_yaml_fail(place, value,
                            "%s must be one value or a list of at most %d, as in [60, 120]", what,
                            MOST_LIST_ITEMS);
    for (int i = 0; i < value->n_items; i++)
        PT_TRY(pt_yaml_text(place, value->items[i], what, &text));
    return PT_OK;
}

static pt_status read_train(pt_yaml_place place, const pt_yaml *train, pt_partition *p)
{
    if (!train)
        return PT_OK;
    PT_TRY(pt_yaml_want(place, train, PT_YAML_MAP, "'train'"));
    p->settings = calloc((size_t)train->n_items / 2 + 1, sizeof *p->settings);
    if (!p->settings)
        return no_memory(place);
    for (int i = 0; i < train->n_items; i += 2) {
        const pt_yaml *key = train->items[i];
        PT_TRY(check_setting(place, key, train->items[i + 1]));
        pt_setting *setting = &p->settings[p->n_settings++];
        *setting = (pt_setting){strdup(key->text), setting_text(train->items[i + 1]), key->line,
                                key->column};
        if (!setting->key || !setting->value)
            return no_memory(place);
    }
    return PT_OK;
}

/* ---- the file ---- */

static pt_status read_name(pt_yaml_place place, const pt_yaml *root, pt_partition *p)
{
    const pt_yaml *node = NULL;
    const char *name = NULL;

    PT_TRY(pt_yaml_need(place, root, "name", "the file", &node));
    PT_TRY(pt_yaml_text(place, node, "'name'", &name));
    if (!pt_name_is_sound(name) || strlen(name) > PT_MAX_NAME)
        return pt_yaml_fail(place, node,
                            "'%.40s' is no name of a model; use up to %d letters, digits, '_', '.' "
                            "and '-'",
                            name, PT_MAX_NAME);
    p->name = strdup(name);
    return p->name ? PT_OK : no_memory(place);
}

static pt_status read_file(pt_yaml_place place, const pt_yaml *root, pt_partition *p,
                           pt_layers *layers)
{
    const pt_yaml *input, *init = pt_yaml_get(root, "init");
    int index = PT_INIT_PYTORCH;

    PT_TRY(pt_yaml_keys(place, root, sections, sizeof sections / sizeof sections[0], "the file"));
    PT_TRY(read_name(place, root, p));
    PT_TRY(pt_yaml_need(place, root, "input", "the file", &input));
    PT_TRY(read_input(place, input, p));
    PT_TRY(read_graph(place, root, p, layers));
    if (init)
        PT_TRY(pt_yaml_choice(place, init, "init", init_names, 2, &index));
    p->init = (pt_init_kind)index;
    PT_TRY(pt_cuts_read(p, place, pt_yaml_get(root, "cuts"), &layers->names));
    return read_train(place, pt_yaml_get(root, "train"), p);
}

static pt_status read_root(pt_yaml_place place, const pt_yaml *root, pt_partition **ret_partition)
{
    PT_TRY(pt_yaml_want(place, root, PT_YAML_MAP, "a partition file"));
    pt_partition *p = calloc(1, sizeof *p);
    if (!p)
        return no_memory(place);
    pt_layers layers = {.place = place, .blocks = pt_yaml_get(root, "blocks"), .graph = &p->graph};
    p->file = strdup(place.file);
    pt_status status = p->file ? read_file(place, root, p, &layers) : no_memory(place);
    pt_names_clear(&layers.names);
    if (status != PT_OK) {
        pt_partition_free(p);
        return status;
    }
    *ret_partition = p;
    return PT_OK;
}

pt_status pt_partition_parse(const char *file, const char *text, size_t bytes,
                             pt_partition **ret_partition, pt_error *err)
{
    pt_yaml_place place = {file, err};
    pt_yaml *root = NULL;

    PT_TRY(pt_yaml_parse(place, text, bytes, &root));
    pt_status status = read_root(place, root, ret_partition);
    pt_yaml_free(root);
    return status;
}

void pt_partition_free(pt_partition *partition)
{
    if (!partition)
        return;
    for (int i = 0; i < partition->n_cuts; i++)
        free(partition->cuts[i].begins);
    for (int i = 0; i < partition->n_settings; i++) {
        free(partition->settings[i].key);
        free(partition->settings[i].value);
    }
    pt_graph_clear(&partition->graph);
    free(partition->cuts);
    free(partition->settings);
    free(partition->file);
    free(partition->name);
    free(partition);
}
