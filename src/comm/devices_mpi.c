/* Does this MPI take device addresses? Open MPI and its kin answer in an extension of their own. */
#include "comm_mpi.h"

#if defined(OPEN_MPI) && OPEN_MPI
#include <mpi-ext.h>
#endif

bool pt_world_knows_devices(void)
{
#if defined(MPIX_CUDA_AWARE_SUPPORT)
    return MPIX_Query_cuda_support() == 1;
#else
    return false;
#endif
}
