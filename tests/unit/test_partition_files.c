/* Partition files as a whole: cuts written back, the files that ship, and a few thousand broken
 * ones. */
#include "partition_texts.h"

#include <stdio.h>
#include <stdlib.h>

#include "pipetrain/rng.h"
#include "pipetrain/text.h"

/* ---- cuts written back ---- */

/* Puts the cut [2] into `text` and expects `expected`. */
static void rewrite(const char *text, int stages, const char *expected)
{
    pt_error err = {0};
    char *result = NULL;
    static const int begins[] = {0, 1, 2};
    pt_partition *p = parse(text);

    assert_ok(pt_partition_with_cut(p, text, begins, stages, &result, &err), &err);
    assert_string_equal(result, expected);
    free(result);
    pt_partition_free(p);
}

static void test_cuts_are_written_back(void **state)
{
    (void)state;
#define BODY HEAD CONV TAIL
    rewrite(BODY, 2, BODY "cuts:\n  2: [flat]\n");
    rewrite(BODY "cuts:\ninit: he\n", 2, BODY "cuts:\n  2: [flat]\ninit: he\n");
    rewrite(BODY "cuts: # none\n", 3, BODY "cuts: # none\n  3: [flat, fc]\n");
    rewrite(BODY "cuts: {}\n", 2, BODY "cuts: {2: [flat]}\n");
    rewrite(BODY "cuts: {2: [fc]} # x\n", 2, BODY "cuts: {2: [flat]} # x\n");
    rewrite(BODY "cuts: {2: [fc]}\n", 3, BODY "cuts: {2: [fc], 3: [flat, fc]}\n");
    rewrite(BODY "cuts:\n  2: [fc] # ours\n# end\n", 3,
            BODY "cuts:\n  2: [fc] # ours\n  3: [flat, fc]\n# end\n");
    rewrite(BODY "cuts:\n  2: [fc] # ours\n", 2, BODY "cuts:\n  2: [flat] # ours\n");
    rewrite(BODY "cuts:\n    3: [flat, fc]\ninit: he", 2,
            BODY "cuts:\n    2: [flat]\n    3: [flat, fc]\ninit: he");
    rewrite(BODY "cuts:\n  2:\n    - \"fc\"\n  3: # c\n    - flat\n    - fc\n", 2,
            BODY "cuts:\n  2:\n    [flat]\n  3: # c\n    - flat\n    - fc\n");
    rewrite(BODY "cuts:\n  2: [fc]", 3, BODY "cuts:\n  2: [fc]\n  3: [flat, fc]");
    rewrite("name: a\ninput: {shape: [9]}\nlayers:\n"
            "- {name: a, kind: relu}\n- {name: b, kind: relu}\n- {name: c, kind: relu}",
            2,
            "name: a\ninput: {shape: [9]}\nlayers:\n"
            "- {name: a, kind: relu}\n- {name: b, kind: relu}\n- {name: c, kind: relu}\n"
            "cuts:\n  2: [b]\n");
    rewrite(BODY "cuts:\r\n  2: [fc]\r\n", 2, BODY "cuts:\r\n  2: [flat]\r\n");
#undef BODY
}

static void test_cuts_that_cannot_be_written_back(void **state)
{
    (void)state;
    pt_error err = {0};
    char *result = NULL;
    const char *flow = "{name: a, input: {shape: [4]}, layers: [{name: x, kind: relu}, "
                       "{name: y, kind: relu}]}";
    pt_partition *p = parse(flow);

    assert_fails(pt_partition_with_cut(p, flow, (const int[]){0, 1}, 2, &result, &err), PT_EINPUT,
                 "cannot be put into this layout", &err);
    assert_fails(pt_partition_with_cut(p, flow, (const int[]){0, 2}, 2, &result, &err), PT_EINPUT,
                 "ascend", &err);
    assert_null(result);
    pt_partition_free(p);
}

/* ---- the files that ship ---- */

typedef struct shipped {
    const char *name;
    int64_t parameters;
    int nodes;
} shipped;

