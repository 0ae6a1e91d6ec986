/* bench_kernels [--small | --quick]: how fast the kernels of kernels/ move bytes, against the rate
 * at which the device copies its own memory. Prints JSON, one object a line: the copy rate, then
 * each launch function for fp32 and bf16. Not a test of values: tests/ops is.
 *
 * What is timed is one launch between two events, again and again; the median counts. Buffers are
 * far larger than any cache. With --small they are tiny and odd, and everything runs once or twice:
 * for compute-sanitizer. Exit status: 0 done, 1 something failed, 2 bad usage, 77 no device. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench_cases.h"

enum { NO_DEVICE = 77, CHUNK = 1 << 22, MOST_ROUNDS = 64 };

typedef struct plan {
    const char *option;
    int64_t samples, side, channels, classes;
    int warm_up, rounds;
} plan;

static const plan plans[] = {
    {"", 512, 56, 64, 1000, 3, 21}, /* 103 million elements, 411 MB of fp32 */
    {"--quick", 512, 56, 64, 1000, 2, 7},
    /* Channels that fill no vector; more than one block of rows. */
    {"--small", 3, 9, 20, 10, 0, 2},
};

/* Prints what failed and ends the program: nothing is left to be done without the device. */
static void must(cudaError_t error, const char *what)
{
    if (error == cudaSuccess)
        return;
    fprintf(stderr, "bench_kernels: %s: %s\n", what, cudaGetErrorString(error));
    exit(1);
}

static void *device_memory(cudaStream_t s, size_t bytes)
{
    void *dev = NULL;
    must(cudaMalloc(&dev, bytes), "cudaMalloc");
    must(cudaMemsetAsync(dev, 0, bytes, s), "cudaMemsetAsync");
    return dev;
}

/* Waits: the caller may change or free what it sends. */
static void upload(cudaStream_t s, void *dev, const void *src, size_t bytes)
{
    must(cudaMemcpyAsync(dev, src, bytes, cudaMemcpyHostToDevice, s), "upload");
    must(cudaStreamSynchronize(s), "upload");
}

/* Evenly in -1 … 1, the same in every run. */
static void random_numbers(float *numbers, size_t n)
{
    uint32_t state = 1;
    for (size_t i = 0; i < n; i++) {
        state = state * 1664525U + 1013904223U; /* Numerical Recipes, section 7.1 */
        numbers[i] = (float)(state >> 8) / (float)(1 << 23) - 1;
    }
}

/* Fills device memory with random numbers of a type; a bf16 is the upper half of an fp32. */
static void fill(const rig *r, void *dev, size_t elements, const float *numbers)
{
    const size_t size = r->type == PT_CU_BF16 ? 2 : 4;
    uint16_t *halves = NULL;
    if (size == 2) {
        halves = malloc(CHUNK * sizeof *halves);
        if (!halves)
            exit(1);
        for (size_t i = 0; i < CHUNK; i++) {
            uint32_t bits;
            memcpy(&bits, &numbers[i], sizeof bits);
            halves[i] = (uint16_t)(bits >> 16);
        }
    }
    const void *src = halves ? (const void *)halves : numbers;
    for (size_t at = 0; at < elements; at += CHUNK) {
        const size_t n = elements - at < CHUNK ? elements - at : CHUNK;
        upload(r->stream, (char *)dev + at * size, src, n * size);
    }
    free(halves);
}

/* Small device arrays: numbers 0 … n-1, modulo `most`. */
static void *counted(cudaStream_t s, int64_t n, int64_t most)
{
    int32_t *host = malloc((size_t)n * sizeof *host);
    if (!host)
        exit(1);
    for (int64_t i = 0; i < n; i++)
        host[i] = (int32_t)(i % most);
    void *dev = device_memory(s, (size_t)n * sizeof *host);
    upload(s, dev, host, (size_t)n * sizeof *host);
    free(host);
    return dev;
}

static rig rig_open(const plan *p, const float *numbers)
{
    rig r = {.type = PT_CU_FP32,
             .samples = p->samples,
             .side = p->side,
             .channels = p->channels,
             .classes = p->classes};
    const size_t values = (size_t)rig_values(&r);
    must(cudaStreamCreateWithFlags(&r.stream, cudaStreamNonBlocking), "cudaStreamCreate");
    for (int i = 0; i < RIG_VALUES; i++)
        r.value[i] = device_memory(r.stream, values * sizeof(float));
    for (size_t i = 0; i < sizeof r.per_channel / sizeof r.per_channel[0]; i++) {
        r.per_channel[i] = device_memory(r.stream, 2 * (size_t)r.channels * sizeof(float));
        fill(&r, r.per_channel[i], 2 * (size_t)r.channels, numbers);
    }
    r.which = device_memory(r.stream, values * sizeof *r.which);
    r.label = counted(r.stream, rig_loss_samples(&r), r.classes);
    r.sample = counted(r.stream, r.samples, r.samples);
    r.partials = device_memory(r.stream, rig_partials_bytes(&r));
    r.result = device_memory(r.stream, sizeof(pt_loss_result));
    return r;
}

