/* The planner against brute force over all cuts, and its estimate of costs. */
#include <math.h>
#include <string.h>

#include "suite.h"

#include "pipetrain/planner.h"
#include "pipetrain/rng.h"

enum { MAX_NODES = 12, MAX_STAGES = 6 };

typedef struct best {
    double maximum, squares;
    int begins[MAX_STAGES];
    int plans; /* how many were looked at */
} best;

static void judge(const double *cost, int n, int stages, const int *begins, best *b)
{
    double maximum = 0, squares = 0;

    for (int s = 0; s < stages; s++) {
        double sum = 0;
        for (int i = begins[s]; i < (s + 1 < stages ? begins[s + 1] : n); i++)
            sum += cost[i];
        maximum = fmax(maximum, sum);
        squares += sum * sum;
    }
    b->plans++;
    /* Cuts come in ascending order, so strictly better keeps the earliest among equals. */
    if (maximum < b->maximum || (maximum == b->maximum && squares < b->squares)) {
        b->maximum = maximum;
        b->squares = squares;
        memcpy(b->begins, begins, sizeof *begins * (size_t)stages);
    }
}

static void try_all(const double *cost, int n, int stages, int *begins, int stage, best *b)
{
    if (stage == stages) {
        judge(cost, n, stages, begins, b);
        return;
    }
    for (int i = stage ? begins[stage - 1] + 1 : 0; i <= (stage ? n - 1 : 0); i++) {
        begins[stage] = i;
        try_all(cost, n, stages, begins, stage + 1, b);
    }
}

static void compare(const double *cost, int n, int stages)
{
    pt_error err = {0};
    best b = {.maximum = INFINITY, .squares = INFINITY};
    int scratch[MAX_STAGES], begins[MAX_STAGES];

    try_all(cost, n, stages, scratch, 0, &b);
    assert_ok(pt_plan_balance(cost, n, stages, begins, &err), &err);
    for (int s = 0; s < stages; s++)
        assert_int_equal(begins[s], b.begins[s]);
}

/* Small whole numbers: sums are exact, and ties are many. */
static void test_equals_brute_force(void **state)
{
    (void)state;
    for (uint64_t trial = 0; trial < 600; trial++) {
        pt_rng rng;
        double cost[MAX_NODES];
        pt_rng_init(&rng, 7, PT_RNG_CHECK, trial, 0);
        int n = 1 + (int)pt_rng_below(&rng, MAX_NODES);
        uint32_t range = trial % 3 == 0 ? 3 : 40;
        for (int i = 0; i < n; i++)
            cost[i] = pt_rng_below(&rng, range);
        for (int stages = 1; stages <= n && stages <= MAX_STAGES; stages++)
            compare(cost, n, stages);
    }
}

static void test_brute_force_looks_at_every_plan(void **state)
{
    (void)state;
    double cost[10] = {0};
    best b = {.maximum = INFINITY};
    int scratch[MAX_STAGES];

    /* Choosing 3 borders among 9 places gives C(9, 3) = 84 plans. */
    try_all(cost, 10, 4, scratch, 0, &b);
    assert_int_equal(b.plans, 84);
}

static void test_known_plans(void **state)
{
    (void)state;
    pt_error err = {0};
    int begins[4];

    assert_ok(pt_plan_balance((const double[]){1, 1, 1, 1, 1, 1, 1, 1}, 8, 4, begins, &err), &err);
    for (int s = 0; s < 4; s++)
        assert_int_equal(begins[s], 2 * s);
    /* The bottleneck is 9 however one cuts; the rest must still be balanced. */
    assert_ok(pt_plan_balance((const double[]){9, 1, 2, 3}, 4, 3, begins, &err), &err);
    assert_int_equal(begins[1], 1);
    assert_int_equal(begins[2], 3);
    /* Nothing costs anything: the earliest cut. */
    assert_ok(pt_plan_balance((const double[]){0, 0, 0, 0}, 4, 3, begins, &err), &err);
    assert_int_equal(begins[1], 1);
    assert_int_equal(begins[2], 2);
}

static void test_refusals(void **state)
{
    (void)state;
    pt_error err = {0};
    int begins[4];
    const double good[] = {1, 2, 3};

    assert_fails(pt_plan_balance(good, 3, 4, begins, &err), PT_EINPUT, "more than the 3 layers",
                 &err);
    assert_fails(pt_plan_balance(good, 3, 0, begins, &err), PT_EINPUT, "at least 1", &err);
    assert_fails(pt_plan_balance((const double[]){1, -2}, 2, 1, begins, &err), PT_EINPUT, "layer 1",
                 &err);
    assert_fails(pt_plan_balance((const double[]){NAN, 2}, 2, 2, begins, &err), PT_EINPUT,
                 "layer 0", &err);
}

static void test_estimate(void **state)
{
    (void)state;
    pt_error err = {0};
    pt_node nodes[2] = {{.name = "fc"}, {.name = "relu", .inputs = {1}}};
    pt_graph graph = {.input = {1, {100}}, .nodes = nodes, .n_nodes = 2};
    double cost[2];

    pt_op_defaults(&nodes[0].op, PT_OP_LINEAR);
    nodes[0].op.features = 50;
    nodes[0].op.n_inputs = 1;
    nodes[0].op.in[0] = graph.input;
    assert_ok(pt_op_infer(&nodes[0].op, &err), &err);
    pt_op_defaults(&nodes[1].op, PT_OP_RELU);
    nodes[1].op.n_inputs = 1;
    nodes[1].op.in[0] = nodes[0].op.out;
    assert_ok(pt_op_infer(&nodes[1].op, &err), &err);
    /* fc: 50 x (200 + 1 for the bias) operations, forward and the gradient of the weights; that of
     * the model's input is not wanted. relu: 100 floats at 4 bytes, forward and backward. */
    pt_plan_estimate(&graph, 10, cost);
    assert_true(cost[0] == 2.0 * 50 * 201);
    assert_true(cost[1] == 2.0 * 100 * 4 * 10);
    /* Were there a layer before it, fc would make both gradients. */
    nodes[0].inputs[0] = 1;
    pt_plan_estimate(&graph, 10, cost);
    assert_true(cost[0] == 3.0 * 50 * 201);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_equals_brute_force),
        cmocka_unit_test(test_brute_force_looks_at_every_plan),
        cmocka_unit_test(test_known_plans),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_estimate),
    };
    return cmocka_run_group_tests_name("planner", tests, NULL, NULL);
}
