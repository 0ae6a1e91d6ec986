/* Regression: sends that nobody waits for grow memory. A sender runs as fast as its slots allow
 * while the receiver dawdles; neither may grow once all pages have been touched. */
#include <stdint.h>
#include <string.h>

#include "pipetrain/link.h"
#include "tap.h"

enum {
    MESSAGES = 5000,
    WARM_UP = 500,         /* messages until MPI's pools and every page of the slots are in use */
    LONG_BYTES = 65 << 10, /* above the eager limits: 317 MiB in all */
    SHORT_BYTES = 2 << 10, /* below them: 10 MiB in all, which eager buffering would keep */
    GROWTH_KIB = 2 << 10,  /* pools of MPI grow in steps of a few hundred KiB */
    DAWDLE = 20000 /* bytes read again and again before a slot is given back: some 10 µs, in
                      which an eager sender would be several messages further */
};

/* Resident set in KiB. */
static long resident(void)
{
    char line[200];
    long kib = -1;
    FILE *file = fopen("/proc/self/status", "r");
    while (file && kib < 0 && fgets(line, sizeof line, file))
        if (strncmp(line, "VmRSS:", 6) == 0)
            kib = atol(line + 6);
    if (file)
        fclose(file);
    return kib;
}

static void send_one(tap *t, pt_link *link, size_t bytes, int message)
{
    void *slot = NULL;
    CHECK_OK(t, pt_link_send_slot(link, &slot, &t->err));
    if (!slot)
        exit(1);
    memset(slot, message & 0xff, bytes);
    CHECK_OK(t, pt_link_send(link, bytes, NULL, &t->err));
}

static void receive_one(tap *t, pt_link *link, size_t bytes, int message)
{
    const void *got = NULL;
    long wrong = 0;
    CHECK_OK(t, pt_link_receive(link, bytes, &got, &t->err));
    if (!got)
        exit(1);
    for (size_t i = 0; i < DAWDLE; i++)
        wrong += ((const volatile unsigned char *)got)[i * 64 % bytes] != (message & 0xff);
    CHECK(t, wrong == 0, "message %d", message);
    CHECK_OK(t, pt_link_release(link, NULL, &t->err));
}

static void stream(tap *t, size_t bytes)
{
    enum { SLOTS = 2 };
    pt_link *link = NULL;
    char *memory = malloc(SLOTS * bytes);
    pt_link_spec spec = {.from = 0, .to = 1, .slots = SLOTS, .slot_bytes = bytes, .buffer = memory};
    long before = 0, most = 0;
    if (!memory)
        exit(1);
    CHECK_OK(t, pt_link_open(t->world, &spec, &link, &t->err));
    for (int i = 0; i < MESSAGES && link; i++) {
        if (i == WARM_UP) { /* together, or the sender would be far ahead at the receiver's 500th */
            CHECK_OK(t, pt_world_barrier(t->world, PT_FOR_STOP, &t->err));
            before = resident();
        }
        (t->rank == 0 ? send_one : receive_one)(t, link, bytes, i);
        if (i % WARM_UP == WARM_UP - 1 && resident() > most)
            most = resident();
    }
    CHECK(t, before > 0 && most - before <= GROWTH_KIB, "from %ld to %ld KiB", before, most);
    if (link)
        CHECK_OK(t, pt_link_flush(link, &t->err));
    pt_link_close(link);
    free(memory);
}

static void test_long(tap *t)
{
    stream(t, LONG_BYTES);
}

static void test_short(tap *t)
{
    stream(t, SHORT_BYTES);
}

/* Broadcasts come and go with the steps: the same must hold for them. */
static void test_broadcasts(tap *t)
{
    double flag[8] = {0};
    long before = 0;
    for (int i = 0; i < MESSAGES; i++) {
        if (i == WARM_UP)
            before = resident();
        flag[0] = t->rank == 0 ? i : -1;
        CHECK_OK(t, pt_world_broadcast(t->world, PT_FOR_STOP, 0, flag, sizeof flag, &t->err));
        CHECK(t, flag[0] == i, "broadcast %d", i);
    }
    long after = resident();
    CHECK(t, before > 0 && after - before <= GROWTH_KIB, "from %ld to %ld KiB", before, after);
}

int main(int argc, char **argv)
{
    static const tap_case cases[] = {
        {"5,000 messages of 65 KiB, resident set flat", test_long},
        {"5,000 messages of 2 KiB, resident set flat", test_short},
        {"5,000 broadcasts, resident set flat", test_broadcasts},
    };
    return tap_main(argc, argv, 2, cases, sizeof cases / sizeof *cases);
}
