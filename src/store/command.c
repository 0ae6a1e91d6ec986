/* posix_spawn(), not fork(): it runs no handlers of other libraries in the child, copies no page
 * tables, and shares memory until the shell is there, which is what MPI libraries and memory that
 * is registered with network cards want of whoever starts programs.
 *
 * The command has a process group of its own, which mpirun's signals to the rank do not reach. It
 * ends with the rank all the same, whatever ends that one: a watcher in the group reads from a pipe
 * whose other end is the rank's alone, and finds its end.
 */
#include "command.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "pipetrain/clock.h"
#include "pipetrain/text.h"

/* $1: the folder, $2: the command. `kill 0` is of the group. */
static const char SCRIPT[] = "{ read -r word <&3; kill 0; } &\n"
                             "watcher=$!\n"
                             "(exec 3<&-; eval \"$2\")\n"
                             "status=$?\n"
                             "kill $watcher\n"
                             "exit $status\n";
enum { INPUT, OUTPUT, MESSAGES, PIPE }; /* files of the script; messages are where ours are */

static const int64_t LOOK_NS = 10000000;       /* between looks at a command that runs */
static const int64_t PATIENCE_NS = 2000000000; /* between asking it to end, and ending it */

/* ---- what it gets -----------------------------------------------------------------------------
 */

/* What it does not inherit: ours, and by what a program that speaks MPI would take itself for this
 * rank. */
static const char *const left_out[] = {"PIPETRAIN_STEP=", "PIPETRAIN_LAUNCH=", "OMPI_COMM_WORLD_",
                                       "OMPI_MCA_ess_",   "OMPI_MCA_orte_",    "PMIX_"};

static bool is_left_out(const char *variable)
{
    for (size_t i = 0; i < sizeof left_out / sizeof *left_out; i++)
        if (strncmp(variable, left_out[i], strlen(left_out[i])) == 0)
            return true;
    return false;
}

/* Ours with these two in front: the list is free()d, the strings are theirs. */
static char **environment_with(char *step, char *launch)
{
    size_t n = 0, at = 0;
    while (environ[n])
        n++;
    char **list = calloc(n + 3, sizeof *list);
    if (!list)
        return NULL;
    list[at++] = step;
    list[at++] = launch;
    for (size_t i = 0; i < n; i++)
        if (!is_left_out(environ[i]))
            list[at++] = environ[i];
    return list;
}

static int prepare(int pipe_end, posix_spawn_file_actions_t *files, posix_spawnattr_t *attributes)
{
    sigset_t none, all;
    sigemptyset(&none);
    sigfillset(&all);
    int bad = posix_spawn_file_actions_addopen(files, INPUT, "/dev/null", O_RDONLY, 0);
    bad |= posix_spawn_file_actions_adddup2(files, MESSAGES, OUTPUT);
    bad |= posix_spawn_file_actions_adddup2(files, pipe_end, PIPE);
#if __GLIBC_PREREQ(2, 34)
    /* Sockets and pipes of the MPI library: who waits for their end must not wait for us. */
    bad |= posix_spawn_file_actions_addclosefrom_np(files, PIPE + 1);
#endif
    bad |= posix_spawnattr_setsigmask(attributes, &none); /* this thread's has all */
    bad |= posix_spawnattr_setsigdefault(attributes, &all);
    bad |= posix_spawnattr_setpgroup(attributes, 0);
    bad |= posix_spawnattr_setflags(attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF |
                                                    POSIX_SPAWN_SETPGROUP);
    return bad ? ENOMEM : 0;
}

static pt_status spawn(const char *command, const char *folder, char **environment, int pipe_end,
                       pid_t *ret_pid, pt_error *err)
{
    char *const arguments[] = {"sh", "-c", (char *)SCRIPT, "sh", (char *)folder, (char *)command,
                               NULL};
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attributes;
    posix_spawn_file_actions_init(&files);
    posix_spawnattr_init(&attributes);
    int code = prepare(pipe_end, &files, &attributes);
    if (code == 0)
        code = posix_spawn(ret_pid, "/bin/sh", &files, &attributes, arguments, environment);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&files);
    return code == 0 ? PT_OK
                     : pt_fail(err, PT_EIO, "the command cannot be started: %s", strerror(code));
}

/* ---- how it ends ------------------------------------------------------------------------------
 */

static pt_status judge(int how, pt_error *err)
{
    if (WIFSIGNALED(how))
        return pt_fail(err, PT_EIO, "the command was ended by signal %d (%s)", WTERMSIG(how),
                       strsignal(WTERMSIG(how)));
    if (WEXITSTATUS(how) != 0)
        return pt_fail(err, PT_EIO, "the command ended with %d", WEXITSTATUS(how));
    return PT_OK;
}

/* By looking, not by waiting: so that nothing but this thread ever needs to know the pid. */
static pt_status wait_for(pid_t pid, const atomic_bool *stop, pt_error *err)
{
    int64_t asked_ns = 0;
    for (;;) {
        int how = 0;
        pid_t ended = waitpid(pid, &how, WNOHANG);
        if (ended == pid)
            return judge(how, err);
        if (ended < 0 && errno != EINTR)
            return pt_fail(err, PT_EIO, "the command's end cannot be seen: %s", strerror(errno));
        if (atomic_load(stop) && asked_ns == 0) {
            asked_ns = pt_clock_ns();
            kill(-pid, SIGTERM);
        } else if (asked_ns > 0 && pt_clock_ns() - asked_ns > PATIENCE_NS) {
            kill(-pid, SIGKILL);
        }
        pt_clock_sleep_ns(LOOK_NS);
    }
}

static pt_status run(const char *command, const char *folder, char **environment,
                     const atomic_bool *stop, pt_error *err)
{
    int ends[2];
    pid_t pid = 0;
    if (pipe2(ends, O_CLOEXEC) != 0)
        return pt_fail(err, PT_EIO, "the command cannot be started: %s", strerror(errno));
    pt_status status = spawn(command, folder, environment, ends[0], &pid, err);
    close(ends[0]);
    if (status == PT_OK)
        status = wait_for(pid, stop, err);
    close(ends[1]);
    return status;
}

pt_status pt_command_run(const char *command, const char *folder, int64_t step, int64_t launch,
                         const atomic_bool *stop, pt_error *err)
{
    bool says_where = strstr(command, "$1") || strstr(command, "${1");
    char *whole = pt_text_format("%s%s", command, says_where ? "" : " \"$1\"");
    char *step_text = pt_text_format("PIPETRAIN_STEP=%" PRId64, step);
    char *launch_text = pt_text_format("PIPETRAIN_LAUNCH=%" PRId64, launch);
    char **environment = step_text && launch_text ? environment_with(step_text, launch_text) : NULL;
    pt_status status = whole && environment ? run(whole, folder, environment, stop, err)
                                            : pt_fail(err, PT_ENOMEM, "no memory for a command");
    free(environment);
    free(launch_text);
    free(step_text);
    free(whole);
    return status;
}
