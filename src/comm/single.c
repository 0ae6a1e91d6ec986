/* The same world for -Dmpi=disabled: one rank, nobody to talk to. Collectives copy or do nothing; a
 * link, which needs two ranks, cannot be opened. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "pipetrain/link.h"
#include "pipetrain/world.h"

enum { HOST_BYTES = 256 };

struct pt_world {
    char host[HOST_BYTES];
};

/* ---- world ------------------------------------------------------------------------------------*/

/* A launcher would start N programs that each believe to be alone, and train N times. */
static const char *launcher_mark(void)
{
    static const char *const marks[] = {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS"};
    for (size_t i = 0; i < sizeof marks / sizeof *marks; i++) {
        const char *size = getenv(marks[i]);
        if (size && atoi(size) > 1)
            return size;
    }
    return NULL;
}

pt_status pt_world_open(int *argc, char ***argv, pt_world **ret_world, pt_error *err)
{
    (void)argc, (void)argv;
    const char *ranks = launcher_mark();
    if (ranks)
        return pt_fail(err, PT_EINPUT,
                       "%s ranks were started, but this program was built without MPI; run it "
                       "without mpirun, or build with -Dmpi=enabled",
                       ranks);
    pt_world *world = calloc(1, sizeof *world);
    if (!world)
        return pt_fail(err, PT_ENOMEM, "no memory for the world of one rank");
    if (gethostname(world->host, sizeof world->host - 1) != 0)
        snprintf(world->host, sizeof world->host, "localhost");
    *ret_world = world;
    return PT_OK;
}

void pt_world_close(pt_world *world)
{
    free(world);
}

bool pt_world_is_aborting(const pt_world *world)
{
    (void)world;
    return false;
}

void pt_world_abort(pt_world *world, int exit_code)
{
    (void)world;
    fflush(NULL);
    _exit(exit_code);
}

int pt_world_rank(const pt_world *world)
{
    (void)world;
    return 0;
}

int pt_world_size(const pt_world *world)
{
    (void)world;
    return 1;
}

int pt_world_local_rank(const pt_world *world)
{
    (void)world;
    return 0;
}

const char *pt_world_host(const pt_world *world)
{
    return world->host;
}

bool pt_world_knows_devices(void)
{
    return false;
}

bool pt_world_under_mpirun(const pt_world *world)
{
    (void)world;
    return false;
}

void pt_world_describe(const pt_world *world, char *text, size_t size)
{
    (void)world;
    snprintf(text, size, "single rank (built without MPI)");
}

void pt_world_watch(pt_world *world, const volatile int *stop)
{
    (void)world, (void)stop; /* nothing here ever waits */
}

int pt_world_awaited(const pt_world *world)
{
    (void)world;
    return -1;
}

int pt_world_put_off(const pt_world *world)
{
    (void)world;
    return 0;
}

void pt_world_pause_by(pt_world *world, void (*pause)(void *context), void *context)
{
    (void)world, (void)pause, (void)context;
}

/* ---- collectives of one -----------------------------------------------------------------------*/

pt_status pt_world_broadcast(pt_world *world, pt_purpose purpose, int root, void *data,
                             size_t bytes, pt_error *err)
{
    (void)world, (void)purpose, (void)root, (void)data, (void)bytes, (void)err;
    return PT_OK;
}

pt_status pt_world_gather(pt_world *world, pt_purpose purpose, int root, const void *data,
                          size_t bytes, const size_t *counts, void *ret_data, pt_error *err)
{
    (void)world, (void)purpose;
    if (counts[root] != bytes)
        return pt_fail(err, PT_EINTERNAL, "rank %d gathers %zu bytes of itself but counts %zu",
                       root, bytes, counts[root]);
    if (bytes > 0)
        memcpy(ret_data, data, bytes);
    return PT_OK;
}

pt_status pt_world_barrier(pt_world *world, pt_purpose purpose, pt_error *err)
{
    (void)world, (void)purpose, (void)err;
    return PT_OK;
}

pt_status pt_world_agree(pt_world *world, pt_status mine, pt_error *err, int *ret_rank)
{
    (void)world, (void)err;
    if (ret_rank)
        *ret_rank = mine == PT_OK ? -1 : 0;
    return mine;
}

pt_status pt_world_clock_offset(pt_world *world, int64_t *ret_ns, pt_error *err)
{
    (void)world, (void)err;
    *ret_ns = 0;
    return PT_OK;
}

/* ---- mail: rank 0 is the only one, and it gets none -------------------------------------------*/

struct pt_mail {
    size_t record_bytes;
};

pt_status pt_mail_open(pt_world *world, size_t record_bytes, pt_mail **ret_mail, pt_error *err)
{
    (void)world;
    pt_mail *mail = malloc(sizeof *mail);
    if (!mail)
        return pt_fail(err, PT_ENOMEM, "no memory for mail");
    mail->record_bytes = record_bytes;
    *ret_mail = mail;
    return PT_OK;
}

void pt_mail_close(pt_mail *mail)
{
    free(mail);
}

bool pt_mail_post(pt_mail *mail, const void *record)
{
    (void)mail, (void)record;
    return false;
}

bool pt_mail_take(pt_mail *mail, void *ret_record, int *ret_sender)
{
    (void)mail, (void)ret_record, (void)ret_sender;
    return false;
}

pt_status pt_mail_flush(pt_mail *mail, pt_error *err)
{
    (void)mail, (void)err;
    return PT_OK;
}

/* ---- links: none can exist, so what follows pt_link_open is never reached ---------------------*/

static pt_status no_link(pt_error *err)
{
    return pt_fail(err, PT_EINTERNAL,
                   "a link joins two ranks and this program was built without MPI; build with "
                   "-Dmpi=enabled");
}

pt_status pt_link_open(pt_world *world, const pt_link_spec *spec, pt_link **ret_link, pt_error *err)
{
    (void)world, (void)spec, (void)ret_link;
    return no_link(err);
}

void pt_link_close(pt_link *link)
{
    (void)link;
}

pt_status pt_link_send_slot(pt_link *link, void **ret_buffer, pt_error *err)
{
    (void)link, (void)ret_buffer;
    return no_link(err);
}

pt_status pt_link_send(pt_link *link, size_t bytes, const pt_link_ready *ready, pt_error *err)
{
    (void)link, (void)bytes, (void)ready;
    return no_link(err);
}

pt_status pt_link_receive(pt_link *link, size_t bytes, const void **ret_buffer, pt_error *err)
{
    (void)link, (void)bytes, (void)ret_buffer;
    return no_link(err);
}

pt_status pt_link_release(pt_link *link, const pt_link_ready *ready, pt_error *err)
{
    (void)link, (void)ready;
    return no_link(err);
}

pt_status pt_link_poll(pt_link *link, pt_error *err)
{
    (void)link;
    return no_link(err);
}

pt_status pt_link_flush(pt_link *link, pt_error *err)
{
    (void)link;
    return no_link(err);
}

int64_t pt_link_receive_wait_ns(const pt_link *link)
{
    (void)link;
    return 0;
}

int64_t pt_link_send_wait_ns(const pt_link *link)
{
    (void)link;
    return 0;
}
