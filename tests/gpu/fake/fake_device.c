/* The fake device: what it is, which calls fail, which errors there were. */
#include <cudnn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fake_inside.h"

enum { REPORT_STATUS = 99 };
static const size_t default_memory = (size_t)8 << 30;

static struct {
    uint64_t random;
    int64_t calls[PT_FAKE_FAULTS], strike[PT_FAKE_FAULTS]; /* 0: none */
    int devices, driver, device;
    cudaError_t devices_error, last_error;
    size_t memory;
    int64_t ahead_ns;
} state;

static const struct {
    const char *name;
    cudaError_t error;
} faults[PT_FAKE_FAULTS] = {
    [PT_FAKE_ALLOCATION] = {"allocation", cudaErrorMemoryAllocation},
    [PT_FAKE_HANDLE] = {"handle", cudaErrorMemoryAllocation},
    [PT_FAKE_COPY] = {"copy", cudaErrorInvalidValue},
    [PT_FAKE_LAUNCH] = {"launch", cudaErrorLaunchOutOfResources},
    [PT_FAKE_WAIT] = {"wait", cudaErrorLaunchFailure},
};

/* ---- what tests ask for --------------------------------------------------------------------- */

void pt_fake_reset(uint64_t seed)
{
    memset(&state, 0, sizeof state);
    state.random = seed;
    state.devices = 1;
    state.driver = CUDART_VERSION;
    state.memory = default_memory;
}

void pt_fake_fail(pt_fake_fault what, int64_t k)
{
    state.strike[what] = state.calls[what] + k;
}

int64_t pt_fake_calls(pt_fake_fault what)
{
    return state.calls[what];
}

void pt_fake_set_devices(int devices, cudaError_t error)
{
    state.devices = devices;
    state.devices_error = error;
}

void pt_fake_set_driver(int version)
{
    state.driver = version;
}

void pt_fake_set_memory(size_t bytes)
{
    state.memory = bytes;
}

void pt_fake_set_clock(int64_t ahead_ns)
{
    state.ahead_ns = ahead_ns;
}

int64_t pt_fake_clock_ahead(void)
{
    return state.ahead_ns;
}

int pt_fake_device(void)
{
    return state.device;
}

size_t pt_fake_memory_bytes(void)
{
    return state.memory;
}

pt_fake_live pt_fake_count_live(void)
{
    pt_fake_live live = {0};
    pt_fake_count_memory(&live);
    pt_fake_count_streams(&live);
    return live;
}

/* ---- the environment ------------------------------------------------------------------------ */

static int64_t number(const char *name, int64_t fallback)
{
    const char *text = getenv(name);
    return text ? strtoll(text, NULL, 10) : fallback;
}

bool pt_fake_is_meant(const char *fault)
{
    const char *at = strchr(fault, '@'), *rank = getenv("OMPI_COMM_WORLD_RANK");
    return !at || strcmp(at + 1, rank ? rank : "0") == 0;
}

__attribute__((constructor)) static void begin(void)
{
    pt_fake_reset((uint64_t)number("PT_FAKE_SEED", 1));
    const char *devices = getenv("PT_FAKE_DEVICES");
    if (devices && pt_fake_is_meant(devices))
        pt_fake_set_devices((int)strtoll(devices, NULL, 10), cudaSuccess);
    pt_fake_set_memory((size_t)number("PT_FAKE_MEMORY", (int64_t)default_memory));
    const char *fail = getenv("PT_FAKE_FAIL");
    for (int i = 0; fail && i < PT_FAKE_FAULTS; i++) {
        size_t length = strlen(faults[i].name);
        if (strncmp(fail, faults[i].name, length) == 0 && fail[length] == ':' &&
            pt_fake_is_meant(fail))
            pt_fake_fail(i, strtoll(fail + length + 1, NULL, 10));
    }
}

