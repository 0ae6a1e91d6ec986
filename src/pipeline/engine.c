/* The engine: one switch over a static list of actions; see the header for the picture. */
#include "pipetrain/engine.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine_internal.h"
#include "pipetrain/clock.h"

/* A micro-batch on its way through this rank. */
typedef struct flight {
    int micro_batch; /* -1: nobody */
    pt_micro_batch mb;
    pt_epoch_item item;
} flight;

enum { ACTS_IN, ACTS_OUT, GRADS_IN, GRADS_OUT, LINKS };

struct pt_engine {
    pt_engine_spec spec;
    pt_link *links[LINKS];
    void *buffers[LINKS]; /* of the links' slots */
    flight *flights;      /* spec.slots of them */
    pt_timing *timings;
    int n_timings;
    float *input;    /* first stage: host, one micro-batch */
    int32_t *labels; /* last stage */
    float *outputs;  /* last stage: targets, or predictions on the host */
    clipper clip;
    pt_step_result step; /* of the step whose backwards are under way */
    pt_pass_result sums; /* of the pass */
    int64_t busy_ns;     /* of all passes */
    const pt_pass *pass;
    const pt_action *action; /* the one that is running */
    pt_between_ops between;
};

static bool is_first(const pt_engine *e)
{
    return e->spec.stage_spec->stage == 0;
}

static bool is_last(const pt_engine *e)
{
    return e->spec.stage_spec->stage == e->spec.stage_spec->stages - 1;
}

static pt_status between_ops(void *context, pt_error *err)
{
    pt_engine *e = context;
    for (int i = 0; i < LINKS; i++)
        if (e->links[i])
            PT_TRY(pt_link_poll(e->links[i], err));
    return e->spec.hooks.between ? e->spec.hooks.between(e->spec.hooks.context, err) : PT_OK;
}

/* ---- life -------------------------------------------------------------------------------------
 */

/* Links are opened edge by edge, so that both ends come to each in the same order. */
static pt_status open_links(pt_engine *e, pt_error *err)
{
    int rank = pt_world_rank(e->spec.world), size = pt_world_size(e->spec.world);
    const struct {
        int link, from, to;
    } order[] = {
        {ACTS_IN, rank - 1, rank},
        {GRADS_OUT, rank, rank - 1},
        {ACTS_OUT, rank, rank + 1},
        {GRADS_IN, rank + 1, rank},
    };
    for (int i = 0; i < LINKS; i++) {
        int from = order[i].from, to = order[i].to;
        if (from < 0 || to < 0 || from >= size || to >= size)
            continue;
        bool behind = from > rank || to > rank;
        pt_link_spec spec = {
            .from = from,
            .to = to,
            .slots = e->spec.link_slots,
            .slot_bytes = pt_stage_message_bytes(e->spec.stage, behind),
            .blocking = e->spec.blocking_sends,
        };
        pt_backend *b = e->spec.backend;
        PT_TRY(b->row->host_new(b, (size_t)spec.slots * spec.slot_bytes, &e->buffers[order[i].link],
                                err));
        spec.buffer = e->buffers[order[i].link];
        PT_TRY(pt_link_open(e->spec.world, &spec, &e->links[order[i].link], err));
    }
    return PT_OK;
}

static pt_status allocate(pt_engine *e, pt_error *err)
{
    const pt_engine_spec *spec = &e->spec;
    size_t samples = (size_t)spec->largest_samples;
    size_t inputs = samples * (size_t)pt_shape_elements(&spec->graph->input);
    size_t outputs = samples * (size_t)pt_shape_elements(&spec->graph->loss.shape);
    e->flights = calloc((size_t)spec->slots, sizeof *e->flights);
    e->timings = calloc((size_t)spec->most_micro_batches + 1, sizeof *e->timings);
    e->labels = is_last(e) ? calloc(samples, sizeof *e->labels) : NULL;
    e->outputs = is_last(e) ? calloc(outputs, sizeof *e->outputs) : NULL;
    if (!e->flights || !e->timings || (is_last(e) && (!e->labels || !e->outputs)))
        return pt_fail(err, PT_ENOMEM, "no memory for the engine");
    for (int i = 0; i < spec->slots; i++)
        e->flights[i].micro_batch = -1;
    if (!is_first(e))
        return PT_OK;
    void *input = NULL;
    PT_TRY(spec->backend->row->host_new(spec->backend, inputs * sizeof(float), &input, err));
    e->input = input;
    return PT_OK;
}

pt_status pt_engine_new(const pt_engine_spec *spec, pt_engine **ret_engine, pt_error *err)
{
    pt_engine *e = calloc(1, sizeof *e);
    if (!e)
        return pt_fail(err, PT_ENOMEM, "no memory for the engine");
    e->spec = *spec;
    e->between = (pt_between_ops){between_ops, e};
    pt_status status = pt_world_agree(spec->world, allocate(e, err), err, NULL);
    if (status == PT_OK)
        status = open_links(e, err);
    if (status == PT_OK && spec->clip > 0)
        status = pt_clipper_init(&e->clip, spec->world, pt_stage_flat(spec->stage), err);
    if (status != PT_OK) {
        pt_engine_free(e);
        return status;
    }
    *ret_engine = e;
    return PT_OK;
}

void pt_engine_set_hooks(pt_engine *e, const pt_engine_hooks *hooks)
{
    e->spec.hooks = *hooks;
}

