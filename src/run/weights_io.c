/* Reading, writing and drawing weights. */
#include "pipetrain/weights_io.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "pipetrain/file.h"
#include "pipetrain/init.h"
#include "pipetrain/safetensors.h"
#include "pipetrain/text.h"

/* Parameters and running statistics alike: who they are and how they are moved. */
typedef struct tensor_kind {
    const pt_flat_tensor *tensors;
    int n;
    pt_status (*get)(pt_weights *weights, int i, float *dst, pt_error *err);
    pt_status (*set)(pt_weights *weights, int i, const float *src, pt_error *err);
} tensor_kind;

enum { PARAMS, STATE, KINDS };

static void kinds_of(const pt_flat *flat, tensor_kind kinds[KINDS])
{
    kinds[PARAMS] =
        (tensor_kind){flat->params, flat->n_params, pt_weights_get_param, pt_weights_set_param};
    kinds[STATE] =
        (tensor_kind){flat->state, flat->n_state, pt_weights_get_state, pt_weights_set_state};
}

static float *elements_of(const pt_flat_tensor *tensor, pt_error *err)
{
    float *data = calloc((size_t)tensor->shape.elements, sizeof *data);
    if (!data)
        pt_fail(err, PT_ENOMEM, "no memory for a tensor of %lld elements",
                (long long)tensor->shape.elements);
    return data;
}

pt_status pt_weights_randomise(pt_weights *weights, const pt_flat *flat, const pt_graph *graph,
                               pt_init_kind kind, uint64_t seed, pt_error *err)
{
    tensor_kind kinds[KINDS];
    kinds_of(flat, kinds);
    for (int k = 0; k < KINDS; k++)
        for (int i = 0; i < kinds[k].n; i++) {
            const pt_flat_tensor *t = &kinds[k].tensors[i];
            float *data = elements_of(t, err);
            if (!data)
                return PT_ENOMEM;
            if (k == PARAMS)
                pt_init_param(&graph->nodes[t->node].op, t->index, kind, seed, data);
            else
                pt_init_state(&graph->nodes[t->node].op, t->index, data);
            pt_status status = kinds[k].set(weights, i, data, err);
            free(data);
            PT_TRY(status);
        }
    return PT_OK;
}

static int is_safetensors(const struct dirent *entry)
{
    const char *dot = strrchr(entry->d_name, '.');
    return dot && strcmp(dot, ".safetensors") == 0;
}

/* ---- saving -----------------------------------------------------------------------------------
 */

enum { PER_LAYER = PT_MAX_PARAMS + PT_MAX_STATE };

static void describe(const pt_flat_tensor *t, const char *name, pt_st_tensor *out)
{
    *out = (pt_st_tensor){.name = name, .dtype = PT_F32, .ndim = t->shape.ndim};
    for (int d = 0; d < t->shape.ndim; d++)
        out->dims[d] = t->shape.dims[d];
    out->bytes = (size_t)t->shape.elements * sizeof(float);
}

static char *tensor_name(const pt_graph *graph, const pt_flat_tensor *t)
{
    return pt_text_format("%s.%s", graph->nodes[t->node].name, t->shape.name);
}

/* A layer's name as part of a file's name: what could leave the directory does not. */
char *pt_weights_file_name(const pt_graph *graph, int node)
{
    char *name = pt_text_format("layer-%03d-%s.safetensors", node, graph->nodes[node].name);
    for (char *c = name; c && *c; c++)
        if (*c == '/')
            *c = '_';
    return name;
}

static char *layer_path(const char *dir, const pt_graph *graph, int node)
{
    char *name = pt_weights_file_name(graph, node);
    char *path = name ? pt_text_format("%s/%s", dir, name) : NULL;
    free(name);
    return path;
}

static pt_status save_layer(pt_weights *weights, const tensor_kind kinds[KINDS],
                            const pt_graph *graph, int node, const char *dir, pt_error *err)
{
    pt_st_tensor tensors[PER_LAYER];
    char *names[PER_LAYER] = {NULL};
    float *data[PER_LAYER] = {NULL};
    char *path = NULL;
    int n = 0;
    pt_status status = PT_OK;
    for (int k = 0; k < KINDS; k++)
        for (int i = 0; i < kinds[k].n; i++) {
            const pt_flat_tensor *t = &kinds[k].tensors[i];
            if (t->node != node)
                continue;
            names[n] = tensor_name(graph, t);
            data[n] = elements_of(t, err);
            if (!names[n] || !data[n]) {
                status = pt_fail(err, PT_ENOMEM, "no memory for a layer");
                n++;
                goto out;
            }
            describe(t, names[n], &tensors[n]);
            tensors[n].data = data[n];
            PT_GOTO(status, kinds[k].get(weights, i, data[n++], err));
        }
    if (n == 0)
        goto out;
    path = layer_path(dir, graph, node);
    status = path ? pt_safetensors_write(path, tensors, n, NULL, /*n_metadata=*/0, err)
                  : pt_fail(err, PT_ENOMEM, "no memory for a path");
out:
    for (int i = 0; i < n; i++) {
        free(names[i]);
        free(data[i]);
    }
    free(path);
    return status;
}