static void rig_close(rig *r)
{
    for (int i = 0; i < RIG_VALUES; i++)
        cudaFree(r->value[i]);
    for (size_t i = 0; i < sizeof r->per_channel / sizeof r->per_channel[0]; i++)
        cudaFree(r->per_channel[i]);
    void *const rest[] = {r->which, r->label, r->sample, r->partials, r->result};
    for (size_t i = 0; i < sizeof rest / sizeof rest[0]; i++)
        cudaFree(rest[i]);
    must(cudaStreamDestroy(r->stream), "cudaStreamDestroy");
}

/* Running variances are squares, whatever a kernel before left there. */
static void refill(const rig *r, const float *numbers)
{
    for (int i = 0; i < RIG_VALUES; i++)
        fill(r, r->value[i], (size_t)rig_values(r), numbers);
    float *variance = malloc((size_t)r->channels * sizeof *variance);
    if (!variance)
        exit(1);
    for (int64_t c = 0; c < r->channels; c++)
        variance[c] = numbers[c] * numbers[c];
    upload(r->stream, r->per_channel[2] + r->channels, variance,
           (size_t)r->channels * sizeof *variance);
    free(variance);
}

static cudaError_t copy(const rig *r, double *ret_bytes)
{
    const size_t bytes = (size_t)rig_values(r) * sizeof(float);
    *ret_bytes = 2 * (double)bytes; /* read and written */
    return cudaMemcpyAsync(r->value[1], r->value[0], bytes, cudaMemcpyDeviceToDevice, r->stream);
}

static int ascending(const void *a, const void *b)
{
    const float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* The median time of a launch in ms. */
static float time_of(const rig *r, const plan *p, const rig_case *c, double *ret_bytes)
{
    float ms[MOST_ROUNDS];
    cudaEvent_t begin, end;
    must(cudaEventCreate(&begin), "cudaEventCreate");
    must(cudaEventCreate(&end), "cudaEventCreate");
    for (int i = -p->warm_up; i < p->rounds; i++) {
        must(cudaEventRecord(begin, r->stream), "cudaEventRecord");
        must(c->launch(r, ret_bytes), c->name);
        must(cudaEventRecord(end, r->stream), "cudaEventRecord");
        must(cudaEventSynchronize(end), c->name);
        if (i >= 0)
            must(cudaEventElapsedTime(&ms[i], begin, end), "cudaEventElapsedTime");
    }
    must(cudaEventDestroy(begin), "cudaEventDestroy");
    must(cudaEventDestroy(end), "cudaEventDestroy");
    qsort(ms, (size_t)p->rounds, sizeof ms[0], ascending);
    return ms[p->rounds / 2];
}

static double rate(double bytes, float ms)
{
    return ms > 0 ? bytes / (double)ms / 1e6 : 0; /* GB/s: 10^9 bytes */
}

static void print_case(const rig *r, const plan *p, const rig_case *c, double copy_rate)
{
    double bytes = 0;
    const float ms = time_of(r, p, c, &bytes);
    const double achieved = rate(bytes, ms);
    printf("{\"kernel\": \"%s\", \"type\": \"%s\", \"bound\": \"%s\", \"bytes\": %.0f, "
           "\"us\": %.2f, \"gb_per_s\": %.1f, \"of_copy\": %.4f}\n",
           c->name, r->type == PT_CU_BF16 ? "bf16" : "fp32",
           c->bound == BOUND_MEMORY ? "memory" : "arithmetic", bytes, (double)ms * 1e3, achieved,
           copy_rate > 0 ? achieved / copy_rate : 0);
}

static void run(const plan *p)
{
    float *numbers = malloc(CHUNK * sizeof *numbers);
    if (!numbers)
        exit(1);
    random_numbers(numbers, CHUNK);
    rig r = rig_open(p, numbers);
    refill(&r, numbers);
    const rig_case copies = {"copy", BOUND_MEMORY, true, copy};
    double bytes = 0;
    const float ms = time_of(&r, p, &copies, &bytes);
    const double copy_rate = rate(bytes, ms);
    printf("{\"copy_gb_per_s\": %.1f, \"copy_bytes\": %.0f, \"copy_us\": %.2f}\n", copy_rate, bytes,
           (double)ms * 1e3);
    for (r.type = PT_CU_FP32; r.type <= PT_CU_BF16; r.type++) {
        refill(&r, numbers);
        for (int i = 0; i < rig_n_cases; i++)
            if (r.type == PT_CU_FP32 || !rig_cases[i].flat)
                print_case(&r, p, &rig_cases[i], copy_rate);
    }
    rig_close(&r);
    free(numbers);
}

int main(int argc, char **argv)
{
    const char *option = argc > 1 ? argv[1] : "";
    const plan *p = NULL;
    for (size_t i = 0; i < sizeof plans / sizeof plans[0]; i++)
        if (strcmp(plans[i].option, option) == 0)
            p = &plans[i];
    if (!p || argc > 2) {
        fprintf(stderr, "usage: bench_kernels [--quick | --small]\n");
        return 2;
    }
    int devices = 0;
    const cudaError_t error = cudaGetDeviceCount(&devices);
    if (error != cudaSuccess || devices < 1) {
        fprintf(stderr, "bench_kernels: no device: %s\n",
                error == cudaSuccess ? "none is visible" : cudaGetErrorString(error));
        return NO_DEVICE;
    }
    run(p);
    return 0;
}
