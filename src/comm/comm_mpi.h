/* What the files of src/comm share. MPI is known here and nowhere above.
 *
 * All waits are loops around MPI_Test (pt_comm_wait), because a wait inside MPI would neither see
 * the stop flag nor leave the processor to the other ranks of this host. All collectives are made
 * of point-to-point messages for the same reason: a receive can be cancelled when a wait is
 * interrupted; MPI_Ibcast and its like cannot, and would go on writing into memory that the caller
 * has given up. They are stars, not trees: a rank in the middle of a tree passes nothing on while
 * it computes, since MPI moves nothing unless asked. */
#ifndef PIPETRAIN_COMM_COMM_MPI_H
#define PIPETRAIN_COMM_COMM_MPI_H

#include <mpi.h>
#include <stdatomic.h>

#include "pipetrain/world.h"

enum { PT_LIBRARY_TEXT = 80 }; /* bytes: "Open MPI 4.1.4" and room */

struct pt_world {
    int rank, size, local_rank;
    bool crowded;       /* more ranks than processors on this host: never spin */
    bool broken;        /* MPI has failed or a collective was left half done */
    bool under_mpirun;  /* a launcher started us */
    bool started;       /* MPI_Init has run */
    size_t chunk_bytes; /* longest single MPI message: MPI counts are ints */
    const volatile int *stop;
    void (*pause)(void *context); /* NULL: our own */
    void *pause_context;
    MPI_Comm comms[PT_PURPOSES];
    MPI_Comm meeting;      /* where two ranks agree on a link, and parent of what is made later */
    MPI_Request *requests; /* `size` for each purpose: one collective at a time on each */
    struct pt_link *links; /* all that are open */
    /* Written by the thread that speaks with MPI, read by any. */
    atomic_int put_off; /* sends and releases that links have put off */
    atomic_int awaited; /* 1 + the rank that is waited for; 0: no wait is under way */
    char host[MPI_MAX_PROCESSOR_NAME];
    char library[PT_LIBRARY_TEXT];
};

/* MPI's word on a call: PT_OK, or PT_ECOMM with "<doing>: <MPI_Error_string>". */
pt_status pt_comm_check(pt_world *world, int code, const char *doing, pt_error *err);

/* One turn of a wait: spins, then yields, then sleeps, by how long the wait has lasted. Start with
 * *since_ns = 0. */
void pt_comm_pause(const pt_world *world, int64_t *since_ns);
/* PT_EINTERRUPTED once the stop flag is set, or another rank has said that it ends the run. */
pt_status pt_comm_stopped(const pt_world *world, pt_error *err);
/* What every wait does between two looks: watches for the end of the run, carries out what links
 * have put off, and pauses. */
pt_status pt_comm_turn(pt_world *world, int64_t *since_ns, pt_error *err);
/* Carries out what the links of this world have put off, as far as it is ready; never waits. */
pt_status pt_comm_carry_out(pt_world *world, pt_error *err);
/* Waits for one request, which rank `peer` has to answer; looks at it before it looks at the stop
 * flag. */
pt_status pt_comm_wait(pt_world *world, int peer, MPI_Request *request, MPI_Status *ret_status,
                       pt_error *err);
/* Around any wait: whom it is for. */
void pt_comm_awaits(pt_world *world, int peer);
void pt_comm_awaits_nobody(pt_world *world);
/* Cancels what is still under way. Never waits longer than a fraction of a second, even when the
 * other rank is gone. True when MPI no longer knows any of the buffers. */
bool pt_comm_drop(MPI_Request *requests, int n);

/* A communicator of its own for `parent`'s ranks, with errors that return. Collective. */
pt_status pt_comm_copy(pt_world *world, MPI_Comm *ret_comm, pt_error *err);
/* One of {first, second} alone, ranks 0 and 1 in that order. Called by those two. */
pt_status pt_comm_pair(pt_world *world, int first, int second, MPI_Comm *ret_comm, pt_error *err);
/* Gives a communicator back, unless the world is broken. MPI_COMM_NULL is fine. */
void pt_comm_free(const pt_world *world, MPI_Comm *comm);

/* A broadcast in two halves, so that several can be under way; at most world->chunk_bytes, one at a
 * time for each purpose. */
pt_status pt_comm_cast_begin(pt_world *world, pt_purpose purpose, int root, void *data,
                             size_t bytes, pt_error *err);
pt_status pt_comm_cast_end(pt_world *world, pt_purpose purpose, int root, size_t bytes,
                           pt_error *err);

#endif
