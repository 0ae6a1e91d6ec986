/* One rank's stage: slots, programs, packing. The maths is in the programs, the versions in
 * weights. */
#include "pipetrain/stage.h"

#include <stdlib.h>
#include <string.h>

#include "stage_internal.h"

static pt_status add_programs(pt_stage *s, const int64_t *sizes, int n, pt_mode mode, pt_error *err)
{
    for (int i = 0; i < n; i++) {
        const pt_stage_plan *plan = &s->plan;
        PT_TRY(pt_program_new(plan->backend, plan->graph, plan->spec, plan->flat, (int)sizes[i],
                              mode, /*holds=*/plan->held > 0, plan->recompute,
                              &s->programs[s->n_programs], err));
        s->n_programs++;
    }
    return PT_OK;
}

static bool is_last(const pt_stage_plan *plan)
{
    return plan->spec->end == plan->graph->n_nodes;
}

typedef struct needs {
    size_t stash, scratch, held, plain; /* bytes */
    size_t sample, answer;              /* bytes, per slot */
    int64_t samples;
} needs;

static size_t answer_bytes(const pt_loss *loss, int64_t samples)
{
    return loss->kind == PT_LOSS_MSE
               ? (size_t)samples * (size_t)pt_shape_elements(&loss->shape) * sizeof(float)
               : (size_t)samples * sizeof(int32_t);
}

static needs largest(const pt_stage *s)
{
    needs most = {0};
    for (int i = 0; i < s->n_programs; i++) {
        const pt_program *p = s->programs[i];
        size_t stash = pt_program_stash_bytes(p), scratch = pt_program_scratch_bytes(p);
        size_t held = pt_program_held_bytes(p);
        most.stash = stash > most.stash ? stash : most.stash;
        most.scratch = scratch > most.scratch ? scratch : most.scratch;
        most.held = held > most.held ? held : most.held;
        most.samples = pt_program_samples(p) > most.samples ? pt_program_samples(p) : most.samples;
    }
    most.sample = (size_t)most.samples * sizeof(uint32_t);
    if (is_last(&s->plan)) {
        const pt_loss *loss = &s->plan.graph->loss;
        most.plain = (size_t)most.samples * (size_t)pt_shape_elements(&loss->shape) * sizeof(float);
        most.answer = answer_bytes(loss, most.samples);
    }
    return most;
}

static pt_status allocate_slot(pt_stage *s, stage_slot *slot, const needs *most, pt_error *err)
{
    pt_backend *b = s->plan.backend;
    void *host = NULL, *dev = NULL;
    PT_TRY(b->row->dev_new(b, most->stash, &slot->dev_stash, err));
    PT_TRY(b->row->host_new(b, most->sample, &host, err));
    slot->host_sample = host;
    PT_TRY(b->row->dev_new(b, most->sample, &dev, err));
    slot->dev_sample = dev;
    return is_last(&s->plan) ? b->row->dev_new(b, most->answer, &slot->dev_answer, err) : PT_OK;
}

static pt_status allocate(pt_stage *s, pt_error *err)
{
    pt_backend *b = s->plan.backend;
    needs most = largest(s);
    PT_TRY(b->row->dev_new(b, most.scratch, &s->dev_scratch, err));
    s->scratch_bytes = most.scratch;
    s->slots = calloc((size_t)s->plan.slots, sizeof *s->slots);
    if (!s->slots)
        return pt_fail(err, PT_ENOMEM, "no memory for %d slots", s->plan.slots);
    for (int i = 0; i < s->plan.slots; i++)
        PT_TRY(allocate_slot(s, &s->slots[i], &most, err));
    PT_TRY(pt_stage_held_new(s, most.held, err));
    PT_TRY(pt_gap_new(&s->gap, &s->plan, err));
    PT_TRY(pt_stage_lanes_new(s, err));
    if (!is_last(&s->plan))
        return PT_OK;
    for (int i = 0; i < s->n_programs; i++)
        PT_TRY(b->row->plain_layout(b, &s->plan.graph->loss.shape,
                                    pt_program_samples(s->programs[i]), &s->plain[i], err));
    return b->row->dev_new(b, most.plain, &s->dev_plain, err);
}

