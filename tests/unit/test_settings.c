/* What follows from what among the settings: batch, micro-batch and accumulate, commands, learning
 * rates. What goes together is test_settings_rules.c's. */
#include <math.h>
#include <string.h>

#include "settings_rig.h"
#include "suite.h"

/* Three numbers as they may be given in a place; 0: not given. */
typedef struct numbers {
    int64_t batch, micro_batch, accumulate;
} numbers;

static void set_numbers(pt_config *config, const numbers *n, pt_option_source source)
{
    const struct {
        const char *name;
        int64_t value;
    } rows[] = {
        {"batch", n->batch}, {"micro-batch", n->micro_batch}, {"accumulate", n->accumulate}};
    for (int i = 0; i < 3; i++) {
        char text[32];
        snprintf(text, sizeof text, "%lld", (long long)rows[i].value);
        if (rows[i].value)
            settings_set(config, rows[i].name, text, source);
    }
}

static pt_status settle(pt_config *config, const numbers *file, const numbers *line, pt_error *err)
{
    assert_ok(pt_config_init(config, err), err);
    set_numbers(config, file, PT_FROM_PARTITION);
    set_numbers(config, line, PT_FROM_COMMAND_LINE);
    return pt_config_settle(config, err);
}

typedef struct batch_case {
    numbers file, line; /* in the `train:` section, on the command line */
    numbers want;
} batch_case;

/* The default batch is 32. */
static const batch_case good[] = {
    {{0, 0, 0}, {0, 0, 0}, {32, 32, 1}},
    /* one of them */
    {{0, 0, 0}, {128, 0, 0}, {128, 128, 1}},
    {{0, 0, 0}, {0, 8, 0}, {32, 8, 4}},
    {{0, 0, 0}, {0, 7, 0}, {32, 7, 5}}, /* M = ceil(32 / 7); the last one is short */
    {{0, 0, 0}, {0, 0, 4}, {32, 8, 4}},
    {{0, 0, 0}, {0, 0, 1}, {32, 32, 1}},
    /* two of them */
    {{0, 0, 0}, {100, 30, 0}, {100, 30, 4}},
    {{0, 0, 0}, {96, 0, 3}, {96, 32, 3}},
    {{0, 0, 0}, {0, 16, 5}, {80, 16, 5}}, /* B = M·b */
    /* all of them, and they fit */
    {{0, 0, 0}, {64, 16, 4}, {64, 16, 4}},
    {{64, 16, 4}, {0, 0, 0}, {64, 16, 4}},
    /* the file alone */
    {{64, 0, 0}, {0, 0, 0}, {64, 64, 1}},
    {{64, 10, 0}, {0, 0, 0}, {64, 10, 7}},
    {{0, 0, 8}, {0, 0, 0}, {32, 4, 8}},
    /* the command line wins, the rest follows */
    {{64, 64, 0}, {0, 16, 0}, {64, 16, 4}},
    {{64, 64, 0}, {0, 0, 4}, {256, 64, 4}},
    {{64, 64, 0}, {0, 16, 4}, {64, 16, 4}},
    {{64, 64, 0}, {0, 16, 3}, {48, 16, 3}},
    {{64, 64, 0}, {16, 0, 0}, {16, 16, 1}}, /* no micro-batch is larger than its batch */
    {{64, 16, 4}, {128, 0, 0}, {128, 16, 8}},
    {{64, 16, 0}, {64, 0, 4}, {64, 16, 4}},
    {{64, 0, 2}, {0, 16, 0}, {64, 16, 4}},
    {{0, 16, 4}, {0, 0, 0}, {64, 16, 4}},
    {{64, 0, 4}, {100, 30, 0}, {100, 30, 4}},
};

static void test_batches_that_settle(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        const batch_case *c = &good[i];
        pt_error err = {PT_OK, ""};
        pt_config config;
        assert_ok(settle(&config, &c->file, &c->line, &err), &err);
        const pt_settings *s = &config.settings;
        if (s->batch != c->want.batch || s->micro_batch != c->want.micro_batch ||
            s->accumulate != c->want.accumulate)
            fail_msg("case %zu: batch %lld, micro-batch %lld, accumulate %lld", i,
                     (long long)s->batch, (long long)s->micro_batch, (long long)s->accumulate);
        pt_config_clear(&config);
    }
}

static const struct {
    numbers file, line;
    const char *words;
} bad[] = {
    {{0, 0, 0}, {64, 16, 3}, "leave one of the three out"}, /* given all, and unequal */
    {{64, 16, 3}, {0, 0, 0}, "leave one of the three out"},
    {{64, 16, 0}, {64, 0, 2}, "leave one of the three out"}, /* said in one breath */
    {{0, 0, 0}, {0, 0, 5}, "cannot be divided"},             /* the batch of 32 */
    {{0, 0, 0}, {64, 0, 3}, "cannot be divided"},
    {{0, 0, 0}, {16, 32, 0}, "larger than --batch 16"},
    {{16, 32, 0}, {0, 0, 0}, "larger than --batch 16"},
    {{0, 0, 0}, {0, 64, 0}, "larger than --batch 32"},
};

static void test_batches_that_do_not(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        pt_error err = {PT_OK, ""};
        pt_config config;
        assert_fails(settle(&config, &bad[i].file, &bad[i].line, &err), PT_EINPUT, bad[i].words,
                     &err);
        pt_config_clear(&config);
    }
}

