/* What is said to all ranks, or by all: broadcast, gather, barrier, agreement, clock offset.
 *
 * Every one is a star of point-to-point messages around its root (comm_mpi.h says why). A message
 * that is longer than one MPI count can say goes in chunks; an empty one still goes, so that a
 * barrier is a gather and a broadcast of nothing. */
#include "comm_mpi.h"

#include <string.h>

#include "pipetrain/clock.h"

enum { TAG_CAST = 1, TAG_GATHER, TAG_CLOCK };

/* Enough that one of them meets two ranks awake with nothing between them. */
enum { CLOCK_ROUNDS = 64 };

static MPI_Request *requests_for(pt_world *world, pt_purpose purpose)
{
    return world->requests + (size_t)purpose * (size_t)world->size;
}

/* A collective that fails half way leaves its communicator out of step for good. */
static pt_status give_up(pt_world *world, pt_purpose purpose, pt_status status)
{
    if (status != PT_OK) {
        pt_comm_drop(requests_for(world, purpose), world->size);
        world->broken = true;
    }
    return status;
}

static size_t chunks_of(const pt_world *world, size_t bytes)
{
    return bytes == 0 ? 1 : (bytes + world->chunk_bytes - 1) / world->chunk_bytes;
}

static size_t chunk_at(const pt_world *world, size_t bytes, size_t offset)
{
    return bytes - offset < world->chunk_bytes ? bytes - offset : world->chunk_bytes;
}

/* Waits for a receive and holds it to the length that both sides should know. */
static pt_status wait_exactly(pt_world *world, MPI_Request *request, int source, size_t bytes,
                              pt_error *err)
{
    MPI_Status mpi_status;
    int got = 0;
    PT_TRY(pt_comm_wait(world, source, request, &mpi_status, err));
    MPI_Get_count(&mpi_status, MPI_BYTE, &got);
    if ((size_t)got != bytes)
        return pt_fail(err, PT_ECOMM,
                       "rank %d sent %d bytes where rank %d waits for %zu: the ranks are not "
                       "doing the same thing",
                       source, got, world->rank, bytes);
    return PT_OK;
}

/* ---- broadcast --------------------------------------------------------------------------------*/

static pt_status cast_begin(pt_world *world, pt_purpose purpose, int root, void *data, size_t bytes,
                            pt_error *err)
{
    MPI_Comm comm = world->comms[purpose];
    MPI_Request *requests = requests_for(world, purpose);
    int count = (int)bytes;
    if (world->rank != root)
        return pt_comm_check(
            world, MPI_Irecv(data, count, MPI_BYTE, root, TAG_CAST, comm, &requests[root]),
            "receiving a broadcast", err);
    for (int r = 0; r < world->size; r++) {
        if (r == root)
            continue;
        int code = MPI_Isend(data, count, MPI_BYTE, r, TAG_CAST, comm, &requests[r]);
        PT_TRY(pt_comm_check(world, code, "sending a broadcast", err));
    }
    return PT_OK;
}

pt_status pt_comm_cast_begin(pt_world *world, pt_purpose purpose, int root, void *data,
                             size_t bytes, pt_error *err)
{
    return give_up(world, purpose, cast_begin(world, purpose, root, data, bytes, err));
}

static pt_status cast_end(pt_world *world, pt_purpose purpose, int root, size_t bytes,
                          pt_error *err)
{
    MPI_Request *requests = requests_for(world, purpose);
    if (world->rank != root)
        return wait_exactly(world, &requests[root], root, bytes, err);
    for (int r = 0; r < world->size; r++)
        PT_TRY(pt_comm_wait(world, r, &requests[r], MPI_STATUS_IGNORE, err));
    return PT_OK;
}

pt_status pt_comm_cast_end(pt_world *world, pt_purpose purpose, int root, size_t bytes,
                           pt_error *err)
{
    return give_up(world, purpose, cast_end(world, purpose, root, bytes, err));
}

pt_status pt_world_broadcast(pt_world *world, pt_purpose purpose, int root, void *data,
                             size_t bytes, pt_error *err)
{
    size_t chunks = chunks_of(world, bytes), offset = 0;
    for (size_t c = 0; c < chunks; c++) {
        size_t now = chunk_at(world, bytes, offset);
        PT_TRY(pt_comm_cast_begin(world, purpose, root, (char *)data + offset, now, err));
        PT_TRY(pt_comm_cast_end(world, purpose, root, now, err));
        offset += now;
    }
    return PT_OK;
}

/* ---- gather -----------------------------------------------------------------------------------*/

