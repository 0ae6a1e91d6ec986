/* Mail: small records to rank 0 that never make the sender wait.
 *
 * A sender's slot is an MPI_Issend: free again when rank 0 has matched it. A sender that is faster
 * than rank 0 therefore runs out of slots, adds up and posts the sum later, and no queue grows.
 * Rank 0 keeps a receive posted for every slot of every sender, so a sender that stops posting can
 * always flush, even while rank 0 is busy elsewhere; they are served in the order in which they
 * were posted, which is the order of matching. */
#include "comm_mpi.h"

#include <stdlib.h>
#include <string.h>

enum { MAIL_SLOTS = 4, MAIL_TAG = 0 };

struct pt_mail {
    pt_world *world;
    MPI_Comm comm;
    size_t record_bytes;
    int slots;
    char *records;         /* slots x record_bytes */
    MPI_Request *requests; /* one for each slot */
    int next;              /* slot to post, or to take */
};

static char *record_at(const pt_mail *mail, int slot)
{
    return mail->records + (size_t)slot * mail->record_bytes;
}

static int post_receive(pt_mail *mail, int slot)
{
    return MPI_Irecv(record_at(mail, slot), (int)mail->record_bytes, MPI_BYTE, MPI_ANY_SOURCE,
                     MAIL_TAG, mail->comm, &mail->requests[slot]);
}

static pt_status make_slots(pt_mail *mail, pt_error *err)
{
    int others = mail->world->size - 1;
    int slots = MAIL_SLOTS * (mail->world->rank == 0 && others > 0 ? others : 1);
    mail->records = malloc((size_t)slots * mail->record_bytes);
    mail->requests = malloc((size_t)slots * sizeof *mail->requests);
    if (!mail->records || !mail->requests)
        return pt_fail(err, PT_ENOMEM, "no memory for %d records of mail", slots);
    for (int s = 0; s < slots; s++)
        mail->requests[s] = MPI_REQUEST_NULL;
    mail->slots = slots;
    return PT_OK;
}

pt_status pt_mail_open(pt_world *world, size_t record_bytes, pt_mail **ret_mail, pt_error *err)
{
    pt_status status = PT_OK;
    if (record_bytes == 0 || record_bytes > world->chunk_bytes)
        return pt_fail(err, PT_EINTERNAL, "mail of %zu bytes a record", record_bytes);
    pt_mail *mail = calloc(1, sizeof *mail);
    if (!mail)
        return pt_fail(err, PT_ENOMEM, "no memory for mail");
    *mail = (pt_mail){.world = world, .comm = MPI_COMM_NULL, .record_bytes = record_bytes};
    PT_GOTO(status, make_slots(mail, err));
    PT_GOTO(status, pt_comm_copy(world, &mail->comm, err));
    for (int s = 0; s < mail->slots && world->rank == 0 && world->size > 1; s++)
        PT_GOTO(status, pt_comm_check(world, post_receive(mail, s), "posting for mail", err));
    *ret_mail = mail;
out:
    if (status != PT_OK)
        pt_mail_close(mail);
    return status;
}

void pt_mail_close(pt_mail *mail)
{
    if (!mail)
        return;
    bool all_gone = pt_comm_drop(mail->requests, mail->slots);
    pt_comm_free(mail->world, &mail->comm);
    /* What MPI may still read or write stays until the process ends, which then is soon. */
    if (all_gone)
        free(mail->records);
    free(mail->requests);
    free(mail);
}

bool pt_mail_post(pt_mail *mail, const void *record)
{
    int slot = mail->next, done = 0;
    MPI_Request *request = &mail->requests[slot];
    if (mail->world->rank == 0)
        return false;
    if (MPI_Test(request, &done, MPI_STATUS_IGNORE) != MPI_SUCCESS || !done)
        return false;
    memcpy(record_at(mail, slot), record, mail->record_bytes);
    if (MPI_Issend(record_at(mail, slot), (int)mail->record_bytes, MPI_BYTE, /*dest=*/0, MAIL_TAG,
                   mail->comm, request) != MPI_SUCCESS)
        return false;
    mail->next = (slot + 1) % mail->slots;
    return true;
}

bool pt_mail_take(pt_mail *mail, void *ret_record, int *ret_sender)
{
    MPI_Status status;
    int slot = mail->next, done = 0;
    if (mail->requests[slot] == MPI_REQUEST_NULL)
        return false;
    if (MPI_Test(&mail->requests[slot], &done, &status) != MPI_SUCCESS || !done)
        return false;
    memcpy(ret_record, record_at(mail, slot), mail->record_bytes);
    *ret_sender = status.MPI_SOURCE;
    if (post_receive(mail, slot) != MPI_SUCCESS)
        mail->requests[slot] = MPI_REQUEST_NULL;
    mail->next = (slot + 1) % mail->slots;
    return true;
}

pt_status pt_mail_flush(pt_mail *mail, pt_error *err)
{
    for (int s = 0; s < mail->slots && mail->world->rank != 0; s++)
        PT_TRY(pt_comm_wait(mail->world, /*peer=*/0, &mail->requests[s], MPI_STATUS_IGNORE, err));
    return PT_OK;
}