__attribute__((destructor)) static void end(void)
{
    pt_fake_live live = pt_fake_count_live();
    if (!getenv("PT_FAKE_REPORT") ||
        live.device_blocks + live.host_blocks + live.streams + live.events == 0)
        return;
    fprintf(stderr,
            "fake cuda: left behind: %d device blocks, %d host blocks, %d streams, %d "
            "events\n",
            live.device_blocks, live.host_blocks, live.streams, live.events);
    _exit(REPORT_STATUS);
}

/* ---- inside --------------------------------------------------------------------------------- */

cudaError_t pt_fake_error(cudaError_t error)
{
    if (error != cudaSuccess)
        state.last_error = error;
    return error;
}

bool pt_fake_strikes(pt_fake_fault what)
{
    if (++state.calls[what] != state.strike[what])
        return false;
    (void)pt_fake_error(faults[what].error);
    return true;
}

/* splitmix64 (G. Steele, D. Lea, C. Flood, "Fast splittable pseudorandom number generators", 2014)
 */
uint32_t pt_fake_below(uint32_t n)
{
    uint64_t z = state.random += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (uint32_t)(((z ^ (z >> 31)) >> 32) * n >> 32);
}

_Noreturn void pt_fake_misuse(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fputs("fake cuda: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    abort();
}

/* ---- cudart --------------------------------------------------------------------------------- */

cudaError_t cudaGetDeviceCount(int *count)
{
    if (state.devices_error != cudaSuccess)
        return pt_fake_error(state.devices_error);
    if (state.devices == 0)
        return pt_fake_error(cudaErrorNoDevice);
    *count = state.devices;
    return cudaSuccess;
}

cudaError_t cudaSetDevice(int device)
{
    if (device < 0 || device >= state.devices)
        return pt_fake_error(cudaErrorInvalidDevice);
    state.device = device;
    return cudaSuccess;
}

cudaError_t cudaGetDevice(int *device)
{
    *device = state.device;
    return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *device, int number_)
{
    if (number_ >= state.devices)
        return pt_fake_error(cudaErrorInvalidDevice);
    memset(device, 0, sizeof *device);
    snprintf(device->name, sizeof device->name, "Fake GPU");
    device->major = 9;
    device->totalGlobalMem = state.memory;
    device->multiProcessorCount = 2;
    return cudaSuccess;
}

cudaError_t cudaDriverGetVersion(int *version)
{
    *version = state.driver;
    return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int *version)
{
    *version = CUDART_VERSION;
    return cudaSuccess;
}

cudaError_t cudaGetLastError(void)
{
    cudaError_t error = state.last_error;
    state.last_error = cudaSuccess;
    return error;
}

cudaError_t cudaPeekAtLastError(void)
{
    return state.last_error;
}

static const struct {
    cudaError_t error;
    const char *name, *text;
} errors[] = {
    {cudaSuccess, "cudaSuccess", "no error"},
    {cudaErrorInvalidValue, "cudaErrorInvalidValue", "invalid argument"},
    {cudaErrorMemoryAllocation, "cudaErrorMemoryAllocation", "out of memory"},
    {cudaErrorLaunchOutOfResources, "cudaErrorLaunchOutOfResources",
     "too many resources requested for launch"},
    {cudaErrorLaunchFailure, "cudaErrorLaunchFailure", "unspecified launch failure"},
    {cudaErrorNoDevice, "cudaErrorNoDevice", "no CUDA-capable device is detected"},
    {cudaErrorInvalidDevice, "cudaErrorInvalidDevice", "invalid device ordinal"},
    {cudaErrorInsufficientDriver, "cudaErrorInsufficientDriver",
     "CUDA driver version is insufficient for CUDA runtime version"},
    {cudaErrorNotReady, "cudaErrorNotReady", "device not ready"},
};

const char *cudaGetErrorName(cudaError_t error)
{
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++)
        if (errors[i].error == error)
            return errors[i].name;
    return "unrecognized error code";
}

const char *cudaGetErrorString(cudaError_t error)
{
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++)
        if (errors[i].error == error)
            return errors[i].text;
    return "unrecognized error code";
}

/* The only call of cuDNN that the backend makes beside convolutions. */
size_t cudnnGetVersion(void)
{
    return CUDNN_VERSION;
}