/* Parameters as PyTorch's models of the same layers count them. */
static const shipped files[] = {
    {"mlp", 784 * 256 + 256 + 256 * 128 + 128 + 128 * 10 + 10, 6},
    {"lenet5", 61706, 12},
    {"lenet5-to-last", 61706 + (6 + 16 + 120) * 10, 15},
    {"wrn-10-1", 77562, 28},
    {"wrn-16-4", 2748602, 50},
    {"resnet-18", 11173962 - 2 * 64 * 9, 67}, /* one input channel, not three */
    {"resnet-32", 464154 + 2752 - 2 * 16 * 9, 114},
    {"vgg-11", 9231114 - 2 * 64 * 9, 31},
};

enum { N_FILES = sizeof files / sizeof files[0] };

static char *read_shipped(const char *name)
{
    pt_error err = {0};
    const char *root = getenv("PT_SOURCE_ROOT");
    char path[4096], *text = NULL;
    size_t bytes = 0;

    snprintf(path, sizeof path, "%s/partitions/%s.yaml", root ? root : ".", name);
    assert_ok(pt_text_read_file(path, &text, &bytes, &err), &err);
    return text;
}

static void test_shipped_files(void **state)
{
    (void)state;
    for (int f = 0; f < N_FILES; f++) {
        char *text = read_shipped(files[f].name);
        pt_partition *p = parse(text);
        assert_string_equal(p->name, files[f].name);
        assert_int_equal(p->graph.n_nodes, files[f].nodes);
        assert_int_equal(pt_graph_parameters(&p->graph, 0, p->graph.n_nodes), files[f].parameters);
        assert_int_equal(p->graph.loss.shape.dims[0], 10);
        for (int stages = 1; stages <= 4; stages *= 2) {
            pt_error err = {0};
            pt_stage_spec *specs = NULL;
            const pt_cut *cut = pt_partition_cut(p, stages);
            assert_non_null(cut);
            assert_ok(pt_stage_specs_new(&p->graph, cut->begins, stages, &specs, &err), &err);
            pt_stage_specs_free(specs, stages);
        }
        assert_true(p->n_settings > 0);
        assert_string_equal(p->settings[0].key, "dataset");
        pt_partition_free(p);
        free(text);
    }
}

/* ---- examples in texts ---- */

/* The lines of a source file from `first` to before the one that begins with `last`, each without
 * its first `margin` bytes. */
static char *read_example(const char *file, const char *first, const char *last, size_t margin)
{
    pt_error err = {0};
    const char *root = getenv("PT_SOURCE_ROOT");
    char path[4096], *text = NULL, *example = NULL;
    size_t bytes = 0;

    snprintf(path, sizeof path, "%s/%s", root ? root : ".", file);
    assert_ok(pt_text_read_file(path, &text, &bytes, &err), &err);
    FILE *out = open_memstream(&example, &bytes);
    char *at = strstr(text, first);
    assert_non_null(out);
    assert_non_null(at);
    for (char *line = strtok(at, "\n"); line; line = strtok(NULL, "\n")) {
        if (!strncmp(line, last, strlen(last)))
            break;
        fprintf(out, "%s\n", strlen(line) > margin ? line + margin : "");
    }
    assert_int_equal(fclose(out), 0);
    free(text);
    return example;
}

static void test_examples_are_sound(void **state)
{
    (void)state;
    char *header =
        read_example("include/pipetrain/partition.h", " *   name: tiny", " * Unknown", 5);
    char *readme = read_example("README.md", "name: tiny", "```", 0);

    pt_partition_free(parse(header));
    pt_partition_free(parse(readme));
    free(header);
    free(readme);
}

/* ---- broken files ---- */

static const char *const shards[] = {"{",   "}",   "[",  "]",   ": ",  "- ",     "\n", "  ",  "$",
                                     "@",   "\"",  "'",  "#",   "&a ", "*a ",    "|",  ">",   "!",
                                     "---", "{i}", "-1", "1e9", ",",   "repeat", "?",  "%",   "\t",
                                     "...", "0",   "$k", "\\",  "\r",  "block",  "99", "off", "<<"};