static pt_status make_programs(pt_stage *s, pt_error *err)
{
    PT_TRY(add_programs(s, s->plan.train_sizes, s->plan.n_train_sizes, PT_TRAIN, err));
    return add_programs(s, s->plan.eval_sizes, s->plan.n_eval_sizes, PT_EVAL, err);
}

pt_status pt_stage_new(const pt_stage_plan *plan, pt_weights *weights, pt_stage **ret_stage,
                       pt_error *err)
{
    pt_stage *s = calloc(1, sizeof *s);
    if (!s)
        return pt_fail(err, PT_ENOMEM, "no memory for a stage");
    s->plan = *plan;
    s->weights = weights;
    pt_status status = make_programs(s, err);
    for (int i = 0; status == PT_OK && i < s->n_programs; i++)
        status = pt_program_build(s->programs[i], err);
    if (status == PT_OK)
        status = allocate(s, err);
    if (status != PT_OK) {
        pt_stage_free(s);
        return status;
    }
    *ret_stage = s;
    return PT_OK;
}

void pt_stage_free(pt_stage *s)
{
    if (!s)
        return;
    pt_backend *b = s->plan.backend;
    for (int i = 0; i < s->n_programs; i++) {
        pt_program_free(s->programs[i]);
        if (s->plain[i])
            b->row->layout_free(b, s->plain[i]);
    }
    for (int i = 0; s->slots && i < s->plan.slots; i++) {
        b->row->dev_free(b, s->slots[i].dev_stash);
        b->row->host_free(b, s->slots[i].host_sample);
        b->row->dev_free(b, s->slots[i].dev_sample);
        b->row->dev_free(b, s->slots[i].dev_answer);
    }
    pt_stage_lanes_free(s);
    pt_stage_held_free(s);
    pt_gap_free(&s->gap);
    free(s->slots);
    b->row->dev_free(b, s->dev_scratch);
    b->row->dev_free(b, s->dev_plain);
    free(s);
}

/* What building the programs will take. They share one block of temporaries. */
static pt_stage_bytes kernel_bytes(const pt_stage *s)
{
    pt_stage_bytes bytes = {0};
    for (int i = 0; i < s->n_programs; i++) {
        size_t most = pt_program_shared_bytes(s->programs[i]);
        bytes.own += pt_program_private_bytes(s->programs[i]);
        bytes.shared = most > bytes.shared ? most : bytes.shared;
    }
    return bytes;
}

/* Links with slots on the device, one in each direction over each cut. */
static size_t device_link_bytes(const pt_stage *s)
{
    size_t bytes = 0;
    if (s->plan.spec->stage > 0)
        bytes += pt_stage_message_bytes(s, /*behind=*/false);
    if (!is_last(&s->plan))
        bytes += pt_stage_message_bytes(s, /*behind=*/true);
    return 2 * (size_t)s->plan.device_link_slots * bytes;
}

pt_status pt_stage_predict_bytes(const pt_stage_plan *plan, const pt_weights_spec *weights,
                                 pt_stage_bytes *ret_bytes, pt_error *err)
{
    pt_stage s = {.plan = *plan};
    pt_status status = make_programs(&s, err);
    if (status == PT_OK) {
        needs most = largest(&s);
        size_t slot = most.stash + most.sample + most.answer;
        *ret_bytes = kernel_bytes(&s);
        ret_bytes->own += pt_weights_bytes(weights) + most.scratch + most.plain +
                          (size_t)plan->slots * slot + (size_t)plan->held * most.held +
                          device_link_bytes(&s) + pt_gap_bytes(plan);
    }
    for (int i = 0; i < s.n_programs; i++)
        pt_program_free(s.programs[i]);
    return status;
}

pt_gap_found pt_stage_gap(const pt_stage *stage)
{
    return stage->gap.found;
}

void pt_stage_gap_restart(pt_stage *stage)
{
    pt_gap_restart(&stage->gap);
}

pt_weights *pt_stage_weights(pt_stage *stage)
{
    return stage->weights;
}

const pt_flat *pt_stage_flat(const pt_stage *stage)
{
    return stage->plan.flat;
}

