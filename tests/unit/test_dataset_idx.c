/* Datasets in IDX files: good ones and broken ones. */
#include "dataset_rig.h"

#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

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

/* A plain file has no more data than bytes, so that a megabyte cannot ask for a gigabyte: refused
 * for what it is where a compressed one of that size would have been believed. */
static void idx_believes_no_plain_file(void **state)
{
    (void)state;
    enum { FILE_BYTES = 1 << 20, ROOM = 1 << 28 };
    const uint8_t count[4] = {4, 0, 0, 0};
    struct rlimit before, little;
    long pages = 0;
    put_idx();
    for (int i = 0; i < 4; i++) {
        poke(IMAGES, 4 + i, count[i]);
        poke(LABELS, 4 + i, count[i]);
    }
    cut(IMAGES, FILE_BYTES); /* longer, in truth */
    cut(LABELS, FILE_BYTES);
    FILE *memory = fopen("/proc/self/statm", "r");
    assert_non_null(memory);
    assert_int_equal(fscanf(memory, "%ld", &pages), 1);
    fclose(memory);
    assert_int_equal(getrlimit(RLIMIT_AS, &before), 0);
    little = before;
    little.rlim_cur = (rlim_t)pages * (rlim_t)sysconf(_SC_PAGESIZE) + ROOM;
    assert_int_equal(setrlimit(RLIMIT_AS, &little), 0);
    assert_idx_refused("the file is truncated");
    assert_int_equal(setrlimit(RLIMIT_AS, &before), 0);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(idx_reads_plain_and_gz),     TEST(idx_reads_only_what_is_wanted),
        TEST(idx_refuses_broken_files),   TEST(idx_refuses_absurd_lengths),
        TEST(idx_believes_no_plain_file), TEST(idx_refuses_labels_out_of_range),
        TEST(idx_refuses_damaged_gz),
    };
    return cmocka_run_group_tests_name("dataset_idx", tests, make_folder, remove_folder);
}
