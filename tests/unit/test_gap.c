/* The gap between what a forward read and what its gradient meets, on a stage of one layer whose
 * weights are all alike and move by numbers that floats hold exactly. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "backend_row.h"
#include "suite.h"

#include "pipetrain/stage.h"
#include "random_graph.h"

enum { FEATURES = 5, SLOTS = 4, SAMPLES = 2 };

/* Steps from v = 0 with gradients of one, γ = 1/2 and η = 1/4: v = 1, 3/2, 7/4 … */
static const float START = 2, FIRST = 0.25f, SECOND = 0.375f, THIRD = 0.4375f;
static const float INPUT[SAMPLES * FEATURES];

typedef struct fixture {
    pt_backend *b;
    pt_graph graph;
    pt_flat flat;
    pt_stage_spec *specs;
    pt_stage_plan plan;
    pt_weights_spec weights_spec;
    pt_weights *weights;
    pt_stage *stage;
    size_t before; /* bytes of the backend before the stage was made */
    pt_micro_batch mb[SLOTS];
} fixture;

static size_t bytes_now(const pt_backend *b)
{
    size_t now = 0, peak = 0;
    b->row->memory(b, &now, &peak);
    return now;
}

static void fill(fixture *f, float value)
{
    pt_error err = {PT_OK, ""};
    float values[FEATURES * FEATURES];
    for (int i = 0; i < FEATURES * FEATURES; i++)
        values[i] = value;
    for (int i = 0; i < f->flat.n_params; i++)
        assert_ok(pt_weights_set_param(f->weights, i, values, &err), &err);
}

static void begin(fixture *f, pt_op_kind kind, const char *predictor, bool stash, int64_t every)
{
    pt_error err = {PT_OK, ""};
    pt_backend_config config = {.threads = 1};
    int zero = 0;
    *f = (fixture){0};
    assert_ok(backend_row("ref")->open(&config, &f->b, &err), &err);
    graph_begin(&f->graph, (pt_shape){.ndim = 1, .dims = {FEATURES}}, FEATURES);
    pt_op op = graph_op(kind);
    op.features = FEATURES;
    graph_add1(&f->graph, op, 0);
    assert_ok(pt_flat_init(&f->flat, &f->graph, 0, f->graph.n_nodes, &err), &err);
    assert_ok(pt_stage_specs_new(&f->graph, &zero, 1, &f->specs, &err), &err);
    f->weights_spec = (pt_weights_spec){
        .flat = &f->flat,
        .optimizer = {.name = "sgd", .momentum = 0.5},
        .predictor = pt_predictor_find(predictor),
        .lr = {.schedule = "constant", .base = 0.25},
        .stash = stash,
        .versions = SLOTS,
        .training = true,
    };
    f->plan = (pt_stage_plan){
        .backend = f->b,
        .graph = &f->graph,
        .spec = f->specs,
        .flat = &f->flat,
        .train_sizes = {SAMPLES},
        .n_train_sizes = 1,
        .eval_sizes = {SAMPLES},
        .n_eval_sizes = 1,
        .slots = SLOTS,
        .gap_every = every,
    };
    f->before = bytes_now(f->b);
    assert_ok(pt_weights_new(f->b, &f->weights_spec, &f->weights, &err), &err);
    assert_ok(pt_stage_new(&f->plan, f->weights, &f->stage, &err), &err);
    fill(f, START);
}

static void end(fixture *f)
{
    pt_stage_free(f->stage);
    pt_weights_free(f->weights);
    assert_int_equal(bytes_now(f->b), f->before);
    pt_stage_specs_free(f->specs, 1);
    pt_flat_clear(&f->flat);
    pt_graph_clear(&f->graph);
    f->b->row->close(f->b);
}

static void forward(fixture *f, int m, pt_mode mode, int staleness)
{
    static const uint32_t sample[SAMPLES] = {0, 1};
    pt_error err = {PT_OK, ""};
    pt_micro_batch *mb = &f->mb[m];
    assert_ok(pt_stage_begin(f->stage, mode, /*epoch=*/0, sample, SAMPLES, NULL, mb, &err), &err);
    assert_ok(pt_stage_load(f->stage, mb, INPUT, &err), &err);
    assert_ok(pt_stage_forward(f->stage, mb, staleness, NULL, &err), &err);
}

