/* Messages under way, as the streams see them.
 *
 * What MPI sends must have been written before the send is asked for; where a receive is posted,
 * nobody reads and nobody writes until it has come. Both are checked when a message begins and when
 * a stream is asked for a copy, so that a program that relies on luck ends here in whatever order
 * the streams run. */
#include <stdlib.h>

#include "fake_inside.h"

struct pt_fake_message {
    const char *at;
    size_t bytes;
    bool arrives;
    pt_fake_message *next;
};

static pt_fake_message *messages;

static bool meets(const pt_fake_message *m, const void *at, size_t bytes)
{
    const char *c = at;
    return c < m->at + m->bytes && m->at < c + bytes;
}

pt_fake_message *pt_fake_message_begin(const void *at, size_t bytes, bool arrives)
{
    if (pt_fake_is_asked(at, bytes, /*or_reads=*/arrives))
        pt_fake_misuse(arrives
                           ? "a receive of %zu bytes is posted where copies are still to be done"
                           : "%zu bytes are sent before they are written",
                       bytes);
    pt_fake_message *m = malloc(sizeof *m);
    if (!m)
        abort();
    *m = (pt_fake_message){at, bytes, arrives, messages};
    messages = m;
    return m;
}

void pt_fake_message_end(pt_fake_message *message)
{
    pt_fake_message **link = &messages;
    while (*link != message)
        link = &(*link)->next;
    *link = message->next;
    free(message);
}

void pt_fake_check_messages(const void *at, size_t bytes, bool writes)
{
    for (const pt_fake_message *m = messages; m; m = m->next)
        if (meets(m, at, bytes) && (writes || m->arrives))
            pt_fake_misuse("a copy %s %zu bytes that a message under way %s",
                           writes ? "writes" : "reads", bytes, m->arrives ? "writes" : "reads");
}
