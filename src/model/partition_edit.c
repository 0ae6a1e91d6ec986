/* Writes a cut back into a partition file's text (--plan-out): one splice, so that comments and
 * layout of everything else stay as the user wrote them.
 *
 * Where the splice goes is read off the tree, which knows every node's bytes. YAML has more ways of
 * writing a mapping than this file knows; so the new text is parsed again, and refused when the cut
 * is not what was asked for. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "partition_internal.h"

enum { PIECE = 96 };

/* text[first … end) becomes before + entry + after. */
typedef struct splice {
    size_t first, end;
    char before[PIECE], after[PIECE];
} splice;

/* "4: [conv2, fc1, fc2]" */
static char *print_entry(const pt_graph *graph, const int *begins, int stages, bool with_key)
{
    char *text = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);

    if (!out)
        return NULL;
    if (with_key)
        fprintf(out, "%d: ", stages);
    fputc('[', out);
    for (int s = 1; s < stages; s++)
        fprintf(out, "%s%s", s > 1 ? ", " : "", graph->nodes[begins[s]].name);
    fputc(']', out);
    if (fclose(out) == 0)
        return text;
    free(text);
    return NULL;
}

/* The end of the line that holds byte `at`. */
static size_t line_end(const char *text, size_t at)
{
    while (text[at] && text[at] != '\n')
        at++;
    return at;
}

/* A line break and the indentation of a block mapping's keys. Very deep indentation is cut; the
 * check of the result then refuses it. */
static void new_line(char piece[PIECE], int column)
{
    snprintf(piece, PIECE, "\n%*s", column - 1, "");
}

/* Index of the last entry for fewer stages, or -1. */
static int entry_before(const pt_yaml *cuts, int stages)
{
    int last = -1;
    for (int i = 0; i < cuts->n_items; i += 2)
        if (atoi(cuts->items[i]->text) < stages)
            last = i;
    return last;
}

static const pt_yaml *entry_of(const pt_yaml *cuts, int stages)
{
    for (int i = 0; i < cuts->n_items; i += 2)
        if (atoi(cuts->items[i]->text) == stages)
            return cuts->items[i + 1];
    return NULL;
}

static splice into_block_mapping(const char *text, const pt_yaml *cuts, int stages)
{
    splice s = {0};
    int before = entry_before(cuts, stages), column = cuts->items[0]->column;

    if (before >= 0) {
        s.first = line_end(text, cuts->items[before + 1]->end);
        new_line(s.before, column);
    } else {
        s.first = cuts->items[0]->first;
        new_line(s.after, column);
    }
    s.end = s.first;
    return s;
}

static splice into_flow_mapping(const pt_yaml *cuts)
{
    splice s = {0};
    size_t n = (size_t)cuts->n_items;

    s.first = s.end = n ? cuts->items[n - 1]->end : cuts->first + 1;
    snprintf(s.before, sizeof s.before, "%s", n ? ", " : "");
    return s;
}

static splice find_place(const char *text, const pt_yaml *root, int stages, bool *ret_with_key)
{
    splice s = {0};
    const pt_yaml *key = pt_yaml_key(root, "cuts"), *cuts = pt_yaml_get(root, "cuts");
    const pt_yaml *old = cuts && cuts->kind == PT_YAML_MAP ? entry_of(cuts, stages) : NULL;

    *ret_with_key = !old;
    if (old) {
        s.first = old->first;
        s.end = old->end;
    } else if (cuts && cuts->kind == PT_YAML_MAP) {
        return cuts->flow ? into_flow_mapping(cuts) : into_block_mapping(text, cuts, stages);
    } else if (cuts) {
        s.first = s.end = line_end(text, key->end);
        new_line(s.before, key->column + 2);
    } else {
        size_t bytes = strlen(text);
        s.first = s.end = bytes;
        snprintf(s.before, sizeof s.before, "%s%*scuts:\n%*s",
                 bytes && text[bytes - 1] == '\n' ? "" : "\n", root->column - 1, "",
                 root->column + 1, "");
        snprintf(s.after, sizeof s.after, "\n");
    }
    return s;
}

static bool has_cut(const pt_partition *partition, const int *begins, int stages)
{
    const pt_cut *cut = pt_partition_cut(partition, stages);
    return cut && !memcmp(cut->begins, begins, sizeof *begins * (size_t)stages);
}

static pt_status check_result(const pt_partition *partition, const char *text, const int *begins,
                              int stages, pt_error *err)
{
    pt_partition *again = NULL;
    pt_status status = pt_partition_parse(partition->file, text, strlen(text), &again, err);
    bool good = status == PT_OK && has_cut(again, begins, stages);

    pt_partition_free(again);
    if (status == PT_ENOMEM)
        return status;
    if (good)
        return PT_OK;
    return pt_fail(err, PT_EINPUT,
                   "%s: the cut into %d stages cannot be put into this layout; write 'cuts:' as a "
                   "line of its own and below it '  %d: [layer, …]'",
                   partition->file, stages, stages);
}

static pt_status check_begins(const pt_partition *partition, const int *begins, int stages,
                              pt_error *err)
{
    bool good = stages >= 1 && begins[0] == 0;

    for (int s = 1; good && s < stages; s++)
        good = begins[s] > begins[s - 1] && begins[s] < partition->graph.n_nodes;
    if (good)
        return PT_OK;
    return pt_fail(err, PT_EINPUT, "%s: stages must begin at 0 and then ascend", partition->file);
}

pt_status pt_partition_with_cut(const pt_partition *partition, const char *text, const int *begins,
                                int stages, char **ret_text, pt_error *err)
{
    pt_yaml_place place = {partition->file, err};
    pt_yaml *root = NULL;
    bool with_key;

    PT_TRY(check_begins(partition, begins, stages, err));
    PT_TRY(pt_yaml_parse(place, text, strlen(text), &root));
    pt_status status = pt_yaml_want(place, root, PT_YAML_MAP, "a partition file");
    if (status != PT_OK) {
        pt_yaml_free(root);
        return status;
    }
    splice s = find_place(text, root, stages, &with_key);
    pt_yaml_free(root);
    char *entry = print_entry(&partition->graph, begins, stages, with_key), *result = NULL;
    if (!entry || asprintf(&result, "%.*s%s%s%s%s", (int)s.first, text, s.before, entry, s.after,
                           text + s.end) < 0) {
        free(entry);
        return pt_fail(err, PT_ENOMEM, "%s: no memory for the new text", partition->file);
    }
    free(entry);
    status = check_result(partition, result, begins, stages, err);
    if (status != PT_OK) {
        free(result);
        return status;
    }
    *ret_text = result;
    return PT_OK;
}
