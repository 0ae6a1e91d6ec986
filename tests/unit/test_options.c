/* The option engine over a small table with a row of every type: values, precedence, messages and
 * the page of --help. */
#include "pipetrain/options.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "suite.h"

struct settings {
    bool help, stash, shuffle;
    int64_t batch, seed;
    double lr;
    char *data, *optimizer, *debug;
};

static const char *const *optimizers(void)
{
    static const char *const names[] = {"sgd", "adam", "adamw", NULL};
    return names;
}

#define AT(field) offsetof(struct settings, field)

static const pt_option rows[] = {
    {.name = "batch",
     .group = "Training",
     .type = PT_OPTION_INT,
     .offset = AT(batch),
     .argument = "B",
     .min = 1,
     .max = 1e6,
     .help = "Samples per optimizer step."},
    {.name = "lr",
     .group = "Training",
     .type = PT_OPTION_REAL,
     .offset = AT(lr),
     .argument = "RATE",
     .min = 0,
     .max = INFINITY,
     .help = "Learning rate."},
    {.name = "optimizer",
     .group = "Training",
     .type = PT_OPTION_CHOICE,
     .offset = AT(optimizer),
     .argument = "NAME",
     .choices = optimizers,
     .help = "The rule of the update."},
    {.name = "stash",
     .group = "Training",
     .type = PT_OPTION_FLAG,
     .offset = AT(stash),
     .help = "Keeps the weights that the forward pass of a micro-batch has seen until its backward "
             "pass has run, so that both work with the same ones — at the price of memory."},
    {.name = "seed",
     .group = "Training",
     .type = PT_OPTION_INT,
     .offset = AT(seed),
     .argument = "S",
     .min = 0,
     .max = 0x1p63,
     .help = "Start of all random numbers."},
    {.name = "data",
     .group = "Data",
     .type = PT_OPTION_TEXT,
     .offset = AT(data),
     .argument = "DIR",
     .help = "Where the files are."},
    {.name = "shuffle",
     .group = "Data",
     .type = PT_OPTION_SWITCH,
     .offset = AT(shuffle),
     .help = "A new order of the samples in every epoch."},
    {.name = "debug",
     .group = "Help",
     .type = PT_OPTION_TEXT,
     .offset = AT(debug),
     .argument = "RANKS",
     .optional_argument = true,
     .command_line_only = true,
     .help = "Waits for a debugger."},
    {.name = "help",
     .group = "Help",
     .type = PT_OPTION_FLAG,
     .offset = AT(help),
     .command_line_only = true,
     .help = "Shows this page."},
};

enum { N_ROWS = sizeof rows / sizeof *rows, MAX_WORDS = 16 };

/* What one test works on. */
struct fixture {
    struct settings settings;
    unsigned char sources[N_ROWS];
    pt_options options;
    pt_error err;
};

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    if (!f)
        return -1;
    f->options = (pt_options){rows, N_ROWS, &f->settings, f->sources};
    f->settings.batch = 128;
    f->settings.lr = 0.1;
    f->settings.shuffle = true;
    *state = f;
    return pt_options_set(&f->options, "optimizer", "sgd", PT_FROM_DEFAULT, NULL, &f->err) != PT_OK;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    pt_options_clear(&f->options);
    int left = f->settings.optimizer || f->settings.data || f->settings.debug;
    free(f);
    return left;
}

static pt_status from_file(struct fixture *f, const char *name, const char *value)
{
    return pt_options_set(&f->options, name, value, PT_FROM_PARTITION, "lenet5.yaml:12:5", &f->err);
}

static pt_status typed(struct fixture *f, const char *name, const char *value)
{
    return pt_options_set(&f->options, name, value, PT_FROM_COMMAND_LINE, NULL, &f->err);
}

/* Parses a line whose words stand between single blanks; allows one positional word. */
static pt_status parse(struct fixture *f, const char *line, const char **ret_word, int *ret_n)
{
    static char text[1024]; /* *ret_word points into it */
    char *argv[MAX_WORDS] = {"pipetrain"};
    int argc = 1;
    snprintf(text, sizeof text, "%s", line);
    for (char *word = strtok(text, " "); word; word = strtok(NULL, " "))
        argv[argc++] = word;
    return pt_options_parse(&f->options, argc, argv, 1, ret_word, ret_n, &f->err);
}

