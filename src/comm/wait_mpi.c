/* Waiting, and MPI's errors in words. */
#include "comm_mpi.h"

#include <sched.h>
#include <string.h>

#include "pipetrain/clock.h"

enum {
    /* A neighbour's answer takes a few µs in shared memory: worth spinning for. */
    SPIN_NS = 30 * 1000,
    /* Yielding keeps the reaction short where a rank shares its processor. */
    YIELD_NS = 200 * 1000,
    /* After that the wait is for compute, which takes milliseconds. The kernel adds about 50 µs. */
    SLEEP_NS = 25 * 1000,
    /* A cancelled receive ends at once unless its message is half way; this bounds the half-way
     * case when the sender is gone. */
    DROP_NS = 100 * 1000 * 1000
};

pt_status pt_comm_check(pt_world *world, int code, const char *doing, pt_error *err)
{
    char text[MPI_MAX_ERROR_STRING];
    int length = 0;
    if (code == MPI_SUCCESS)
        return PT_OK;
    world->broken = true;
    if (MPI_Error_string(code, text, &length) != MPI_SUCCESS)
        return pt_fail(err, PT_ECOMM, "%s: MPI error %d", doing, code);
    return pt_fail(err, PT_ECOMM, "%s: %s", doing, text);
}

void pt_comm_pause(const pt_world *world, int64_t *since_ns)
{
    int64_t now = pt_clock_ns();
    if (*since_ns == 0)
        *since_ns = now;
    int64_t waited = now - *since_ns;
    if (waited < SPIN_NS && !world->crowded)
        return;
    if (waited < YIELD_NS)
        sched_yield();
    else
        pt_clock_sleep_ns(SLEEP_NS);
}

pt_status pt_comm_stopped(const pt_world *world, pt_error *err)
{
    if (world->stop && *world->stop)
        return pt_fail(err, PT_EINTERRUPTED, "interrupted while waiting for another rank");
    if (pt_world_is_aborting(world))
        return pt_fail(err, PT_EINTERRUPTED, "another rank has failed");
    return PT_OK;
}

/* A message that is put off waits for a device, which takes µs: no sleep may lie between. */
pt_status pt_comm_turn(pt_world *world, int64_t *since_ns, pt_error *err)
{
    PT_TRY(pt_comm_stopped(world, err));
    PT_TRY(pt_comm_carry_out(world, err));
    if (world->pause)
        world->pause(world->pause_context);
    else if (world->put_off > 0)
        sched_yield();
    else
        pt_comm_pause(world, since_ns);
    return PT_OK;
}

void pt_comm_awaits(pt_world *world, int peer)
{
    atomic_store_explicit(&world->awaited, peer + 1, memory_order_relaxed);
}

void pt_comm_awaits_nobody(pt_world *world)
{
    pt_comm_awaits(world, -1);
}

int pt_world_awaited(const pt_world *world)
{
    return atomic_load_explicit(&world->awaited, memory_order_relaxed) - 1;
}

int pt_world_put_off(const pt_world *world)
{
    return atomic_load_explicit(&world->put_off, memory_order_relaxed);
}

static pt_status wait_until_done(pt_world *world, MPI_Request *request, MPI_Status *ret_status,
                                 pt_error *err)
{
    int64_t since = 0;
    for (;;) {
        int done = 0;
        int code = MPI_Test(request, &done, ret_status);
        PT_TRY(pt_comm_check(world, code, "waiting for a message", err));
        if (done)
            return PT_OK;
        PT_TRY(pt_comm_turn(world, &since, err));
    }
}

pt_status pt_comm_wait(pt_world *world, int peer, MPI_Request *request, MPI_Status *ret_status,
                       pt_error *err)
{
    pt_comm_awaits(world, peer);
    pt_status status = wait_until_done(world, request, ret_status, err);
    pt_comm_awaits_nobody(world);
    return status;
}

bool pt_comm_drop(MPI_Request *requests, int n)
{
    int64_t deadline = pt_clock_ns() + DROP_NS;
    bool all_gone = true;
    for (int i = 0; i < n; i++)
        if (requests[i] != MPI_REQUEST_NULL)
            MPI_Cancel(&requests[i]);
    for (int i = 0; i < n; i++) {
        int done = requests[i] == MPI_REQUEST_NULL;
        while (!done && MPI_Test(&requests[i], &done, MPI_STATUS_IGNORE) == MPI_SUCCESS) {
            if (!done && pt_clock_ns() > deadline)
                break;
            if (!done)
                sched_yield();
        }
        if (requests[i] != MPI_REQUEST_NULL)
            MPI_Request_free(&requests[i]);
        all_gone = all_gone && done;
    }
    return all_gone;
}
