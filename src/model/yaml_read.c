/* Typed reading of a partition file's nodes: each refusal says where it stands and what to write.
 */
#include "yaml.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "pipetrain/text.h"

enum { WORDS_TEXT = 1024 };

pt_status pt_yaml_fail(pt_yaml_place place, const pt_yaml *at, const char *format, ...)
{
    char text[PT_ERROR_TEXT];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    for (char *p = text; *p; p++)
        if ((unsigned char)*p < 0x20 || *p == 0x7f)
            *p = '?';
    return pt_fail(place.err, PT_EINPUT, "%s:%d:%d: %s", place.file, at->line, at->column, text);
}

const char *pt_yaml_show(const pt_yaml *node, char text[PT_YAML_SHOWN])
{
    if (node->kind == PT_YAML_MAP)
        snprintf(text, PT_YAML_SHOWN, "a mapping");
    else if (node->kind == PT_YAML_LIST)
        snprintf(text, PT_YAML_SHOWN, "a list");
    else if (!node->text[0])
        snprintf(text, PT_YAML_SHOWN, "nothing");
    else
        snprintf(text, PT_YAML_SHOWN, "'%.40s'", node->text);
    return text;
}

static int find_key(const pt_yaml *map, const char *key)
{
    for (int i = 0; i < map->n_items; i += 2)
        if (!strcmp(map->items[i]->text, key))
            return i;
    return -1;
}

const pt_yaml *pt_yaml_key(const pt_yaml *map, const char *key)
{
    int i = find_key(map, key);
    return i < 0 ? NULL : map->items[i];
}

const pt_yaml *pt_yaml_get(const pt_yaml *map, const char *key)
{
    int i = find_key(map, key);
    return i < 0 ? NULL : map->items[i + 1];
}

pt_status pt_yaml_want(pt_yaml_place place, const pt_yaml *node, pt_yaml_kind kind,
                       const char *what)
{
    static const char *const names[] = {"one value", "a list, as in [a, b]",
                                        "a mapping, as in {key: value}"};
    char shown[PT_YAML_SHOWN];

    if (node->kind == kind)
        return PT_OK;
    return pt_yaml_fail(place, node, "%s must be %s; this is %s", what, names[kind],
                        pt_yaml_show(node, shown));
}

pt_status pt_yaml_need(pt_yaml_place place, const pt_yaml *map, const char *key, const char *what,
                       const pt_yaml **ret_value)
{
    const pt_yaml *value = pt_yaml_get(map, key);

    if (!value)
        return pt_yaml_fail(place, map, "%s lacks the key '%s'; add '%s: …'", what, key, key);
    *ret_value = value;
    return PT_OK;
}

/* "; did you mean 'kernel'?", or nothing. */
static void suggest(const char *word, const char *const *names, int n, char *text, size_t size)
{
    const char *nearest = pt_text_nearest(word, names, n);

    text[0] = 0;
    if (nearest)
        snprintf(text, size, "; did you mean '%s'?", nearest);
}

pt_status pt_yaml_keys(pt_yaml_place place, const pt_yaml *map, const char *const *known, int n,
                       const char *what)
{
    char words[WORDS_TEXT], hint[128];

    for (int i = 0; i < map->n_items; i += 2) {
        const pt_yaml *key = map->items[i];
        bool found = false;
        for (int k = 0; k < n && !found; k++)
            found = !strcmp(key->text, known[k]);
        if (found)
            continue;
        suggest(key->text, known, n, hint, sizeof hint);
        return pt_yaml_fail(place, key, "unknown key '%.40s' in %s%s (%s)", key->text, what, hint,
                            pt_text_join(known, n, words, sizeof words));
    }
    return PT_OK;
}

pt_status pt_yaml_text(pt_yaml_place place, const pt_yaml *node, const char *what,
                       const char **ret_text)
{
    PT_TRY(pt_yaml_want(place, node, PT_YAML_SCALAR, what));
    if (!node->text[0])
        return pt_yaml_fail(place, node, "%s is empty; give it a value", what);
    *ret_text = node->text;
    return PT_OK;
}

static pt_status read_in_range(pt_yaml_place place, const pt_yaml *node, const char *what,
                               bool whole, double min, double max, double *ret_value)
{
    char shown[PT_YAML_SHOWN];
    double value = 0;

    PT_TRY(pt_yaml_want(place, node, PT_YAML_SCALAR, what));
    bool good = pt_text_number(node->text, &value) && isfinite(value);
    if (!good || (whole && value != floor(value)) || value < min || value > max)
        return pt_yaml_fail(place, node, "%s must be a %snumber from %.10g to %.10g, not %s", what,
                            whole ? "whole " : "", min, max, pt_yaml_show(node, shown));
    *ret_value = value;
    return PT_OK;
}

pt_status pt_yaml_real(pt_yaml_place place, const pt_yaml *node, const char *what, double min,
                       double max, double *ret_value)
{
    return read_in_range(place, node, what, /*whole=*/false, min, max, ret_value);
}

pt_status pt_yaml_whole(pt_yaml_place place, const pt_yaml *node, const char *what, int64_t min,
                        int64_t max, int64_t *ret_value)
{
    double value = 0;

    PT_TRY(read_in_range(place, node, what, /*whole=*/true, (double)min, (double)max, &value));
    *ret_value = (int64_t)value;
    return PT_OK;
}

pt_status pt_yaml_switch(pt_yaml_place place, const pt_yaml *node, const char *what,
                         bool *ret_value)
{
    static const char *const words[] = {"off", "on", "false", "true"};
    char shown[PT_YAML_SHOWN];

    PT_TRY(pt_yaml_want(place, node, PT_YAML_SCALAR, what));
    for (int i = 0; i < 4; i++) {
        if (!strcmp(node->text, words[i])) {
            *ret_value = i % 2;
            return PT_OK;
        }
    }
    return pt_yaml_fail(place, node, "%s must be on or off, not %s", what,
                        pt_yaml_show(node, shown));
}

pt_status pt_yaml_choice(pt_yaml_place place, const pt_yaml *node, const char *what,
                         const char *const *names, int n, int *ret_index)
{
    char words[WORDS_TEXT], hint[128];
    const char *text = NULL;

    PT_TRY(pt_yaml_text(place, node, what, &text));
    for (int i = 0; i < n; i++) {
        if (!strcmp(names[i], text)) {
            *ret_index = i;
            return PT_OK;
        }
    }
    suggest(text, names, n, hint, sizeof hint);
    return pt_yaml_fail(place, node, "unknown %s '%.40s'%s (%s)", what, text, hint,
                        pt_text_join(names, n, words, sizeof words));
}
