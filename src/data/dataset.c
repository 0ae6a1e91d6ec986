/* The table of datasets, what they share, and the accessors. Each kind of file is read by a file of
 * its own beside this one. */
#include "pipetrain/dataset.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "dataset_internal.h"
#include "pipetrain/text.h"

#define IDX_FILES                                                                                  \
    "name the folder that holds {train,t10k}-{images-idx3,labels-idx1}-ubyte, "                    \
    "plain or .gz, with --data DIR"

/* One line a row; the table and the list of names are both made of it. */
#define ROWS(ROW)                                                                                  \
    ROW("fashion-mnist", "/usr/share/datasets/fashion-mnist",                                      \
        "install Debian's package dataset-fashion-mnist, or " IDX_FILES, pt_idx_open)              \
    ROW("mnist", NULL, IDX_FILES, pt_idx_open)                                                     \
    ROW("idx", NULL, IDX_FILES, pt_idx_open)                                                       \
    ROW("cifar10", NULL,                                                                           \
        "name the folder that holds data_batch_1.bin to data_batch_5.bin and test_batch.bin (the " \
        "binary version's cifar-10-batches-bin) with --data DIR",                                  \
        pt_cifar10_open)                                                                           \
    ROW("cifar100", NULL,                                                                          \
        "name the folder that holds train.bin and test.bin (the binary version's "                 \
        "cifar-100-binary) with --data DIR",                                                       \
        pt_cifar100_open)                                                                          \
    ROW("arrays", NULL,                                                                            \
        "name a safetensors file with tensors x and y, or a folder that holds "                    \
        "train.safetensors and test.safetensors, with --data PATH",                                \
        pt_arrays_open)                                                                            \
    ROW("synthetic", "", "", pt_synthetic_open)

#define AS_ROW(name, path, advice, open)  {name, path, advice, open},
#define AS_NAME(name, path, advice, open) name,

static const pt_dataset_row rows[] = {ROWS(AS_ROW)};
static const char *const names[] = {ROWS(AS_NAME) NULL};

enum { N_ROWS = sizeof rows / sizeof rows[0] };

const char *const *pt_dataset_names(void)
{
    return names;
}

static const pt_dataset_row *find_row(const char *name)
{
    for (int i = 0; i < N_ROWS; i++)
        if (strcmp(rows[i].name, name) == 0)
            return &rows[i];
    return NULL;
}

static pt_status refuse_name(const char *name, pt_error *err)
{
    char list[256];
    pt_text_join(names, N_ROWS, list, sizeof list);
    const char *near = pt_text_nearest(name, names, N_ROWS);
    if (near)
        return pt_fail(err, PT_EINPUT, "unknown dataset '%s': did you mean %s? (%s)", name, near,
                       list);
    return pt_fail(err, PT_EINPUT, "unknown dataset '%s': write one of %s", name, list);
}

static pt_status check_spec(const pt_dataset_spec *spec, pt_error *err)
{
    if (spec->samples < 0)
        return pt_fail(err, PT_EINPUT, "%s: the number of samples is %" PRId64 ": write 1 or more",
                       spec->name, spec->samples);
    if (spec->outputs < 1)
        return pt_fail(err, PT_EINPUT, "%s: the model has %" PRId64 " outputs: it needs at least 1",
                       spec->name, spec->outputs);
    int64_t elements = pt_shape_elements(&spec->shape);
    if (elements < 1 || elements > INT32_MAX)
        return pt_fail(err, PT_EINPUT,
                       "%s: the model's input has %" PRId64 " elements: 1 … %d are possible",
                       spec->name, elements, INT32_MAX);
    return PT_OK;
}

pt_status pt_dataset_open(const pt_dataset_spec *spec, pt_dataset **ret_dataset, pt_error *err)
{
    const char *name = spec->name ? spec->name : "";
    const pt_dataset_row *row = find_row(name);
    if (!row)
        return refuse_name(name, err);
    PT_TRY(check_spec(spec, err));
    const char *path = spec->path && *spec->path ? spec->path : row->path;
    if (!path)
        return pt_fail(err, PT_EINPUT, "%s: where are its files? %s", name, row->advice);
    pt_dataset *dataset = calloc(1, sizeof *dataset);
    if (!dataset)
        return pt_fail(err, PT_ENOMEM, "%s: no memory for a dataset", name);
    dataset->elements = pt_shape_elements(&spec->shape);
    dataset->outputs = spec->outputs;
    pt_status status = row->open(spec, row, path, dataset, err);
    if (status == PT_OK)
        *ret_dataset = dataset;
    else
        pt_dataset_close(dataset);
    return status;
}

pt_status pt_dataset_open_inputs(const char *file, const pt_shape *shape, bool want,
                                 pt_dataset **ret_dataset, pt_error *err)
{
    static const char ending[] = ".safetensors";
    size_t length = strlen(file), tail = sizeof ending - 1;
    bool arrays = length > tail && strcmp(file + length - tail, ending) == 0;
    if (access(file, R_OK) != 0)
        return pt_fail(err, PT_EINPUT,
                       "%s: %s; name a safetensors file with a tensor x, an IDX file of images, or "
                       "the word test",
                       file, strerror(errno));
    pt_dataset_spec spec = {
        .name = file, .path = file, .shape = *shape, .outputs = 1, .want_inputs = want};
    PT_TRY(check_spec(&spec, err));
    pt_dataset *dataset = calloc(1, sizeof *dataset);
    if (!dataset)
        return pt_fail(err, PT_ENOMEM, "%s: no memory for a dataset", file);
    dataset->elements = pt_shape_elements(shape);
    dataset->outputs = 1;
    pt_status status = arrays ? pt_arrays_open_inputs(&spec, file, dataset, err)
                              : pt_idx_open_inputs(&spec, file, dataset, err);
    if (status == PT_OK)
        *ret_dataset = dataset;
    else
        pt_dataset_close(dataset);
    return status;
}

