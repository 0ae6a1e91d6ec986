/* Random numbers: the published answers of Philox, the separation of streams, and whether the
 * derived numbers have the distribution that they claim. All draws are fixed by their seeds, so a
 * statistical test here passes always or never. */
#include "pipetrain/rng.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "suite.h"

/* Deviations of a mean that we accept: 5 standard errors, one chance in two million. */
static const double STANDARD_ERRORS = 5;

enum { DRAWS = 100000 };

/* Known answers of philox4x32-10 as published with the Random123 library (kat_vectors). */
static void philox_known_answers(void **state)
{
    (void)state;
    static const struct {
        uint32_t counter[4], key[2], expected[4];
    } rows[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
         {0xffffffff, 0xffffffff},
         {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        uint32_t out[4];
        pt_philox(rows[i].counter, rows[i].key, out);
        assert_memory_equal(out, rows[i].expected, sizeof out);
    }
}

static void philox_may_overwrite_its_counter(void **state)
{
    (void)state;
    static const uint32_t expected[4] = {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8};
    const uint32_t key[2] = {0, 0};
    uint32_t block[4] = {0, 0, 0, 0};
    pt_philox(block, key, block);
    assert_memory_equal(block, expected, sizeof block);
}

static int compare_blocks(const void *a, const void *b)
{
    return memcmp(a, b, 4 * sizeof(uint32_t));
}

/* Every argument matters, in its low word and in its high one. */
static void streams_are_separate(void **state)
{
    (void)state;
    static const uint64_t words[] = {0, 1, 2, 1ull << 32, 1ull << 63, (1ull << 32) + 1};
    enum { WORDS = sizeof words / sizeof *words, STREAMS = 6 * WORDS * WORDS * WORDS };
    uint32_t(*first)[4] = calloc(STREAMS, sizeof *first);
    assert_non_null(first);
    int n = 0;
    for (int domain = PT_RNG_INIT; domain <= PT_RNG_CHECK; domain++)
        for (int s = 0; s < WORDS; s++)
            for (int a = 0; a < WORDS; a++)
                for (int b = 0; b < WORDS; b++) {
                    pt_rng rng;
                    pt_rng_init(&rng, words[s], (pt_rng_domain)domain, words[a], words[b]);
                    pt_rng_block_at(&rng, 0, first[n++]);
                }
    assert_int_equal(n, STREAMS);
    qsort(first, STREAMS, sizeof *first, compare_blocks);
    for (int i = 1; i < STREAMS; i++)
        assert_true(compare_blocks(first[i - 1], first[i]) != 0);
    free(first);
}

/* Seeds keep their meaning from release to release: these are the first numbers of one stream,
 * made by an independent implementation of what src/base/rng.c describes. */
static void a_stream_never_changes(void **state)
{
    (void)state;
    static const uint32_t expected[] = {0xb932dde8, 0x4d0402d1, 0x83021646,
                                        0xc7722713, 0xa1f4afc7, 0xddf8f238};
    pt_rng rng;
    pt_rng_init(&rng, 0x0123456789abcdefull, PT_RNG_DROPOUT, 5ull << 32 | 7, 9ull << 32 | 11);
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++)
        assert_int_equal(pt_rng_u32(&rng), expected[i]);
}

static void blocks_can_be_reached_directly(void **state)
{
    (void)state;
    pt_rng rng, untouched;
    pt_rng_init(&rng, 42, PT_RNG_CHECK, 1, 2);
    untouched = rng;
    for (uint32_t position = 0; position < 5; position++) {
        uint32_t block[4];
        pt_rng_block_at(&rng, position, block); /* rng has moved on, which must not matter */
        for (int i = 0; i < 4; i++)
            assert_int_equal(pt_rng_u32(&rng), block[i]);
        uint32_t again[4];
        pt_rng_block_at(&untouched, position, again);
        assert_memory_equal(block, again, sizeof block);
    }
}

static void unit_is_uniform(void **state)
{
    (void)state;
    pt_rng rng;
    pt_rng_init(&rng, 1, PT_RNG_CHECK, 0, 0);
    double sum = 0, squares = 0;
    for (int i = 0; i < DRAWS; i++) {
        float u = pt_rng_unit(&rng);
        assert_true(u >= 0 && u < 1);
        sum += (double)u;
        squares += (double)u * (double)u;
    }
    /* Uniform in [0, 1): variance 1/12; its square has mean 1/3 and variance 4/45. */
    assert_true(fabs(sum / DRAWS - 0.5) < STANDARD_ERRORS * sqrt(1.0 / 12 / DRAWS));
    assert_true(fabs(squares / DRAWS - 1.0 / 3) < STANDARD_ERRORS * sqrt(4.0 / 45 / DRAWS));
}

