/* The start and the end of the ranks: MPI_Init, one communicator per purpose, MPI_Finalize.
 *
 * Errors return (MPI_ERRORS_RETURN) on every communicator; an MPI that ended the process by itself
 * could not say which rank, stage and micro-batch it was about. */
#include "comm_mpi.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "pipetrain/clock.h"

enum {
    MESSAGE_BYTES = 1 << 30, /* 1 GiB, safely an int */
    /* How long an end after a failure waits for the other ranks to come to their end too. */
    CLOSE_NS = 1000 * 1000 * 1000,
    ANNOUNCE_NS = 20 * 1000 * 1000, /* for all ranks together */
    LINGER_NS = 50 * 1000 * 1000    /* see pt_world_abort */
};

/* See finalize. */
static const int64_t ANSWER_NS = 1900000000, LONGEST_STAY_NS = 4000000000;

/* ---- before MPI_Init --------------------------------------------------------------------------*/

static bool started_by_launcher(void)
{
    static const char *const marks[] = {"OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "PMI_RANK", "PMI_SIZE",
                                        "SLURM_STEP_ID"};
    for (size_t i = 0; i < sizeof marks / sizeof *marks; i++)
        if (getenv(marks[i]))
            return true;
    return false;
}

/* Containers may forbid one process to read another's memory; Open MPI would find out in
 * mid-message and fail. A filter that forbids it forbids it on ourselves as well. */
static bool may_read_memory_of_others(void)
{
    char from = 1, to = 0;
    struct iovec here = {&to, 1}, there = {&from, 1};
    return process_vm_readv(getpid(), &here, 1, &there, 1, 0) == 1;
}

static bool more_local_ranks_than_processors(void)
{
    const char *ranks = getenv("OMPI_COMM_WORLD_LOCAL_SIZE");
    return ranks && atol(ranks) > sysconf(_SC_NPROCESSORS_ONLN);
}

/* Defaults for Open MPI; whatever the user has set stays. */
static void set_defaults(bool launched)
{
    if (!launched) {
        /* One rank alone: no daemon (which wants ssh to be installed), no network. */
        setenv("OMPI_MCA_ess_singleton_isolated", "1", /*overwrite=*/0);
        setenv("OMPI_MCA_btl", "self", /*overwrite=*/0);
        setenv("OMPI_MCA_pml", "ob1", /*overwrite=*/0);
    }
    if (!may_read_memory_of_others())
        setenv("OMPI_MCA_btl_vader_single_copy_mechanism", "none", /*overwrite=*/0);
    /* Without the single copy, and over networks without RDMA, a message goes in fragments, and
     * only so many are on their way at once. The next ones wait until somebody looks, which is
     * between two ops: a message of 1.6 MB in fragments of 32 KiB would take seventeen looks. */
    setenv("OMPI_MCA_pml_ob1_send_pipeline_depth", "64", /*overwrite=*/0);
    /* For the few waits that are inside MPI (start, new communicators, end). mpirun sets it when it
     * knows of the crowd; a host file or SLURM may have told it otherwise. */
    if (more_local_ranks_than_processors())
        setenv("OMPI_MCA_mpi_yield_when_idle", "1", /*overwrite=*/0);
}

/* ---- opening ----------------------------------------------------------------------------------*/

static pt_status start_mpi(pt_world *world, int *argc, char ***argv, pt_error *err)
{
    int is_running = 0, has_ended = 0, threads = 0;
    MPI_Initialized(&is_running);
    MPI_Finalized(&has_ended);
    if (is_running || has_ended)
        return pt_fail(err, PT_ECOMM,
                       "MPI has been started in this process before; it starts "
                       "only once: open one world for the whole run");
    set_defaults(world->under_mpirun);
    int code = MPI_Init_thread(argc, argv, MPI_THREAD_FUNNELED, &threads);
    if (code != MPI_SUCCESS)
        return pt_fail(err, PT_ECOMM, "MPI_Init_thread failed with code %d", code);
    world->started = true;
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    MPI_Comm_set_errhandler(MPI_COMM_SELF, MPI_ERRORS_RETURN);
    if (threads < MPI_THREAD_FUNNELED)
        return pt_fail(err, PT_ECOMM,
                       "this MPI cannot be used in a program with threads "
                       "(it lacks MPI_THREAD_FUNNELED); install another build");
    MPI_Comm_rank(MPI_COMM_WORLD, &world->rank);
    MPI_Comm_size(MPI_COMM_WORLD, &world->size);
    return PT_OK;
}

