/* pipetrain: reads the command line and the partition file, runs one command, reports, ends.
 *
 * The only place that turns a status into an exit code. Whatever all ranks found together is said
 * once, by rank 0. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "app.h"
#include "pipetrain/backend.h"
#include "pipetrain/log.h"

enum { FIRST_SPEAKS_S = 2 }; /* more than lies between the starts of two ranks */

typedef pt_status (*command)(pt_world *world, const pt_config *config,
                             const pt_partition *partition, const char *text, pt_error *err);

/* For what every process finds by itself, of one and the same command line: the first one says it.
 * The others give it time to, for mpirun ends them all when one has ended so. */
static void say_once(const pt_error *err)
{
    if (pt_world_is_first_process())
        pt_log(PT_LOG_ERROR, "%s", err->text);
    else
        sleep(FIRST_SPEAKS_S);
}

static command choose(const pt_settings *settings)
{
    const struct {
        bool asked;
        command run;
    } commands[] = {
        {settings->check, pt_app_check},
        {settings->check_gradients, pt_app_check_gradients},
        {settings->infer != NULL, pt_app_infer},
        {true, pt_app_train},
    };
    int i = 0;
    while (!commands[i].asked)
        i++;
    return commands[i].run;
}

/* Can SIGUSR1 have what it asks for? */
static bool keeps(const pt_settings *settings)
{
    return settings->checkpoint && choose(settings) == pt_app_train;
}

static pt_status work(pt_world *world, pt_config *config, const char *path, pt_error *err)
{
    pt_partition *partition = NULL;
    char *text = NULL;
    pt_status status = PT_OK;
    PT_GOTO(status, pt_app_read_partition(world, path, &partition, &text, err));
    PT_GOTO(status, pt_config_apply(config, partition, err));
    PT_GOTO(status, pt_app_read_lists(world, config, err));
    PT_GOTO(status, pt_config_settle(config, err));
    if (!keeps(&config->settings))
        pt_app_ignore_halt();
    status = choose(&config->settings)(world, config, partition, text, err);
out:
    pt_partition_free(partition);
    free(text);
    return status;
}

static pt_status start(pt_world *world, pt_config *config, const char *path, pt_error *err)
{
    pt_world_watch(world, pt_app_stop_flag());
    if (config->settings.debug) {
        pt_status status = pt_app_wait_for_debugger(world, config->settings.debug, err);
        PT_TRY(pt_world_agree(world, status, err, NULL));
    }
    char *fallback = path ? NULL : pt_app_default_partition();
    if (!path && !fallback)
        return pt_fail(err, PT_ENOMEM, "no memory for a path");
    pt_status status = work(world, config, path ? path : fallback, err);
    free(fallback);
    return status;
}

/* Rank 0 may have had to wait for --upload, for as long as that took; behind its word, nobody has.
 */
static void close_world(pt_world *world, const pt_settings *settings, pt_status status)
{
    char word = 0;
    pt_error ignored = {PT_OK, ""};
    if (status == PT_OK || status == PT_ESTOPPED)
        (void)pt_world_broadcast(world, PT_FOR_STATUS, /*root=*/0, &word, sizeof word, &ignored);
    pt_app_guard *guard = pt_app_guard_begin(settings, "is in MPI_Finalize, where all ranks meet");
    pt_world_close(world);
    pt_app_guard_end(guard);
}

/* With MPI: every rank, in the same way. */
static pt_status with_world(int argc, char **argv, pt_config *config, const char *path,
                            pt_error *err)
{
    pt_world *world = NULL;
    pt_backend_choose_device(config->settings.backend, pt_world_likely_local_rank());
    pt_log_init(PT_LOG_INFO, pt_world_likely_rank());
    pt_app_guard *guard =
        pt_app_guard_begin(&config->settings, "is in MPI_Init, where all ranks meet");
    pt_status opened = pt_world_open(&argc, &argv, &world, err);
    pt_app_guard_end(guard);
    pt_log_init(PT_LOG_INFO, /*rank=*/-1);
    if (opened != PT_OK)
        say_once(err);
    PT_TRY(opened);
    pt_app_catch_signals(); /* MPI has its own ideas until now */
    int rank = pt_world_rank(world), size = pt_world_size(world);
    pt_log_init(PT_LOG_INFO, size > 1 ? rank : -1);
    pt_status status = start(world, config, path, err);
    if (status == PT_EINTERRUPTED)
        pt_app_leave(world, "before training");
    if (status != PT_OK && rank == 0) {
        pt_log_init(PT_LOG_INFO, /*rank=*/-1); /* it is everybody's message */
        pt_log(status == PT_ESTOPPED ? PT_LOG_INFO : PT_LOG_ERROR, "%s", err->text);
        pt_app_has_spoken();
    }
    close_world(world, &config->settings, status);
    return status;
}

int main(int argc, char **argv)
{
    static pt_error err; /* too large for a stack frame that everything else stands on */
    static pt_config config;
    const char *path = NULL;
    int n_paths = 0;
    pt_app_catch_halt(); /* first of all: until then the signal ends this process */
    pt_status status = pt_config_init(&config, &err);
    if (status == PT_OK)
        status = pt_options_parse(&config.options, argc, argv, /*max_positional=*/1, &path,
                                  &n_paths, &err);
    if (status == PT_OK && config.settings.help) {
        pt_config_help(stdout);
    } else if (status == PT_OK && config.settings.version) {
        puts("pipetrain " PT_VERSION);
    } else if (status == PT_OK) {
        status = with_world(argc, argv, &config, n_paths ? path : NULL, &err);
    } else {
        say_once(&err);
    }
    pt_config_clear(&config);
    if (status == PT_OK && (fflush(stdout) != 0 || ferror(stdout))) {
        status = PT_EIO; /* what was asked for did not come out */
        pt_log(PT_LOG_ERROR, "not all could be written to the standard output");
    }
    return pt_status_exit_code(status);
}
