/* The hosts of a launch: their numbers in the directory of checkpoints. */
#include "checkpoint_internal.h"

#include <stdio.h>
#include <stdlib.h>

#include "checkpoint_manifest.h"

enum { NAME = 256 }; /* MPI's longest */

static pt_status gather(const pt_run *run, char *ret_names, pt_error *err)
{
    char mine[NAME] = "";
    size_t *counts = calloc((size_t)run->stages, sizeof *counts);
    if (!counts)
        return pt_fail(err, PT_ENOMEM, "no memory for the names of hosts");
    for (int r = 0; r < run->stages; r++)
        counts[r] = sizeof mine;
    snprintf(mine, sizeof mine, "%s", pt_world_host(run->world));
    pt_status status = pt_world_gather(run->world, PT_FOR_CHECKPOINT, /*root=*/0, mine, sizeof mine,
                                       counts, ret_names, err);
    free(counts);
    return status;
}

/* A directory that has none goes on from those of --resume, as launches do. */
static pt_status read_known(const pt_checkpoint *c, pt_store_hosts *hosts, pt_error *err)
{
    PT_TRY(pt_store_read_hosts(c->dir, hosts, err));
    if (hosts->n > 0 || !c->run->settings->resume)
        return PT_OK;
    return pt_store_read_hosts(c->run->settings->resume, hosts, err);
}

static pt_status number(pt_checkpoint *c, const char *const *names, pt_store_hosts *hosts,
                        pt_error *err)
{
    pt_run *run = c->run;
    run->host_numbers = calloc((size_t)run->stages, sizeof *run->host_numbers);
    if (!run->host_numbers)
        return pt_fail(err, PT_ENOMEM, "no memory for the numbers of hosts");
    PT_TRY(read_known(c, hosts, err));
    PT_TRY(pt_store_join_hosts(c->dir, run->launch, names, run->stages, hosts, err));
    for (int r = 0; r < run->stages; r++)
        run->host_numbers[r] = pt_store_find_host(hosts, names[r])->number;
    return pt_manifest_set_hosts(c->manifest, run, hosts, err);
}

pt_status pt_checkpoint_number_hosts(pt_run *run, pt_error *err)
{
    if (!run->checkpoint)
        return PT_OK;
    size_t ranks = (size_t)run->stages;
    char *texts = calloc(ranks, NAME);
    const char **names = calloc(ranks, sizeof *names);
    pt_store_hosts hosts = {NULL, 0};
    pt_status status = texts && names ? gather(run, texts, err)
                                      : pt_fail(err, PT_ENOMEM, "no memory for the names of hosts");
    for (size_t r = 0; status == PT_OK && r < ranks; r++)
        names[r] = texts + r * NAME;
    if (status == PT_OK && pt_checkpoint_is_root(run->checkpoint))
        status = number(run->checkpoint, names, &hosts, err);
    pt_store_clear_hosts(&hosts);
    free(names);
    free(texts);
    return status;
}