static void integers(void **state)
{
    struct fixture *f = *state;
    static const struct {
        const char *name, *text;
        int64_t value;
    } good[] = {
        {"batch", "1", 1},
        {"batch", "1000000", 1000000},
        {"batch", "1e6", 1000000},
        {"batch", "+7", 7},
        {"batch", "2.5e1", 25},
        {"batch", "007", 7},
        {"seed", "9007199254740993", 9007199254740993}, /* 2^53 + 1: no double holds it */
        {"seed", "9223372036854775807", INT64_MAX},
    };
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        assert_ok(typed(f, good[i].name, good[i].text), &f->err);
        int64_t value = good[i].name[0] == 'b' ? f->settings.batch : f->settings.seed;
        assert_true(value == good[i].value);
    }
}

static void reals(void **state)
{
    struct fixture *f = *state;
    static const struct {
        const char *text;
        double value;
    } good[] = {{"0.05", 0.05}, {"5e-2", 5e-2}, {".5", 0.5}, {"3", 3}, {"0", 0}, {"1E300", 1e300}};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        assert_ok(typed(f, "lr", good[i].text), &f->err);
        assert_true(f->settings.lr == good[i].value);
    }
}

static void wrong_values(void **state)
{
    struct fixture *f = *state;
    static const struct {
        const char *name, *value, *message;
    } bad[] = {
        {"lr", "abc", "--lr: \"abc\" is not a number"},
        {"lr", "", "--lr: \"\" is not a number"},
        {"lr", "nan", "--lr: \"nan\" is not a number"},
        {"lr", "inf", "--lr: \"inf\" is not a number"},
        {"lr", "0x10", "--lr: \"0x10\" is not a number"},
        {"lr", " 1", "--lr: \" 1\" is not a number"},
        {"lr", "1e", "--lr: \"1e\" is not a number"},
        {"lr", "1-1", "--lr: \"1-1\" is not a number"},
        {"lr", "-0.1", "--lr -0.1: must be at least 0"},
        {"lr", "1e999", "--lr 1e999: no number of this size can be held"},
        {"batch", "0", "--batch 0: must be between 1 and 1000000"},
        {"batch", "-1", "--batch -1: must be between 1 and 1000000"},
        {"batch", "1000001", "--batch 1000001: must be between 1 and 1000000"},
        {"batch", "1e99", "--batch 1e99: must be between 1 and 1000000"},
        {"batch", "1e999", "--batch 1e999: must be between 1 and 1000000"},
        {"batch", "1.5", "--batch: \"1.5\" is not a whole number"},
        {"batch", "ten", "--batch: \"ten\" is not a whole number"},
        {"seed", "-1", "--seed -1: must be at least 0"},
        {"seed", "9223372036854775808",
         "--seed 9223372036854775808: no number of this size can be held"},
        {"seed", "1e40", "--seed 1e40: no number of this size can be held"},
        {"optimizer", "sgdd",
         "--optimizer sgdd: must be one of sgd, adam, adamw (did you mean sgd?)"},
        {"optimizer", "newton", "--optimizer newton: must be one of sgd, adam, adamw"},
        {"shuffle", "maybe", "--shuffle maybe: must be on or off"},
        {"stash", "1", "--stash 1: must be on or off"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(typed(f, bad[i].name, bad[i].value), PT_EINPUT);
        assert_string_equal(f->err.text, bad[i].message);
        assert_int_equal(pt_options_source(&f->options, bad[i].name), PT_FROM_DEFAULT);
    }
    assert_true(f->settings.lr == 0.1); /* a refused value changes nothing */
    assert_int_equal(f->settings.batch, 128);
    assert_string_equal(f->settings.optimizer, "sgd");
}

static void unknown_names(void **state)
{
    struct fixture *f = *state;
    static const struct {
        const char *line, *message;
    } lines[] = {
        {"--optimzer adam", "unknown option --optimzer (did you mean --optimizer?)"},
        {"--optimzer=adam", "unknown option --optimzer (did you mean --optimizer?)"},
        {"--no-stahs", "unknown option --no-stahs (did you mean --no-stash?)"},
        {"--frobnicate", "unknown option --frobnicate (--help lists all)"},
        {"--=3", "unknown option -- (--help lists all)"},
        {"-b 3", "unknown option -b (options begin with two dashes)"},
    };
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        const char *word;
        int n = 7;
        assert_int_equal(parse(f, lines[i].line, &word, &n), PT_EINPUT);
        assert_string_equal(f->err.text, lines[i].message);
        assert_int_equal(n, 7);
    }
    assert_int_equal(from_file(f, "btach", "3"), PT_EINPUT);
    assert_string_equal(f->err.text,
                        "lenet5.yaml:12:5: unknown key \"btach\" (did you mean \"batch\"?)");
    assert_int_equal(from_file(f, "xyz", "3"), PT_EINPUT);
    assert_string_equal(f->err.text, "lenet5.yaml:12:5: unknown key \"xyz\"");
}

