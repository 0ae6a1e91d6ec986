/* Builds the tree of a partition file from libfyaml's events.
 *
 * The text is hostile input. It is checked for being UTF-8 without control characters before the
 * parser sees it, and every limit is checked while nodes are made, so memory stays within a small
 * multiple of the file's size. */
#include "yaml.h"

#include <libfyaml.h>
#include <stdlib.h>
#include <string.h>

typedef struct reader {
    pt_yaml_place place;
    struct fy_diag *diag;
    struct fy_parser *parser;
    const char *text;
    struct fy_mark last; /* where the last event with a place began: that of an empty value */
    int nodes;
} reader;

void pt_yaml_free(pt_yaml *node)
{
    if (!node)
        return;
    for (int i = 0; i < node->n_items; i++)
        pt_yaml_free(node->items[i]);
    free(node->items);
    free(node->text);
    free(node);
}

/* ---- the bytes ---- */

/* Bytes of the UTF-8 character at p (RFC 3629: no overlong forms, no surrogates), 0 when it is none
 * or a control character that YAML has no use for. */
static size_t character_bytes(const unsigned char *p, size_t left)
{
    if (p[0] < 0x80)
        return p[0] == '\t' || p[0] == '\n' || p[0] == '\r' || (p[0] >= 0x20 && p[0] != 0x7f);
    size_t n = p[0] >= 0xf0 ? 4 : p[0] >= 0xe0 ? 3 : 2;
    if (p[0] < 0xc2 || p[0] > 0xf4 || n > left)
        return 0;
    for (size_t i = 1; i < n; i++)
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    bool overlong = (p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xf0 && p[1] < 0x90);
    bool beyond = (p[0] == 0xed && p[1] > 0x9f) || (p[0] == 0xf4 && p[1] > 0x8f);
    bool control = p[0] == 0xc2 && p[1] < 0xa0;
    return overlong || beyond || control ? 0 : n;
}

static pt_status check_bytes(pt_yaml_place place, const char *text, size_t bytes)
{
    pt_yaml at = {.line = 1, .column = 1};

    if (bytes > PT_YAML_MAX_BYTES)
        return pt_yaml_fail(place, &at, "the file has %zu bytes; at most %d are read", bytes,
                            PT_YAML_MAX_BYTES);
    for (size_t i = 0; i < bytes;) {
        size_t n = character_bytes((const unsigned char *)text + i, bytes - i);
        if (n == 0)
            return pt_yaml_fail(place, &at,
                                "byte 0x%02x is not text; save the file as UTF-8 without "
                                "control characters",
                                (unsigned char)text[i]);
        at.column++;
        if (text[i] == '\n') {
            at.line++;
            at.column = 1;
        }
        i += n;
    }
    return PT_OK;
}

static bool begins_line(const char *text, size_t i)
{
    return i == 0 || text[i - 1] == '\n' || text[i - 1] == '\r' ||
           (i == 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0); /* a byte order mark */
}

/* libfyaml looks at a directive, and at blanks in a row, from the start for each of their bytes:
 * two megabytes of either take it an hour. No partition file needs them. */
static pt_status check_pace(pt_yaml_place place, const char *text, size_t bytes)
{
    pt_yaml at = {.line = 1};
    int blanks = 0;

    for (size_t i = 0; i < bytes; i++) {
        at.column = begins_line(text, i) ? 1 : at.column + ((text[i] & 0xc0) != 0x80);
        blanks = strchr(" \t\r\n", text[i]) ? blanks + 1 : 0;
        if (text[i] == '%' && at.column == 1)
            return pt_yaml_fail(place, &at,
                                "directives (%%) are not used here; leave the line out, or indent "
                                "a text that goes on in it");
        if (blanks > PT_YAML_MAX_BLANKS)
            return pt_yaml_fail(place, &at,
                                "more than %d blanks or ends of lines in a row; take some out",
                                PT_YAML_MAX_BLANKS);
        at.line += text[i] == '\n';
    }
    return PT_OK;
}

/* ---- nodes ---- */

static pt_status no_memory(const reader *r)
{
    return pt_fail(r->place.err, PT_ENOMEM, "%s: no memory for the file's contents", r->place.file);
}

