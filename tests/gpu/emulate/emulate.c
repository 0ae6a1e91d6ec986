/* Blocks one after the other, their threads by turns.
 *
 * A thread runs until it waits at a barrier or a shuffle. As long as threads end without waiting,
 * one fiber (a stack with a saved place) carries them all; one that waits keeps its
 * fiber, and the next thread gets another. When nobody can run, those whose meeting is complete go
 * on; if there are none, the kernel has parted at a barrier, and that is reported.
 *
 * Odd blocks run their threads backwards, so that work which relies on the order of threads does
 * not pass. Shared memory is fresh for each block and holds NaNs. */
#include "emulate.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

/* Fibers begin by ucontext, and change by the compiler's setjmp, which asks the system for nothing.
 * Functions that change them are left alone by the address sanitizer, which is told by hand. */
#define CHANGES_FIBERS __attribute__((noinline, no_sanitize_address))

#if defined(__SANITIZE_ADDRESS__)
#define HAVE_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define HAVE_ASAN 1
#endif
#endif
#ifdef HAVE_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

enum { MOST_THREADS = 1024, LANES = 32, STACK = 256 << 10, GUARD = 4096, POISON = 0xff };

typedef enum thread_state { WAITING_TO_START, RUNS, MEETS_BLOCK, MEETS_WARP, ENDED } thread_state;

typedef struct fiber {
    void *place[5]; /* where it waits */
    bool made;      /* it has begun */
    char *stack;    /* above a page that faults */
    int thread;     /* the one it carries */
    bool waited, over;
    void *fake_stack; /* the address sanitizer's */
} fiber;

/* The block that runs. */
static struct {
    void (*thread)(void *closure);
    void *closure;
    int threads, started, fibers;
    bool backwards;
    thread_state state[MOST_THREADS];
    unsigned mask[MOST_THREADS];          /* of the warp's meeting */
    unsigned char given[MOST_THREADS][8]; /* to the other lanes */
    fiber *running;
    void *home[5]; /* where resume() waits */
    void *home_fake_stack;
    const void *home_stack;
    size_t home_bytes;
    void *shared;
    const char *kernel_failure;
} now;

static fiber fibers[MOST_THREADS];
static char failure[160];
static bool failed;

struct pt_emulate_place pt_emulate_place_now;

void pt_emulate_fail(const char *what)
{
    if (failed)
        return;
    const struct pt_emulate_place *at = &pt_emulate_place_now;
    snprintf(failure, sizeof failure, "block (%u,%u,%u), thread (%u,%u,%u): %s", at->block.x,
             at->block.y, at->block.z, at->thread.x, at->thread.y, at->thread.z, what);
    failed = true;
}

const char *pt_emulate_failure(void)
{
    if (!failed)
        return NULL;
    failed = false;
    return failure;
}

void *pt_emulate_shared(void)
{
    return now.shared;
}

/* ---- fibers -----------------------------------------------------------------------------------
 */

static void set_place(int thread)
{
    const dim3 t = pt_emulate_place_now.threads;
    const unsigned i = (unsigned)thread;
    pt_emulate_place_now.thread = (uint3){i % t.x, i / t.x % t.y, i / t.x / t.y};
}

CHANGES_FIBERS static void jump(void **place)
{
    __builtin_longjmp(place, 1);
}

static void carry(void);

/* Enters the fiber for the first time. */
CHANGES_FIBERS static void begin(fiber *f)
{
    ucontext_t context;
    getcontext(&context);
    context.uc_stack.ss_sp = f->stack;
    context.uc_stack.ss_size = STACK;
    context.uc_link = NULL;
    makecontext(&context, carry, 0);
    f->made = true;
    f->fake_stack = NULL;
    setcontext(&context);
}

