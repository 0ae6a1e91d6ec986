/* What each kind of action does: the switch of the engine and its branches. */
#include <math.h>

#include "engine_internal.h"
#include "pipetrain/clock.h"

/* ---- actions ----------------------------------------------------------------------------------
 */

enum { PIECE = 1 << 14 }; /* elements of input that are loaded at a time, about */

/* A micro-batch of large images takes milliseconds: what has become ready leaves meanwhile. */
static pt_status load_pieces(pt_engine *e, const pt_micro_batch *mb, float *input, pt_error *err)
{
    const pt_source *source = &e->pass->source;
    const int64_t elements = pt_shape_elements(&e->spec.graph->input);
    const int64_t most = elements < PIECE ? PIECE / elements : 1;
    for (int64_t i = 0, n; i < mb->samples; i += n) {
        n = mb->samples - i < most ? mb->samples - i : most;
        pt_load_inputs(source->dataset, &e->spec.graph->input, source->normalisation,
                       e->pass->mode == PT_TRAIN ? source->augmentation : NULL, e->spec.seed,
                       e->pass->epoch, mb->sample + i, n, input + i * elements);
        PT_TRY(e->between.call(e->between.context, err));
    }
    return PT_OK;
}

static pt_status load(pt_engine *e, flight *f, pt_error *err)
{
    float *input = NULL;
    PT_TRY(pt_input_take(e, &input, err));
    PT_TRY(load_pieces(e, &f->mb, input, err));
    PT_TRY(pt_stage_load(e->at->stage, &f->mb, input, err));
    return pt_input_given(e, err);
}

static pt_status ask_loss(pt_engine *e, flight *f, pt_error *err)
{
    const pt_loss *loss = &e->spec.graph->loss;
    const pt_dataset *data = e->pass->source.dataset;
    if (loss->kind == PT_LOSS_MSE) {
        pt_load_targets(data, pt_shape_elements(&loss->shape), f->mb.sample, f->mb.samples,
                        f->answer);
    } else {
        pt_load_labels(data, f->mb.sample, f->mb.samples, f->answer);
        PT_TRY(pt_loss_check_labels(loss, f->answer, (int)f->mb.samples, err));
    }
    return pt_loss_ask(e, f, err);
}

/* Loading is a CPU's own work and counts as forward's; a device has its inputs brought. */
static pt_status load_and_begin(pt_engine *e, flight *f, pt_error *err)
{
    pt_timing *t = pt_flight_timing(e, f);
    bool device = e->spec.backend->row->on_device;
    if (!device)
        PT_TRY(pt_span_begin(e, &t->forward_start, &t->forward_ns, err));
    if (pt_block_is_first(e->at))
        PT_TRY(load(e, f, err));
    PT_TRY(pt_stage_line_up(e->at->stage, &f->mb, err));
    return device ? pt_span_begin(e, &t->forward_start, &t->forward_ns, err) : PT_OK;
}

static pt_status run_forward(pt_engine *e, pt_error *err)
{
    flight *f = NULL;
    e->went_back = NULL;
    PT_TRY(pt_flight_arrive(e, &f, err));
    PT_TRY(load_and_begin(e, f, err));
    int64_t version = pt_weights_updates(pt_stage_weights(e->at->stage));
    int staleness = pt_engine_staleness(e);
    PT_TRY(pt_stage_forward(e->at->stage, &f->mb, staleness, &e->between, err));
    pt_timing *t = pt_flight_timing(e, f);
    t->version = version;
    t->staleness = staleness;
    return pt_span_end(e, err);
}

static pt_status run_infer(pt_engine *e, pt_error *err)
{
    PT_TRY(run_forward(e, err));
    if (!pt_block_is_last(e->at))
        return PT_OK; /* SEND_ACT still reads it */
    flight *f = pt_flight_find(e, e->action->micro_batch);
    if (e->pass->want_loss)
        PT_TRY(ask_loss(e, f, err));
    if (e->spec.hooks.predicted) {
        PT_TRY(pt_stage_predictions(e->at->stage, &f->mb, e->outputs, err));
        PT_TRY(e->spec.hooks.predicted(e->spec.hooks.context, &f->item, e->outputs, err));
    }
    return pt_flight_depart(e, f, err);
}

