/* Links between neighbours: a chain of ranks relays messages forward and backward at once, in the
 * order of 1F1B, with sizes on both sides of every eager limit. */
#include <stdint.h>
#include <string.h>

#include "../../src/comm/comm_mpi.h"
#include "pipetrain/link.h"
#include "tap.h"

enum {
    MESSAGES = 2000,
    SLOT_BYTES = 150000, /* above the eager limits: 4 KiB in shared memory, 64 KiB over TCP */
    MAX_SLOTS = 4
};

typedef struct chain {
    pt_link *from_below, *to_above; /* forward; NULL at the ends */
    pt_link *from_above, *to_below; /* backward */
    char *memory;
} chain;

/* ---- content ----------------------------------------------------------------------------------*/

enum { FORWARD = 1, BACKWARD = 2 };

static const size_t SIZES[] = {64, 4096, 1, 4097, 65536, 0, 100003, 4095, 65537, SLOT_BYTES, 2000};

static size_t size_of(int message, int direction)
{
    return SIZES[(size_t)(message * direction + direction) % (sizeof SIZES / sizeof *SIZES)];
}

static unsigned char byte_of(size_t i, int message, int direction)
{
    return (unsigned char)(i * 13 + i / 255 + (size_t)message * 5 + (size_t)direction);
}

static void write_message(unsigned char *data, int message, int direction)
{
    for (size_t i = 0; i < size_of(message, direction); i++)
        data[i] = byte_of(i, message, direction);
}

static bool is_message(const unsigned char *data, int message, int direction)
{
    for (size_t i = 0; i < size_of(message, direction); i++)
        if (data[i] != byte_of(i, message, direction))
            return false;
    return true;
}

/* ---- the chain --------------------------------------------------------------------------------*/

static void open_one(tap *t, chain *c, int from, int to, int slots, bool blocking, pt_link **ret)
{
    size_t share = (size_t)MAX_SLOTS * SLOT_BYTES;
    int index = (from < to ? 0 : 2) + (t->rank == from); /* each link its own memory */
    pt_link_spec spec = {.from = from,
                         .to = to,
                         .slots = slots,
                         .slot_bytes = SLOT_BYTES,
                         .blocking = blocking,
                         .buffer = c->memory + (size_t)index * share};
    CHECK_OK(t, pt_link_open(t->world, &spec, ret, &t->err));
}

static void open_chain(tap *t, chain *c, int slots, bool blocking)
{
    *c = (chain){.memory = malloc((size_t)4 * MAX_SLOTS * SLOT_BYTES)};
    if (!c->memory)
        exit(1);
    for (int r = 0; r + 1 < t->size; r++) {
        if (t->rank == r) {
            open_one(t, c, r, r + 1, slots, blocking, &c->to_above);
            open_one(t, c, r + 1, r, slots, blocking, &c->from_above);
        } else if (t->rank == r + 1) {
            open_one(t, c, r, r + 1, slots, blocking, &c->from_below);
            open_one(t, c, r + 1, r, slots, blocking, &c->to_below);
        }
    }
}

static void poll_chain(tap *t, const chain *c)
{
    pt_link *links[] = {c->from_below, c->to_above, c->from_above, c->to_below};
    for (size_t i = 0; i < sizeof links / sizeof *links; i++)
        if (links[i])
            CHECK_OK(t, pt_link_poll(links[i], &t->err));
}

static void close_chain(tap *t, chain *c)
{
    pt_link *links[] = {c->from_below, c->to_above, c->from_above, c->to_below};
    for (size_t i = 0; i < sizeof links / sizeof *links; i++) {
        if (links[i])
            CHECK_OK(t, pt_link_flush(links[i], &t->err));
        pt_link_close(links[i]);
    }
    free(c->memory);
}

/* Takes a message from `in` (or makes it) and hands it to `out` (or drops it). */
static void relay(tap *t, pt_link *in, pt_link *out, int message, int direction)
{
    size_t bytes = size_of(message, direction);
    const void *got = NULL;
    void *slot = NULL;
    if (in) {
        CHECK_OK(t, pt_link_receive(in, bytes, &got, &t->err));
        if (!got)
            exit(1); /* nothing that follows can be in order */
        CHECK(t, is_message(got, message, direction), "message %d, direction %d", message,
              direction);
    }
    if (out) {
        CHECK_OK(t, pt_link_send_slot(out, &slot, &t->err));
        if (!slot)
            exit(1);
        if (got)
            memcpy(slot, got, bytes);
        else
            write_message(slot, message, direction);
        CHECK_OK(t, pt_link_send(out, bytes, NULL, &t->err));
    }
    if (in)
        CHECK_OK(t, pt_link_release(in, NULL, &t->err));
}

