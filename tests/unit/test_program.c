/* pt_program and pt_stage against an evaluation that never shares memory (naive.h), bit by bit, on
 * random graphs: whole, and cut into up to four stages chained by messages. Scratch is filled with
 * NaN whenever a plan may not count on what is there, the stash before every forward. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "suite.h"

#include "naive.h"
#include "pipetrain/init.h"
#include "pipetrain/stage.h"
#include "random_graph.h"

enum {
    CLASSES = 3,
    GRAPHS = 60, /* random ones, per backend */
    MOST_STAGES = 4,
    BATCHES = 2, /* micro-batches in flight */
    MOST_SAMPLES = 3,
    SEED = 11,
    EPOCH = 2
};

static const int samples_of[BATCHES] = {3, 2}; /* the last one is short */
static const float SCALE = 1.0f / 5;           /* of a step with both */

/* What goes in, and the whole network's map of parameters. */
typedef struct problem {
    pt_backend *b;
    pt_graph graph;
    pt_flat whole;
    float *input[BATCHES];
    int32_t label[BATCHES][MOST_SAMPLES];
    uint32_t sample[BATCHES][MOST_SAMPLES];
} problem;

/* What comes out; gradient and state lie as problem.whole says. */
typedef struct answer {
    float predictions[BATCHES][MOST_SAMPLES * CLASSES];
    pt_loss_result loss[BATCHES];
    float *gradient, *state;
} answer;

/* One stage. */
typedef struct part {
    const pt_stage_spec *spec;
    pt_flat flat;
    pt_weights *weights;
    pt_program *program[BATCHES];
    void *stash[BATCHES], *scratch;
    pt_stage *stage;
} part;

/* ---- problems ---------------------------------------------------------------------------------
 */

static pt_backend *open_backend(const char *name)
{
    pt_error err = {PT_OK, ""};
    pt_backend_config config = {.threads = 1};
    pt_backend *b = NULL;
    assert_ok(pt_backend_find(name)->open(&config, &b, &err), &err);
    return b;
}

static void fill_problem(problem *p, uint64_t seed)
{
    pt_error err = {PT_OK, ""};
    pt_rng rng;
    pt_rng_init(&rng, seed, PT_RNG_CHECK, 2, 0);
    assert_ok(pt_flat_init(&p->whole, &p->graph, 0, p->graph.n_nodes, &err), &err);
    for (int m = 0; m < BATCHES; m++) {
        int64_t n = samples_of[m] * pt_shape_elements(&p->graph.input);
        p->input[m] = calloc((size_t)n, sizeof(float));
        assert_non_null(p->input[m]);
        for (int64_t e = 0; e < n; e++)
            p->input[m][e] = pt_rng_normal(&rng);
        for (int i = 0; i < samples_of[m]; i++) {
            p->label[m][i] = (int32_t)pt_rng_below(&rng, CLASSES);
            p->sample[m][i] = pt_rng_u32(&rng) % 1000;
        }
    }
}

static void clear_problem(problem *p)
{
    for (int m = 0; m < BATCHES; m++)
        free(p->input[m]);
    pt_flat_clear(&p->whole);
    pt_graph_clear(&p->graph);
}

static void new_answer(const problem *p, answer *a)
{
    *a = (answer){0};
    a->gradient = calloc(p->whole.param_elements + 1, sizeof(float));
    a->state = calloc(p->whole.state_elements + 1, sizeof(float));
    assert_true(a->gradient && a->state);
}

static void clear_answer(answer *a)
{
    free(a->gradient);
    free(a->state);
}

/* Parameters that depend on layer and index alone, so that every cut gets the same. */
static pt_weights *new_weights(const problem *p, const pt_flat *flat)
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
    for (int i = 0; i < flat->n_params; i++) {
        const pt_flat_tensor *t = &flat->params[i];
        float *values = calloc((size_t)t->shape.elements, sizeof *values);
        assert_non_null(values);
        pt_rng rng;
        pt_rng_init(&rng, SEED, PT_RNG_CHECK, (uint64_t)t->node, (uint64_t)t->index);
        for (int64_t e = 0; e < t->shape.elements; e++)
            values[e] = 0.3f * pt_rng_normal(&rng);
        assert_ok(pt_weights_set_param(w, i, values, &err), &err);
        free(values);
    }
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
static void gather(const problem *p, pt_weights *w, const pt_flat *flat, answer *a)
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

