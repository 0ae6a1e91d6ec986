/* Which settings go together, however they are said, and what gives way to what. */
#include <string.h>

#include "../../src/run/settings_rules.h"
#include "settings_rig.h"
#include "suite.h"

enum { MOST_TEXT = 512 };

/* Each option stands as "name value"; "on" is left out where it becomes a flag. */
static const struct {
    const char *one, *other;
    bool yields; /* `one` is switched off where the command line did not ask for it */
    const char *instead;
} pairs[] = {
    {"predict msnag", "schedule gpipe", true, "write --schedule async, or leave --predict out"},
    {"predict spectrain", "schedule 1f1b", true, "write --schedule async, or leave --predict out"},
    {"stash on", "schedule zb-h1", true, "write --schedule async, or leave --stash out"},
    {"2bw on", "schedule 1f1b", true, "write --schedule async, or leave --2bw out"},
    {"gap-aware on", "schedule gpipe", true, "write --schedule async, or leave --gap-aware out"},
    {"gap-aware on", "optimizer adamw", false, "write --optimizer sgd, or leave --gap-aware out"},
    {"gap-aware on", "optimizer nadam-async", false,
     "write --optimizer sgd, or leave --gap-aware out"},
    {"gap-aware on", "2bw on", false, "write --stash instead of --2bw"},
    {"pipemare-lr 2", "schedule 1f1b", true, "write --schedule async, or leave --pipemare-lr out"},
    {"pipemare-dc 0.135", "schedule zb-h1", true,
     "write --schedule async, or leave --pipemare-dc out"},
    {"predict msnag", "pipemare-dc 0.135", true,
     "write --predict none, or leave --pipemare-dc out"},
    {"pipemare-dc 0.135", "stash on", false, "leave one of the two out"},
    {"pipemare-dc 0.135", "2bw on", false, "leave one of the two out"},
    {"pipemare-dc 0.135", "gap-aware on", false, "write --stash instead of --pipemare-dc"},
    {"nesterov-last on", "schedule 1f1b", false,
     "write --schedule async --optimizer sgd, or leave --nesterov-last out"},
    {"nesterov-last on", "optimizer adam", false,
     "write --schedule async --optimizer sgd, or leave --nesterov-last out"},
    {"clip 1", "schedule async", false, "write --schedule 1f1b, or --clip 0"},
    {"in-flight 2", "schedule gpipe", false, "write --schedule async, or leave --in-flight out"},
    {"in-flight 2", "schedule interleaved", false,
     "write --schedule async, or leave --in-flight out"},
    {"predict aggmsnag", "accumulate 1", false, "write --predict msnag, or --accumulate 2 or more"},
    {"predict msnag", "2bw on", true, "write --predict none, or leave --2bw out"},
    {"2bw on", "stash on", false, "leave one of the two out"},
    {"predict msnag", "optimizer nesterov", false, "--optimizer sgd, or --predict none"},
    {"predict msnag-ftpipe", "optimizer sgd", false,
     "--optimizer adam or adamw, or --predict msnag"},
    {"predict spectrain", "optimizer adamw", false, "--optimizer sgd, or --predict msnag"},
};

enum { N_PAIRS = sizeof pairs / sizeof pairs[0] };

/* "stash on" becomes "--stash". */
static void as_words(const char *option, char *text)
{
    const char *on = strstr(option, " on");
    snprintf(text, MOST_TEXT, "--%.*s", (int)(on ? on - option : (long)strlen(option)), option);
}

static void assert_refused(const char *file, const char *line, int i)
{
    pt_error err = {PT_OK, ""};
    pt_config config;
    assert_fails(settings_settle(&config, file, line, &err), PT_EINPUT, pairs[i].instead, &err);
    pt_config_clear(&config);
}

/* The value of the option, printed, is what it is when nobody asks for it (prediction: none). */
static void assert_switched_off(const char *file, const char *line, int i)
{
    pt_error err = {PT_OK, ""};
    pt_config config, plain;
    char name[MOST_TEXT], got[MOST_TEXT], want[MOST_TEXT];
    assert_ok(settings_settle(&config, file, line, &err), &err);
    assert_ok(settings_settle(&plain, "", "--predict none", &err), &err);
    snprintf(name, sizeof name, "%s", pairs[i].one);
    *strchr(name, ' ') = 0;
    int row = pt_options_find(&config.options, name);
    assert_string_equal(pt_options_print(&config.options, row, got, sizeof got),
                        pt_options_print(&plain.options, row, want, sizeof want));
    pt_config_clear(&config);
    pt_config_clear(&plain);
}

static void test_pairs_without_a_meaning(void **state)
{
    (void)state;
    for (int i = 0; i < N_PAIRS; i++) {
        char one[MOST_TEXT], other[MOST_TEXT], both[2 * MOST_TEXT];
        as_words(pairs[i].one, one);
        as_words(pairs[i].other, other);
        snprintf(both, sizeof both, "%s %s", one, other);
        assert_refused("", both, i);
        snprintf(both, sizeof both, "%s %s", other, one);
        assert_refused("", both, i);
        assert_refused(pairs[i].other, one, i);
        snprintf(both, sizeof both, "%s %s", pairs[i].one, pairs[i].other);
        if (pairs[i].yields) {
            assert_switched_off(pairs[i].one, other, i);
            assert_switched_off(both, "", i);
        } else {
            assert_refused(pairs[i].one, other, i);
            assert_refused(both, "", i);
        }
    }
}

