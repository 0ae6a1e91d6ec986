/* What a run writes into a step's manifest: what it is of, and where the run stood.
 *
 *   program                          who wrote it …
 *   hosts                            … and where: number, name, ranks of each host of that launch
 *   step, epoch, epoch_step          updates done; and that as a position: the next step to do
 *   sums                             of the epoch so far
 *   best_accuracy, …_validation_…    of the run: on the test set, and on what is held out
 *   best                             step, accuracy, loss of the step that `best` names, or null
 *   ranks, cuts, settings            how it was trained
 *   layers, tensors                  what of; a run that goes on must have the same
 *   samples, validation_samples      to learn, and held out; likewise
 *
 * The sampler and all random numbers are functions of the seed and the position. Private to
 * src/run.
 */
#ifndef PIPETRAIN_RUN_CHECKPOINT_MANIFEST_H
#define PIPETRAIN_RUN_CHECKPOINT_MANIFEST_H

#include <jansson.h>

#include "pipetrain/manifest.h"
#include "pipetrain/run.h"

/* Everything that does not change while the run goes on. NULL when memory ran out. */
json_t *pt_manifest_new(const pt_run *run);
/* Which ranks are on which of the hosts; PT_ENOMEM. */
pt_status pt_manifest_set_hosts(json_t *manifest, const pt_run *run, const pt_store_hosts *hosts,
                                pt_error *err);
/* Where it stands, as pt_manifest_get finds it again; of the sums, loss and counts. */
pt_status pt_manifest_set(json_t *manifest, const pt_run *run, const pt_resumed *stand,
                          pt_error *err);

/* PT_EINPUT names both sides where the run is not the same one. Says what else has changed. */
pt_status pt_manifest_fits(const json_t *manifest, const pt_run *run, pt_error *err);
pt_status pt_manifest_get(const json_t *manifest, pt_resumed *ret_resumed, pt_error *err);

#endif