static void naive_answer(const problem *p, pt_mode mode, answer *ret_answer)
{
    new_answer(p, ret_answer);
    pt_weights *w = new_weights(p, &p->whole);
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
            .scale = SCALE,
        };
        naive *n = naive_new(p->b, &p->graph, &p->whole, samples_of[m], mode);
        naive_evaluate(n, &run, ret_answer->predictions[m], &ret_answer->loss[m]);
        naive_free(n);
    }
    gather(p, w, &p->whole, ret_answer);
    pt_weights_free(w);
}

static bool same_bits(const float *a, const float *b, size_t n)
{
    return memcmp(a, b, n * sizeof *a) == 0;
}

static void assert_same(const problem *p, const answer *want, const answer *got, const char *how,
                        uint64_t seed, int stages)
{
    for (int m = 0; m < BATCHES; m++) {
        if (want->loss[m].loss != got->loss[m].loss ||
            want->loss[m].correct != got->loss[m].correct)
            fail_msg("%s, graph %llu, %d stages: loss of micro-batch %d is %.17g, not %.17g", how,
                     (unsigned long long)seed, stages, m, got->loss[m].loss, want->loss[m].loss);
        if (!same_bits(want->predictions[m], got->predictions[m], (size_t)samples_of[m] * CLASSES))
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

/* ---- a chain of bare programs -----------------------------------------------------------------
 */

static void poison(const problem *p, void *dev, size_t bytes)
{
    pt_error err = {PT_OK, ""};
    float *nans = malloc(bytes + sizeof *nans);
    assert_non_null(nans);
    for (size_t i = 0; i <= bytes / sizeof *nans; i++)
        nans[i] = NAN;
    assert_ok(p->b->row->upload(p->b, dev, nans, bytes, &err), &err);
    free(nans);
}

static void *memory(const problem *p, size_t bytes)
{
    pt_error err = {PT_OK, ""};
    void *dev = NULL;
    assert_ok(p->b->row->dev_new(p->b, bytes, &dev, &err), &err);
    return dev;
}

static void open_parts(const problem *p, const pt_stage_spec *specs, int stages, pt_mode mode,
                       part *parts)
{
    pt_error err = {PT_OK, ""};
    for (int s = 0; s < stages; s++) {
        part *at = &parts[s];
        *at = (part){.spec = &specs[s]};
        assert_ok(pt_flat_init(&at->flat, &p->graph, specs[s].first, specs[s].end, &err), &err);
        at->weights = new_weights(p, &at->flat);
        size_t scratch = 0;
        for (int m = 0; m < BATCHES; m++) {
            assert_ok(pt_program_new(p->b, &p->graph, &specs[s], &at->flat, samples_of[m], mode,
                                     &at->program[m], &err),
                      &err);
            assert_ok(pt_program_build(at->program[m], &err), &err);
            at->stash[m] = memory(p, pt_program_stash_bytes(at->program[m]));
            if (pt_program_scratch_bytes(at->program[m]) > scratch)
                scratch = pt_program_scratch_bytes(at->program[m]);
        }
        at->scratch = memory(p, scratch);
    }
}

static void close_parts(const problem *p, part *parts, int stages)
{
    for (int s = 0; s < stages; s++) {
        for (int m = 0; m < BATCHES; m++) {
            pt_program_free(parts[s].program[m]);
            p->b->row->dev_free(p->b, parts[s].stash[m]);
        }
        p->b->row->dev_free(p->b, parts[s].scratch);
        pt_stage_free(parts[s].stage);
        pt_weights_free(parts[s].weights);
        pt_flat_clear(&parts[s].flat);
    }
}

static pt_program_run run_of(const problem *p, const part *at, int m)
{
    pt_weight_set now = pt_weights_now(at->weights);
    return (pt_program_run){
        .dev_stash = at->stash[m],
        .dev_scratch = at->scratch,
        .dev_params = now.dev_params,
        .params_version = now.content,
        .dev_gradient = pt_weights_gradient(at->weights),
        .dev_state = pt_weights_state(at->weights),
        .accumulate = m > 0,
        .seed = SEED,
        .epoch = EPOCH,
        .sample = p->sample[m],
    };
}

typedef void *(*address_fn)(const pt_program *program, const pt_program_run *run, int value);

/* Copies the values of a cut from one stage's memory to its neighbour's. */
static void carry(const problem *p, int m, const part *from, const part *to, const int *values,
                  int n, address_fn at_source, address_fn at_goal)
{
    pt_error err = {PT_OK, ""};
    pt_program_run source = run_of(p, from, m), goal = run_of(p, to, m);
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

static void predict(const problem *p, const part *at, int m, float *dst)
{
    pt_error err = {PT_OK, ""};
    int last = p->graph.n_nodes;
    pt_program_run run = run_of(p, at, m);
    pt_layout *plain = NULL;
    assert_ok(p->b->row->plain_layout(p->b, &p->graph.loss.shape, samples_of[m], &plain, &err),
              &err);
    void *dev = memory(p, plain->bytes);
    assert_ok(p->b->row->reorder(p->b, &p->graph.loss.shape, samples_of[m],
                                 pt_program_layout(at->program[m], last),
                                 pt_program_value(at->program[m], &run, last), plain, dev, &err),
              &err);
    assert_ok(p->b->row->download(p->b, dst, dev, plain->bytes, &err), &err);
    p->b->row->dev_free(p->b, dev);
    p->b->row->layout_free(p->b, plain);
}

static void forward_chain(const problem *p, part *parts, int stages, int m, float *predictions)
{
    pt_error err = {PT_OK, ""};
    for (int s = 0; s < stages; s++) {
        part *at = &parts[s];
        pt_program_run run = run_of(p, at, m);
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

static void loss_of(const problem *p, const part *at, int m, bool train, pt_loss_result *ret_loss)
{
    pt_error err = {PT_OK, ""};
    int last = p->graph.n_nodes;
    pt_program_run run = run_of(p, at, m);
    pt_loss_args loss = {
        .layout = pt_program_layout(at->program[m], last),
        .samples = samples_of[m],
        .dev_y = pt_program_value(at->program[m], &run, last),
        .label = p->label[m],
        .scale = SCALE,
        .dev_d_y = train ? pt_program_gradient_in(at->program[m], &run, last) : NULL,
    };
    assert_ok(p->b->row->loss(p->b, &p->graph.loss, &loss, ret_loss, &err), &err);
}

static void backward_chain(const problem *p, part *parts, int stages, int m,
                           pt_loss_result *ret_loss)
{
    pt_error err = {PT_OK, ""};
    for (int s = stages - 1; s >= 0; s--) {
        part *at = &parts[s];
        pt_program_run run = run_of(p, at, m);
        poison(p, at->scratch, pt_program_scratch_bytes(at->program[m]));
        if (s == stages - 1)
            loss_of(p, at, m, /*train=*/true, ret_loss);
        else
            carry(p, m, at + 1, at, at->spec->out, at->spec->n_out, pt_program_gradient_out,
                  pt_program_gradient_in);
        assert_ok(pt_program_backward_input(at->program[m], &run, &err), &err);
    }
    for (int s = 0; s < stages; s++) { /* scratch is the stage's own until here */
        pt_program_run run = run_of(p, &parts[s], m);
        assert_ok(pt_program_backward_weight(parts[s].program[m], &run, &err), &err);
    }
}

static void program_answer(const problem *p, const pt_stage_spec *specs, int stages, pt_mode mode,
                           answer *ret_answer)
{
    part parts[MOST_STAGES];
    new_answer(p, ret_answer);
    open_parts(p, specs, stages, mode, parts);
    for (int m = 0; m < BATCHES; m++) {
        forward_chain(p, parts, stages, m, ret_answer->predictions[m]);
        if (mode == PT_EVAL)
            loss_of(p, &parts[stages - 1], m, /*train=*/false, &ret_answer->loss[m]);
    }
    for (int m = 0; m < BATCHES && mode == PT_TRAIN; m++)
        backward_chain(p, parts, stages, m, &ret_answer->loss[m]);
    for (int s = 0; s < stages; s++)
        gather(p, parts[s].weights, &parts[s].flat, ret_answer);
    close_parts(p, parts, stages);
}

/* ---- a chain of stages ------------------------------------------------------------------------
 */

static void open_stages(const problem *p, const pt_stage_spec *specs, int stages, part *parts)
{
    pt_error err = {PT_OK, ""};
    for (int s = 0; s < stages; s++) {
        part *at = &parts[s];
        *at = (part){.spec = &specs[s]};
        assert_ok(pt_flat_init(&at->flat, &p->graph, specs[s].first, specs[s].end, &err), &err);
        at->weights = new_weights(p, &at->flat);
        pt_stage_plan plan = {
            .backend = p->b,
            .graph = &p->graph,
            .spec = &specs[s],
            .flat = &at->flat,
            .train_sizes = {samples_of[0], samples_of[1]},
            .n_train_sizes = 2,
            .eval_sizes = {samples_of[0]},
            .n_eval_sizes = 1,
            .slots = BATCHES,
            .seed = SEED,
        };
        assert_ok(pt_stage_new(&plan, at->weights, &at->stage, &err), &err);
    }
}

static void *message(const part *from, const part *to, bool forward)
{
    size_t bytes = pt_stage_message_bytes(from->stage, /*behind=*/forward);
    assert_int_equal(bytes, pt_stage_message_bytes(to->stage, !forward));
    void *at = malloc(bytes);
    assert_non_null(at);
    return at;
}

static void forward_stages(const problem *p, part *parts, int stages, int m, pt_micro_batch *mbs,
                           float *predictions)
{
    pt_error err = {PT_OK, ""};
    for (int s = 0; s < stages; s++) {
        part *at = &parts[s];
        assert_ok(
            pt_stage_begin(at->stage, PT_TRAIN, EPOCH, p->sample[m], samples_of[m], &mbs[s], &err),
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
    part *last = &parts[stages - 1];
    assert_ok(pt_stage_predictions(last->stage, &mbs[stages - 1], predictions, &err), &err);
}

static void backward_stages(const problem *p, part *parts, int stages, int m, pt_micro_batch *mbs,
                            pt_loss_result *ret_loss)
{
    pt_error err = {PT_OK, ""};
    for (int s = stages - 1; s >= 0; s--) {
        part *at = &parts[s];
        if (s == stages - 1)
            assert_ok(pt_stage_loss(at->stage, &mbs[s], p->label[m], NULL, SCALE, ret_loss, &err),
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
        assert_ok(pt_stage_backward_weight(at->stage, &mbs[s], m > 0, NULL, &err), &err);
        pt_stage_end(at->stage, &mbs[s]);
    }
}

static void stage_answer(const problem *p, const pt_stage_spec *specs, int stages,
                         answer *ret_answer)
{
    part parts[MOST_STAGES];
    pt_micro_batch mbs[BATCHES][MOST_STAGES];
    new_answer(p, ret_answer);
    open_stages(p, specs, stages, parts);
    for (int m = 0; m < BATCHES; m++)
        forward_stages(p, parts, stages, m, mbs[m], ret_answer->predictions[m]);
    for (int m = 0; m < BATCHES; m++)
        backward_stages(p, parts, stages, m, mbs[m], &ret_answer->loss[m]);
    for (int s = 0; s < stages; s++)
        gather(p, parts[s].weights, &parts[s].flat, ret_answer);
    close_parts(p, parts, stages);
}

/* ---- random graphs ----------------------------------------------------------------------------
 */

static void check_cuts(const problem *p, uint64_t seed)
{
    answer want, want_eval, got;
    pt_error err = {PT_OK, ""};
    pt_rng rng;
    pt_rng_init(&rng, seed, PT_RNG_CHECK, 3, 0);
    naive_answer(p, PT_TRAIN, &want);
    naive_answer(p, PT_EVAL, &want_eval);
    for (int stages = 1; stages <= MOST_STAGES; stages++) {
        int begins[MOST_STAGES];
        pt_stage_spec *specs = NULL;
        graph_random_cut(&p->graph, &rng, stages, begins);
        assert_ok(pt_stage_specs_new(&p->graph, begins, stages, &specs, &err), &err);
        program_answer(p, specs, stages, PT_TRAIN, &got);
        assert_same(p, &want, &got, "programs", seed, stages);
        clear_answer(&got);
        program_answer(p, specs, stages, PT_EVAL, &got);
        assert_same(p, &want_eval, &got, "programs in evaluation", seed, stages);
        clear_answer(&got);
        stage_answer(p, specs, stages, &got);
        assert_same(p, &want, &got, "stages", seed, stages);
        clear_answer(&got);
        pt_stage_specs_free(specs, stages);
    }
    clear_answer(&want);
    clear_answer(&want_eval);
}

static void test_random_graphs(void **state)
{
    const char *const *names = pt_backend_names();
    (void)state;
    for (int n = 0; names[n]; n++) {
        problem p = {.b = open_backend(names[n])};
        for (uint64_t seed = 1; seed <= GRAPHS; seed++) {
            graph_random(&p.graph, seed, CLASSES);
            fill_problem(&p, seed);
            check_cuts(&p, seed);
            clear_problem(&p);
        }
        p.b->row->close(p.b);
    }
}

/* A sum whose first input has no gradient yet, while its second one's is shared: the addition must
 * not take the memory of the gradient that the first input still waits for. */
static void test_shared_gradient_of_sums(void **state)
{
    (void)state;
    problem p = {.b = open_backend("ref")};
    pt_op conv = graph_op(PT_OP_CONV2D);
    conv.features = 2;
    conv.kernel[0] = conv.kernel[1] = 1;
    graph_begin(&p.graph, (pt_shape){.ndim = 3, .dims = {2, 3, 3}}, CLASSES);
    int a = graph_add1(&p.graph, conv, 0), b = graph_add1(&p.graph, conv, 0);
    int c = graph_add1(&p.graph, conv, 0);
    int early = graph_add(&p.graph, graph_op(PT_OP_ADD), (int[]){b, a}, 2);
    int late = graph_add(&p.graph, graph_op(PT_OP_ADD), (int[]){a, c}, 2);
    int both = graph_add(&p.graph, graph_op(PT_OP_CONCAT), (int[]){early, late}, 2);
    pt_op linear = graph_op(PT_OP_LINEAR);
    linear.features = CLASSES;
    graph_add1(&p.graph, linear, graph_add1(&p.graph, graph_op(PT_OP_FLATTEN), both));
    fill_problem(&p, /*seed=*/1);
    check_cuts(&p, /*seed=*/0);
    clear_problem(&p);
    p.b->row->close(p.b);
}

/* ---- the plan itself --------------------------------------------------------------------------
 */

/* input → conv → relu → conv → linear: may the relu overwrite the first convolution's output? With
 * `second_reader` another layer reads it too; `cut` is where the second of two stages begins. */
static bool relu_runs_in_place(bool second_reader, int cut)
{
    problem p = {.b = open_backend("ref")};
    pt_error err = {PT_OK, ""};
    pt_op conv = graph_op(PT_OP_CONV2D), linear = graph_op(PT_OP_LINEAR);
    conv.features = 2;
    conv.kernel[0] = conv.kernel[1] = 1;
    linear.features = CLASSES;
    graph_begin(&p.graph, (pt_shape){.ndim = 3, .dims = {2, 3, 3}}, CLASSES);
    int made = graph_add1(&p.graph, conv, 0);
    int cut_off = graph_add1(&p.graph, graph_op(PT_OP_RELU), made);
    int next = graph_add1(&p.graph, conv, cut_off);
    if (second_reader)
        next = graph_add(&p.graph, graph_op(PT_OP_ADD), (int[]){next, made}, 2);
    graph_add1(&p.graph, linear, graph_add1(&p.graph, graph_op(PT_OP_FLATTEN), next));
    fill_problem(&p, /*seed=*/1);
    int stages = cut > 0 ? 2 : 1;
    pt_stage_spec *specs = NULL;
    part parts[2];
    assert_ok(pt_stage_specs_new(&p.graph, (int[]){0, cut}, stages, &specs, &err), &err);
    open_parts(&p, specs, stages, PT_TRAIN, parts);
    const part *at = &parts[cut > 0 && cut <= cut_off - 1]; /* the relu is node cut_off - 1 */
    pt_program_run run = run_of(&p, at, 0);
    bool in_place = pt_program_value(at->program[0], &run, made) ==
                    pt_program_value(at->program[0], &run, cut_off);
    close_parts(&p, parts, stages);
    pt_stage_specs_free(specs, stages);
    clear_problem(&p);
    p.b->row->close(p.b);
    return in_place;
}

static void test_in_place_only_where_allowed(void **state)
{
    (void)state;
    assert_true(relu_runs_in_place(/*second_reader=*/false, /*cut=*/0));
    assert_true(relu_runs_in_place(/*second_reader=*/false, /*cut=*/2));  /* right after the relu */
    assert_false(relu_runs_in_place(/*second_reader=*/false, /*cut=*/1)); /* right before it */
    assert_false(relu_runs_in_place(/*second_reader=*/true, /*cut=*/0));
    assert_false(relu_runs_in_place(/*second_reader=*/true, /*cut=*/2)); /* crosses, too */
}

/* Whatever shares an address in a random graph may share it. */
static void check_sharing(const problem *p, const part *at, const naive *n)
{
    pt_program_run run = run_of(p, at, 0);
    for (int i = at->spec->first; i < at->spec->end; i++) {
        int from = p->graph.nodes[i].inputs[0];
        if (pt_program_value(at->program[0], &run, from) !=
            pt_program_value(at->program[0], &run, i + 1))
            continue;
        unsigned flags = naive_kernel(n, i)->flags;
        if (flags & PT_PASSES_VALUE)
            continue;
        bool sent = false;
        for (int v = 0; v < at->spec->n_out; v++)
            sent |= at->spec->out[v] == from;
        bool last_read = graph_readers(&p->graph, from) == 1;
        if (!last_read) /* only another time's bytes: the last reader has gone */
            continue;
        assert_true(flags & PT_MAY_RUN_IN_PLACE);
        assert_false(sent);
        assert_true(from > at->spec->first);
        assert_false(naive_kernel(n, from - 1)->flags & PT_READS_OUTPUT_FOR_INPUT);
    }
}

static void test_sharing_in_random_graphs(void **state)
{
    (void)state;
    problem p = {.b = open_backend("ref")};
    for (uint64_t seed = 1; seed <= GRAPHS; seed++) {
        pt_error err = {PT_OK, ""};
        pt_stage_spec *specs = NULL;
        part parts[2];
        pt_rng rng;
        int begins[2];
        graph_random(&p.graph, seed, CLASSES);
        fill_problem(&p, seed);
        pt_rng_init(&rng, seed, PT_RNG_CHECK, 4, 0);
        graph_random_cut(&p.graph, &rng, 2, begins);
        assert_ok(pt_stage_specs_new(&p.graph, begins, 2, &specs, &err), &err);
        open_parts(&p, specs, 2, PT_TRAIN, parts);
        naive *n = naive_new(p.b, &p.graph, &p.whole, samples_of[0], PT_TRAIN);
        check_sharing(&p, &parts[0], n);
        check_sharing(&p, &parts[1], n);
        naive_free(n);
        close_parts(&p, parts, 2);
        pt_stage_specs_free(specs, 2);
        clear_problem(&p);
    }
    p.b->row->close(p.b);
}

/* Twenty sums in a row, each of a value with itself, need no more than a few buffers of the twenty
 * values: nothing of them is wanted in the backward. */
static void test_scratch_is_shared(void **state)
{
    (void)state;
    enum { SUMS = 20, LIVE_AT_ONCE = 3 };
    problem p = {.b = open_backend("ref")};
    pt_error err = {PT_OK, ""};
    graph_begin(&p.graph, (pt_shape){.ndim = 1, .dims = {64}}, CLASSES);
    int value = 0;
    for (int i = 0; i < SUMS; i++)
        value = graph_add(&p.graph, graph_op(PT_OP_ADD), (int[]){value, value}, 2);
    pt_op linear = graph_op(PT_OP_LINEAR);
    linear.features = CLASSES;
    graph_add1(&p.graph, linear, value);
    fill_problem(&p, /*seed=*/1);
    pt_stage_spec *specs = NULL;
    part one;
    assert_ok(pt_stage_specs_new(&p.graph, (int[]){0}, 1, &specs, &err), &err);
    open_parts(&p, specs, 1, PT_TRAIN, &one);
    naive *n = naive_new(p.b, &p.graph, &p.whole, samples_of[0], PT_TRAIN);
    size_t one_value = pt_program_layout(one.program[0], 1)->bytes;
    assert_true(naive_value_bytes(n) > SUMS * one_value);
    assert_true(pt_program_scratch_bytes(one.program[0]) <= LIVE_AT_ONCE * one_value);
    naive_free(n);
    close_parts(&p, &one, 1);
    pt_stage_specs_free(specs, 1);
    clear_problem(&p);
    p.b->row->close(p.b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_graphs),
        cmocka_unit_test(test_shared_gradient_of_sums),
        cmocka_unit_test(test_in_place_only_where_allowed),
        cmocka_unit_test(test_sharing_in_random_graphs),
        cmocka_unit_test(test_scratch_is_shared),
    };
    return cmocka_run_group_tests_name("program", tests, NULL, NULL);
}