/* Goes to the fiber and comes back when it waits or is over. */
CHANGES_FIBERS static void resume(fiber *f)
{
    now.running = f;
    set_place(f->thread);
    if (!__builtin_setjmp(now.home)) {
#ifdef HAVE_ASAN
        __sanitizer_start_switch_fiber(&now.home_fake_stack, f->stack, STACK);
#endif
        if (f->made)
            jump(f->place);
        begin(f);
    }
#ifdef HAVE_ASAN
    __sanitizer_finish_switch_fiber(now.home_fake_stack, NULL, NULL);
#endif
}

/* Leaves the fiber until it is resumed. */
CHANGES_FIBERS static void go_home(void)
{
    if (!__builtin_setjmp(now.running->place)) {
#ifdef HAVE_ASAN
        __sanitizer_start_switch_fiber(&now.running->fake_stack, now.home_stack, now.home_bytes);
#endif
        jump(now.home);
    }
#ifdef HAVE_ASAN
    __sanitizer_finish_switch_fiber(now.running->fake_stack, &now.home_stack, &now.home_bytes);
#endif
}

static int next_thread(void)
{
    int i = now.started++;
    return now.backwards ? now.threads - 1 - i : i;
}

/* Runs threads as long as the one that ended never waited. */
static void run_threads(fiber *f)
{
    for (;;) {
        now.state[f->thread] = RUNS;
        now.thread(now.closure);
        now.state[f->thread] = ENDED;
        if (f->waited || now.started == now.threads || failed)
            break;
        f->thread = next_thread();
        set_place(f->thread);
    }
    f->over = true;
}

/* A fiber's life: it serves one block after the other. */
static void carry(void)
{
#ifdef HAVE_ASAN
    __sanitizer_finish_switch_fiber(NULL, &now.home_stack, &now.home_bytes);
#endif
    for (;;) {
        run_threads(now.running);
        go_home();
    }
}

