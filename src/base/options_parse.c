/* Reads a command line by the option table: splits it into names, values and other words. */
#include "pipetrain/options.h"

#include <stdlib.h>
#include <string.h>

/* --no-NAME, or a name that no row has. */
static pt_status parse_negated(pt_options *options, const char *word, bool has_value, pt_error *err)
{
    int i = strncmp(word, "no-", 3) == 0 ? pt_options_find(options, word + 3) : -1;
    if (i < 0)
        return pt_options_set(options, word, "", PT_FROM_COMMAND_LINE, NULL, err); /* refuses */
    const pt_option *row = &options->rows[i];
    if (row->type == PT_OPTION_SWITCH)
        return pt_fail(err, PT_EINPUT, "--%s: write --%s off", word, row->name);
    if (row->type != PT_OPTION_FLAG)
        return pt_fail(err, PT_EINPUT, "--%s: --%s takes a value and cannot be turned off", word,
                       row->name);
    if (has_value)
        return pt_fail(err, PT_EINPUT, "--%s: takes no value", word);
    return pt_options_set(options, row->name, "off", PT_FROM_COMMAND_LINE, NULL, err);
}

/* What the option stands for when no '=' came with it: its own meaning, or the next word. */
static pt_status implied_value(const pt_option *row, const char *next, const char **ret_value,
                               bool *ret_took_next, pt_error *err)
{
    if (row->optional_argument || row->type == PT_OPTION_FLAG) {
        *ret_value = row->type == PT_OPTION_FLAG ? "on" : "";
        *ret_took_next = false;
        return PT_OK;
    }
    if (!next || strncmp(next, "--", 2) == 0) {
        const char *usual = row->type == PT_OPTION_SWITCH ? "on|off" : "VALUE";
        const char *argument = row->argument ? row->argument : usual;
        return pt_fail(err, PT_EINPUT, "--%s: needs a value, as in --%s %s", row->name, row->name,
                       argument);
    }
    *ret_value = next;
    *ret_took_next = true;
    return PT_OK;
}

/* Reads one option; `next` is the word after it or NULL. */
static pt_status parse_option(pt_options *options, const char *word, const char *next,
                              bool *ret_took_next, pt_error *err)
{
    pt_status status = PT_OK;
    const char *equals = strchr(word, '=');
    char *name = equals ? strndup(word, (size_t)(equals - word)) : strdup(word);
    if (!name)
        return pt_fail(err, PT_ENOMEM, "no memory for the option --%s", word);
    const char *value = equals ? equals + 1 : NULL;
    bool took_next = false;
    int i = pt_options_find(options, name);
    if (i < 0) {
        PT_GOTO(status, parse_negated(options, name, equals != NULL, err));
    } else {
        if (!value)
            PT_GOTO(status, implied_value(&options->rows[i], next, &value, &took_next, err));
        PT_GOTO(status, pt_options_set(options, name, value, PT_FROM_COMMAND_LINE, NULL, err));
    }
    *ret_took_next = took_next;
out:
    free(name);
    return status;
}

static pt_status fail_positional(const char *word, int max_positional, pt_error *err)
{
    if (max_positional == 0)
        return pt_fail(err, PT_EINPUT, "\"%s\": only options are taken here", word);
    return pt_fail(err, PT_EINPUT, "\"%s\": is one word too many; besides options at most %d %s",
                   word, max_positional, max_positional == 1 ? "is taken" : "are taken");
}

pt_status pt_options_parse(pt_options *options, int argc, char *const argv[], int max_positional,
                           const char **positional, int *ret_n_positional, pt_error *err)
{
    int n = 0;
    bool ended = false; /* "--" was seen */
    for (int i = 1; i < argc; i++) {
        const char *word = argv[i];
        if (ended || word[0] != '-' || word[1] == 0) {
            if (n == max_positional)
                return fail_positional(word, max_positional, err);
            positional[n++] = word;
        } else if (strcmp(word, "--") == 0) {
            ended = true;
        } else if (word[1] != '-') {
            return pt_fail(err, PT_EINPUT, "unknown option %s (options begin with two dashes)",
                           word);
        } else {
            bool took_next = false;
            PT_TRY(parse_option(options, word + 2, i + 1 < argc ? argv[i + 1] : NULL, &took_next,
                                err));
            i += took_next;
        }
    }
    *ret_n_positional = n;
    return PT_OK;
}
