/* Small helpers on text: joining, nearest word, whole-file reads. */
#ifndef PIPETRAIN_TEXT_H
#define PIPETRAIN_TEXT_H

#include <stddef.h>

#include "pipetrain/status.h"

/* The name in names[n] nearest to `word` by edit distance, or NULL when none is near enough to be
 * what was meant (more than a third of its letters differ). */
const char *pt_text_nearest(const char *word, const char *const *names, int n);

/* printf into fresh memory; free() it. NULL when memory ran out. */
char *pt_text_format(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Reads a whole file into fresh memory with a closing 0 byte that ret_bytes does not count.
 * PT_EINPUT when it is missing, PT_EIO when it cannot be read. free() the result. */
pt_status pt_text_read_file(const char *path, char **ret_text, size_t *ret_bytes, pt_error *err);

#endif
