/* How a kernel is put on a stream: the one place that differs between a GPU and the emulation of
 * one in tests/gpu/emulate, which is included before everything else and defines PT_EMULATED.
 *
 * All shared memory is asked for at the launch and reached by pt_shared(), so that the emulation
 * can give a block exactly what was asked for, and poison it. */
#ifndef PIPETRAIN_KERNELS_START_CUH
#define PIPETRAIN_KERNELS_START_CUH

#include <cuda_runtime_api.h>
#include <stdint.h>

namespace
{

/* Keeps an argument out of template deduction: it is converted to what the kernel takes. */
template <typename T> struct pt_same {
    typedef T type;
};

#ifdef PT_EMULATED

template <typename T> inline T *pt_shared()
{
    return (T *)pt_emulate_shared();
}

template <typename... P>
cudaError_t pt_start(void (*kernel)(P...), dim3 grid, unsigned threads, size_t shared_bytes,
                     cudaStream_t s, typename pt_same<P>::type... args)
{
    auto thread = [=] { kernel(args...); };
    return pt_emulate_start(grid, dim3(threads), shared_bytes, s, thread);
}

#else

template <typename T> __device__ inline T *pt_shared()
{
    extern __shared__ uint4 pt_shared_memory[];
    return reinterpret_cast<T *>(pt_shared_memory);
}

/* The error is that of this launch, whatever else failed before and was not asked for. */
template <typename... P>
cudaError_t pt_start(void (*kernel)(P...), dim3 grid, unsigned threads, size_t shared_bytes,
                     cudaStream_t s, typename pt_same<P>::type... args)
{
    void *list[] = {&args...};
    return cudaLaunchKernel(reinterpret_cast<const void *>(kernel), grid, dim3(threads), list,
                            shared_bytes, s);
}

#endif

} // namespace

#endif
