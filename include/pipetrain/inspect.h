/* --check and --check-gradients: looking before running. */
#ifndef PIPETRAIN_INSPECT_H
#define PIPETRAIN_INSPECT_H

#include <stdio.h>

#include "pipetrain/partition.h"
#include "pipetrain/settings.h"
#include "pipetrain/status.h"

/* Prints the stages, the schedule's grid and, per rank, memory, staleness and predicted times.
 * Builds every stage in this process, one after the other, and times its kernels. */
pt_status pt_check(const pt_config *config, const pt_partition *partition, int stages, FILE *out,
                   pt_error *err);

/* Compares gradients of the whole model with central differences of the loss, layer by layer, on a
 * seeded micro-batch in double-summed fp32; prints a table. PT_EINTERNAL when a layer is off by
 * more than the bound that the table states. */
pt_status pt_check_gradients(const pt_config *config, const pt_partition *partition, FILE *out,
                             pt_error *err);

#endif
