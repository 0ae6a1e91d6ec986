/* Lanes are streams that do not wait for each other; events are CUDA's, with times.
 *
 * A time is that of an origin, an event reached at a known time of pt_clock_ns, plus what CUDA
 * measures between the two. That is a float of milliseconds, fine to half a microsecond at first;
 * it loses digits with the minutes, and the device's clock leaves ours with the hours. So whoever
 * finishes all lanes sets a new origin. Events keep the one that they were recorded after, so that
 * a time is never asked backwards. */
#include "cuda.h"

#include <stdlib.h>

#include "pipetrain/clock.h"

static const int64_t ORIGIN_NS = 100000000; /* an origin younger than this is good enough */

struct pt_event {
    cudaEvent_t event;
    bool recorded;
    int origin; /* which it is counted from */
};

static pt_status set_origin(pt_cuda *cuda, int which, pt_error *err)
{
    struct pt_cuda_origin *origin = &cuda->origin[which];
    cudaStream_t compute = cuda->lane[PT_LANE_COMPUTE];
    PT_TRY(pt_cuda_check(cudaEventRecord(origin->event, compute), NULL, "cudaEventRecord", err));
    PT_TRY(pt_cuda_check(cudaStreamSynchronize(compute), NULL, "cudaStreamSynchronize", err));
    origin->ns = pt_clock_ns();
    cuda->origin_now = which;
    return PT_OK;
}

pt_status pt_cuda_lanes_open(pt_cuda *cuda, pt_error *err)
{
    for (int i = 0; i < PT_LANES; i++)
        PT_TRY(pt_cuda_check(cudaStreamCreateWithFlags(&cuda->lane[i], cudaStreamNonBlocking), NULL,
                             "cudaStreamCreateWithFlags", err));
    PT_TRY(pt_cuda_check(cudaEventCreateWithFlags(&cuda->zeroed, cudaEventDisableTiming), NULL,
                         "cudaEventCreateWithFlags", err));
    for (int i = 0; i < 2; i++)
        PT_TRY(
            pt_cuda_check(cudaEventCreate(&cuda->origin[i].event), NULL, "cudaEventCreate", err));
    return set_origin(cuda, 0, err);
}

void pt_cuda_lanes_close(pt_cuda *cuda)
{
    for (int i = 0; i < PT_LANES; i++)
        if (cuda->lane[i]) {
            (void)cudaStreamSynchronize(cuda->lane[i]);
            (void)cudaStreamDestroy(cuda->lane[i]);
        }
    if (cuda->zeroed)
        (void)cudaEventDestroy(cuda->zeroed);
    for (int i = 0; i < 2; i++)
        if (cuda->origin[i].event)
            (void)cudaEventDestroy(cuda->origin[i].event);
}

/* ---- copies --------------------------------------------------------------------------------- */

static pt_status enqueue(pt_backend *b, pt_lane lane, void *dst, const void *src, size_t bytes,
                         pt_error *err)
{
    if (bytes == 0 || dst == src)
        return PT_OK;
    return pt_cuda_check(
        cudaMemcpyAsync(dst, src, bytes, cudaMemcpyDefault, ((pt_cuda *)b)->lane[lane]), NULL,
        "cudaMemcpyAsync", err);
}

pt_status pt_cuda_upload(pt_backend *b, void *dev_dst, const void *src, size_t bytes, pt_error *err)
{
    PT_TRY(pt_cuda_finish(b, err));
    PT_TRY(enqueue(b, PT_LANE_COMPUTE, dev_dst, src, bytes, err));
    return pt_cuda_finish(b, err);
}

pt_status pt_cuda_download(pt_backend *b, void *dst, const void *dev_src, size_t bytes,
                           pt_error *err)
{
    return pt_cuda_upload(b, dst, dev_src, bytes, err);
}

