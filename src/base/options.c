/* The engine of the option table: finds rows, reads values, remembers who set what.
 *
 * Everything goes through pt_options_set(), so that a value on the command line and one in a file
 * are checked by the same lines and refused with the same words. */
#include "pipetrain/options.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "pipetrain/text.h"

enum { PLACE_TEXT = 512, NUMBER_TEXT = 32 };

static const double INT64_END = 0x1p63; /* the first double beyond int64_t */

/* The value being set, and what its messages say about where it stands. */
struct setting {
    const pt_option *row;
    const char *value;
    void *target;
    char place[PLACE_TEXT]; /* "--batch" or "lenet5.yaml:12:5: batch" */
};

int pt_options_find(const pt_options *options, const char *name)
{
    for (int i = 0; i < options->n_rows; i++)
        if (strcmp(options->rows[i].name, name) == 0)
            return i;
    return -1;
}

pt_option_source pt_options_source(const pt_options *options, const char *name)
{
    int i = pt_options_find(options, name);
    assert(i >= 0);
    return i < 0 ? PT_FROM_DEFAULT : (pt_option_source)options->sources[i];
}

static void *target_of(const pt_options *options, int i)
{
    return (char *)options->settings + options->rows[i].offset;
}

/* Writes a number the shortest way that reads back as the same double. */
static void print_real(double value, char *text, size_t size)
{
    for (int digits = 6; digits <= 17; digits++) {
        snprintf(text, size, "%.*g", digits, value);
        if (strtod(text, NULL) == value)
            return;
    }
}

static void print_bound(const pt_option *row, double bound, char text[NUMBER_TEXT])
{
    if (row->type == PT_OPTION_INT)
        snprintf(text, NUMBER_TEXT, "%" PRId64, (int64_t)bound);
    else
        print_real(bound, text, NUMBER_TEXT);
}

/* `value` is what the text says, as near as a double comes to it. */
static pt_status fail_range(const struct setting *s, double value, pt_error *err)
{
    const pt_option *row = s->row;
    /* A bound that no value of the type can pass is no bound to speak of. */
    double end = row->type == PT_OPTION_INT ? INT64_END : INFINITY;
    bool has_min = row->min > -end, has_max = row->max < end;
    char low[NUMBER_TEXT] = "", high[NUMBER_TEXT] = "";
    if (has_min)
        print_bound(row, row->min, low);
    if (has_max)
        print_bound(row, row->max, high);
    if (has_min && has_max)
        return pt_fail(err, PT_EINPUT, "%s %s: must be between %s and %s", s->place, s->value, low,
                       high);
    if (has_min && value < row->min)
        return pt_fail(err, PT_EINPUT, "%s %s: must be at least %s", s->place, s->value, low);
    if (has_max && value > row->max)
        return pt_fail(err, PT_EINPUT, "%s %s: must be at most %s", s->place, s->value, high);
    return pt_fail(err, PT_EINPUT, "%s %s: no number of this size can be held", s->place, s->value);
}

static pt_status set_real(struct setting *s, pt_error *err)
{
    double value;
    if (!pt_text_number(s->value, &value))
        return pt_fail(err, PT_EINPUT, "%s: \"%s\" is not a number", s->place, s->value);
    if (!isfinite(value) || value < s->row->min || value > s->row->max)
        return fail_range(s, value, err);
    *(double *)s->target = value;
    return PT_OK;
}

static pt_status set_int(struct setting *s, pt_error *err)
{
    double real;
    if (!pt_text_number(s->value, &real) || (isfinite(real) && real != trunc(real)))
        return pt_fail(err, PT_EINPUT, "%s: \"%s\" is not a whole number", s->place, s->value);
    if (real < s->row->min || real > s->row->max)
        return fail_range(s, real, err);
    /* Digits alone are read as an integer, which is exact where a double is not. */
    char *end;
    errno = 0;
    long long value = strtoll(s->value, &end, 10);
    if (*end || errno) {
        if (!(real >= -INT64_END && real < INT64_END))
            return fail_range(s, real, err);
        value = (long long)real;
    }
    *(int64_t *)s->target = value;
    return PT_OK;
}

static pt_status set_switch(struct setting *s, pt_error *err)
{
    static const struct {
        const char *word;
        bool value;
    } words[] = {{"on", true}, {"off", false}, {"true", true}, {"false", false}};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        if (strcmp(s->value, words[i].word) == 0) {
            *(bool *)s->target = words[i].value;
            return PT_OK;
        }
    }
    return pt_fail(err, PT_EINPUT, "%s %s: must be on or off", s->place, s->value);
}

static pt_status set_text(struct setting *s, pt_error *err)
{
    char *copy = strdup(s->value);
    if (!copy)
        return pt_fail(err, PT_ENOMEM, "%s: no memory for its value", s->place);
    free(*(char **)s->target);
    *(char **)s->target = copy;
    return PT_OK;
}

static pt_status fail_choice(const struct setting *s, const char *const *choices, int n,
                             pt_error *err)
{
    const char *nearest = pt_text_nearest(s->value, choices, n);
    char list[PT_ERROR_TEXT / 2];
    const char *file = s->row->file;
    return pt_fail(err, PT_EINPUT, "%s %s: must be one of %s%s%s%s%s%s", s->place, s->value,
                   pt_text_join(choices, n, list, sizeof list),
                   file ? ", or a file whose name ends in " : "", file ? file : "",
                   nearest ? " (did you mean " : "", nearest ? nearest : "", nearest ? "?)" : "");
}

