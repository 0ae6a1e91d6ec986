/* Queues of bounded length.
 *
 * Message i of a channel, with S slots at either end:
 *
 *    checker     a send is synchronous: it is over when the receiver has posted a receive for it,
 *                which is when message i-S has been taken
 *    simulator   a send takes one of the sender's slots, which is free when i-S has been delivered,
 *                and returns; the message travels, and is delivered when it has arrived, i-S has
 *                been taken from the receiver's slots, and i-1 has been delivered
 */
#include "channel.h"

#include <stdlib.h>

pt_status pt_channel_init(pt_channel *c, double latency, int ring, pt_error *err)
{
    size_t n = (size_t)ring;
    c->latency = latency;
    c->ring = ring;
    c->micro_batch = calloc(n, sizeof(*c->micro_batch));
    c->arrives = calloc(3 * n, sizeof(*c->arrives));
    if (!c->micro_batch || !c->arrives)
        return pt_fail(err, PT_ENOMEM, "no memory to play a schedule with %d slots", ring);
    c->delivery = c->arrives + n;
    c->take = c->delivery + n;
    return PT_OK;
}

void pt_channels_free(pt_channel *channels, int n)
{
    for (int e = 0; channels && e < n; e++) {
        free(channels[e].micro_batch);
        free(channels[e].arrives);
    }
    free(channels);
}

void pt_channel_empty(pt_channel *c)
{
    c->sent = c->delivered = c->taken = 0;
}

static void deliver(pt_channel *c, int slots)
{
    while (c->delivered < c->sent && c->delivered - slots < c->taken) {
        int i = c->delivered++;
        double when = c->arrives[i % c->ring];
        if (i > 0)
            when = pt_later(when, c->delivery[(i - 1) % c->ring]);
        if (i >= slots)
            when = pt_later(when, c->take[(i - slots) % c->ring]);
        c->delivery[i % c->ring] = when;
    }
}

bool pt_channel_put(const pt_player *p, pt_channel *c, int32_t micro_batch, double now,
                    double *ret_end)
{
    int i = c->sent, gate = i - p->slots;
    if ((p->synchronous ? c->taken : c->delivered) <= gate)
        return false;
    double start = now;
    if (gate >= 0)
        start = pt_later(start, (p->synchronous ? c->take : c->delivery)[gate % c->ring]);
    c->micro_batch[i % c->ring] = micro_batch;
    c->arrives[i % c->ring] = start + c->latency;
    c->sent++;
    deliver(c, p->slots);
    *ret_end = start;
    return true;
}

bool pt_channel_take(pt_player *p, pt_channel *c, int rank, int32_t micro_batch, double now,
                     double *ret_end)
{
    int i = c->taken;
    if (c->delivered <= i)
        return false;
    if (c->micro_batch[i % c->ring] != micro_batch) {
        if (p->crossed_rank < 0) {
            p->crossed_rank = rank;
            p->crossed_message = c->micro_batch[i % c->ring];
        }
        return false;
    }
    *ret_end = c->take[i % c->ring] = pt_later(now, c->delivery[i % c->ring]);
    c->taken++;
    deliver(c, p->slots);
    return true;
}
