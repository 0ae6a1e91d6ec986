/* Links between neighbours: a chain of ranks relays messages forward and backward at once, in the
 * order of 1F1B, with sizes on both sides of every eager limit; and what links refuse. */
#include <stdint.h>
#include <string.h>

#include "../../src/comm/comm_mpi.h"
#include "links_rig.h"

enum { MESSAGES = 2000, MAX_SLOTS = 4 };

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

/* ---- flow control and misuse: ranks 0 and 1 ---------------------------------------------------*/

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
    };
    return tap_main(argc, argv, 2, cases, sizeof cases / sizeof *cases);
}