void pt_engine_free(pt_engine *e)
{
    if (!e)
        return;
    pt_backend *b = e->spec.backend;
    for (int i = 0; i < LINKS; i++) {
        pt_link_close(e->links[i]);
        b->row->host_free(b, e->buffers[i]);
    }
    b->row->host_free(b, e->input);
    pt_clipper_clear(&e->clip);
    free(e->flights);
    free(e->timings);
    free(e->labels);
    free(e->outputs);
    free(e);
}

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
    if (is_first(e))
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
    if (is_last(e) && e->pass->want_loss) {
        pt_loss_result loss;
        PT_TRY(compute_loss(e, f, &loss, err));
        e->sums.loss += loss.loss;
        e->sums.correct += loss.correct;
        e->sums.samples += f->item.samples;
    }
    if (is_last(e) && e->spec.hooks.predicted) {
        PT_TRY(pt_stage_predictions(e->spec.stage, &f->mb, e->outputs, err));
        PT_TRY(e->spec.hooks.predicted(e->spec.hooks.context, &f->item, e->outputs, err));
    }
    if (is_last(e))
        depart(e, f); /* elsewhere SEND_ACT still reads it */
    return PT_OK;
}

static pt_status run_backward_input(pt_engine *e, pt_error *err)
{
    flight *f = find(e, e->action->micro_batch);
    pt_timing *t = timing_of(e, f);
    t->backward_start = pt_clock_ns();
    if (is_last(e)) {
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
    return is_last(e) ? report_step(e, lr, err) : PT_OK;
}

static pt_status run_receive_activations(pt_engine *e, pt_error *err)
{
    flight *f = NULL;
    const void *message = NULL;
    PT_TRY(arrive(e, &f, err));
    int64_t start = pt_clock_ns();
    PT_TRY(pt_link_receive(e->links[ACTS_IN], pt_stage_activation_bytes(&f->mb, /*behind=*/false),
                           &message, err));
    timing_of(e, f)->recv_act_ns = pt_clock_ns() - start;
    PT_TRY(pt_stage_unpack_activations(e->spec.stage, &f->mb, message, err));
    return pt_link_release(e->links[ACTS_IN], err);
}

static pt_status run_receive_gradients(pt_engine *e, pt_error *err)
{
    flight *f = find(e, e->action->micro_batch);
    const void *message = NULL;
    int64_t start = pt_clock_ns();
    PT_TRY(pt_link_receive(e->links[GRADS_IN], pt_stage_gradient_bytes(&f->mb, /*behind=*/true),
                           &message, err));
    timing_of(e, f)->recv_grad_ns = pt_clock_ns() - start;
    PT_TRY(pt_stage_unpack_gradients(e->spec.stage, &f->mb, message, err));
    return pt_link_release(e->links[GRADS_IN], err);
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

static pt_status run_action(pt_engine *e, pt_error *err)
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

static void link_waits(const pt_engine *e, int64_t *ret_receive, int64_t *ret_send)
{
    *ret_receive = *ret_send = 0;
    for (int i = 0; i < LINKS; i++)
        if (e->links[i]) {
            *ret_receive += pt_link_receive_wait_ns(e->links[i]);
            *ret_send += pt_link_send_wait_ns(e->links[i]);
        }
}

static pt_status run_list(pt_engine *e, pt_error *err)
{
    for (int i = 0; i < e->pass->list->n; i++) {
        e->action = &e->pass->list->actions[i];
        PT_TRY(run_action(e, err));
        PT_TRY(between_ops(e, err));
    }
    for (int i = 0; i < LINKS; i++)
        if (e->links[i] && (i == ACTS_OUT || i == GRADS_OUT))
            PT_TRY(pt_link_flush(e->links[i], err));
    return PT_OK;
}

pt_status pt_engine_run(pt_engine *e, const pt_pass *pass, bool synchronous,
                        pt_pass_result *ret_result, pt_error *err)
{
    int64_t receive = 0, sent = 0;
    link_waits(e, &receive, &sent);
    e->pass = pass;
    e->n_timings = 0;
    e->step = (pt_step_result){0};
    e->sums = (pt_pass_result){0};
    int64_t start = pt_clock_ns();
    PT_TRY(run_list(e, err)); /* on failure `action` says where */
    pt_timings_sum(e->timings, e->n_timings, synchronous, start, pt_clock_ns(), &e->sums);
    link_waits(e, &e->sums.recv_wait_ns, &e->sums.send_wait_ns);
    e->sums.recv_wait_ns -= receive;
    e->sums.send_wait_ns -= sent;
    e->action = NULL;
    *ret_result = e->sums;
    return PT_OK;
}

const pt_timing *pt_engine_timings(const pt_engine *e, int *ret_n)
{
    *ret_n = e->n_timings;
    return e->timings;
}

int64_t pt_engine_busy_ns(const pt_engine *e)
{
    return e->busy_ns;
}

void pt_engine_where(const pt_engine *e, char *text, size_t size)
{
    const pt_action *a = e ? e->action : NULL;
    if (!a) {
        *text = 0;
        return;
    }
    int used =
        snprintf(text, size, "rank %d, stage %d, %s of micro-batch %d, epoch %u",
                 pt_world_rank(e->spec.world), e->spec.stage_spec->stage,
                 pt_action_name((pt_action_kind)a->kind), a->micro_batch, (unsigned)e->pass->epoch);
    if (a->peer >= 0 && used > 0 && (size_t)used < size)
        snprintf(text + used, size - (size_t)used, ", peer rank %d", a->peer);
}
