/* Who the stages are and what they cost: gathered once at the start and once for the summary. */
#include <stdio.h>
#include <stdlib.h>

#include "reporter.h"

stage_card pt_reporter_card(const pt_run *run)
{
    const pt_span *span = run->full.facts ? &run->full : &run->last;
    size_t now = 0, most = 0;
    run->backend->row->memory(run->backend, &now, &most);
    stage_card card = {
        .rank = run->rank,
        .first = run->spec->first,
        .end = run->spec->end,
        .parameters = pt_graph_parameters(&run->partition->graph, run->spec->first, run->spec->end),
        .predicted_bytes = run->predicted_bytes,
        .peak_bytes = most,
        .cost = run->cost,
        .stash_peak = span->facts[run->rank].stash_peak,
        .staleness_max = span->facts[run->rank].staleness_max,
    };
    snprintf(card.host, sizeof card.host, "%s", run->world ? pt_world_host(run->world) : "here");
    return card;
}

pt_status pt_reporter_cards(pt_run *run, stage_card *ret_cards, pt_error *err)
{
    stage_card mine = pt_reporter_card(run);
    size_t *counts = calloc((size_t)run->stages, sizeof *counts);
    if (!counts)
        return pt_fail(err, PT_ENOMEM, "no memory for %d stages", run->stages);
    for (int i = 0; i < run->stages; i++)
        counts[i] = sizeof mine;
    pt_status status = pt_world_gather(run->world, PT_FOR_METRICS, /*root=*/0, &mine, sizeof mine,
                                       counts, ret_cards, err);
    free(counts);
    return status;
}
