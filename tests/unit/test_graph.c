/* Stage specs: what crosses the borders of stages, with skip connections over several of them. */
#include <stdlib.h>
#include <string.h>

#include "suite.h"

#include "pipetrain/graph.h"

enum { MAX_NODES = 8 };

/* A graph of linear layers and sums; links[i] lists the inputs of node i, ended by -1. */
typedef struct plan {
    pt_graph graph;
    pt_node nodes[MAX_NODES];
} plan;

static void build(plan *p, int n, const int links[][3])
{
    static char names[MAX_NODES][4] = {"n0", "n1", "n2", "n3", "n4", "n5", "n6", "n7"};
    const pt_shape shape = {1, {4}};

    memset(p, 0, sizeof *p);
    p->graph = (pt_graph){.input = shape, .nodes = p->nodes, .n_nodes = n};
    for (int i = 0; i < n; i++) {
        pt_node *node = &p->nodes[i];
        node->name = names[i];
        while (links[i][node->op.n_inputs] >= 0) {
            node->inputs[node->op.n_inputs] = links[i][node->op.n_inputs];
            node->op.in[node->op.n_inputs++] = shape;
        }
        node->op.kind = node->op.n_inputs > 1 ? PT_OP_ADD : PT_OP_LINEAR;
        node->op.features = 4;
        node->op.bias = node->op.kind == PT_OP_LINEAR;
        node->op.out = shape;
        node->op.layer = (uint32_t)i;
    }
}

static void assert_values(const int *values, int n, const int *expected, int n_expected)
{
    assert_int_equal(n, n_expected);
    for (int i = 0; i < n; i++)
        assert_int_equal(values[i], expected[i]);
}

#define VALUES(...) (const int[]){__VA_ARGS__}, (int)(sizeof((int[]){__VA_ARGS__}) / sizeof(int))

/* Value 1 skips over stage 1 and stage 2; the model's input (value 0) is used in the last stage. */
static const int skips[6][3] = {{0, -1}, {1, -1}, {2, -1}, {3, -1}, {4, 1, -1}, {5, 0, -1}};

static void test_skips_are_handed_on(void **state)
{
    (void)state;
    plan p;
    pt_error err = {0};
    pt_stage_spec *specs = NULL;
    const int begins[] = {0, 2, 3, 4};

    build(&p, 6, skips);
    assert_ok(pt_stage_specs_new(&p.graph, begins, 4, &specs, &err), &err);
    assert_int_equal(specs[0].n_in, 0);
    assert_values(specs[0].out, specs[0].n_out, VALUES(0, 1, 2));
    assert_values(specs[1].in, specs[1].n_in, VALUES(0, 1, 2));
    assert_values(specs[1].out, specs[1].n_out, VALUES(0, 1, 3));
    assert_values(specs[2].in, specs[2].n_in, VALUES(0, 1, 3));
    assert_values(specs[2].out, specs[2].n_out, VALUES(0, 1, 4));
    assert_values(specs[3].in, specs[3].n_in, VALUES(0, 1, 4));
    assert_int_equal(specs[3].n_out, 0);
    for (int s = 0; s < 4; s++) {
        assert_int_equal(specs[s].stage, s);
        assert_int_equal(specs[s].stages, 4);
        assert_int_equal(specs[s].first, begins[s]);
        assert_int_equal(specs[s].end, s < 3 ? begins[s + 1] : 6);
    }
    pt_stage_specs_free(specs, 4);
}

static void test_values_stop_where_they_are_used_last(void **state)
{
    (void)state;
    plan p;
    pt_error err = {0};
    pt_stage_spec *specs = NULL;
    static const int links[5][3] = {{0, -1}, {1, -1}, {2, 1, -1}, {3, -1}, {4, -1}};

    build(&p, 5, links);
    assert_ok(pt_stage_specs_new(&p.graph, (const int[]){0, 2, 3}, 3, &specs, &err), &err);
    assert_values(specs[0].out, specs[0].n_out, VALUES(1, 2));
    assert_values(specs[1].out, specs[1].n_out, VALUES(3));
    assert_values(specs[2].in, specs[2].n_in, VALUES(3));
    pt_stage_specs_free(specs, 3);
}

static void test_one_stage_sends_nothing(void **state)
{
    (void)state;
    plan p;
    pt_error err = {0};
    pt_stage_spec *specs = NULL;

    build(&p, 6, skips);
    assert_ok(pt_stage_specs_new(&p.graph, (const int[]){0}, 1, &specs, &err), &err);
    assert_int_equal(specs[0].n_in + specs[0].n_out, 0);
    assert_int_equal(specs[0].end, 6);
    pt_stage_specs_free(specs, 1);
    pt_stage_specs_free(NULL, 3);
}

static void test_bad_beginnings_are_refused(void **state)
{
    (void)state;
    plan p;
    pt_error err = {0};
    pt_stage_spec *specs = NULL;

    build(&p, 6, skips);
    assert_fails(pt_stage_specs_new(&p.graph, (const int[]){0, 3, 3}, 3, &specs, &err), PT_EINPUT,
                 "must ascend", &err);
    assert_fails(pt_stage_specs_new(&p.graph, (const int[]){0, 6}, 2, &specs, &err), PT_EINPUT,
                 "must ascend", &err);
    assert_fails(pt_stage_specs_new(&p.graph, (const int[]){1, 2}, 2, &specs, &err), PT_EINPUT,
                 "first stage", &err);
    assert_fails(pt_stage_specs_new(&p.graph, (const int[]){0, 1, 2, 3, 4, 5, 6}, 7, &specs, &err),
                 PT_EINPUT, "more than the 6 layers", &err);
    assert_fails(pt_stage_specs_new(&p.graph, (const int[]){0}, 0, &specs, &err), PT_EINPUT,
                 "at least 1", &err);
    assert_null(specs);
}

static void test_names_shapes_and_parameters(void **state)
{
    (void)state;
    plan p;

    build(&p, 6, skips);
    assert_int_equal(pt_graph_find(&p.graph, "n3"), 3);
    assert_int_equal(pt_graph_find(&p.graph, "n9"), -1);
    assert_ptr_equal(pt_graph_value_shape(&p.graph, 0), &p.graph.input);
    assert_ptr_equal(pt_graph_value_shape(&p.graph, 2), &p.nodes[1].op.out);
    assert_int_equal(pt_graph_parameters(&p.graph, 0, 6), 4 * (4 * 4 + 4));
    assert_int_equal(pt_graph_parameters(&p.graph, 3, 5), 4 * 4 + 4);
    assert_int_equal(pt_graph_parameters(&p.graph, 2, 2), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_skips_are_handed_on),
        cmocka_unit_test(test_values_stop_where_they_are_used_last),
        cmocka_unit_test(test_one_stage_sends_nothing),
        cmocka_unit_test(test_bad_beginnings_are_refused),
        cmocka_unit_test(test_names_shapes_and_parameters),
    };
    return cmocka_run_group_tests_name("graph", tests, NULL, NULL);
}
