/* Datasets in safetensors files, and inputs without answers. */
#include "dataset_rig.h"

#include <math.h>
#include <string.h>
#include <sys/stat.h>

#include "pipetrain/safetensors.h"

/* ---- arrays --------------------------------------------------------------------------------- */

enum { ARRAY_N = 4, ARRAY_E = 6 };

static const float array_floats[ARRAY_N * ARRAY_E] = {0.5F, -1, 2, 3, 4, 5, [23] = 1e30F};
static const uint8_t array_bytes[ARRAY_N * ARRAY_E] = {1, 2, 3, 255, [23] = 9};
static const int64_t classes_i64[ARRAY_N] = {0, 3, 1, 2};
static const int32_t classes_i32[ARRAY_N] = {0, 3, 1, 2};
static const uint8_t classes_u8[ARRAY_N] = {0, 3, 1, 2};
static const float array_targets[ARRAY_N * 2] = {1, -2, 3, -4, 5, -6, 7, -8};

static const pt_st_tensor tensor_x = {
    "x", PT_F32, 4, {ARRAY_N, 1, 2, 3}, array_floats, sizeof array_floats};
static const pt_st_tensor tensor_x_u8 = {
    "x", PT_U8, 2, {ARRAY_N, ARRAY_E}, array_bytes, sizeof array_bytes};
static const pt_st_tensor tensor_y = {"y", PT_I64, 1, {ARRAY_N}, classes_i64, sizeof classes_i64};
static const pt_st_tensor tensor_targets = {"y",          PT_F32,        2,
                                            {ARRAY_N, 2}, array_targets, sizeof array_targets};

static void put_arrays(const char *name, const pt_st_tensor *x, const pt_st_tensor *y)
{
    pt_st_tensor tensors[2] = {*y, *x};
    assert_ok(pt_safetensors_write(in_folder(name), tensors, 2, NULL, 0, &error), &error);
}

static pt_dataset_spec arrays_spec(const char *path)
{
    pt_dataset_spec spec = spec_of("arrays", 1, 2, 3);
    spec.path = path;
    spec.outputs = 4;
    return spec;
}

static void arrays_read_file_and_folder(void **state)
{
    (void)state;
    const pt_st_tensor answers[] = {tensor_y,
                                    {"y", PT_I32, 1, {ARRAY_N}, classes_i32, sizeof classes_i32},
                                    {"y", PT_U8, 2, {ARRAY_N, 1}, classes_u8, sizeof classes_u8}};
    const pt_st_tensor inputs[] = {tensor_x, tensor_x_u8};
    for (int a = 0; a < 6; a++) {
        const pt_st_tensor *x = &inputs[a % 2];
        const bool single = a < 3;
        put_arrays(single ? "all.safetensors" : "test.safetensors", x, &answers[a % 3]);
        pt_dataset_spec spec = arrays_spec(single ? in_folder("all.safetensors") : folder);
        spec.split = a == 0 ? PT_SPLIT_TRAIN : PT_SPLIT_TEST;
        pt_dataset *dataset = NULL;
        assert_ok(pt_dataset_open(&spec, &dataset, &error), &error);
        assert_int_equal(pt_dataset_count(dataset), ARRAY_N);
        assert_int_equal(pt_dataset_is_bytes(dataset), x->dtype == PT_U8);
        for (int i = 0; i < ARRAY_N; i++) {
            float input[ARRAY_E];
            pt_dataset_input(dataset, i, input);
            for (int e = 0; e < ARRAY_E; e++)
                assert_true(input[e] == (x->dtype == PT_U8 ? (float)array_bytes[i * ARRAY_E + e]
                                                           : array_floats[i * ARRAY_E + e]));
            assert_int_equal(pt_dataset_label(dataset, i), classes_i64[i]);
        }
        pt_dataset_close(dataset);
    }
}