static pt_status run_backward_input(pt_engine *e, pt_error *err)
{
    flight *f = pt_flight_find(e, e->action->micro_batch);
    pt_timing *t = pt_flight_timing(e, f);
    e->went_back = f;
    PT_TRY(pt_stage_line_up(e->at->stage, &f->mb, err));
    PT_TRY(pt_span_begin(e, &t->backward_start, &t->backward_ns, err));
    if (pt_block_is_last(e->at))
        PT_TRY(ask_loss(e, f, err));
    PT_TRY(pt_stage_backward_input(e->at->stage, &f->mb, !f->item.first_of_step, &e->between, err));
    return pt_span_end(e, err);
}

static pt_status run_backward_weight(pt_engine *e, pt_error *err)
{
    flight *f = pt_flight_find(e, e->action->micro_batch);
    pt_timing *t = pt_flight_timing(e, f);
    bool waited = e->went_back != f;
    e->went_back = f;
    PT_TRY(waited ? pt_span_begin(e, &t->weight_start, &t->weight_ns, err)
                  : pt_span_begin(e, &t->backward_start, &t->backward_ns, err));
    PT_TRY(
        pt_stage_backward_weight(e->at->stage, &f->mb, !f->item.first_of_step, &e->between, err));
    PT_TRY(pt_span_end(e, err));
    return pt_flight_depart(e, f, err);
}

/* The sums wait for the device, and nobody polls while they do: the gradients that are still to
 * leave do so before. */
static pt_status run_clip(pt_engine *e, pt_error *err)
{
    for (int c = 0; c < e->n_blocks; c++)
        for (int i = 0; i < e->blocks[c].n_flights; i++)
            PT_TRY(pt_event_await(e->spec.backend, e->blocks[c].flights[i].gone, &e->between, err));
    return pt_clipper_run(&e->clip, e->spec.world, e->spec.backend, e->blocks, e->spec.clip, err);
}

static pt_status report_step(pt_engine *e, double lr, pt_error *err)
{
    PT_TRY(pt_loss_collect(e, err));
    e->step.epoch = (int32_t)e->pass->epoch;
    e->step.step = e->action->step;
    e->step.norm = e->spec.clip > 0 ? e->clip.norm : (double)NAN;
    e->step.lr = lr;
    e->sums.loss += e->step.loss;
    e->sums.correct += e->step.correct;
    e->sums.samples += e->step.samples;
    pt_status status = e->spec.hooks.step_done
                           ? e->spec.hooks.step_done(e->spec.hooks.context, &e->step, err)
                           : PT_OK;
    e->step = (pt_step_result){0};
    return status;
}

/* Of all blocks; a step is reported by the rank that has the last one. */
static pt_status run_update(pt_engine *e, pt_error *err)
{
    const block *last = &e->blocks[e->n_blocks - 1];
    if (e->spec.fail_at_update)
        return pt_fail(err, PT_EINTERNAL, "told to fail here by --fail-at");
    double lr = pt_weights_lr(pt_stage_weights(last->stage));
    pt_timing *t = &e->timings[e->action->micro_batch * e->n_blocks];
    PT_TRY(pt_span_begin(e, &t->update_start, &t->update_ns, err));
    for (int c = 0; c < e->n_blocks; c++)
        PT_TRY(pt_weights_update(pt_stage_weights(e->blocks[c].stage),
                                 e->spec.clip > 0 ? e->clip.scale : 1, err));
    PT_TRY(pt_span_end(e, err));
    return pt_block_is_last(last) ? report_step(e, lr, err) : PT_OK;
}

/* The condition that a link waits for: the copy into, or out of, its slot is done. */
static pt_status is_copied(void *context, bool *ret_done, pt_error *err)
{
    const slot_event *at = context;
    return at->backend->row->event_done(at->backend, at->event, ret_done, err);
}

/* Records the end of what `lane` was asked to do with the link's current slot. */
static pt_status after_copy(pt_engine *e, int link, pt_lane lane, pt_link_ready *ret_ready,
                            pt_error *err)
{
    slot_event *at = &e->at->slot_events[link][e->at->next_slot[link]];
    e->at->next_slot[link] = (e->at->next_slot[link] + 1) % e->spec.link_slots;
    *ret_ready = (pt_link_ready){is_copied, at};
    return at->backend->row->event_record(at->backend, lane, at->event, err);
}

