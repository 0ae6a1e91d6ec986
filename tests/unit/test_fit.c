/* Whether a stage fits: a backend that is ref, but has only so much memory to reserve. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "suite.h"

#include "../../src/run/setup.h"

enum { BATCH = 37, SAMPLES = 100 };

typedef struct opened {
    pt_config config;
    pt_partition *partition;
    pt_run *run;
} opened;

/* A stage of a small network with synthetic data; its bytes are predicted. */
static void open_run(opened *o, const char *schedule, int micro_batch)
{
    static const char text[] = "name: small\n"
                               "input: {shape: [1, 8, 8]}\n"
                               "layers:\n"
                               "  - {name: conv, kind: conv2d, features: 4, kernel: 3}\n"
                               "  - {name: relu, kind: relu}\n"
                               "  - {name: flat, kind: flatten}\n"
                               "  - {name: fc, kind: linear, features: 5}\n"
                               "loss: {kind: cross-entropy}\n";
    pt_error err = {PT_OK, ""};
    char micro[16], batch[16], samples[16];
    snprintf(micro, sizeof micro, "%d", micro_batch);
    snprintf(batch, sizeof batch, "%d", BATCH);
    snprintf(samples, sizeof samples, "%d", SAMPLES);
    const char *words[][2] = {{"dataset", "synthetic"}, {"samples", samples},
                              {"batch", batch},         {"micro-batch", micro},
                              {"backend", "ref"},       {"schedule", schedule}};
    assert_ok(pt_config_init(&o->config, &err), &err);
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        assert_ok(pt_options_set(&o->config.options, words[i][0], words[i][1], PT_FROM_COMMAND_LINE,
                                 "test", &err),
                  &err);
    assert_ok(pt_partition_parse("small.yaml", text, strlen(text), &o->partition, &err), &err);
    assert_ok(pt_config_settle(&o->config, &err), &err);
    assert_ok(pt_run_open_alone(&o->config, o->partition, /*stages=*/1, /*rank=*/0, &o->run, &err),
              &err);
}

static void close_run(opened *o)
{
    pt_run_close(o->run);
    pt_partition_free(o->partition);
    pt_config_clear(&o->config);
}

static size_t bytes_with(const char *schedule, int micro_batch)
{
    opened o;
    open_run(&o, schedule, micro_batch);
    size_t bytes = o.run->predicted_bytes;
    close_run(&o);
    return bytes;
}

/* A backend that has `there` bytes to reserve, and otherwise is another. */
typedef struct small_backend {
    pt_backend base;
    size_t there;
} small_backend;

static pt_status reserve(pt_backend *b, size_t bytes, size_t *ret_free, pt_error *err)
{
    *ret_free = ((const small_backend *)b)->there;
    return bytes <= *ret_free ? PT_OK : pt_fail(err, PT_ENOMEM, "%zu bytes are too many", bytes);
}

/* Asks for room on a device with so many bytes. */
static pt_status fit(pt_run *run, size_t there, pt_error *err)
{
    pt_backend *whole = run->backend;
    pt_backend_row row = *whole->row;
    row.reserve = reserve;
    small_backend small = {{&row}, there};
    run->backend = &small.base;
    assert_ok(pt_run_reserve(run, err), err);
    pt_status status = pt_run_fit(run, err);
    run->backend = whole;
    return status;
}

static void check_schedule(const char *schedule)
{
    static const int limits[] = {1, 2, 5, 9, 18, 19, 36};
    size_t bytes[BATCH + 1];
    pt_error err = {PT_OK, ""};
    opened o;
    for (int m = 1; m <= BATCH; m++)
        bytes[m] = bytes_with(schedule, m);
    open_run(&o, schedule, BATCH);
    assert_ok(fit(o.run, bytes[BATCH], &err), &err);
    assert_true(o.run->largest_micro_batch == INT64_MAX);
    for (size_t i = 0; i < sizeof limits / sizeof limits[0]; i++) {
        size_t there = bytes[limits[i]];
        char words[64];
        int64_t expected = 0;
        for (int m = 1; m < BATCH; m++)
            expected = bytes[m] <= there ? m : expected;
        assert_true(bytes[BATCH] > there && expected >= limits[i]);
        snprintf(words, sizeof words, "largest --micro-batch that fits is %d", (int)expected);
        assert_fails(fit(o.run, there, &err), PT_EINPUT, words, &err);
        assert_non_null(strstr(err.text, "rank 0"));
        assert_non_null(strstr(err.text, "are too many")); /* the device's own words */
    }
    assert_fails(fit(o.run, 100, &err), PT_EINPUT, "not even --micro-batch 1 fits", &err);
    close_run(&o);
}

static void test_largest_micro_batch_is_found(void **state)
{
    (void)state;
    check_schedule("async");
}

/* Micro-batches that are half as large are twice as many, and gpipe keeps them all. */
static void test_stash_of_the_schedule_counts(void **state)
{
    (void)state;
    size_t whole = bytes_with("gpipe", BATCH), parts = bytes_with("gpipe", (BATCH + 3) / 4);
    size_t one = bytes_with("1f1b", (BATCH + 3) / 4);
    assert_true(parts > one); /* one stage: 1f1b keeps one */
    assert_true(whole > one);
    check_schedule("1f1b");
}

static void test_a_cpu_refuses_nothing(void **state)
{
    (void)state;
    pt_error err = {PT_OK, ""};
    opened o;
    open_run(&o, "async", 8);
    assert_ok(pt_run_reserve(o.run, &err), &err);
    assert_int_equal(o.run->refusal.code, PT_OK);
    assert_ok(pt_run_fit(o.run, &err), &err);
    close_run(&o);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_largest_micro_batch_is_found),
        cmocka_unit_test(test_stash_of_the_schedule_counts),
        cmocka_unit_test(test_a_cpu_refuses_nothing),
    };
    return cmocka_run_group_tests_name("fit", tests, NULL, NULL);
}
