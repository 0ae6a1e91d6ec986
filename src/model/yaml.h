/* Partition files as a tree of nodes that know their place, and typed reading of them.
 *
 * The tree is built from libfyaml's events, not from its documents: that way limits on size, depth
 * and number of nodes hold while the text is read, and what the format has no use for (anchors,
 * aliases, tags, several documents, keys that are no words) is refused where it stands. */
#ifndef PIPETRAIN_MODEL_YAML_H
#define PIPETRAIN_MODEL_YAML_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "pipetrain/status.h"

/* A partition file is written by people; these are far beyond what one needs. */
enum {
    PT_YAML_MAX_BYTES = 2 << 20,
    PT_YAML_MAX_NODES = 500000,
    PT_YAML_MAX_DEPTH = 16,
    PT_YAML_MAX_BLANKS = 1000, /* in a row, ends of lines among them */
    PT_YAML_MAX_KEYS = 1000    /* of one mapping */
};

typedef enum pt_yaml_kind { PT_YAML_SCALAR, PT_YAML_LIST, PT_YAML_MAP } pt_yaml_kind;

typedef struct pt_yaml {
    pt_yaml_kind kind;
    bool plain;             /* a scalar without quotes */
    bool flow;              /* a list or mapping in brackets */
    char *text;             /* of a scalar; NULL for others */
    size_t first, end;      /* bytes of the file: [first, end) */
    int line, column;       /* from 1 */
    struct pt_yaml **items; /* a list's items; a mapping's key, value, key, value … */
    int n_items;
} pt_yaml;

/* The file's name and where messages go: what every reader needs. */
typedef struct pt_yaml_place {
    const char *file;
    pt_error *err;
} pt_yaml_place;

pt_status pt_yaml_parse(pt_yaml_place place, const char *text, size_t bytes, pt_yaml **ret_root);
void pt_yaml_free(pt_yaml *node); /* NULL is fine */

/* PT_EINPUT with "file:line:column: message"; control characters in the message become '?'. */
pt_status pt_yaml_fail(pt_yaml_place place, const pt_yaml *at, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* "a mapping", "a list", "'some text'" for messages, cut to fit; returns `text`. */
enum { PT_YAML_SHOWN = 48 };
const char *pt_yaml_show(const pt_yaml *node, char text[PT_YAML_SHOWN]);

/* The value of a key, or NULL; the key itself. The node must be a mapping. */
const pt_yaml *pt_yaml_get(const pt_yaml *map, const char *key);
const pt_yaml *pt_yaml_key(const pt_yaml *map, const char *key);

/* `what` names the thing in messages, e.g. "'input'". */
pt_status pt_yaml_want(pt_yaml_place place, const pt_yaml *node, pt_yaml_kind kind,
                       const char *what);
/* The value of a key that must be there. */
pt_status pt_yaml_need(pt_yaml_place place, const pt_yaml *map, const char *key, const char *what,
                       const pt_yaml **ret_value);
/* Every key of `map` must be one of known[n]; else the message names the nearest one and all. */
pt_status pt_yaml_keys(pt_yaml_place place, const pt_yaml *map, const char *const *known, int n,
                       const char *what);

/* Scalars; `what` as above. Ranges are inclusive. */
pt_status pt_yaml_text(pt_yaml_place place, const pt_yaml *node, const char *what,
                       const char **ret_text);
pt_status pt_yaml_real(pt_yaml_place place, const pt_yaml *node, const char *what, double min,
                       double max, double *ret_value);
pt_status pt_yaml_whole(pt_yaml_place place, const pt_yaml *node, const char *what, int64_t min,
                        int64_t max, int64_t *ret_value);
pt_status pt_yaml_switch(pt_yaml_place place, const pt_yaml *node, const char *what,
                         bool *ret_value);
/* Index in names[n] of the word that the scalar holds. */
pt_status pt_yaml_choice(pt_yaml_place place, const pt_yaml *node, const char *what,
                         const char *const *names, int n, int *ret_index);

#endif