bool pt_option_names_file(const pt_option *row, const char *value)
{
    size_t ending = row->file ? strlen(row->file) : 0, length = strlen(value);
    return ending > 0 && length > ending && strcmp(value + length - ending, row->file) == 0;
}

static pt_status set_choice(struct setting *s, pt_error *err)
{
    const char *const *choices = s->row->choices();
    int n = 0;
    for (; choices[n]; n++)
        if (strcmp(choices[n], s->value) == 0)
            return set_text(s, err);
    if (pt_option_names_file(s->row, s->value))
        return set_text(s, err);
    return fail_choice(s, choices, n, err);
}

static pt_status (*const SETTERS[])(struct setting *s, pt_error *err) = {
    [PT_OPTION_FLAG] = set_switch, [PT_OPTION_SWITCH] = set_switch, [PT_OPTION_INT] = set_int,
    [PT_OPTION_REAL] = set_real,   [PT_OPTION_TEXT] = set_text,     [PT_OPTION_CHOICE] = set_choice,
};

/* The row whose name is nearest to `word`, or -1. */
static int nearest_row(const pt_options *options, const char *word)
{
    const char **names = malloc((size_t)options->n_rows * sizeof *names + 1);
    if (!names)
        return -1;
    for (int i = 0; i < options->n_rows; i++)
        names[i] = options->rows[i].name;
    const char *nearest = pt_text_nearest(word, names, options->n_rows);
    free(names);
    return nearest ? pt_options_find(options, nearest) : -1;
}

/* `word` is what follows "--" on the command line, or a key of a file. */
static pt_status fail_unknown(const pt_options *options, const char *word, pt_option_source source,
                              const char *where, pt_error *err)
{
    int i = nearest_row(options, word);
    const char *no = "", *name = i < 0 ? NULL : options->rows[i].name;
    if (source != PT_FROM_COMMAND_LINE) {
        const char *colon = where ? ": " : "";
        where = where ? where : "";
        if (!name)
            return pt_fail(err, PT_EINPUT, "%s%sunknown key \"%s\"", where, colon, word);
        return pt_fail(err, PT_EINPUT, "%s%sunknown key \"%s\" (did you mean \"%s\"?)", where,
                       colon, word, name);
    }
    if (!name && strncmp(word, "no-", 3) == 0) {
        i = nearest_row(options, word + 3);
        if (i >= 0 && options->rows[i].type == PT_OPTION_FLAG) {
            no = "no-";
            name = options->rows[i].name;
        }
    }
    if (!name)
        return pt_fail(err, PT_EINPUT, "unknown option --%s (--help lists all)", word);
    return pt_fail(err, PT_EINPUT, "unknown option --%s (did you mean --%s%s?)", word, no, name);
}

pt_status pt_options_set(pt_options *options, const char *name, const char *value,
                         pt_option_source source, const char *where, pt_error *err)
{
    int i = pt_options_find(options, name);
    if (i < 0)
        return fail_unknown(options, name, source, where, err);
    struct setting s = {.row = &options->rows[i], .value = value, .target = target_of(options, i)};
    bool typed = source == PT_FROM_COMMAND_LINE;
    snprintf(s.place, sizeof s.place, "%s%s%s",
             typed   ? "--"
             : where ? where
                     : "",
             !typed && where ? ": " : "", name);
    if (source == PT_FROM_PARTITION && s.row->command_line_only)
        return pt_fail(err, PT_EINPUT,
                       "%s: belongs to the command line alone; remove it here and write --%s there",
                       s.place, name);
    if (source < options->sources[i])
        return PT_OK;
    PT_TRY(SETTERS[s.row->type](&s, err));
    options->sources[i] = (unsigned char)source;
    return PT_OK;
}

const char *pt_options_print(const pt_options *options, int i, char *text, size_t size)
{
    const void *target = target_of(options, i);
    const char *owned;
    switch (options->rows[i].type) {
    case PT_OPTION_FLAG:
    case PT_OPTION_SWITCH:
        snprintf(text, size, "%s", *(const bool *)target ? "on" : "off");
        break;
    case PT_OPTION_INT:
        snprintf(text, size, "%" PRId64, *(const int64_t *)target);
        break;
    case PT_OPTION_REAL:
        print_real(*(const double *)target, text, size);
        break;
    case PT_OPTION_TEXT:
    case PT_OPTION_CHOICE:
        owned = *(char *const *)target;
        snprintf(text, size, "%s", owned ? owned : "");
        break;
    }
    return text;
}

static bool is_text(const pt_option *row)
{
    return row->type == PT_OPTION_TEXT || row->type == PT_OPTION_CHOICE;
}

pt_status pt_options_own(pt_options *options, pt_error *err)
{
    bool ok = true;
    for (int i = 0; i < options->n_rows; i++) {
        char **text = is_text(&options->rows[i]) ? target_of(options, i) : NULL;
        if (!text || !*text)
            continue;
        *text = strdup(*text);
        ok &= *text != NULL;
    }
    return ok ? PT_OK : pt_fail(err, PT_ENOMEM, "no memory for the options");
}

void pt_options_clear(pt_options *options)
{
    for (int i = 0; i < options->n_rows; i++) {
        if (!is_text(&options->rows[i]))
            continue;
        char **text = target_of(options, i);
        free(*text);
        *text = NULL;
    }
}
