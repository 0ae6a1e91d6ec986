/* The block that runs: what its fibers (fibers.c), its meetings (meet.c) and its turns (emulate.c)
 * share. */
#ifndef PIPETRAIN_TESTS_GPU_BLOCK_H
#define PIPETRAIN_TESTS_GPU_BLOCK_H

#include <stdbool.h>

#include "emulate.h"

enum { PT_EMULATE_MOST_THREADS = 1024, PT_EMULATE_LANES = 32 };

typedef enum pt_emulate_state {
    WAITING_TO_START,
    RUNS,
    MEETS_BLOCK,
    MEETS_WARP,
    ENDED
} pt_emulate_state;

/* A stack with a saved place. */
typedef struct pt_emulate_fiber {
    void *place[5]; /* where it waits */
    bool made;      /* it has begun */
    char *stack;    /* above a page that faults */
    int thread;     /* the one it carries */
    bool waited, over;
    void *fake_stack; /* the address sanitizer's */
} pt_emulate_fiber;

typedef struct pt_emulate_block {
    void (*thread)(void *closure);
    void *closure;
    int threads, started, fibers;
    bool backwards, failed;
    pt_emulate_state state[PT_EMULATE_MOST_THREADS];
    pt_emulate_fiber *running;
    void *shared;
} pt_emulate_block;

extern pt_emulate_block pt_emulate_now;
extern pt_emulate_fiber pt_emulate_fibers[PT_EMULATE_MOST_THREADS];

/* ---- fibers.c ---- */

/* threadIdx of a thread that runs, or of which something is said. */
void pt_emulate_set_place(int thread);
/* The thread that starts next, of those that have not. */
int pt_emulate_next_thread(void);
/* Makes it ready for a thread; false: no memory. */
bool pt_emulate_fiber_open(pt_emulate_fiber *f);
/* Goes to the fiber and comes back when it waits or is over. */
void pt_emulate_resume(pt_emulate_fiber *f);
/* Leaves the running fiber until it is resumed. */
void pt_emulate_go_home(void);
/* After a failure: what threads have on their stacks is forgotten. */
void pt_emulate_abandon_fibers(void);

/* ---- meet.c ---- */

/* Threads whose meeting is complete go on; false: there are none. */
bool pt_emulate_release(void);
/* Nobody can go on: says who waits, and who has ended. */
void pt_emulate_report_parting(void);

#endif
