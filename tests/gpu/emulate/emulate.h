/* CUDA's language on a CPU: included by force before a .cu file that g++ compiles as C++.
 *
 * A block's threads take turns on one CPU (emulate.c). Differences from a GPU that matter: one
 * thread runs at a time, so races show only as far as turns are taken in changing order; all
 * shared memory is dynamic (kernels/start.cuh). */
#ifndef PIPETRAIN_TESTS_GPU_EMULATE_H
#define PIPETRAIN_TESTS_GPU_EMULATE_H

#include <cuda_runtime_api.h>

#include "enqueue.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Where the running thread stands. */
struct pt_emulate_place {
    uint3 thread, block;
    dim3 threads, blocks;
};

extern struct pt_emulate_place pt_emulate_place_now;

/* Runs thread(closure) for every thread of every block, and stops at the first failure. */
void pt_emulate_run(dim3 blocks, dim3 threads, size_t shared_bytes, void (*thread)(void *closure),
                    void *closure);

/* ---- for a running thread ---- */

void *pt_emulate_shared(void);
/* All threads of the block meet. */
void pt_emulate_meet(void);
/* The lanes of `mask` meet. */
void pt_emulate_meet_warp(unsigned mask);
/* They meet, and each gets what lane `from` of its warp gave: `bytes` <= 8. */
void pt_emulate_exchange(unsigned mask, unsigned from, const void *mine, void *ret_theirs,
                         size_t bytes);
/* Reports a failure of the kernel; the launch stops when the thread takes its next turn or ends. */
void pt_emulate_fail(const char *what);

#ifdef __cplusplus
}

#include <math.h>
#include <new>
#include <stdlib.h>
#include <string.h>

#define PT_EMULATED

#undef __global__
#undef __device__
#undef __host__
#undef __shared__
#undef __constant__
#undef __launch_bounds__
#undef __align__
#undef __grid_constant__
#define __grid_constant__
#define __global__
#define __device__
#define __host__
#define __launch_bounds__(...)
#define __align__(n)  __attribute__((aligned(n)))
#define __shared__    pt_emulation_knows_dynamic_shared_memory_only
#define PT_WARP_LANES 32

#define threadIdx (pt_emulate_place_now.thread)
#define blockIdx  (pt_emulate_place_now.block)
#define blockDim  (pt_emulate_place_now.threads)
#define gridDim   (pt_emulate_place_now.blocks)

static inline void __syncthreads()
{
    pt_emulate_meet();
}

static inline void __syncwarp(unsigned mask = 0xffffffffu)
{
    pt_emulate_meet_warp(mask);
}

static inline unsigned pt_emulate_lane()
{
    return (threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z)) % PT_WARP_LANES;
}

/* `from` lies in this lane's own group of `width` lanes, or the lane keeps what it has. */
template <typename T> static inline T pt_emulate_take(unsigned mask, T mine, unsigned from)
{
    static_assert(sizeof(T) <= 8, "a shuffle moves up to 8 bytes");
    T theirs;
    pt_emulate_exchange(mask, from, &mine, &theirs, sizeof mine);
    return theirs;
}

template <typename T>
static inline T __shfl_sync(unsigned mask, T mine, int from, int width = PT_WARP_LANES)
{
    const unsigned lane = pt_emulate_lane(), group = lane - lane % (unsigned)width;
    return pt_emulate_take(mask, mine, group + (unsigned)from % (unsigned)width);
}

template <typename T>
static inline T __shfl_xor_sync(unsigned mask, T mine, int bits, int width = PT_WARP_LANES)
{
    const unsigned lane = pt_emulate_lane(), other = lane ^ (unsigned)bits;
    return pt_emulate_take(mask, mine,
                           other / (unsigned)width > lane / (unsigned)width ? lane : other);
}

template <typename T>
static inline T __shfl_down_sync(unsigned mask, T mine, unsigned by, int width = PT_WARP_LANES)
{
    const unsigned lane = pt_emulate_lane(), other = lane + by;
    return pt_emulate_take(mask, mine,
                           other / (unsigned)width == lane / (unsigned)width ? other : lane);
}

template <typename T>
static inline T __shfl_up_sync(unsigned mask, T mine, unsigned by, int width = PT_WARP_LANES)
{
    const unsigned lane = pt_emulate_lane();
    return pt_emulate_take(mask, mine, lane % (unsigned)width >= by ? lane - by : lane);
}

/* One launch: a copy of its arguments (inside `thread`) and its extent. */
template <typename Thread> struct pt_emulate_launch {
    dim3 blocks, threads;
    size_t shared_bytes;
    Thread thread;

    static void run_thread(void *thread)
    {
        (*(Thread *)thread)();
    }

    static void run(void *self)
    {
        pt_emulate_launch *l = (pt_emulate_launch *)self;
        pt_emulate_run(l->blocks, l->threads, l->shared_bytes, run_thread, &l->thread);
    }
};

template <typename Thread>
static inline cudaError_t pt_emulate_start(dim3 blocks, dim3 threads, size_t shared_bytes,
                                           cudaStream_t s, const Thread &thread)
{
    static_assert(__is_trivially_copyable(Thread), "the runtime frees launches with free()");
    /* What a GPU would refuse. */
    if (blocks.x == 0 || blocks.y == 0 || blocks.z == 0 || threads.x == 0 || blocks.y > 65535 ||
        blocks.z > 65535 || threads.x * threads.y * threads.z > 1024 || shared_bytes > 48 << 10)
        return cudaErrorInvalidConfiguration;
    void *memory = malloc(sizeof(pt_emulate_launch<Thread>));
    if (!memory)
        return cudaErrorMemoryAllocation;
    new (memory) pt_emulate_launch<Thread>{blocks, threads, shared_bytes, thread};
    return pt_fake_enqueue(s, pt_emulate_launch<Thread>::run, memory);
}
#endif

#endif