/* Settled numbers always fit together, whoever said what. */
static void test_settled_batches_are_consistent(void **state)
{
    (void)state;
    static const int64_t values[] = {0, 1, 3, 4, 12};
    int settled = 0, refused = 0;
    for (int code = 0; code < 5 * 5 * 5 * 5 * 5 * 5; code++) {
        numbers at[2];
        int rest = code;
        for (int i = 0; i < 2; i++) {
            at[i].batch = values[rest % 5];
            at[i].micro_batch = values[rest / 5 % 5];
            at[i].accumulate = values[rest / 25 % 5];
            rest /= 125;
        }
        pt_error err = {PT_OK, ""};
        pt_config config;
        if (settle(&config, &at[0], &at[1], &err) == PT_OK) {
            const pt_settings *s = &config.settings;
            assert_true(s->micro_batch >= 1 && s->micro_batch <= s->batch);
            assert_int_equal(s->accumulate, (s->batch + s->micro_batch - 1) / s->micro_batch);
            if (at[1].batch)
                assert_int_equal(s->batch, at[1].batch); /* said now, kept */
            if (at[1].micro_batch)
                assert_int_equal(s->micro_batch, at[1].micro_batch);
            if (at[1].accumulate)
                assert_int_equal(s->accumulate, at[1].accumulate);
            settled++;
        } else {
            assert_int_equal(err.code, PT_EINPUT);
            assert_true(strlen(err.text) > 0);
            refused++;
        }
        pt_config_clear(&config);
    }
    assert_true(settled > 1000 && refused > 100);
}

/* ---- the command line as a whole --------------------------------------------------------------
 */

/* Two where the schedule has several, one elsewhere. */
static void test_chunks(void **state)
{
    (void)state;
    static const struct {
        const char *file, *line;
        int want;
    } rows[] = {
        {"", "", 1},
        {"", "--schedule 1f1b", 1},
        {"", "--schedule interleaved", 2},
        {"", "--schedule interleaved --chunks 1", 1},
        {"schedule interleaved", "--chunks 5", 5},
        {"schedule interleaved chunks 3", "", 3},
        {"schedule interleaved chunks 3", "--schedule async", 1}, /* the file's word gives way */
        {"chunks 3", "", 1},
        {"schedule interleaved chunks 3", "--check-gradients", 1},
        {"schedule interleaved chunks 3", "--infer test --weights w --out o.csv", 3},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        pt_error err = {PT_OK, ""};
        pt_config config;
        assert_ok(settings_settle(&config, rows[i].file, rows[i].line, &err), &err);
        assert_int_equal(config.settings.chunks, rows[i].want);
        pt_config_clear(&config);
    }
}

static void test_commands_that_lack_something(void **state)
{
    (void)state;
    static const struct {
        const char *file, *line, *words;
    } rows[] = {
        {"", "--infer test", "--weights"},
        {"", "--infer test --weights w", "--out"},
        {"", "--weights w", "--init"},
        {"", "--out o.csv", "--infer"},
        {"", "--chunks 2", "--chunks goes with --schedule interleaved"},
        {"schedule interleaved", "--schedule 1f1b --chunks 3", "--chunks"},
        {"", "--infer test --weights w --out o.csv --recompute all", "--recompute"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        pt_error err = {PT_OK, ""};
        pt_config config;
        assert_fails(settings_settle(&config, rows[i].file, rows[i].line, &err), PT_EINPUT,
                     rows[i].words, &err);
        pt_config_clear(&config);
    }
}

/* ---- learning rates ---------------------------------------------------------------------------
 */

static void test_epochs_become_steps(void **state)
{
    (void)state;
    pt_error err = {PT_OK, ""};
    pt_config config;
    pt_lr_spec lr;
    assert_ok(settings_settle(&config, "",
                              "--lr-schedule milestones --milestones 1.5,3,4 --lr-factor 0.5 "
                              "--lr 0.2 --warmup 0.25",
                              &err),
              &err);
    assert_ok(pt_config_lr(&config, /*steps_per_epoch=*/8, /*total_steps=*/40, &lr, &err), &err);
    assert_string_equal(lr.schedule, "milestones");
    assert_int_equal(lr.n_milestones, 3);
    assert_int_equal(lr.milestones[0], 12);
    assert_int_equal(lr.milestones[1], 24);
    assert_int_equal(lr.milestones[2], 32);
    assert_int_equal(lr.warmup, 2);
    assert_int_equal(lr.total, 40);
    assert_true(lr.base == 0.2 && lr.factor == 0.5);
    pt_config_clear(&config);
}

static void test_milestones_that_are_none(void **state)
{
    (void)state;
    static const struct {
        const char *line, *words;
    } rows[] = {
        {"--lr-schedule milestones", "needs --milestones"},
        {"--lr-schedule milestones --milestones 3,2", "ascend"},
        {"--lr-schedule milestones --milestones 2,2", "ascend"},
        {"--lr-schedule milestones --milestones one", "write epochs"},
        {"--lr-schedule milestones --milestones -1", "write epochs"},
        {"--lr-schedule milestones --milestones 1;2", "write epochs"},
        {"--lr-schedule milestones --milestones nan", "write epochs"},
        {"--lr-schedule milestones --milestones 1,,2", "write epochs"},
        {"--lr-schedule milestones --milestones 1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17",
         "more than 16"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        pt_error err = {PT_OK, ""};
        pt_config config;
        pt_lr_spec lr;
        assert_ok(settings_settle(&config, "", rows[i].line, &err), &err);
        assert_fails(pt_config_lr(&config, 10, 100, &lr, &err), PT_EINPUT, rows[i].words, &err);
        pt_config_clear(&config);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_batches_that_settle),
        cmocka_unit_test(test_batches_that_do_not),
        cmocka_unit_test(test_settled_batches_are_consistent),
        cmocka_unit_test(test_chunks),
        cmocka_unit_test(test_commands_that_lack_something),
        cmocka_unit_test(test_epochs_become_steps),
        cmocka_unit_test(test_milestones_that_are_none),
    };
    return cmocka_run_group_tests_name("settings", tests, NULL, NULL);
}
