/* --clock and --clock-out: what stages take, as a file. Private to src/run.
 *
 *   stage,forward_us,backward_input_us,backward_weight_us,update_us
 *   0,30000,35000,35000,200
 *   *,20000,25000,25000,0          every stage without a row of its own
 *
 * With several chunks on each rank a stage here is a block of layers, chunk c of rank r being stage
 * c·P + r. µs of a whole micro-batch; update_us is of one optimizer step. Empty lines, and lines
 * that begin with #, are passed over. */
#ifndef PIPETRAIN_RUN_CLOCK_TIMES_H
#define PIPETRAIN_RUN_CLOCK_TIMES_H

#include "pipetrain/run.h"
#include "reporter.h"

/* Times of all stages; costs has `stages` entries of the caller. PT_EINPUT names line and column.
 */
pt_status pt_clock_parse(const char *name, const char *text, size_t bytes, int stages,
                         pt_stage_cost *costs, pt_error *err);

/* Hands the times of a stage to its layers: those whose calls are sure to come bear them. A time
 * for which the stage has no call at all is PT_EINPUT. `layers` has one entry per layer of the
 * graph. */
pt_status pt_clock_spread(const pt_graph *graph, const pt_stage_spec *spec,
                          const pt_stage_cost *cost, pt_call_times *layers, pt_error *err);

/* Reads --clock and sets run->clock_costs and run->clock_layers. */
pt_status pt_clock_read(pt_run *run, pt_error *err);
/* --clock-out, if it was asked for: the costs of all blocks, which are the file's stages. */
pt_status pt_clock_write(const pt_run *run, const pt_stage_cost *costs, pt_error *err);

#endif
