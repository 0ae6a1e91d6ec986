/* What each kind of action does: the switch of the engine and its branches. */
#include <math.h>

#include "engine_internal.h"
#include "pipetrain/clock.h"

/* ---- micro-batches ----------------------------------------------------------------------------
 */

static flight *find(pt_engine *e, int micro_batch)
{
    for (int i = 0; i < e->spec.slots; i++)
        if (e->flights[i].micro_batch == micro_batch)
            return &e->flights[i];
    return NULL;
}

/* The micro-batch of the running action; comes into being at its first action on this rank. */
static pt_status arrive(pt_engine *e, flight **ret_flight, pt_error *err)
{
    const pt_pass *pass = e->pass;
    int m = e->action->micro_batch;
    *ret_flight = find(e, m);
    if (*ret_flight)
        return PT_OK;
    flight *f = find(e, -1);
    if (!f)
        return pt_fail(err, PT_EINTERNAL, "more than %d micro-batches in flight", e->spec.slots);
    f->item = pt_epoch_item_at(&pass->plan, m);
    PT_TRY(pt_stage_begin(e->spec.stage, pass->mode, pass->epoch,
                          pt_sampler_at(pass->sampler, f->item.first, f->item.samples),
                          f->item.samples, &f->mb, err));
    f->micro_batch = m;
    if (m < e->spec.most_micro_batches) {
        e->timings[m] = (pt_timing){
            .epoch = (int32_t)pass->epoch,
            .step = (int32_t)f->item.step,
            .micro_batch = m,
            .samples = (int32_t)f->item.samples,
            .version = pt_weights_updates(pt_stage_weights(e->spec.stage)),
        };
        e->n_timings = m + 1 > e->n_timings ? m + 1 : e->n_timings;
    }
    *ret_flight = f;
    return PT_OK;
}

static pt_timing *timing_of(pt_engine *e, const flight *f)
{
    /* Evaluation passes may be longer than any training pass: those that do not fit share the
     * last, spare entry. */
    return f->micro_batch < e->spec.most_micro_batches ? &e->timings[f->micro_batch]
                                                       : &e->timings[e->spec.most_micro_batches];
}

static void depart(pt_engine *e, flight *f)
{
    pt_stage_end(e->spec.stage, &f->mb);
    f->micro_batch = -1;
}

/* ---- actions ----------------------------------------------------------------------------------
 */

static pt_status load(pt_engine *e, flight *f, pt_error *err)
{
    const pt_source *source = &e->pass->source;
    pt_load_inputs(source->dataset, &e->spec.graph->input, source->normalisation,
                   e->pass->mode == PT_TRAIN ? source->augmentation : NULL, e->spec.seed,
                   e->pass->epoch, f->mb.sample, f->mb.samples, e->input);
    return pt_stage_load(e->spec.stage, &f->mb, e->input, err);
}

static pt_status compute_loss(pt_engine *e, flight *f, pt_loss_result *ret_loss, pt_error *err)
{
    const pt_graph *graph = e->spec.graph;
    bool targets = graph->loss.kind == PT_LOSS_MSE;
    if (targets)
        pt_load_targets(e->pass->source.dataset, pt_shape_elements(&graph->loss.shape),
                        f->mb.sample, f->mb.samples, e->outputs);
    else
        pt_load_labels(e->pass->source.dataset, f->mb.sample, f->mb.samples, e->labels);
    return pt_stage_loss(e->spec.stage, &f->mb, targets ? NULL : e->labels,
                         targets ? e->outputs : NULL, 1.0f / (float)f->item.step_samples, ret_loss,
                         err);
}

static pt_status run_forward(pt_engine *e, pt_error *err)
{
    flight *f = NULL;
    PT_TRY(arrive(e, &f, err));
    int64_t start = pt_clock_ns();
    if (pt_engine_is_first(e))
        PT_TRY(load(e, f, err));
    int64_t version = pt_weights_updates(pt_stage_weights(e->spec.stage));
    PT_TRY(pt_stage_forward(e->spec.stage, &f->mb, e->action->staleness, &e->between, err));
    pt_timing *t = timing_of(e, f);
    t->version = version;
    t->staleness = e->action->staleness;
    t->forward_start = start;
    t->forward_ns = pt_clock_ns() - start;
    e->busy_ns += t->forward_ns;
    return PT_OK;
}

static pt_status run_infer(pt_engine *e, pt_error *err)
{
    PT_TRY(run_forward(e, err));
    flight *f = find(e, e->action->micro_batch);
    if (pt_engine_is_last(e) && e->pass->want_loss) {
        pt_loss_result loss;
        PT_TRY(compute_loss(e, f, &loss, err));
        e->sums.loss += loss.loss;
        e->sums.correct += loss.correct;
        e->sums.samples += f->item.samples;
    }
    if (pt_engine_is_last(e) && e->spec.hooks.predicted) {
        PT_TRY(pt_stage_predictions(e->spec.stage, &f->mb, e->outputs, err));
        PT_TRY(e->spec.hooks.predicted(e->spec.hooks.context, &f->item, e->outputs, err));
    }
    if (pt_engine_is_last(e))
        depart(e, f); /* elsewhere SEND_ACT still reads it */
    return PT_OK;
}