/* Crowded: the ranks of this host outnumber the processors that they may use between them. A
 * launcher binds ranks to processors, so the sets of all are united. */
static pt_status look_at_host(pt_world *world, pt_error *err)
{
    MPI_Comm local = MPI_COMM_NULL;
    cpu_set_t mine, all;
    int length = 0, ranks = 0;
    PT_TRY(pt_comm_check(world, MPI_Get_processor_name(world->host, &length),
                         "asking for the host's name", err));
    PT_TRY(pt_comm_check(world,
                         MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, world->rank,
                                             MPI_INFO_NULL, &local),
                         "finding the ranks of this host", err));
    MPI_Comm_rank(local, &world->local_rank);
    MPI_Comm_size(local, &ranks);
    CPU_ZERO(&mine);
    if (sched_getaffinity(0, sizeof mine, &mine) != 0) /* more processors than the set holds */
        memset(&mine, 0xff, sizeof mine);
    int code = MPI_Allreduce(&mine, &all, (int)sizeof mine, MPI_UNSIGNED_CHAR, MPI_BOR, local);
    MPI_Comm_free(&local);
    PT_TRY(pt_comm_check(world, code, "finding the processors of this host", err));
    world->crowded = ranks > CPU_COUNT(&all);
    return PT_OK;
}

/* "Open MPI v4.1.4, package: …" becomes "Open MPI 4.1.4"; others keep their first line. */
static void name_library(pt_world *world)
{
    char text[MPI_MAX_LIBRARY_VERSION_STRING] = "";
    int length = 0;
    MPI_Get_library_version(text, &length);
    text[strcspn(text, ",\n")] = 0;
    char *v = strstr(text, " v");
    if (v)
        memmove(v + 1, v + 2, strlen(v + 2) + 1);
    snprintf(world->library, sizeof world->library, "%.*s", (int)sizeof world->library - 1, text);
}

pt_status pt_comm_copy(pt_world *world, MPI_Comm *ret_comm, pt_error *err)
{
    MPI_Comm comm = MPI_COMM_NULL;
    PT_TRY(pt_comm_check(world, MPI_Comm_dup(MPI_COMM_WORLD, &comm), "making a communicator", err));
    MPI_Comm_set_errhandler(comm, MPI_ERRORS_RETURN);
    *ret_comm = comm;
    return PT_OK;
}

static pt_status make_communicators(pt_world *world, pt_error *err)
{
    size_t n = (size_t)PT_PURPOSES * (size_t)world->size;
    world->requests = malloc(n * sizeof *world->requests);
    if (!world->requests)
        return pt_fail(err, PT_ENOMEM, "no memory for %d ranks' requests", world->size);
    for (size_t i = 0; i < n; i++)
        world->requests[i] = MPI_REQUEST_NULL;
    for (int p = 0; p < PT_PURPOSES; p++)
        PT_TRY(pt_comm_copy(world, &world->comms[p], err));
    return pt_comm_copy(world, &world->meeting, err);
}

pt_status pt_world_open(int *argc, char ***argv, pt_world **ret_world, pt_error *err)
{
    pt_status status = PT_OK;
    pt_world *world = calloc(1, sizeof *world);
    if (!world)
        return pt_fail(err, PT_ENOMEM, "no memory for the world of ranks");
    world->size = 1;
    world->chunk_bytes = MESSAGE_BYTES;
    world->meeting = MPI_COMM_NULL;
    for (int p = 0; p < PT_PURPOSES; p++)
        world->comms[p] = MPI_COMM_NULL;
    world->under_mpirun = started_by_launcher();
    PT_GOTO(status, start_mpi(world, argc, argv, err));
    name_library(world);
    PT_GOTO(status, look_at_host(world, err));
    PT_GOTO(status, make_communicators(world, err));
    *ret_world = world;
out:
    if (status != PT_OK) {
        world->broken = true;
        pt_world_close(world);
    }
    return status;
}

/* ---- ending -----------------------------------------------------------------------------------*/

/* Waits for all ranks to come to their end. Orderly: as long as it takes. After a failure, or once
 * the stop flag is set, others may never come: a deadline. */
static bool meet_others(const pt_world *world)
{
    MPI_Request request = MPI_REQUEST_NULL;
    int64_t since = 0, deadline = 0;
    int done = 0;
    if (world->size == 1)
        return true;
    if (world->meeting == MPI_COMM_NULL || MPI_Ibarrier(world->meeting, &request) != MPI_SUCCESS)
        return false;
    for (;;) {
        if (MPI_Test(&request, &done, MPI_STATUS_IGNORE) != MPI_SUCCESS)
            return false;
        if (done)
            return true;
        if (deadline == 0 && (world->broken || (world->stop && *world->stop)))
            deadline = pt_clock_ns() + CLOSE_NS;
        if (deadline != 0 && pt_clock_ns() > deadline)
            return false;
        pt_comm_pause(world, &since);
    }
}