static pt_status add_item(const reader *r, pt_yaml *parent, pt_yaml *item)
{
    int n = parent->n_items;
    if ((n & (n - 1)) == 0) { /* full: the room is the next power of two */
        pt_yaml **items = realloc(parent->items, sizeof *items * (n ? 2 * (size_t)n : 1));
        if (!items) {
            pt_yaml_free(item);
            return no_memory(r);
        }
        parent->items = items;
    }
    parent->items[parent->n_items++] = item;
    return PT_OK;
}

static pt_status syntax_error(const reader *r)
{
    void *iterator = NULL;
    const struct fy_diag_error *error = fy_diag_errors_iterate(r->diag, &iterator);
    pt_yaml at = {.line = r->last.line + 1, .column = r->last.column + 1};

    if (!error)
        return pt_yaml_fail(r->place, &at, "this is not YAML");
    at.line = error->line > 0 ? error->line : at.line;
    at.column = error->column > 0 ? error->column : at.column;
    const char *hint = strchr(error->msg, '@') ? "; write \"@\" in quotes"
                                               : "; quote texts that hold any of []{},@:#";
    return pt_yaml_fail(r->place, &at, "%s%s", error->msg, hint);
}

static pt_status copy_scalar(const reader *r, struct fy_event *event, pt_yaml *node)
{
    size_t length = 0;
    struct fy_token *token = event->scalar.value;
    const char *text = token ? fy_token_get_text(token, &length) : "";

    node->plain = !token || fy_token_scalar_style(token) == FYSS_PLAIN;
    if (token && (fy_token_scalar_style(token) == FYSS_SINGLE_QUOTED ||
                  fy_token_scalar_style(token) == FYSS_DOUBLE_QUOTED)) {
        node->first--; /* libfyaml's marks leave the quotes out */
        node->end++;
        node->column--;
    }
    if (!text || memchr(text, 0, length))
        return pt_yaml_fail(r->place, node, "this text cannot be read: it may hold no \\0");
    node->text = malloc(length + 1);
    if (!node->text)
        return no_memory(r);
    memcpy(node->text, text, length);
    node->text[length] = 0;
    return PT_OK;
}

static pt_status fill_node(reader *r, struct fy_event *event, pt_yaml *node)
{
    const struct fy_mark *first = fy_event_start_mark(event), *end = fy_event_end_mark(event);

    r->last = first ? *first : r->last;
    node->line = r->last.line + 1;
    node->column = r->last.column + 1;
    node->first = first ? first->input_pos : r->last.input_pos;
    node->end = end ? end->input_pos : node->first;
    if (event->type == FYET_ALIAS || fy_event_get_anchor_token(event))
        return pt_yaml_fail(r->place, node,
                            "anchors (&) and aliases (*) are not used here; write what repeats "
                            "as a block with parameters");
    if (fy_event_get_tag_token(event))
        return pt_yaml_fail(r->place, node, "tags (!) are not used here; leave it out");
    if (++r->nodes > PT_YAML_MAX_NODES)
        return pt_yaml_fail(r->place, node, "more than %d values in one file", PT_YAML_MAX_NODES);
    if (event->type == FYET_SCALAR)
        return copy_scalar(r, event, node);
    node->kind = event->type == FYET_SEQUENCE_START ? PT_YAML_LIST : PT_YAML_MAP;
    node->flow = r->text[node->first] == '[' || r->text[node->first] == '{';
    return PT_OK;
}

/* Reads one event. Those that begin a node give a node, the others only their type. */
static pt_status next_event(reader *r, enum fy_event_type *ret_type, size_t *ret_end,
                            pt_yaml **ret_node)
{
    pt_status status = PT_OK;
    pt_yaml *node = NULL;
    struct fy_event *event = fy_parser_parse(r->parser);

    if (!event)
        return syntax_error(r);
    enum fy_event_type type = event->type;
    const struct fy_mark *end = fy_event_end_mark(event);
    *ret_end = end ? end->input_pos : 0;
    if (type == FYET_SCALAR || type == FYET_ALIAS || type == FYET_SEQUENCE_START ||
        type == FYET_MAPPING_START) {
        node = calloc(1, sizeof *node);
        status = node ? fill_node(r, event, node) : no_memory(r);
    }
    fy_parser_event_free(r->parser, event);
    if (status != PT_OK) {
        pt_yaml_free(node);
        return status;
    }
    *ret_type = type;
    *ret_node = node;
    return PT_OK;
}

