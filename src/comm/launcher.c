/* What can be known of a launcher before MPI runs: environment variables that it sets. */
#include <stdlib.h>
#include <string.h>

#include "pipetrain/world.h"

bool pt_world_is_first_process(void)
{
    static const char *const ranks[] = {"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK",
                                        "SLURM_PROCID"};
    for (size_t i = 0; i < sizeof ranks / sizeof ranks[0]; i++) {
        const char *rank = getenv(ranks[i]);
        if (rank)
            return strcmp(rank, "0") == 0;
    }
    return true;
}
