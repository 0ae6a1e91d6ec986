/* Small helpers on text: nearest word, lists of names, numbers, formatting, whole-file reads. */
#ifndef PIPETRAIN_TEXT_H
#define PIPETRAIN_TEXT_H

#include <stdbool.h>
#include <stddef.h>

#include "pipetrain/status.h"

/* The name in names[n] nearest to `word` by edit distance, or NULL when none is near enough to be
 * what was meant (more than a third of its letters differ). */
const char *pt_text_nearest(const char *word, const char *const *names, int n);

/* Writes "a, b, c" into text[size], cut to fit, and returns `text`. */
const char *pt_text_join(const char *const *names, int n, char *text, size_t size);

/* Reads all of `text` as one decimal number; infinite when a double cannot hold it. False when it
 * is none: blanks, hexadecimal numbers, "inf" and "nan" are not taken. */
bool pt_text_number(const char *text, double *ret_value);

/* printf into fresh memory; free() it. NULL when memory ran out. */
char *pt_text_format(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Reads a whole file into fresh memory with a closing 0 byte that ret_bytes does not count.
 * PT_EINPUT when it is missing, PT_EIO when it cannot be read. free() the result. */
pt_status pt_text_read_file(const char *path, char **ret_text, size_t *ret_bytes, pt_error *err);

#endif
