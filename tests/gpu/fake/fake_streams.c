/* Fake streams and events: what cudart offers, as tasks of queues. */
#include <stdlib.h>

#include "fake_queue.h"
#include "tests/gpu/emulate/enqueue.h"

static int live_streams, live_events;

/* ---- asking --------------------------------------------------------------------------------- */

static bool direction_fits(enum cudaMemcpyKind kind, const void *dst, const void *src)
{
    bool to_device = pt_fake_is_device(dst), from_device = pt_fake_is_device(src);
    switch (kind) {
    case cudaMemcpyHostToHost:
        return !to_device && !from_device;
    case cudaMemcpyHostToDevice:
        return to_device && !from_device;
    case cudaMemcpyDeviceToHost:
        return !to_device && from_device;
    case cudaMemcpyDeviceToDevice:
        return to_device && from_device;
    default:
        return true;
    }
}

cudaError_t cudaMemcpyAsync(void *dst, const void *src, size_t bytes, enum cudaMemcpyKind kind,
                            cudaStream_t s)
{
    if (pt_fake_strikes(PT_FAKE_COPY))
        return cudaErrorInvalidValue;
    if (!direction_fits(kind, dst, src))
        return pt_fake_error(cudaErrorInvalidMemcpyDirection);
    pt_fake_check_messages(dst, bytes, /*writes=*/true);
    pt_fake_check_messages(src, bytes, /*writes=*/false);
    return pt_fake_append(s, (pt_fake_task){.kind = COPY, .dst = dst, .src = src, .bytes = bytes});
}

cudaError_t cudaMemsetAsync(void *at, int value, size_t bytes, cudaStream_t s)
{
    if (pt_fake_strikes(PT_FAKE_COPY))
        return cudaErrorInvalidValue;
    pt_fake_check_messages(at, bytes, /*writes=*/true);
    return pt_fake_append(s,
                          (pt_fake_task){.kind = FILL, .dst = at, .value = value, .bytes = bytes});
}

cudaError_t pt_fake_enqueue(cudaStream_t s, void (*run)(void *closure), void *closure)
{
    cudaError_t error = cudaErrorLaunchOutOfResources;
    if (!pt_fake_strikes(PT_FAKE_LAUNCH))
        error = pt_fake_append(s, (pt_fake_task){.kind = KERNEL, .run = run, .closure = closure});
    if (error != cudaSuccess)
        free(closure);
    return error;
}

/* ---- streams -------------------------------------------------------------------------------- */

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *ret_stream, unsigned flags)
{
    (void)flags;
    if (pt_fake_strikes(PT_FAKE_HANDLE))
        return cudaErrorMemoryAllocation;
    struct CUstream_st *s = calloc(1, sizeof *s);
    if (!s)
        return pt_fake_error(cudaErrorMemoryAllocation);
    pt_fake_queue_join(s);
    live_streams++;
    *ret_stream = s;
    return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t s)
{
    pt_fake_run_until(s, NULL); /* CUDA finishes what was asked */
    pt_fake_queue_leave(s);
    free(s);
    live_streams--;
    return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t s)
{
    pt_fake_run_until(s, NULL);
    return pt_fake_strikes(PT_FAKE_WAIT) ? cudaErrorLaunchFailure : cudaSuccess;
}

cudaError_t cudaDeviceSynchronize(void)
{
    pt_fake_run_all();
    return pt_fake_strikes(PT_FAKE_WAIT) ? cudaErrorLaunchFailure : cudaSuccess;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t s, cudaEvent_t event, unsigned flags)
{
    (void)flags;
    return pt_fake_append(s,
                          (pt_fake_task){.kind = WAIT, .event = event, .serial = event->recorded});
}

/* ---- events --------------------------------------------------------------------------------- */

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *ret_event, unsigned flags)
{
    (void)flags;
    if (pt_fake_strikes(PT_FAKE_HANDLE))
        return cudaErrorMemoryAllocation;
    cudaEvent_t event = calloc(1, sizeof *event);
    if (!event)
        return pt_fake_error(cudaErrorMemoryAllocation);
    live_events++;
    *ret_event = event;
    return cudaSuccess;
}

cudaError_t cudaEventCreate(cudaEvent_t *ret_event)
{
    return cudaEventCreateWithFlags(ret_event, cudaEventDefault);
}

cudaError_t cudaEventDestroy(cudaEvent_t event)
{
    event->destroyed = true;
    pt_fake_forget_event(event);
    live_events--;
    return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t s)
{
    return pt_fake_append(
        s, (pt_fake_task){.kind = RECORD, .event = event, .serial = ++event->recorded});
}

cudaError_t cudaEventSynchronize(cudaEvent_t event)
{
    pt_fake_run_to_event(event);
    return pt_fake_strikes(PT_FAKE_WAIT) ? cudaErrorLaunchFailure : cudaSuccess;
}

cudaError_t cudaEventQuery(cudaEvent_t event)
{
    pt_fake_pass_time();
    if (pt_fake_strikes(PT_FAKE_WAIT))
        return cudaErrorLaunchFailure;
    return event->reached >= event->recorded ? cudaSuccess : pt_fake_error(cudaErrorNotReady);
}

cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t start, cudaEvent_t end)
{
    if (start->reached == 0 || end->reached == 0 || end->reached < end->recorded)
        return pt_fake_error(cudaErrorNotReady);
    *ms = (float)((double)(end->ns - start->ns) * 1e-6);
    return cudaSuccess;
}

void pt_fake_count_streams(pt_fake_live *live)
{
    live->streams = live_streams;
    live->events = live_events;
}