/* A message names both, with the values they have. */
static void test_messages_name_both(void **state)
{
    (void)state;
    static const struct {
        const char *line, *words;
    } rows[] = {
        {"--stash --schedule 1f1b", "--stash with --schedule 1f1b: "},
        {"--schedule gpipe --predict spectrain", "--predict spectrain with --schedule gpipe: "},
        {"--clip 0.5", "--clip 0.5 with --schedule async: "}, /* the default */
        {"--2bw --stash", "--2bw with --stash: "},
        {"--nesterov-last --optimizer adamw", "--nesterov-last with --optimizer adamw: "},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        pt_error err = {PT_OK, ""};
        pt_config config;
        assert_fails(settings_settle(&config, "", rows[i].line, &err), PT_EINPUT, rows[i].words,
                     &err);
        pt_config_clear(&config);
    }
}

static void test_what_has_a_meaning(void **state)
{
    (void)state;
    static const char *const lines[] = {
        "--clip 1 --schedule gpipe",
        "--clip 1 --schedule 1f1b",
        "--clip 0",
        "--in-flight 2",
        "--stash",
        "--stash --predict none",
        "--stash --predict spectrain",
        "--gap-aware --stash --predict msnag --pipemare-lr 1",
        "--gap-aware --optimizer nesterov",
        "--gap-aware --nesterov-last",
        "--predict msnag-ftpipe --optimizer adam --weight-decay 0.1 --stash",
        "--predict aggmsnag --accumulate 2 --stash",
        "--predict aggmsnag --batch 32 --micro-batch 31 --optimizer adamw --pipemare-lr 1",
        "--pipemare-dc 0.135 --pipemare-lr 2 --nesterov-last",
        "--pipemare-dc 0.135 --optimizer adamw",
        "--2bw --pipemare-lr 1",
        "--2bw --predict none --optimizer adam",
        "--nesterov-last --stash --pipemare-lr 2",
        "--optimizer adamw --predict msnag --stash",
        "--schedule gpipe --no-stash --pipemare-lr 0 --predict none",
    };
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
        pt_error err = {PT_OK, ""};
        pt_config config;
        assert_ok(settings_settle(&config, "", lines[i], &err), &err);
        pt_config_clear(&config);
    }
}

/* What the default, a file and the command line make of prediction. */
static void test_predictions(void **state)
{
    (void)state;
    static const struct {
        const char *file, *line, *want;
    } rows[] = {
        {"", "", "msnag"},
        {"", "--schedule async", "msnag"},
        {"", "--schedule gpipe", "none"}, /* only a default */
        {"schedule gpipe", "", "none"},
        {"predict msnag", "--schedule 1f1b", "none"}, /* the command line says more */
        {"schedule 1f1b", "--schedule async", "msnag"},
        {"", "--optimizer nesterov", "none"},
        {"optimizer nadam-async", "", "none"},
        {"", "--2bw", "none"},
        {"", "--pipemare-dc 0.135", "none"},
        {"", "--predict none", "none"},
        {"predict none", "", "none"},
        {"predict none", "--predict msnag", "msnag"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        pt_error err = {PT_OK, ""};
        pt_config config;
        assert_ok(settings_settle(&config, rows[i].file, rows[i].line, &err), &err);
        assert_string_equal(config.settings.predict, rows[i].want);
        pt_config_clear(&config);
    }
}

static void test_what_stays_when_nothing_is_in_its_way(void **state)
{
    (void)state;
    pt_error err = {PT_OK, ""};
    pt_config config;
    assert_ok(settings_settle(&config, "stash on pipemare-lr 2", "", &err), &err);
    assert_true(config.settings.stash && config.settings.pipemare_lr == 2);
    pt_config_clear(&config);
    assert_ok(settings_settle(&config, "2bw on pipemare-lr 2", "", &err), &err);
    assert_true(config.settings.two_versions && config.settings.pipemare_lr == 2);
    pt_config_clear(&config);
}

static void test_what_a_run_says_of_its_rules(void **state)
{
    (void)state;
    static const struct {
        const char *line, *want;
    } rows[] = {
        {"", ""},
        {"--stash --predict msnag", ""}, /* said beside it */
        {"--gap-aware --pipemare-lr 2", ", gap-aware, pipemare-lr 2"},
        {"--2bw", ", 2bw"},
        {"--pipemare-dc 0.135", ", pipemare-dc 0.135"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        pt_error err = {PT_OK, ""};
        pt_config config;
        char text[MOST_TEXT], short_text[8];
        assert_ok(settings_settle(&config, "", rows[i].line, &err), &err);
        pt_rules_describe(&config, text, sizeof text);
        assert_string_equal(text, rows[i].want);
        pt_rules_describe(&config, short_text, sizeof short_text); /* cut, and no further */
        assert_memory_equal(short_text, rows[i].want, strlen(short_text));
        pt_config_clear(&config);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pairs_without_a_meaning),
        cmocka_unit_test(test_messages_name_both),
        cmocka_unit_test(test_what_has_a_meaning),
        cmocka_unit_test(test_predictions),
        cmocka_unit_test(test_what_stays_when_nothing_is_in_its_way),
        cmocka_unit_test(test_what_a_run_says_of_its_rules),
    };
    return cmocka_run_group_tests_name("settings-rules", tests, NULL, NULL);
}