static void backward(fixture *f, int m)
{
    static const int32_t label[SAMPLES] = {0, 1};
    pt_error err = {PT_OK, ""};
    pt_loss_result result;
    pt_micro_batch *mb = &f->mb[m];
    assert_ok(pt_stage_loss(f->stage, mb, label, 1, &result, &err), &err);
    assert_ok(pt_stage_backward_input(f->stage, mb, /*accumulate=*/false, NULL, &err), &err);
    assert_ok(pt_stage_backward_weight(f->stage, mb, /*accumulate=*/false, NULL, &err), &err);
    assert_ok(pt_stage_end(f->stage, mb, &err), &err);
}

/* One update with this gradient for every weight; padding has none. */
static void update(fixture *f, float gradient)
{
    pt_error err = {PT_OK, ""};
    float *values = calloc(f->flat.param_elements, sizeof *values);
    assert_non_null(values);
    for (int i = 0; i < f->flat.n_params; i++)
        for (int64_t e = 0; e < f->flat.params[i].shape.elements; e++)
            values[f->flat.params[i].offset + (size_t)e] = gradient;
    assert_ok(f->b->row->upload(f->b, pt_weights_gradient(f->weights), values,
                                f->flat.param_elements * sizeof *values, &err),
              &err);
    assert_ok(pt_weights_update(f->weights, /*scale=*/1, &err), &err);
    free(values);
}

/* Sums of square roots of sums of a few dozen squares, in double. */
static void assert_found(const fixture *f, int measured, double rms, double relative)
{
    const double tolerance = 1e-14;
    pt_gap_found gap = pt_stage_gap(f->stage);
    assert_int_equal(gap.measured, measured);
    if (!(fabs(gap.rms - rms) <= tolerance && fabs(gap.relative - relative) <= tolerance))
        fail_msg("gap %.17g, relative %.17g; not %.17g, %.17g", gap.rms, gap.relative, rms,
                 relative);
}

/* ---- what is measured -------------------------------------------------------------------------
 */

/* The gradient is applied to θ, whatever the backward reads: stashing changes no gap. */
static void test_two_updates(void **state)
{
    (void)state;
    for (int stash = 0; stash < 2; stash++) {
        fixture f;
        begin(&f, PT_OP_LINEAR, "none", stash, /*every=*/1);
        forward(&f, 0, PT_TRAIN, 2);
        update(&f, 1);
        update(&f, 1);
        backward(&f, 0);
        double apart = (double)(FIRST + SECOND);
        assert_found(&f, 1, apart, apart / ((double)START - apart));
        end(&f);
    }
}

static void test_nothing_late_is_no_gap(void **state)
{
    (void)state;
    fixture f;
    begin(&f, PT_OP_LINEAR, "none", /*stash=*/false, /*every=*/1);
    update(&f, 1);
    forward(&f, 0, PT_TRAIN, 0);
    backward(&f, 0);
    pt_gap_found gap = pt_stage_gap(f.stage);
    assert_int_equal(gap.measured, 1);
    assert_true(gap.rms == 0 && gap.relative == 0);
    fill(&f, 0); /* nor is it a gap relative to nothing */
    forward(&f, 0, PT_TRAIN, 0);
    backward(&f, 0);
    gap = pt_stage_gap(f.stage);
    assert_int_equal(gap.measured, 2);
    assert_true(gap.rms == 0 && gap.relative == 0);
    end(&f);
}

/* What momentum does is foreseen; what gradients do is not. */
static void test_prediction(void **state)
{
    (void)state;
    for (int stash = 0; stash < 2; stash++)
        for (int moved = 0; moved < 2; moved++) {
            fixture f;
            begin(&f, PT_OP_LINEAR, "msnag", stash, /*every=*/1);
            update(&f, 1);
            forward(&f, 0, PT_TRAIN, 2);
            update(&f, (float)moved);
            update(&f, (float)moved);
            backward(&f, 0);
            double foreseen = (double)(START - FIRST) - 0.25 * (0.5 + 0.25);
            double got = (double)(START - FIRST - SECOND - THIRD);
            if (moved)
                assert_found(&f, 1, foreseen - got, (foreseen - got) / got);
            else
                assert_found(&f, 1, 0, 0);
            end(&f);
        }
}

/* ---- when -------------------------------------------------------------------------------------
 */

/* Micro-batches 0 … 3 with an update before each: every second one is due. The second is measured,
 * and the fourth comes while it is; so the fifth takes its place. */
