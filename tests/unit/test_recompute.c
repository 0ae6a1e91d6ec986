/* Recomputed layers, bit by bit against an evaluation that runs them again the plain way (naive.h),
 * on random graphs with random sets of such layers; and what is kept, exactly. */
#include "backend_row.h"
#include "suite.h"

#include <stdlib.h>

#include "pipetrain/arena.h"
#include "program_rig.h"

enum { GRAPHS = 60 /* random ones, per backend */ };

/* ---- random graphs ----------------------------------------------------------------------------
 */

/* All layers, about half, or a few. */
static bool *random_set(const pt_graph *graph, pt_rng *rng)
{
    static const uint32_t shares[] = {100, 50, 20};
    uint32_t share = shares[pt_rng_below(rng, 3)];
    bool *set = calloc((size_t)graph->n_nodes + 1, sizeof *set);
    assert_non_null(set);
    for (int i = 0; i < graph->n_nodes; i++)
        set[i] = pt_rng_below(rng, 100) < share;
    return set;
}

static void check_set(rig_problem *p, const bool *set, const int *begins, int stages, uint64_t seed)
{
    pt_error err = {PT_OK, ""};
    pt_stage_spec *specs = NULL;
    rig_answer want, got;
    p->begins = begins;
    p->stages = stages;
    assert_ok(pt_stage_specs_new(&p->graph, begins, stages, &specs, &err), &err);
    for (int moves = 0; moves < 2; moves++) {
        p->moves = moves;
        p->recompute = moves ? set : NULL; /* with the same weights it changes nothing */
        rig_naive_answer(p, PT_TRAIN, &want);
        p->recompute = set;
        for (int holds = 0; holds < 2; holds++) {
            rig_program_answer(p, specs, stages, PT_TRAIN, holds, &got);
            rig_assert_same(p, &want, &got, moves ? "programs that move" : "programs", seed,
                            stages);
            rig_answer_free(&got);
            rig_stage_answer(p, specs, stages, holds, &got);
            rig_assert_same(p, &want, &got, moves ? "stages that move" : "stages", seed, stages);
            rig_answer_free(&got);
        }
        rig_answer_free(&want);
    }
    p->moves = false;
    rig_naive_answer(p, PT_EVAL, &want);
    rig_program_answer(p, specs, stages, PT_EVAL, /*holds=*/false, &got);
    rig_assert_same(p, &want, &got, "programs in evaluation", seed, stages);
    rig_answer_free(&want);
    rig_answer_free(&got);
    p->recompute = NULL;
    p->begins = NULL;
    p->stages = 0;
    pt_stage_specs_free(specs, stages);
}

static void check_random_set(rig_problem *p, pt_rng *rng, int stages, uint64_t seed)
{
    int begins[MOST_STAGES];
    bool *set = random_set(&p->graph, rng);
    graph_random_cut(&p->graph, rng, stages, begins);
    check_set(p, set, begins, stages, seed);
    free(set);
}

static void test_random_graphs(void **state)
{
    const char *const *names = pt_backend_names();
    (void)state;
    for (int n = 0; names[n]; n++) {
        if (!backend_row(names[n])) {
            print_message("# %s can't be had here\n", names[n]);
            continue;
        }
        rig_problem p = {.b = rig_backend(names[n])};
        for (uint64_t seed = 1; seed <= GRAPHS; seed++) {
            pt_rng rng;
            pt_rng_init(&rng, seed, PT_RNG_CHECK, 5, 0);
            graph_random(&p.graph, seed, CLASSES);
            rig_fill(&p, seed);
            for (int stages = 1; stages <= MOST_STAGES; stages++)
                check_random_set(&p, &rng, stages, seed);
            rig_clear(&p);
        }
        p.b->row->close(p.b);
    }
}

/* More values that are computed again than any of the random graphs has. */
static void test_deep_network(void **state)
{
    (void)state;
    enum { DEPTH = 400 };
    rig_problem p = {.b = rig_backend("ref")};
    bool recompute[DEPTH + 1];
    pt_op linear = graph_op(PT_OP_LINEAR);
    linear.features = CLASSES;
    graph_begin(&p.graph, (pt_shape){.ndim = 1, .dims = {4}}, CLASSES);
    int value = 0;
    for (int i = 0; i < DEPTH; i++)
        value = graph_add1(&p.graph, graph_op(i % 2 ? PT_OP_BATCH_NORM : PT_OP_GELU), value);
    graph_add1(&p.graph, linear, value);
    for (int i = 0; i <= DEPTH; i++)
        recompute[i] = true;
    rig_fill(&p, /*seed=*/1);
    check_set(&p, recompute, (int[]){0, DEPTH / 2}, 2, /*seed=*/0);
    rig_clear(&p);
    p.b->row->close(p.b);
}

/* ---- what is kept -----------------------------------------------------------------------------
 */

/* conv → batch-norm → relu → conv → batch-norm → relu → max-pool → flatten → linear, on ref: the
 * batch-norms and the relus behind them are one op each. */
