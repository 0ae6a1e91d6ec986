/* Blocks of layers: which rank owns which, and who talks to whom.
 *
 *     P = 2, V = 3         block  0 ─► 1 ─► 2 ─► 3 ─► 4 ─► 5       edge e joins blocks e and e+1
 *                          rank   0    1    0    1    0    1
 *                          chunk  0    0    1    1    2    2                                   */
#include "internal.h"

int pt_schedule_blocks(const pt_schedule_spec *spec)
{
    return spec->stages * spec->chunks;
}

int pt_schedule_block(const pt_schedule_spec *spec, int rank, int chunk)
{
    return chunk * spec->stages + rank;
}

static bool is_message(pt_action_kind kind)
{
    return kind >= PT_RECV_ACT && kind < PT_ACTION_KINDS;
}

static bool looks_behind(pt_action_kind kind)
{
    return kind == PT_SEND_ACT || kind == PT_RECV_GRAD;
}

int pt_schedule_edge(const pt_schedule_spec *spec, int rank, int chunk, pt_action_kind kind)
{
    if (!is_message(kind) || chunk < 0 || chunk >= spec->chunks)
        return -1;
    int edge = pt_schedule_block(spec, rank, chunk) - !looks_behind(kind);
    return edge < pt_schedule_blocks(spec) - 1 ? edge : -1;
}

int pt_schedule_peer(const pt_schedule_spec *spec, int rank, int chunk, pt_action_kind kind)
{
    int edge = pt_schedule_edge(spec, rank, chunk, kind);
    return edge < 0 ? -1 : (edge + looks_behind(kind)) % spec->stages;
}
