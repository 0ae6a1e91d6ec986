/* Datasets: every reader on small files written here, good ones and broken ones; the synthetic set;
 * and the real Fashion-MNIST where it is installed. */
#include "suite.h"

#include <fcntl.h>
#include <ftw.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <zlib.h>

#include "pipetrain/dataset.h"
#include "pipetrain/safetensors.h"

#define FASHION_MNIST "/usr/share/datasets/fashion-mnist"

static char folder[256];
static pt_error error;

/* ---- files to read -------------------------------------------------------------------------- */

static int make_folder(void **state)
{
    (void)state;
    const char *base = getenv("TMPDIR");
    snprintf(folder, sizeof folder, "%s/pt-XXXXXX", base && *base ? base : "/tmp");
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_entry(const char *path, const struct stat *info, int kind, struct FTW *position)
{
    (void)info;
    (void)kind;
    return position->level == 0 ? 0 : remove(path);
}

static int empty_folder(void **state)
{
    (void)state;
    return nftw(folder, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
}

static int remove_folder(void **state)
{
    return empty_folder(state) || rmdir(folder);
}

/* The full name of a file in the folder; the next call but three overwrites it. */
static const char *in_folder(const char *name)
{
    static char paths[4][512];
    static int next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", folder, name);
    return path;
}

static void put(const char *name, const void *bytes, size_t n)
{
    FILE *stream = fopen(in_folder(name), "wb");
    assert_non_null(stream);
    assert_int_equal(fwrite(bytes, 1, n, stream), n);
    assert_int_equal(fclose(stream), 0);
}

static void put_gz(const char *name, const void *bytes, size_t n)
{
    gzFile gz = gzopen(in_folder(name), "wb");
    assert_non_null(gz);
    assert_int_equal(gzwrite(gz, bytes, (unsigned)n), n);
    assert_int_equal(gzclose(gz), Z_OK);
}

/* Cuts a file to `bytes` bytes. */
static void cut(const char *name, off_t bytes)
{
    assert_int_equal(truncate(in_folder(name), bytes), 0);
}

static off_t size_of(const char *name)
{
    struct stat info;
    assert_int_equal(stat(in_folder(name), &info), 0);
    return info.st_size;
}

/* Changes one byte of a file. */
static void poke(const char *name, off_t at, uint8_t value)
{
    int fd = open(in_folder(name), O_WRONLY);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, &value, 1, at), 1);
    close(fd);
}

static pt_dataset_spec spec_of(const char *name, int64_t channels, int64_t height, int64_t width)
{
    return (pt_dataset_spec){.name = name,
                             .path = folder,
                             .shape = {3, {channels, height, width}},
                             .outputs = 10,
                             .want_inputs = true,
                             .want_answers = true};
}

/* ---- IDX ------------------------------------------------------------------------------------ */

enum {
    IDX_N = 5,
    IDX_H = 2,
    IDX_W = 3,
    IDX_E = IDX_H * IDX_W,
    IMAGES_HEAD = 16,
    LABELS_HEAD = 8,
    IMAGES_SIZE = IMAGES_HEAD + IDX_N * IDX_E,
    LABELS_SIZE = LABELS_HEAD + IDX_N
};

#define IMAGES "train-images-idx3-ubyte"
#define LABELS "train-labels-idx1-ubyte"

/* Pixel e of image i is 10 i + e, its label 9 - i. */
static void make_idx(uint8_t images[IMAGES_SIZE], uint8_t labels[LABELS_SIZE])
{
    const uint8_t images_head[IMAGES_HEAD] = {0, 0, 8, 3,     0, 0, 0, IDX_N,
                                              0, 0, 0, IDX_H, 0, 0, 0, IDX_W};
    const uint8_t labels_head[LABELS_HEAD] = {0, 0, 8, 1, 0, 0, 0, IDX_N};
    memcpy(images, images_head, IMAGES_HEAD);
    memcpy(labels, labels_head, LABELS_HEAD);
    for (int i = 0; i < IDX_N; i++) {
        labels[LABELS_HEAD + i] = (uint8_t)(9 - i);
        for (int e = 0; e < IDX_E; e++)
            images[IMAGES_HEAD + i * IDX_E + e] = (uint8_t)(10 * i + e);
    }
}

