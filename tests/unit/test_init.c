/* Initial values: their distribution, and that nothing but (seed, layer, parameter) decides them.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "suite.h"

#include "pipetrain/init.h"

/* Statistics of n draws stray by about 1/sqrt(n): below 0.4 % for the 73,728 weights used here.
 * Five times that cannot fail by chance, and a wrong fan is off by 40 % or more. */
#define STATISTICS_TOLERANCE 0.02

static pt_op conv(uint32_t layer)
{
    pt_error err = {0};
    pt_op op = {0};

    pt_op_defaults(&op, PT_OP_CONV2D);
    op.features = 128;
    op.kernel[0] = op.kernel[1] = 3;
    op.n_inputs = 1;
    op.in[0] = (pt_shape){3, {64, 8, 8}};
    op.layer = layer;
    assert_ok(pt_op_infer(&op, &err), &err);
    return op;
}

static pt_op unary(pt_op_kind kind, int64_t inputs, int64_t features)
{
    pt_error err = {0};
    pt_op op = {0};

    pt_op_defaults(&op, kind);
    op.features = features;
    op.n_inputs = 1;
    op.in[0] = (pt_shape){1, {inputs}};
    assert_ok(pt_op_infer(&op, &err), &err);
    return op;
}

static float *draw(const pt_op *op, int param, pt_init_kind kind, uint64_t seed, int64_t *ret_n)
{
    pt_op_tensor params[PT_MAX_PARAMS];

    assert_true(pt_op_params(op, params) > param);
    float *values = malloc(sizeof *values * (size_t)params[param].elements);
    assert_non_null(values);
    pt_init_param(op, param, kind, seed, values);
    *ret_n = params[param].elements;
    return values;
}

static double deviation(const float *values, int64_t n, double *ret_mean)
{
    double sum = 0, squares = 0;

    for (int64_t i = 0; i < n; i++)
        sum += values[i];
    for (int64_t i = 0; i < n; i++)
        squares += (values[i] - sum / (double)n) * (values[i] - sum / (double)n);
    *ret_mean = sum / (double)n;
    return sqrt(squares / (double)n);
}

static void assert_uniform(const float *values, int64_t n, double bound)
{
    double mean, largest = 0, spread = deviation(values, n, &mean);

    for (int64_t i = 0; i < n; i++)
        largest = fmax(largest, fabs((double)values[i]));
    /* The bound is rounded to float, once. */
    assert_true(largest <= bound * (1 + 1e-6));
    assert_true(largest > bound * (1 - STATISTICS_TOLERANCE));
    assert_true(fabs(mean) < STATISTICS_TOLERANCE * bound);
    assert_true(fabs(spread - bound / sqrt(3)) < STATISTICS_TOLERANCE * bound);
}

static void test_pytorch_is_uniform_by_fan_in(void **state)
{
    (void)state;
    int64_t n;
    pt_op op = conv(0), fc = unary(PT_OP_LINEAR, 300, 400);
    float *values = draw(&op, 0, PT_INIT_PYTORCH, 1, &n);

    assert_int_equal(n, 128 * 64 * 9);
    assert_uniform(values, n, 1 / sqrt(64 * 9));
    free(values);
    values = draw(&fc, 0, PT_INIT_PYTORCH, 1, &n);
    assert_uniform(values, n, 1 / sqrt(300));
    free(values);
    /* The bias has the weight's bound. 400 values: only the bound is checked. */
    values = draw(&fc, 1, PT_INIT_PYTORCH, 1, &n);
    assert_int_equal(n, 400);
    double largest = 0;
    for (int64_t i = 0; i < n; i++)
        largest = fmax(largest, fabs((double)values[i]));
    assert_true(largest > 0.9 / sqrt(300) && largest <= (1 + 1e-6) / sqrt(300));
    free(values);
}

static void test_groups_see_fewer_inputs(void **state)
{
    (void)state;
    int64_t n;
    pt_op op = conv(0);

    op.groups = 4;
    float *values = draw(&op, 0, PT_INIT_PYTORCH, 1, &n);
    assert_int_equal(n, 128 * 16 * 9);
    assert_uniform(values, n, 1 / sqrt(16 * 9));
    free(values);
}

static void test_he_is_normal_by_fan_out(void **state)
{
    (void)state;
    int64_t n;
    double mean, expected = sqrt(2.0 / (128 * 9));
    pt_op op = conv(0), fc = unary(PT_OP_LINEAR, 300, 400);
    float *values = draw(&op, 0, PT_INIT_HE, 1, &n);
    double spread = deviation(values, n, &mean);
    int64_t beyond = 0;

    assert_true(fabs(spread - expected) < STATISTICS_TOLERANCE * expected);
    assert_true(fabs(mean) < STATISTICS_TOLERANCE * expected);
    for (int64_t i = 0; i < n; i++)
        beyond += fabs((double)values[i]) > 2 * expected;
    /* 4.55 % of a normal distribution lie beyond two deviations; none of a uniform one. */
    assert_true(fabs((double)beyond / (double)n - 0.0455) < STATISTICS_TOLERANCE / 4);
    free(values);
    values = draw(&op, 1, PT_INIT_HE, 1, &n);
    for (int64_t i = 0; i < n; i++)
        assert_true(values[i] == 0);
    free(values);
    values = draw(&fc, 0, PT_INIT_HE, 1, &n);
    assert_uniform(values, n, 1 / sqrt(300));
    free(values);
}

static void test_batch_norm(void **state)
{
    (void)state;
    int64_t n;
    pt_op op = unary(PT_OP_BATCH_NORM, 32, 0);
    float values[32];

    for (int kind = PT_INIT_PYTORCH; kind <= PT_INIT_HE; kind++) {
        for (int param = 0; param < 2; param++) {
            float *drawn = draw(&op, param, (pt_init_kind)kind, 1, &n);
            assert_int_equal(n, 32);
            for (int64_t i = 0; i < n; i++)
                assert_true(drawn[i] == (param == 0 ? 1 : 0));
            free(drawn);
        }
    }
    for (int s = 0; s < 2; s++) {
        pt_init_state(&op, s, values);
        for (int i = 0; i < 32; i++)
            assert_true(values[i] == (s == 0 ? 0 : 1));
    }
}

static bool same(uint64_t seed_a, uint32_t layer_a, uint64_t seed_b, uint32_t layer_b)
{
    int64_t n;
    pt_op a = conv(layer_a), b = conv(layer_b);
    float *x = draw(&a, 0, PT_INIT_PYTORCH, seed_a, &n);
    float *y = draw(&b, 0, PT_INIT_PYTORCH, seed_b, &n);
    bool equal = !memcmp(x, y, sizeof *x * (size_t)n);

    free(x);
    free(y);
    return equal;
}

static void test_seed_and_layer_decide(void **state)
{
    (void)state;
    assert_true(same(1, 5, 1, 5));
    assert_false(same(1, 5, 2, 5));
    assert_false(same(1, 5, 1, 6));
    assert_false(same(1, 5, 1ull << 40 | 1, 5));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pytorch_is_uniform_by_fan_in),
        cmocka_unit_test(test_groups_see_fewer_inputs),
        cmocka_unit_test(test_he_is_normal_by_fan_out),
        cmocka_unit_test(test_batch_norm),
        cmocka_unit_test(test_seed_and_layer_decide),
    };
    return cmocka_run_group_tests_name("init", tests, NULL, NULL);
}