/* Forwards of 1F1B before the first backward: one less at each rank, none at the last. */
static void run_chain(tap *t, int slots, bool blocking, int messages)
{
    chain c;
    int ahead = t->size - 1 - t->rank;
    open_chain(t, &c, slots, blocking);
    for (int i = 0; i < messages + ahead; i++) {
        if (i < messages)
            relay(t, c.from_below, c.to_above, i, FORWARD);
        poll_chain(t, &c);
        if (i >= ahead)
            relay(t, c.from_above, c.to_below, i - ahead, BACKWARD);
    }
    close_chain(t, &c);
}

static void test_two_slots(tap *t)
{
    run_chain(t, 2, /*blocking=*/false, MESSAGES);
}

static void test_two_slots_blocking(tap *t)
{
    run_chain(t, 2, /*blocking=*/true, MESSAGES);
}

static void test_one_slot(tap *t)
{
    run_chain(t, 1, /*blocking=*/false, MESSAGES / 4);
    run_chain(t, 1, /*blocking=*/true, MESSAGES / 4);
}

static void test_many_slots(tap *t)
{
    run_chain(t, MAX_SLOTS, /*blocking=*/false, MESSAGES / 4);
}

static void test_chunks(tap *t)
{
    size_t whole = t->world->chunk_bytes;
    t->world->chunk_bytes = 10000; /* 15 messages a slot, some of them empty */
    run_chain(t, 2, /*blocking=*/false, MESSAGES / 4);
    run_chain(t, 2, /*blocking=*/true, MESSAGES / 4);
    t->world->chunk_bytes = whole;
}

/* ---- misuse and flow control: ranks 0 and 1
 * ----------------------------------------------------*/

enum { PAIR_SLOTS = 2 };

static pt_link *open_pair(tap *t, char *memory, size_t bytes)
{
    pt_link *link = NULL;
    pt_link_spec spec = {
        .from = 0, .to = 1, .slots = PAIR_SLOTS, .slot_bytes = bytes, .buffer = memory};
    CHECK_OK(t, pt_link_open(t->world, &spec, &link, &t->err));
    if (!link)
        exit(1);
    return link;
}

static void send_filled(tap *t, pt_link *link, size_t bytes, int value)
{
    void *slot = NULL;
    CHECK_OK(t, pt_link_send_slot(link, &slot, &t->err));
    if (!slot)
        exit(1);
    memset(slot, value, bytes);
    CHECK_OK(t, pt_link_send(link, bytes, NULL, &t->err));
}

static void receive_filled(tap *t, pt_link *link, size_t bytes, int value)
{
    const void *got = NULL;
    CHECK_OK(t, pt_link_receive(link, bytes, &got, &t->err));
    if (!got)
        exit(1);
    const char *bytes_of_it = got;
    CHECK(t, bytes_of_it[0] == value && bytes_of_it[bytes - 1] == value, "message %d is %d", value,
          bytes_of_it[0]);
}

/* A sender gets ahead by the slots of both sides and not by one message more, however short. The
 * stop flag turns the wait for a slot into a question. */
static void fill_slots(tap *t, size_t bytes)
{
    volatile int stop = 0;
    char *memory = malloc(PAIR_SLOTS * bytes);
    if (!memory)
        exit(1);
    pt_link *link = t->rank < 2 ? open_pair(t, memory, bytes) : NULL;
    if (t->rank == 0) {
        void *slot = NULL;
        for (int i = 0; i < 2 * PAIR_SLOTS; i++)
            send_filled(t, link, bytes, i);
        pt_world_watch(t->world, &stop);
        stop = 1;
        pt_status status = pt_link_send_slot(link, &slot, &t->err);
        CHECK(t, status == PT_EINTERRUPTED && !slot, "a slot was free: status %d", (int)status);
        CHECK(t, pt_link_send_wait_ns(link) > 0, "the wait was not counted");
        pt_world_watch(t->world, NULL);
    }
    CHECK_OK(t, pt_world_barrier(t->world, PT_FOR_STOP, &t->err));
    if (t->rank == 0)
        send_filled(t, link, bytes, 2 * PAIR_SLOTS);
    for (int i = 0; i <= 2 * PAIR_SLOTS && t->rank == 1; i++) {
        receive_filled(t, link, bytes, i);
        CHECK_OK(t, pt_link_release(link, NULL, &t->err));
    }
    if (t->rank == 0)
        CHECK_OK(t, pt_link_flush(link, &t->err));
    pt_link_close(link);
    free(memory);
}

static void test_slots_respected(tap *t)
{
    fill_slots(t, 64);
    fill_slots(t, SLOT_BYTES);
}

