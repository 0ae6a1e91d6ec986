/* Offsets for buffers whose lifetimes are known in advance.
 *
 * A stage runs the same ops in the same order for every micro-batch, so the lifetime of every
 * temporary is an interval of op indices. Two buffers whose intervals do not meet may share bytes.
 */
#ifndef PIPETRAIN_ARENA_H
#define PIPETRAIN_ARENA_H

#include <stddef.h>

enum { PT_ALIGN = 64 }; /* bytes: a cache line, and what AVX-512 loads like */

typedef struct pt_arena_item {
    size_t bytes;    /* 0 takes no room */
    int first, last; /* inclusive interval of time in which the bytes must stay */
    size_t offset;   /* out: multiple of PT_ALIGN */
} pt_arena_item;

/* Sets every offset (greedy by size, lowest free gap) and returns the total bytes. */
size_t pt_arena_plan(pt_arena_item *items, int n);

size_t pt_align_up(size_t bytes);

#endif
