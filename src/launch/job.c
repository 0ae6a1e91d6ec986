/* Making the command line, starting and ending mpirun.
 *
 * What is added to the user's own line:
 *   odls_base_sigkill_timeout 0   a job with a killed rank ends at once and not after a second
 *   orte_tmpdir_base              session directories where nothing else is
 *   -x …                          variables for ranks on other hosts; those here inherit them */
#include "job.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "child.h"
#include "pipetrain/clock.h"
#include "pipetrain/text.h"

static const int64_t PAUSE_NS = 5000000; /* between looks at an mpirun that was asked to end */
static const int64_t ASKED_NS = 2000000000;
static const double KILLED_S = 10;

static const char STALL[] = "PIPETRAIN_STALL", PROGRESS[] = "PIPETRAIN_PROGRESS";

void pt_job_free_command(char **words)
{
    for (int i = 0; words && words[i]; i++)
        free(words[i]);
    free(words);
}

static pt_status no_memory(pt_error *err)
{
    return pt_fail(err, PT_ENOMEM, "no memory for mpirun's command line");
}

/* `word` is this function's from here on; NULL means that memory ran out while it was made. */
static pt_status add(char ***words, int *n, char *word, pt_error *err)
{
    char **more = word ? realloc(*words, (size_t)(*n + 2) * sizeof *more) : NULL;
    if (!more) {
        free(word);
        return no_memory(err);
    }
    more[(*n)++] = word;
    more[*n] = NULL;
    *words = more;
    return PT_OK;
}

static pt_status add_own(const pt_job *job, char ***words, int *n, pt_error *err)
{
    const char *const own[] = {job->mpirun,  "--mca", "odls_base_sigkill_timeout",
                               "0",          "--mca", "orte_tmpdir_base",
                               job->session, "-x",    PT_MARK,
                               "-x",         STALL,   "-x",
                               PROGRESS};
    for (size_t i = 0; i < sizeof own / sizeof *own; i++)
        PT_TRY(add(words, n, strdup(own[i]), err));
    if (job->hosts->n == 0)
        return PT_OK;
    PT_TRY(add(words, n, strdup("--host"), err));
    PT_TRY(add(words, n, pt_hosts_argument(job->hosts), err));
    PT_TRY(add(words, n, strdup("-np"), err));
    return add(words, n, pt_text_format("%d", pt_hosts_slots(job->hosts)), err);
}

pt_status pt_job_command(const pt_job *job, char ***ret_words, pt_error *err)
{
    char **words = NULL;
    int n = 0;
    pt_status status = add_own(job, &words, &n, err);
    for (int i = 0; status == PT_OK && job->words[i]; i++)
        status = add(&words, &n, strdup(job->words[i]), err);
    if (status == PT_OK)
        *ret_words = words;
    else
        pt_job_free_command(words);
    return status;
}

static pt_status prepare(const pt_job *job, pt_error *err)
{
    const char *const variables[][2] = {
        {PT_MARK, job->mark}, {STALL, job->stall}, {PROGRESS, job->progress}};
    for (size_t i = 0; i < sizeof variables / sizeof *variables; i++)
        if (setenv(variables[i][0], variables[i][1], 1) != 0)
            return no_memory(err);
    unlink(job->progress); /* what an earlier launch wrote there */
    if (mkdir(job->session, 0700) != 0)
        return pt_fail(err, PT_EIO, "cannot make the directory %s: %s", job->session,
                       strerror(errno));
    return PT_OK;
}

pt_status pt_job_start(const pt_job *job, pt_process *ret_mpirun, pt_error *err)
{
    char **words = NULL;
    pid_t pid = 0;
    PT_TRY(prepare(job, err));
    PT_TRY(pt_job_command(job, &words, err));
    int failed = pt_child_start(words, /*silent=*/false, &pid);
    pt_job_free_command(words);
    if (failed)
        return pt_fail(err, PT_EINPUT, "cannot start %s: %s", job->mpirun, strerror(failed));
    *ret_mpirun = pt_process_now(pid);
    ret_mpirun->pid = pid; /* also of one that has ended already */
    return PT_OK;
}

static void ask_to_end(const pt_process *mpirun, const char *mark)
{
    if (!pt_process_is_alive(mpirun) || !pt_process_has_mark(mpirun->pid, mark))
        return;
    kill((pid_t)mpirun->pid, SIGTERM);
    kill((pid_t)mpirun->pid, SIGCONT); /* or one that is stopped would not hear it */
    for (int64_t end = pt_clock_ns() + ASKED_NS;
         pt_process_is_alive(mpirun) && pt_clock_ns() < end;)
        pt_clock_sleep_ns(PAUSE_NS);
}

pt_status pt_job_end(const pt_process *mpirun, const char *mark, pt_error *err)
{
    ask_to_end(mpirun, mark);
    int left = pt_marked_end(mark, KILLED_S);
    if (mpirun->pid > 0)
        waitpid((pid_t)mpirun->pid, NULL, WNOHANG); /* if it is a child of ours, it is done with */
    if (left > 0)
        return pt_fail(err, PT_EIO,
                       "%d processes of the launch do not end though they were killed (with %s=%s "
                       "in their environment); nothing else is started",
                       left, PT_MARK, mark);
    return PT_OK;
}
