/* Fibers: a thread of a block may wait in the midst of its work, and each that does keeps a stack
 * of its own. As long as threads end without waiting, one fiber carries them all.
 *
 * Fibers begin by ucontext, and change by the compiler's setjmp, which asks the system for nothing.
 * Functions that change them are left alone by the address sanitizer, which is told by hand. */
#include <sys/mman.h>
#include <ucontext.h>

#include "block.h"

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

enum { STACK = 256 << 10, GUARD = 4096 };

pt_emulate_fiber pt_emulate_fibers[PT_EMULATE_MOST_THREADS];

/* Where pt_emulate_resume waits. */
static struct {
    void *place[5];
    void *fake_stack;
    const void *stack;
    size_t bytes;
} home;

void pt_emulate_set_place(int thread)
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
CHANGES_FIBERS static void begin(pt_emulate_fiber *f)
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

CHANGES_FIBERS void pt_emulate_resume(pt_emulate_fiber *f)
{
    pt_emulate_now.running = f;
    pt_emulate_set_place(f->thread);
    if (!__builtin_setjmp(home.place)) {
#ifdef HAVE_ASAN
        __sanitizer_start_switch_fiber(&home.fake_stack, f->stack, STACK);
#endif
        if (f->made)
            jump(f->place);
        begin(f);
    }
#ifdef HAVE_ASAN
    __sanitizer_finish_switch_fiber(home.fake_stack, NULL, NULL);
#endif
}

CHANGES_FIBERS void pt_emulate_go_home(void)
{
    if (!__builtin_setjmp(pt_emulate_now.running->place)) {
#ifdef HAVE_ASAN
        __sanitizer_start_switch_fiber(&pt_emulate_now.running->fake_stack, home.stack, home.bytes);
#endif
        jump(home.place);
    }
#ifdef HAVE_ASAN
    __sanitizer_finish_switch_fiber(pt_emulate_now.running->fake_stack, &home.stack, &home.bytes);
#endif
}

int pt_emulate_next_thread(void)
{
    int i = pt_emulate_now.started++;
    return pt_emulate_now.backwards ? pt_emulate_now.threads - 1 - i : i;
}

/* Runs threads as long as the one that ended never waited. */
static void run_threads(pt_emulate_fiber *f)
{
    for (;;) {
        pt_emulate_now.state[f->thread] = RUNS;
        pt_emulate_now.thread(pt_emulate_now.closure);
        pt_emulate_now.state[f->thread] = ENDED;
        if (f->waited || pt_emulate_now.started == pt_emulate_now.threads || pt_emulate_now.failed)
            break;
        f->thread = pt_emulate_next_thread();
        pt_emulate_set_place(f->thread);
    }
    f->over = true;
}

/* A fiber's life: it serves one block after the other. */
static void carry(void)
{
#ifdef HAVE_ASAN
    __sanitizer_finish_switch_fiber(NULL, &home.stack, &home.bytes);
#endif
    for (;;) {
        run_threads(pt_emulate_now.running);
        pt_emulate_go_home();
    }
}

bool pt_emulate_fiber_open(pt_emulate_fiber *f)
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

void pt_emulate_abandon_fibers(void)
{
    for (int i = 0; i < pt_emulate_now.fibers; i++) {
        if (pt_emulate_fibers[i].over)
            continue;
        pt_emulate_fibers[i].made = false;
#ifdef HAVE_ASAN
        __asan_unpoison_memory_region(pt_emulate_fibers[i].stack, STACK);
#endif
    }
}
