/* A link carries what crosses one cut in one direction: fixed slots, one communicator of its own,
 * MPI_Issend/MPI_Irecv, receives posted before compute. The order of messages is the order of the
 * schedule, so tag = slot, round robin, and nothing is ever allocated after opening. A slot is free
 * again when the receiver has matched its message, whatever its length: a sender is ahead by the
 * slots of both sides at most, and no transport buffers in between.
 *
 * Sending rank                             Receiving rank
 *   buffer = pt_link_send_slot()   waits     (receives are posted from the start)
 *   …fill buffer…                            buffer = pt_link_receive(bytes)   waits
 *   pt_link_send(bytes)            returns   …read buffer…
 *                                            pt_link_release()   posts the slot again
 *
 * Who fills or reads the buffer may be a device that has only been asked to. Then send and release
 * get a condition: they return at once and are carried out, in the order of the calls, when it
 * holds. It is looked at by pt_link_poll and by every wait of the same world.
 *
 * Between ops the engine calls pt_link_poll() on every link: Open MPI moves nothing unless asked.
 */
#ifndef PIPETRAIN_LINK_H
#define PIPETRAIN_LINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "pipetrain/status.h"
#include "pipetrain/world.h"

typedef struct pt_link pt_link;

typedef struct pt_link_spec {
    int from, to;      /* ranks; a pair of neighbours */
    int slots;         /* >= 1; 2 unless a test wants otherwise */
    size_t slot_bytes; /* longest message */
    bool blocking;     /* pt_link_send waits for the match: a second proof that nothing relies on
                          eager buffering */
    /* slots · slot_bytes for the slots, from the backend's host_new, or from its dev_new where
     * MPI knows devices; slot i begins at buffer + i · slot_bytes. Owned by the caller, outlives
     * the link. */
    void *buffer;
} pt_link_spec;

/* A condition for sending or releasing. Must not wait; asked again until it says so. An error is
 * handed to whoever waits. */
typedef struct pt_link_ready {
    pt_status (*done)(void *context, bool *ret_done, pt_error *err);
    void *context;
} pt_link_ready;

/* Opens one link; called by both ends, which wait for each other. All ranks open their links in one
 * common order (edge by edge from the first stage, say), or a ring of ranks could wait in a circle.
 * PT_EINTERNAL when the two ends differ in what they open. */
pt_status pt_link_open(pt_world *world, const pt_link_spec *spec, pt_link **ret_link,
                       pt_error *err);
/* Cancels receives that are still posted; flush a sender first. NULL is fine. Close before the
 * world. */
void pt_link_close(pt_link *link);

/* Sender: the next slot, once the message that last used it has left. */
pt_status pt_link_send_slot(pt_link *link, void **ret_buffer, pt_error *err);
/* Sender: sends `bytes` of the slot just taken, as soon as it is ready. NULL: it is. */
pt_status pt_link_send(pt_link *link, size_t bytes, const pt_link_ready *ready, pt_error *err);
/* Receiver: waits for the next message. A length other than `bytes` is PT_ECOMM: the two ranks are
 * not running the same list. */
pt_status pt_link_receive(pt_link *link, size_t bytes, const void **ret_buffer, pt_error *err);
/* Receiver: gives the oldest received slot back and posts it again, as soon as it is ready. */
pt_status pt_link_release(pt_link *link, const pt_link_ready *ready, pt_error *err);
/* Lets messages move; never waits. */
pt_status pt_link_poll(pt_link *link, pt_error *err);
/* Sender: waits until everything sent has left. */
pt_status pt_link_flush(pt_link *link, pt_error *err);

/* Time spent waiting in receive, and in send_slot/send/flush, since opening; ns. */
int64_t pt_link_receive_wait_ns(const pt_link *link);
int64_t pt_link_send_wait_ns(const pt_link *link);

#endif
