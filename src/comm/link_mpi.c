/* Links: a ring of slots on each side of a cut, one communicator for each direction.
 *
 * Every message is an MPI_Issend: it has left when the receiver has matched it to a posted slot. So
 * a slot means the same for a message of 64 bytes as for one of 64 MiB, whatever the transport's
 * eager limit: a sender can be ahead of its receiver by the slots of both sides, never by more, and
 * MPI never buffers what nobody has asked for. A plain MPI_Isend of a short message would be "gone"
 * at once and pile up at the receiver. Large messages cost the same either way; `blocking` only
 * adds the wait inside pt_link_send.
 *
 * A message goes in chunks of at most world->chunk_bytes. The receiver has posted as many as its
 * slot could need before it knows the length, so the sender always sends that many: empty ones at
 * the end. All carry the slot's number as their tag and arrive in order.
 * link_mpi.h draws the rings. */
#include "link_mpi.h"

#include <stdlib.h>

/* A call that the schedule should never lead to. */
static pt_status misused(const pt_link *link, const char *what, pt_error *err)
{
    return pt_link_name(link, pt_fail(err, PT_EINTERNAL, "%s", what), err);
}

/* ---- opening ----------------------------------------------------------------------------------*/

/* Both ends tell each other what they are about to open. It costs a message and turns two programs
 * out of step into an error; and it is a wait that watches the stop flag, which the making of a
 * communicator is not. */
static pt_status meet_other_end(pt_world *world, const pt_link_spec *spec, pt_error *err)
{
    enum { FIELDS = 6 };
    int64_t mine[FIELDS] = {spec->from,     spec->to,
                            spec->slots,    (int64_t)spec->slot_bytes,
                            spec->blocking, (int64_t)world->chunk_bytes};
    int64_t theirs[FIELDS] = {0};
    int peer = world->rank == spec->from ? spec->to : spec->from;
    MPI_Request requests[2] = {MPI_REQUEST_NULL, MPI_REQUEST_NULL};
    pt_status status = PT_OK;
    PT_GOTO(status, pt_comm_check(world,
                                  MPI_Irecv(theirs, sizeof theirs, MPI_BYTE, peer, 0,
                                            world->meeting, &requests[0]),
                                  "opening", err));
    PT_GOTO(status, pt_comm_check(world,
                                  MPI_Isend(mine, sizeof mine, MPI_BYTE, peer, 0, world->meeting,
                                            &requests[1]),
                                  "opening", err));
    PT_GOTO(status, pt_comm_wait(world, peer, &requests[0], MPI_STATUS_IGNORE, err));
    PT_GOTO(status, pt_comm_wait(world, peer, &requests[1], MPI_STATUS_IGNORE, err));
    for (int i = 0; i < FIELDS; i++)
        if (mine[i] != theirs[i])
            return pt_fail(err, PT_EINTERNAL,
                           "rank %d opens %d slots of %zu bytes from %d to %d, rank %d opens %lld "
                           "slots of %lld bytes from %lld to %lld: open links in the same order "
                           "and alike on both ranks",
                           world->rank, spec->slots, spec->slot_bytes, spec->from, spec->to, peer,
                           (long long)theirs[2], (long long)theirs[3], (long long)theirs[0],
                           (long long)theirs[1]);
out:
    if (status != PT_OK)
        pt_comm_drop(requests, 2);
    return status;
}

pt_status pt_comm_pair(pt_world *world, int first, int second, MPI_Comm *ret_comm, pt_error *err)
{
    int ranks[2] = {first, second};
    MPI_Group everyone = MPI_GROUP_NULL, pair = MPI_GROUP_NULL;
    MPI_Comm comm = MPI_COMM_NULL;
    MPI_Comm_group(world->meeting, &everyone);
    int code = MPI_Group_incl(everyone, 2, ranks, &pair);
    /* The tag tells the two directions of an edge apart; other pairs are other groups. */
    if (code == MPI_SUCCESS)
        code = MPI_Comm_create_group(world->meeting, pair, first < second, &comm);
    if (pair != MPI_GROUP_NULL)
        MPI_Group_free(&pair);
    MPI_Group_free(&everyone);
    PT_TRY(pt_comm_check(world, code, "making a communicator of two ranks", err));
    MPI_Comm_set_errhandler(comm, MPI_ERRORS_RETURN);
    *ret_comm = comm;
    return PT_OK;
}

static pt_status check_spec(const pt_world *world, const pt_link_spec *spec, pt_error *err)
{
    if (spec->from == spec->to || spec->from < 0 || spec->to < 0 || spec->from >= world->size ||
        spec->to >= world->size)
        return pt_fail(err, PT_EINTERNAL, "a link joins two different ranks of 0 to %d",
                       world->size - 1);
    if (world->rank != spec->from && world->rank != spec->to)
        return pt_fail(err, PT_EINTERNAL, "rank %d is at neither end", world->rank);
    if (spec->slots < 1 || (!spec->buffer && spec->slot_bytes > 0))
        return pt_fail(err, PT_EINTERNAL, "a link needs a slot at least, and their memory");
    return PT_OK;
}

