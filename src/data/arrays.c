/* Bring your own data: a safetensors file with x (N, shape…) f32 or u8, and y: (N) i64, i32 or u8
 * classes, or (N, F) f32 targets. Inputs stay in the mapped file, so that all ranks of a machine
 * share its pages; answers are small and are converted on opening. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "dataset_internal.h"
#include "pipetrain/text.h"

/* The file that `path` means: itself, or one of the two in a folder. */
static pt_status find_file(const pt_dataset_spec *spec, const pt_dataset_row *row, const char *path,
                           char **ret_file, pt_error *err)
{
    struct stat info;
    bool folder = stat(path, &info) == 0 && S_ISDIR(info.st_mode);
    const char *split = spec->split == PT_SPLIT_TRAIN ? "train" : "test";
    char *file =
        folder ? pt_text_format("%s/%s.safetensors", path, split) : pt_text_format("%s", path);
    if (!file)
        return pt_fail(err, PT_ENOMEM, "%s: no memory for a path", row->name);
    if (stat(file, &info) != 0) {
        pt_fail(err, PT_EINPUT, "%s: there is no %s; %s", row->name, file, row->advice);
        free(file);
        return PT_EINPUT;
    }
    *ret_file = file;
    return PT_OK;
}

static pt_status need_tensor(const pt_dataset *dataset, const char *file, const char *name,
                             const char *meaning, const pt_st_tensor **ret_tensor, pt_error *err)
{
    const pt_st_tensor *tensor = pt_safetensors_find(dataset->file, name);
    if (!tensor || tensor->ndim < 1)
        return pt_fail(err, PT_EINPUT, "%s: %s; store %s as %s, its first dimension the samples",
                       file, tensor ? "a tensor is a single number" : "a tensor is missing",
                       meaning, name);
    *ret_tensor = tensor;
    return PT_OK;
}

/* Elements of one sample: the product of all dimensions but the first. The file was checked, so
 * that it cannot overflow unless there are no samples at all, which is refused elsewhere. */
static int64_t sample_elements(const pt_st_tensor *tensor)
{
    int64_t elements = 1;
    for (int d = 1; d < tensor->ndim; d++)
        if (__builtin_mul_overflow(elements, tensor->dims[d], &elements))
            return INT64_MAX;
    return elements;
}

/* Writes a sample's shape as "3x32x32", "1" for a single number. */
static const char *sample_layout(const pt_st_tensor *tensor, char text[200])
{
    strcpy(text, tensor->ndim > 1 ? "" : "1");
    for (int d = 1; d < tensor->ndim; d++) {
        size_t used = strlen(text);
        snprintf(text + used, 200 - used, "%s%" PRId64, d > 1 ? "x" : "", tensor->dims[d]);
    }
    return text;
}

static pt_status check_inputs(const pt_st_tensor *x, const char *file, const pt_dataset_spec *spec,
                              pt_error *err)
{
    if (x->dtype != PT_F32 && x->dtype != PT_U8)
        return pt_fail(err, PT_EINPUT, "%s: x holds integers; store inputs as f32 or u8", file);
    char text[200];
    return pt_dataset_check_elements(spec, file, sample_elements(x), sample_layout(x, text), err);
}

static pt_status check_answers(const pt_st_tensor *y, const char *file, const pt_dataset_spec *spec,
                               pt_error *err)
{
    char text[200];
    int64_t elements = sample_elements(y);
    if (spec->targets != (y->dtype == PT_F32))
        return pt_fail(err, PT_EINPUT, "%s: y holds %s; %s", file,
                       spec->targets ? "classes, but the loss mse compares with vectors"
                                     : "floats, but the loss cross-entropy needs classes",
                       spec->targets ? "store y as (N, F) f32 or use the loss cross-entropy"
                                     : "store y as (N) i64, i32 or u8, or use the loss mse");
    int64_t wanted = spec->targets ? spec->outputs : 1;
    if (elements != wanted)
        return pt_fail(
            err, PT_EINPUT, "%s: an answer in y is %s, but the model needs %" PRId64 " number%s%s",
            file, sample_layout(y, text), wanted, wanted == 1 ? "" : "s",
            spec->targets ? " (the features of its last layer)" : ": the index of the class");
    return PT_OK;
}

/* Index of the first float that is infinite or not a number, or -1. */
static int64_t first_strange(const float *floats, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        if (!isfinite(floats[i]))
            return i;
    return -1;
}