pt_status pt_weights_save(pt_weights *weights, const pt_flat *flat, const pt_graph *graph,
                          const char *dir, pt_error *err)
{
    tensor_kind kinds[KINDS];
    kinds_of(flat, kinds);
    for (int node = flat->first; node < flat->end; node++)
        PT_TRY(save_layer(weights, kinds, graph, node, dir, err));
    return PT_OK;
}

static int is_layer_file(const struct dirent *entry)
{
    return strncmp(entry->d_name, "layer-", 6) == 0 && is_safetensors(entry);
}

static bool is_ours(const char *name, const pt_graph *graph)
{
    int node = atoi(name + 6);
    char *own = node >= 0 && node < graph->n_nodes ? pt_weights_file_name(graph, node) : NULL;
    bool ours = own && strcmp(own, name) == 0;
    free(own);
    return ours;
}

/* Files of another model would be read together with ours, and nobody could tell them apart. */
static pt_status refuse_strangers(const char *dir, const pt_graph *graph, pt_error *err)
{
    struct dirent **entries = NULL;
    int n = scandir(dir, &entries, is_layer_file, alphasort);
    pt_status status = PT_OK;
    for (int i = 0; i < n; i++) {
        if (status == PT_OK && !is_ours(entries[i]->d_name, graph))
            status = pt_fail(err, PT_EINPUT,
                             "--save %s: it holds %s, which is not of this model; give an empty "
                             "directory",
                             dir, entries[i]->d_name);
        free(entries[i]);
    }
    free(entries);
    return status;
}

pt_status pt_weights_make_dir(const char *dir, const pt_graph *graph, pt_error *err)
{
    struct stat st;
    if (!*dir)
        return pt_fail(err, PT_EINPUT, "--save: write the name of a directory");
    pt_status status = pt_file_make_folders(dir, err);
    if (status == PT_OK && stat(dir, &st) == 0 && !S_ISDIR(st.st_mode))
        status = pt_fail(err, PT_EINPUT, "--save %s: it is a file; give a directory", dir);
    if (status == PT_OK && access(dir, W_OK | X_OK) != 0)
        status = pt_fail(err, PT_EINPUT, "cannot write into %s: %s", dir, strerror(errno));
    return status == PT_OK ? refuse_strangers(dir, graph, err) : status;
}

/* ---- loading ----------------------------------------------------------------------------------
 */

typedef struct opened {
    pt_safetensors **files;
    int n;
} opened;

static void close_all(opened *o)
{
    for (int i = 0; i < o->n; i++)
        pt_safetensors_close(o->files[i]);
    free(o->files);
}

static pt_status open_dir(const char *path, opened *o, pt_error *err)
{
    struct dirent **entries = NULL;
    int n = scandir(path, &entries, is_safetensors, alphasort);
    if (n < 0)
        return pt_fail(err, PT_EINPUT, "cannot read %s: %s", path, strerror(errno));
    pt_status status =
        n ? PT_OK
          : pt_fail(err, PT_EINPUT,
                    "%s holds no .safetensors file; give a file, or a directory that "
                    "--save wrote",
                    path);
    o->files = calloc((size_t)n + 1, sizeof(pt_safetensors *));
    for (int i = 0; i < n; i++) {
        char *file = pt_text_format("%s/%s", path, entries[i]->d_name);
        if (status == PT_OK && (!file || !o->files))
            status = pt_fail(err, PT_ENOMEM, "no memory for the files of %s", path);
        if (status == PT_OK)
            status = pt_safetensors_open(file, &o->files[o->n], err);
        if (status == PT_OK)
            o->n++;
        free(file);
        free(entries[i]);
    }
    free(entries);
    return status;
}

