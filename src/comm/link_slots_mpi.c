/* The slots of a link: their MPI requests, waiting for them, and sends and releases that are put
 * off until a condition holds; see link_mpi.h. */
#include "link_mpi.h"

#include "pipetrain/clock.h"

enum { SENDER = 0, RECEIVER = 1 }; /* ranks in the link's communicator */

pt_status pt_link_name(const pt_link *link, pt_status status, pt_error *err)
{
    if (status != PT_OK && err)
        pt_fail_within(err, "link from rank %d to rank %d", link->spec.from, link->spec.to);
    return status;
}

void *pt_link_slot_at(const pt_link *link, int slot)
{
    return (char *)link->spec.buffer + (size_t)slot * link->spec.slot_bytes;
}

int pt_link_slot_after(const pt_link *link, int slot, int by)
{
    int slots = link->spec.slots;
    return ((slot + by) % slots + slots) % slots;
}

static MPI_Request *requests_of(const pt_link *link, int slot)
{
    return link->requests + (size_t)slot * (size_t)link->chunks;
}

/* Bytes of chunk c in a message of `bytes`: 0 after its end. */
static int chunk_bytes(const pt_link *link, size_t bytes, int c)
{
    size_t begin = (size_t)c * link->world->chunk_bytes;
    if (begin >= bytes)
        return 0;
    return (int)(bytes - begin < link->world->chunk_bytes ? bytes - begin
                                                          : link->world->chunk_bytes);
}

static pt_status start_now(pt_link *link, int slot, size_t bytes, pt_error *err)
{
    link->arrived[slot] = 0;
    char *at = pt_link_slot_at(link, slot);
    for (int c = 0; c < link->chunks; c++) {
        int count = chunk_bytes(link, bytes, c);
        MPI_Request *request = requests_of(link, slot) + c;
        int code = link->is_sender
                       ? MPI_Issend(at, count, MPI_BYTE, RECEIVER, slot, link->comm, request)
                       : MPI_Irecv(at, count, MPI_BYTE, SENDER, slot, link->comm, request);
        PT_TRY(pt_comm_check(link->world, code, link->is_sender ? "sending" : "posting a receive",
                             err));
        at += count;
    }
    return PT_OK;
}

/* ---- put off ----------------------------------------------------------------------------------*/

static pt_status holds(const pt_link_ready *ready, bool *ret_holds, pt_error *err)
{
    *ret_holds = true;
    return ready && ready->done ? ready->done(ready->context, ret_holds, err) : PT_OK;
}

pt_status pt_link_carry_out(pt_link *link, pt_error *err)
{
    while (link->n_put_off > 0) {
        int behind = link->n_put_off + (link->is_sender ? 0 : link->held);
        int slot = pt_link_slot_after(link, link->next, -behind);
        pt_link_put_off *oldest = &link->put_off[slot];
        bool now = false;
        PT_TRY(pt_link_name(link, holds(&oldest->ready, &now, err), err));
        if (!now)
            return PT_OK;
        oldest->waits = false;
        link->n_put_off--;
        link->world->put_off--;
        PT_TRY(pt_link_name(link, start_now(link, slot, oldest->bytes, err), err));
    }
    return PT_OK;
}

pt_status pt_comm_carry_out(pt_world *world, pt_error *err)
{
    for (pt_link *link = world->links; link && world->put_off > 0; link = link->next_link)
        PT_TRY(pt_link_carry_out(link, err));
    return PT_OK;
}

pt_status pt_link_slot_start(pt_link *link, int slot, size_t bytes, const pt_link_ready *ready,
                             pt_error *err)
{
    bool now = false;
    if (link->n_put_off == 0)
        PT_TRY(pt_link_name(link, holds(ready, &now, err), err));
    if (now)
        return pt_link_name(link, start_now(link, slot, bytes, err), err);
    link->put_off[slot] = (pt_link_put_off){.waits = true, .bytes = bytes};
    if (ready)
        link->put_off[slot].ready = *ready;
    link->n_put_off++;
    link->world->put_off++;
    return PT_OK;
}

void pt_link_join_world(pt_link *link)
{
    link->next_link = link->world->links;
    link->world->links = link;
}

void pt_link_leave_world(pt_link *link)
{
    link->world->put_off -= link->n_put_off;
    for (pt_link **at = &link->world->links; *at; at = &(*at)->next_link)
        if (*at == link) {
            *at = link->next_link;
            return;
        }
}

/* ---- waiting ----------------------------------------------------------------------------------*/

pt_status pt_link_slot_test(pt_link *link, int slot, bool *ret_done, pt_error *err)
{
    bool all_done = !link->put_off[slot].waits;
    for (int c = 0; c < link->chunks; c++) {
        MPI_Request *request = requests_of(link, slot) + c;
        MPI_Status status;
        int done = 0, count = 0;
        if (*request == MPI_REQUEST_NULL)
            continue;
        int code = MPI_Test(request, &done, &status);
        PT_TRY(pt_comm_check(link->world, code, link->is_sender ? "sending" : "receiving", err));
        all_done = all_done && done;
        if (done && !link->is_sender) {
            MPI_Get_count(&status, MPI_BYTE, &count);
            link->arrived[slot] += (size_t)count;
        }
    }
    *ret_done = all_done;
    return PT_OK;
}

pt_status pt_link_slot_wait(pt_link *link, int slot, pt_error *err)
{
    bool done = false;
    int64_t since = 0;
    pt_status status = pt_link_slot_test(link, slot, &done, err);
    if (status == PT_OK && done)
        return PT_OK;
    int64_t began = pt_clock_ns();
    pt_comm_awaits(link->world, link->is_sender ? link->spec.to : link->spec.from);
    while (status == PT_OK && !done) {
        status = pt_comm_turn(link->world, &since, err);
        if (status == PT_OK)
            status = pt_link_slot_test(link, slot, &done, err);
    }
    pt_comm_awaits_nobody(link->world);
    *(link->is_sender ? &link->send_wait_ns : &link->receive_wait_ns) += pt_clock_ns() - began;
    return status;
}