static pt_status give_part(pt_world *world, pt_purpose purpose, int root, const char *data,
                           size_t bytes, pt_error *err)
{
    MPI_Request *request = requests_for(world, purpose);
    size_t chunks = chunks_of(world, bytes), offset = 0;
    for (size_t c = 0; c < chunks; c++) {
        size_t now = chunk_at(world, bytes, offset);
        PT_TRY(pt_comm_check(world,
                             MPI_Isend(data + offset, (int)now, MPI_BYTE, root, TAG_GATHER,
                                       world->comms[purpose], request),
                             "giving to a gather", err));
        PT_TRY(pt_comm_wait(world, root, request, MPI_STATUS_IGNORE, err));
        offset += now;
    }
    return PT_OK;
}

/* Takes the chunk that begins at `offset` of every part that has one. *ret_more: is there another?
 * All ranks' chunks are received at once, so that a slow rank does not keep a fast one waiting. */
static pt_status take_round(pt_world *world, pt_purpose purpose, const size_t *counts,
                            size_t offset, char *to, bool *ret_more, pt_error *err)
{
    MPI_Request *requests = requests_for(world, purpose);
    size_t begin = 0;
    bool more = false;
    for (int r = 0; r < world->size; begin += counts[r++]) {
        if (r == world->rank || (offset > 0 && offset >= counts[r]))
            continue;
        size_t now = chunk_at(world, counts[r], offset);
        more = more || offset + now < counts[r];
        PT_TRY(pt_comm_check(world,
                             MPI_Irecv(to + begin + offset, (int)now, MPI_BYTE, r, TAG_GATHER,
                                       world->comms[purpose], &requests[r]),
                             "taking part of a gather", err));
    }
    for (int r = 0; r < world->size; r++)
        if (requests[r] != MPI_REQUEST_NULL)
            PT_TRY(wait_exactly(world, &requests[r], r, chunk_at(world, counts[r], offset), err));
    *ret_more = more;
    return PT_OK;
}

static pt_status take_parts(pt_world *world, pt_purpose purpose, const char *mine,
                            const size_t *counts, char *to, pt_error *err)
{
    size_t begin = 0;
    bool more = true;
    for (int r = 0; r < world->rank; r++)
        begin += counts[r];
    if (counts[world->rank] > 0)
        memcpy(to + begin, mine, counts[world->rank]);
    for (size_t offset = 0; more; offset += world->chunk_bytes)
        PT_TRY(take_round(world, purpose, counts, offset, to, &more, err));
    return PT_OK;
}

pt_status pt_world_gather(pt_world *world, pt_purpose purpose, int root, const void *data,
                          size_t bytes, const size_t *counts, void *ret_data, pt_error *err)
{
    if (world->rank != root)
        return give_up(world, purpose, give_part(world, purpose, root, data, bytes, err));
    if (counts[root] != bytes)
        return pt_fail(err, PT_EINTERNAL, "rank %d gathers %zu bytes of itself but counts %zu",
                       root, bytes, counts[root]);
    return give_up(world, purpose, take_parts(world, purpose, data, counts, ret_data, err));
}

/* ---- made of these ----------------------------------------------------------------------------*/

static pt_status word_to_rank_0(pt_world *world, pt_purpose purpose, int32_t word, pt_error *err)
{
    return pt_world_gather(world, purpose, /*root=*/0, &word, sizeof word, NULL, NULL, err);
}

static pt_status word_from(pt_world *world, pt_purpose purpose, int rank, int32_t *ret_word,
                           pt_error *err)
{
    int32_t word = 0;
    MPI_Request *request = &requests_for(world, purpose)[rank];
    int code =
        MPI_Irecv(&word, sizeof word, MPI_BYTE, rank, TAG_GATHER, world->comms[purpose], request);
    pt_status status = pt_comm_check(world, code, "waiting for all ranks", err);
    if (status == PT_OK)
        status = wait_exactly(world, request, rank, sizeof word, err);
    PT_TRY(give_up(world, purpose, status));
    *ret_word = word;
    return PT_OK;
}

/* Rank 0 hears a word from each rank, then gives an empty one to all. */
pt_status pt_world_barrier(pt_world *world, pt_purpose purpose, pt_error *err)
{
    int32_t word = 0;
    if (world->rank != 0)
        PT_TRY(word_to_rank_0(world, purpose, word, err));
    for (int r = 1; world->rank == 0 && r < world->size; r++)
        PT_TRY(word_from(world, purpose, r, &word, err));
    return pt_world_broadcast(world, purpose, /*root=*/0, &word, /*bytes=*/0, err);
}

