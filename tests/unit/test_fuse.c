/* When does batch-norm become one op with the add and relu behind it? That it has the same bits is
 * shown by test_program on random graphs. */
#include "suite.h"

#include "program_rig.h"

static pt_status count(void *context, pt_error *err)
{
    (void)err;
    ++*(int *)context;
    return PT_OK;
}

/* Ops that a forward of the only or the first of two stages runs. `cut`: 0, or the first node of
 * the second stage. */
static int ops_run(rig_problem *p, int cut)
{
    pt_error err = {PT_OK, ""};
    pt_stage_spec *specs = NULL;
    rig_part parts[2];
    const int stages = cut > 0 ? 2 : 1;
    int ops = 0;
    rig_fill(p, /*seed=*/1);
    assert_ok(pt_stage_specs_new(&p->graph, (int[]){0, cut}, stages, &specs, &err), &err);
    rig_parts_open(p, specs, stages, PT_TRAIN, /*holds=*/false, parts);
    pt_program_run run = rig_run(p, &parts[0], 0);
    run.between_ops = count;
    run.context = &ops;
    assert_ok(pt_program_forward(parts[0].program[0], &run, &err), &err);
    rig_parts_close(p, parts, stages);
    pt_stage_specs_free(specs, stages);
    return ops;
}

typedef enum extra {
    NOTHING,
    READS_NORM,   /* a second reader of what batch-norm makes */
    READS_SUM,    /* of what add makes */
    READS_BETWEEN /* somebody reads what is added between the add and the relu */
} extra;

/* conv → batch-norm [→ add of the convolution] [→ relu] → flatten → linear. ref runs flatten by
 * itself only where it has to: it is an alias. */
static int ops_of(const char *backend, bool adds, bool relu, extra what, int cut)
{
    rig_problem p = {.b = rig_backend(backend)};
    pt_op conv = graph_op(PT_OP_CONV2D), linear = graph_op(PT_OP_LINEAR);
    conv.features = 2;
    conv.kernel[0] = conv.kernel[1] = 1;
    linear.features = CLASSES;
    graph_begin(&p.graph, (pt_shape){.ndim = 3, .dims = {2, 3, 3}}, CLASSES);
    int made = adds ? graph_add1(&p.graph, conv, 0) : 0; /* every value has a reader */
    int norm = graph_add1(&p.graph, graph_op(PT_OP_BATCH_NORM), graph_add1(&p.graph, conv, 0));
    int value = norm, sum = norm, loose = 0;
    if (adds)
        value = sum = graph_add(&p.graph, graph_op(PT_OP_ADD), (int[]){made, value}, 2);
    if (what == READS_BETWEEN)
        loose = graph_add1(&p.graph, graph_op(PT_OP_GELU), made);
    if (relu)
        value = graph_add1(&p.graph, graph_op(PT_OP_RELU), value);
    if (what == READS_NORM || what == READS_SUM)
        loose = graph_add1(&p.graph, graph_op(PT_OP_GELU), what == READS_NORM ? norm : sum);
    if (loose)
        value = graph_add(&p.graph, graph_op(PT_OP_CONCAT), (int[]){value, loose}, 2);
    graph_add1(&p.graph, linear, graph_add1(&p.graph, graph_op(PT_OP_FLATTEN), value));
    int ops = ops_run(&p, cut);
    rig_clear(&p);
    p.b->row->close(p.b);
    return ops;
}

static void test_rows_become_one(void **state)
{
    (void)state;
    int others = 2; /* convolution and linear layer */
    assert_int_equal(ops_of("ref", false, false, NOTHING, 0), others + 1);
    assert_int_equal(ops_of("ref", false, true, NOTHING, 0), others + 1);
    others++; /* a second convolution, to be added */
    assert_int_equal(ops_of("ref", true, false, NOTHING, 0), others + 1);
    assert_int_equal(ops_of("ref", true, true, NOTHING, 0), others + 1);
}

static void test_values_that_others_read_stay(void **state)
{
    (void)state;
    int others = 4; /* convolution, gelu, concat, linear layer */
    assert_int_equal(ops_of("ref", false, true, READS_NORM, 0), others + 2);
    others++;
    assert_int_equal(ops_of("ref", true, true, READS_NORM, 0), others + 3);
    assert_int_equal(ops_of("ref", true, true, READS_SUM, 0), others + 2); /* norm and add */
    assert_int_equal(ops_of("ref", true, true, READS_BETWEEN, 0), others + 3);
}

static void test_cuts_divide_rows(void **state)
{
    (void)state;
    /* conv, conv, norm, add, relu, …: the second stage begins with */
    assert_int_equal(ops_of("ref", true, true, NOTHING, 5), 3); /* … flatten */
    assert_int_equal(ops_of("ref", true, true, NOTHING, 4), 3); /* … relu: norm and add are one */
    assert_int_equal(ops_of("ref", true, true, NOTHING, 3), 3); /* … add */
}

static void test_backends_may_not_have_it(void **state)
{
    (void)state;
#ifdef HAVE_ONEDNN
    assert_in_range(ops_of("onednn", true, true, NOTHING, 0), 6, 7);
#else
    print_message("# this build has no backend without longer forms of batch-norm\n");
    skip();
#endif
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows_become_one),
        cmocka_unit_test(test_values_that_others_read_stay),
        cmocka_unit_test(test_cuts_divide_rows),
        cmocka_unit_test(test_backends_may_not_have_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
