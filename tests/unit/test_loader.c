/* Sampler, plan of an epoch, and loader. */
#include "suite.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "folder.h"
#include "pipetrain/loader.h"
#include "pipetrain/safetensors.h"

static pt_error error;

/* ---- sampler -------------------------------------------------------------------------------- */

static void sampler_permutes(void **state)
{
    (void)state;
    for (int64_t count = 1; count <= 1000; count = count * 3 + 1) {
        pt_sampler *sampler = NULL;
        assert_ok(pt_sampler_new(count, 7, true, &sampler, &error), &error);
        for (uint32_t epoch = 0; epoch < 3; epoch++) {
            uint8_t seen[1000] = {0};
            pt_sampler_epoch(sampler, epoch);
            for (int64_t i = 0; i < count; i++)
                seen[*pt_sampler_at(sampler, i, 1)]++;
            for (int64_t i = 0; i < count; i++)
                assert_int_equal(seen[i], 1);
        }
        pt_sampler_free(sampler);
    }
}

static void sampler_depends_on_seed_and_epoch_only(void **state)
{
    (void)state;
    enum { N = 500 };
    uint32_t first[N], later[N];
    pt_sampler *a = NULL, *b = NULL, *c = NULL;
    assert_ok(pt_sampler_new(N, 7, true, &a, &error), &error);
    assert_ok(pt_sampler_new(N, 7, true, &b, &error), &error);
    assert_ok(pt_sampler_new(N, 8, true, &c, &error), &error);
    memcpy(first, pt_sampler_at(a, 0, N), sizeof first); /* a new sampler is at epoch 0 */
    pt_sampler_epoch(a, 1);
    pt_sampler_epoch(a, 5);
    memcpy(later, pt_sampler_at(a, 0, N), sizeof later);
    assert_memory_not_equal(first, later, sizeof first);
    pt_sampler_epoch(b, 5);
    assert_memory_equal(pt_sampler_at(b, 0, N), later, sizeof later);
    pt_sampler_epoch(b, 0);
    assert_memory_equal(pt_sampler_at(b, 0, N), first, sizeof first);
    assert_memory_not_equal(pt_sampler_at(c, 0, N), first, sizeof first);
    pt_sampler_free(a);
    pt_sampler_free(b);
    pt_sampler_free(c);
}

/* Every sample comes first about equally often. 6000 epochs over 6 samples: 1000 each, give or take
 * a deviation of 29. */
static void sampler_is_fair(void **state)
{
    (void)state;
    enum { EPOCHS = 6000, N = 6, SIX_DEVIATIONS = 174 };
    int count[N][N] = {{0}};
    pt_sampler *sampler = NULL;
    assert_ok(pt_sampler_new(N, 1, true, &sampler, &error), &error);
    for (uint32_t epoch = 0; epoch < EPOCHS; epoch++) {
        pt_sampler_epoch(sampler, epoch);
        for (int i = 0; i < N; i++)
            count[i][*pt_sampler_at(sampler, i, 1)]++;
    }
    pt_sampler_free(sampler);
    for (int i = 0; i < N; i++)
        for (int s = 0; s < N; s++)
            assert_in_range(count[i][s], EPOCHS / N - SIX_DEVIATIONS, EPOCHS / N + SIX_DEVIATIONS);
}

static void sampler_without_shuffling_counts(void **state)
{
    (void)state;
    pt_sampler *sampler = NULL;
    assert_ok(pt_sampler_new(9, 7, false, &sampler, &error), &error);
    pt_sampler_epoch(sampler, 3);
    for (uint32_t i = 0; i < 9; i++)
        assert_int_equal(pt_sampler_at(sampler, 0, 9)[i], i);
    pt_sampler_free(sampler);
    assert_fails(pt_sampler_new(0, 7, true, &sampler, &error), PT_EINPUT, "0 samples", &error);
    assert_fails(pt_sampler_new(1LL << 32, 7, true, &sampler, &error), PT_EINPUT, "4294967295",
                 &error);
    pt_sampler_free(NULL);
}

/* ---- plan of an epoch ----------------------------------------------------------------------- */

