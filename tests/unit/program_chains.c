/* See program_rig.h: a network as a chain of programs, and as a chain of stages. */
#include <math.h>
#include <stdlib.h>

#include "program_rig.h"
#include "suite.h"

/* ---- a chain of bare programs -----------------------------------------------------------------
 */

static void poison(const rig_problem *p, void *dev, size_t bytes)
{
    pt_error err = {PT_OK, ""};
    float *nans = malloc(bytes + sizeof *nans);
    assert_non_null(nans);
    for (size_t i = 0; i <= bytes / sizeof *nans; i++)
        nans[i] = NAN;
    assert_ok(p->b->row->upload(p->b, dev, nans, bytes, &err), &err);
    free(nans);
}

static void *memory(const rig_problem *p, size_t bytes)
{
    pt_error err = {PT_OK, ""};
    void *dev = NULL;
    assert_ok(p->b->row->dev_new(p->b, bytes, &dev, &err), &err);
    return dev;
}

void rig_parts_open(const rig_problem *p, const pt_stage_spec *specs, int stages, pt_mode mode,
                    bool holds, rig_part *parts)
{
    pt_error err = {PT_OK, ""};
    for (int s = 0; s < stages; s++) {
        rig_part *at = &parts[s];
        *at = (rig_part){.spec = &specs[s]};
        assert_ok(pt_flat_init(&at->flat, &p->graph, specs[s].first, specs[s].end, &err), &err);
        at->weights = rig_weights(p, &at->flat);
        size_t scratch = 0;
        for (int m = 0; m < BATCHES; m++) {
            assert_ok(pt_program_new(p->b, &p->graph, &specs[s], &at->flat, rig_samples[m], mode,
                                     holds, p->recompute, &at->program[m], &err),
                      &err);
            assert_ok(pt_program_build(at->program[m], &err), &err);
            at->stash[m] = memory(p, pt_program_stash_bytes(at->program[m]));
            at->held[m] = memory(p, pt_program_held_bytes(at->program[m]));
            if (pt_program_scratch_bytes(at->program[m]) > scratch)
                scratch = pt_program_scratch_bytes(at->program[m]);
        }
        at->scratch = memory(p, scratch);
    }
}

void rig_parts_close(const rig_problem *p, rig_part *parts, int stages)
{
    for (int s = 0; s < stages; s++) {
        for (int m = 0; m < BATCHES; m++) {
            pt_program_free(parts[s].program[m]);
            p->b->row->dev_free(p->b, parts[s].stash[m]);
            p->b->row->dev_free(p->b, parts[s].held[m]);
        }
        p->b->row->dev_free(p->b, parts[s].scratch);
        pt_stage_free(parts[s].stage);
        pt_weights_free(parts[s].weights);
        pt_flat_clear(&parts[s].flat);
    }
}

pt_program_run rig_run(const rig_problem *p, const rig_part *at, int m)
{
    pt_weight_set now = pt_weights_now(at->weights);
    return (pt_program_run){
        .dev_stash = at->stash[m],
        .dev_scratch = at->scratch,
        .dev_held = at->held[m],
        .dev_params = now.dev_params,
        .params_version = now.content,
        .dev_gradient = pt_weights_gradient(at->weights),
        .dev_state = pt_weights_state(at->weights),
        .accumulate = m > 0,
        .seed = SEED,
        .epoch = EPOCH,
        .dev_sample = p->sample[m],
    };
}

typedef void *(*address_fn)(const pt_program *program, const pt_program_run *run, int value);

/* Copies the values of a cut from one stage's memory to its neighbour's. */
static void carry(const rig_problem *p, int m, const rig_part *from, const rig_part *to,
                  const int *values, int n, address_fn at_source, address_fn at_goal)
{
    pt_error err = {PT_OK, ""};
    pt_program_run source = rig_run(p, from, m), goal = rig_run(p, to, m);
    for (int i = 0; i < n; i++) {
        const void *dev = at_source(from->program[m], &source, values[i]);
        if (!dev && values[i] == 0)
            continue; /* the model's input has no gradient */
        assert_non_null(dev);
        assert_ok(p->b->row->copy(p->b, at_goal(to->program[m], &goal, values[i]), dev,
                                  pt_program_layout(from->program[m], values[i])->bytes, &err),
                  &err);
    }
}

static void predict(const rig_problem *p, const rig_part *at, int m, float *dst)
{
    pt_error err = {PT_OK, ""};
    int last = p->graph.n_nodes;
    pt_program_run run = rig_run(p, at, m);
    pt_layout *plain = NULL;
    assert_ok(p->b->row->plain_layout(p->b, &p->graph.loss.shape, rig_samples[m], &plain, &err),
              &err);
    void *dev = memory(p, plain->bytes);
    assert_ok(p->b->row->reorder(p->b, &p->graph.loss.shape, rig_samples[m],
                                 pt_program_layout(at->program[m], last),
                                 pt_program_value(at->program[m], &run, last), plain, dev, &err),
              &err);
    assert_ok(p->b->row->download(p->b, dst, dev, plain->bytes, &err), &err);
    p->b->row->dev_free(p->b, dev);
    p->b->row->layout_free(p->b, plain);
}