static void put_idx(void)
{
    uint8_t images[IMAGES_SIZE], labels[LABELS_SIZE];
    make_idx(images, labels);
    put(IMAGES, images, sizeof images);
    put(LABELS, labels, sizeof labels);
}

static void check_idx(const pt_dataset_spec *spec, int64_t count)
{
    pt_dataset *dataset = NULL;
    assert_ok(pt_dataset_open(spec, &dataset, &error), &error);
    assert_int_equal(pt_dataset_count(dataset), count);
    assert_true(pt_dataset_is_bytes(dataset));
    for (int i = 0; i < count; i++) {
        float input[IDX_E];
        pt_dataset_input(dataset, i, input);
        for (int e = 0; e < IDX_E; e++)
            assert_true(input[e] == (float)(10 * i + e));
        assert_int_equal(pt_dataset_label(dataset, i), 9 - i);
    }
    pt_dataset_close(dataset);
}

static void idx_reads_plain_and_gz(void **state)
{
    (void)state;
    uint8_t images[IMAGES_SIZE], labels[LABELS_SIZE];
    make_idx(images, labels);
    pt_dataset_spec spec = spec_of("idx", 1, IDX_H, IDX_W);
    put_idx();
    check_idx(&spec, IDX_N);
    empty_folder(NULL);
    put_gz(IMAGES ".gz", images, sizeof images);
    put_gz(LABELS ".gz", labels, sizeof labels);
    check_idx(&spec, IDX_N);
    spec.name = "mnist";
    spec.samples = 3;
    check_idx(&spec, 3);
    spec.samples = IDX_N + 1; /* more than there are: all */
    check_idx(&spec, IDX_N);
    spec.shape = (pt_shape){1, {IDX_E}}; /* the same elements in another shape */
    check_idx(&spec, IDX_N);
    spec.split = PT_SPLIT_TEST;
    pt_dataset *dataset;
    assert_fails(pt_dataset_open(&spec, &dataset, &error), PT_EINPUT, "t10k-images-idx3-ubyte",
                 &error);
}

/* Ranks in the middle of the pipeline read headers only; the outer ones only their own file. */
static void idx_reads_only_what_is_wanted(void **state)
{
    (void)state;
    pt_dataset_spec spec = spec_of("idx", 1, IDX_H, IDX_W);
    pt_dataset *dataset = NULL;
    put_idx();
    cut(IMAGES, IMAGES_HEAD);
    spec.want_inputs = false;
    assert_ok(pt_dataset_open(&spec, &dataset, &error), &error);
    assert_int_equal(pt_dataset_label(dataset, 2), 7);
    pt_dataset_close(dataset);
    cut(LABELS, LABELS_HEAD);
    spec.want_answers = false;
    assert_ok(pt_dataset_open(&spec, &dataset, &error), &error);
    assert_int_equal(pt_dataset_count(dataset), IDX_N);
    assert_true(pt_dataset_is_bytes(dataset));
    pt_dataset_close(dataset);
}

static void assert_idx_refused(const char *words)
{
    pt_dataset_spec spec = spec_of("idx", 1, IDX_H, IDX_W);
    pt_dataset *dataset = (pt_dataset *)&spec;
    assert_fails(pt_dataset_open(&spec, &dataset, &error), PT_EINPUT, words, &error);
    assert_ptr_equal(dataset, &spec); /* outputs stay untouched on failure */
    spec.samples = 1;                 /* fewer samples do not hide what is wrong with the file */
    assert_fails(pt_dataset_open(&spec, &dataset, &error), PT_EINPUT, words, &error);
}

