/* pt_program and pt_stage against an evaluation that never shares memory (naive.h), bit by bit, on
 * random graphs: whole, and cut into up to four stages chained by messages. */
#include "backend_row.h"
#include "suite.h"

#include "naive.h"
#include "program_rig.h"

enum { GRAPHS = 60 /* random ones, per backend */ };

/* ---- random graphs ----------------------------------------------------------------------------
 */

static void check_cuts(const rig_problem *p, uint64_t seed)
{
    rig_answer want, want_eval, got;
    pt_error err = {PT_OK, ""};
    pt_rng rng;
    pt_rng_init(&rng, seed, PT_RNG_CHECK, 3, 0);
    rig_naive_answer(p, PT_TRAIN, &want);
    rig_naive_answer(p, PT_EVAL, &want_eval);
    for (int stages = 1; stages <= MOST_STAGES; stages++) {
        int begins[MOST_STAGES];
        pt_stage_spec *specs = NULL;
        graph_random_cut(&p->graph, &rng, stages, begins);
        assert_ok(pt_stage_specs_new(&p->graph, begins, stages, &specs, &err), &err);
        for (int holds = 0; holds < 2; holds++) {
            rig_program_answer(p, specs, stages, PT_TRAIN, holds, &got);
            rig_assert_same(p, &want, &got, holds ? "programs that hold" : "programs", seed,
                            stages);
            rig_answer_free(&got);
            rig_stage_answer(p, specs, stages, holds, &got);
            rig_assert_same(p, &want, &got, holds ? "stages that hold" : "stages", seed, stages);
            rig_answer_free(&got);
        }
        rig_program_answer(p, specs, stages, PT_EVAL, /*holds=*/false, &got);
        rig_assert_same(p, &want_eval, &got, "programs in evaluation", seed, stages);
        rig_answer_free(&got);
        pt_stage_specs_free(specs, stages);
    }
    rig_answer_free(&want);
    rig_answer_free(&want_eval);
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
            graph_random(&p.graph, seed, CLASSES);
            rig_fill(&p, seed);
            check_cuts(&p, seed);
            rig_clear(&p);
        }
        p.b->row->close(p.b);
    }
}

/* A sum whose first input has no gradient yet, while its second one's is shared: the addition must
 * not take the memory of the gradient that the first input still waits for. */
static void test_shared_gradient_of_sums(void **state)
{
    (void)state;
    rig_problem p = {.b = rig_backend("ref")};
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
    rig_fill(&p, /*seed=*/1);
    check_cuts(&p, /*seed=*/0);
    rig_clear(&p);
    p.b->row->close(p.b);
}

/* ---- the plan itself --------------------------------------------------------------------------
 */

/* input → conv → relu → conv → linear: may the relu overwrite the first convolution's output? With
 * `second_reader` another layer reads it too; `cut` is where the second of two stages begins. */
static bool relu_runs_in_place(bool second_reader, int cut)
{
    rig_problem p = {.b = rig_backend("ref")};
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
    rig_fill(&p, /*seed=*/1);
    int stages = cut > 0 ? 2 : 1;
    pt_stage_spec *specs = NULL;
    rig_part parts[2];
    assert_ok(pt_stage_specs_new(&p.graph, (int[]){0, cut}, stages, &specs, &err), &err);
    rig_parts_open(&p, specs, stages, PT_TRAIN, /*holds=*/false, parts);
    const rig_part *at = &parts[cut > 0 && cut <= cut_off - 1]; /* the relu is node cut_off - 1 */
    pt_program_run run = rig_run(&p, at, 0);
    bool in_place = pt_program_value(at->program[0], &run, made) ==
                    pt_program_value(at->program[0], &run, cut_off);
    rig_parts_close(&p, parts, stages);
    pt_stage_specs_free(specs, stages);
    rig_clear(&p);
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
static void check_sharing(const rig_problem *p, const rig_part *at, const naive *n)
{
    pt_program_run run = rig_run(p, at, 0);
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
    rig_problem p = {.b = rig_backend("ref")};
    for (uint64_t seed = 1; seed <= GRAPHS; seed++) {
        pt_error err = {PT_OK, ""};
        pt_stage_spec *specs = NULL;
        rig_part parts[2];
        pt_rng rng;
        int begins[2];
        graph_random(&p.graph, seed, CLASSES);
        rig_fill(&p, seed);
        pt_rng_init(&rng, seed, PT_RNG_CHECK, 4, 0);
        graph_random_cut(&p.graph, &rng, 2, begins);
        assert_ok(pt_stage_specs_new(&p.graph, begins, 2, &specs, &err), &err);
        rig_parts_open(&p, specs, 2, PT_TRAIN, /*holds=*/false, parts);
        naive *n = naive_new(p.b, &p.graph, &p.whole, rig_samples[0], PT_TRAIN);
        check_sharing(&p, &parts[0], n);
        check_sharing(&p, &parts[1], n);
        naive_free(n);
        rig_parts_close(&p, parts, 2);
        pt_stage_specs_free(specs, 2);
        rig_clear(&p);
    }
    p.b->row->close(p.b);
}

/* Twenty sums in a row, each of a value with itself, need no more than a few buffers of the twenty
 * values: nothing of them is wanted in the backward. */
static void test_scratch_is_shared(void **state)
{
    (void)state;
    enum { SUMS = 20, LIVE_AT_ONCE = 3 };
    rig_problem p = {.b = rig_backend("ref")};
    pt_error err = {PT_OK, ""};
    graph_begin(&p.graph, (pt_shape){.ndim = 1, .dims = {64}}, CLASSES);
    int value = 0;
    for (int i = 0; i < SUMS; i++)
        value = graph_add(&p.graph, graph_op(PT_OP_ADD), (int[]){value, value}, 2);
    pt_op linear = graph_op(PT_OP_LINEAR);
    linear.features = CLASSES;
    graph_add1(&p.graph, linear, value);
    rig_fill(&p, /*seed=*/1);
    pt_stage_spec *specs = NULL;
    rig_part one;
    assert_ok(pt_stage_specs_new(&p.graph, (int[]){0}, 1, &specs, &err), &err);
    rig_parts_open(&p, specs, 1, PT_TRAIN, /*holds=*/false, &one);
    naive *n = naive_new(p.b, &p.graph, &p.whole, rig_samples[0], PT_TRAIN);
    size_t one_value = pt_program_layout(one.program[0], 1)->bytes;
    assert_true(naive_value_bytes(n) > SUMS * one_value);
    assert_true(pt_program_scratch_bytes(one.program[0]) <= LIVE_AT_ONCE * one_value);
    naive_free(n);
    rig_parts_close(&p, &one, 1);
    pt_stage_specs_free(specs, 1);
    rig_clear(&p);
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
