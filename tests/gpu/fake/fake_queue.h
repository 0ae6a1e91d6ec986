/* The queues of the fake runtime: tasks, and what streams and events are. fake_queue.c runs them,
 * fake_streams.c is what asks. */
#ifndef PIPETRAIN_TESTS_FAKE_QUEUE_H
#define PIPETRAIN_TESTS_FAKE_QUEUE_H

#include "fake_inside.h"

typedef enum pt_fake_task_kind { COPY, FILL, KERNEL, RECORD, WAIT } pt_fake_task_kind;

typedef struct pt_fake_task {
    pt_fake_task_kind kind;
    void *dst;
    const void *src;
    size_t bytes;
    int value; /* of a fill */
    void (*run)(void *closure);
    void *closure;
    cudaEvent_t event;
    uint64_t serial; /* which recording of the event */
    struct pt_fake_task *next;
} pt_fake_task;

struct CUstream_st {
    pt_fake_task *first, **last;
    struct CUstream_st *next;
};

struct CUevent_st {
    uint64_t recorded, reached; /* counts of recordings */
    int tasks;                  /* in queues, naming it */
    bool destroyed;
    int64_t ns;
};

cudaError_t pt_fake_append(cudaStream_t s, pt_fake_task like);
/* Until the stream is empty or, unless NULL, the event reached. */
void pt_fake_run_until(struct CUstream_st *wanted, const struct CUevent_st *event);
/* Until the event is reached, if it is to be recorded at all. */
void pt_fake_run_to_event(const struct CUevent_st *event);
/* Time passes while somebody asks: some work is done, or none. */
void pt_fake_pass_time(void);
/* A stream that can be given work, and one that is empty and will get none. */
void pt_fake_queue_join(struct CUstream_st *s);
void pt_fake_queue_leave(struct CUstream_st *s);
/* Frees an event that is destroyed and that no task names. */
void pt_fake_forget_event(cudaEvent_t event);

#endif
