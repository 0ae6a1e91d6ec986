/* The directory of checkpoints.
 *
 *   DIR/step-000050/layer-000-conv1.safetensors …   every rank writes those of its own layers
 *       step-000050/manifest.json                   written last: with it the step is there
 *       latest                                      "step-000050": the newest that is
 *       best                                        likewise, the best one: --keep-best
 *       launch                                      how many runs have written here
 *       hosts.json                                  where they ran
 *
 * A step without a manifest is half-written, and nobody's. A step is good when the manifest and
 * every file that it names have the length and the checksum that were written down. Whatever fails,
 * and wherever a process ends, `latest` names a step that is good. */
#ifndef PIPETRAIN_STORE_H
#define PIPETRAIN_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <jansson.h>

#include "pipetrain/status.h"

/* CRC-32, that of zlib: finds every burst of up to 32 bits, and overlooks one in 4 · 10^9 of other
 * damages. `crc` is 0 at first, or what the bytes before have. */
uint32_t pt_store_checksum(uint32_t crc, const void *data, size_t bytes);

/* A file of a step, as it is named in the manifest. */
typedef struct pt_store_file {
    const char *name;
    uint64_t bytes;
    uint32_t crc;
} pt_store_file;

/* "DIR/step-000050", or the path of a file in it; free() it. NULL when memory ran out. */
char *pt_store_path(const char *dir, int64_t step, const char *file);

/* The folders of steps, good or not, the newest first. free() the list. A missing directory has
 * none. PT_EINPUT: it cannot be read. */
pt_status pt_store_list(const char *dir, int64_t **ret_steps, int *ret_n, pt_error *err);
bool pt_store_is_committed(const char *dir, int64_t step); /* it has a manifest, good or not */
/* Looks at every byte. PT_EINPUT: what is wrong with the step. json_decref the manifest. */
pt_status pt_store_read(const char *dir, int64_t step, json_t **ret_manifest, pt_error *err);

/* Writes one file of a step, whose folder is made. The folder must be synced behind the last one,
 * by pt_store_sync. */
pt_status pt_store_write(const char *dir, int64_t step, const char *name, const void *data,
                         size_t bytes, pt_error *err);
pt_status pt_store_sync(const char *dir, int64_t step, pt_error *err);

/* Makes the step be there: adds the list of files to the manifest, writes it, and has `latest` name
 * the step. *ret_committed: the step is there, even if something behind that failed; if not, what
 * there was of it is taken away. PT_EIO also where a file is not there, which is so when ranks see
 * different directories. */
pt_status pt_store_commit(const char *dir, int64_t step, json_t *manifest,
                          const pt_store_file *files, int n, bool *ret_committed, pt_error *err);

/* Files that name a step. */
#define PT_STORE_LATEST "latest"
#define PT_STORE_BEST   "best"
pt_status pt_store_point(const char *dir, const char *name, int64_t step, pt_error *err);
/* *ret_step: -1 where there is no such file. PT_EIO: it cannot be read, or names no step. */
pt_status pt_store_named(const char *dir, const char *name, int64_t *ret_step, pt_error *err);

/* Which steps a thread is at; the one of --upload has them (upload.h). */
typedef struct pt_claims pt_claims;
/* Of the committed steps up to `newest` the `keep` newest stay (0: all), what `best` names, and
 * what is being uploaded. `claims` may be NULL. */
pt_status pt_store_prune(const char *dir, int64_t newest, int keep, pt_claims *claims,
                         pt_error *err);

/* Takes a step away, the manifest first. */
pt_status pt_store_remove(const char *dir, int64_t step, pt_error *err);

/* Readies a directory, which is made, for a run that goes on from `step` of it; -1: from no step of
 * it, and then it may have none that is committed (PT_EINPUT). What is newer than `step` is not
 * good: half-written steps go, others get a name that is no step's. Where `best` names what is
 * gone or put aside, it names the step `best` then, or is taken away (0). *ret_launch: the number
 * of a launch before, and then that of this one, which is greater, also than any that left no step
 * behind. */
pt_status pt_store_open(const char *dir, int64_t step, int64_t best, int64_t *ret_launch,
                        pt_error *err);
/* How many there were: as the file says, or more where a host remembers more. */
int64_t pt_store_launches(const char *dir);

/* A host that trains here, or has. It keeps its number, and no other host ever gets it. */
typedef struct pt_store_host {
    int64_t number; /* from 1, in the order in which they came */
    char *name;
    int64_t first_launch, last_launch; /* that it took part in */
} pt_store_host;

/* In the order of their numbers. Zero-initialise. */
typedef struct pt_store_hosts {
    pt_store_host *list;
    int n;
} pt_store_hosts;

/* PT_EINPUT: it is no list of hosts. */
pt_status pt_store_parse_hosts(const char *text, size_t bytes, pt_store_hosts *ret_hosts,
                               pt_error *err);
/* Likewise, of a directory's file; a missing one has none. */
pt_status pt_store_read_hosts(const char *dir, pt_store_hosts *ret_hosts, pt_error *err);
/* Those that bear these names take part in a launch, a name as often as there are ranks: new ones
 * get the next numbers. *hosts: all that were known. Writes the file. */
pt_status pt_store_join_hosts(const char *dir, int64_t launch, const char *const *names, int n,
                              pt_store_hosts *hosts, pt_error *err);
/* NULL: not known. */
const pt_store_host *pt_store_find_host(const pt_store_hosts *hosts, const char *name);
void pt_store_clear_hosts(pt_store_hosts *hosts);

#endif