static void a_file_is_named_in_messages(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(from_file(f, "batch", "0"), PT_EINPUT);
    assert_string_equal(f->err.text, "lenet5.yaml:12:5: batch 0: must be between 1 and 1000000");
    assert_int_equal(from_file(f, "lr", "abc"), PT_EINPUT);
    assert_string_equal(f->err.text, "lenet5.yaml:12:5: lr: \"abc\" is not a number");
    assert_fails(from_file(f, "help", "on"), PT_EINPUT,
                 "lenet5.yaml:12:5: help: belongs to the command line alone", &f->err);
    assert_false(f->settings.help);
}

static void the_stronger_source_wins(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(pt_options_source(&f->options, "batch"), PT_FROM_DEFAULT);
    assert_ok(from_file(f, "batch", "32"), &f->err);
    assert_int_equal(f->settings.batch, 32);
    assert_int_equal(pt_options_source(&f->options, "batch"), PT_FROM_PARTITION);
    assert_ok(typed(f, "batch", "64"), &f->err);
    assert_int_equal(f->settings.batch, 64);
    assert_ok(from_file(f, "batch", "16"), &f->err); /* reading the file after the line */
    assert_int_equal(f->settings.batch, 64);
    assert_int_equal(pt_options_source(&f->options, "batch"), PT_FROM_COMMAND_LINE);
    assert_ok(typed(f, "batch", "8"), &f->err); /* the last of equals */
    assert_int_equal(f->settings.batch, 8);
    assert_ok(from_file(f, "stash", "true"), &f->err);
    assert_true(f->settings.stash);
    assert_ok(typed(f, "stash", "off"), &f->err);
    assert_false(f->settings.stash);
}

static void command_lines(void **state)
{
    struct fixture *f = *state;
    const char *word = NULL;
    int n = 0;
    assert_ok(parse(f,
                    "--batch 32 net.yaml --lr=0.5 --stash --shuffle off --optimizer adam "
                    "--data=a=b --debug",
                    &word, &n),
              &f->err);
    assert_int_equal(n, 1);
    assert_string_equal(word, "net.yaml");
    assert_int_equal(f->settings.batch, 32);
    assert_true(f->settings.lr == 0.5);
    assert_true(f->settings.stash);
    assert_false(f->settings.shuffle);
    assert_string_equal(f->settings.optimizer, "adam");
    assert_string_equal(f->settings.data, "a=b");
    assert_string_equal(f->settings.debug, "");
    assert_int_equal(pt_options_source(&f->options, "data"), PT_FROM_COMMAND_LINE);
    assert_int_equal(pt_options_source(&f->options, "seed"), PT_FROM_DEFAULT);

    assert_ok(parse(f, "--no-stash --debug=0,2 --data= -- --batch", &word, &n), &f->err);
    assert_false(f->settings.stash);
    assert_string_equal(f->settings.debug, "0,2");
    assert_string_equal(f->settings.data, "");
    assert_string_equal(word, "--batch"); /* after "--" nothing is an option */
    assert_int_equal(n, 1);

    assert_ok(parse(f, "--debug -", &word, &n), &f->err); /* takes no next word; "-" is a word */
    assert_string_equal(f->settings.debug, "");
    assert_string_equal(word, "-");
    assert_ok(parse(f, "", &word, &n), &f->err);
    assert_int_equal(n, 0);
}

