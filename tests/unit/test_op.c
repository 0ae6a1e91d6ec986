/* Op kinds as data: the table, attributes, shape inference and its messages, parameters, cost. */
#include "pipetrain/op.h"

#include <string.h>

#include "suite.h"

static pt_op make(pt_op_kind kind, pt_shape in)
{
    pt_op op = {.n_inputs = 1, .in = {in}};
    pt_op_defaults(&op, kind);
    return op;
}

static pt_op conv(pt_shape in, int64_t features, int64_t kernel)
{
    pt_op op = make(PT_OP_CONV2D, in);
    op.features = features;
    op.kernel[0] = op.kernel[1] = kernel;
    return op;
}

static const pt_shape image = {3, {16, 9, 8}}, features = {1, {10}};

static void assert_shape(const pt_op *op, pt_shape expected)
{
    char got[PT_SHAPE_TEXT], want[PT_SHAPE_TEXT];
    if (!pt_shape_equal(&op->out, &expected))
        fail_msg("%s gives %s, expected %s", pt_op_rows[op->kind].name,
                 pt_shape_print(&op->out, got), pt_shape_print(&expected, want));
}

static void test_names(void **state)
{
    (void)state;
    for (int kind = 0; kind < PT_OP_KINDS; kind++) {
        assert_non_null(pt_op_rows[kind].name);
        assert_int_equal(pt_op_find(pt_op_rows[kind].name), kind);
    }
    assert_int_equal(pt_op_find("conv3d"), PT_OP_KINDS);
    assert_int_equal(pt_op_find(""), PT_OP_KINDS);
}

static void test_attributes_fit_their_rows(void **state)
{
    (void)state;
    for (int kind = 0; kind < PT_OP_KINDS; kind++) {
        const pt_op_row *row = &pt_op_rows[kind];
        int n = 0;
        assert_in_range(row->min_inputs, 1, row->max_inputs);
        assert_in_range(row->max_inputs, row->min_inputs, PT_MAX_INPUTS);
        for (const pt_op_attribute *a = row->attributes; a->name; a++, n++) {
            assert_true(a->min <= a->max);
            assert_in_range(a->n_values, 1, 2);
            assert_non_null(a->help);
            bool derived = strcmp(a->name, "stride") == 0 && a->fallback == 0;
            if (!a->required && !derived)
                assert_true(a->fallback >= a->min && a->fallback <= a->max);
        }
        assert_true(n < PT_MAX_ATTRIBUTES); /* the row that ends the list has its place */
    }
}

static void test_set(void **state)
{
    (void)state;
    pt_op op = {0};
    pt_op_set(&op, "features", (const double[2]){12, 12});
    pt_op_set(&op, "kernel", (const double[2]){3, 5});
    pt_op_set(&op, "stride", (const double[2]){2, 1});
    pt_op_set(&op, "padding", (const double[2]){0, 4});
    pt_op_set(&op, "groups", (const double[2]){6, 6});
    pt_op_set(&op, "bias", (const double[2]){1, 1});
    pt_op_set(&op, "eps", (const double[2]){0.25, 0.25});
    pt_op_set(&op, "momentum", (const double[2]){0.5, 0.5});
    pt_op_set(&op, "p", (const double[2]){0.75, 0.75});
    assert_int_equal(op.features, 12);
    assert_true(op.kernel[0] == 3 && op.kernel[1] == 5);
    assert_true(op.stride[0] == 2 && op.stride[1] == 1);
    assert_true(op.padding[0] == 0 && op.padding[1] == 4);
    assert_int_equal(op.groups, 6);
    assert_true(op.bias);
    assert_true(op.eps == 0.25 && op.momentum == 0.5 && op.p == 0.75);
}

static void test_defaults(void **state)
{
    (void)state;
    pt_op op = make(PT_OP_CONV2D, image);
    assert_true(op.stride[0] == 1 && op.stride[1] == 1 && op.padding[0] == 0 && op.groups == 1);
    assert_true(op.bias);
    op = make(PT_OP_BATCH_NORM, image);
    assert_true(op.eps == 1e-5 && op.momentum == 0.1);
    assert_true(make(PT_OP_DROPOUT, image).p == 0.5);
}

static void test_shapes(void **state)
{
    (void)state;
    pt_error err = {PT_OK, ""};
    pt_op op = conv(image, 32, 3);
    op.stride[0] = op.stride[1] = 2;
    op.padding[0] = op.padding[1] = 1;
    assert_ok(pt_op_infer(&op, &err), &err);
    assert_shape(&op, (pt_shape){3, {32, 5, 4}});

    op = make(PT_OP_LINEAR, features);
    op.features = 3;
    assert_ok(pt_op_infer(&op, &err), &err);
    assert_shape(&op, (pt_shape){1, {3}});

    op = make(PT_OP_MAX_POOL, image);
    op.kernel[0] = 2;
    op.kernel[1] = 3;
    assert_ok(pt_op_infer(&op, &err), &err);
    assert_true(op.stride[0] == 2 && op.stride[1] == 3); /* the kernel, as in PyTorch */
    assert_shape(&op, (pt_shape){3, {16, 4, 2}});

    op = make(PT_OP_AVG_POOL, image);
    op.kernel[0] = op.kernel[1] = 3;
    op.stride[0] = op.stride[1] = 2;
    op.padding[0] = op.padding[1] = 1;
    assert_ok(pt_op_infer(&op, &err), &err);
    assert_shape(&op, (pt_shape){3, {16, 5, 4}});

    op = make(PT_OP_GLOBAL_AVG_POOL, image);
    assert_ok(pt_op_infer(&op, &err), &err);
    assert_shape(&op, (pt_shape){1, {16}});

    op = make(PT_OP_FLATTEN, image);
    assert_ok(pt_op_infer(&op, &err), &err);
    assert_shape(&op, (pt_shape){1, {16 * 9 * 8}});
}

