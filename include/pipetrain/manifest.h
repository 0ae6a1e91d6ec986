/* manifest.json: what makes a folder of files a step. A JSON object that says what the step is of
 * (whoever trains decides what), and which files it has:
 *
 *   format    PT_MANIFEST_FORMAT
 *   launch    the number of the run that wrote it
 *   files     name, bytes, crc32 of each
 *   crc32     of the rest, as compact JSON with sorted keys
 */
#ifndef PIPETRAIN_MANIFEST_H
#define PIPETRAIN_MANIFEST_H

#include <stddef.h>
#include <stdint.h>

#include <jansson.h>

#include "pipetrain/status.h"
#include "pipetrain/store.h"

#define PT_MANIFEST "manifest.json"
enum { PT_MANIFEST_FORMAT = 1 };

/* The text with its checksum; free() it. */
pt_status pt_manifest_print(json_t *manifest, char **ret_text, pt_error *err);
/* json_decref the manifest. PT_EINPUT: no manifest, or not what was written. */
pt_status pt_manifest_parse(const char *text, size_t bytes, json_t **ret_manifest, pt_error *err);

/* A number of something. PT_EINPUT: the object has none by that name, or one that cannot be. */
pt_status pt_manifest_count(const json_t *object, const char *name, int64_t *ret_count,
                            pt_error *err);

/* Its list of files, and what is in it: the i-th one's name is the manifest's. PT_EINPUT: that is
 * no file that could lie in the step's folder, with a length and a checksum. */
pt_status pt_manifest_set_files(json_t *manifest, const pt_store_file *files, int n, pt_error *err);
size_t pt_manifest_n_files(const json_t *manifest);
pt_status pt_manifest_file(const json_t *manifest, size_t i, pt_store_file *ret_file,
                           pt_error *err);

#endif
