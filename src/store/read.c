/* Looking at every byte of a step. */
#include "pipetrain/store.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <zlib.h>

#include "pipetrain/manifest.h"
#include "pipetrain/text.h"

enum { CHUNK = 1 << 18 }; /* bytes read at a time */

uint32_t pt_store_checksum(uint32_t crc, const void *data, size_t bytes)
{
    return (uint32_t)crc32_z(crc, data, bytes);
}

/* Of `most` bytes and no more: what is longer is another file, and some have no end. */
static pt_status sum_up(int fd, uint64_t most, uint64_t *ret_bytes, uint32_t *ret_crc,
                        pt_error *err)
{
    uint64_t bytes = 0;
    uint32_t crc = 0;
    ssize_t got = 0;
    char *chunk = malloc(CHUNK);
    if (!chunk)
        return pt_fail(err, PT_ENOMEM, "no memory to read a checkpoint");
    while (bytes <= most && ((got = read(fd, chunk, CHUNK)) > 0 || (got < 0 && errno == EINTR))) {
        if (got < 0)
            continue;
        crc = pt_store_checksum(crc, chunk, (size_t)got);
        bytes += (uint64_t)got;
    }
    int reason = errno;
    free(chunk);
    if (got < 0)
        return pt_fail(err, PT_EINPUT, "cannot be read: %s", strerror(reason));
    *ret_bytes = bytes;
    *ret_crc = crc;
    return PT_OK;
}

static pt_status check_file(const char *path, uint64_t bytes, uint32_t crc, pt_error *err)
{
    uint64_t found = 0;
    uint32_t sum = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return pt_fail(err, PT_EINPUT, "%s: cannot be opened: %s", path, strerror(errno));
    pt_status status = sum_up(fd, bytes, &found, &sum, err);
    close(fd);
    if (status == PT_OK && found != bytes)
        status = pt_fail(err, PT_EINPUT, "holds %s%" PRIu64 " bytes, %" PRIu64 " were written",
                         found > bytes ? "at least " : "", found, bytes);
    if (status == PT_OK && sum != crc)
        status = pt_fail(
            err, PT_EINPUT,
            "its bytes have the checksum %08" PRIx32 ", %08" PRIx32 " was written down", sum, crc);
    return status == PT_OK ? PT_OK : pt_fail_within(err, "%s", path);
}

static pt_status check_files(const char *dir, int64_t step, const json_t *manifest, pt_error *err)
{
    for (size_t i = 0; i < pt_manifest_n_files(manifest); i++) {
        pt_store_file file;
        PT_TRY(pt_manifest_file(manifest, i, &file, err));
        char *path = pt_store_path(dir, step, file.name);
        if (!path)
            return pt_fail(err, PT_ENOMEM, "no memory for a path");
        pt_status status = check_file(path, file.bytes, file.crc, err);
        free(path);
        PT_TRY(status);
    }
    return PT_OK;
}

pt_status pt_store_read(const char *dir, int64_t step, json_t **ret_manifest, pt_error *err)
{
    char *path = pt_store_path(dir, step, PT_MANIFEST), *text = NULL;
    size_t bytes = 0;
    json_t *manifest = NULL;
    if (!path)
        return pt_fail(err, PT_ENOMEM, "no memory for a path");
    pt_status status = pt_text_read_file(path, &text, &bytes, err);
    if (status == PT_OK) {
        status = pt_manifest_parse(text, bytes, &manifest, err);
        if (status != PT_OK)
            pt_fail_within(err, "%s", path);
    }
    if (status == PT_OK)
        status = check_files(dir, step, manifest, err);
    free(text);
    free(path);
    if (status == PT_OK)
        *ret_manifest = manifest;
    else
        json_decref(manifest);
    return status;
}
