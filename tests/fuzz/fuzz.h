/* What fuzz targets share. A target is one parser and what is done with what it gave; a file of the
 * target's name defines fuzz_one(). Two programs are made of it: one with libFuzzer, which looks
 * for bytes that break it, and one that gives it every file of its corpus once (replay.c). */
#ifndef PIPETRAIN_TESTS_FUZZ_H
#define PIPETRAIN_TESTS_FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "pipetrain/dataset.h"
#include "pipetrain/status.h"

/* True: the bytes were accepted. What it must not do is crash, leak, hang, take memory out of
 * proportion to `bytes`, or break a promise. */
bool fuzz_one(const uint8_t *data, size_t bytes);

/* A promise that holds for all bytes; where it does not, the process ends, so that whoever runs it
 * keeps the bytes. */
#define FUZZ_PROMISE(holds)                                                                        \
    do {                                                                                           \
        if (!(holds))                                                                              \
            fuzz_broken(__FILE__, __LINE__, #holds);                                               \
    } while (0)
_Noreturn void fuzz_broken(const char *file, int line, const char *promise);

/* What a call said that read hostile input: true for PT_OK. A refusal must be PT_EINPUT, since no
 * system failed, and its message must hold `where` and no control characters but ends of lines:
 * bytes of a file may not speak to a terminal. */
bool fuzz_accepts(pt_status status, const pt_error *err, const char *where);

/* The path of a file of that name with these bytes, in a folder that is removed at the end. Paths
 * are good until the next four calls. */
const char *fuzz_file(const char *name, const uint8_t *data, size_t bytes);
/* The folder itself. */
const char *fuzz_folder(void);

/* Opens a dataset in the four ways of want_inputs and want_answers, which must agree, and with the
 * first sample alone; reads every sample. True: accepted by who wants both. */
bool fuzz_dataset(pt_dataset_spec spec);

#endif