static void idx_refuses_broken_files(void **state)
{
    (void)state;
    for (off_t bytes = 0; bytes < IMAGES_SIZE; bytes++) {
        put_idx();
        cut(IMAGES, bytes);
        assert_idx_refused(IMAGES ": the file is truncated");
    }
    for (off_t bytes = 0; bytes < LABELS_SIZE; bytes++) {
        put_idx();
        cut(LABELS, bytes);
        assert_idx_refused(LABELS ": the file is truncated");
    }
    put_idx();
    poke(IMAGES, 3, 1);
    assert_idx_refused("the magic number is 0x00000801, not 0x00000803");
    put_idx();
    poke(LABELS, 0, 0x1e);
    assert_idx_refused("the magic number is 0x1e000801, not 0x00000801");
    put_idx();
    poke(IMAGES, IMAGES_SIZE, 0);
    assert_idx_refused(IMAGES ": data goes on after the 5 samples");
    put_idx();
    poke(LABELS, LABELS_SIZE, 0);
    assert_idx_refused(LABELS ": data goes on after the 5 samples");
    put_idx();
    poke(IMAGES, 15, 4);
    assert_idx_refused("a sample is 2x4 (8 elements), but the model's input is (1, 2, 3)");
    put_idx();
    poke(LABELS, 7, 4);
    assert_idx_refused("holds 5 images, but");
    put_idx();
    poke(LABELS, 7, 0);
    poke(IMAGES, 7, 0);
    assert_idx_refused("holds no samples");
}

/* Four thousand million images announced by a file of some bytes: refused before memory is taken,
 * and before lengths are multiplied beyond 64 bits. */
static void idx_refuses_absurd_lengths(void **state)
{
    (void)state;
    put_idx();
    for (off_t at = 4; at < 8; at++) {
        poke(IMAGES, at, 0xff);
        poke(LABELS, at, 0xff);
    }
    assert_idx_refused("the file is truncated");
    for (off_t at = 8; at < 16; at++)
        poke(IMAGES, at, 0xff);
    assert_idx_refused("4294967295x4294967295");
}

static void idx_refuses_labels_out_of_range(void **state)
{
    (void)state;
    pt_dataset_spec spec = spec_of("idx", 1, IDX_H, IDX_W);
    pt_dataset *dataset;
    put_idx();
    spec.outputs = 9; /* the first label is 9 */
    assert_fails(pt_dataset_open(&spec, &dataset, &error), PT_EINPUT,
                 "the label of sample 0 is 9, but the model has outputs for the classes 0 … 8",
                 &error);
    spec.outputs = 10;
    poke(LABELS, LABELS_HEAD + 3, 77);
    assert_fails(pt_dataset_open(&spec, &dataset, &error), PT_EINPUT, "of sample 3 is 77", &error);
    spec.targets = true;
    assert_fails(pt_dataset_open(&spec, &dataset, &error), PT_EINPUT, "cross-entropy", &error);
}

static void idx_refuses_damaged_gz(void **state)
{
    (void)state;
    uint8_t images[IMAGES_SIZE], labels[LABELS_SIZE];
    make_idx(images, labels);
    put(LABELS, labels, sizeof labels);
    put_gz(IMAGES ".gz", images, sizeof images);
    off_t size = size_of(IMAGES ".gz");
    poke(IMAGES ".gz", size - 6, 0); /* in the checksum */
    poke(IMAGES ".gz", size - 5, 0);
    assert_idx_refused("the compressed data is damaged");
    put_gz(IMAGES ".gz", images, sizeof images);
    cut(IMAGES ".gz", size - 4); /* all data, but no end */
    assert_idx_refused("the file is truncated");
    cut(IMAGES ".gz", size / 2);
    assert_idx_refused("the file is truncated");
}

/* ---- CIFAR ---------------------------------------------------------------------------------- */

enum { PIXELS = 3 * 32 * 32 };

/* Records first … first + n - 1: the labels given by the record's number, pixel e is (i + e) % 251.
 */