static void forward_chain(const rig_problem *p, rig_part *parts, int stages, int m,
                          float *predictions)
{
    pt_error err = {PT_OK, ""};
    for (int s = 0; s < stages; s++) {
        rig_part *at = &parts[s];
        pt_program_run run = rig_run(p, at, m);
        poison(p, at->stash[m], pt_program_stash_bytes(at->program[m]));
        poison(p, at->scratch, pt_program_scratch_bytes(at->program[m]));
        if (s == 0)
            assert_ok(p->b->row->upload(p->b, pt_program_value(at->program[m], &run, 0),
                                        p->input[m], pt_program_layout(at->program[m], 0)->bytes,
                                        &err),
                      &err);
        else
            carry(p, m, at - 1, at, at->spec->in, at->spec->n_in, pt_program_value,
                  pt_program_value);
        assert_ok(pt_program_forward(at->program[m], &run, &err), &err);
    }
    predict(p, &parts[stages - 1], m, predictions);
}

static void loss_of(const rig_problem *p, const rig_part *at, int m, bool train,
                    pt_loss_result *ret_loss)
{
    pt_error err = {PT_OK, ""};
    int last = p->graph.n_nodes;
    pt_program_run run = rig_run(p, at, m);
    pt_loss_args loss = {
        .layout = pt_program_layout(at->program[m], last),
        .samples = rig_samples[m],
        .dev_y = pt_program_value(at->program[m], &run, last),
        .dev_label = p->label[m],
        .scale = RIG_SCALE,
        .dev_d_y = train ? pt_program_gradient_in(at->program[m], &run, last) : NULL,
        .host_result = ret_loss,
    };
    assert_ok(p->b->row->loss(p->b, &p->graph.loss, &loss, &err), &err);
}

static void backward_chain(const rig_problem *p, rig_part *parts, int stages, int m,
                           pt_loss_result *ret_loss)
{
    pt_error err = {PT_OK, ""};
    for (int s = stages - 1; s >= 0; s--) {
        rig_part *at = &parts[s];
        pt_program_run run = rig_run(p, at, m);
        poison(p, at->scratch, pt_program_scratch_bytes(at->program[m]));
        poison(p, at->held[m], pt_program_held_bytes(at->program[m]));
        if (s == stages - 1)
            loss_of(p, at, m, /*train=*/true, ret_loss);
        else
            carry(p, m, at + 1, at, at->spec->out, at->spec->n_out, pt_program_gradient_out,
                  pt_program_gradient_in);
        assert_ok(pt_program_backward_input(at->program[m], &run, &err), &err);
    }
}

static void weights_chain(const rig_problem *p, rig_part *parts, int stages, int m)
{
    pt_error err = {PT_OK, ""};
    for (int s = 0; s < stages; s++) {
        pt_program_run run = rig_run(p, &parts[s], m);
        assert_ok(pt_program_backward_weight(parts[s].program[m], &run, &err), &err);
    }
}

void rig_program_answer(const rig_problem *p, const pt_stage_spec *specs, int stages, pt_mode mode,
                        bool holds, rig_answer *ret_answer)
{
    rig_part parts[MOST_STAGES];
    rig_answer_new(p, ret_answer);
    rig_parts_open(p, specs, stages, mode, holds, parts);
    for (int m = 0; m < BATCHES; m++) {
        forward_chain(p, parts, stages, m, ret_answer->predictions[m]);
        if (mode == PT_EVAL)
            loss_of(p, &parts[stages - 1], m, /*train=*/false, &ret_answer->loss[m]);
    }
    for (int s = 0; s < stages; s++)
        rig_move_weights(p, &parts[s].flat, parts[s].weights);
    for (int m = 0; m < BATCHES && mode == PT_TRAIN; m++) {
        backward_chain(p, parts, stages, m, &ret_answer->loss[m]);
        if (!holds)
            weights_chain(p, parts, stages, m);
    }
    for (int s = 0; s < stages && holds; s++)
        for (int m = 0; m < BATCHES; m++)
            poison(p, parts[s].scratch, pt_program_scratch_bytes(parts[s].program[m]));
    for (int m = 0; m < BATCHES && mode == PT_TRAIN && holds; m++)
        weights_chain(p, parts, stages, m);
    for (int s = 0; s < stages; s++)
        rig_gather(p, parts[s].weights, &parts[s].flat, ret_answer);
    rig_parts_close(p, parts, stages);
}

/* ---- a chain of stages ------------------------------------------------------------------------
 */

