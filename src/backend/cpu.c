/* What every CPU backend does alike: memory that counts itself, copies, events and the thread pool.
 *
 * Calls on a CPU finish before they return, so lanes are one and the same, an event is reached as
 * soon as it is recorded, and `finish` has nothing to wait for. The only OpenMP loop of these parts
 * is the one in pt_cpu_parallel: whatever runs in it writes its own elements only, so that no
 * result depends on the number of threads. */
#include "cpu.h"

#include <stdlib.h>
#include <string.h>

#include "pipetrain/arena.h"
#include "pipetrain/clock.h"

/* Stands before every block of dev_new, so that dev_free knows how much goes. */
typedef union block_head {
    size_t bytes;
    char pad[PT_ALIGN];
} block_head;

struct pt_event {
    int64_t recorded_ns; /* 0: never */
};

/* Zeroed memory with a head; NULL when there is none to be had. */
static void *block_new(size_t bytes)
{
    if (bytes > SIZE_MAX - 2 * PT_ALIGN)
        return NULL;
    size_t rounded = (bytes + PT_ALIGN - 1) / PT_ALIGN * PT_ALIGN;
    block_head *head = aligned_alloc(PT_ALIGN, sizeof *head + rounded);
    if (!head)
        return NULL;
    memset(head, 0, sizeof *head + rounded);
    head->bytes = bytes;
    return head + 1;
}

static size_t block_bytes(const void *block)
{
    return ((const block_head *)block - 1)->bytes;
}

static void block_free(void *block)
{
    if (block)
        free((block_head *)block - 1);
}

pt_status pt_cpu_check_config(const pt_backend_config *config, const char *name, pt_error *err)
{
    if (config->precision == PT_FP32)
        return PT_OK;
    return pt_fail(err, PT_EINPUT,
                   "--precision %s: the backend %s runs on CPUs and computes in fp32 only; write "
                   "--precision fp32, or choose a backend that runs on GPUs",
                   pt_precision_names[config->precision], name);
}

/* Nobody can say what a machine gives until it is asked, so nothing is refused here. */
pt_status pt_cpu_reserve(pt_backend *b, size_t bytes, size_t *ret_free, pt_error *err)
{
    (void)b;
    (void)bytes;
    (void)err;
    if (ret_free)
        *ret_free = SIZE_MAX;
    return PT_OK;
}

pt_status pt_cpu_dev_new(pt_backend *b, size_t bytes, void **ret_dev, pt_error *err)
{
    pt_cpu *cpu = (pt_cpu *)b;
    void *block = block_new(bytes);
    if (!block)
        return pt_fail(err, PT_ENOMEM,
                       "%zu bytes for tensors are more than this machine gives (%zu are in use); "
                       "use a smaller micro-batch or more stages",
                       bytes, cpu->bytes_now);
    cpu->bytes_now += bytes;
    if (cpu->bytes_now > cpu->bytes_peak)
        cpu->bytes_peak = cpu->bytes_now;
    *ret_dev = block;
    return PT_OK;
}

void pt_cpu_dev_free(pt_backend *b, void *dev)
{
    if (!dev)
        return;
    ((pt_cpu *)b)->bytes_now -= block_bytes(dev);
    block_free(dev);
}

pt_status pt_cpu_host_new(pt_backend *b, size_t bytes, void **ret_host, pt_error *err)
{
    (void)b;
    void *block = block_new(bytes);
    if (!block)
        return pt_fail(err, PT_ENOMEM,
                       "%zu bytes for transfers are more than this machine gives; use a smaller "
                       "micro-batch",
                       bytes);
    *ret_host = block;
    return PT_OK;
}

void pt_cpu_host_free(pt_backend *b, void *host)
{
    (void)b;
    block_free(host);
}

pt_status pt_cpu_copy(pt_backend *b, void *dst, const void *src, size_t bytes, pt_error *err)
{
    (void)b;
    (void)err;
    if (bytes > 0 && dst != src)
        memmove(dst, src, bytes);
    return PT_OK;
}

pt_status pt_cpu_event_new(pt_backend *b, pt_event **ret_event, pt_error *err)
{
    (void)b;
    pt_event *event = calloc(1, sizeof *event);
    if (!event)
        return pt_fail(err, PT_ENOMEM, "no memory for an event");
    *ret_event = event;
    return PT_OK;
}

void pt_cpu_event_free(pt_backend *b, pt_event *event)
{
    (void)b;
    free(event);
}

pt_status pt_cpu_event_record(pt_backend *b, pt_lane lane, pt_event *event, pt_error *err)
{
    (void)b;
    (void)lane;
    (void)err;
    event->recorded_ns = pt_clock_ns();
    return PT_OK;
}

pt_status pt_cpu_event_wait(pt_backend *b, pt_lane lane, pt_event *event, pt_error *err)
{
    (void)b;
    (void)lane;
    (void)event;
    (void)err;
    return PT_OK;
}

pt_status pt_cpu_event_done(pt_backend *b, pt_event *event, bool *ret_done, pt_error *err)
{
    (void)b;
    (void)event;
    (void)err;
    *ret_done = true;
    return PT_OK;
}

int64_t pt_cpu_event_ns(pt_backend *b, pt_event *event)
{
    (void)b;
    return event->recorded_ns;
}

pt_status pt_cpu_finish(pt_backend *b, pt_error *err)
{
    (void)b;
    (void)err;
    return PT_OK;
}

void pt_cpu_memory(const pt_backend *b, size_t *ret_now, size_t *ret_peak)
{
    const pt_cpu *cpu = (const pt_cpu *)b;
    *ret_now = cpu->bytes_now;
    *ret_peak = cpu->bytes_peak;
}

void pt_cpu_parallel(const pt_cpu *cpu, int n, void (*body)(void *context, int i), void *context)
{
#ifdef _OPENMP
    int threads = cpu->config.threads < n ? cpu->config.threads : n;
    if (threads > 1) {
#pragma omp parallel for num_threads(threads) schedule(static)
        for (int i = 0; i < n; i++)
            body(context, i);
        return;
    }
#else
    (void)cpu;
#endif
    for (int i = 0; i < n; i++)
        body(context, i);
}