#define CHECK_FAILS(t, call, code_, words)                                                         \
    do {                                                                                           \
        pt_status status_ = (call);                                                                \
        CHECK((t), status_ == (code_) && strstr((t)->err.text, (words)), "status %d, \"%s\"",      \
              (int)status_, (t)->err.text);                                                        \
    } while (0)

static void test_wrong_length(tap *t)
{
    enum { BYTES = 8192 };
    char memory[PAIR_SLOTS * BYTES];
    pt_link *link = t->rank < 2 ? open_pair(t, memory, BYTES) : NULL;
    const void *got = NULL;
    if (t->rank == 0) {
        send_filled(t, link, BYTES / 2, 1);
        CHECK_OK(t, pt_link_flush(link, &t->err));
    } else if (t->rank == 1) {
        CHECK_FAILS(t, pt_link_receive(link, BYTES, &got, &t->err), PT_ECOMM,
                    "4096 bytes came where 8192 are due");
        CHECK(t, got == NULL, "a refused message was handed over");
    }
    pt_link_close(link);
}

static void test_misuse(tap *t)
{
    enum { BYTES = 100 };
    char memory[PAIR_SLOTS * BYTES];
    pt_link *link = t->rank < 2 ? open_pair(t, memory, BYTES) : NULL;
    const void *got = NULL;
    void *slot = NULL;
    if (t->rank == 0) {
        CHECK_FAILS(t, pt_link_send(link, 1, NULL, &t->err), PT_EINTERNAL, "not taken");
        CHECK_OK(t, pt_link_send_slot(link, &slot, &t->err));
        CHECK_FAILS(t, pt_link_send_slot(link, &slot, &t->err), PT_EINTERNAL, "taken twice");
        CHECK_FAILS(t, pt_link_send(link, BYTES + 1, NULL, &t->err), PT_EINTERNAL, "longer than");
        CHECK_FAILS(t, pt_link_receive(link, 1, &got, &t->err), PT_EINTERNAL, "rank 0 to rank 1");
        CHECK_OK(t, pt_link_send(link, BYTES, NULL, &t->err));
        send_filled(t, link, BYTES, 2);
        send_filled(t, link, BYTES, 3);
        CHECK_OK(t, pt_link_flush(link, &t->err));
    } else if (t->rank == 1) {
        CHECK_FAILS(t, pt_link_release(link, NULL, &t->err), PT_EINTERNAL, "not received");
        CHECK_OK(t, pt_link_receive(link, BYTES, &got, &t->err));
        receive_filled(t, link, BYTES, 2);
        CHECK_FAILS(t, pt_link_receive(link, BYTES, &got, &t->err), PT_EINTERNAL, "none released");
        CHECK_OK(t, pt_link_release(link, NULL, &t->err));
        receive_filled(t, link, BYTES, 3);
    }
    pt_link_close(link);
}

/* ---- sends and releases that are put off ------------------------------------------------------*/

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

/* Two ends that do not open the same thing, and links that cannot be. */
static void test_unequal_ends(tap *t)
{
    char memory[400];
    pt_link *link = NULL;
    pt_link_spec spec = {
        .from = 0, .to = 1, .slots = 1 + t->rank, .slot_bytes = 100, .buffer = memory};
    if (t->rank < 2)
        CHECK_FAILS(t, pt_link_open(t->world, &spec, &link, &t->err), PT_EINTERNAL,
                    "open links in the same order");
    spec.to = spec.from = t->rank;
    CHECK_FAILS(t, pt_link_open(t->world, &spec, &link, &t->err), PT_EINTERNAL, "two different");
    spec.to = t->size;
    CHECK_FAILS(t, pt_link_open(t->world, &spec, &link, &t->err), PT_EINTERNAL, "two different");
    CHECK(t, link == NULL, "a link was made");
}

int main(int argc, char **argv)
{
    static const tap_case cases[] = {
        {"2,000 ragged messages both ways, two slots", test_two_slots},
        {"the same with blocking sends", test_two_slots_blocking},
        {"one slot, blocking and not", test_one_slot},
        {"four slots", test_many_slots},
        {"messages in chunks", test_chunks},
        {"a sender is never ahead by more than the slots", test_slots_respected},
        {"a wrong length is refused", test_wrong_length},
        {"misuse is refused", test_misuse},
        {"unequal ends are refused", test_unequal_ends},
        {"two that wait for each other send what they put off", test_waits_send_for_each_other},
        {"a collective sends what was put off", test_collectives_send},
        {"what is put off keeps its order", test_order_is_kept},
        {"a slot is not posted before it is read", test_slot_is_not_posted_early},
        {"putting off a blocking send, and failing", test_put_off_and_blocking},
        {"a link may be closed with a message put off", test_closed_while_put_off},
    };
    return tap_main(argc, argv, 2, cases, sizeof cases / sizeof *cases);
}