/* At its end MPI_Finalize takes leave of mpirun and waits for the answer, but for 2 s at most (PMIx
 * 4.2.2). An mpirun that did not run for so long, on a machine with too much to do, then finds two
 * things at once: that word, and that the process has ended. Where it takes them in the other order
 * it says "exiting without calling finalize", and a run that was done has failed. So whoever had no
 * answer stays as long again, and longer, for mpirun to read the one before the other. */
static void finalize(const pt_world *world)
{
    int64_t began = pt_clock_ns();
    MPI_Finalize();
    int64_t took = pt_clock_ns() - began;
    int64_t stay = 2 * took < LONGEST_STAY_NS ? 2 * took : LONGEST_STAY_NS;
    if (world->under_mpirun && took > ANSWER_NS && !world->broken)
        pt_clock_sleep_ns(stay);
}

/* When the others do not come MPI stays open: MPI_Finalize would wait for them for ever, and the
 * launcher ends the run as soon as this process ends. */
void pt_world_close(pt_world *world)
{
    if (!world)
        return;
    if (world->started && meet_others(world)) {
        for (int p = 0; p < PT_PURPOSES; p++)
            pt_comm_free(world, &world->comms[p]);
        pt_comm_free(world, &world->meeting);
        finalize(world);
    }
    free(world->requests);
    free(world);
}

void pt_comm_free(const pt_world *world, MPI_Comm *comm)
{
    if (*comm != MPI_COMM_NULL && !world->broken)
        MPI_Comm_free(comm);
    *comm = MPI_COMM_NULL;
}

/* ---- ending after a failure -------------------------------------------------------------------*/

/* Tells the others, as far as that is possible in a moment. */
static void announce_end(pt_world *world)
{
    static const char word = 1;
    int64_t deadline = pt_clock_ns() + ANNOUNCE_NS;
    MPI_Comm comm = world->comms[PT_FOR_STOP];
    for (int r = 0; r < world->size && comm != MPI_COMM_NULL; r++) {
        MPI_Request request = MPI_REQUEST_NULL;
        int done = 0;
        if (r == world->rank || MPI_Isend(&word, 1, MPI_BYTE, r, 0, comm, &request) != MPI_SUCCESS)
            continue;
        while (!done && pt_clock_ns() < deadline)
            if (MPI_Test(&request, &done, MPI_STATUS_IGNORE) != MPI_SUCCESS)
                break;
    }
}

bool pt_world_is_aborting(const pt_world *world)
{
    int arrived = 0;
    MPI_Comm comm = world->comms[PT_FOR_STOP];
    return world->size > 1 && comm != MPI_COMM_NULL &&
           MPI_Iprobe(MPI_ANY_SOURCE, 0, comm, &arrived, MPI_STATUS_IGNORE) == MPI_SUCCESS &&
           arrived;
}

/* Not by MPI_Abort: its notice came garbled out of mpirun in three of ten runs (Open MPI 4.1.4,
 * PMIx 4.2.2), and some aborts got lost. A process that ends with a code other than 0 is never
 * overlooked. The nap lets the others come out of MPI first: what they were reading from this
 * process's memory would fail. */
void pt_world_abort(pt_world *world, int exit_code)
{
    announce_end(world);
    fflush(NULL);
    if (world->size > 1)
        pt_clock_sleep_ns(LINGER_NS);
    _exit(exit_code);
}

/* ---- facts ------------------------------------------------------------------------------------*/

int pt_world_rank(const pt_world *world)
{
    return world->rank;
}

int pt_world_size(const pt_world *world)
{
    return world->size;
}

int pt_world_local_rank(const pt_world *world)
{
    return world->local_rank;
}

const char *pt_world_host(const pt_world *world)
{
    return world->host;
}

bool pt_world_under_mpirun(const pt_world *world)
{
    return world->under_mpirun;
}

void pt_world_describe(const pt_world *world, char *text, size_t size)
{
    snprintf(text, size, "%s", world->library);
}

void pt_world_watch(pt_world *world, const volatile int *stop)
{
    world->stop = stop;
}

void pt_world_pause_by(pt_world *world, void (*pause)(void *context), void *context)
{
    world->pause = pause;
    world->pause_context = context;
}
