/* An MPI that takes device memory, made of one that does not: MPI's profiling interface puts these
 * calls before the library's own. A message of device memory goes by way of host memory, and the
 * device's doors are open only while it is copied: when the send is asked for, and when the message
 * has come. All messages, of host memory too, are shown to the streams (fake_messages.c). */
#include <mpi.h>
#include <stdlib.h>
#include <string.h>

#include "fake_inside.h"
#include "pipetrain/world.h"

typedef struct tracked {
    MPI_Request request;
    pt_fake_message *message;
    void *at, *bounce; /* bounce: NULL for host memory */
    bool arrives;
    struct tracked *next;
} tracked;

static tracked *under_way;
static int64_t arrived; /* messages of device memory */

static bool is_mode(const char *name)
{
    const char *mode = getenv("PT_FAKE_MPI");
    return mode && strncmp(mode, name, strlen(name)) == 0;
}

bool pt_world_knows_devices(void)
{
    return is_mode("yes") || is_mode("spoil:");
}

static bool is_spoilt(void)
{
    const char *mode = getenv("PT_FAKE_MPI");
    return is_mode("spoil:") && pt_fake_is_meant(mode) &&
           ++arrived == strtoll(strchr(mode, ':') + 1, NULL, 10);
}

/* NULL for a message of nothing. */
static tracked *track(const void *at, size_t bytes, bool arrives)
{
    if (bytes == 0)
        return NULL;
    if (pt_fake_is_device(at) && !getenv("PT_FAKE_MPI"))
        pt_fake_misuse("an MPI that takes no device memory is given %zu bytes of it", bytes);
    tracked *t = calloc(1, sizeof *t);
    if (!t)
        abort();
    t->message = pt_fake_message_begin(at, bytes, arrives);
    t->at = (void *)at; /* written only where it arrives */
    t->arrives = arrives;
    if (!pt_fake_is_device(at))
        return t;
    t->bounce = malloc(bytes);
    if (!t->bounce)
        abort();
    if (!arrives) {
        pt_fake_open();
        memcpy(t->bounce, at, bytes);
        pt_fake_shut();
    }
    return t;
}

static void untrack(tracked *t)
{
    pt_fake_message_end(t->message);
    free(t->bounce);
    free(t);
}

static void *buffer_of(const tracked *t, const void *at)
{
    return t && t->bounce ? t->bounce : (void *)at;
}

static int begun(int code, tracked *t, MPI_Request request)
{
    if (!t)
        return code;
    if (code != MPI_SUCCESS) {
        untrack(t);
        return code;
    }
    t->request = request;
    t->next = under_way;
    under_way = t;
    return code;
}

static void deliver(const tracked *t, MPI_Status *status)
{
    int cancelled = 0, count = 0;
    PMPI_Test_cancelled(status, &cancelled);
    PMPI_Get_count(status, MPI_BYTE, &count);
    if (cancelled || !t->arrives || !t->bounce || count == 0)
        return;
    if (is_spoilt())
        ((char *)t->bounce)[count - 1] ^= 1;
    pt_fake_check_range(t->at, (size_t)count);
    pt_fake_open();
    memcpy(t->at, t->bounce, (size_t)count);
    pt_fake_shut();
}

/* ---- MPI ------------------------------------------------------------------------------------ */

int MPI_Issend(const void *at, int count, MPI_Datatype type, int to, int tag, MPI_Comm comm,
               MPI_Request *request)
{
    tracked *t = track(at, (size_t)count, /*arrives=*/false);
    int code = PMPI_Issend(buffer_of(t, at), count, type, to, tag, comm, request);
    return begun(code, t, *request);
}

int MPI_Irecv(void *at, int count, MPI_Datatype type, int from, int tag, MPI_Comm comm,
              MPI_Request *request)
{
    tracked *t = track(at, (size_t)count, /*arrives=*/true);
    int code = PMPI_Irecv(buffer_of(t, at), count, type, from, tag, comm, request);
    return begun(code, t, *request);
}

int MPI_Test(MPI_Request *request, int *done, MPI_Status *ret_status)
{
    tracked **link = &under_way;
    MPI_Status status;
    while (*link && (*link)->request != *request)
        link = &(*link)->next;
    int code = PMPI_Test(request, done, &status);
    if (code == MPI_SUCCESS && *done && ret_status != MPI_STATUS_IGNORE)
        *ret_status = status;
    tracked *t = *link;
    if (!t || (code == MPI_SUCCESS && !*done))
        return code;
    if (code == MPI_SUCCESS)
        deliver(t, &status);
    *link = t->next;
    untrack(t);
    return code;
}
