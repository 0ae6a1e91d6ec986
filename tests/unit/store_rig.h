/* A directory of checkpoints, the folder of the test: its writer, and what must always hold of it.
 */
#ifndef PIPETRAIN_TESTS_STORE_RIG_H
#define PIPETRAIN_TESTS_STORE_RIG_H

#include <stdbool.h>
#include <stdint.h>

#include "folder.h"
#include "pipetrain/store.h"

enum { FILES = 2, KEEP = 2, FIRST = 3 }; /* FIRST: the step that is to come */

/* Empties the folder and writes the steps before FIRST; `best` names step 1. */
void begin_anew(void);

/* As ranks and rank 0 do it, one after the other. */
pt_status write_step(int64_t step, bool *ret_committed, pt_error *err);
void must_write(int64_t step);
void call_best(int64_t step);

/* The step's files are what its manifest says. */
bool is_good(int64_t step);
/* The steps that the files of these names hold; -1: there is none. */
int64_t latest(void);
int64_t best(void);
/* All committed steps are good, `latest` is one of them, and `best`; the newest of them. */
int64_t judge(void);

#endif