static pt_status run_backward_input(pt_engine *e, pt_error *err)
{
    flight *f = find(e, e->action->micro_batch);
    pt_timing *t = timing_of(e, f);
    t->backward_start = pt_clock_ns();
    if (pt_engine_is_last(e)) {
        pt_loss_result loss;
        PT_TRY(compute_loss(e, f, &loss, err));
        e->step.loss += loss.loss;
        e->step.correct += loss.correct;
        e->step.samples += f->item.samples;
    }
    PT_TRY(
        pt_stage_backward_input(e->spec.stage, &f->mb, !f->item.first_of_step, &e->between, err));
    t->backward_ns = pt_clock_ns() - t->backward_start;
    e->busy_ns += t->backward_ns;
    return PT_OK;
}

static pt_status run_backward_weight(pt_engine *e, pt_error *err)
{
    flight *f = find(e, e->action->micro_batch);
    int64_t start = pt_clock_ns();
    PT_TRY(
        pt_stage_backward_weight(e->spec.stage, &f->mb, !f->item.first_of_step, &e->between, err));
    int64_t spent = pt_clock_ns() - start;
    timing_of(e, f)->backward_ns += spent;
    e->busy_ns += spent;
    depart(e, f);
    return PT_OK;
}

static pt_status run_clip(pt_engine *e, pt_error *err)
{
    return pt_clipper_run(&e->clip, e->spec.world, e->spec.backend, pt_stage_flat(e->spec.stage),
                          pt_weights_gradient(pt_stage_weights(e->spec.stage)), e->spec.clip, err);
}

static pt_status report_step(pt_engine *e, double lr, pt_error *err)
{
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

static pt_status run_update(pt_engine *e, pt_error *err)
{
    pt_weights *weights = pt_stage_weights(e->spec.stage);
    int64_t start = pt_clock_ns();
    if (e->spec.fail_at_update)
        return pt_fail(err, PT_EINTERNAL, "told to fail here by --fail-at");
    double lr = pt_weights_lr(weights);
    PT_TRY(pt_weights_update(weights, e->spec.clip > 0 ? e->clip.scale : 1, err));
    pt_timing *t = &e->timings[e->action->micro_batch];
    t->update_start = start;
    t->update_ns = pt_clock_ns() - start;
    e->busy_ns += t->update_ns;
    return pt_engine_is_last(e) ? report_step(e, lr, err) : PT_OK;
}

typedef pt_status (*unpack_fn)(pt_stage *stage, pt_micro_batch *mb, const void *message,
                               pt_error *err);

static pt_status receive(pt_engine *e, flight *f, pt_link *link, size_t bytes, unpack_fn unpack,
                         int64_t *ret_waited_ns, pt_error *err)
{
    const void *message = NULL;
    int64_t start = pt_clock_ns();
    PT_TRY(pt_link_receive(link, bytes, &message, err));
    *ret_waited_ns = pt_clock_ns() - start;
    PT_TRY(unpack(e->spec.stage, &f->mb, message, err));
    return pt_link_release(link, err);
}

static pt_status run_receive_activations(pt_engine *e, pt_error *err)
{
    flight *f = NULL;
    PT_TRY(arrive(e, &f, err));
    return receive(e, f, e->links[ACTS_IN], pt_stage_activation_bytes(&f->mb, /*behind=*/false),
                   pt_stage_unpack_activations, &timing_of(e, f)->recv_act_ns, err);
}

static pt_status run_receive_gradients(pt_engine *e, pt_error *err)
{
    flight *f = find(e, e->action->micro_batch);
    return receive(e, f, e->links[GRADS_IN], pt_stage_gradient_bytes(&f->mb, /*behind=*/true),
                   pt_stage_unpack_gradients, &timing_of(e, f)->recv_grad_ns, err);
}

typedef pt_status (*pack_fn)(pt_stage *stage, const pt_micro_batch *mb, void *message,
                             pt_error *err);

static pt_status send(pt_engine *e, flight *f, int link, size_t bytes, pack_fn pack, pt_error *err)
{
    void *message = NULL;
    int64_t waited = pt_link_send_wait_ns(e->links[link]);
    PT_TRY(pt_link_send_slot(e->links[link], &message, err));
    PT_TRY(pack(e->spec.stage, &f->mb, message, err));
    PT_TRY(pt_link_send(e->links[link], bytes, err));
    timing_of(e, f)->send_ns += pt_link_send_wait_ns(e->links[link]) - waited;
    return PT_OK;
}

static pt_status run_send_activations(pt_engine *e, pt_error *err)
{
    flight *f = find(e, e->action->micro_batch);
    PT_TRY(send(e, f, ACTS_OUT, pt_stage_activation_bytes(&f->mb, /*behind=*/true),
                pt_stage_pack_activations, err));
    if (e->pass->mode == PT_EVAL)
        depart(e, f);
    return PT_OK;
}

static pt_status run_send_gradients(pt_engine *e, pt_error *err)
{
    flight *f = find(e, e->action->micro_batch);
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
