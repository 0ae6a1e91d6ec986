/* Ranks 0 and 1, a link from one to the other, and messages of one byte's value. */
#ifndef PIPETRAIN_TESTS_MPI_LINKS_RIG_H
#define PIPETRAIN_TESTS_MPI_LINKS_RIG_H

#include <string.h>

#include "pipetrain/link.h"
#include "tap.h"

enum {
    PAIR_SLOTS = 2,
    SLOT_BYTES = 150000 /* above the eager limits: 4 KiB in shared memory, 64 KiB over TCP */
};

#define CHECK_FAILS(t, call, code_, words)                                                         \
    do {                                                                                           \
        pt_status status_ = (call);                                                                \
        CHECK((t), status_ == (code_) && strstr((t)->err.text, (words)), "status %d, \"%s\"",      \
              (int)status_, (t)->err.text);                                                        \
    } while (0)

/* `memory` has room for PAIR_SLOTS slots. */
static inline pt_link *open_pair(tap *t, char *memory, size_t bytes)
{
    pt_link *link = NULL;
    pt_link_spec spec = {
        .from = 0, .to = 1, .slots = PAIR_SLOTS, .slot_bytes = bytes, .buffer = memory};
    CHECK_OK(t, pt_link_open(t->world, &spec, &link, &t->err));
    if (!link)
        exit(1);
    return link;
}

static inline void send_filled(tap *t, pt_link *link, size_t bytes, int value)
{
    void *slot = NULL;
    CHECK_OK(t, pt_link_send_slot(link, &slot, &t->err));
    if (!slot)
        exit(1);
    memset(slot, value, bytes);
    CHECK_OK(t, pt_link_send(link, bytes, NULL, &t->err));
}

static inline void receive_filled(tap *t, pt_link *link, size_t bytes, int value)
{
    const void *got = NULL;
    CHECK_OK(t, pt_link_receive(link, bytes, &got, &t->err));
    if (!got)
        exit(1);
    const char *bytes_of_it = got;
    CHECK(t, bytes_of_it[0] == value && bytes_of_it[bytes - 1] == value, "message %d is %d", value,
          bytes_of_it[0]);
}

#endif
