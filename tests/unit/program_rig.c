/* See program_rig.h: problems, answers, and the naive way to get one. */
#include "program_rig.h"
#include "backend_row.h"

#include <stdlib.h>
#include <string.h>

#include "naive.h"
#include "pipetrain/init.h"
#include "suite.h"

const int rig_samples[BATCHES] = {3, 2};
pt_backend *rig_backend(const char *name)
{
    pt_error err = {PT_OK, ""};
    pt_backend_config config = {.threads = 1};
    pt_backend *b = NULL;
    assert_ok(backend_row(name)->open(&config, &b, &err), &err);
    return b;
}

void rig_fill(rig_problem *p, uint64_t seed)
{
    pt_error err = {PT_OK, ""};
    pt_rng rng;
    pt_rng_init(&rng, seed, PT_RNG_CHECK, 2, 0);
    assert_ok(pt_flat_init(&p->whole, &p->graph, 0, p->graph.n_nodes, &err), &err);
    for (int m = 0; m < BATCHES; m++) {
        int64_t n = rig_samples[m] * pt_shape_elements(&p->graph.input);
        p->input[m] = calloc((size_t)n, sizeof(float));
        assert_non_null(p->input[m]);
        for (int64_t e = 0; e < n; e++)
            p->input[m][e] = pt_rng_normal(&rng);
        for (int i = 0; i < rig_samples[m]; i++) {
            p->label[m][i] = (int32_t)pt_rng_below(&rng, CLASSES);
            p->sample[m][i] = pt_rng_u32(&rng) % 1000;
        }
    }
}

void rig_clear(rig_problem *p)
{
    for (int m = 0; m < BATCHES; m++)
        free(p->input[m]);
    pt_flat_clear(&p->whole);
    pt_graph_clear(&p->graph);
}

void rig_answer_new(const rig_problem *p, rig_answer *a)
{
    *a = (rig_answer){0};
    a->gradient = calloc(p->whole.param_elements + 1, sizeof(float));
    a->state = calloc(p->whole.state_elements + 1, sizeof(float));
    assert_true(a->gradient && a->state);
}

void rig_answer_free(rig_answer *a)
{
    free(a->gradient);
    free(a->state);
}

/* Parameters that depend on seed, layer and index alone, so that every cut gets the same. */
static void set_params(const pt_flat *flat, uint64_t seed, pt_weights *w)
{
    pt_error err = {PT_OK, ""};
    for (int i = 0; i < flat->n_params; i++) {
        const pt_flat_tensor *t = &flat->params[i];
        float *values = calloc((size_t)t->shape.elements, sizeof *values);
        assert_non_null(values);
        pt_rng rng;
        pt_rng_init(&rng, seed, PT_RNG_CHECK, (uint64_t)t->node, (uint64_t)t->index);
        for (int64_t e = 0; e < t->shape.elements; e++)
            values[e] = 0.3f * pt_rng_normal(&rng);
        assert_ok(pt_weights_set_param(w, i, values, &err), &err);
        free(values);
    }
}

void rig_move_weights(const rig_problem *p, const pt_flat *flat, pt_weights *w)
{
    if (p->moves)
        set_params(flat, SEED + 1, w);
}

pt_weights *rig_weights(const rig_problem *p, const pt_flat *flat)
{
    pt_error err = {PT_OK, ""};
    pt_weights *w = NULL;
    pt_weights_spec spec = {
        .flat = flat,
        .optimizer = {.name = "sgd"},
        .predictor = pt_predictor_find("none"),
        .lr = {.schedule = "constant"},
        .training = true,
    };
    assert_ok(pt_weights_new(p->b, &spec, &w, &err), &err);
    set_params(flat, SEED, w);
    for (int i = 0; i < flat->n_state; i++) {
        const pt_flat_tensor *t = &flat->state[i];
        float *values = calloc((size_t)t->shape.elements, sizeof *values);
        assert_non_null(values);
        pt_init_state(&p->graph.nodes[t->node].op, t->index, values);
        assert_ok(pt_weights_set_state(w, i, values, &err), &err);
        free(values);
    }
    return w;
}

