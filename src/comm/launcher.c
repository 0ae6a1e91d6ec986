/* What can be known of a launcher before MPI runs: environment variables that it sets. */
#include <stdlib.h>

#include "pipetrain/world.h"

/* The value of the first variable that is set, or NULL. */
static const char *first_of(const char *const *names)
{
    for (; *names; names++)
        if (getenv(*names))
            return getenv(*names);
    return NULL;
}

int pt_world_likely_rank(void)
{
    static const char *const names[] = {"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK",
                                        "SLURM_PROCID", NULL};
    const char *rank = first_of(names);
    return rank ? atoi(rank) : -1;
}

bool pt_world_is_first_process(void)
{
    return pt_world_likely_rank() <= 0;
}

int pt_world_likely_local_rank(void)
{
    static const char *const names[] = {"OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID",
                                        "MV2_COMM_WORLD_LOCAL_RANK", "SLURM_LOCALID", NULL};
    const char *rank = first_of(names);
    int local = rank ? atoi(rank) : 0;
    return local > 0 ? local : 0;
}