static void arrays_read_targets(void **state)
{
    (void)state;
    pt_dataset *dataset = NULL;
    put_arrays("t.safetensors", &tensor_x, &tensor_targets);
    pt_dataset_spec spec = arrays_spec(in_folder("t.safetensors"));
    spec.targets = true;
    spec.outputs = 2;
    spec.samples = 3;
    assert_ok(pt_dataset_open(&spec, &dataset, &error), &error);
    assert_int_equal(pt_dataset_count(dataset), 3);
    for (int i = 0; i < 3; i++)
        assert_memory_equal(pt_dataset_target(dataset, i), array_targets + 2 * i,
                            2 * sizeof(float));
    pt_dataset_close(dataset);
    spec.outputs = 3;
    assert_fails(pt_dataset_open(&spec, &dataset, &error), PT_EINPUT,
                 "an answer in y is 2, but the model needs 3 numbers", &error);
    spec.outputs = 2;
    spec.targets = false;
    assert_fails(pt_dataset_open(&spec, &dataset, &error), PT_EINPUT,
                 "y holds floats, but the loss cross-entropy needs classes", &error);
    /* A vector of plain numbers is a target of length one. */
    const pt_st_tensor line = {"y", PT_F32, 1, {ARRAY_N}, array_targets, ARRAY_N * sizeof(float)};
    put_arrays("t.safetensors", &tensor_x, &line);
    spec.targets = true;
    spec.outputs = 1;
    assert_ok(pt_dataset_open(&spec, &dataset, &error), &error);
    assert_true(pt_dataset_target(dataset, 2)[0] == 3);
    pt_dataset_close(dataset);
}

static void assert_arrays_refused(const pt_st_tensor *x, const pt_st_tensor *y, const char *words)
{
    pt_dataset *dataset;
    put_arrays("bad.safetensors", x, y);
    pt_dataset_spec spec = arrays_spec(in_folder("bad.safetensors"));
    assert_fails(pt_dataset_open(&spec, &dataset, &error), PT_EINPUT, words, &error);
}

static void arrays_refuse_what_does_not_fit(void **state)
{
    (void)state;
    pt_st_tensor t = tensor_x;
    t.name = "inputs";
    assert_arrays_refused(&t, &tensor_y, "store the inputs as x");
    t = tensor_y;
    t.name = "labels";
    assert_arrays_refused(&tensor_x, &t, "store the answers as y");
    t = (pt_st_tensor){"y", PT_I64, 1, {ARRAY_N - 1}, classes_i64, 3 * sizeof(int64_t)};
    assert_arrays_refused(&tensor_x, &t, "x holds 4 samples, but y holds 3 answers");
    t = (pt_st_tensor){"x", PT_F32, 3, {ARRAY_N, 3, 2}, array_floats, sizeof array_floats};
    t.dims[1] = 2;
    t.bytes = ARRAY_N * 4 * sizeof(float);
    assert_arrays_refused(&t, &tensor_y, "a sample is 2x2 (4 elements)");
    t = (pt_st_tensor){"x", PT_I32, 2, {1, ARRAY_N}, classes_i32, sizeof classes_i32};
    assert_arrays_refused(&t, &tensor_y, "store inputs as f32 or u8");
    t = (pt_st_tensor){"x", PT_F32, 2, {0, ARRAY_E}, array_floats, 0};
    assert_arrays_refused(&t, &tensor_y, "holds no samples");
    const int64_t out_of_range[ARRAY_N] = {0, 1, 4, 0}, negative[ARRAY_N] = {0, -1, 0, 0};
    t = (pt_st_tensor){"y", PT_I64, 1, {ARRAY_N}, out_of_range, sizeof out_of_range};
    assert_arrays_refused(&tensor_x, &t, "the label of sample 2 is 4");
    t.data = negative;
    assert_arrays_refused(&tensor_x, &t, "the label of sample 1 is -1");
    float strange[ARRAY_N * ARRAY_E] = {0};
    strange[15] = NAN;
    t = tensor_x;
    t.data = strange;
    assert_arrays_refused(&t, &tensor_y, "x of sample 2 holds a value that is infinite");
    pt_dataset *dataset;
    pt_dataset_spec spec = arrays_spec(in_folder("bad.safetensors"));
    cut("bad.safetensors", size_of("bad.safetensors") - 1);
    assert_fails(pt_dataset_open(&spec, &dataset, &error), PT_EINPUT, "bad.safetensors", &error);
    spec.path = in_folder("none.safetensors");
    assert_fails(pt_dataset_open(&spec, &dataset, &error), PT_EINPUT, "there is no", &error);
}