static void test_shapes_that_stay(void **state)
{
    (void)state;
    const pt_op_kind kinds[] = {PT_OP_BATCH_NORM, PT_OP_RELU, PT_OP_GELU, PT_OP_DROPOUT};
    const pt_shape shapes[] = {image, features};
    pt_error err = {PT_OK, ""};
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < 2; j++) {
            pt_op op = make(kinds[i], shapes[j]);
            assert_ok(pt_op_infer(&op, &err), &err);
            assert_shape(&op, shapes[j]);
        }
}

static void test_joins(void **state)
{
    (void)state;
    pt_error err = {PT_OK, ""};
    pt_op op = make(PT_OP_ADD, image);
    op.n_inputs = 3;
    op.in[1] = op.in[2] = image;
    assert_ok(pt_op_infer(&op, &err), &err);
    assert_shape(&op, image);
    op.kind = PT_OP_CONCAT;
    op.in[1].dims[0] = 3;
    assert_ok(pt_op_infer(&op, &err), &err);
    assert_shape(&op, (pt_shape){3, {35, 9, 8}});
    op.in[2].dims[2] = 7;
    assert_fails(pt_op_infer(&op, &err), PT_EINPUT, "input 3 is (16, 9, 7)", &err);
    op.kind = PT_OP_ADD;
    assert_fails(pt_op_infer(&op, &err), PT_EINPUT, "input 2 is (3, 9, 8)", &err);
    op.n_inputs = 1;
    assert_fails(pt_op_infer(&op, &err), PT_EINPUT, "add takes 2 to 8 inputs, not 1", &err);
    op.n_inputs = PT_MAX_INPUTS + 1;
    assert_fails(pt_op_infer(&op, &err), PT_EINPUT, "not 9", &err);
}

static void test_refused_convolutions(void **state)
{
    (void)state;
    pt_error err = {PT_OK, ""};
    pt_op op = conv(features, 4, 3);
    assert_fails(pt_op_infer(&op, &err), PT_EINPUT, "needs an image (C, H, W)", &err);
    op = conv(image, 4, 9);
    assert_fails(pt_op_infer(&op, &err), PT_EINPUT, "at most 8", &err);
    op.padding[1] = 1;
    assert_ok(pt_op_infer(&op, &err), &err);
    assert_shape(&op, (pt_shape){3, {4, 1, 2}});
    op = conv(image, 4, 3);
    op.groups = 8;
    assert_fails(pt_op_infer(&op, &err), PT_EINPUT, "its 4 features", &err);
    op = conv(image, 0, 3);
    assert_fails(pt_op_infer(&op, &err), PT_EINPUT, "at least 1", &err);
    op = conv(image, 4, 3);
    op.stride[1] = 0;
    assert_fails(pt_op_infer(&op, &err), PT_EINPUT, "columns", &err);
    op = conv(image, 4, 3);
    op.n_inputs = 2;
    op.in[1] = image;
    assert_fails(pt_op_infer(&op, &err), PT_EINPUT, "takes 1 input, not 2", &err);
    op = conv((pt_shape){3, {0, 9, 8}}, 4, 3);
    assert_fails(pt_op_infer(&op, &err), PT_EINPUT, "empty", &err);
}

static void test_other_refusals(void **state)
{
    (void)state;
    pt_error err = {PT_OK, ""};
    pt_op op = make(PT_OP_LINEAR, image);
    op.features = 10;
    assert_fails(pt_op_infer(&op, &err), PT_EINPUT, "1152 features", &err);
    op = make(PT_OP_LINEAR, features);
    assert_fails(pt_op_infer(&op, &err), PT_EINPUT, "features 0", &err);
    op = make(PT_OP_GLOBAL_AVG_POOL, features);
    assert_fails(pt_op_infer(&op, &err), PT_EINPUT, "global-avg-pool needs an image", &err);
    op = make(PT_OP_MAX_POOL, image);
    op.kernel[0] = op.kernel[1] = 3;
    op.padding[0] = 2;
    assert_fails(pt_op_infer(&op, &err), PT_EINPUT, "at most half the kernel, 1", &err);
    op = make(PT_OP_MAX_POOL, image);
    assert_fails(pt_op_infer(&op, &err), PT_EINPUT, "at least 1", &err); /* kernel 0 */
    op = make(PT_OP_BATCH_NORM, (pt_shape){2, {3, 4}});
    assert_fails(pt_op_infer(&op, &err), PT_EINPUT, "its input is (3, 4)", &err);
    op = make(PT_OP_BATCH_NORM, image);
    op.eps = 0;
    assert_fails(pt_op_infer(&op, &err), PT_EINPUT, "eps is above 0", &err);
    op = make(PT_OP_DROPOUT, image);
    op.p = 1;
    assert_fails(pt_op_infer(&op, &err), PT_EINPUT, "0 <= p < 1", &err);
}

