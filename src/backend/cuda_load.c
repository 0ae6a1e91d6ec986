/* The way to the cuda backend, which is a module beside the program.
 *
 * One program then serves machines with and without GPUs: CUDA's libraries, more than a gigabyte,
 * are needed where a GPU is and touched nowhere else. A driver is looked for first: without one
 * there is nothing to load for, and a run on the CPU starts as fast as if the module did not exist.
 * The module stays loaded until the process ends; CUDA's libraries do not like to go. */
#include <dlfcn.h>

#include "rows.h"

bool pt_backend_expects_cuda(void)
{
    return dlopen("libcuda.so.1", RTLD_LAZY | RTLD_LOCAL) != NULL;
}

pt_status pt_backend_load_cuda(const pt_backend_row **ret_row, pt_error *err)
{
    if (!pt_backend_expects_cuda())
        return pt_fail(err, PT_EINPUT,
                       "no CUDA device: this machine has no NVIDIA driver (libcuda.so.1); use "
                       "--backend onednn");
    void *module = dlopen(PT_CUDA_MODULE, RTLD_NOW | RTLD_LOCAL);
    if (!module)
        return pt_fail(err, PT_EINPUT,
                       "the cuda backend can't be loaded: %s; install CUDA's libraries or name "
                       "their folder in LD_LIBRARY_PATH, or use --backend onednn",
                       dlerror());
    const pt_backend_row *row = dlsym(module, "pt_backend_cuda");
    if (!row)
        return pt_fail(err, PT_EINPUT, "%s is not a module of this program: build it again",
                       PT_CUDA_MODULE);
    *ret_row = row;
    return PT_OK;
}