/* ---- inputs without answers ----------------------------------------------------------------- */

static void check_inputs(const char *file, const pt_shape *shape, int64_t count, bool is_bytes,
                         float first)
{
    float input[IDX_E];
    pt_dataset *dataset = NULL;
    assert_true(pt_shape_elements(shape) <= IDX_E);
    for (int want = 0; want < 2; want++) { /* not wanted: the count alone */
        assert_ok(pt_dataset_open_inputs(file, shape, want, &dataset, &error), &error);
        assert_int_equal(pt_dataset_count(dataset), count);
        assert_int_equal(pt_dataset_is_bytes(dataset), is_bytes);
        if (want) {
            pt_dataset_input(dataset, 1, input);
            assert_true(input[0] == first);
        }
        pt_dataset_close(dataset);
    }
}

static void inputs_are_read_alone(void **state)
{
    (void)state;
    uint8_t images[IMAGES_SIZE], labels[LABELS_SIZE];
    const pt_shape idx_shape = {3, {1, IDX_H, IDX_W}}, array_shape = {1, {ARRAY_E}};
    make_idx(images, labels);
    put("some.idx", images, sizeof images);
    put_gz("some.idx.gz", images, sizeof images);
    check_inputs(in_folder("some.idx"), &idx_shape, IDX_N, true, 10);
    check_inputs(in_folder("some.idx.gz"), &idx_shape, IDX_N, true, 10);
    const pt_st_tensor *const x[] = {&tensor_x_u8, &tensor_x};
    for (int k = 0; k < 2; k++) {
        const char *file = in_folder("x.safetensors");
        assert_ok(pt_safetensors_write(file, x[k], 1, NULL, 0, &error), &error);
        check_inputs(file, &array_shape, ARRAY_N, k == 0, 0);
    }
}

static void assert_inputs_refused(const char *name, const char *words)
{
    const pt_shape shape = {3, {1, IDX_H, IDX_W}};
    pt_dataset *dataset = NULL;
    for (int want = 0; want < 2; want++)
        assert_fails(pt_dataset_open_inputs(in_folder(name), &shape, want, &dataset, &error),
                     PT_EINPUT, words, &error);
    assert_null(dataset);
}

static void inputs_refuse_what_does_not_fit(void **state)
{
    (void)state;
    put_idx();
    assert_inputs_refused("none", "name a safetensors file with a tensor x");
    assert_inputs_refused(LABELS, "the magic number is 0x00000801");
    poke(IMAGES, 15, 4);
    assert_inputs_refused(IMAGES, "a sample is 2x4 (8 elements)");
    pt_st_tensor y = tensor_y;
    assert_ok(pt_safetensors_write(in_folder("y.safetensors"), &y, 1, NULL, 0, &error), &error);
    assert_inputs_refused("y.safetensors", "store the inputs as x");
    assert_inputs_refused("", "is not a regular file; an IDX file is wanted"); /* the folder */
    assert_int_equal(mkfifo(in_folder("pipe"), 0600), 0); /* must not wait for a writer */
    assert_inputs_refused("pipe", "is not a regular file");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(arrays_read_file_and_folder),     TEST(arrays_read_targets),
        TEST(arrays_refuse_what_does_not_fit), TEST(inputs_are_read_alone),
        TEST(inputs_refuse_what_does_not_fit),
    };
    return cmocka_run_group_tests_name("dataset_arrays", tests, make_folder, remove_folder);
}
