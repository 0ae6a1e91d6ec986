/* The synthetic dataset. */
#include "dataset_rig.h"

#include <math.h>
#include <string.h>

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(synthetic_is_a_pure_function),
        TEST(synthetic_can_be_learnt),
        TEST(synthetic_values_suit_images),
        TEST(synthetic_makes_targets),
    };
    return cmocka_run_group_tests_name("dataset_synthetic", tests, make_folder, remove_folder);
}
