/* The smallest runtime that emulated kernels can live with: device memory is host memory, and a
 * launch is done when it returns. */
#include <stdlib.h>
#include <string.h>

#include "enqueue.h"

static cudaError_t last = cudaSuccess;

cudaError_t pt_fake_enqueue(cudaStream_t stream, void (*run)(void *closure), void *closure)
{
    (void)stream;
    run(closure);
    free(closure);
    const char *failure = pt_emulate_failure();
    if (failure)
        last = cudaErrorLaunchFailure;
    return failure ? cudaErrorLaunchFailure : cudaSuccess;
}

cudaError_t cudaMalloc(void **ret_dev, size_t bytes)
{
    *ret_dev = malloc(bytes);
    return *ret_dev ? cudaSuccess : cudaErrorMemoryAllocation;
}

cudaError_t cudaFree(void *dev)
{
    free(dev);
    return cudaSuccess;
}

cudaError_t cudaMemcpy(void *dst, const void *src, size_t bytes, enum cudaMemcpyKind kind)
{
    (void)kind;
    memcpy(dst, src, bytes);
    return cudaSuccess;
}

cudaError_t cudaDeviceSynchronize(void)
{
    const cudaError_t error = last;
    last = cudaSuccess;
    return error;
}

const char *cudaGetErrorString(cudaError_t error)
{
    return error == cudaErrorLaunchFailure ? "the emulated kernel went wrong" : "an error";
}
