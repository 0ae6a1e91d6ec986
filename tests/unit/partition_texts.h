/* Texts of partition files, for tests that add to them, and what becomes of them. */
#ifndef PIPETRAIN_TESTS_PARTITION_TEXTS_H
#define PIPETRAIN_TESTS_PARTITION_TEXTS_H

#include <stdio.h>
#include <string.h>

#include "suite.h"

#include "pipetrain/partition.h"

/* A sound file up to its layers (4 lines). */
#define HEAD                                                                                       \
    "name: tiny\n"                                                                                 \
    "input: {shape: [2, 8, 8]}\n"                                                                  \
    "# a remark\n"                                                                                 \
    "layers:\n"
#define CONV "  - {name: conv, kind: conv2d, features: 4, kernel: 3, padding: 1}\n"
#define TAIL                                                                                       \
    "  - {name: flat, kind: flatten}\n"                                                            \
    "  - {name: fc, kind: linear, features: 3}\n"

/* One with a block, up to its layers. */
#define RESIDUAL                                                                                   \
    "name: tiny\n"                                                                                 \
    "input: {shape: [4, 8, 8]}\n"                                                                  \
    "blocks:\n"                                                                                    \
    "  res:\n"                                                                                     \
    "    parameters: [out, k, project]\n"                                                          \
    "    layers:\n"                                                                                \
    "      - {name: conv1, kind: conv2d, features: $out, kernel: $k, padding: [1, 0]}\n"           \
    "      - {name: skip, kind: conv2d, features: $out, kernel: 1, inputs: [\"@\"], when: "        \
    "$project}\n"                                                                                  \
    "      - {name: sum, kind: add, inputs: [conv1, skip]}\n"                                      \
    "layers:\n"

/* Of a sound text. */
static inline pt_partition *parse(const char *text)
{
    pt_error err = {0};
    pt_partition *p = NULL;

    assert_ok(pt_partition_parse("t.yaml", text, strlen(text), &p, &err), &err);
    return p;
}

/* The text is refused with a message that begins with "t.yaml:" and `where` and holds `words`. */
static inline void refuse(const char *text, const char *where, const char *words)
{
    pt_error err = {0};
    pt_partition *p = NULL;
    char begin[64];

    snprintf(begin, sizeof begin, "t.yaml:%s: ", where);
    assert_fails(pt_partition_parse("t.yaml", text, strlen(text), &p, &err), PT_EINPUT, words,
                 &err);
    if (strncmp(err.text, begin, strlen(begin)) != 0)
        fail_msg("message \"%s\" does not begin with \"%s\"", err.text, begin);
    assert_null(p);
}

#endif