/* The plan again, by walking: whole steps are taken off the epoch, micro-batches off a step. */
static void check_plan(const pt_epoch_plan *plan)
{
    int64_t m = 0, step = 0, at = 0, most_per_step = 0;
    bool occurs[64] = {false};
    for (; at < plan->samples; step++) {
        int64_t left = plan->samples - at < plan->batch ? plan->samples - at : plan->batch;
        const int64_t step_samples = left, begin = m;
        while (left > 0) {
            int64_t size = left < plan->micro_batch ? left : plan->micro_batch;
            pt_epoch_item item = pt_epoch_item_at(plan, m);
            assert_int_equal(item.step, step);
            assert_int_equal(item.first, at);
            assert_int_equal(item.samples, size);
            assert_int_equal(item.step_samples, step_samples);
            assert_int_equal(item.first_of_step, m == begin);
            assert_int_equal(item.last_of_step, left == size);
            occurs[size] = true;
            left -= size;
            at += size;
            m++;
        }
        most_per_step = m - begin > most_per_step ? m - begin : most_per_step;
        assert_int_equal(pt_epoch_micro_batches_of(plan, step + 1), m);
    }
    assert_int_equal(at, plan->samples); /* each position once, none dropped */
    assert_int_equal(pt_epoch_steps(plan), step);
    assert_int_equal(pt_epoch_micro_batches(plan), m);
    assert_int_equal(pt_epoch_micro_batches_of(plan, 0), 0);
    if (plan->samples >= plan->batch)
        assert_int_equal(pt_epoch_per_step(plan), most_per_step);
    else
        assert_true(pt_epoch_per_step(plan) >= most_per_step);
    int64_t sizes[4];
    int n = pt_epoch_sizes(plan, sizes), expected = 0;
    for (int size = 63; size > 0; size--)
        if (occurs[size]) {
            assert_true(expected < n);
            assert_int_equal(sizes[expected++], size);
        }
    assert_int_equal(n, expected);
}

static void epoch_plan_covers_everything(void **state)
{
    (void)state;
    for (int64_t samples = 1; samples <= 40; samples++)
        for (int64_t batch = 1; batch <= 12; batch++)
            for (int64_t micro_batch = 1; micro_batch <= batch; micro_batch++) {
                const pt_epoch_plan plan = {samples, batch, micro_batch};
                check_plan(&plan);
            }
}

static void epoch_plan_of_the_header(void **state)
{
    (void)state;
    const pt_epoch_plan plan = {10, 4, 3};
    const int64_t sizes[5] = {3, 1, 3, 1, 2};
    assert_int_equal(pt_epoch_micro_batches(&plan), 5);
    assert_int_equal(pt_epoch_per_step(&plan), 2);
    for (int m = 0; m < 5; m++)
        assert_int_equal(pt_epoch_item_at(&plan, m).samples, sizes[m]);
}

/* ---- loader --------------------------------------------------------------------------------- */

enum { C = 2, H = 5, W = 4, E = C * H * W, N = 8 };

static const pt_shape shape = {3, {C, H, W}};
/* Halves and quarters: floats then hold every result exactly. */
static const pt_normalisation per_channel = {2, {0.5, -0.25}, {0.5, 2}};
static const pt_normalisation identity = {1, {0}, {1}};

/* A dataset read from a file of arrays, whose inputs are `x`. */
static pt_dataset *open_arrays(pt_dtype dtype, const void *x)
{
    const int64_t y[N] = {3, 1, 4, 1, 5, 0, 2, 6};
    const pt_st_tensor tensors[2] = {
        {"x", dtype, 4, {N, C, H, W}, x, N * E * pt_dtype_bytes(dtype)},
        {"y", PT_I64, 1, {N}, y, sizeof y}};
    const char *file = in_folder("arrays.safetensors");
    assert_ok(pt_safetensors_write(file, tensors, 2, NULL, 0, &error), &error);
    const pt_dataset_spec spec = {.name = "arrays",
                                  .path = file,
                                  .shape = shape,
                                  .outputs = 7,
                                  .want_inputs = true,
                                  .want_answers = true};
    pt_dataset *dataset = NULL;
    assert_ok(pt_dataset_open(&spec, &dataset, &error), &error);
    unlink(file);
    return dataset;
}

static void fill_bytes(uint8_t bytes[N * E])
{
    for (int i = 0; i < N * E; i++)
        bytes[i] = (uint8_t)(i * 37 + 1);
}

static const uint32_t some[3] = {6, 0, 3};

