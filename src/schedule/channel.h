/* The queues between blocks that lists are played over; shared by channel.c and play.c. */
#ifndef PT_SCHEDULE_CHANNEL_H
#define PT_SCHEDULE_CHANNEL_H

#include "internal.h"

struct pt_channel {
    double latency;
    int sent, delivered, taken;        /* messages so far; taken <= delivered <= sent */
    int ring;                          /* messages remembered: index i lies at i % ring */
    int32_t *micro_batch;              /* of message i */
    double *arrives, *delivery, *take; /* of message i: on the wire, in the slot, in the stage */
};

static inline double pt_later(double a, double b)
{
    return a > b ? a : b;
}

pt_status pt_channel_init(pt_channel *c, double latency, int ring, pt_error *err);
void pt_channels_free(pt_channel *channels, int n); /* half-built is fine */
void pt_channel_empty(pt_channel *c);

/* A message is put in, or taken out, by a rank that comes to it at `now`; ret_end is when it can go
 * on. False: it has to wait. For put there is no free slot yet; for take nothing is there yet, or
 * what is there is another micro-batch's, which the player remembers. */
bool pt_channel_put(const pt_player *p, pt_channel *c, int32_t micro_batch, double now,
                    double *ret_end);
bool pt_channel_take(pt_player *p, pt_channel *c, int rank, int32_t micro_batch, double now,
                     double *ret_end);

#endif