typedef pt_status (*unpack_fn)(pt_stage *stage, pt_micro_batch *mb, const void *message,
                               pt_error *err);

static pt_status receive(pt_engine *e, flight *f, int link, size_t bytes, unpack_fn unpack,
                         int64_t *ret_waited_ns, pt_error *err)
{
    const void *message = NULL;
    pt_link_ready unpacked;
    int64_t start = pt_clock_ns();
    PT_TRY(pt_link_receive(e->at->links[link], bytes, &message, err));
    *ret_waited_ns = pt_clock_ns() - start;
    PT_TRY(unpack(e->at->stage, &f->mb, message, err));
    PT_TRY(after_copy(e, link, PT_LANE_IN, &unpacked, err));
    return pt_link_release(e->at->links[link], &unpacked, err);
}

static pt_status run_receive_activations(pt_engine *e, pt_error *err)
{
    flight *f = NULL;
    PT_TRY(pt_flight_arrive(e, &f, err));
    return receive(e, f, ACTS_IN, pt_stage_activation_bytes(&f->mb, /*behind=*/false),
                   pt_stage_unpack_activations, &pt_flight_timing(e, f)->recv_act_ns, err);
}

static pt_status run_receive_gradients(pt_engine *e, pt_error *err)
{
    flight *f = pt_flight_find(e, e->action->micro_batch);
    return receive(e, f, GRADS_IN, pt_stage_gradient_bytes(&f->mb, /*behind=*/true),
                   pt_stage_unpack_gradients, &pt_flight_timing(e, f)->recv_grad_ns, err);
}

typedef pt_status (*pack_fn)(pt_stage *stage, const pt_micro_batch *mb, void *message,
                             pt_error *err);

static pt_status send(pt_engine *e, flight *f, int link, size_t bytes, pack_fn pack, pt_error *err)
{
    void *message = NULL;
    pt_link_ready packed;
    int64_t waited = pt_link_send_wait_ns(e->at->links[link]);
    PT_TRY(pt_link_send_slot(e->at->links[link], &message, err));
    PT_TRY(pack(e->at->stage, &f->mb, message, err));
    PT_TRY(after_copy(e, link, PT_LANE_OUT, &packed, err));
    PT_TRY(pt_link_send(e->at->links[link], bytes, &packed, err));
    pt_flight_timing(e, f)->send_ns += pt_link_send_wait_ns(e->at->links[link]) - waited;
    return PT_OK;
}

static pt_status run_send_activations(pt_engine *e, pt_error *err)
{
    flight *f = pt_flight_find(e, e->action->micro_batch);
    PT_TRY(send(e, f, ACTS_OUT, pt_stage_activation_bytes(&f->mb, /*behind=*/true),
                pt_stage_pack_activations, err));
    return e->pass->mode == PT_EVAL ? pt_flight_depart(e, f, err) : PT_OK;
}

static pt_status run_send_gradients(pt_engine *e, pt_error *err)
{
    flight *f = pt_flight_find(e, e->action->micro_batch);
    return send(e, f, GRADS_OUT, pt_stage_gradient_bytes(&f->mb, /*behind=*/false),
                pt_stage_pack_gradients, err);
}

pt_status pt_engine_act(pt_engine *e, pt_error *err)
{
    switch ((pt_action_kind)e->action->kind) {
    case PT_FORWARD:
        return run_forward(e, err);
    case PT_BACKWARD_INPUT:
        return run_backward_input(e, err);
    case PT_BACKWARD_WEIGHT:
        return run_backward_weight(e, err);
    case PT_CLIP:
        return run_clip(e, err);
    case PT_UPDATE:
        return run_update(e, err);
    case PT_INFER:
        return run_infer(e, err);
    case PT_RECV_ACT:
        return run_receive_activations(e, err);
    case PT_SEND_ACT:
        return run_send_activations(e, err);
    case PT_RECV_GRAD:
        return run_receive_gradients(e, err);
    case PT_SEND_GRAD:
        return run_send_gradients(e, err);
    case PT_ACTION_KINDS:
        break;
    }
    return pt_fail(err, PT_EINTERNAL, "unknown action %d", e->action->kind);
}
