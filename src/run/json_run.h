/* Pieces of JSON that the log and the summary share. Private to src/run. */
#ifndef PIPETRAIN_RUN_JSON_RUN_H
#define PIPETRAIN_RUN_JSON_RUN_H

#include <jansson.h>

#include "pipetrain/run.h"

/* Every option that says how to train, by name. */
json_t *pt_json_settings(const pt_run *run);

/* A number, or null for what JSON cannot say (infinite, or not a number). */
json_t *pt_json_number(double value);
/* sum / n; null where there was nothing to add. */
json_t *pt_json_mean(double sum, int64_t n);
/* The number of a rank's host; null without --checkpoint, which counts them. Rank 0. */
json_t *pt_json_host(const pt_run *run, int rank);

#endif
