/* Regression: what is said around the cycle of overlapping groups {0,1}, {1,2}, {2,0}, each rank
 * speaking before it listens. With blocking broadcasts that passes at 64 bytes, by the luck of
 * eager buffering, and hangs at 1 MiB. Here it must end at both sizes, by SIGALRM if not. */
#include <stdint.h>
#include <string.h>

#include "../../src/comm/comm_mpi.h"
#include "pipetrain/link.h"
#include "tap.h"

enum { SHORT_BYTES = 64, LONG_BYTES = 1 << 20, ROUNDS = 20 };

static char *memory(size_t bytes)
{
    char *p = malloc(bytes);
    if (!p)
        exit(1);
    return p;
}

static bool all_are(const char *data, size_t bytes, char value)
{
    return data[0] == value && memcmp(data, data + 1, bytes - 1) == 0;
}

/* ---- groups of two: a link is the broadcast of one rank to its group
 * ---------------------------*/

static pt_link *open_link(tap *t, int from, size_t bytes, bool blocking, char *buffer)
{
    pt_link *link = NULL;
    pt_link_spec spec = {.from = from,
                         .to = (from + 1) % t->size,
                         .slots = 1,
                         .slot_bytes = bytes,
                         .blocking = blocking,
                         .buffer = buffer};
    CHECK_OK(t, pt_link_open(t->world, &spec, &link, &t->err));
    if (!link)
        exit(1);
    return link;
}

static void speak_then_listen(tap *t, pt_link *out, pt_link *in, size_t bytes, int round)
{
    int before = (t->rank + t->size - 1) % t->size;
    void *slot = NULL;
    const void *got = NULL;
    CHECK_OK(t, pt_link_send_slot(out, &slot, &t->err));
    if (!slot)
        exit(1);
    memset(slot, 16 * t->rank + round % 16, bytes);
    CHECK_OK(t, pt_link_send(out, bytes, NULL, &t->err));
    CHECK_OK(t, pt_link_receive(in, bytes, &got, &t->err));
    if (!got)
        exit(1);
    CHECK(t, all_are(got, bytes, (char)(16 * before + round % 16)), "round %d, %zu bytes", round,
          bytes);
    CHECK_OK(t, pt_link_release(in, NULL, &t->err));
}

static void cycle_of_links(tap *t, size_t bytes, bool blocking)
{
    char *out_memory = memory(bytes), *in_memory = memory(bytes);
    pt_link *out = NULL, *in = NULL;
    for (int from = 0; from < t->size; from++) {
        if (t->rank == from)
            out = open_link(t, from, bytes, blocking, out_memory);
        else if (t->rank == (from + 1) % t->size)
            in = open_link(t, from, bytes, blocking, in_memory);
    }
    for (int round = 0; round < ROUNDS; round++)
        speak_then_listen(t, out, in, bytes, round);
    CHECK_OK(t, pt_link_flush(out, &t->err));
    pt_link_close(out);
    pt_link_close(in);
    free(out_memory);
    free(in_memory);
}

static void test_links_short(tap *t)
{
    cycle_of_links(t, SHORT_BYTES, /*blocking=*/false);
    cycle_of_links(t, SHORT_BYTES, /*blocking=*/true);
}

static void test_links_long(tap *t)
{
    cycle_of_links(t, LONG_BYTES, /*blocking=*/false);
    cycle_of_links(t, LONG_BYTES, /*blocking=*/true);
}

/* ---- all ranks: one broadcast on each of three purposes, everyone its own first
 * ----------------*/

static void cycle_of_purposes(tap *t, size_t bytes)
{
    enum { ROOTS = 3 };
    static const pt_purpose purposes[ROOTS] = {PT_FOR_PARTITION, PT_FOR_CLIP, PT_FOR_STOP};
    char *data[ROOTS];
    for (int i = 0; i < ROOTS; i++)
        memset(data[i] = memory(bytes), t->rank == i ? 'a' + i : 0, bytes);
    for (int k = 0; k < ROOTS; k++) {
        int i = (t->rank + k) % ROOTS;
        CHECK_OK(t, pt_comm_cast_begin(t->world, purposes[i], i, data[i], bytes, &t->err));
    }
    for (int k = 0; k < ROOTS; k++) {
        int i = (t->rank + k) % ROOTS;
        CHECK_OK(t, pt_comm_cast_end(t->world, purposes[i], i, bytes, &t->err));
        CHECK(t, all_are(data[i], bytes, (char)('a' + i)), "from rank %d, %zu bytes", i, bytes);
    }
    for (int i = 0; i < ROOTS; i++)
        free(data[i]);
}

static void test_purposes_short(tap *t)
{
    for (int round = 0; round < ROUNDS; round++)
        cycle_of_purposes(t, SHORT_BYTES);
}

static void test_purposes_long(tap *t)
{
    for (int round = 0; round < ROUNDS; round++)
        cycle_of_purposes(t, LONG_BYTES);
}

int main(int argc, char **argv)
{
    static const tap_case cases[] = {
        {"a cycle of links, 64 B", test_links_short},
        {"a cycle of links, 1 MiB", test_links_long},
        {"crossing broadcasts on three purposes, 64 B", test_purposes_short},
        {"crossing broadcasts on three purposes, 1 MiB", test_purposes_long},
    };
    return tap_main(argc, argv, 3, cases, sizeof cases / sizeof *cases);
}
