/* An mpirun that does not answer while MPI_Finalize takes leave of it: the run has ended well.
 *
 * What MPI calls for that is this program's own here. It stops mpirun for longer than the word is
 * waited for; when mpirun goes on, it finds that word, and must not find an end before it. */
#include <dlfcn.h>
#include <signal.h>
#include <string.h>

#include "pipetrain/clock.h"
#include "tap.h"

/* More than the 2 s that PMIx waits, and less than what pt_world_close adds to them. */
static const int64_t STOPPED_NS = 3500000000;

int PMIx_Finalize(const void *info, size_t n);

/* Open MPI 4.1 has begun with PMIx twice: this takes leave when it is called for the second time.
 */
enum { LEAVES = 2 };
static int calls;

/* By a child, which is there before anything is stopped. Returns when it is. */
static void stop_for_a_while(pid_t mpirun)
{
    int ends[2];
    char word = 0;
    if (pipe(ends) != 0)
        return;
    if (fork() == 0) {
        kill(mpirun, SIGSTOP);
        if (write(ends[1], &word, sizeof word) == sizeof word)
            pt_clock_sleep_ns(STOPPED_NS);
        kill(mpirun, SIGCONT);
        _exit(0);
    }
    close(ends[1]);
    if (read(ends[0], &word, sizeof word) != sizeof word)
        fputs("mpirun could not be stopped\n", stderr);
    close(ends[0]);
}

int PMIx_Finalize(const void *info, size_t n)
{
    const char *mine = getenv("OMPI_COMM_WORLD_RANK");
    void *next = dlsym(RTLD_NEXT, "PMIx_Finalize");
    int (*finalize)(const void *, size_t) = NULL;
    memcpy(&finalize, &next, sizeof finalize);
    bool leaves = ++calls == LEAVES && mine && strcmp(mine, "0") == 0;
    if (leaves)
        stop_for_a_while(getppid());
    return finalize ? finalize(info, n) : 0;
}

/* The rest is the status that mpirun ends with. */
static void test_meeting(tap *t)
{
    CHECK_OK(t, pt_world_barrier(t->world, PT_FOR_STATUS, &t->err));
}

int main(int argc, char **argv)
{
    static const tap_case cases[] = {{"mpirun does not answer at the end", test_meeting}};
    int code = tap_main(argc, argv, 2, cases, sizeof cases / sizeof *cases);
    if (calls < LEAVES) { /* of another MPI: what it calls at its end must be found out anew */
        fprintf(stderr, "PMIx_Finalize was called %d times, not %d: mpirun was not stopped\n",
                calls, LEAVES);
        return EXIT_FAILURE;
    }
    return code;
}