static void wrong_command_lines(void **state)
{
    struct fixture *f = *state;
    static const struct {
        const char *line, *message;
    } lines[] = {
        {"--lr", "--lr: needs a value, as in --lr RATE"},
        {"--data --stash", "--data: needs a value, as in --data DIR"},
        {"--shuffle", "--shuffle: needs a value, as in --shuffle on|off"},
        {"--no-lr", "--no-lr: --lr takes a value and cannot be turned off"},
        {"--no-shuffle", "--no-shuffle: write --shuffle off"},
        {"--no-stash=on", "--no-stash: takes no value"},
        {"--stash=perhaps", "--stash perhaps: must be on or off"},
        {"a.yaml b.yaml", "\"b.yaml\": is one word too many; besides options at most 1 is taken"},
        {"--lr=", "--lr: \"\" is not a number"},
    };
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        const char *word;
        int n;
        assert_int_equal(parse(f, lines[i].line, &word, &n), PT_EINPUT);
        assert_string_equal(f->err.text, lines[i].message);
    }
    char *argv[] = {"pipetrain", "word"};
    int n;
    assert_fails(pt_options_parse(&f->options, 2, argv, 0, NULL, &n, &f->err), PT_EINPUT,
                 "\"word\": only options are taken here", &f->err);
}

static void prints_values_that_read_back(void **state)
{
    struct fixture *f = *state;
    char text[64];
    static const struct {
        const char *name, *value, *expected;
    } good[] = {
        {"batch", "1e3", "1000"},
        {"seed", "9223372036854775807", "9223372036854775807"},
        {"lr", "0.1", "0.1"},
        {"lr", "0.30000000000000004", "0.30000000000000004"},
        {"lr", "1e-7", "1e-07"},
        {"stash", "on", "on"},
        {"shuffle", "off", "off"},
        {"optimizer", "adamw", "adamw"},
        {"data", "/some/where", "/some/where"},
    };
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        assert_ok(typed(f, good[i].name, good[i].value), &f->err);
        int row = pt_options_find(&f->options, good[i].name);
        assert_string_equal(pt_options_print(&f->options, row, text, sizeof text),
                            good[i].expected);
    }
    int data = pt_options_find(&f->options, "data");
    assert_string_equal(pt_options_print(&f->options, data, text, 5), "/som");
    int debug = pt_options_find(&f->options, "debug");
    assert_string_equal(pt_options_print(&f->options, debug, text, sizeof text), ""); /* NULL */
    assert_int_equal(pt_options_find(&f->options, "none"), -1);
}

static void help_page(void **state)
{
    struct fixture *f = *state;
    static const char expected[] =
        "Training:\n"
        "  --batch B         Samples per optimizer step. (default: 128)\n"
        "  --lr RATE         Learning rate. (default: 0.1)\n"
        "  --optimizer NAME  The rule of the update. One of sgd, adam, adamw. (default: sgd)\n"
        "  --[no-]stash      Keeps the weights that the forward pass of a micro-batch has seen "
        "until its\n"
        "                    backward pass has run, so that both work with the same ones — at the "
        "price of\n"
        "                    memory.\n"
        "  --seed S          Start of all random numbers. (default: 0)\n"
        "\n"
        "Data:\n"
        "  --data DIR        Where the files are.\n"
        "  --shuffle on|off  A new order of the samples in every epoch. (default: on)\n"
        "\n"
        "Help:\n"
        "  --debug[=RANKS]   Waits for a debugger.\n"
        "  --help            Shows this page.\n";
    char *page = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&page, &bytes);
    assert_non_null(out);
    pt_options_help(rows, N_ROWS, &f->settings, out);
    fclose(out);
    assert_string_equal(page, expected);
    free(page);
}

