/* manifest.json: what a checkpoint is of, and where its run stood.
 *
 *   format, program, launch          who wrote it
 *   step, epoch, epoch_step          updates done; and that as a position: the next step to do
 *   sums                             of the epoch so far
 *   best_accuracy, …_validation_…    of the run: on the test set, and on what is held out
 *   best                             step, accuracy, loss of the step that `best` names, or null
 *   ranks, cuts, settings            how it was trained
 *   layers, tensors                  what of; a run that goes on must have the same
 *   samples, validation_samples      to learn, and held out; likewise
 *   files                            name, bytes, crc32 of each
 *   crc32                            of the rest, as compact JSON with sorted keys
 *
 * The sampler and all random numbers are functions of the seed and the position. Private to
 * src/run.
 */
#ifndef PIPETRAIN_RUN_CHECKPOINT_MANIFEST_H
#define PIPETRAIN_RUN_CHECKPOINT_MANIFEST_H

#include <jansson.h>

#include "checkpoint_store.h"
#include "pipetrain/run.h"

#define PT_MANIFEST "manifest.json"

/* Everything that does not change while the run goes on. NULL when memory ran out. */
json_t *pt_manifest_new(const pt_run *run);
/* Where it stands, as pt_manifest_get finds it again; of the sums, loss and counts. */
pt_status pt_manifest_set(json_t *manifest, const pt_run *run, const pt_resumed *stand,
                          pt_error *err);

/* The text with its checksum; free() it. */
pt_status pt_manifest_print(json_t *manifest, char **ret_text, pt_error *err);
/* PT_EINPUT: no manifest, or not what was written. */
pt_status pt_manifest_parse(const char *text, size_t bytes, json_t **ret_manifest, pt_error *err);

/* The i-th of the files of its step; its name is the manifest's. PT_EINPUT: it is no file that
 * could lie in the step's folder, with a length and a checksum. */
size_t pt_manifest_n_files(const json_t *manifest);
pt_status pt_manifest_file(const json_t *manifest, size_t i, pt_store_file *ret_file,
                           pt_error *err);

/* PT_EINPUT names both sides where the run is not the same one. Says what else has changed. */
pt_status pt_manifest_fits(const json_t *manifest, const pt_run *run, pt_error *err);
pt_status pt_manifest_get(const json_t *manifest, pt_resumed *ret_resumed, pt_error *err);

#endif
