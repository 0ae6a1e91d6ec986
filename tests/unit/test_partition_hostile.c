/* Texts that are no YAML of ours, or too much of it: refused at once, with their place. */
#include <stdio.h>
#include <stdlib.h>

#include "partition_texts.h"
#include "pipetrain/text.h"

static void test_text_errors(void **state)
{
    (void)state;
    refuse("name: a\ninput: {shape: [4\n", "3:1", "flow sequence");
    refuse("name: &x a\n", "1:10", "anchors");
    refuse("name: a\ninput: *x\n", "2:9", "anchors");
    refuse("name: !!str a\n", "1:13", "tags");
    refuse(HEAD CONV TAIL "---\nname: b\n", "7:1", "second document");
    refuse("? [a, b]\n: c\n", "1:3", "a key must be a word");
    refuse("name: a\nb\xff: c\n", "2:2", "byte 0xff is not text");
    refuse("name: \xc0\x80\n", "1:7", "byte 0xc0 is not text");
    refuse("name: \xed\xa0\x80\n", "1:7", "byte 0xed is not text");
    refuse("name: \x01\n", "1:7", "byte 0x01 is not text");
    refuse("name: \"a\\0b\"\n", "1:7", "\\0");
    refuse("a: {a: {a: {a: {a: {a: {a: {a: {a: {a: {a: {a: {a: {a: {a: {a: {a: 1}}}}}}}}}}}}}}}}\n",
           "1:64", "nest deeper than 16");
    /* A zero byte ends no text: the length counts. */
    pt_error err = {0};
    pt_partition *p = NULL;
    assert_fails(pt_partition_parse("t.yaml", "name: a\0b\n", 10, &p, &err), PT_EINPUT, "0x00",
                 &err);
}

static void test_large_texts_are_refused(void **state)
{
    (void)state;
    pt_error err = {0};
    pt_partition *p = NULL;
    size_t bytes = (2u << 20) + 1;
    char *text = malloc(bytes);

    assert_non_null(text);
    memset(text, ' ', bytes);
    assert_fails(pt_partition_parse("t.yaml", text, bytes, &p, &err), PT_EINPUT, "at most", &err);
    /* A name as long as the file, in a message that is not. */
    memset(text, 'x', bytes);
    memcpy(text, "name: ", 6);
    assert_fails(pt_partition_parse("t.yaml", text, 100000, &p, &err), PT_EINPUT, "no name", &err);
    assert_true(strlen(err.text) < 300);
    free(text);
}

/* What libfyaml would take an hour for. */
static void test_slow_texts_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *begin, *where;
        char rest;
        const char *words;
    } cases[] = {
        {"%", "1:1", 'a', "directives (%) are not used"},
        {"a: b\n%", "2:1", '%', "directives"},
        {"a: b\r%", "1:1", '%', "directives"},
        {"\xef\xbb\xbf%", "1:1", 'a', "directives"},
        {"- ", "1:1002", ' ', "more than 1000 blanks"},
        {"? ", "1:1002", '\t', "more than 1000 blanks"},
        {"é:", "1:1003", ' ', "more than 1000 blanks"},
        {"a: >\n ", "1000:1", '\n', "more than 1000 blanks"},
        {"a: >\n ", "2:1", '\r', "more than 1000 blanks"},
    };
    size_t bytes = 2u << 20;
    char *text = calloc(bytes + 1, 1);
    assert_non_null(text);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        size_t begin = strlen(cases[i].begin);
        memset(text, cases[i].rest, bytes);
        memcpy(text, cases[i].begin, begin);
        refuse(text, cases[i].where, cases[i].words);
    }
    /* A thousand are not too many, and a % elsewhere is a letter. */
    memset(text, ' ', 1000);
    strcpy(text + 1000, "a%: b\n");
    refuse(text, "1:1001", "unknown key 'a%'");
    free(text);
}

/* Nested repeats multiply: a short file must not ask for more than a machine holds. */
static void test_layers_are_bounded(void **state)
{
    (void)state;
    refuse("name: t\ninput: {shape: [4]}\nblocks:\n"
           "  a: {layers: [{name: 'x{i}', kind: relu, repeat: 10000}]}\n"
           "  b: {layers: [{name: 'y{i}', block: a, repeat: 10000}]}\n"
           "layers:\n  - {name: 'z{i}', block: b, repeat: 10000}\n",
           "4:16", "more than 100000 layers");
    refuse("name: t\ninput: {shape: [4]}\nblocks:\n"
           "  a: {layers: [{name: 'x{i}', kind: relu, when: off, repeat: 10000}]}\n"
           "  b: {layers: [{name: 'y{i}', block: a, repeat: 10000}]}\n"
           "layers:\n  - {name: 'z{i}', block: b, repeat: 10000}\n",
           "4:16", "more than 100000 layers");
}

/* before, then "w0" + each, "w1" + each … n times, then after; free() the text. */
static char *words(int n, const char *before, const char *each, const char *after)
{
    char *text = NULL;
    size_t bytes;
    FILE *out = open_memstream(&text, &bytes);

    assert_non_null(out);
    fputs(before, out);
    for (int i = 0; i < n; i++)
        fprintf(out, "w%d%s", i, each);
    fputs(after, out);
    assert_int_equal(fclose(out), 0);
    return text;
}

static void test_counts_are_bounded(void **state)
{
    (void)state;
    enum { VALUES = 500001 };
    char name[202] = {0}, *values = calloc(2 * VALUES + 2, 1);
    char *parameters = words(33, "name: t\ninput: {shape: [4]}\nblocks:\n  a: {parameters: [", ", ",
                             "], layers: [1]}\nlayers: [{name: r, block: a}]\n");
    char *settings = words(65, HEAD CONV TAIL "train: {milestones: [", ", ", "]}\n");
    char *keys = words(1001, "{", ": 1, ", "}\n");

    memset(name, 'n', sizeof name - 1);
    char *named = pt_text_format(HEAD "  - {name: %s, kind: relu}\n" TAIL, name);
    assert_non_null(values);
    values[0] = '[';
    for (int i = 0; i < VALUES; i++)
        memcpy(values + 1 + 2 * i, "1,", 2);
    refuse(named, "5:12", "has more than 200 letters");
    refuse(parameters, "4:19", "at most 32 parameters, not 33");
    refuse(settings, "8:21", "a list of at most 64");
    refuse(keys, "1:8892", "more than 1000 keys in one mapping");
    refuse(values, "1:1000000", "more than 500000 values in one file");
    free(named);
    free(parameters);
    free(settings);
    free(keys);
    free(values);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_text_errors),
        cmocka_unit_test(test_large_texts_are_refused),
        cmocka_unit_test(test_slow_texts_are_refused),
        cmocka_unit_test(test_layers_are_bounded),
        cmocka_unit_test(test_counts_are_bounded),
    };
    return cmocka_run_group_tests_name("partition_hostile", tests, NULL, NULL);
}
