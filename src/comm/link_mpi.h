/* The inside of a link, shared by link_mpi.c (opening, sending, receiving) and link_slots_mpi.c (a
 * slot's requests, its waits, and what is put off).
 *
 *   sender's ring   next: slot to take            held: 1 between send_slot and send
 *                   put off: the slots next - n_put_off … next - 1
 *   receiver's ring next: slot that comes next    held: received, not yet released; the oldest of
 *                                                 them is slot next - held
 *                   put off: the slots before that one
 *
 * A send or release whose condition does not hold yet is put off and carried out, in order, as soon
 * as it does. Somebody must look: pt_link_poll does, and so does every wait of this world, be it
 * for another link or a collective. Otherwise two ranks could wait for each other's message while
 * each has one to send that has long been ready. */
#ifndef PIPETRAIN_COMM_LINK_MPI_H
#define PIPETRAIN_COMM_LINK_MPI_H

#include "comm_mpi.h"
#include "pipetrain/link.h"

/* A send or release that was asked for and waits for its condition. */
typedef struct pt_link_put_off {
    bool waits;
    size_t bytes;
    pt_link_ready ready;
} pt_link_put_off;

struct pt_link {
    pt_world *world;
    pt_link *next_link; /* of the world's links */
    pt_link_spec spec;
    MPI_Comm comm;
    bool is_sender;
    int chunks;               /* messages per slot */
    MPI_Request *requests;    /* slots x chunks */
    size_t *arrived;          /* bytes, per slot, of the chunks that have come (receiver) */
    pt_link_put_off *put_off; /* per slot */
    int n_put_off;
    int next, held;
    int64_t receive_wait_ns, send_wait_ns;
};

void *pt_link_slot_at(const pt_link *link, int slot);
/* `slot` and `by` slots further on (or back). */
int pt_link_slot_after(const pt_link *link, int slot, int by);
/* Starts the slot's message when the condition (NULL: none) holds and nothing older is put off. */
pt_status pt_link_slot_start(pt_link *link, int slot, size_t bytes, const pt_link_ready *ready,
                             pt_error *err);
/* Has the slot's message left, or come? */
pt_status pt_link_slot_test(pt_link *link, int slot, bool *ret_done, pt_error *err);
pt_status pt_link_slot_wait(pt_link *link, int slot, pt_error *err);
/* Carries out what was put off, as far as conditions hold; never waits. */
pt_status pt_link_carry_out(pt_link *link, pt_error *err);

/* A link that the world's waits look after, until it leaves. */
void pt_link_join_world(pt_link *link);
void pt_link_leave_world(pt_link *link);

/* Says on which link something happened. */
pt_status pt_link_name(const pt_link *link, pt_status status, pt_error *err);

#endif