/* An option too long for the left column gets a line of its own; no line is wider than 100. */
static void help_of_long_options(void **state)
{
    struct fixture *f = *state;
    const pt_option long_rows[] = {
        {.name = "batch",
         .group = "A",
         .type = PT_OPTION_INT,
         .offset = AT(batch),
         .argument = "B",
         .help = "Short."},
        {.name = "a-name-that-is-longer-than-all",
         .group = "A",
         .type = PT_OPTION_TEXT,
         .offset = AT(data),
         .argument = "ARGUMENT",
         .help = "w w w w w w w w w w w w w w w w w w w w w w w w w w w w w w w w w w w w w w w w "
                 "w w w w w w w w w w w w w w w w w w w w w w w w w w w w w w w w w w w w w w w w"},
    };
    char *page = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&page, &bytes);
    assert_non_null(out);
    pt_options_help(long_rows, 2, &f->settings, out);
    fclose(out);
    assert_non_null(strstr(page, "  --batch B  Short. (default: 128)\n"
                                 "  --a-name-that-is-longer-than-all ARGUMENT\n"
                                 "             w w"));
    size_t widest = 0;
    for (const char *line = page; *line; line += strcspn(line, "\n") + 1) {
        size_t width = strcspn(line, "\n");
        widest = width > widest ? width : widest;
        assert_true(width == 0 || line[width - 1] != ' ');
    }
    assert_in_range(widest, 99, 100); /* full, as two columns more would not fit, but not over */
    free(page);
}

/* A choice that may be a file instead. */
static void test_choice_or_file(void **state)
{
    (void)state;
    pt_error err = {PT_OK, ""};
    struct {
        char *order;
    } values = {NULL};
    const pt_option row = {.name = "order",
                           .group = "Training",
                           .type = PT_OPTION_CHOICE,
                           .argument = "NAME|FILE.csv",
                           .choices = optimizers,
                           .file = ".csv",
                           .help = "Which."};
    unsigned char source = 0;
    pt_options options = {.rows = &row, .n_rows = 1, .settings = &values, .sources = &source};
    static const char *const good[] = {"sgd", "a/b.csv", "x.csv.csv"};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        assert_ok(pt_options_set(&options, "order", good[i], PT_FROM_COMMAND_LINE, NULL, &err),
                  &err);
        assert_string_equal(values.order, good[i]);
        assert_int_equal(pt_option_names_file(&row, good[i]), i > 0);
    }
    static const char *const bad[] = {".csv", "x.CSV", "x.csvs", "", "sgdx"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_fails(pt_options_set(&options, "order", bad[i], PT_FROM_COMMAND_LINE, NULL, &err),
                     PT_EINPUT,
                     "must be one of sgd, adam, adamw, or a file whose name ends in .csv", &err);
    assert_string_equal(values.order, "x.csv.csv");
    char *text = NULL;
    size_t bytes;
    FILE *out = open_memstream(&text, &bytes);
    assert_non_null(out);
    pt_options_help(&row, 1, &values, out);
    assert_int_equal(fclose(out), 0);
    assert_non_null(strstr(text, "--order NAME|FILE.csv"));
    assert_non_null(strstr(text, "One of sgd, adam, adamw, or a file."));
    free(text);
    pt_options_clear(&options);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(integers, set_up, tear_down),
        cmocka_unit_test_setup_teardown(reals, set_up, tear_down),
        cmocka_unit_test_setup_teardown(wrong_values, set_up, tear_down),
        cmocka_unit_test_setup_teardown(unknown_names, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_file_is_named_in_messages, set_up, tear_down),
        cmocka_unit_test_setup_teardown(the_stronger_source_wins, set_up, tear_down),
        cmocka_unit_test_setup_teardown(command_lines, set_up, tear_down),
        cmocka_unit_test_setup_teardown(wrong_command_lines, set_up, tear_down),
        cmocka_unit_test_setup_teardown(prints_values_that_read_back, set_up, tear_down),
        cmocka_unit_test_setup_teardown(help_page, set_up, tear_down),
        cmocka_unit_test_setup_teardown(help_of_long_options, set_up, tear_down),
        cmocka_unit_test(test_choice_or_file),
    };
    return cmocka_run_group_tests_name("options", tests, NULL, NULL);
}