enum { CONV1, BN1, RELU1, CONV2, BN2, RELU2, POOL, FLAT, FC, NODES };

typedef struct facts {
    size_t stash, held, value[NODES + 1], saved[NODES]; /* bytes, aligned */
    int again;
} facts;

static void build_chain(pt_graph *graph)
{
    pt_op conv = graph_op(PT_OP_CONV2D), linear = graph_op(PT_OP_LINEAR);
    pt_op pool = graph_op(PT_OP_MAX_POOL);
    conv.features = 2;
    conv.kernel[0] = conv.kernel[1] = 1;
    pool.kernel[0] = pool.kernel[1] = 2;
    linear.features = CLASSES;
    graph_begin(graph, (pt_shape){.ndim = 3, .dims = {3, 4, 4}}, CLASSES);
    int value = 0;
    for (int i = 0; i < 2; i++) {
        value = graph_add1(graph, conv, value);
        value = graph_add1(graph, graph_op(PT_OP_BATCH_NORM), value);
        value = graph_add1(graph, graph_op(PT_OP_RELU), value);
    }
    value = graph_add1(graph, graph_op(PT_OP_FLATTEN), graph_add1(graph, pool, value));
    graph_add1(graph, linear, value);
}

/* Of the whole chain as one stage, the nodes of `set` recomputed. */
static facts look(const int *set, int n, bool holds)
{
    rig_problem p = {.b = rig_backend("ref")};
    pt_error err = {PT_OK, ""};
    bool recompute[NODES] = {false};
    pt_stage_spec *specs = NULL;
    rig_part one;
    facts f = {0};
    for (int i = 0; i < n; i++)
        recompute[set[i]] = true;
    build_chain(&p.graph);
    assert_int_equal(p.graph.n_nodes, NODES);
    rig_fill(&p, /*seed=*/1);
    p.recompute = recompute;
    assert_ok(pt_stage_specs_new(&p.graph, (int[]){0}, 1, &specs, &err), &err);
    rig_parts_open(&p, specs, 1, PT_TRAIN, holds, &one);
    const pt_program *program = one.program[0];
    for (int v = 0; v <= NODES; v++) {
        int64_t elements = pt_shape_elements(pt_graph_value_shape(&p.graph, v)) * rig_samples[0];
        f.value[v] = pt_align_up((size_t)elements * sizeof(float));
    }
    f.saved[BN1] = f.saved[BN2] = pt_align_up(2 * 2 * sizeof(double)); /* two of two channels */
    f.saved[POOL] = pt_align_up((size_t)rig_samples[0] * 2 * 2 * 2 * sizeof(int32_t));
    f.stash = pt_program_stash_bytes(program);
    f.held = pt_program_held_bytes(program);
    f.again = pt_program_ops_again(program);
    rig_parts_close(&p, &one, 1);
    pt_stage_specs_free(specs, 1);
    rig_clear(&p);
    p.b->row->close(p.b);
    return f;
}

static const int all[] = {CONV1, BN1, RELU1, CONV2, BN2, RELU2, POOL, FLAT, FC};

static void test_all_is_kept_without(void **state)
{
    (void)state;
    facts f = look(NULL, 0, false);
    assert_int_equal(f.again, 0);
    /* the inputs of conv, norm and linear layers, what relu made, and the predictions */
    assert_int_equal(f.stash, f.value[0] + f.value[CONV1 + 1] + f.value[RELU1 + 1] +
                                  f.value[CONV2 + 1] + f.value[RELU2 + 1] + f.value[POOL + 1] +
                                  f.value[FC + 1] + f.saved[BN1] + f.saved[BN2] + f.saved[POOL]);
}

static void test_input_and_predictions_are_kept(void **state)
{
    (void)state;
    facts f = look(all, NODES, false);
    assert_int_equal(f.stash, f.value[0] + f.value[FC + 1]);
    assert_int_equal(f.again, 5); /* conv, norm, conv, norm, max-pool; flatten is an alias */
}

static void test_others_are_kept(void **state)
{
    (void)state;
    facts f = look((int[]){BN1, RELU1, BN2, RELU2}, 4, false);
    assert_int_equal(f.stash, f.value[0] + f.value[CONV1 + 1] + f.value[CONV2 + 1] +
                                  f.value[POOL + 1] + f.value[FC + 1] + f.saved[POOL]);
    assert_int_equal(f.again, 2);
}

/* conv1's value is read by the batch-norm's gradient; what makes it again, the model's input, is
 * kept in any case. */
static void test_one_layer(void **state)
{
    (void)state;
    facts without = look(NULL, 0, false), f = look((int[]){CONV1}, 1, false);
    assert_int_equal(f.stash, without.stash - f.value[CONV1 + 1]);
    assert_int_equal(f.again, 1);
}

/* Its value is what the loss reads. */
static void test_last_layer_is_kept(void **state)
{
    (void)state;
    facts without = look(NULL, 0, false);
    facts f = look((int[]){FC}, 1, false);
    assert_int_equal(f.stash, without.stash);
    assert_int_equal(f.again, 0);
}