static void put_cifar(const char *name, int label_bytes, int first, int n)
{
    size_t record = (size_t)label_bytes + PIXELS;
    uint8_t *bytes = malloc((size_t)n * record);
    assert_non_null(bytes);
    for (int i = first; i < first + n; i++) {
        uint8_t *at = bytes + (size_t)(i - first) * record;
        at[0] = (uint8_t)(label_bytes == 1 ? i % 10 : 200); /* coarse labels are not looked at */
        at[label_bytes - 1] = (uint8_t)(label_bytes == 1 ? i % 10 : i % 100);
        for (int e = 0; e < PIXELS; e++)
            at[label_bytes + e] = (uint8_t)((i + e) % 251);
    }
    put(name, bytes, (size_t)n * record);
    free(bytes);
}

static void check_cifar(const pt_dataset_spec *spec, int64_t count)
{
    static float input[PIXELS];
    pt_dataset *dataset = NULL;
    assert_ok(pt_dataset_open(spec, &dataset, &error), &error);
    assert_int_equal(pt_dataset_count(dataset), count);
    assert_true(pt_dataset_is_bytes(dataset));
    for (int i = 0; i < count; i++) {
        pt_dataset_input(dataset, i, input);
        for (int e = 0; e < PIXELS; e++)
            assert_true(input[e] == (float)((i + e) % 251));
        assert_int_equal(pt_dataset_label(dataset, i), i % spec->outputs);
    }
    pt_dataset_close(dataset);
}

static void cifar10_joins_its_files(void **state)
{
    (void)state;
    pt_dataset_spec spec = spec_of("cifar10", 3, 32, 32);
    pt_dataset *dataset = NULL;
    int first = 0;
    for (int f = 1; f <= 5; f++) { /* files of 1, 2, 3, 4, 5 records */
        char name[32];
        snprintf(name, sizeof name, "data_batch_%d.bin", f);
        put_cifar(name, 1, first, f);
        first += f;
    }
    check_cifar(&spec, 15);
    spec.samples = 4; /* ends inside the third file */
    check_cifar(&spec, 4);
    spec.samples = 0;
    spec.want_inputs = spec.want_answers = false;
    assert_ok(pt_dataset_open(&spec, &dataset, &error), &error);
    assert_int_equal(pt_dataset_count(dataset), 15);
    pt_dataset_close(dataset);
    spec.want_inputs = spec.want_answers = true;
    cut("data_batch_4.bin", 4 * (PIXELS + 1) - 1);
    assert_fails(pt_dataset_open(&spec, &dataset, &error), PT_EINPUT,
                 "data_batch_4.bin: 12291 bytes are not a whole number of records of 3073", &error);
    assert_int_equal(remove(in_folder("data_batch_4.bin")), 0);
    assert_fails(pt_dataset_open(&spec, &dataset, &error), PT_EINPUT, "there is no ", &error);
    spec.split = PT_SPLIT_TEST;
    put_cifar("test_batch.bin", 1, 0, 3);
    check_cifar(&spec, 3);
    poke("test_batch.bin", 2 * (PIXELS + 1), 10);
    assert_fails(pt_dataset_open(&spec, &dataset, &error), PT_EINPUT,
                 "test_batch.bin: the label of sample 2 is 10", &error);
    cut("test_batch.bin", 0);
    assert_fails(pt_dataset_open(&spec, &dataset, &error), PT_EINPUT, "0 bytes", &error);
    spec.shape = (pt_shape){3, {1, 28, 28}};
    assert_fails(pt_dataset_open(&spec, &dataset, &error), PT_EINPUT, "a sample is 3x32x32",
                 &error);
}