void pt_dataset_close(pt_dataset *dataset)
{
    if (!dataset)
        return;
    free(dataset->owned);
    free(dataset->labels);
    free(dataset->targets);
    pt_safetensors_close(dataset->file);
    pt_synthetic_free(dataset->synthetic);
    free(dataset);
}

/* ---- accessors ------------------------------------------------------------------------------ */

int64_t pt_dataset_count(const pt_dataset *dataset)
{
    return dataset->count;
}

bool pt_dataset_is_bytes(const pt_dataset *dataset)
{
    return dataset->is_bytes;
}

void pt_dataset_input(const pt_dataset *dataset, int64_t i, float *dst)
{
    assert(i >= 0 && i < dataset->count);
    assert(dataset->bytes || dataset->floats || dataset->synthetic);
    size_t elements = (size_t)dataset->elements;
    if (dataset->bytes) {
        const uint8_t *src = dataset->bytes + (size_t)i * elements;
        for (size_t e = 0; e < elements; e++)
            dst[e] = src[e];
    } else if (dataset->floats) {
        memcpy(dst, dataset->floats + (size_t)i * elements, elements * sizeof *dst);
    } else {
        pt_synthetic_input(dataset->synthetic, i, dataset->labels[i], dst);
    }
}

int32_t pt_dataset_label(const pt_dataset *dataset, int64_t i)
{
    assert(i >= 0 && i < dataset->count && dataset->labels);
    return dataset->labels[i];
}

const float *pt_dataset_target(const pt_dataset *dataset, int64_t i)
{
    assert(i >= 0 && i < dataset->count);
    if (dataset->synthetic)
        return pt_synthetic_target(dataset->synthetic, dataset->labels[i]);
    assert(dataset->targets);
    return dataset->targets + i * dataset->outputs;
}

/* ---- shared by the readers ------------------------------------------------------------------ */

pt_status pt_dataset_set_count(pt_dataset *dataset, const pt_dataset_spec *spec, const char *file,
                               int64_t total, pt_error *err)
{
    int64_t count = spec->samples > 0 && spec->samples < total ? spec->samples : total;
    if (count < 1)
        return pt_fail(err, PT_EINPUT, "%s: holds no samples; choose a file that has some", file);
    if (count > UINT32_MAX)
        return pt_fail(err, PT_EINPUT,
                       "%s: %" PRId64 " samples are more than the %" PRIu32
                       " that can be numbered; use fewer",
                       file, count, UINT32_MAX);
    dataset->count = count;
    return PT_OK;
}

pt_status pt_dataset_check_elements(const pt_dataset_spec *spec, const char *file, int64_t elements,
                                    const char *layout, pt_error *err)
{
    int64_t wanted = pt_shape_elements(&spec->shape);
    if (elements == wanted)
        return PT_OK;
    char shape[PT_SHAPE_TEXT];
    return pt_fail(err, PT_EINPUT,
                   "%s: a sample is %s (%" PRId64
                   " elements), but the model's input is %s (%" PRId64
                   "); change the model's `input: {shape: …}` or choose another dataset",
                   file, layout, elements, pt_shape_print(&spec->shape, shape), wanted);
}

pt_status pt_dataset_check_classes(const pt_dataset_spec *spec, pt_error *err)
{
    if (!spec->targets)
        return PT_OK;
    return pt_fail(err, PT_EINPUT,
                   "%s holds classes, but the loss mse compares with vectors; use the loss "
                   "cross-entropy, or the dataset arrays with y (N, F) f32",
                   spec->name);
}

pt_status pt_dataset_store_bytes(pt_dataset *dataset, const pt_dataset_spec *spec, pt_error *err)
{
    if (!spec->want_inputs)
        return PT_OK;
    size_t bytes;
    bool overflows =
        __builtin_mul_overflow((size_t)dataset->count, (size_t)dataset->elements, &bytes);
    dataset->owned = overflows ? NULL : malloc(bytes);
    if (!dataset->owned)
        return pt_fail(err, PT_ENOMEM,
                       "%s: no memory for %" PRId64 " inputs of %" PRId64
                       " bytes; use fewer samples, or a machine with more memory",
                       spec->name, dataset->count, dataset->elements);
    dataset->bytes = dataset->owned;
    return PT_OK;
}

pt_status pt_dataset_store_labels(pt_dataset *dataset, const pt_dataset_spec *spec, pt_error *err)
{
    if (!spec->want_answers)
        return PT_OK;
    dataset->labels = malloc((size_t)dataset->count * sizeof *dataset->labels);
    if (!dataset->labels)
        return pt_fail(err, PT_ENOMEM, "%s: no memory for %" PRId64 " labels", spec->name,
                       dataset->count);
    return PT_OK;
}

pt_status pt_dataset_set_label(pt_dataset *dataset, const char *file, int64_t i, int64_t label,
                               pt_error *err)
{
    if (label < 0 || label >= dataset->outputs)
        return pt_fail(err, PT_EINPUT,
                       "%s: the label of sample %" PRId64 " is %" PRId64
                       ", but the model has outputs for the classes 0 … %" PRId64
                       " only; give its last layer more features or mend the label",
                       file, i, label, dataset->outputs - 1);
    dataset->labels[i] = (int32_t)label;
    return PT_OK;
}
