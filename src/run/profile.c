/* What a stage costs, measured on the machine it will run on: a few micro-batches of zeros before
 * training begins. The simulator turns the costs of all stages into a predicted time, which stands
 * beside the measured one in every run. */
#include <stdlib.h>

#include "pipetrain/clock.h"
#include "reporter.h"
#include "setup.h"

enum { PROFILE_RUNS = 3 }; /* the first warms up; the fastest of the rest counts */
static const int64_t PROFILE_NS = 500000000; /* but no more runs once this much time has gone */

/* Host memory of one micro-batch: what comes in, and what the last stage compares with. */
typedef struct rig {
    pt_run *run;
    int chunk;
    pt_block *block;
    int64_t samples;
    uint32_t *sample;
    void *input;  /* first stage: filled from the dataset; others: zeros, a whole message */
    void *answer; /* zeros: a class, and targets */
    void *result; /* pt_loss_result */
} rig;

static void rig_clear(rig *r)
{
    pt_backend *b = r->run->backend;
    free(r->sample);
    b->row->host_free(b, r->input);
    b->row->host_free(b, r->answer);
    b->row->host_free(b, r->result);
}

static pt_status rig_init(rig *r, pt_run *run, int chunk, pt_error *err)
{
    const pt_graph *graph = &run->partition->graph;
    int64_t sizes[PT_MAX_SIZES];
    pt_epoch_sizes(&run->epoch_plan, sizes);
    size_t n = (size_t)sizes[0];
    size_t input = n * (size_t)pt_shape_elements(&graph->input) * sizeof(float);
    size_t message = pt_stage_message_bytes(run->blocks[chunk].stage, /*behind=*/false);
    *r = (rig){.run = run, .chunk = chunk, .block = &run->blocks[chunk], .samples = sizes[0]};
    size_t answer = n * (size_t)pt_shape_elements(&graph->loss.shape) * sizeof(float);
    pt_backend *b = run->backend;
    r->sample = calloc(n, sizeof *r->sample);
    if (!r->sample)
        return pt_fail(err, PT_ENOMEM, "no memory for a profile");
    PT_TRY(b->row->host_new(b, input > message ? input : message, &r->input, err));
    PT_TRY(b->row->host_new(b, answer, &r->answer, err));
    return b->row->host_new(b, sizeof(pt_loss_result), &r->result, err);
}

/* A real forward of the first stage loads its samples, and one that is late predicts. */
static pt_status forward(rig *r, pt_micro_batch *mb, pt_error *err)
{
    pt_run *run = r->run;
    pt_stage *stage = r->block->stage;
    if (r->block->spec->stage == 0) {
        pt_load_inputs(run->train_data, &run->partition->graph.input,
                       &run->partition->normalisation, &run->augmentation, /*seed=*/0,
                       /*epoch=*/0, r->sample, r->samples, r->input);
        PT_TRY(pt_stage_load(stage, mb, r->input, err));
    } else {
        PT_TRY(pt_stage_unpack_activations(stage, mb, r->input, err));
    }
    return pt_stage_forward(stage, mb, pt_run_facts(run, r->chunk)->staleness_max, NULL, err);
}

static pt_status backward_input(rig *r, pt_micro_batch *mb, pt_error *err)
{
    const pt_block *block = r->block;
    if (block->spec->stage == block->spec->stages - 1)
        PT_TRY(
            pt_stage_loss(block->stage, mb, r->answer, 1.0f / (float)r->samples, r->result, err));
    return pt_stage_backward_input(block->stage, mb, /*accumulate=*/false, NULL, err);
}

/* The time when all that was asked of the device is done. */
static pt_status clock_after(pt_run *run, int64_t *ret_ns, pt_error *err)
{
    PT_TRY(run->backend->row->finish(run->backend, err));
    *ret_ns = pt_clock_ns();
    return PT_OK;
}

static pt_status run_once(rig *r, pt_stage_cost *ret_cost, pt_error *err)
{
    pt_run *run = r->run;
    pt_stage *stage = r->block->stage;
    pt_micro_batch mb;
    int64_t t[5];
    PT_TRY(pt_stage_begin(stage, PT_TRAIN, /*epoch=*/0, r->sample, r->samples, NULL, &mb, err));
    PT_TRY(clock_after(run, &t[0], err));
    PT_TRY(forward(r, &mb, err));
    PT_TRY(clock_after(run, &t[1], err));
    PT_TRY(backward_input(r, &mb, err));
    PT_TRY(clock_after(run, &t[2], err));
    PT_TRY(pt_stage_backward_weight(stage, &mb, /*accumulate=*/false, NULL, err));
    PT_TRY(clock_after(run, &t[3], err));
    PT_TRY(pt_weights_update(r->block->weights, /*scale=*/1, err));
    PT_TRY(clock_after(run, &t[4], err));
    PT_TRY(pt_stage_end(stage, &mb, err));
    *ret_cost = (pt_stage_cost){
        .forward = (double)(t[1] - t[0]) / 1e3,
        .backward_input = (double)(t[2] - t[1]) / 1e3,
        .backward_weight = (double)(t[3] - t[2]) / 1e3,
        .update = (double)(t[4] - t[3]) / 1e3,
    };
    return PT_OK;
}

static double total(const pt_stage_cost *cost)
{
    return cost->forward + cost->backward_input + cost->backward_weight + cost->update;
}

pt_status pt_profile_block(pt_run *run, int chunk, pt_stage_cost *ret_cost, pt_error *err)
{
    rig r = {.run = run, .block = &run->blocks[chunk]};
    pt_stage_cost best = {0};
    int64_t start = pt_clock_ns();
    pt_status status = rig_init(&r, run, chunk, err);
    for (int i = 0; status == PT_OK && i < PROFILE_RUNS; i++) {
        pt_stage_cost cost = {0};
        status = run_once(&r, &cost, err);
        if (i <= 1 || total(&cost) < total(&best))
            best = cost;
        if (pt_clock_ns() - start > PROFILE_NS)
            break;
    }
    rig_clear(&r);
    if (status == PT_OK)
        status = pt_weights_restart(r.block->weights, err);
    if (status == PT_OK)
        *ret_cost = best;
    return status;
}

static pt_status simulate(const pt_span *span, const pt_stage_cost *costs, double *ret_us,
                          pt_error *err)
{
    return pt_schedule_simulate(span->schedule, costs, pt_schedule_slots(&span->schedule->spec),
                                NULL, NULL, NULL, ret_us, err);
}

/* The mean of all whole epochs, some of which may be synchronous. */
pt_status pt_predict_epoch_us(const pt_run *run, const pt_stage_cost *costs, double *ret_us,
                              pt_error *err)
{
    int64_t whole = run->total_steps / run->steps_per_epoch, sync = run->settings->sync_epochs;
    double us = 0, sync_us = 0;
    if (whole == 0)
        return simulate(&run->last, costs, ret_us, err);
    if (sync > 0)
        PT_TRY(simulate(&run->sync, costs, &sync_us, err));
    if (whole > sync)
        PT_TRY(simulate(&run->full, costs, &us, err));
    *ret_us = ((double)sync * sync_us + (double)(whole - sync) * us) / (double)whole;
    return PT_OK;
}