static void cifar100_learns_the_fine_label(void **state)
{
    (void)state;
    pt_dataset_spec spec = spec_of("cifar100", 3, 32, 32);
    pt_dataset *dataset;
    spec.outputs = 100;
    put_cifar("train.bin", 2, 0, 12);
    put_cifar("test.bin", 2, 0, 2);
    check_cifar(&spec, 12);
    spec.split = PT_SPLIT_TEST;
    check_cifar(&spec, 2);
    spec.targets = true;
    assert_fails(pt_dataset_open(&spec, &dataset, &error), PT_EINPUT, "holds classes", &error);
}

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

/* ---- synthetic ------------------------------------------------------------------------------ */

static pt_dataset *open_synthetic(pt_split split, int64_t samples, uint64_t seed,
                                  const pt_shape *shape)
{
    pt_dataset_spec spec = spec_of("synthetic", 1, 1, 1);
    pt_dataset *dataset = NULL;
    spec.path = NULL;
    spec.split = split;
    spec.samples = samples;
    spec.seed = seed;
    spec.shape = *shape;
    assert_ok(pt_dataset_open(&spec, &dataset, &error), &error);
    assert_int_equal(pt_dataset_count(dataset), samples);
    assert_false(pt_dataset_is_bytes(dataset));
    return dataset;
}

/* A sample depends on seed, split and index, and on nothing else. */
static void synthetic_is_a_pure_function(void **state)
{
    (void)state;
    enum { E = 2 * 5 * 7 }; /* no multiple of the noise's block */
    const pt_shape shape = {3, {2, 5, 7}};
    float a[E], b[E];
    pt_dataset *many = open_synthetic(PT_SPLIT_TRAIN, 100, 1, &shape);
    pt_dataset *few = open_synthetic(PT_SPLIT_TRAIN, 37, 1, &shape);
    pt_dataset *test = open_synthetic(PT_SPLIT_TEST, 100, 1, &shape);
    pt_dataset *other = open_synthetic(PT_SPLIT_TRAIN, 100, 2, &shape);
    for (int i = 36; i >= 0; i--) {
        pt_dataset_input(many, i, a);
        pt_dataset_input(few, i, b);
        assert_memory_equal(a, b, sizeof a);
        assert_int_equal(pt_dataset_label(many, i), pt_dataset_label(few, i));
        pt_dataset_input(test, i, b);
        assert_memory_not_equal(a, b, sizeof a);
        pt_dataset_input(other, i, b);
        assert_memory_not_equal(a, b, sizeof a);
    }
    int count[10] = {0}, in_order = 0;
    for (int i = 0; i < 100; i++) {
        count[pt_dataset_label(many, i)]++;
        in_order += pt_dataset_label(many, i) == i % 10;
    }
    for (int c = 0; c < 10; c++)
        assert_int_equal(count[c], 10);
    assert_true(in_order < 50);
    pt_dataset_close(many);
    pt_dataset_close(few);
    pt_dataset_close(test);
    pt_dataset_close(other);
}

static float distance(const float *a, const float *b, int64_t n)
{
    float sum = 0;
    for (int64_t e = 0; e < n; e++)
        sum += (a[e] - b[e]) * (a[e] - b[e]);
    return sum;
}

/* Class means of the training set classify the test set: the two show the same classes, and there
 * is something to learn. Chance would be a tenth. */
static void check_learnable(const pt_shape *shape, double wanted_accuracy)
{
    enum { N = 500, MAX_E = 400 };
    static float means[10][MAX_E], input[MAX_E];
    const int64_t elements = pt_shape_elements(shape);
    assert_true(elements <= MAX_E);
    memset(means, 0, sizeof means);
    pt_dataset *train = open_synthetic(PT_SPLIT_TRAIN, N, 5, shape);
    pt_dataset *test = open_synthetic(PT_SPLIT_TEST, N, 5, shape);
    for (int i = 0; i < N; i++) {
        pt_dataset_input(train, i, input);
        for (int64_t e = 0; e < elements; e++)
            means[pt_dataset_label(train, i)][e] += input[e] / (N / 10.0F);
    }
    int right = 0;
    for (int i = 0; i < N; i++) {
        pt_dataset_input(test, i, input);
        int best = 0;
        for (int c = 1; c < 10; c++)
            if (distance(input, means[c], elements) < distance(input, means[best], elements))
                best = c;
        right += best == pt_dataset_label(test, i);
    }
    pt_dataset_close(train);
    pt_dataset_close(test);
    assert_true(right >= wanted_accuracy * N);
}

