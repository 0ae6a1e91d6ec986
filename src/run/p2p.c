/* Where the slots of links lie: in host memory, with a copy on each side, or in the device's, with
 * an MPI that takes device addresses. An MPI that takes none crashes on one, and one that says it
 * does may still deliver something else; so `auto` asks it, and then compares a message. */
#include <stdlib.h>
#include <string.h>

#include "pipetrain/link.h"
#include "pipetrain/log.h"
#include "setup.h"

enum { TRIAL_BYTES = 1 << 20, TRIAL_SLOTS = 2 };

static pt_status broadcast_least(pt_run *run, int64_t mine, int64_t *all, size_t *counts,
                                 int64_t *ret_least, pt_error *err)
{
    int64_t least = mine;
    for (int r = 0; r < run->stages; r++)
        counts[r] = sizeof mine;
    PT_TRY(pt_world_gather(run->world, PT_FOR_STATUS, /*root=*/0, &mine, sizeof mine, counts, all,
                           err));
    for (int r = 1; r < run->stages && run->rank == 0; r++)
        least = all[r] < least ? all[r] : least;
    PT_TRY(pt_world_broadcast(run->world, PT_FOR_STATUS, /*root=*/0, &least, sizeof least, err));
    *ret_least = least;
    return PT_OK;
}

pt_status pt_run_least(pt_run *run, int64_t mine, int64_t *ret_least, pt_error *err)
{
    *ret_least = mine;
    if (!run->world)
        return PT_OK;
    size_t n = (size_t)run->stages;
    int64_t *all = calloc(n, sizeof *all);
    size_t *counts = calloc(n, sizeof *counts);
    pt_status status = all && counts ? broadcast_least(run, mine, all, counts, ret_least, err)
                                     : pt_fail(err, PT_ENOMEM, "no memory for %zu ranks", n);
    free(all);
    free(counts);
    return status;
}

/* ---- the trial --------------------------------------------------------------------------------
 */

/* Host copies of a message as it should be and of one that came. */
typedef struct trial {
    unsigned char *want, *got;
    void *dev; /* TRIAL_SLOTS messages */
} trial;

static pt_status trial_init(trial *t, pt_run *run, pt_error *err)
{
    t->want = malloc(TRIAL_BYTES);
    t->got = calloc(1, TRIAL_BYTES);
    if (!t->want || !t->got)
        return pt_fail(err, PT_ENOMEM, "no memory for a trial message");
    for (size_t i = 0; i < TRIAL_BYTES; i++)
        t->want[i] = (unsigned char)(i * 31 + i / 251);
    pt_backend *b = run->backend;
    PT_TRY(b->row->dev_new(b, (size_t)TRIAL_SLOTS * TRIAL_BYTES, &t->dev, err));
    return b->row->finish(b, err); /* MPI knows no lanes: its bytes come after the zeros */
}

static void trial_clear(trial *t, pt_run *run)
{
    free(t->want);
    free(t->got);
    run->backend->row->dev_free(run->backend, t->dev);
}

static pt_status send_trial(trial *t, pt_run *run, pt_link *link, size_t bytes, pt_error *err)
{
    void *slot = NULL;
    PT_TRY(pt_link_send_slot(link, &slot, err));
    PT_TRY(run->backend->row->upload(run->backend, slot, t->want, bytes, err));
    PT_TRY(pt_link_send(link, bytes, NULL, err));
    return pt_link_flush(link, err);
}

static pt_status receive_trial(trial *t, pt_run *run, pt_link *link, size_t bytes, bool *good,
                               pt_error *err)
{
    const void *slot = NULL;
    PT_TRY(pt_link_receive(link, bytes, &slot, err));
    PT_TRY(run->backend->row->download(run->backend, t->got, slot, bytes, err));
    *good = *good && memcmp(t->got, t->want, bytes) == 0;
    return pt_link_release(link, NULL, err);
}

/* A short message and a long one, which transports treat differently. */
static pt_status try_edge(trial *t, pt_run *run, int from, int to, bool *good, pt_error *err)
{
    static const size_t sizes[] = {256, TRIAL_BYTES};
    pt_link *link = NULL;
    pt_link_spec spec = {
        .from = from, .to = to, .slots = TRIAL_SLOTS, .slot_bytes = TRIAL_BYTES, .buffer = t->dev};
    PT_TRY(pt_link_open(run->world, &spec, &link, err));
    pt_status status = PT_OK;
    for (size_t i = 0; status == PT_OK && i < sizeof sizes / sizeof sizes[0]; i++)
        status = run->rank == from ? send_trial(t, run, link, sizes[i], err)
                                   : receive_trial(t, run, link, sizes[i], good, err);
    pt_link_close(link);
    return status;
}

/* Do messages from device to device arrive as they were sent, to and from the neighbours? */
static pt_status try_devices(pt_run *run, bool *ret_good, pt_error *err)
{
    trial t = {0};
    bool good = true;
    pt_status status = trial_init(&t, run, err);
    status = pt_world_agree(run->world, status, err, NULL);
    /* With several chunks the last rank is the first one's neighbour; of two it is already. */
    int pairs = run->chunks > 1 && run->stages > 2 ? run->stages : run->stages - 1;
    for (int r = 0; status == PT_OK && r < pairs; r++) {
        int other = (r + 1) % run->stages;
        if (run->rank != r && run->rank != other)
            continue;
        status = try_edge(&t, run, r, other, &good, err);
        if (status == PT_OK)
            status = try_edge(&t, run, other, r, &good, err);
    }
    trial_clear(&t, run);
    if (status != PT_OK && err)
        pt_fail_within(err, "trying messages from device to device (--p2p host does without)");
    *ret_good = good;
    return status;
}

/* ---- the choice -------------------------------------------------------------------------------
 */

static pt_status on_all(pt_run *run, bool mine, bool *ret_all, pt_error *err)
{
    int64_t least = 0;
    PT_TRY(pt_run_least(run, mine, &least, err));
    *ret_all = least != 0;
    return PT_OK;
}

static pt_status choose_by_trial(pt_run *run, pt_error *err)
{
    bool possible = run->backend->row->on_device && pt_world_knows_devices(), good = false;
    PT_TRY(on_all(run, possible, &possible, err));
    if (!possible)
        return PT_OK;
    PT_TRY(try_devices(run, &good, err));
    PT_TRY(on_all(run, good, &run->device_links, err));
    if (!run->device_links && run->rank == 0)
        pt_log(PT_LOG_WARNING, "this MPI says that it takes device memory, but a message came out "
                               "wrong: links go through host memory");
    return PT_OK;
}

pt_status pt_run_choose_links(pt_run *run, pt_error *err)
{
    const char *p2p = run->settings->p2p;
    const pt_backend_row *row = run->backend->row;
    if (strcmp(p2p, "device") == 0 && !row->on_device)
        return pt_fail(err, PT_EINPUT,
                       "--p2p device: the backend %s computes in host memory and has no device to "
                       "send from; write --p2p host, or leave it out",
                       row->name);
    run->device_links = false;
    if (strcmp(p2p, "host") == 0 || !run->world || run->stages == 1)
        return PT_OK;
    if (strcmp(p2p, "auto") == 0)
        return choose_by_trial(run, err);
    run->device_links = true;
    if (run->rank == 0 && !pt_world_knows_devices())
        pt_log(PT_LOG_WARNING, "--p2p device: this MPI does not say that it takes device memory; "
                               "if it crashes now, write --p2p host");
    return PT_OK;
}