static pt_status check_key(const reader *r, const pt_yaml *map, const pt_yaml *key)
{
    if (key->kind != PT_YAML_SCALAR || !key->text[0])
        return pt_yaml_fail(r->place, key, "a key must be a word, as in 'name: lenet5'");
    if (map->n_items / 2 >= PT_YAML_MAX_KEYS)
        return pt_yaml_fail(r->place, key, "more than %d keys in one mapping", PT_YAML_MAX_KEYS);
    const pt_yaml *other = pt_yaml_key(map, key->text);
    if (other)
        return pt_yaml_fail(r->place, key, "key '%.40s' stands here and in line %d; keep one",
                            key->text, other->line);
    return PT_OK;
}

/* Reads what a list or mapping holds, up to its end. Recursion is bounded by PT_YAML_MAX_DEPTH. */
static pt_status read_items(reader *r, pt_yaml *parent, int depth)
{
    enum fy_event_type closing =
        parent->kind == PT_YAML_LIST ? FYET_SEQUENCE_END : FYET_MAPPING_END;

    if (depth > PT_YAML_MAX_DEPTH)
        return pt_yaml_fail(r->place, parent, "lists and mappings nest deeper than %d",
                            PT_YAML_MAX_DEPTH);
    for (;;) {
        enum fy_event_type type = FYET_NONE;
        pt_yaml *item = NULL;
        size_t end = 0;
        PT_TRY(next_event(r, &type, &end, &item));
        if (type == closing) {
            parent->end = parent->flow ? end : parent->end;
            return PT_OK;
        }
        if (!item)
            return syntax_error(r);
        bool is_key = parent->kind == PT_YAML_MAP && parent->n_items % 2 == 0;
        pt_status status = is_key ? check_key(r, parent, item) : PT_OK;
        if (status != PT_OK) {
            pt_yaml_free(item);
            return status;
        }
        PT_TRY(add_item(r, parent, item));
        if (item->kind != PT_YAML_SCALAR)
            PT_TRY(read_items(r, item, depth + 1));
        parent->end = item->end; /* the end event of an unbracketed list lies beyond it */
    }
}

/* Stream start, document start, one node, document end, stream end; nothing else. */
static pt_status read_stream(reader *r, pt_yaml **root)
{
    enum fy_event_type type = FYET_NONE;
    pt_yaml *none = NULL, at = {.line = 1, .column = 1};
    size_t end = 0;

    PT_TRY(next_event(r, &type, &end, &none));
    PT_TRY(next_event(r, &type, &end, &none));
    if (type == FYET_STREAM_END)
        return pt_yaml_fail(r->place, &at, "the file is empty; it must name 'input' and 'layers'");
    PT_TRY(next_event(r, &type, &end, root));
    if (!*root)
        return syntax_error(r);
    if ((*root)->kind != PT_YAML_SCALAR)
        PT_TRY(read_items(r, *root, 1));
    PT_TRY(next_event(r, &type, &end, &none)); /* the document's end */
    at.line = r->last.line + 1;
    PT_TRY(next_event(r, &type, &end, &none));
    if (type != FYET_STREAM_END)
        return pt_yaml_fail(r->place, &at,
                            "a second document ('---') begins after this line; a file holds one "
                            "model");
    return PT_OK;
}

pt_status pt_yaml_parse(pt_yaml_place place, const char *text, size_t bytes, pt_yaml **ret_root)
{
    reader r = {.place = place, .text = text};
    struct fy_diag_cfg diag_config;
    pt_yaml *root = NULL;
    pt_status status;

    PT_TRY(check_bytes(place, text, bytes));
    PT_TRY(check_pace(place, text, bytes));
    fy_diag_cfg_default(&diag_config);
    diag_config.fp = NULL; /* messages are collected, never printed */
    r.diag = fy_diag_create(&diag_config);
    if (!r.diag)
        return no_memory(&r);
    fy_diag_set_collect_errors(r.diag, true);
    struct fy_parse_cfg config = {.search_path = "",
                                  .flags = FYPCF_QUIET | FYPCF_COLLECT_DIAG |
                                           FYPCF_DEFAULT_VERSION_1_2 | FYPCF_JSON_NONE,
                                  .diag = r.diag};
    r.parser = fy_parser_create(&config);
    if (!r.parser || fy_parser_set_string(r.parser, text, bytes))
        status = no_memory(&r);
    else
        status = read_stream(&r, &root);
    if (r.parser)
        fy_parser_destroy(r.parser);
    fy_diag_destroy(r.diag);
    if (status != PT_OK) {
        pt_yaml_free(root);
        return status;
    }
    *ret_root = root;
    return PT_OK;
}