static void bytes_are_normalised_exactly(void **state)
{
    (void)state;
    uint8_t bytes[N * E];
    float got[3 * E];
    fill_bytes(bytes);
    pt_dataset *dataset = open_arrays(PT_U8, bytes);
    assert_true(pt_dataset_is_bytes(dataset));
    const pt_normalisation one = {1, {0.2860}, {0.3530}}, none = {0};
    const pt_normalisation *const all[] = {&per_channel, &one, &none};
    for (int k = 0; k < 3; k++) {
        pt_load_inputs(dataset, &shape, all[k], NULL, 1, 0, some, 3, got);
        for (int i = 0; i < 3 * E; i++) {
            int c = all[k]->n == 2 ? i % E / (H * W) : 0;
            double mean = all[k]->n ? all[k]->mean[c] : 0, std = all[k]->n ? all[k]->std[c] : 1;
            double x = bytes[(int)some[i / E] * E + i % E];
            assert_true(got[i] == (float)((x / 255 - mean) / std));
        }
    }
    pt_dataset_close(dataset);
}

static void floats_are_normalised_exactly(void **state)
{
    (void)state;
    float floats[N * E], got[3 * E];
    for (int i = 0; i < N * E; i++)
        floats[i] = (float)(i - 100) * 0.75F;
    pt_dataset *dataset = open_arrays(PT_F32, floats);
    pt_load_inputs(dataset, &shape, &per_channel, NULL, 1, 0, some, 3, got);
    for (int i = 0; i < 3 * E; i++) {
        float x = floats[(int)some[i / E] * E + i % E];
        assert_true(got[i] == (i % E < H * W ? (x - 0.5F) * 2 : (x + 0.25F) / 2));
    }
    int32_t labels[3];
    pt_load_labels(dataset, some, 3, labels);
    assert_int_equal(labels[0], 2);
    assert_int_equal(labels[1], 3);
    assert_int_equal(labels[2], 1);
    pt_dataset_close(dataset);
}

static void targets_are_loaded(void **state)
{
    (void)state;
    const pt_dataset_spec spec = {.name = "synthetic",
                                  .shape = shape,
                                  .outputs = 3,
                                  .targets = true,
                                  .samples = N,
                                  .want_answers = true};
    pt_dataset *dataset = NULL;
    float got[3 * 3];
    assert_ok(pt_dataset_open(&spec, &dataset, &error), &error);
    pt_load_targets(dataset, 3, some, 3, got);
    for (int s = 0; s < 3; s++)
        assert_memory_equal(got + 3 * s, pt_dataset_target(dataset, some[s]), 3 * sizeof *got);
    pt_dataset_close(dataset);
}

/* One changed input, the slow and obvious way. */
static void change(const float *x, int down, int right, bool mirror, float *y)
{
    for (int c = 0; c < C; c++)
        for (int h = 0; h < H; h++)
            for (int w = 0; w < W; w++) {
                int from_h = h + down, from_w = (mirror ? W - 1 - w : w) + right;
                bool inside = from_h >= 0 && from_h < H && from_w >= 0 && from_w < W;
                y[(c * H + h) * W + w] = inside ? x[(c * H + from_h) * W + from_w] : 0;
            }
}

/* Finds which crop and mirror made `y` from `x`; fails when none did. All elements of x differ, so
 * that only a crop which leaves nothing of the image is ambiguous (the callers' crops leave some).
 */
static void recognise(const float *x, const float *y, int crop, int *ret_down, int *ret_right,
                      bool *ret_mirror)
{
    float expected[E];
    for (int down = -crop; down <= crop; down++)
        for (int right = -crop; right <= crop; right++)
            for (int mirror = 0; mirror < 2; mirror++) {
                change(x, down, right, mirror, expected);
                if (memcmp(expected, y, sizeof expected) == 0) {
                    *ret_down = down;
                    *ret_right = right;
                    *ret_mirror = mirror;
                    return;
                }
            }
    fail_msg("no crop of %d and no mirror explains what was loaded", crop);
}

/* Loads samples that differ from normalised zero everywhere and recognises every change; all places
 * of the crop and both orientations must occur, and nothing beyond what was asked for. */
static void check_augmentation(const pt_dataset *dataset, const pt_augmentation *augmentation)
{
    enum { EPOCHS = 100, MOST = 2 * 3 + 1 };
    bool seen[MOST][MOST] = {{false}};
    int mirrored = 0, crop = augmentation->crop;
    assert_true(crop <= 3);
    float plain[N * E], got[N * E];
    const uint32_t all[N] = {0, 1, 2, 3, 4, 5, 6, 7};
    pt_load_inputs(dataset, &shape, &per_channel, NULL, 1, 0, all, N, plain);
    for (uint32_t epoch = 0; epoch < EPOCHS; epoch++) {
        pt_load_inputs(dataset, &shape, &per_channel, augmentation, 1, epoch, all, N, got);
        for (int s = 0; s < N; s++) {
            int down = 0, right = 0;
            bool mirror = false;
            recognise(plain + s * E, got + s * E, crop, &down, &right, &mirror);
            seen[down + crop][right + crop] = true;
            mirrored += mirror;
        }
    }
    for (int d = 0; d <= 2 * crop; d++)
        for (int r = 0; r <= 2 * crop; r++)
            assert_true(seen[d][r]);
    /* 800 tosses: 400 give or take a deviation of 14. */
    if (augmentation->flip)
        assert_in_range(mirrored, 400 - 85, 400 + 85);
    else
        assert_int_equal(mirrored, 0);
}