/* Ready for a thread. */
static bool fiber_open(fiber *f)
{
    if (!f->stack) {
        char *memory = mmap(NULL, GUARD + STACK, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (memory == MAP_FAILED || mprotect(memory, GUARD, PROT_NONE) != 0)
            return false;
        f->stack = memory + GUARD;
    }
    f->waited = f->over = false;
    return true;
}

/* After a failure: what a thread has on its stack is forgotten. */
static void abandon_fibers(void)
{
    for (int i = 0; i < now.fibers; i++) {
        if (fibers[i].over)
            continue;
        fibers[i].made = false;
#ifdef HAVE_ASAN
        __asan_unpoison_memory_region(fibers[i].stack, STACK);
#endif
    }
}

/* ---- meetings ---------------------------------------------------------------------------------
 */

static void wait_as(thread_state state)
{
    now.state[now.running->thread] = state;
    now.running->waited = true;
    go_home();
}

void pt_emulate_meet(void)
{
    wait_as(MEETS_BLOCK);
}

void pt_emulate_meet_warp(unsigned mask)
{
    const int thread = now.running->thread;
    if (!(mask >> thread % LANES & 1)) {
        pt_emulate_fail("a lane asks for a meeting of its warp whose mask leaves it out");
        wait_as(MEETS_WARP); /* nobody comes */
        return;
    }
    now.mask[thread] = mask;
    wait_as(MEETS_WARP);
}

void pt_emulate_exchange(unsigned mask, unsigned from, const void *mine, void *ret_theirs,
                         size_t bytes)
{
    const int thread = now.running->thread, other = thread - thread % LANES + (int)(from % LANES);
    memcpy(now.given[thread], mine, bytes);
    pt_emulate_meet_warp(mask);
    if (!(mask >> from % LANES & 1))
        pt_emulate_fail("a shuffle reads from a lane that its mask leaves out");
    memcpy(ret_theirs, now.given[other], bytes);
    pt_emulate_meet_warp(mask); /* nobody gives anew before all have taken */
}

/* Threads that all wait for each other at the block's barrier go on. */
static bool release_block(void)
{
    for (int t = 0; t < now.threads; t++)
        if (now.state[t] != MEETS_BLOCK)
            return false;
    for (int t = 0; t < now.threads; t++)
        now.state[t] = RUNS;
    return true;
}

static bool warp_is_met(int first, unsigned mask)
{
    for (int t = first; t < first + LANES && t < now.threads; t++)
        if (mask >> (t - first) & 1 && (now.state[t] != MEETS_WARP || now.mask[t] != mask))
            return false;
    return true;
}

static bool release_warp(int first)
{
    bool any = false;
    for (int t = first; t < first + LANES && t < now.threads; t++) {
        const unsigned mask = now.mask[t];
        if (now.state[t] != MEETS_WARP || !warp_is_met(first, mask))
            continue;
        for (int u = t; u < first + LANES && u < now.threads; u++)
            if (mask >> (u - first) & 1)
                now.state[u] = RUNS;
        any = true;
    }
    return any;
}

static bool release_warps(void)
{
    bool any = false;
    for (int first = 0; first < now.threads; first += LANES)
        any |= release_warp(first);
    return any;
}

/* Nobody can go on: who waits, and who has ended? */
static void report_parting(void)
{
    int waits = 0, ended = 0, first = 0;
    for (int t = now.threads - 1; t >= 0; t--) {
        if (now.state[t] == ENDED)
            ended++;
        else
            first = t, waits++;
    }
    char text[96];
    snprintf(text, sizeof text, "%d threads wait at a %s while %d have ended", waits,
             now.state[first] == MEETS_BLOCK ? "barrier" : "meeting of their warp", ended);
    set_place(first);
    pt_emulate_fail(text);
}

/* ---- blocks -----------------------------------------------------------------------------------
 */

static bool all_over(void)
{
    for (int i = 0; i < now.fibers; i++)
        if (!fibers[i].over)
            return false;
    return true;
}

static bool start_fibers(void)
{
    while (now.started < now.threads && !failed) {
        fiber *f = &fibers[now.fibers];
        if (!fiber_open(f)) {
            pt_emulate_fail("no memory for the stack of a thread");
            return false;
        }
        now.fibers++;
        f->thread = next_thread();
        resume(f);
    }
    return true;
}

static void resume_released(void)
{
    for (int k = 0; k < now.fibers && !failed; k++) {
        fiber *f = &fibers[k];
        if (!f->over && now.state[f->thread] == RUNS)
            resume(f);
    }
}

static void run_block(void)
{
    now.started = now.fibers = 0;
    memset(now.state, 0, sizeof now.state);
    if (!start_fibers())
        return;
    while (!failed && !all_over()) {
        if (release_block() || release_warps())
            resume_released();
        else
            report_parting();
    }
}

void pt_emulate_run(dim3 blocks, dim3 threads, size_t shared_bytes, void (*thread)(void *closure),
                    void *closure)
{
    struct pt_emulate_place *at = &pt_emulate_place_now;
    at->blocks = blocks;
    at->threads = threads;
    now.thread = thread;
    now.closure = closure;
    now.threads = (int)(threads.x * threads.y * threads.z);
    for (unsigned z = 0; z < blocks.z; z++)
        for (unsigned y = 0; y < blocks.y; y++)
            for (unsigned x = 0; x < blocks.x && !failed; x++) {
                at->block = (uint3){x, y, z};
                now.backwards = (x ^ y ^ z) & 1;
                /* Of its own for each block, so that a sanitizer sees where it ends. */
                now.shared = malloc(shared_bytes);
                if (shared_bytes > 0 && !now.shared) {
                    pt_emulate_fail("no memory for a block's shared memory");
                    return;
                }
                if (shared_bytes > 0)
                    memset(now.shared, POISON, shared_bytes);
                run_block();
                if (failed)
                    abandon_fibers();
                free(now.shared);
                now.shared = NULL;
            }
}
