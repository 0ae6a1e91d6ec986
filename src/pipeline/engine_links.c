/* The links of a rank: two over each edge that one of its blocks lies at, one in each direction.
 *
 * Slots, their events and their memory belong to the block that fills or reads them. */
#include <stdlib.h>

#include "engine_internal.h"

/* Both ends of an edge see its two links in this order. */
static const struct {
    int out, in; /* for the block before it, and for the one behind it */
    bool back;   /* it carries what goes back */
} links_of_edge[] = {{ACTS_OUT, ACTS_IN, false}, {GRADS_IN, GRADS_OUT, true}};

typedef pt_status (*link_fn)(pt_engine *e, block *at, int link, const pt_link_spec *spec,
                             pt_error *err);

/* Calls it for this rank's end of both links over an edge, if an end is here. */
static pt_status for_edge(pt_engine *e, int edge, link_fn call, pt_error *err)
{
    int rank = pt_world_rank(e->spec.world), ranks = pt_world_size(e->spec.world);
    int before = edge % ranks, behind = (edge + 1) % ranks;
    bool first = rank == before;
    if (rank != before && rank != behind)
        return PT_OK;
    block *at = &e->blocks[(first ? edge : edge + 1) / ranks];
    for (int i = 0; i < 2; i++) {
        bool back = links_of_edge[i].back;
        pt_link_spec spec = {
            .from = back ? behind : before,
            .to = back ? before : behind,
            .slots = e->spec.link_slots,
            .slot_bytes = pt_stage_message_bytes(at->stage, /*behind=*/first),
            .blocking = e->spec.blocking_sends,
        };
        PT_TRY(call(e, at, first ? links_of_edge[i].out : links_of_edge[i].in, &spec, err));
    }
    return PT_OK;
}

static pt_status for_each_edge(pt_engine *e, link_fn call, pt_error *err)
{
    int edges = e->n_blocks * pt_world_size(e->spec.world) - 1;
    for (int edge = 0; edge < edges; edge++) /* in one order on all ranks: see link.h */
        PT_TRY(for_edge(e, edge, call, err));
    return PT_OK;
}

/* Memory and events of a link's slots. */
static pt_status new_slots(pt_engine *e, block *at, int link, const pt_link_spec *spec,
                           pt_error *err)
{
    pt_backend *b = e->spec.backend;
    size_t n = (size_t)spec->slots, bytes = n * spec->slot_bytes;
    PT_TRY(e->spec.device_links ? b->row->dev_new(b, bytes, &at->buffers[link], err)
                                : b->row->host_new(b, bytes, &at->buffers[link], err));
    if (e->spec.device_links)
        PT_TRY(b->row->finish(b, err)); /* MPI knows no lanes: its bytes come after the zeros */
    at->slot_events[link] = calloc(n, sizeof *at->slot_events[link]);
    if (!at->slot_events[link])
        return pt_fail(err, PT_ENOMEM, "no memory for a link");
    for (size_t i = 0; i < n; i++) {
        at->slot_events[link][i].backend = b;
        PT_TRY(b->row->event_new(b, &at->slot_events[link][i].event, err));
    }
    return PT_OK;
}

pt_status pt_links_new(pt_engine *e, pt_error *err)
{
    return for_each_edge(e, new_slots, err);
}

static pt_status open_link(pt_engine *e, block *at, int link, const pt_link_spec *spec,
                           pt_error *err)
{
    pt_link_spec with_buffer = *spec;
    with_buffer.buffer = at->buffers[link];
    return pt_link_open(e->spec.world, &with_buffer, &at->links[link], err);
}

pt_status pt_links_open(pt_engine *e, pt_error *err)
{
    return for_each_edge(e, open_link, err);
}

static void free_slots(pt_engine *e, block *at, int link)
{
    pt_backend *b = e->spec.backend;
    (e->spec.device_links ? b->row->dev_free : b->row->host_free)(b, at->buffers[link]);
    for (int i = 0; at->slot_events[link] && i < e->spec.link_slots; i++)
        b->row->event_free(b, at->slot_events[link][i].event);
    free(at->slot_events[link]);
}

void pt_links_close(pt_engine *e, block *at)
{
    for (int i = 0; i < LINKS; i++) {
        pt_link_close(at->links[i]);
        free_slots(e, at, i);
    }
}

pt_status pt_links_poll(pt_engine *e, pt_error *err)
{
    for (int c = 0; c < e->n_blocks; c++)
        for (int i = 0; i < LINKS; i++)
            if (e->blocks[c].links[i])
                PT_TRY(pt_link_poll(e->blocks[c].links[i], err));
    return PT_OK;
}

pt_status pt_links_flush(pt_engine *e, pt_error *err)
{
    static const int sends[] = {ACTS_OUT, GRADS_OUT};
    for (int c = 0; c < e->n_blocks; c++)
        for (size_t i = 0; i < sizeof sends / sizeof sends[0]; i++)
            if (e->blocks[c].links[sends[i]])
                PT_TRY(pt_link_flush(e->blocks[c].links[sends[i]], err));
    return PT_OK;
}

void pt_links_waits(const pt_engine *e, int64_t *ret_receive_ns, int64_t *ret_send_ns)
{
    *ret_receive_ns = *ret_send_ns = 0;
    for (int c = 0; c < e->n_blocks; c++)
        for (int i = 0; i < LINKS; i++) {
            const pt_link *link = e->blocks[c].links[i];
            if (!link)
                continue;
            *ret_receive_ns += pt_link_receive_wait_ns(link);
            *ret_send_ns += pt_link_send_wait_ns(link);
        }
}
