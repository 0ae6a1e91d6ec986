/* Which tensor lies where in the files of a checkpoint, and copies in and out. */
#include "checkpoint_image.h"

#include <stdlib.h>
#include <string.h>

#include "pipetrain/safetensors.h"
#include "pipetrain/text.h"
#include "setup.h"

enum { ALIGN = 64 };

typedef enum entry_kind { PARAM, STATE, MEMORY } entry_kind;

typedef struct entry {
    const pt_block *block;
    entry_kind kind;
    int which; /* MEMORY: of them */
    int i;     /* of the flat's params, or state */
    const pt_flat_tensor *tensor;
    char *name;
    size_t at; /* bytes from the start of the image */
} entry;

typedef struct layer {
    int node;
    char *name, *head;
    size_t begin, head_bytes, bytes;
    int first, n; /* entries */
} layer;

struct pt_image {
    const pt_run *run;
    layer *layers;
    int n_layers;
    entry *entries;
    int n_entries;
    size_t bytes;
    char *memory;
};

/* ---- planning ---------------------------------------------------------------------------------
 */

static size_t bytes_of(const entry *e)
{
    return (size_t)e->tensor->shape.elements * sizeof(float);
}

static pt_status add_entry(pt_image *m, entry e, const char *memory, pt_error *err)
{
    const char *node = m->run->partition->graph.nodes[e.tensor->node].name;
    const char *tensor = e.tensor->shape.name;
    e.name = memory ? pt_text_format("%s.%s#%s", node, tensor, memory)
                    : pt_text_format("%s.%s", node, tensor);
    m->entries[m->n_entries++] = e;
    return e.name ? PT_OK : pt_fail(err, PT_ENOMEM, "no memory for a checkpoint's names");
}

/* The tensors of one layer, weights first. */
static pt_status add_entries(pt_image *m, const pt_block *block, int node, const char **memories,
                             int n_memories, pt_error *err)
{
    const pt_flat *flat = &block->flat;
    for (int i = 0; i < flat->n_params; i++)
        if (flat->params[i].node == node)
            PT_TRY(add_entry(m, (entry){block, PARAM, 0, i, &flat->params[i], NULL, 0}, NULL, err));
    for (int i = 0; i < flat->n_state; i++)
        if (flat->state[i].node == node)
            PT_TRY(add_entry(m, (entry){block, STATE, 0, i, &flat->state[i], NULL, 0}, NULL, err));
    for (int k = 0; k < n_memories; k++)
        for (int i = 0; i < flat->n_params; i++)
            if (flat->params[i].node == node)
                PT_TRY(add_entry(m, (entry){block, MEMORY, k, i, &flat->params[i], NULL, 0},
                                 memories[k], err));
    return PT_OK;
}

static pt_status make_head(pt_image *m, layer *l, pt_error *err)
{
    pt_st_tensor *tensors = calloc((size_t)l->n, sizeof *tensors);
    if (!tensors)
        return pt_fail(err, PT_ENOMEM, "no memory for a checkpoint's names");
    for (int i = 0; i < l->n; i++) {
        const entry *e = &m->entries[l->first + i];
        tensors[i] = (pt_st_tensor){
            .name = e->name, .dtype = PT_F32, .ndim = e->tensor->shape.ndim, .bytes = bytes_of(e)};
        for (int d = 0; d < tensors[i].ndim; d++)
            tensors[i].dims[d] = e->tensor->shape.dims[d];
    }
    pt_status status = pt_safetensors_head(tensors, l->n, NULL, 0, &l->head, &l->head_bytes, err);
    free(tensors);
    return status;
}

static pt_status add_layer(pt_image *m, const pt_block *block, int node, const char **memories,
                           int n_memories, pt_error *err)
{
    layer *l = &m->layers[m->n_layers];
    *l = (layer){.node = node, .first = m->n_entries, .begin = m->bytes};
    PT_TRY(add_entries(m, block, node, memories, n_memories, err));
    l->n = m->n_entries - l->first;
    if (l->n == 0)
        return PT_OK;
    m->n_layers++;
    l->name = pt_weights_file_name(&m->run->partition->graph, node);
    if (!l->name)
        return pt_fail(err, PT_ENOMEM, "no memory for a checkpoint's names");
    PT_TRY(make_head(m, l, err));
    l->bytes = l->head_bytes;
    for (int i = l->first; i < m->n_entries; i++) {
        m->entries[i].at = l->begin + l->bytes;
        l->bytes += bytes_of(&m->entries[i]);
    }
    m->bytes += (l->bytes + ALIGN - 1) / ALIGN * ALIGN;
    return PT_OK;
}

static pt_status plan(pt_image *m, pt_error *err)
{
    size_t layers = 0, tensors = 0;
    for (int c = 0; c < m->run->chunks; c++) {
        const pt_flat *flat = &m->run->blocks[c].flat;
        layers += (size_t)(flat->end - flat->first);
        tensors += (size_t)flat->n_params * (1 + PT_MOST_MEMORIES) + (size_t)flat->n_state;
    }
    m->layers = calloc(layers + 1, sizeof *m->layers);
    m->entries = calloc(tensors + 1, sizeof *m->entries);
    if (!m->layers || !m->entries)
        return pt_fail(err, PT_ENOMEM, "no memory for a checkpoint's names");
    for (int c = 0; c < m->run->chunks; c++) {
        const pt_block *block = &m->run->blocks[c];
        const char *memories[PT_MOST_MEMORIES];
        pt_weights_spec spec = pt_run_weights_spec(m->run, c);
        int n = pt_weights_memories(&spec, memories);
        for (int node = block->flat.first; node < block->flat.end; node++)
            PT_TRY(add_layer(m, block, node, memories, n, err));
    }
    return PT_OK;
}