/* Products of sizes that 64 bits cannot hold are refused and not wrapped. */
static void test_sizes_beyond_reason(void **state)
{
    (void)state;
    pt_error err = {PT_OK, ""};
    const int64_t big = (int64_t)1 << 40;
    pt_op op = make(PT_OP_FLATTEN, (pt_shape){3, {big, big, big}});
    assert_fails(pt_op_infer(&op, &err), PT_EINPUT, "in its input", &err);
    op = conv((pt_shape){3, {1024, 1024, 1024}}, 1048576, 1024);
    assert_fails(pt_op_infer(&op, &err), PT_EINPUT, "in its weight", &err);
    op = conv((pt_shape){3, {1, 1024, 1024}}, 1048576, 1);
    assert_fails(pt_op_infer(&op, &err), PT_EINPUT, "in its output", &err);
}

static void test_failure_leaves_the_shape(void **state)
{
    (void)state;
    pt_error err = {PT_OK, ""};
    pt_op op = conv(image, 4, 10);
    op.out = features;
    assert_fails(pt_op_infer(&op, &err), PT_EINPUT, "does not fit", &err);
    assert_shape(&op, features);
}

static void assert_tensor(const pt_op_tensor *t, const char *name, int ndim, const int64_t dims[])
{
    int64_t elements = 1;
    assert_string_equal(t->name, name);
    assert_int_equal(t->ndim, ndim);
    for (int i = 0; i < ndim; i++) {
        assert_int_equal(t->dims[i], dims[i]);
        elements *= dims[i];
    }
    assert_int_equal(t->elements, elements);
}

static void test_parameters(void **state)
{
    (void)state;
    pt_op_tensor t[PT_MAX_PARAMS], s[PT_MAX_STATE];
    pt_op op = conv(image, 32, 3);
    op.groups = 4;
    assert_int_equal(pt_op_params(&op, t), 2);
    assert_tensor(&t[0], "weight", 4, (const int64_t[]){32, 4, 3, 3});
    assert_tensor(&t[1], "bias", 1, (const int64_t[]){32});
    assert_int_equal(pt_op_state(&op, s), 0);
    op = make(PT_OP_LINEAR, features);
    op.features = 7;
    op.bias = false;
    assert_int_equal(pt_op_params(&op, t), 1);
    assert_tensor(&t[0], "weight", 2, (const int64_t[]){7, 10});
    op = make(PT_OP_BATCH_NORM, image);
    assert_int_equal(pt_op_params(&op, t), 2);
    assert_tensor(&t[0], "weight", 1, (const int64_t[]){16});
    assert_tensor(&t[1], "bias", 1, (const int64_t[]){16});
    assert_int_equal(pt_op_state(&op, s), 2);
    assert_tensor(&s[0], "running_mean", 1, (const int64_t[]){16});
    assert_tensor(&s[1], "running_var", 1, (const int64_t[]){16});
    op = make(PT_OP_RELU, image);
    assert_int_equal(pt_op_params(&op, t), 0);
    assert_int_equal(pt_op_state(&op, s), 0);
}

static void test_flops(void **state)
{
    (void)state;
    pt_error err = {PT_OK, ""};
    pt_op op = conv(image, 32, 3);
    op.groups = 4;
    op.bias = false;
    assert_ok(pt_op_infer(&op, &err), &err);
    assert_true(pt_op_flops(&op) == 2.0 * 32 * 7 * 6 * (16 / 4 * 3 * 3));
    op = make(PT_OP_LINEAR, features);
    op.features = 7;
    assert_ok(pt_op_infer(&op, &err), &err);
    assert_true(pt_op_flops(&op) == 2.0 * 7 * 10 + 7); /* and the bias */
    op = make(PT_OP_GLOBAL_AVG_POOL, image);
    assert_ok(pt_op_infer(&op, &err), &err);
    assert_true(pt_op_flops(&op) == 16.0 * 9 * 8);
    op = make(PT_OP_FLATTEN, image);
    assert_ok(pt_op_infer(&op, &err), &err);
    assert_true(pt_op_flops(&op) == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_attributes_fit_their_rows),
        cmocka_unit_test(test_set),
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_shapes),
        cmocka_unit_test(test_shapes_that_stay),
        cmocka_unit_test(test_joins),
        cmocka_unit_test(test_refused_convolutions),
        cmocka_unit_test(test_other_refusals),
        cmocka_unit_test(test_sizes_beyond_reason),
        cmocka_unit_test(test_failure_leaves_the_shape),
        cmocka_unit_test(test_parameters),
        cmocka_unit_test(test_flops),
    };
    return cmocka_run_group_tests_name("op", tests, NULL, NULL);
}
