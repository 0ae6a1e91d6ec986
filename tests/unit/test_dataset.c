/* Datasets: their names, CIFAR, and the real Fashion-MNIST where it is installed. */
#include "dataset_rig.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FASHION_MNIST "/usr/share/datasets/fashion-mnist"

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(cifar10_joins_its_files), TEST(cifar100_learns_the_fine_label),
        TEST(names_are_listed),        TEST(open_refuses_bad_requests),
        TEST(fashion_mnist_is_whole),
    };
    return cmocka_run_group_tests_name("dataset", tests, make_folder, remove_folder);
}
