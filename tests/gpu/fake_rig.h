/* The cuda backend on the fake runtime (fake/fake.h), opened anew for each test. */
#ifndef PIPETRAIN_TESTS_FAKE_RIG_H
#define PIPETRAIN_TESTS_FAKE_RIG_H

#include <stddef.h>
#include <stdint.h>

#include "pipetrain/backend.h"

/* How many orders of the adversary are tried. */
enum { SEEDS = 64 };

/* Everything that was told to the fake runtime is forgotten; `seed` chooses the order. */
pt_backend *open_cuda(uint64_t seed);
void close_cuda(pt_backend *b); /* and sees that nothing is left */
void assert_nothing_left(void); /* of memory, streams and events */

void *device(pt_backend *b, size_t bytes); /* dev_free() it */
void *pinned(pt_backend *b, size_t bytes); /* host_free() it */

#endif