/* Rank 0's part of an agreement: hears every status and keeps the lowest rank's failure. */
static pt_status hear_statuses(pt_world *world, pt_status mine, int32_t verdict[2], pt_error *err)
{
    verdict[0] = mine == PT_OK ? -1 : 0;
    verdict[1] = (int32_t)mine;
    for (int r = 1; r < world->size; r++) {
        int32_t theirs = PT_OK;
        PT_TRY(word_from(world, PT_FOR_STATUS, r, &theirs, err));
        if (verdict[0] < 0 && theirs != PT_OK) {
            verdict[0] = r;
            verdict[1] = theirs;
        }
    }
    return PT_OK;
}

/* Statuses go to rank 0, its verdict to all, and the message comes from the rank that has it. */
static pt_status agree(pt_world *world, pt_status mine, pt_error *message, int *ret_rank,
                       pt_error *err)
{
    int32_t verdict[2] = {-1, PT_OK}; /* lowest rank that failed, its status */
    if (world->rank == 0)
        PT_TRY(hear_statuses(world, mine, verdict, err));
    else
        PT_TRY(word_to_rank_0(world, PT_FOR_STATUS, (int32_t)mine, err));
    PT_TRY(pt_world_broadcast(world, PT_FOR_STATUS, /*root=*/0, verdict, sizeof verdict, err));
    if (verdict[0] >= 0)
        PT_TRY(pt_world_broadcast(world, PT_FOR_STATUS, verdict[0], message->text,
                                  sizeof message->text, err));
    message->code = (pt_status)verdict[1];
    *ret_rank = verdict[0];
    return PT_OK;
}

pt_status pt_world_agree(pt_world *world, pt_status mine, pt_error *err, int *ret_rank)
{
    pt_error message = {.code = mine}, trouble = {.code = PT_OK};
    int rank = -1;
    if (mine != PT_OK && err)
        memcpy(message.text, err->text, sizeof message.text);
    pt_status status = agree(world, mine, &message, &rank, &trouble);
    if (status != PT_OK) {
        /* A rank's own failure says more than that it could not be told to the others. */
        if (mine != PT_OK)
            return mine;
        return pt_fail(err, status, "agreeing with the other ranks: %s", trouble.text);
    }
    if (message.code != PT_OK && err)
        *err = message;
    if (ret_rank)
        *ret_rank = rank;
    return message.code;
}

/* ---- clocks -----------------------------------------------------------------------------------*/

static pt_status exchange(pt_world *world, int peer, bool sends, int64_t *value, pt_error *err)
{
    MPI_Comm comm = world->comms[PT_FOR_METRICS];
    MPI_Request *request = &requests_for(world, PT_FOR_METRICS)[peer];
    int code = sends ? MPI_Isend(value, sizeof *value, MPI_BYTE, peer, TAG_CLOCK, comm, request)
                     : MPI_Irecv(value, sizeof *value, MPI_BYTE, peer, TAG_CLOCK, comm, request);
    PT_TRY(pt_comm_check(world, code, "comparing clocks", err));
    return pt_comm_wait(world, peer, request, MPI_STATUS_IGNORE, err);
}

static pt_status answer_with_clock(pt_world *world, int peer, pt_error *err)
{
    for (int i = 0; i < CLOCK_ROUNDS; i++) {
        int64_t value = 0;
        PT_TRY(exchange(world, peer, /*sends=*/false, &value, err));
        value = pt_clock_ns();
        PT_TRY(exchange(world, peer, /*sends=*/true, &value, err));
    }
    return PT_OK;
}

/* Rank 0's answer was given somewhere in the round trip; the shortest one says most (Cristian,
 * "Probabilistic clock synchronization", 1989). */
static pt_status ask_for_clock(pt_world *world, int64_t *ret_ns, pt_error *err)
{
    int64_t best_trip = INT64_MAX, offset = 0;
    for (int i = 0; i < CLOCK_ROUNDS; i++) {
        int64_t there = 0, sent = pt_clock_ns();
        PT_TRY(exchange(world, /*peer=*/0, /*sends=*/true, &there, err));
        PT_TRY(exchange(world, /*peer=*/0, /*sends=*/false, &there, err));
        int64_t trip = pt_clock_ns() - sent;
        if (trip < best_trip) {
            best_trip = trip;
            offset = sent + trip / 2 - there;
        }
    }
    *ret_ns = offset;
    return PT_OK;
}

pt_status pt_world_clock_offset(pt_world *world, int64_t *ret_ns, pt_error *err)
{
    int64_t offset = 0;
    pt_status status = PT_OK;
    if (world->rank != 0)
        status = ask_for_clock(world, &offset, err);
    for (int r = 1; world->rank == 0 && r < world->size && status == PT_OK; r++)
        status = answer_with_clock(world, r, err);
    PT_TRY(give_up(world, PT_FOR_METRICS, status));
    *ret_ns = offset;
    return PT_OK;
}