static pt_status open_path(const char *path, opened *o, pt_error *err)
{
    struct stat st;
    if (stat(path, &st) != 0)
        return pt_fail(err, PT_EINPUT, "%s: %s; give a safetensors file or a directory of them",
                       path, strerror(errno));
    if (S_ISDIR(st.st_mode))
        return open_dir(path, o, err);
    o->files = calloc(1, sizeof(pt_safetensors *));
    if (!o->files)
        return pt_fail(err, PT_ENOMEM, "no memory for %s", path);
    PT_TRY(pt_safetensors_open(path, &o->files[0], err));
    o->n = 1;
    return PT_OK;
}

/* ret_tensor: NULL when no file has it. Two files that have it are refused: which one is meant? */
static pt_status find(const opened *o, const char *path, const char *name,
                      const pt_st_tensor **ret_tensor, pt_error *err)
{
    const pt_st_tensor *found = NULL;
    for (int i = 0; i < o->n; i++) {
        const pt_st_tensor *t = pt_safetensors_find(o->files[i], name);
        if (t && found)
            return pt_fail(err, PT_EINPUT, "%s: two of its files hold a tensor %s; remove one",
                           path, name);
        found = t ? t : found;
    }
    *ret_tensor = found;
    return PT_OK;
}

pt_status pt_weights_check_shape(const pt_st_tensor *got, const pt_flat_tensor *want,
                                 const char *path, pt_error *err)
{
    bool equal = got->dtype == PT_F32 && got->ndim == want->shape.ndim;
    for (int d = 0; equal && d < got->ndim; d++)
        equal = got->dims[d] == want->shape.dims[d];
    if (equal)
        return PT_OK;
    pt_shape a = {.ndim = got->ndim < PT_MAX_DIMS ? got->ndim : PT_MAX_DIMS};
    pt_shape b = {.ndim = want->shape.ndim};
    for (int d = 0; d < a.ndim; d++)
        a.dims[d] = got->dims[d];
    for (int d = 0; d < b.ndim; d++)
        b.dims[d] = want->shape.dims[d];
    char is[PT_SHAPE_TEXT], wanted[PT_SHAPE_TEXT];
    return pt_fail(err, PT_EINPUT,
                   "%s: tensor %s is %s%s, the model wants f32 %s; these are weights of another "
                   "model, or rename the layer to start it afresh",
                   path, got->name, got->dtype == PT_F32 ? "f32 " : "not f32, ",
                   pt_shape_print(&a, is), pt_shape_print(&b, wanted));
}

/* Takes the name over. */
static pt_status note_missing(pt_load_report *report, char *name, pt_error *err)
{
    char *before = report->missing_names;
    report->missing++;
    report->missing_names = before ? pt_text_format("%s, %s", before, name) : name;
    if (before) {
        free(before);
        free(name);
    }
    return report->missing_names ? PT_OK : pt_fail(err, PT_ENOMEM, "no memory for names");
}

/* One tensor of the model; `name` is taken over. */
static pt_status load_tensor(const opened *o, pt_weights *weights, const tensor_kind *kind, int i,
                             char *name, const char *path, bool all, pt_load_report *report,
                             pt_error *err)
{
    const pt_st_tensor *got = NULL;
    pt_status status = PT_OK;
    if (!name)
        return pt_fail(err, PT_ENOMEM, "no memory for a name");
    PT_GOTO(status, find(o, path, name, &got, err));
    if (!got && !all)
        return note_missing(report, name, err);
    if (!got) {
        status =
            pt_fail(err, PT_EINPUT, "%s has no tensor %s; is it of another model?", path, name);
        goto out;
    }
    PT_GOTO(status, pt_weights_check_shape(got, &kind->tensors[i], path, err));
    PT_GOTO(status, kind->set(weights, i, got->data, err));
    report->loaded++;
out:
    free(name);
    return status;
}

pt_status pt_weights_load(pt_weights *weights, const pt_flat *flat, const pt_graph *graph,
                          const char *path, bool all, pt_load_report *ret_report, pt_error *err)
{
    opened o = {NULL, 0};
    pt_load_report report = {0};
    tensor_kind kinds[KINDS];
    kinds_of(flat, kinds);
    pt_status status = open_path(path, &o, err);
    for (int k = 0; k < KINDS; k++)
        for (int i = 0; status == PT_OK && i < kinds[k].n; i++)
            status = load_tensor(&o, weights, &kinds[k], i,
                                 tensor_name(graph, &kinds[k].tensors[i]), path, all, &report, err);
    close_all(&o);
    if (status == PT_OK)
        *ret_report = report;
    else
        free(report.missing_names);
    return status;
}