static pt_status make_slots(pt_link *link, pt_error *err)
{
    size_t chunk = link->world->chunk_bytes, bytes = link->spec.slot_bytes;
    link->chunks = bytes <= chunk ? 1 : (int)((bytes + chunk - 1) / chunk);
    size_t n = (size_t)link->spec.slots * (size_t)link->chunks;
    link->requests = malloc(n * sizeof *link->requests);
    link->arrived = calloc((size_t)link->spec.slots, sizeof *link->arrived);
    link->put_off = calloc((size_t)link->spec.slots, sizeof *link->put_off);
    for (size_t i = 0; link->requests && i < n; i++)
        link->requests[i] = MPI_REQUEST_NULL;
    if (!link->requests || !link->arrived || !link->put_off)
        return pt_fail(err, PT_ENOMEM, "no memory for %d slots", link->spec.slots);
    return PT_OK;
}

pt_status pt_link_open(pt_world *world, const pt_link_spec *spec, pt_link **ret_link, pt_error *err)
{
    pt_status status = PT_OK;
    pt_link *link = calloc(1, sizeof *link);
    if (!link)
        return pt_fail(err, PT_ENOMEM, "no memory for a link");
    *link = (pt_link){.world = world,
                      .spec = *spec,
                      .comm = MPI_COMM_NULL,
                      .is_sender = world->rank == spec->from};
    pt_link_join_world(link);
    PT_GOTO(status, check_spec(world, spec, err));
    PT_GOTO(status, make_slots(link, err));
    PT_GOTO(status, meet_other_end(world, spec, err));
    PT_GOTO(status, pt_comm_pair(world, spec->from, spec->to, &link->comm, err));
    for (int s = 0; s < spec->slots && !link->is_sender; s++)
        PT_GOTO(status, pt_link_slot_start(link, s, spec->slot_bytes, NULL, err));
    *ret_link = link;
out:
    if (status != PT_OK) {
        pt_link_name(link, status, err);
        pt_link_close(link);
    }
    return status;
}

void pt_link_close(pt_link *link)
{
    if (!link)
        return;
    if (link->requests && link->comm != MPI_COMM_NULL)
        pt_comm_drop(link->requests, link->spec.slots * link->chunks);
    pt_link_leave_world(link);
    pt_comm_free(link->world, &link->comm);
    free(link->requests);
    free(link->arrived);
    free(link->put_off);
    free(link);
}

/* ---- sending ----------------------------------------------------------------------------------*/

pt_status pt_link_send_slot(pt_link *link, void **ret_buffer, pt_error *err)
{
    if (!link->is_sender || link->held > 0)
        return misused(link, "a slot is taken twice, or by the receiver", err);
    PT_TRY(pt_link_name(link, pt_link_slot_wait(link, link->next, err), err));
    link->held = 1;
    *ret_buffer = pt_link_slot_at(link, link->next);
    return PT_OK;
}

pt_status pt_link_send(pt_link *link, size_t bytes, const pt_link_ready *ready, pt_error *err)
{
    if (!link->is_sender || link->held == 0)
        return misused(link, "a slot is sent that was not taken", err);
    if (bytes > link->spec.slot_bytes)
        return misused(link, "a message is longer than its slot", err);
    int slot = link->next;
    PT_TRY(pt_link_slot_start(link, slot, bytes, ready, err));
    link->held = 0;
    link->next = pt_link_slot_after(link, slot, 1);
    return link->spec.blocking ? pt_link_name(link, pt_link_slot_wait(link, slot, err), err)
                               : PT_OK;
}

pt_status pt_link_flush(pt_link *link, pt_error *err)
{
    for (int s = 0; link->is_sender && s < link->spec.slots; s++)
        PT_TRY(pt_link_name(link, pt_link_slot_wait(link, s, err), err));
    return PT_OK;
}

/* ---- receiving --------------------------------------------------------------------------------*/

pt_status pt_link_receive(pt_link *link, size_t bytes, const void **ret_buffer, pt_error *err)
{
    int slot = link->next;
    if (link->is_sender || link->held == link->spec.slots)
        return misused(link, "every slot is received and none released", err);
    PT_TRY(pt_link_name(link, pt_link_slot_wait(link, slot, err), err));
    if (link->arrived[slot] != bytes)
        return pt_link_name(
            link,
            pt_fail(err, PT_ECOMM,
                    "%zu bytes came where %zu are due: the two ranks are not running "
                    "the same list",
                    link->arrived[slot], bytes),
            err);
    link->held++;
    link->next = pt_link_slot_after(link, slot, 1);
    *ret_buffer = pt_link_slot_at(link, slot);
    return PT_OK;
}

pt_status pt_link_release(pt_link *link, const pt_link_ready *ready, pt_error *err)
{
    if (link->is_sender || link->held == 0)
        return misused(link, "a slot is released that was not received", err);
    int oldest = pt_link_slot_after(link, link->next, -link->held);
    link->held--;
    return pt_link_slot_start(link, oldest, link->spec.slot_bytes, ready, err);
}

/* ---- both -------------------------------------------------------------------------------------*/

pt_status pt_link_poll(pt_link *link, pt_error *err)
{
    PT_TRY(pt_link_carry_out(link, err));
    for (int s = 0; s < link->spec.slots; s++) {
        bool done = false;
        PT_TRY(pt_link_name(link, pt_link_slot_test(link, s, &done, err), err));
    }
    return PT_OK;
}

int64_t pt_link_receive_wait_ns(const pt_link *link)
{
    return link->receive_wait_ns;
}

int64_t pt_link_send_wait_ns(const pt_link *link)
{
    return link->send_wait_ns;
}
