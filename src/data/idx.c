/* IDX files (MNIST, Fashion-MNIST): a magic number 00 00 08 D (08: unsigned bytes, D dimensions), D
 * big-endian 32-bit lengths, then the bytes. zlib reads them compressed or plain.
 *
 * Nothing is believed before it was checked: magic, lengths against the model, the number of bytes
 * that follow (too few and too many), and that images and labels are equally many. Ranks that need
 * only the count read the two headers and stop. */
#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <zlib.h>

#include "dataset_internal.h"
#include "pipetrain/text.h"

enum {
    IDX_MAX_DIMS = 3,
    READ_BUFFER = 1 << 17,   /* bytes; zlib's own default of 8 KiB costs a system call each */
    CHUNK = 1 << 24,         /* bytes a call: gzread() counts in unsigned int */
    DEFLATE_MAX_RATIO = 1032 /* no deflate stream grows more than this (zlib's documentation) */
};

typedef struct idx_file {
    gzFile gz;
    char *path;
    int64_t size; /* of the file on disk */
    int64_t dims[IDX_MAX_DIMS];
} idx_file;

static void idx_clear(idx_file *file)
{
    if (file->gz)
        gzclose_r(file->gz);
    free(file->path);
}

/* Finds DIR/STEM or DIR/STEM.gz. */
static pt_status find_path(const pt_dataset_row *row, const char *dir, const char *stem,
                           char **ret_path, pt_error *err)
{
    static const char *const endings[] = {"", ".gz"};
    for (int i = 0; i < 2; i++) {
        char *path = pt_text_format("%s/%s%s", dir, stem, endings[i]);
        if (!path)
            return pt_fail(err, PT_ENOMEM, "%s: no memory for a path", row->name);
        if (access(path, F_OK) == 0) {
            *ret_path = path;
            return PT_OK;
        }
        free(path);
    }
    return pt_fail(err, PT_EINPUT, "%s: there is no %s/%s, with or without .gz; %s", row->name, dir,
                   stem, row->advice);
}

/* Reads up to `bytes` bytes; fewer only at the end of the file. */
static pt_status read_some(idx_file *file, void *dst, size_t bytes, size_t *ret_bytes,
                           pt_error *err)
{
    size_t done = 0;
    while (done < bytes) {
        size_t rest = bytes - done;
        int n = gzread(file->gz, (char *)dst + done, (unsigned)(rest < CHUNK ? rest : CHUNK));
        if (n == 0)
            break;
        if (n < 0) {
            int code;
            const char *text = gzerror(file->gz, &code);
            if (code == Z_ERRNO)
                return pt_fail(err, PT_EIO, "%s: cannot read: %s", file->path, strerror(errno));
            return pt_fail(err, PT_EINPUT,
                           "%s: the compressed data is damaged (%s); fetch the file again",
                           file->path, text);
        }
        done += (size_t)n;
    }
    *ret_bytes = done;
    return PT_OK;
}

static pt_status refuse_truncated(const idx_file *file, pt_error *err)
{
    return pt_fail(err, PT_EINPUT,
                   "%s: the file is truncated: it ends before the data that its header announces; "
                   "fetch the file again",
                   file->path);
}

static pt_status read_exactly(idx_file *file, void *dst, size_t bytes, pt_error *err)
{
    size_t done = 0;
    PT_TRY(read_some(file, dst, bytes, &done, err));
    return done == bytes ? PT_OK : refuse_truncated(file, err);
}

static int64_t big_endian(const uint8_t bytes[4])
{
    return (int64_t)bytes[0] << 24 | bytes[1] << 16 | bytes[2] << 8 | bytes[3];
}