pt_status pt_cuda_copy(pt_backend *b, void *dev_dst, const void *dev_src, size_t bytes,
                       pt_error *err)
{
    return enqueue(b, PT_LANE_COMPUTE, dev_dst, dev_src, bytes, err);
}

pt_status pt_cuda_copy_in(pt_backend *b, void *dev_dst, const void *host, size_t bytes,
                          pt_error *err)
{
    return enqueue(b, PT_LANE_IN, dev_dst, host, bytes, err);
}

pt_status pt_cuda_copy_out(pt_backend *b, void *host, const void *dev_src, size_t bytes,
                           pt_error *err)
{
    return enqueue(b, PT_LANE_OUT, host, dev_src, bytes, err);
}

/* ---- events --------------------------------------------------------------------------------- */

pt_status pt_cuda_event_new(pt_backend *b, pt_event **ret_event, pt_error *err)
{
    (void)b;
    pt_event *event = calloc(1, sizeof *event);
    if (!event)
        return pt_fail(err, PT_ENOMEM, "no memory for an event");
    pt_status status = pt_cuda_check(cudaEventCreate(&event->event), NULL, "cudaEventCreate", err);
    if (status != PT_OK) {
        free(event);
        return status;
    }
    *ret_event = event;
    return PT_OK;
}

void pt_cuda_event_free(pt_backend *b, pt_event *event)
{
    (void)b;
    if (!event)
        return;
    (void)cudaEventDestroy(event->event);
    free(event);
}

pt_status pt_cuda_event_record(pt_backend *b, pt_lane lane, pt_event *event, pt_error *err)
{
    const pt_cuda *cuda = (const pt_cuda *)b;
    PT_TRY(pt_cuda_check(cudaEventRecord(event->event, cuda->lane[lane]), NULL, "cudaEventRecord",
                         err));
    event->recorded = true;
    event->origin = cuda->origin_now;
    return PT_OK;
}

pt_status pt_cuda_event_wait(pt_backend *b, pt_lane lane, pt_event *event, pt_error *err)
{
    if (!event->recorded)
        return PT_OK;
    return pt_cuda_check(cudaStreamWaitEvent(((pt_cuda *)b)->lane[lane], event->event, 0), NULL,
                         "cudaStreamWaitEvent", err);
}

/* "Not ready" is an answer, but the runtime would hand it to the next launch as an error. */
pt_status pt_cuda_event_done(pt_backend *b, pt_event *event, bool *ret_done, pt_error *err)
{
    (void)b;
    cudaError_t answer = event->recorded ? cudaEventQuery(event->event) : cudaSuccess;
    if (answer == cudaErrorNotReady) {
        (void)cudaGetLastError();
        *ret_done = false;
        return PT_OK;
    }
    PT_TRY(pt_cuda_check(answer, NULL, "cudaEventQuery", err));
    *ret_done = true;
    return PT_OK;
}

int64_t pt_cuda_event_ns(pt_backend *b, pt_event *event)
{
    const pt_cuda *cuda = (const pt_cuda *)b;
    const struct pt_cuda_origin *origin = &cuda->origin[event->origin];
    float ms = 0;
    if (!event->recorded)
        return 0;
    if (cudaEventElapsedTime(&ms, origin->event, event->event) != cudaSuccess) {
        (void)cudaGetLastError();
        return 0;
    }
    return origin->ns + (int64_t)((double)ms * 1e6);
}

pt_status pt_cuda_finish(pt_backend *b, pt_error *err)
{
    pt_cuda *cuda = (pt_cuda *)b;
    for (int i = 0; i < PT_LANES; i++)
        PT_TRY(pt_cuda_check(cudaStreamSynchronize(cuda->lane[i]), NULL, "cudaStreamSynchronize",
                             err));
    bool young = pt_clock_ns() - cuda->origin[cuda->origin_now].ns < ORIGIN_NS;
    return young ? PT_OK : set_origin(cuda, 1 - cuda->origin_now, err);
}