/* Adds what a stage has to the whole network's gradient and statistics. */
void rig_gather(const rig_problem *p, pt_weights *w, const pt_flat *flat, rig_answer *a)
{
    pt_error err = {PT_OK, ""};
    for (int i = 0; i < flat->n_params; i++) {
        const pt_flat_tensor *t = &flat->params[i];
        const pt_flat_tensor *at = &p->whole.params[p->whole.first_param[t->node] + t->index];
        assert_ok(p->b->row->download(p->b, a->gradient + at->offset,
                                      pt_weights_gradient(w) + t->offset,
                                      (size_t)t->shape.elements * sizeof(float), &err),
                  &err);
    }
    for (int i = 0; i < flat->n_state; i++) {
        const pt_flat_tensor *t = &flat->state[i];
        const pt_flat_tensor *at = &p->whole.state[p->whole.first_state[t->node] + t->index];
        assert_ok(pt_weights_get_state(w, i, a->state + at->offset, &err), &err);
    }
}

void rig_naive_answer(const rig_problem *p, pt_mode mode, rig_answer *ret_answer)
{
    rig_answer_new(p, ret_answer);
    pt_weights *w = rig_weights(p, &p->whole), *back = rig_weights(p, &p->whole);
    rig_move_weights(p, &p->whole, back);
    for (int m = 0; m < BATCHES; m++) {
        naive_run run = {
            .dev_params = pt_weights_now(w).dev_params,
            .dev_gradient = pt_weights_gradient(w),
            .dev_state = pt_weights_state(w),
            .accumulate = m > 0,
            .seed = SEED,
            .epoch = EPOCH,
            .sample = p->sample[m],
            .input = p->input[m],
            .label = p->label[m],
            .scale = RIG_SCALE,
            .recompute = p->recompute,
            .begins = p->begins,
            .stages = p->stages,
            .dev_params_back = pt_weights_now(back).dev_params,
        };
        naive *n = naive_new(p->b, &p->graph, &p->whole, rig_samples[m], mode);
        naive_evaluate(n, &run, ret_answer->predictions[m], &ret_answer->loss[m]);
        naive_free(n);
    }
    rig_gather(p, w, &p->whole, ret_answer);
    pt_weights_free(w);
    pt_weights_free(back);
}

static bool same_bits(const float *a, const float *b, size_t n)
{
    return memcmp(a, b, n * sizeof *a) == 0;
}

void rig_assert_same(const rig_problem *p, const rig_answer *want, const rig_answer *got,
                     const char *how, uint64_t seed, int stages)
{
    for (int m = 0; m < BATCHES; m++) {
        if (want->loss[m].loss != got->loss[m].loss ||
            want->loss[m].correct != got->loss[m].correct)
            fail_msg("%s, graph %llu, %d stages: loss of micro-batch %d is %.17g, not %.17g", how,
                     (unsigned long long)seed, stages, m, got->loss[m].loss, want->loss[m].loss);
        if (!same_bits(want->predictions[m], got->predictions[m], (size_t)rig_samples[m] * CLASSES))
            fail_msg("%s, graph %llu, %d stages: predictions of micro-batch %d differ", how,
                     (unsigned long long)seed, stages, m);
    }
    for (int i = 0; i < p->whole.n_params; i++) {
        const pt_flat_tensor *t = &p->whole.params[i];
        if (!same_bits(want->gradient + t->offset, got->gradient + t->offset,
                       (size_t)t->shape.elements))
            fail_msg("%s, graph %llu, %d stages: gradient of %s.%s differs", how,
                     (unsigned long long)seed, stages, p->graph.nodes[t->node].name, t->shape.name);
    }
    if (!same_bits(want->state, got->state, p->whole.state_elements))
        fail_msg("%s, graph %llu, %d stages: running statistics differ", how,
                 (unsigned long long)seed, stages);
}
