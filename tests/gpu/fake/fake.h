/* A CUDA runtime without a GPU: what the cuda backend calls of cudart, declared by the real
 * headers.
 *
 * Streams are queues. Work runs only when somebody asks for it (synchronize, query, free), in an
 * order between streams that a seed chooses and that respects event edges and nothing else: now as
 * late as possible, now as early, now at random. Copies read their source when they run. Kernels
 * come through pt_fake_enqueue.
 *
 * Device memory is memory of its own, poisoned when it is allocated and again when it is freed. It
 * can be touched only while a queue runs: a host that dereferences a device pointer crashes.
 *
 * Calls fail on request. Misuse that CUDA leaves undefined (use after free, a second free, writing
 * behind a block) ends the process with a message.
 *
 * For whole programs, from the environment:
 *   PT_FAKE_SEED=7             the order
 *   PT_FAKE_FAIL=copy:12       the 12th copy fails (allocation, handle, copy, launch, wait);
 *                              copy:12@1: on rank 1 only
 *   PT_FAKE_DEVICES=2          how many devices there are; 0@1: for rank 1, the others have one
 *   PT_FAKE_MEMORY=1000000     bytes of each
 *   PT_FAKE_SHARED=FILE        a page of zeros through which processes share the devices' memory;
 *                              holds, for each device, bytes in use and the most that ever were
 *   PT_FAKE_MPI=yes            MPI takes device memory and says so; silent: does not say so;
 *                              spoil:3 or spoil:3@1: says so, but the
 *                              third such message (on rank 1 only) comes out wrong
 *   PT_FAKE_REPORT=1           says at the end what was not released, and then exits with 99 */
#ifndef PIPETRAIN_TESTS_FAKE_H
#define PIPETRAIN_TESTS_FAKE_H

#include <cuda_runtime_api.h>
#include <stdbool.h>
#include <stdint.h>

typedef enum pt_fake_fault {
    PT_FAKE_ALLOCATION, /* device or pinned memory: cudaErrorMemoryAllocation */
    PT_FAKE_HANDLE,     /* a stream or an event: cudaErrorMemoryAllocation */
    PT_FAKE_COPY,       /* asking for a copy or a fill: cudaErrorInvalidValue */
    PT_FAKE_LAUNCH,     /* asking for a kernel: cudaErrorLaunchOutOfResources */
    PT_FAKE_WAIT,       /* synchronize, query: cudaErrorLaunchFailure, as if a kernel had failed */
    PT_FAKE_FAULTS
} pt_fake_fault;

typedef struct pt_fake_live {
    int device_blocks, host_blocks, streams, events;
} pt_fake_live;

/* Starts anew: this order, no faults, counts of calls at 0, one device of 8 GiB. What is alive
 * stays alive. */
void pt_fake_reset(uint64_t seed);
/* The k-th call of that sort from now on fails, k >= 1; the ones behind it do not. */
void pt_fake_fail(pt_fake_fault what, int64_t k);
/* Calls of that sort since the last reset. */
int64_t pt_fake_calls(pt_fake_fault what);
/* devices: how many; error: what counting them says. */
void pt_fake_set_devices(int devices, cudaError_t error);
void pt_fake_set_driver(int version); /* 0: there is none */
void pt_fake_set_memory(size_t bytes);
/* So far the device's clock is ahead of ours from now on. */
void pt_fake_set_clock(int64_t ahead_ns);
/* What was made and not yet released. */
pt_fake_live pt_fake_count_live(void);
bool pt_fake_is_device(const void *at);

#endif