static pt_status read_header(idx_file *file, int ndim, pt_error *err)
{
    uint8_t magic[4], length[4];
    PT_TRY(read_exactly(file, magic, sizeof magic, err));
    if (big_endian(magic) != 0x800 + ndim)
        return pt_fail(err, PT_EINPUT,
                       "%s: the magic number is 0x%08" PRIx64
                       ", not 0x%08x: this is no IDX file of unsigned bytes with %d dimension%s",
                       file->path, (uint64_t)big_endian(magic), 0x800U + (unsigned)ndim, ndim,
                       ndim == 1 ? "" : "s");
    for (int i = 0; i < ndim; i++) {
        PT_TRY(read_exactly(file, length, sizeof length, err));
        file->dims[i] = big_endian(length);
    }
    return PT_OK;
}

/* Opens file->path, which is set, and reads its header. */
static pt_status open_path(idx_file *file, int ndim, pt_error *err)
{
    struct stat info;
    if (stat(file->path, &info) != 0)
        return pt_fail(err, PT_EIO, "%s: cannot open: %s", file->path, strerror(errno));
    if (!S_ISREG(info.st_mode)) /* a pipe would be waited for, and has no size to check against */
        return pt_fail(err, PT_EINPUT,
                       "%s: is not a regular file; an IDX file is wanted, plain or .gz",
                       file->path);
    errno = 0; /* gzopen() leaves it alone when memory ran out */
    file->gz = gzopen(file->path, "rb");
    if (!file->gz)
        return pt_fail(err, PT_EIO, "%s: cannot open: %s", file->path,
                       errno ? strerror(errno) : "no memory");
    file->size = info.st_size;
    gzbuffer(file->gz, READ_BUFFER);
    return read_header(file, ndim, err);
}

static pt_status idx_init(idx_file *file, const pt_dataset_spec *spec, const pt_dataset_row *row,
                          const char *dir, const char *kind, int ndim, pt_error *err)
{
    const char *split = spec->split == PT_SPLIT_TRAIN ? "train" : "t10k";
    char stem[64];
    snprintf(stem, sizeof stem, "%s-%s-ubyte", split, kind);
    PT_TRY(find_path(row, dir, stem, &file->path, err));
    return open_path(file, ndim, err);
}

/* Refuses an announced length that no file of this size can hold, before memory is taken for it. Of
 * a plain file gzdirect() knows once something was read. */
static pt_status check_announced(const idx_file *file, int64_t count, int64_t elements,
                                 pt_error *err)
{
    int64_t bytes, most, ratio = gzdirect(file->gz) ? 1 : DEFLATE_MAX_RATIO;
    if (__builtin_mul_overflow(count, elements, &bytes) ||
        (!__builtin_mul_overflow(file->size, ratio, &most) && bytes > most))
        return refuse_truncated(file, err);
    return PT_OK;
}

/* Reads what follows the samples that were taken: `bytes` more, then the end. All of it is read
 * even when only the first samples are wanted, so that the same file always gets the same verdict.
 * Reading to the end also lets zlib compare its checksum. */
static pt_status read_rest(idx_file *file, int64_t bytes, pt_error *err)
{
    uint8_t scratch[4096];
    while (bytes > 0) {
        size_t n = bytes < (int64_t)sizeof scratch ? (size_t)bytes : sizeof scratch;
        PT_TRY(read_exactly(file, scratch, n, err));
        bytes -= (int64_t)n;
    }
    size_t extra = 0;
    PT_TRY(read_some(file, scratch, 1, &extra, err));
    if (extra)
        return pt_fail(err, PT_EINPUT,
                       "%s: data goes on after the %" PRId64
                       " samples that the header announces; fetch the file again",
                       file->path, file->dims[0]);
    int code;
    gzerror(file->gz, &code);
    return code == Z_BUF_ERROR ? refuse_truncated(file, err) : PT_OK;
}

