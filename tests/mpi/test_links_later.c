/* Links whose sends and releases are put off until a condition holds: waits carry them out, in
 * their order, and nothing is touched before. */
#include <string.h>

#include "../../src/comm/comm_mpi.h"
#include "links_rig.h"

/* Holds from the countdown's end on; counts how often it was asked. */
typedef struct countdown {
    int left, asked;
} countdown;

static pt_status has_ended(void *context, bool *ret_done, pt_error *err)
{
    (void)err;
    countdown *c = context;
    c->asked++;
    *ret_done = c->left <= 0;
    c->left--;
    return PT_OK;
}

static pt_status never_known(void *context, bool *ret_done, pt_error *err)
{
    (void)context, (void)ret_done;
    return pt_fail(err, PT_EBACKEND, "the device has gone");
}

static void send_later(tap *t, pt_link *link, size_t bytes, int value, countdown *c)
{
    void *slot = NULL;
    CHECK_OK(t, pt_link_send_slot(link, &slot, &t->err));
    if (!slot)
        exit(1);
    memset(slot, value, bytes);
    CHECK_OK(t, pt_link_send(link, bytes, &(pt_link_ready){has_ended, c}, &t->err));
}

typedef struct both_ways {
    char memory[2][PAIR_SLOTS * SLOT_BYTES];
    pt_link *out, *in;
} both_ways;

/* Ranks 0 and 1: a link in each direction. */
static both_ways *open_both(tap *t)
{
    both_ways *b = calloc(1, sizeof *b);
    if (!b)
        exit(1);
    for (int from = 0; from < 2; from++) {
        bool mine = from == t->rank;
        pt_link_spec spec = {.from = from,
                             .to = 1 - from,
                             .slots = PAIR_SLOTS,
                             .slot_bytes = SLOT_BYTES,
                             .buffer = b->memory[mine]};
        CHECK_OK(t, pt_link_open(t->world, &spec, mine ? &b->out : &b->in, &t->err));
    }
    return b;
}

static void close_both(tap *t, both_ways *b)
{
    CHECK_OK(t, pt_link_flush(b->out, &t->err));
    pt_link_close(b->out);
    pt_link_close(b->in);
    free(b);
}

/* Each waits for the other's message while its own is still to go: the wait must send it. */
static void test_waits_send_for_each_other(tap *t)
{
    both_ways *b = t->rank < 2 ? open_both(t) : NULL;
    for (int i = 1; i <= 20; i++) {
        countdown send = {20 + 7 * i, 0}, release = {10 + 3 * i, 0};
        if (b) {
            send_later(t, b->out, SLOT_BYTES, i, &send);
            CHECK(t, send.asked == 1, "asked %d times by a call that must not wait", send.asked);
            receive_filled(t, b->in, SLOT_BYTES, i);
            CHECK_OK(t, pt_link_release(b->in, &(pt_link_ready){has_ended, &release}, &t->err));
            CHECK_OK(t, pt_link_flush(b->out, &t->err));
            CHECK(t, send.left < 0, "flushed before it was sent");
        }
        CHECK_OK(t, pt_world_barrier(t->world, PT_FOR_CLIP, &t->err));
        while (b && release.left >= 0)
            CHECK_OK(t, pt_link_poll(b->in, &t->err));
    }
    if (b)
        close_both(t, b);
}

/* A collective is a wait as well: rank 1 gives its word when the message has come, and rank 0 sends
 * while it waits for the word. */
static void test_collectives_send(tap *t)
{
    countdown c = {200, 0};
    both_ways *b = t->rank < 2 ? open_both(t) : NULL;
    if (t->rank == 0)
        send_later(t, b->out, SLOT_BYTES, 9, &c);
    if (t->rank == 1) {
        receive_filled(t, b->in, SLOT_BYTES, 9);
        CHECK_OK(t, pt_link_release(b->in, NULL, &t->err));
    }
    CHECK_OK(t, pt_world_barrier(t->world, PT_FOR_CLIP, &t->err));
    CHECK(t, t->rank != 0 || c.left < 0, "the barrier ended before the message was sent");
    if (b)
        close_both(t, b);
}