enum { N_SHARDS = sizeof shards / sizeof shards[0], MUTANTS = 6000, MOST_BYTES = 8192 };

/* Removes, copies, overwrites or inserts a few bytes; returns the new length. */
static size_t mutate(pt_rng *rng, char *text, size_t n)
{
    for (uint32_t k = 1 + pt_rng_below(rng, 4); k > 0 && n > 0; k--) {
        size_t at = pt_rng_below(rng, (uint32_t)n), from = pt_rng_below(rng, (uint32_t)n);
        size_t span = 1 + pt_rng_below(rng, 24);
        const char *shard = shards[pt_rng_below(rng, N_SHARDS)];
        size_t length = strlen(shard);
        span = span > n - at ? n - at : span;
        switch (pt_rng_below(rng, 4)) {
        case 0:
            memmove(text + at, text + at + span, n - at - span);
            n -= span;
            break;
        case 1:
            span = span > n - from ? n - from : span;
            memmove(text + at, text + from, span);
            break;
        case 2:
            text[at] = (char)pt_rng_below(rng, 256);
            break;
        default:
            if (n + length > MOST_BYTES)
                break;
            memmove(text + at + length, text + at, n - at);
            memcpy(text + at, shard, length);
            n += length;
        }
    }
    return n;
}

/* Whatever the bytes: an answer, and a message with a place when it is no. Cuts that can be written
 * back must then be there. */
static void try_mutant(pt_rng *rng, const char *base, int *accepted)
{
    pt_error err = {0};
    pt_partition *p = NULL;
    char buffer[MOST_BYTES], *rewritten = NULL;
    size_t n = strlen(base);

    assert_true(n <= MOST_BYTES);
    memcpy(buffer, base, n);
    n = mutate(rng, buffer, n);
    char *text = malloc(n + 1); /* just as long as the text, so that overruns are seen */
    assert_non_null(text);
    memcpy(text, buffer, n);
    text[n] = 0;
    pt_status status = pt_partition_parse("m.yaml", text, n, &p, &err);
    if (status == PT_OK) {
        (*accepted)++;
        if (p->graph.n_nodes >= 2 &&
            pt_partition_with_cut(p, text, (const int[]){0, 1}, 2, &rewritten, &err) == PT_OK)
            free(rewritten);
    } else {
        assert_int_equal(status, PT_EINPUT);
        assert_int_equal(strncmp(err.text, "m.yaml:", 7), 0);
    }
    pt_partition_free(p);
    free(text);
}

static void test_mutants_do_no_harm(void **state)
{
    (void)state;
    static const char *const names[] = {"lenet5", "resnet-32", "wrn-16-4"};
    char *bases[4] = {strdup(RESIDUAL "  - {name: \"g.{i}\", block: res, repeat: 3, out: 4, "
                                      "k: [3, 1], project: off}\n" TAIL "cuts: {2: [g.1]}\n")};
    int accepted = 0;
    pt_rng rng;

    for (int i = 0; i < 3; i++)
        bases[i + 1] = read_shipped(names[i]);
    for (uint64_t m = 0; m < MUTANTS; m++) {
        pt_rng_init(&rng, 11, PT_RNG_CHECK, m, 1);
        try_mutant(&rng, bases[m % 4], &accepted);
    }
    /* Mutations in comments do nothing, most others do: both ends were reached. */
    assert_true(accepted > MUTANTS / 100);
    assert_true(accepted < MUTANTS / 2);
    for (int i = 0; i < 4; i++)
        free(bases[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cuts_are_written_back),
        cmocka_unit_test(test_cuts_that_cannot_be_written_back),
        cmocka_unit_test(test_shipped_files),
        cmocka_unit_test(test_examples_are_sound),
        cmocka_unit_test(test_mutants_do_no_harm),
    };
    return cmocka_run_group_tests_name("partition_files", tests, NULL, NULL);
}