static void crop_and_flip_do_what_they_say(void **state)
{
    (void)state;
    uint8_t bytes[N * E];
    float floats[N * E];
    fill_bytes(bytes); /* 37 is odd: 40 different bytes, none of them 127.5 */
    for (int i = 0; i < N * E; i++)
        floats[i] = (float)(i + 1);
    pt_dataset *datasets[2] = {open_arrays(PT_U8, bytes), open_arrays(PT_F32, floats)};
    const pt_augmentation kinds[] = {{0, false}, {0, true}, {1, false}, {3, true}, {2, true}};
    for (int d = 0; d < 2; d++) {
        for (int k = 0; k < 5; k++)
            check_augmentation(datasets[d], &kinds[k]);
        pt_dataset_close(datasets[d]);
    }
}

/* A crop wider than the image leaves nothing but padding at times, and never reads outside. */
static void wide_crops_are_padding(void **state)
{
    (void)state;
    uint8_t bytes[N * E];
    float got[N * E];
    const uint32_t all[N] = {0, 1, 2, 3, 4, 5, 6, 7};
    const pt_augmentation wide = {50, true};
    fill_bytes(bytes);
    pt_dataset *dataset = open_arrays(PT_U8, bytes);
    int empty = 0;
    for (uint32_t epoch = 0; epoch < 20; epoch++) {
        pt_load_inputs(dataset, &shape, &per_channel, &wide, 1, epoch, all, N, got);
        for (int s = 0; s < N; s++) {
            int zeros = 0;
            for (int e = 0; e < E; e++)
                zeros += got[s * E + e] == 0;
            empty += zeros == E;
        }
    }
    assert_true(empty > 100); /* of 160; 99 % are expected to be */
    pt_dataset_close(dataset);
}

/* A sample is changed alike in whatever micro-batch it lies, and otherwise in another epoch, under
 * another seed, and as another sample. */
static void augmentation_is_keyed(void **state)
{
    (void)state;
    uint8_t bytes[N * E];
    float got[N * E], again[N * E], one[E];
    const pt_augmentation both = {3, true};
    const uint32_t all[N] = {0, 1, 2, 3, 4, 5, 6, 7};
    for (int i = 0; i < N * E; i++)
        bytes[i] = (uint8_t)(i % E * 5 + 1); /* all samples are alike */
    pt_dataset *dataset = open_arrays(PT_U8, bytes);
    pt_load_inputs(dataset, &shape, &identity, &both, 9, 4, all, N, got);
    for (int s = N - 1; s >= 0; s--) {
        pt_load_inputs(dataset, &shape, &identity, &both, 9, 4, &all[s], 1, one);
        assert_memory_equal(one, got + s * E, sizeof one);
    }
    int alike = 0;
    for (int s = 1; s < N; s++)
        alike += memcmp(got, got + s * E, sizeof one) == 0;
    assert_true(alike < N / 2);
    pt_load_inputs(dataset, &shape, &identity, &both, 9, 5, all, N, again);
    assert_memory_not_equal(again, got, sizeof got);
    pt_load_inputs(dataset, &shape, &identity, &both, 10, 4, all, N, again);
    assert_memory_not_equal(again, got, sizeof got);
    pt_dataset_close(dataset);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sampler_permutes),
        cmocka_unit_test(sampler_depends_on_seed_and_epoch_only),
        cmocka_unit_test(sampler_is_fair),
        cmocka_unit_test(sampler_without_shuffling_counts),
        cmocka_unit_test(epoch_plan_covers_everything),
        cmocka_unit_test(epoch_plan_of_the_header),
        cmocka_unit_test(bytes_are_normalised_exactly),
        cmocka_unit_test(floats_are_normalised_exactly),
        cmocka_unit_test(targets_are_loaded),
        cmocka_unit_test(crop_and_flip_do_what_they_say),
        cmocka_unit_test(wide_crops_are_padding),
        cmocka_unit_test(augmentation_is_keyed),
    };
    return cmocka_run_group_tests_name("loader", tests, make_folder, remove_folder);
}