int pt_stage_ops_again(const pt_stage *s)
{
    return s->plan.n_train_sizes > 0 ? pt_program_ops_again(s->programs[0]) : 0;
}

pt_program_run pt_stage_run(pt_stage *s, const pt_micro_batch *mb)
{
    return (pt_program_run){
        .dev_stash = s->slots[mb->slot].dev_stash,
        .dev_scratch = s->dev_scratch,
        .dev_held = mb->held >= 0 ? s->held[mb->held].dev : NULL,
        .dev_state = pt_weights_state(s->weights),
        .seed = s->plan.seed,
        .epoch = mb->epoch,
        .dev_sample = s->slots[mb->slot].dev_sample,
    };
}

/* ---- micro-batches ----------------------------------------------------------------------------
 */

static int program_index(const pt_stage *s, pt_mode mode, int64_t samples)
{
    for (int i = 0; i < s->n_programs; i++)
        if (pt_program_mode(s->programs[i]) == mode &&
            pt_program_samples(s->programs[i]) == samples)
            return i;
    return -1;
}

pt_status pt_stage_begin(pt_stage *s, pt_mode mode, uint32_t epoch, const uint32_t *sample,
                         int64_t samples, const pt_between_ops *between, pt_micro_batch *ret_mb,
                         pt_error *err)
{
    pt_backend *b = s->plan.backend;
    int program = program_index(s, mode, samples), slot = 0;
    size_t bytes = (size_t)samples * sizeof *sample;
    if (program < 0)
        return pt_fail(err, PT_EINTERNAL, "a micro-batch of %lld samples was not planned for",
                       (long long)samples);
    while (slot < s->plan.slots && s->slots[slot].taken)
        slot++;
    if (slot == s->plan.slots)
        return pt_fail(err, PT_EINTERNAL, "all %d stash slots are taken", s->plan.slots);
    stage_slot *at = &s->slots[slot];
    PT_TRY(pt_stage_take(s, at, between, err));
    at->taken = true;
    memcpy(at->host_sample, sample, bytes);
    PT_TRY(b->row->copy_in(b, at->dev_sample, at->host_sample, bytes, err));
    PT_TRY(b->row->event_record(b, PT_LANE_IN, at->sampled, err));
    PT_TRY(pt_stage_after_in(s, at, err));
    *ret_mb = (pt_micro_batch){
        .program = s->programs[program],
        .slot = slot,
        .held = -1,
        .samples = samples,
        .epoch = epoch,
        .sample = at->host_sample,
        .weights = {.stash_slot = -1},
    };
    return PT_OK;
}

pt_status pt_stage_end(pt_stage *s, pt_micro_batch *mb, pt_error *err)
{
    pt_weights_release(s->weights, &mb->weights);
    s->slots[mb->slot].taken = false;
    PT_TRY(pt_stage_give_back(s, &s->slots[mb->slot], err));
    return pt_stage_let_go(s, mb, err);
}

pt_status pt_stage_line_up(pt_stage *s, pt_micro_batch *mb, pt_error *err)
{
    return pt_stage_before_compute(s, &s->slots[mb->slot], /*writes_scratch=*/true, err);
}

pt_status pt_stage_load(pt_stage *s, pt_micro_batch *mb, const float *input, pt_error *err)
{
    pt_backend *b = s->plan.backend;
    pt_program_run run = pt_stage_run(s, mb);
    void *dev = pt_program_value(mb->program, &run, 0);
    PT_TRY(pt_stage_before_in(s, pt_stage_in_scratch(s, dev), err));
    PT_TRY(b->row->copy_in(b, dev, input, pt_program_layout(mb->program, 0)->bytes, err));
    return pt_stage_after_in(s, &s->slots[mb->slot], err);
}

static void read_with(pt_program_run *run, const pt_weight_set *set, const pt_between_ops *between)
{
    run->dev_params = set->dev_params;
    run->params_version = set->content;
    run->between_ops = between ? between->call : NULL;
    run->context = between ? between->context : NULL;
}