/* A message that is ready stays behind an older one that is not. */
static void test_order_is_kept(tap *t)
{
    if (t->rank >= 2)
        return;
    both_ways *b = open_both(t);
    if (t->rank == 0) {
        countdown slow = {50, 0}, quick = {0, 0};
        send_later(t, b->out, 100, 1, &slow);
        send_later(t, b->out, 100, 2, &quick);
        CHECK(t, quick.asked == 0, "the second was asked before the first had gone");
        send_filled(t, b->out, 100, 3); /* waits for a slot, and so for the first */
        CHECK(t, slow.left < 0 && quick.asked == 1, "%d left, asked %d times", slow.left,
              quick.asked);
    }
    for (int i = 1; i <= 3 && t->rank == 1; i++) {
        countdown c = {5 * i, 0};
        receive_filled(t, b->in, 100, i);
        CHECK_OK(t, pt_link_release(b->in, &(pt_link_ready){has_ended, &c}, &t->err));
        while (c.left >= 0)
            CHECK_OK(t, pt_link_poll(b->in, &t->err));
    }
    close_both(t, b);
}

/* A slot whose release is put off receives nothing, for somebody still reads it. */
static void test_slot_is_not_posted_early(tap *t)
{
    if (t->rank >= 2)
        return;
    both_ways *b = open_both(t);
    countdown held = {1000000000, 0};
    const void *got = NULL;
    for (int i = 1; i <= PAIR_SLOTS + 1 && t->rank == 0; i++)
        send_filled(t, b->out, SLOT_BYTES, i);
    if (t->rank == 1) {
        CHECK_OK(t, pt_link_receive(b->in, SLOT_BYTES, &got, &t->err));
        CHECK_OK(t, pt_link_release(b->in, &(pt_link_ready){has_ended, &held}, &t->err));
        receive_filled(t, b->in, SLOT_BYTES, 2);
        for (int i = 0; i < 2000; i++)
            CHECK_OK(t, pt_link_poll(b->in, &t->err));
        const char *bytes = got;
        CHECK(t, bytes[0] == 1 && bytes[SLOT_BYTES - 1] == 1, "the slot was overwritten");
        CHECK_OK(t, pt_link_release(b->in, NULL, &t->err)); /* behind the other */
        held.left = 3;
        receive_filled(t, b->in, SLOT_BYTES, 3);
        CHECK_OK(t, pt_link_release(b->in, NULL, &t->err));
    }
    close_both(t, b);
}

/* A blocking link waits for the condition too; a condition that fails is said with the link. */
static void test_put_off_and_blocking(tap *t)
{
    static char memory[PAIR_SLOTS * SLOT_BYTES];
    pt_link *link = NULL;
    pt_link_spec spec = {.from = 0,
                         .to = 1,
                         .slots = PAIR_SLOTS,
                         .slot_bytes = SLOT_BYTES,
                         .blocking = true,
                         .buffer = memory};
    if (t->rank >= 2)
        return;
    CHECK_OK(t, pt_link_open(t->world, &spec, &link, &t->err));
    if (t->rank == 0) {
        countdown c = {30, 0};
        void *slot = NULL;
        send_later(t, link, SLOT_BYTES, 4, &c);
        CHECK(t, c.left < 0, "a blocking send returned before it was ready");
        CHECK_OK(t, pt_link_send_slot(link, &slot, &t->err));
        CHECK_FAILS(t, pt_link_send(link, 10, &(pt_link_ready){never_known, NULL}, &t->err),
                    PT_EBACKEND, "rank 0 to rank 1: the device has gone");
    } else {
        receive_filled(t, link, SLOT_BYTES, 4);
        CHECK_OK(t, pt_link_release(link, NULL, &t->err));
    }
    pt_link_close(link);
}

/* A link that is closed with a message put off leaves nothing behind for later waits to touch. */
static void test_closed_while_put_off(tap *t)
{
    enum { BYTES = 100 };
    static char memory[PAIR_SLOTS * BYTES];
    countdown never = {1000000000, 0};
    if (t->rank < 2) {
        pt_link *link = open_pair(t, memory, BYTES);
        if (t->rank == 0)
            send_later(t, link, BYTES, 1, &never);
        pt_link_close(link);
    }
    int asked = never.asked;
    CHECK_OK(t, pt_world_barrier(t->world, PT_FOR_CLIP, &t->err));
    CHECK(t, never.asked == asked && t->world->put_off == 0 && !t->world->links,
          "%d put off, asked %d times", t->world->put_off, never.asked);
}

int main(int argc, char **argv)
{
    static const tap_case cases[] = {
        {"two that wait for each other send what they put off", test_waits_send_for_each_other},
        {"a collective sends what was put off", test_collectives_send},
        {"what is put off keeps its order", test_order_is_kept},
        {"a slot is not posted before it is read", test_slot_is_not_posted_early},
        {"putting off a blocking send, and failing", test_put_off_and_blocking},
        {"a link may be closed with a message put off", test_closed_while_put_off},
    };
    return tap_main(argc, argv, 2, cases, sizeof cases / sizeof *cases);
}