static pt_status read_images(idx_file *file, const pt_dataset_spec *spec, pt_dataset *dataset,
                             pt_error *err)
{
    if (!spec->want_inputs)
        return PT_OK;
    PT_TRY(check_announced(file, file->dims[0], dataset->elements, err));
    PT_TRY(pt_dataset_store_bytes(dataset, spec, err));
    int64_t bytes = dataset->count * dataset->elements;
    PT_TRY(read_exactly(file, dataset->owned, (size_t)bytes, err));
    return read_rest(file, file->dims[0] * dataset->elements - bytes, err);
}

static pt_status read_labels(idx_file *file, const pt_dataset_spec *spec, pt_dataset *dataset,
                             pt_error *err)
{
    if (!spec->want_answers)
        return PT_OK;
    PT_TRY(check_announced(file, file->dims[0], 1, err));
    PT_TRY(pt_dataset_store_labels(dataset, spec, err));
    uint8_t chunk[4096];
    for (int64_t i = 0; i < dataset->count;) {
        int64_t rest = dataset->count - i;
        int64_t n = rest < (int64_t)sizeof chunk ? rest : (int64_t)sizeof chunk;
        PT_TRY(read_exactly(file, chunk, (size_t)n, err));
        for (int64_t k = 0; k < n; k++, i++)
            PT_TRY(pt_dataset_set_label(dataset, file->path, i, chunk[k], err));
    }
    return read_rest(file, file->dims[0] - dataset->count, err);
}

static pt_status check_images(const idx_file *images, const pt_dataset_spec *spec, pt_error *err)
{
    int64_t elements;
    if (__builtin_mul_overflow(images->dims[1], images->dims[2], &elements))
        elements = INT64_MAX;
    char layout[48];
    snprintf(layout, sizeof layout, "%" PRId64 "x%" PRId64, images->dims[1], images->dims[2]);
    return pt_dataset_check_elements(spec, images->path, elements, layout, err);
}

/* What the two headers say must fit the model and each other. */
static pt_status check_headers(const idx_file *images, const idx_file *labels,
                               const pt_dataset_spec *spec, pt_dataset *dataset, pt_error *err)
{
    PT_TRY(check_images(images, spec, err));
    if (images->dims[0] != labels->dims[0])
        return pt_fail(err, PT_EINPUT,
                       "%s holds %" PRId64 " images, but %s holds %" PRId64
                       " labels; these files do not belong together",
                       images->path, images->dims[0], labels->path, labels->dims[0]);
    return pt_dataset_set_count(dataset, spec, images->path, images->dims[0], err);
}

pt_status pt_idx_open(const pt_dataset_spec *spec, const pt_dataset_row *row, const char *path,
                      pt_dataset *dataset, pt_error *err)
{
    PT_TRY(pt_dataset_check_classes(spec, err));
    idx_file images = {0}, labels = {0};
    pt_status status;
    dataset->is_bytes = true;
    PT_GOTO(status, idx_init(&images, spec, row, path, "images-idx3", 3, err));
    PT_GOTO(status, idx_init(&labels, spec, row, path, "labels-idx1", 1, err));
    PT_GOTO(status, check_headers(&images, &labels, spec, dataset, err));
    PT_GOTO(status, read_images(&images, spec, dataset, err));
    PT_GOTO(status, read_labels(&labels, spec, dataset, err));
out:
    idx_clear(&images);
    idx_clear(&labels);
    return status;
}

pt_status pt_idx_open_inputs(const pt_dataset_spec *spec, const char *file, pt_dataset *dataset,
                             pt_error *err)
{
    idx_file images = {.path = strdup(file)};
    pt_status status = images.path ? PT_OK : pt_fail(err, PT_ENOMEM, "%s: no memory", file);
    dataset->is_bytes = true;
    if (status == PT_OK)
        status = open_path(&images, 3, err);
    if (status == PT_OK)
        status = check_images(&images, spec, err);
    if (status == PT_OK)
        status = pt_dataset_set_count(dataset, spec, file, images.dims[0], err);
    if (status == PT_OK)
        status = read_images(&images, spec, dataset, err);
    idx_clear(&images);
    return status;
}