static void below_is_uniform(void **state)
{
    (void)state;
    enum { BOUND = 7 };
    pt_rng rng;
    pt_rng_init(&rng, 2, PT_RNG_CHECK, 0, 0);
    int counts[BOUND] = {0};
    for (int i = 0; i < DRAWS; i++) {
        uint32_t k = pt_rng_below(&rng, BOUND);
        assert_true(k < BOUND);
        counts[k]++;
    }
    const double p = 1.0 / BOUND, error = sqrt(DRAWS * p * (1 - p));
    for (int k = 0; k < BOUND; k++)
        assert_true(fabs(counts[k] - DRAWS * p) < STANDARD_ERRORS * error);
}

/* With a bound of 3 * 2^30 a plain multiplication or modulus is off by a third of a value: every
 * third, or the lowest third, comes twice as often as the others. */
static void below_has_no_bias_at_large_bounds(void **state)
{
    (void)state;
    const uint32_t bound = 3u << 30;
    pt_rng rng;
    pt_rng_init(&rng, 3, PT_RNG_CHECK, 0, 0);
    int residues[3] = {0}, thirds[3] = {0};
    for (int i = 0; i < DRAWS; i++) {
        uint32_t k = pt_rng_below(&rng, bound);
        assert_true(k < bound);
        residues[k % 3]++;
        thirds[k >> 30]++;
    }
    const double p = 1.0 / 3, error = sqrt(DRAWS * p * (1 - p));
    for (int i = 0; i < 3; i++) {
        assert_true(fabs(residues[i] - DRAWS * p) < STANDARD_ERRORS * error);
        assert_true(fabs(thirds[i] - DRAWS * p) < STANDARD_ERRORS * error);
    }
    assert_int_equal(pt_rng_below(&rng, 1), 0);
}

static void normal_has_its_moments(void **state)
{
    (void)state;
    pt_rng rng;
    pt_rng_init(&rng, 4, PT_RNG_CHECK, 0, 0);
    double sum = 0, squares = 0, neighbours = 0, last = 0;
    int beyond_two = 0;
    for (int i = 0; i < DRAWS; i++) {
        double x = (double)pt_rng_normal(&rng);
        assert_true(isfinite(x));
        sum += x;
        squares += x * x;
        neighbours += x * last; /* the two of a Box-Muller pair must not lean on each other */
        last = x;
        beyond_two += fabs(x) > 2;
    }
    static const double p_beyond_two = 0.045500263896358; /* erfc(sqrt(2)) */
    assert_true(fabs(sum / DRAWS) < STANDARD_ERRORS * sqrt(1.0 / DRAWS));
    assert_true(fabs(squares / DRAWS - 1) < STANDARD_ERRORS * sqrt(2.0 / DRAWS));
    assert_true(fabs(neighbours / DRAWS) < STANDARD_ERRORS * sqrt(1.0 / DRAWS));
    assert_true(fabs(beyond_two - DRAWS * p_beyond_two) <
                STANDARD_ERRORS * sqrt(DRAWS * p_beyond_two * (1 - p_beyond_two)));
}

static void same_name_same_numbers(void **state)
{
    (void)state;
    pt_rng a, b;
    pt_rng_init(&a, 5, PT_RNG_INIT, 6, 7);
    pt_rng_init(&b, 5, PT_RNG_INIT, 6, 7);
    for (int i = 0; i < 9; i++) {
        float x = pt_rng_normal(&a), y = pt_rng_normal(&b);
        assert_memory_equal(&x, &y, sizeof x);
    }
    pt_rng_init(&b, 5, PT_RNG_INIT, 6, 7); /* forgets the spare value of the last pair */
    assert_int_equal(b.have_spare, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(philox_known_answers),
        cmocka_unit_test(philox_may_overwrite_its_counter),
        cmocka_unit_test(streams_are_separate),
        cmocka_unit_test(a_stream_never_changes),
        cmocka_unit_test(blocks_can_be_reached_directly),
        cmocka_unit_test(unit_is_uniform),
        cmocka_unit_test(below_is_uniform),
        cmocka_unit_test(below_has_no_bias_at_large_bounds),
        cmocka_unit_test(normal_has_its_moments),
        cmocka_unit_test(same_name_same_numbers),
    };
    return cmocka_run_group_tests_name("rng", tests, NULL, NULL);
}
