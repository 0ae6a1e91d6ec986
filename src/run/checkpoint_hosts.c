/* The hosts of a launch: their numbers in the directory of checkpoints. */
#include "checkpoint_internal.h"

#include <stdio.h>
#include <stdlib.h>

#include "checkpoint_manifest.h"

enum { NAME = 256 }; /* MPI's longest */

/* Rank 0 has room for all names; the others need none. */
static pt_status gather(const pt_run *run, char (*ret_names)[NAME], size_t *counts, pt_error *err)
{
    char mine[NAME] = "";
    for (int r = 0; counts && r < run->stages; r++)
        counts[r] = sizeof mine;
    snprintf(mine, sizeof mine, "%s", pt_world_host(run->world));
    return pt_world_gather(run->world, PT_FOR_CHECKPOINT, /*root=*/0, mine, sizeof mine, counts,
                           ret_names, err);
}

/* A directory that has none goes on from those of --resume, as launches do. */
static pt_status read_known(const pt_checkpoint *c, pt_store_hosts *hosts, pt_error *err)
{
    PT_TRY(pt_store_read_hosts(c->dir, hosts, err));
    if (hosts->n > 0 || !c->run->settings->resume)
        return PT_OK;
    return pt_store_read_hosts(c->run->settings->resume, hosts, err);
}

static pt_status number(pt_checkpoint *c, char (*texts)[NAME], const char **names,
                        pt_store_hosts *hosts, pt_error *err)
{
    pt_run *run = c->run;
    for (int r = 0; r < run->stages; r++)
        names[r] = texts[r];
    PT_TRY(read_known(c, hosts, err));
    PT_TRY(pt_store_join_hosts(c->dir, run->launch, names, run->stages, hosts, err));
    for (int r = 0; r < run->stages; r++)
        run->host_numbers[r] = pt_store_find_host(hosts, names[r])->number;
    return pt_manifest_set_hosts(c->manifest, run, hosts, err);
}

static pt_status number_all(pt_checkpoint *c, pt_error *err)
{
    pt_run *run = c->run;
    size_t ranks = (size_t)run->stages;
    char(*texts)[NAME] = calloc(ranks, sizeof *texts);
    const char **names = calloc(ranks, sizeof *names);
    size_t *counts = calloc(ranks, sizeof *counts);
    pt_store_hosts hosts = {NULL, 0};
    run->host_numbers = calloc(ranks, sizeof *run->host_numbers);
    pt_status status = texts && names && counts && run->host_numbers
                           ? gather(run, texts, counts, err)
                           : pt_fail(err, PT_ENOMEM, "no memory for the names of hosts");
    if (status == PT_OK)
        status = number(c, texts, names, &hosts, err);
    pt_store_clear_hosts(&hosts);
    free(counts);
    free(names);
    free(texts);
    return status;
}

pt_status pt_checkpoint_number_hosts(pt_run *run, pt_error *err)
{
    if (!run->checkpoint)
        return PT_OK;
    return pt_checkpoint_is_root(run->checkpoint) ? number_all(run->checkpoint, err)
                                                  : gather(run, NULL, NULL, err);
}
