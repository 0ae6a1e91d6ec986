/* Sealing and opening manifests. What a run writes into them is its own business. */
#include "pipetrain/manifest.h"

#include <stdlib.h>
#include <string.h>

#include "internal.h"

enum { DIGITS = 17 /* that a double needs to come back as it was */ };

static const char CHECKSUM[] = "crc32";

/* Of everything but the checksum itself, and however the text is laid out. */
static pt_status seal_of(json_t *manifest, uint32_t *ret_crc, pt_error *err)
{
    json_object_del(manifest, CHECKSUM);
    char *text = json_dumps(manifest, JSON_COMPACT | JSON_SORT_KEYS | JSON_REAL_PRECISION(DIGITS));
    if (!text)
        return pt_fail(err, PT_ENOMEM, "no memory for the manifest");
    *ret_crc = pt_store_checksum(0, text, strlen(text));
    free(text);
    return PT_OK;
}

pt_status pt_manifest_print(json_t *manifest, char **ret_text, pt_error *err)
{
    uint32_t crc = 0;
    PT_TRY(seal_of(manifest, &crc, err));
    json_object_set_new(manifest, CHECKSUM, json_integer((json_int_t)crc));
    *ret_text = json_dumps(manifest, JSON_INDENT(1) | JSON_REAL_PRECISION(DIGITS));
    return *ret_text ? PT_OK : pt_fail(err, PT_ENOMEM, "no memory for the manifest");
}

static pt_status check_seal(json_t *manifest, pt_error *err)
{
    json_t *value = json_object_get(manifest, CHECKSUM);
    json_int_t was = json_integer_value(value);
    bool there = json_is_integer(value);
    uint32_t crc = 0;
    PT_TRY(seal_of(manifest, &crc, err));
    if (!there || was != (json_int_t)crc)
        return pt_fail(err, PT_EINPUT, "it is not what was written: its checksum is another");
    json_int_t format = json_integer_value(json_object_get(manifest, "format"));
    if (format != PT_MANIFEST_FORMAT)
        return pt_fail(err, PT_EINPUT, "it has the format %lld, and this program reads %d",
                       (long long)format, PT_MANIFEST_FORMAT);
    return PT_OK;
}

pt_status pt_manifest_parse(const char *text, size_t bytes, json_t **ret_manifest, pt_error *err)
{
    json_error_t where;
    json_t *manifest = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, &where);
    pt_status status = PT_OK;
    if (!manifest)
        status =
            pt_fail(err, PT_EINPUT, "it is no manifest, or not all of one (line %d)", where.line);
    else if (!json_is_object(manifest))
        status = pt_fail(err, PT_EINPUT, "it is no manifest: it holds no object");
    else
        status = check_seal(manifest, err);
    if (status == PT_OK)
        *ret_manifest = manifest;
    else
        json_decref(manifest);
    return status;
}

pt_status pt_manifest_count(const json_t *object, const char *name, int64_t *ret_count,
                            pt_error *err)
{
    json_t *value = json_object_get(object, name);
    if (!json_is_integer(value) || json_integer_value(value) < 0 ||
        json_integer_value(value) > PT_STORE_MOST)
        return pt_fail(err, PT_EINPUT, "the manifest has no \"%s\", or not from 0 to %lld", name,
                       (long long)PT_STORE_MOST);
    *ret_count = json_integer_value(value);
    return PT_OK;
}

pt_status pt_manifest_set_files(json_t *m, const pt_store_file *files, int n, pt_error *err)
{
    json_t *list = json_array();
    for (int i = 0; i < n; i++)
        json_array_append_new(list, json_pack("{s:s, s:I, s:I}", "name", files[i].name, "bytes",
                                              (json_int_t)files[i].bytes, CHECKSUM,
                                              (json_int_t)files[i].crc));
    json_object_set_new(m, "files", list);
    return json_array_size(list) == (size_t)n
               ? PT_OK
               : pt_fail(err, PT_ENOMEM, "no memory for the manifest");
}

size_t pt_manifest_n_files(const json_t *m)
{
    return json_array_size(json_object_get(m, "files"));
}

static bool is_plain_name(const char *name)
{
    return *name && !strchr(name, '/') && strcmp(name, ".") != 0 && strcmp(name, "..") != 0;
}

pt_status pt_manifest_file(const json_t *m, size_t i, pt_store_file *ret_file, pt_error *err)
{
    const json_t *file = json_array_get(json_object_get(m, "files"), i);
    const char *name = json_string_value(json_object_get(file, "name"));
    int64_t bytes = 0, crc = 0;
    PT_TRY(pt_manifest_count(file, "bytes", &bytes, err));
    PT_TRY(pt_manifest_count(file, CHECKSUM, &crc, err));
    if (!name || !is_plain_name(name) || crc > UINT32_MAX)
        return pt_fail(err, PT_EINPUT, "file %zu of its list is none of a step", i);
    *ret_file = (pt_store_file){name, (uint64_t)bytes, (uint32_t)crc};
    return PT_OK;
}