static void synthetic_can_be_learnt(void **state)
{
    (void)state;
    const pt_shape image = {3, {3, 9, 14}}, column = {3, {1, 40, 1}}, line = {1, {20}};
    /* Dozens of elements: classes lie many deviations of the noise apart. */
    check_learnable(&image, 0.95);
    check_learnable(&line, 0.95);
    check_learnable(&column, 0.90); /* four grid points only */
}

static void synthetic_values_suit_images(void **state)
{
    (void)state;
    enum { N = 400, E = 28 * 28 };
    const pt_shape shape = {3, {1, 28, 28}};
    static float input[E];
    pt_dataset *dataset = open_synthetic(PT_SPLIT_TRAIN, N, 3, &shape);
    double sum = 0, squares = 0;
    for (int i = 0; i < N; i++) {
        pt_dataset_input(dataset, i, input);
        for (int e = 0; e < E; e++) {
            sum += input[e];
            squares += (double)input[e] * input[e];
        }
    }
    pt_dataset_close(dataset);
    double mean = sum / N / E, deviation = sqrt(squares / N / E - mean * mean);
    /* The grids hold 160 numbers of deviation 1/4 in all, so that their mean varies by .02; a bound
     * of five times that cannot fail by chance. */
    assert_true(fabs(mean - 0.5) < 0.1);
    assert_true(deviation > 0.15 && deviation < 0.35);
}

