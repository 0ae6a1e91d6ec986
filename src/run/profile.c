/* What a stage costs, measured on the machine it will run on: a few micro-batches of zeros before
 * training begins. The simulator turns the costs of all stages into a predicted time, which stands
 * beside the measured one in every run. */
#include <stdlib.h>

#include "pipetrain/clock.h"
#include "reporter.h"

enum { PROFILE_RUNS = 3 }; /* the first warms up; the fastest of the rest counts */
static const int64_t PROFILE_NS = 500000000; /* but no more runs once this much time has gone */

/* The stage's input, from nowhere: zeros. */
static pt_status arrive(pt_run *run, pt_micro_batch *mb, pt_error *err)
{
    size_t elements = (size_t)mb->samples * (size_t)pt_shape_elements(&run->partition->graph.input);
    size_t bytes = pt_stage_message_bytes(run->stage, /*behind=*/false);
    size_t room = elements * sizeof(float) > bytes ? elements * sizeof(float) : bytes;
    void *zeros = calloc(1, room + 1);
    if (!zeros)
        return pt_fail(err, PT_ENOMEM, "no memory for a profile");
    pt_status status = run->rank == 0 ? pt_stage_load(run->stage, mb, zeros, err)
                                      : pt_stage_unpack_activations(run->stage, mb, zeros, err);
    free(zeros);
    return status;
}

static pt_status run_once(pt_run *run, pt_micro_batch *mb, pt_stage_cost *ret_cost, pt_error *err)
{
    int64_t t0 = pt_clock_ns();
    PT_TRY(pt_stage_forward(run->stage, mb, /*staleness=*/0, NULL, err));
    int64_t t1 = pt_clock_ns();
    PT_TRY(pt_stage_backward_input(run->stage, mb, /*accumulate=*/false, NULL, err));
    int64_t t2 = pt_clock_ns();
    PT_TRY(pt_stage_backward_weight(run->stage, mb, /*accumulate=*/false, NULL, err));
    int64_t t3 = pt_clock_ns();
    ret_cost->forward = (double)(t1 - t0) / 1e3;
    ret_cost->backward_input = (double)(t2 - t1) / 1e3;
    ret_cost->backward_weight = (double)(t3 - t2) / 1e3;
    return PT_OK;
}

static double total(const pt_stage_cost *cost)
{
    return cost->forward + cost->backward_input + cost->backward_weight;
}

pt_status pt_profile_stage(pt_run *run, pt_stage_cost *ret_cost, pt_error *err)
{
    int64_t sizes[4];
    pt_epoch_sizes(&run->epoch_plan, sizes);
    int64_t start = pt_clock_ns();
    pt_stage_cost best = {0};
    uint32_t *sample = calloc((size_t)sizes[0], sizeof *sample);
    if (!sample)
        return pt_fail(err, PT_ENOMEM, "no memory for a profile");
    pt_status status = PT_OK;
    for (int i = 0; status == PT_OK && i < PROFILE_RUNS; i++) {
        pt_micro_batch mb;
        pt_stage_cost cost = {0};
        PT_GOTO(status,
                pt_stage_begin(run->stage, PT_TRAIN, /*epoch=*/0, sample, sizes[0], &mb, err));
        PT_GOTO(status, arrive(run, &mb, err));
        PT_GOTO(status, run_once(run, &mb, &cost, err));
        pt_stage_end(run->stage, &mb);
        if (i <= 1 || total(&cost) < total(&best))
            best = cost;
        if (pt_clock_ns() - start > PROFILE_NS)
            break;
    }
    *ret_cost = best;
out:
    free(sample);
    return status;
}

pt_status pt_predict_epoch_us(const pt_run *run, const stage_card *cards, double *ret_us,
                              pt_error *err)
{
    const pt_span *span = run->full.schedule ? &run->full : &run->last;
    pt_stage_cost *costs = calloc((size_t)run->stages, sizeof *costs);
    if (!costs)
        return pt_fail(err, PT_ENOMEM, "no memory for a prediction");
    for (int i = 0; i < run->stages; i++)
        costs[i] = cards[i].cost;
    pt_status status =
        pt_schedule_simulate(span->schedule, costs, pt_schedule_slots(&span->schedule->spec), NULL,
                             NULL, NULL, ret_us, err);
    free(costs);
    return status;
}
