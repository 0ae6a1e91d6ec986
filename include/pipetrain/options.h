/* Options as rows of a table. The parser of the command line, the reader of a partition file's
 * `train:` section, --help and the run log all read the same rows. */
#ifndef PIPETRAIN_OPTIONS_H
#define PIPETRAIN_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "pipetrain/status.h"

typedef enum pt_option_type {
    PT_OPTION_FLAG, /* bool *: --name sets it, --no-name clears it; on|off, true|false in a file */
    PT_OPTION_SWITCH, /* bool *: --name on|off (or true|false) */
    PT_OPTION_INT,    /* int64_t *: within [min, max]; 1e6 style accepted when it is whole */
    PT_OPTION_REAL,   /* double *: within [min, max] */
    PT_OPTION_TEXT,   /* char **: free text or a path; owned by the settings */
    PT_OPTION_CHOICE  /* char **: one of `choices`, owned by the settings */
} pt_option_type;

typedef struct pt_option {
    const char *name;  /* long name without dashes */
    const char *group; /* heading in --help; rows of a group stand together */
    pt_option_type type;
    size_t offset;        /* of the target in the settings struct */
    const char *argument; /* what --help calls the value, e.g. "B"; NULL for flags */
    double min, max;      /* PT_OPTION_INT and PT_OPTION_REAL; inclusive */
    /* PT_OPTION_CHOICE: the names allowed, ended by NULL. A function, because the rows of other
     * tables (optimizers, schedules …) are the choices. */
    const char *const *(*choices)(void);
    const char *file; /* … or the name of a file that ends so: ".csv"; NULL: no files */
    /* PT_OPTION_TEXT: --name and --name=VALUE are both right (VALUE then only with '='); the bare
     * --name sets the empty text, where the default is NULL. */
    bool optional_argument;
    bool command_line_only; /* refused in a partition file, with that reason */
    const char *help;       /* one or more sentences; --help wraps it */
} pt_option;

/* Who set an option last. A later source wins over an earlier one, never the other way round. */
typedef enum pt_option_source {
    PT_FROM_DEFAULT,
    PT_FROM_PARTITION,
    PT_FROM_COMMAND_LINE
} pt_option_source;

/* A table bound to the settings it fills. `sources` has n_rows entries. Caller's memory. */
typedef struct pt_options {
    const pt_option *rows;
    int n_rows;
    void *settings;
    unsigned char *sources;
} pt_options;

/* Is the value of a choice a file instead of one of its names? */
bool pt_option_names_file(const pt_option *row, const char *value);

/* Index of the row called `name`, or -1. */
int pt_options_find(const pt_options *options, const char *name);

/* Sets one option from text. `where` names the place in a file for messages: "lenet5.yaml:12:5"; it
 * is not read for PT_FROM_COMMAND_LINE, whose messages begin with "--name", and may be NULL then.
 * Does nothing when a stronger source has set it already. PT_FROM_DEFAULT fills the texts, which
 * must be NULL or on the heap, with their defaults.
 * PT_EINPUT: unknown name (with the nearest one), wrong type, out of range (with the range). */
pt_status pt_options_set(pt_options *options, const char *name, const char *value,
                         pt_option_source source, const char *where, pt_error *err);

/* Reads argv[1 … argc-1]: --name VALUE, --name=VALUE, --flag, --no-flag, `--` ends options. Words
 * that are no options go to positional[], at most max_positional of them (more: PT_EINPUT). */
pt_status pt_options_parse(pt_options *options, int argc, char *const argv[], int max_positional,
                           const char **positional, int *ret_n_positional, pt_error *err);

/* Was the option set by anyone, or is it still the default? */
pt_option_source pt_options_source(const pt_options *options, const char *name);

/* Prints every group with its rows, wrapped at 100 columns, choices and defaults included (the
 * default is what `defaults`, a settings struct, holds). */
void pt_options_help(const pt_option *rows, int n_rows, const void *defaults, FILE *out);

/* Writes the present value of row `i` as text, cut to `size` bytes; returns `text`. */
const char *pt_options_print(const pt_options *options, int i, char *text, size_t size);

/* Before anything is set: makes copies of the defaults' texts, so that the settings own theirs.
 * PT_ENOMEM: those without a copy are NULL; pt_options_clear in any case. */
pt_status pt_options_own(pt_options *options, pt_error *err);
/* Frees the texts that the settings own. */
void pt_options_clear(pt_options *options);

#endif
