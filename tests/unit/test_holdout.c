/* Which samples are held out to validate with, and orders of the rest. */
#include "suite.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "pipetrain/holdout.h"
#include "pipetrain/loader.h"
#include "pipetrain/rng.h"

enum { MOST = 1000 };

static pt_error error;

/* ---- the same by its definition ---------------------------------------------------------------
 */

/* The k-th of the numbers for validation, from the bare bijection: pt_rng.h says how a stream is
 * named. */
static uint32_t number(uint64_t seed, uint32_t k)
{
    const uint32_t words[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    const uint32_t name[4] = {0, 0, 0, /*domain=*/7};
    uint32_t h[4], out[4];
    pt_philox(name, words, h);
    const uint32_t key[2] = {h[0], h[1]}, counter[4] = {k / 4, 0, h[2], h[3]};
    pt_philox(counter, key, out);
    return out[k % 4];
}

/* A draw takes the n-th of those that are left, in a row where the first one has filled the hole
 * of the one before. Numbers that would favour some samples are passed over. */
static void hold_out(int64_t count, int64_t held, uint64_t seed, bool *is_held)
{
    uint32_t left[MOST], next = 0;
    for (int64_t i = 0; i < count; i++)
        left[i] = (uint32_t)i;
    uint32_t *row = left;
    for (int64_t n = count; n > count - held; n--, row++) {
        uint64_t product = 0, unfair = (UINT64_C(1) << 32) % (uint64_t)n;
        do
            product = (uint64_t)number(seed, next++) * (uint64_t)n;
        while ((product & UINT32_MAX) < unfair);
        uint32_t pick = (uint32_t)(product >> 32);
        is_held[row[pick]] = true;
        row[pick] = row[0];
    }
}

/* ---- the parts --------------------------------------------------------------------------------
 */

static void is_as_defined(void **state)
{
    (void)state;
    const struct {
        int64_t count, held;
        double fraction;
    } cases[] = {{2, 1, 0.5},  {10, 1, 0.1},    {90, 18, 0.2},     {90, 89, 0.99},
                 {7, 2, 0.25}, {999, 500, 0.5}, {1000, 1, 0.0005}, {MOST, 333, 0.3333}};
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++)
        for (uint64_t seed = 0; seed < 4; seed++) {
            bool is_held[MOST] = {false};
            uint64_t wide = seed << 40 | seed;
            pt_holdout parts;
            hold_out(cases[c].count, cases[c].held, wide, is_held);
            assert_ok(pt_holdout_init(cases[c].count, cases[c].fraction, wide, &parts, &error),
                      &error);
            assert_int_equal(parts.held, cases[c].held);
            assert_int_equal(parts.learned, cases[c].count - cases[c].held);
            int64_t at[2] = {0, parts.learned};
            for (int64_t i = 0; i < cases[c].count; i++)
                assert_int_equal(parts.samples[at[is_held[i]]++], i);
            pt_holdout_clear(&parts);
        }
}

static void larger_fractions_hold_out_more_of_the_same(void **state)
{
    (void)state;
    pt_holdout few, more;
    assert_ok(pt_holdout_init(100, 0.1, 5, &few, &error), &error);
    assert_ok(pt_holdout_init(100, 0.3, 5, &more, &error), &error);
    for (int64_t i = few.learned; i < 100; i++) {
        bool found = false;
        for (int64_t k = more.learned; k < 100; k++)
            found |= more.samples[k] == few.samples[i];
        assert_true(found);
    }
    pt_holdout_clear(&few);
    pt_holdout_clear(&more);
}

static void both_parts_need_a_sample(void **state)
{
    (void)state;
    pt_holdout parts = {0};
    assert_fails(pt_holdout_init(90, 0.001, 1, &parts, &error), PT_EINPUT, "larger", &error);
    assert_fails(pt_holdout_init(90, 0.999, 1, &parts, &error), PT_EINPUT, "smaller", &error);
    assert_fails(pt_holdout_init(1, 0.5, 1, &parts, &error), PT_EINPUT, "more samples", &error);
    assert_null(parts.samples);
    pt_holdout_clear(&parts);
}

/* ---- orders -----------------------------------------------------------------------------------
 */

/* The order of so many samples, each read through the list. */
static void an_order_is_of_the_list(void **state)
{
    (void)state;
    const uint32_t list[] = {3, 5, 8, 13, 21, 34, 55};
    enum { N = sizeof list / sizeof *list };
    for (int shuffle = 0; shuffle < 2; shuffle++) {
        pt_sampler *plain = NULL, *of = NULL;
        assert_ok(pt_sampler_new(N, 7, shuffle, &plain, &error), &error);
        assert_ok(pt_sampler_new_of(list, N, 7, shuffle, &of, &error), &error);
        for (uint32_t epoch = 0; epoch < 5; epoch++) {
            pt_sampler_epoch(plain, epoch);
            pt_sampler_epoch(of, epoch);
            for (int64_t i = 0; i < N; i++)
                assert_int_equal(*pt_sampler_at(of, i, 1), list[*pt_sampler_at(plain, i, 1)]);
        }
        pt_sampler_free(plain);
        pt_sampler_free(of);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(is_as_defined),
        cmocka_unit_test(larger_fractions_hold_out_more_of_the_same),
        cmocka_unit_test(both_parts_need_a_sample),
        cmocka_unit_test(an_order_is_of_the_list),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
