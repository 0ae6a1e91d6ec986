/* Meetings: of all threads of the block at a barrier, of the lanes of a warp, and what lanes give
 * each other there. */
#include <stdio.h>
#include <string.h>

#include "block.h"

static unsigned mask_of[PT_EMULATE_MOST_THREADS];       /* of the meeting of the thread's warp */
static unsigned char given[PT_EMULATE_MOST_THREADS][8]; /* to the other lanes */

static void wait_as(pt_emulate_state state)
{
    pt_emulate_now.state[pt_emulate_now.running->thread] = state;
    pt_emulate_now.running->waited = true;
    pt_emulate_go_home();
}

void pt_emulate_meet(void)
{
    wait_as(MEETS_BLOCK);
}

void pt_emulate_meet_warp(unsigned mask)
{
    const int thread = pt_emulate_now.running->thread;
    if (!(mask >> thread % PT_EMULATE_LANES & 1)) {
        pt_emulate_fail("a lane asks for a meeting of its warp whose mask leaves it out");
        wait_as(MEETS_WARP); /* nobody comes */
        return;
    }
    mask_of[thread] = mask;
    wait_as(MEETS_WARP);
}

void pt_emulate_exchange(unsigned mask, unsigned from, const void *mine, void *ret_theirs,
                         size_t bytes)
{
    const int thread = pt_emulate_now.running->thread,
              other = thread - thread % PT_EMULATE_LANES + (int)(from % PT_EMULATE_LANES);
    memcpy(given[thread], mine, bytes);
    pt_emulate_meet_warp(mask);
    if (!(mask >> from % PT_EMULATE_LANES & 1))
        pt_emulate_fail("a shuffle reads from a lane that its mask leaves out");
    memcpy(ret_theirs, given[other], bytes);
    pt_emulate_meet_warp(mask); /* nobody gives anew before all have taken */
}

/* Threads that all wait for each other at the block's barrier go on. */
static bool release_block(void)
{
    for (int t = 0; t < pt_emulate_now.threads; t++)
        if (pt_emulate_now.state[t] != MEETS_BLOCK)
            return false;
    for (int t = 0; t < pt_emulate_now.threads; t++)
        pt_emulate_now.state[t] = RUNS;
    return true;
}

static bool warp_is_met(int first, unsigned mask)
{
    for (int t = first; t < first + PT_EMULATE_LANES && t < pt_emulate_now.threads; t++)
        if (mask >> (t - first) & 1 &&
            (pt_emulate_now.state[t] != MEETS_WARP || mask_of[t] != mask))
            return false;
    return true;
}

static bool release_warp(int first)
{
    bool any = false;
    for (int t = first; t < first + PT_EMULATE_LANES && t < pt_emulate_now.threads; t++) {
        const unsigned mask = mask_of[t];
        if (pt_emulate_now.state[t] != MEETS_WARP || !warp_is_met(first, mask))
            continue;
        for (int u = t; u < first + PT_EMULATE_LANES && u < pt_emulate_now.threads; u++)
            if (mask >> (u - first) & 1)
                pt_emulate_now.state[u] = RUNS;
        any = true;
    }
    return any;
}

static bool release_warps(void)
{
    bool any = false;
    for (int first = 0; first < pt_emulate_now.threads; first += PT_EMULATE_LANES)
        any |= release_warp(first);
    return any;
}

void pt_emulate_report_parting(void)
{
    int waits = 0, ended = 0, first = 0;
    for (int t = pt_emulate_now.threads - 1; t >= 0; t--) {
        if (pt_emulate_now.state[t] == ENDED)
            ended++;
        else
            first = t, waits++;
    }
    char text[96];
    snprintf(text, sizeof text, "%d threads wait at a %s while %d have ended", waits,
             pt_emulate_now.state[first] == MEETS_BLOCK ? "barrier" : "meeting of their warp",
             ended);
    pt_emulate_set_place(first);
    pt_emulate_fail(text);
}

bool pt_emulate_release(void)
{
    return release_block() || release_warps();
}
