/* Blocks one after the other, their threads by turns.
 *
 * A thread runs until it waits at a barrier or a shuffle, in a fiber of its own (fibers.c). When
 * nobody can run, those whose meeting is complete go on (meet.c); if there are none, the kernel has
 * parted at a barrier, and that is reported.
 *
 * Odd blocks run their threads backwards, so that work which relies on the order of threads does
 * not pass. Shared memory is fresh for each block and holds NaNs. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "block.h"

enum { POISON = 0xff };

pt_emulate_block pt_emulate_now;
struct pt_emulate_place pt_emulate_place_now;

static char failure[160];

void pt_emulate_fail(const char *what)
{
    if (pt_emulate_now.failed)
        return;
    const struct pt_emulate_place *at = &pt_emulate_place_now;
    snprintf(failure, sizeof failure, "block (%u,%u,%u), thread (%u,%u,%u): %s", at->block.x,
             at->block.y, at->block.z, at->thread.x, at->thread.y, at->thread.z, what);
    pt_emulate_now.failed = true;
}

const char *pt_emulate_failure(void)
{
    if (!pt_emulate_now.failed)
        return NULL;
    pt_emulate_now.failed = false;
    return failure;
}

void *pt_emulate_shared(void)
{
    return pt_emulate_now.shared;
}

static bool all_over(void)
{
    for (int i = 0; i < pt_emulate_now.fibers; i++)
        if (!pt_emulate_fibers[i].over)
            return false;
    return true;
}

static bool start_fibers(void)
{
    while (pt_emulate_now.started < pt_emulate_now.threads && !pt_emulate_now.failed) {
        pt_emulate_fiber *f = &pt_emulate_fibers[pt_emulate_now.fibers];
        if (!pt_emulate_fiber_open(f)) {
            pt_emulate_fail("no memory for the stack of a thread");
            return false;
        }
        pt_emulate_now.fibers++;
        f->thread = pt_emulate_next_thread();
        pt_emulate_resume(f);
    }
    return true;
}

static void resume_released(void)
{
    for (int k = 0; k < pt_emulate_now.fibers && !pt_emulate_now.failed; k++) {
        pt_emulate_fiber *f = &pt_emulate_fibers[k];
        if (!f->over && pt_emulate_now.state[f->thread] == RUNS)
            pt_emulate_resume(f);
    }
}

static void run_block(void)
{
    pt_emulate_now.started = pt_emulate_now.fibers = 0;
    memset(pt_emulate_now.state, 0, sizeof pt_emulate_now.state);
    if (!start_fibers())
        return;
    while (!pt_emulate_now.failed && !all_over()) {
        if (pt_emulate_release())
            resume_released();
        else
            pt_emulate_report_parting();
    }
}

void pt_emulate_run(dim3 blocks, dim3 threads, size_t shared_bytes, void (*thread)(void *closure),
                    void *closure)
{
    struct pt_emulate_place *at = &pt_emulate_place_now;
    at->blocks = blocks;
    at->threads = threads;
    pt_emulate_now.thread = thread;
    pt_emulate_now.closure = closure;
    pt_emulate_now.threads = (int)(threads.x * threads.y * threads.z);
    for (unsigned z = 0; z < blocks.z; z++)
        for (unsigned y = 0; y < blocks.y; y++)
            for (unsigned x = 0; x < blocks.x && !pt_emulate_now.failed; x++) {
                at->block = (uint3){x, y, z};
                pt_emulate_now.backwards = (x ^ y ^ z) & 1;
                /* Of its own for each block, so that a sanitizer sees where it ends. */
                pt_emulate_now.shared = malloc(shared_bytes);
                if (shared_bytes > 0 && !pt_emulate_now.shared) {
                    pt_emulate_fail("no memory for a block's shared memory");
                    return;
                }
                if (shared_bytes > 0)
                    memset(pt_emulate_now.shared, POISON, shared_bytes);
                run_block();
                if (pt_emulate_now.failed)
                    pt_emulate_abandon_fibers();
                free(pt_emulate_now.shared);
                pt_emulate_now.shared = NULL;
            }
}