static void open_stages(const rig_problem *p, const pt_stage_spec *specs, int stages, bool holds,
                        rig_part *parts)
{
    pt_error err = {PT_OK, ""};
    for (int s = 0; s < stages; s++) {
        rig_part *at = &parts[s];
        *at = (rig_part){.spec = &specs[s]};
        assert_ok(pt_flat_init(&at->flat, &p->graph, specs[s].first, specs[s].end, &err), &err);
        at->weights = rig_weights(p, &at->flat);
        pt_stage_plan plan = {
            .backend = p->b,
            .graph = &p->graph,
            .spec = &specs[s],
            .flat = &at->flat,
            .train_sizes = {rig_samples[0], rig_samples[1]},
            .n_train_sizes = 2,
            .eval_sizes = {rig_samples[0]},
            .n_eval_sizes = 1,
            .slots = BATCHES,
            .held = holds ? BATCHES : 0,
            .recompute = p->recompute,
            .seed = SEED,
        };
        assert_ok(pt_stage_new(&plan, at->weights, &at->stage, &err), &err);
    }
}

static void *message(const rig_part *from, const rig_part *to, bool forward)
{
    size_t bytes = pt_stage_message_bytes(from->stage, /*behind=*/forward);
    assert_int_equal(bytes, pt_stage_message_bytes(to->stage, !forward));
    void *at = malloc(bytes);
    assert_non_null(at);
    return at;
}

static void forward_stages(const rig_problem *p, rig_part *parts, int stages, int m,
                           pt_micro_batch *mbs, float *predictions)
{
    pt_error err = {PT_OK, ""};
    for (int s = 0; s < stages; s++) {
        rig_part *at = &parts[s];
        assert_ok(pt_stage_begin(at->stage, PT_TRAIN, EPOCH, p->sample[m], rig_samples[m], NULL,
                                 &mbs[s], &err),
                  &err);
        if (s == 0) {
            assert_ok(pt_stage_load(at->stage, &mbs[s], p->input[m], &err), &err);
        } else {
            void *text = message(at - 1, at, /*forward=*/true);
            assert_int_equal(pt_stage_activation_bytes(&mbs[s - 1], true),
                             pt_stage_activation_bytes(&mbs[s], false));
            assert_ok(pt_stage_pack_activations(at[-1].stage, &mbs[s - 1], text, &err), &err);
            assert_ok(pt_stage_unpack_activations(at->stage, &mbs[s], text, &err), &err);
            free(text);
        }
        assert_ok(pt_stage_forward(at->stage, &mbs[s], /*staleness=*/0, NULL, &err), &err);
    }
    rig_part *last = &parts[stages - 1];
    assert_ok(pt_stage_predictions(last->stage, &mbs[stages - 1], predictions, &err), &err);
}

/* The end of a micro-batch on a stage. */
static void weights_stage(rig_part *at, int m, pt_micro_batch *mb)
{
    pt_error err = {PT_OK, ""};
    assert_ok(pt_stage_backward_weight(at->stage, mb, m > 0, NULL, &err), &err);
    assert_ok(pt_stage_end(at->stage, mb, &err), &err);
}

static void backward_stages(const rig_problem *p, rig_part *parts, int stages, int m, bool holds,
                            pt_micro_batch *mbs, pt_loss_result *ret_loss)
{
    pt_error err = {PT_OK, ""};
    for (int s = stages - 1; s >= 0; s--) {
        rig_part *at = &parts[s];
        if (s == stages - 1)
            assert_ok(pt_stage_loss(at->stage, &mbs[s], p->label[m], RIG_SCALE, ret_loss, &err),
                      &err);
        assert_ok(pt_stage_backward_input(at->stage, &mbs[s], m > 0, NULL, &err), &err);
        if (s > 0) {
            void *text = message(at, at - 1, /*forward=*/false);
            assert_int_equal(pt_stage_gradient_bytes(&mbs[s], false),
                             pt_stage_gradient_bytes(&mbs[s - 1], true));
            assert_ok(pt_stage_pack_gradients(at->stage, &mbs[s], text, &err), &err);
            assert_ok(pt_stage_unpack_gradients(at[-1].stage, &mbs[s - 1], text, &err), &err);
            free(text);
        }
        if (!holds)
            weights_stage(at, m, &mbs[s]);
    }
}

void rig_stage_answer(const rig_problem *p, const pt_stage_spec *specs, int stages, bool holds,
                      rig_answer *ret_answer)
{
    rig_part parts[MOST_STAGES];
    pt_micro_batch mbs[BATCHES][MOST_STAGES];
    rig_answer_new(p, ret_answer);
    open_stages(p, specs, stages, holds, parts);
    for (int m = 0; m < BATCHES; m++)
        forward_stages(p, parts, stages, m, mbs[m], ret_answer->predictions[m]);
    for (int s = 0; s < stages; s++)
        rig_move_weights(p, &parts[s].flat, parts[s].weights);
    for (int m = 0; m < BATCHES; m++)
        backward_stages(p, parts, stages, m, holds, mbs[m], &ret_answer->loss[m]);
    for (int m = 0; m < BATCHES && holds; m++)
        for (int s = 0; s < stages; s++)
            weights_stage(&parts[s], m, &mbs[m][s]);
    for (int s = 0; s < stages; s++)
        rig_gather(p, parts[s].weights, &parts[s].flat, ret_answer);
    rig_parts_close(p, parts, stages);
}