pt_status pt_stage_forward(pt_stage *s, pt_micro_batch *mb, int staleness,
                           const pt_between_ops *between, pt_error *err)
{
    if (pt_program_mode(mb->program) == PT_TRAIN) {
        PT_TRY(pt_weights_for_forward(s->weights, staleness, &mb->weights, err));
        PT_TRY(pt_gap_forward(&s->gap, mb, err));
    } else {
        mb->weights = pt_weights_now(s->weights);
    }
    PT_TRY(pt_stage_line_up(s, mb, err));
    pt_program_run run = pt_stage_run(s, mb);
    read_with(&run, &mb->weights, between);
    return pt_program_forward(mb->program, &run, err);
}

pt_status pt_stage_loss(pt_stage *s, pt_micro_batch *mb, const void *answer, float scale,
                        pt_loss_result *host_result, pt_error *err)
{
    stage_slot *slot = &s->slots[mb->slot];
    pt_backend *b = s->plan.backend;
    const pt_graph *graph = s->plan.graph;
    bool train = pt_program_mode(mb->program) == PT_TRAIN;
    if (train)
        PT_TRY(pt_stage_hold(s, mb, err));
    pt_program_run run = pt_stage_run(s, mb);
    PT_TRY(
        b->row->copy_in(b, slot->dev_answer, answer, answer_bytes(&graph->loss, mb->samples), err));
    PT_TRY(pt_stage_after_in(s, slot, err));
    PT_TRY(pt_stage_line_up(s, mb, err));
    pt_loss_args args = {
        .layout = pt_program_layout(mb->program, graph->n_nodes),
        .samples = (int)mb->samples,
        .dev_y = pt_program_value(mb->program, &run, graph->n_nodes),
        .dev_label = slot->dev_answer,
        .dev_target = slot->dev_answer,
        .scale = scale,
        .dev_d_y = train ? pt_program_gradient_in(mb->program, &run, graph->n_nodes) : NULL,
        .host_result = host_result,
    };
    return b->row->loss(b, &graph->loss, &args, err);
}

pt_status pt_stage_predictions(pt_stage *s, const pt_micro_batch *mb, float *dst, pt_error *err)
{
    pt_backend *b = s->plan.backend;
    int last = s->plan.graph->n_nodes;
    pt_program_run run = pt_stage_run(s, mb);
    const pt_layout *plain = s->plain[program_index(s, pt_program_mode(mb->program), mb->samples)];
    PT_TRY(b->row->reorder(b, pt_graph_value_shape(s->plan.graph, last), (int)mb->samples,
                           pt_program_layout(mb->program, last),
                           pt_program_value(mb->program, &run, last), plain, s->dev_plain, err));
    return b->row->download(b, dst, s->dev_plain, plain->bytes, err);
}

static pt_program_run backward_run(pt_stage *s, pt_micro_batch *mb, bool accumulate,
                                   const pt_between_ops *between)
{
    pt_program_run run = pt_stage_run(s, mb);
    pt_weight_set set = pt_weights_for_backward(s->weights, &mb->weights);
    read_with(&run, &set, between);
    pt_gradient_place place = pt_weights_gradient_place(s->weights, &mb->weights, accumulate);
    run.dev_gradient = place.dev;
    run.accumulate = place.accumulate;
    return run;
}

pt_status pt_stage_backward_input(pt_stage *s, pt_micro_batch *mb, bool accumulate,
                                  const pt_between_ops *between, pt_error *err)
{
    PT_TRY(pt_stage_hold(s, mb, err));
    PT_TRY(pt_gap_backward(&s->gap, mb, pt_weights_now(s->weights).dev_params, err));
    pt_program_run run = backward_run(s, mb, accumulate, between);
    PT_TRY(pt_stage_line_up(s, mb, err));
    return pt_program_backward_input(mb->program, &run, err);
}

pt_status pt_stage_backward_weight(pt_stage *s, pt_micro_batch *mb, bool accumulate,
                                   const pt_between_ops *between, pt_error *err)
{
    pt_program_run run = backward_run(s, mb, accumulate, between);
    PT_TRY(pt_stage_before_compute(s, &s->slots[mb->slot], /*writes_scratch=*/false, err));
    PT_TRY(pt_program_backward_weight(mb->program, &run, err));
    return pt_weights_take_gradient(s->weights, &mb->weights, accumulate, err);
}
