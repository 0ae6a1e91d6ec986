/* A CUDA error as one message.
 *
 * The runtime remembers its last error and hands it to whoever asks next, so it is cleared here: a
 * later launch must not report what was already said. Errors of kernels that ran are sticky and
 * come back by themselves, in whatever call is made next. */
#include "cuda.h"

static const char smaller[] = "; use a smaller --micro-batch or more stages";
static const char blocking[] =
    "; a kernel asked for earlier may be the cause: CUDA_LAUNCH_BLOCKING=1 shows which";

static const struct {
    cudaError_t error;
    pt_status status;
    const char *hint;
} known[] = {
    {cudaErrorMemoryAllocation, PT_ENOMEM, smaller},
    {cudaErrorIllegalAddress, PT_EBACKEND, blocking},
    {cudaErrorMisalignedAddress, PT_EBACKEND, blocking},
    {cudaErrorIllegalInstruction, PT_EBACKEND, blocking},
    {cudaErrorLaunchFailure, PT_EBACKEND, blocking},
    {cudaErrorAssert, PT_EBACKEND, blocking},
    {cudaErrorNoKernelImageForDevice, PT_EBACKEND,
     "; this build has no code for this GPU: build with its architecture"},
    {cudaErrorECCUncorrectable, PT_EBACKEND, "; the GPU's memory is damaged: use another GPU"},
    {cudaErrorDevicesUnavailable, PT_EBACKEND,
     "; another process has the GPU for itself: use another GPU"},
};

pt_status pt_cuda_check(cudaError_t error, const pt_op *op, const char *call, pt_error *err)
{
    if (error == cudaSuccess)
        return PT_OK;
    pt_status status = PT_EBACKEND;
    const char *hint = "";
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (known[i].error == error) {
            status = known[i].status;
            hint = known[i].hint;
        }
    (void)cudaGetLastError();
    const char *name = cudaGetErrorName(error), *text = cudaGetErrorString(error);
    if (op)
        return pt_fail(err, status, "%s (layer %u): %s: %s (%s)%s", pt_op_rows[op->kind].name,
                       op->layer, call, name, text, hint);
    return pt_fail(err, status, "%s: %s (%s)%s", call, name, text, hint);
}