static void test_one_at_a_time(void **state)
{
    (void)state;
    fixture f;
    begin(&f, PT_OP_LINEAR, "none", /*stash=*/false, /*every=*/2);
    for (int m = 0; m < 4; m++) {
        fill(&f, (float)(1 << m));
        forward(&f, m, PT_TRAIN, 3);
    }
    fill(&f, 16);
    backward(&f, 0);
    assert_found(&f, 0, 0, 0);
    backward(&f, 1);
    assert_found(&f, 1, 14, 14.0 / 16); /* the second read 2 */
    fill(&f, 32);
    forward(&f, 0, PT_TRAIN, 3); /* the fifth */
    backward(&f, 2);
    backward(&f, 3);
    assert_found(&f, 1, 14, 14.0 / 16);
    fill(&f, 40);
    backward(&f, 0);
    assert_found(&f, 2, 14 + 8, 14.0 / 16 + 8.0 / 40);
    forward(&f, 0, PT_TRAIN, 0); /* the sixth: the next is the second behind the fifth */
    backward(&f, 0);
    assert_int_equal(pt_stage_gap(f.stage).measured, 2);
    forward(&f, 0, PT_TRAIN, 0);
    backward(&f, 0);
    assert_int_equal(pt_stage_gap(f.stage).measured, 3);
    end(&f);
}

static void test_restart_counts_anew(void **state)
{
    (void)state;
    fixture f;
    begin(&f, PT_OP_LINEAR, "none", /*stash=*/false, /*every=*/3);
    for (int m = 0; m < 5; m++) {
        forward(&f, 0, PT_TRAIN, 1);
        update(&f, 1);
        backward(&f, 0);
    }
    assert_int_equal(pt_stage_gap(f.stage).measured, 1);
    pt_stage_gap_restart(f.stage);
    assert_found(&f, 0, 0, 0);
    for (int m = 0; m < 3; m++) {
        assert_int_equal(pt_stage_gap(f.stage).measured, 0);
        forward(&f, 0, PT_TRAIN, 0);
        backward(&f, 0);
    }
    assert_int_equal(pt_stage_gap(f.stage).measured, 1);
    end(&f);
}

static void test_evaluation_is_not_measured(void **state)
{
    (void)state;
    pt_error err = {PT_OK, ""};
    fixture f;
    begin(&f, PT_OP_LINEAR, "none", /*stash=*/false, /*every=*/1);
    forward(&f, 0, PT_EVAL, 0);
    forward(&f, 1, PT_TRAIN, 1);
    assert_ok(pt_stage_end(f.stage, &f.mb[0], &err), &err);
    fill(&f, START / 2);
    backward(&f, 1);
    assert_found(&f, 1, (double)START / 2, 1);
    end(&f);
}

/* ---- memory -----------------------------------------------------------------------------------
 */

/* A stage without weights measures nothing and takes nothing. */
static void test_bytes_are_as_predicted(void **state)
{
    (void)state;
    static const pt_op_kind kinds[] = {PT_OP_LINEAR, PT_OP_RELU};
    for (int kind = 0; kind < 2; kind++) {
        size_t taken[2];
        for (int every = 0; every < 2; every++) {
            pt_error err = {PT_OK, ""};
            pt_stage_bytes predicted = {0};
            fixture f;
            begin(&f, kinds[kind], "none", /*stash=*/false, every);
            taken[every] = bytes_now(f.b) - f.before;
            assert_ok(pt_stage_predict_bytes(&f.plan, &f.weights_spec, &predicted, &err), &err);
            assert_int_equal(taken[every], predicted.own + predicted.shared);
            forward(&f, 0, PT_TRAIN, 0);
            backward(&f, 0);
            assert_int_equal(pt_stage_gap(f.stage).measured, every && kind == 0);
            if (every)
                assert_int_equal(taken[1] - taken[0], 2 * f.flat.param_elements * sizeof(float));
            end(&f);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_two_updates),
        cmocka_unit_test(test_nothing_late_is_no_gap),
        cmocka_unit_test(test_prediction),
        cmocka_unit_test(test_one_at_a_time),
        cmocka_unit_test(test_restart_counts_anew),
        cmocka_unit_test(test_evaluation_is_not_measured),
        cmocka_unit_test(test_bytes_are_as_predicted),
    };
    return cmocka_run_group_tests_name("gap", tests, NULL, NULL);
}