static void synthetic_makes_targets(void **state)
{
    (void)state;
    pt_dataset_spec spec = spec_of("synthetic", 1, 4, 4);
    pt_dataset *dataset = NULL;
    spec.targets = true;
    spec.outputs = 3;
    assert_ok(pt_dataset_open(&spec, &dataset, &error), &error);
    assert_int_equal(pt_dataset_count(dataset), 4096);
    int differ = 0;
    for (int i = 1; i < 100; i++) {
        const float *a = pt_dataset_target(dataset, i - 1), *b = pt_dataset_target(dataset, i);
        for (int o = 0; o < 3; o++)
            assert_true(isfinite(b[o]));
        differ += memcmp(a, b, 3 * sizeof *a) != 0;
    }
    assert_true(differ > 50);
    pt_dataset_close(dataset);
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

/* ---- opening -------------------------------------------------------------------------------- */

static void names_are_listed(void **state)
{
    (void)state;
    const char *const expected[] = {"fashion-mnist", "mnist",  "idx",      "cifar10",
                                    "cifar100",      "arrays", "synthetic"};
    const char *const *names = pt_dataset_names();
    int n = 0;
    for (; names[n]; n++)
        assert_string_equal(names[n], expected[n]);
    assert_int_equal(n, 7);
}

static void open_refuses_bad_requests(void **state)
{
    (void)state;
    pt_dataset *dataset;
    pt_dataset_spec spec = spec_of("fashon-mnist", 1, 28, 28);
    assert_fails(pt_dataset_open(&spec, &dataset, &error), PT_EINPUT,
                 "unknown dataset 'fashon-mnist': did you mean fashion-mnist?", &error);
    spec.name = "wikipedia";
    assert_fails(pt_dataset_open(&spec, &dataset, &error), PT_EINPUT,
                 "write one of fashion-mnist, mnist, idx, cifar10, cifar100, arrays, synthetic",
                 &error);
    spec.name = "fashion-mnist"; /* the folder is empty */
    assert_fails(pt_dataset_open(&spec, &dataset, &error), PT_EINPUT, "dataset-fashion-mnist",
                 &error);
    assert_fails(pt_dataset_open(&spec, &dataset, &error), PT_EINPUT, "--data DIR", &error);
    spec.name = "cifar10";
    spec.path = NULL;
    assert_fails(pt_dataset_open(&spec, &dataset, &error), PT_EINPUT, "--data DIR", &error);
    spec.name = "synthetic";
    spec.samples = -1;
    assert_fails(pt_dataset_open(&spec, &dataset, &error), PT_EINPUT, "write 1 or more", &error);
    spec.samples = 1LL << 32;
    assert_fails(pt_dataset_open(&spec, &dataset, &error), PT_EINPUT, "4294967295", &error);
    spec.samples = 1;
    spec.outputs = 0;
    assert_fails(pt_dataset_open(&spec, &dataset, &error), PT_EINPUT, "at least 1", &error);
    pt_dataset_close(NULL);
}

/* ---- the real thing ------------------------------------------------------------------------- */

/* The published statistics of the training images, to the four digits that models normalise by. */
static const double FASHION_MEAN = 0.2860, FASHION_STD = 0.3530, FOUR_DIGITS = 0.00005;

static void check_fashion_mnist(pt_split split, int64_t count)
{
    pt_dataset_spec spec = spec_of("fashion-mnist", 1, 28, 28);
    pt_dataset *dataset = NULL;
    spec.path = NULL;
    spec.split = split;
    assert_ok(pt_dataset_open(&spec, &dataset, &error), &error);
    assert_int_equal(pt_dataset_count(dataset), count);
    int classes[10] = {0};
    double sum = 0, squares = 0;
    for (int64_t i = 0; i < count; i++) {
        float input[28 * 28];
        pt_dataset_input(dataset, i, input);
        classes[pt_dataset_label(dataset, i)]++;
        for (int e = 0; e < 28 * 28; e++) {
            sum += input[e];
            squares += (double)input[e] * input[e];
        }
    }
    pt_dataset_close(dataset);
    for (int c = 0; c < 10; c++)
        assert_int_equal(classes[c], count / 10);
    if (split == PT_SPLIT_TRAIN) {
        double elements = (double)count * 28 * 28;
        double mean = sum / elements / 255;
        assert_true(fabs(mean - FASHION_MEAN) < FOUR_DIGITS);
        assert_true(fabs(sqrt(squares / elements / 255 / 255 - mean * mean) - FASHION_STD) <
                    FOUR_DIGITS);
    }
}

static void fashion_mnist_is_whole(void **state)
{
    (void)state;
    if (access(FASHION_MNIST, R_OK) != 0) {
        print_message("skipped: there is no " FASHION_MNIST " (package dataset-fashion-mnist)\n");
        skip();
    }
    check_fashion_mnist(PT_SPLIT_TRAIN, 60000);
    check_fashion_mnist(PT_SPLIT_TEST, 10000);
}

#define TEST(name) cmocka_unit_test_teardown(name, empty_folder)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(idx_reads_plain_and_gz),          TEST(idx_reads_only_what_is_wanted),
        TEST(idx_refuses_broken_files),        TEST(idx_refuses_absurd_lengths),
        TEST(idx_refuses_labels_out_of_range), TEST(idx_refuses_damaged_gz),
        TEST(cifar10_joins_its_files),         TEST(cifar100_learns_the_fine_label),
        TEST(arrays_read_file_and_folder),     TEST(arrays_read_targets),
        TEST(arrays_refuse_what_does_not_fit), TEST(synthetic_is_a_pure_function),
        TEST(synthetic_can_be_learnt),         TEST(synthetic_values_suit_images),
        TEST(synthetic_makes_targets),         TEST(names_are_listed),
        TEST(inputs_are_read_alone),           TEST(inputs_refuse_what_does_not_fit),
        TEST(open_refuses_bad_requests),       TEST(fashion_mnist_is_whole),
    };
    return cmocka_run_group_tests_name("dataset", tests, make_folder, remove_folder);
}