pt_status pt_image_new(const pt_run *run, pt_image **ret_image, pt_error *err)
{
    pt_image *m = calloc(1, sizeof *m);
    if (!m)
        return pt_fail(err, PT_ENOMEM, "no memory for checkpoints");
    m->run = run;
    pt_status status = plan(m, err);
    if (status == PT_OK)
        *ret_image = m;
    else
        pt_image_free(m);
    return status;
}

/* ---- life -------------------------------------------------------------------------------------
 */

void pt_image_free(pt_image *m)
{
    if (!m)
        return;
    pt_backend *b = m->run->backend;
    for (int i = 0; i < m->n_entries; i++)
        free(m->entries[i].name);
    for (int i = 0; i < m->n_layers; i++) {
        free(m->layers[i].name);
        free(m->layers[i].head);
    }
    if (m->memory)
        (b->row->on_device ? b->row->host_free : b->row->dev_free)(b, m->memory);
    free(m->entries);
    free(m->layers);
    free(m);
}

size_t pt_image_bytes(const pt_image *m)
{
    return m->bytes;
}

int pt_image_count(const pt_image *m)
{
    return m->n_layers;
}

pt_image_file pt_image_at(const pt_image *m, int i)
{
    const layer *l = &m->layers[i];
    return (pt_image_file){l->node, l->name, m->memory + l->begin, l->bytes};
}

pt_status pt_image_allocate(pt_image *m, pt_error *err)
{
    pt_backend *b = m->run->backend;
    void *memory = NULL;
    PT_TRY((b->row->on_device ? b->row->host_new : b->row->dev_new)(b, m->bytes, &memory, err));
    m->memory = memory;
    for (int i = 0; i < m->n_layers; i++)
        memcpy(m->memory + m->layers[i].begin, m->layers[i].head, m->layers[i].head_bytes);
    return PT_OK;
}

/* ---- copies -----------------------------------------------------------------------------------
 */

static pt_status get(const entry *e, float *dst, pt_error *err)
{
    pt_weights *w = e->block->weights;
    switch (e->kind) {
    case PARAM:
        return pt_weights_get_param(w, e->i, dst, err);
    case STATE:
        return pt_weights_get_state(w, e->i, dst, err);
    case MEMORY:
        break;
    }
    return pt_weights_get_memory(w, e->which, e->i, dst, err);
}

static pt_status set(const entry *e, const float *src, pt_error *err)
{
    pt_weights *w = e->block->weights;
    switch (e->kind) {
    case PARAM:
        return pt_weights_set_param(w, e->i, src, err);
    case STATE:
        return pt_weights_set_state(w, e->i, src, err);
    case MEMORY:
        break;
    }
    return pt_weights_set_memory(w, e->which, e->i, src, err);
}

pt_status pt_image_take(pt_image *m, pt_error *err)
{
    for (int i = 0; i < m->n_entries; i++)
        PT_TRY(get(&m->entries[i], (float *)(void *)(m->memory + m->entries[i].at), err));
    return PT_OK;
}

static pt_status load_entry(const entry *e, const pt_safetensors *file, const char *path,
                            pt_error *err)
{
    const pt_st_tensor *got = pt_safetensors_find(file, e->name);
    if (!got && e->kind == MEMORY)
        return pt_fail(err, PT_EINPUT,
                       "%s has no %s, which this run goes on from: go on with the rules for late "
                       "weights that were on, and on as many ranks; or take the weights alone, by "
                       "--init",
                       path, e->name);
    if (!got)
        return pt_fail(err, PT_EINPUT, "%s has no tensor %s; is it of another model?", path,
                       e->name);
    PT_TRY(pt_weights_check_shape(got, e->tensor, path, err));
    return set(e, got->data, err);
}

static pt_status load_layer(const pt_image *m, const layer *l, const char *folder, pt_error *err)
{
    pt_safetensors *file = NULL;
    char *path = pt_text_format("%s/%s", folder, l->name);
    pt_status status = path ? pt_safetensors_open(path, &file, err)
                            : pt_fail(err, PT_ENOMEM, "no memory for a path");
    for (int i = l->first; status == PT_OK && i < l->first + l->n; i++)
        status = load_entry(&m->entries[i], file, path, err);
    pt_safetensors_close(file);
    free(path);
    return status;
}

pt_status pt_image_load(const pt_image *m, const char *folder, int64_t step, pt_error *err)
{
    for (int i = 0; i < m->n_layers; i++)
        PT_TRY(load_layer(m, &m->layers[i], folder, err));
    for (int c = 0; c < m->run->chunks; c++)
        pt_weights_resume(m->run->blocks[c].weights, step);
    return PT_OK;
}
