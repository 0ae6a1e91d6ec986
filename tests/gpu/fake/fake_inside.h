/* What the files of the fake runtime share. */
#ifndef PIPETRAIN_TESTS_FAKE_INSIDE_H
#define PIPETRAIN_TESTS_FAKE_INSIDE_H

#include "fake.h"

/* Counts a call; whether it must fail. */
bool pt_fake_strikes(pt_fake_fault what);
/* "copy:12@1" is meant for rank 1 alone. */
bool pt_fake_is_meant(const char *fault);
/* Remembers an error as the runtime does, and returns it. */
cudaError_t pt_fake_error(cudaError_t error);
/* A number below n, from the seed. */
uint32_t pt_fake_below(uint32_t n);
/* Ends the process: the program under test did what CUDA leaves undefined. */
_Noreturn void pt_fake_misuse(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Device memory may be touched between the two. They nest. */
void pt_fake_open(void);
void pt_fake_shut(void);
/* `bytes` at `at` are of one live block, or no device memory at all. */
void pt_fake_check_range(const void *at, size_t bytes);
size_t pt_fake_memory_bytes(void);
int pt_fake_device(void);
int64_t pt_fake_clock_ahead(void); /* ns */

/* Runs all that was asked for. */
void pt_fake_run_all(void);
/* Will a copy or fill that was asked for write there (or read)? */
bool pt_fake_is_asked(const void *at, size_t bytes, bool or_reads);

/* Messages under way: see fake_messages.c. */
typedef struct pt_fake_message pt_fake_message;
pt_fake_message *pt_fake_message_begin(const void *at, size_t bytes, bool arrives);
void pt_fake_message_end(pt_fake_message *message);
/* A copy is asked to write, or read, there: no message may mind. */
void pt_fake_check_messages(const void *at, size_t bytes, bool writes);

void pt_fake_count_memory(pt_fake_live *live);
void pt_fake_count_streams(pt_fake_live *live);

#endif