/* A flatten that is kept has a value of its own where what it flattens is not. */
static void test_alias_of_what_is_not_kept(void **state)
{
    (void)state;
    facts f = look((int[]){POOL}, 1, false);
    facts without = look(NULL, 0, false);
    assert_int_equal(f.stash, without.stash - f.saved[POOL]);
    assert_int_equal(f.again, 1);
}

static void test_what_weights_wait_for_is_held(void **state)
{
    (void)state;
    facts without = look(NULL, 0, true), f = look(all, NODES, true);
    /* the inputs of convolution and linear layer, of which the first is kept */
    assert_int_equal(f.held - without.held, f.value[RELU1 + 1] + f.value[FLAT + 1]);
    assert_int_equal(f.stash, f.value[0] + f.value[FC + 1]);
}

/* conv → relu, and a cut: the gradient that arrives, and one block for what both make again. */
static void test_in_place_as_in_the_forward(void **state)
{
    (void)state;
    rig_problem p = {.b = rig_backend("ref")};
    pt_error err = {PT_OK, ""};
    pt_stage_spec *specs = NULL;
    rig_part parts[2];
    pt_op conv = graph_op(PT_OP_CONV2D), linear = graph_op(PT_OP_LINEAR);
    conv.features = 2;
    conv.kernel[0] = conv.kernel[1] = 1;
    linear.features = CLASSES;
    graph_begin(&p.graph, (pt_shape){.ndim = 3, .dims = {2, 6, 6}}, CLASSES);
    int value = graph_add1(&p.graph, graph_op(PT_OP_RELU), graph_add1(&p.graph, conv, 0));
    graph_add1(&p.graph, linear, graph_add1(&p.graph, graph_op(PT_OP_FLATTEN), value));
    rig_fill(&p, /*seed=*/1);
    p.recompute = (const bool[]){true, true, false, false};
    assert_ok(pt_stage_specs_new(&p.graph, (int[]){0, 2}, 2, &specs, &err), &err);
    rig_parts_open(&p, specs, 2, PT_TRAIN, /*holds=*/false, parts);
    size_t each = pt_align_up(pt_program_layout(parts[0].program[0], value)->bytes);
    assert_int_equal(pt_program_ops_again(parts[0].program[0]), 2);
    assert_int_equal(pt_program_scratch_bytes(parts[0].program[0]), 2 * each);
    rig_parts_close(&p, parts, 2);
    pt_stage_specs_free(specs, 2);
    rig_clear(&p);
    p.b->row->close(p.b);
}

static pt_status count(void *context, pt_error *err)
{
    (void)err;
    ++*(int *)context;
    return PT_OK;
}

/* Nothing is kept there in any case, so that rows stay one op. */
static void test_evaluation_is_as_it_was(void **state)
{
    (void)state;
    rig_problem p = {.b = rig_backend("ref")};
    pt_error err = {PT_OK, ""};
    pt_stage_spec *specs = NULL;
    rig_part one;
    int ops = 0;
    build_chain(&p.graph);
    rig_fill(&p, /*seed=*/1);
    p.recompute = (const bool[NODES]){[RELU1] = true, [POOL] = true};
    assert_ok(pt_stage_specs_new(&p.graph, (int[]){0}, 1, &specs, &err), &err);
    rig_parts_open(&p, specs, 1, PT_EVAL, /*holds=*/false, &one);
    pt_program_run run = rig_run(&p, &one, 0);
    run.between_ops = count;
    run.context = &ops;
    assert_ok(pt_program_forward(one.program[0], &run, &err), &err);
    assert_int_equal(ops, NODES - 3); /* two relus and flatten */
    rig_parts_close(&p, &one, 1);
    pt_stage_specs_free(specs, 1);
    rig_clear(&p);
    p.b->row->close(p.b);
}

/* A row is one op when all of it is recomputed or nothing; else bn1's value is kept, for relu1. */
static void test_rows_are_divided(void **state)
{
    (void)state;
    facts without = look(NULL, 0, false), f = look((int[]){RELU1}, 1, false);
    assert_int_equal(f.stash, without.stash - f.value[RELU1 + 1] + f.value[BN1 + 1]);
    assert_int_equal(f.again, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_graphs),
        cmocka_unit_test(test_deep_network),
        cmocka_unit_test(test_all_is_kept_without),
        cmocka_unit_test(test_input_and_predictions_are_kept),
        cmocka_unit_test(test_others_are_kept),
        cmocka_unit_test(test_one_layer),
        cmocka_unit_test(test_last_layer_is_kept),
        cmocka_unit_test(test_alias_of_what_is_not_kept),
        cmocka_unit_test(test_what_weights_wait_for_is_held),
        cmocka_unit_test(test_rows_are_divided),
        cmocka_unit_test(test_in_place_as_in_the_forward),
        cmocka_unit_test(test_evaluation_is_as_it_was),
    };
    return cmocka_run_group_tests_name("recompute", tests, NULL, NULL);
}