static pt_status check_finite(const char *file, const char *name, const float *floats,
                              int64_t samples, int64_t elements, pt_error *err)
{
    int64_t at = first_strange(floats, samples * elements);
    if (at < 0)
        return PT_OK;
    return pt_fail(err, PT_EINPUT,
                   "%s: %s of sample %" PRId64 " holds a value that is infinite or not a number "
                   "(element %" PRId64 "); replace it",
                   file, name, at / elements, at % elements);
}

static pt_status take_inputs(pt_dataset *dataset, const pt_st_tensor *x, const char *file,
                             pt_error *err)
{
    if (x->dtype == PT_U8) {
        dataset->bytes = x->data;
        return PT_OK;
    }
    dataset->floats = x->data;
    return check_finite(file, "x", x->data, dataset->count, dataset->elements, err);
}

static int64_t class_at(const pt_st_tensor *y, int64_t i)
{
    switch (y->dtype) {
    case PT_I64:
        return ((const int64_t *)y->data)[i];
    case PT_I32:
        return ((const int32_t *)y->data)[i];
    default:
        return ((const uint8_t *)y->data)[i];
    }
}

static pt_status take_classes(pt_dataset *dataset, const pt_dataset_spec *spec,
                              const pt_st_tensor *y, const char *file, pt_error *err)
{
    PT_TRY(pt_dataset_store_labels(dataset, spec, err));
    for (int64_t i = 0; i < dataset->count; i++)
        PT_TRY(pt_dataset_set_label(dataset, file, i, class_at(y, i), err));
    return PT_OK;
}

static pt_status take_targets(pt_dataset *dataset, const pt_st_tensor *y, const char *file,
                              pt_error *err)
{
    size_t bytes = (size_t)dataset->count * (size_t)dataset->outputs * sizeof(float);
    PT_TRY(check_finite(file, "y", y->data, dataset->count, dataset->outputs, err));
    dataset->targets = malloc(bytes);
    if (!dataset->targets)
        return pt_fail(err, PT_ENOMEM, "%s: no memory for %zu bytes of targets", file, bytes);
    memcpy(dataset->targets, y->data, bytes);
    return PT_OK;
}

static pt_status open_file(const pt_dataset_spec *spec, const char *file, pt_dataset *dataset,
                           pt_error *err)
{
    const pt_st_tensor *x = NULL, *y = NULL;
    PT_TRY(pt_safetensors_open(file, &dataset->file, err));
    PT_TRY(need_tensor(dataset, file, "x", "the inputs", &x, err));
    PT_TRY(need_tensor(dataset, file, "y", "the answers", &y, err));
    PT_TRY(pt_dataset_set_count(dataset, spec, file, x->dims[0], err));
    PT_TRY(check_inputs(x, file, spec, err));
    PT_TRY(check_answers(y, file, spec, err));
    if (x->dims[0] != y->dims[0])
        return pt_fail(err, PT_EINPUT,
                       "%s: x holds %" PRId64 " samples, but y holds %" PRId64
                       " answers; give every sample one answer",
                       file, x->dims[0], y->dims[0]);
    dataset->is_bytes = x->dtype == PT_U8;
    if (spec->want_inputs)
        PT_TRY(take_inputs(dataset, x, file, err));
    if (spec->want_answers)
        PT_TRY(spec->targets ? take_targets(dataset, y, file, err)
                             : take_classes(dataset, spec, y, file, err));
    return PT_OK;
}

pt_status pt_arrays_open_inputs(const pt_dataset_spec *spec, const char *file, pt_dataset *dataset,
                                pt_error *err)
{
    const pt_st_tensor *x = NULL;
    PT_TRY(pt_safetensors_open(file, &dataset->file, err));
    PT_TRY(need_tensor(dataset, file, "x", "the inputs", &x, err));
    PT_TRY(pt_dataset_set_count(dataset, spec, file, x->dims[0], err));
    PT_TRY(check_inputs(x, file, spec, err));
    dataset->is_bytes = x->dtype == PT_U8;
    return spec->want_inputs ? take_inputs(dataset, x, file, err) : PT_OK;
}

pt_status pt_arrays_open(const pt_dataset_spec *spec, const pt_dataset_row *row, const char *path,
                         pt_dataset *dataset, pt_error *err)
{
    char *file = NULL;
    PT_TRY(find_file(spec, row, path, &file, err));
    pt_status status = open_file(spec, file, dataset, err);
    free(file);
    return status;
}
