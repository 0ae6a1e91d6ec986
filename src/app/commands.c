/* The commands: what main() can be asked to do, one function each. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app.h"
#include "pipetrain/inspect.h"
#include "pipetrain/log.h"
#include "pipetrain/run.h"

/* A failure inside a run is one rank's own: it says where, and ends the others. Without others it
 * is handed on, so that the program ends in an orderly way. */
static pt_status end_all(pt_world *world, const pt_run *run, pt_status status, pt_error *err)
{
    char where[256];
    pt_engine_where(run->engine, where, sizeof where);
    if (*where)
        pt_fail_within(err, "%s", where);
    if (status == PT_EINTERRUPTED || pt_world_is_aborting(world))
        pt_app_leave(world, *where ? where : "interrupted");
    if (pt_world_size(world) == 1)
        return status;
    pt_log(PT_LOG_ERROR, "%s", err->text);
    pt_world_abort(world, pt_status_exit_code(status));
}

/* --plan-out: the file with the cut that is used for so many stages. Rank 0. */
static pt_status write_plan(const pt_partition *partition, const char *text, int stages,
                            const char *path, pt_error *err)
{
    char *with_cut = NULL;
    bool planned = false;
    int *begins = calloc((size_t)stages, sizeof *begins);
    if (!begins)
        return pt_fail(err, PT_ENOMEM, "no memory for %d stages", stages);
    pt_status status = pt_run_choose_cut(partition, stages, begins, &planned, err);
    if (status == PT_OK)
        status = pt_partition_with_cut(partition, text, begins, stages, &with_cut, err);
    free(begins);
    PT_TRY(status);
    FILE *out = fopen(path, "w");
    bool ok = out && fputs(with_cut, out) >= 0;
    ok = out && fclose(out) == 0 && ok;
    free(with_cut);
    return ok ? PT_OK
              : pt_fail(err, PT_EINPUT, "--plan-out: cannot write %s: %s", path, strerror(errno));
}

static pt_status run_command(pt_world *world, const pt_config *config,
                             const pt_partition *partition, const char *text,
                             pt_status (*command)(pt_run *run, pt_error *err), pt_error *err)
{
    pt_run *run = NULL;
    const pt_run_app app = {stdout, pt_app_stop_flag(), pt_app_halt_flag(), pt_app_stalled};
    PT_TRY(pt_run_open(world, config, partition, &app, &run, err));
    const char *plan_out = config->settings.plan_out;
    pt_status status = PT_OK;
    if (plan_out && run->rank == 0)
        status = write_plan(partition, text, run->stages * run->chunks, plan_out, err);
    if (status == PT_OK && run->rank == 0)
        status = pt_run_write_schedule(run, err);
    status = pt_world_agree(world, status, err, NULL);
    if (status == PT_OK) {
        status = command(run, err);
        if (status != PT_OK && status != PT_ESTOPPED)
            status = end_all(world, run, status, err);
    }
    pt_run_close(run);
    return status;
}

pt_status pt_app_train(pt_world *world, const pt_config *config, const pt_partition *partition,
                       const char *text, pt_error *err)
{
    return run_command(world, config, partition, text, pt_run_train, err);
}

pt_status pt_app_infer(pt_world *world, const pt_config *config, const pt_partition *partition,
                       const char *text, pt_error *err)
{
    return run_command(world, config, partition, text, pt_run_infer, err);
}

/* Rank 0 looks; the others wait for its verdict. */
pt_status pt_app_check(pt_world *world, const pt_config *config, const pt_partition *partition,
                       const char *text, pt_error *err)
{
    const char *plan_out = config->settings.plan_out;
    int stages = config->settings.stages ? (int)config->settings.stages : pt_world_size(world);
    pt_status status = PT_OK;
    if (pt_world_rank(world) == 0)
        status = pt_check(config, partition, stages, stdout, err);
    if (pt_world_rank(world) == 0 && status == PT_OK && plan_out)
        status = write_plan(partition, text, stages * (int)config->settings.chunks, plan_out, err);
    return pt_world_agree(world, status, err, NULL);
}

pt_status pt_app_check_gradients(pt_world *world, const pt_config *config,
                                 const pt_partition *partition, const char *text, pt_error *err)
{
    (void)text;
    pt_status status = PT_OK;
    if (pt_world_rank(world) == 0)
        status = pt_check_gradients(config, partition, stdout, err);
    return pt_world_agree(world, status, err, NULL);
}
