/* CIFAR-10 and CIFAR-100, binary version: records of one or two label bytes and 3x32x32 bytes (red,
 * green and blue planes, row-major), without any header. Format: the README in the archives,
 * https://www.cs.toronto.edu/~kriz/cifar.html ("Binary version").
 *
 * The length of a file is all that can be checked, so it is: whole records, at least one. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "dataset_internal.h"
#include "pipetrain/text.h"

enum { PIXELS = 3 * 32 * 32, MAX_LABELS = 2, MAX_FILES = 5 };

typedef struct cifar_layout {
    size_t label_bytes;                  /* before the pixels */
    size_t label_at;                     /* which of them is learnt */
    const char *files[2][MAX_FILES + 1]; /* by split; ended by NULL */
} cifar_layout;

static const cifar_layout cifar10 = {1,
                                     0,
                                     {{"data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin",
                                       "data_batch_4.bin", "data_batch_5.bin", NULL},
                                      {"test_batch.bin", NULL}}};
static const cifar_layout cifar100 = {2, 1, {{"train.bin", NULL}, {"test.bin", NULL}}};

/* How many records a file holds. */
static pt_status count_records(const cifar_layout *layout, const pt_dataset_row *row,
                               const char *path, int64_t *ret_records, pt_error *err)
{
    const int64_t record = (int64_t)layout->label_bytes + PIXELS;
    struct stat info;
    if (stat(path, &info) != 0) {
        if (errno == ENOENT || errno == ENOTDIR)
            return pt_fail(err, PT_EINPUT, "%s: there is no %s; %s", row->name, path, row->advice);
        return pt_fail(err, PT_EIO, "%s: %s", path, strerror(errno));
    }
    if (!S_ISREG(info.st_mode))
        return pt_fail(err, PT_EINPUT, "%s: this is not a file; %s", path, row->advice);
    if (info.st_size == 0 || info.st_size % record != 0)
        return pt_fail(err, PT_EINPUT,
                       "%s: %" PRId64 " bytes are not a whole number of records of %" PRId64
                       " bytes: the file is truncated or of another kind; fetch it again",
                       path, (int64_t)info.st_size, record);
    *ret_records = info.st_size / record;
    return PT_OK;
}

/* Reads `records` records as the samples from `first` on. */
static pt_status read_records(const cifar_layout *layout, FILE *stream, const char *path,
                              int64_t first, int64_t records, pt_dataset *dataset, pt_error *err)
{
    uint8_t labels[MAX_LABELS], unwanted[PIXELS];
    for (int64_t i = first; i < first + records; i++) {
        uint8_t *pixels =
            dataset->owned ? (uint8_t *)dataset->owned + (size_t)i * PIXELS : unwanted;
        if (fread(labels, 1, layout->label_bytes, stream) != layout->label_bytes ||
            fread(pixels, 1, PIXELS, stream) != PIXELS)
            return pt_fail(err, PT_EIO, "%s: cannot read sample %" PRId64 ": %s", path, i,
                           ferror(stream) ? strerror(errno) : "the file became shorter");
        if (dataset->labels)
            PT_TRY(pt_dataset_set_label(dataset, path, i, labels[layout->label_at], err));
    }
    return PT_OK;
}

static pt_status read_file(const cifar_layout *layout, const char *path, int64_t first,
                           int64_t records, pt_dataset *dataset, pt_error *err)
{
    FILE *stream = fopen(path, "rb");
    if (!stream)
        return pt_fail(err, PT_EIO, "%s: cannot open: %s", path, strerror(errno));
    pt_status status = read_records(layout, stream, path, first, records, dataset, err);
    fclose(stream);
    return status;
}

static pt_status read_files(const cifar_layout *layout, char *const *paths, const int64_t *records,
                            const pt_dataset_spec *spec, pt_dataset *dataset, pt_error *err)
{
    PT_TRY(pt_dataset_store_bytes(dataset, spec, err));
    PT_TRY(pt_dataset_store_labels(dataset, spec, err));
    if (!dataset->owned && !dataset->labels)
        return PT_OK;
    int64_t first = 0;
    for (int f = 0; paths[f] && first < dataset->count; f++) {
        int64_t rest = dataset->count - first;
        int64_t n = records[f] < rest ? records[f] : rest;
        PT_TRY(read_file(layout, paths[f], first, n, dataset, err));
        first += n;
    }
    return PT_OK;
}

static pt_status cifar_open(const cifar_layout *layout, const pt_dataset_spec *spec,
                            const pt_dataset_row *row, const char *dir, pt_dataset *dataset,
                            pt_error *err)
{
    PT_TRY(pt_dataset_check_classes(spec, err));
    PT_TRY(pt_dataset_check_elements(spec, row->name, PIXELS, "3x32x32", err));
    char *paths[MAX_FILES + 1] = {0};
    int64_t records[MAX_FILES], total = 0;
    const char *const *files = layout->files[spec->split == PT_SPLIT_TRAIN ? 0 : 1];
    pt_status status = PT_OK;
    dataset->is_bytes = true;
    for (int f = 0; files[f]; f++) {
        paths[f] = pt_text_format("%s/%s", dir, files[f]);
        if (!paths[f]) {
            status = pt_fail(err, PT_ENOMEM, "%s: no memory for a path", row->name);
            goto out;
        }
        PT_GOTO(status, count_records(layout, row, paths[f], &records[f], err));
        total += records[f];
    }
    PT_GOTO(status, pt_dataset_set_count(dataset, spec, dir, total, err));
    status = read_files(layout, paths, records, spec, dataset, err);
out:
    for (int f = 0; f < MAX_FILES; f++)
        free(paths[f]);
    return status;
}

pt_status pt_cifar10_open(const pt_dataset_spec *spec, const pt_dataset_row *row, const char *path,
                          pt_dataset *dataset, pt_error *err)
{
    return cifar_open(&cifar10, spec, row, path, dataset, err);
}

pt_status pt_cifar100_open(const pt_dataset_spec *spec, const pt_dataset_row *row, const char *path,
                           pt_dataset *dataset, pt_error *err)
{
    return cifar_open(&cifar100, spec, row, path, dataset, err);
}
