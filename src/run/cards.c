/* Who the stages are and what they cost: gathered once at the start and once for the summary. */
#include <stdio.h>
#include <stdlib.h>

#include "reporter.h"
#include "setup.h"

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
        .stash_peak = pt_run_peak(run, PT_PEAK_STASH),
        .staleness_max = span->facts[run->rank].staleness_max,
        .ops_again = pt_stage_ops_again(run->stage),
    };
    snprintf(card.host, sizeof card.host, "%s", run->world ? pt_world_host(run->world) : "here");
    return card;
}

/* printf would count bytes; a column is a character, of one byte or more (UTF-8). */
const char *pt_reporter_range(const pt_run *run, const stage_card *card, int columns,
                              char text[RANGE_TEXT])
{
    enum { CONTINUES = 0x80, CONTINUES_MASK = 0xc0 };
    const pt_node *nodes = run->partition->graph.nodes;
    snprintf(text, RANGE_TEXT, "%s … %s", nodes[card->first].name, nodes[card->end - 1].name);
    int shown = 0;
    size_t end = 0;
    for (; text[end]; end++) {
        bool begins = ((unsigned char)text[end] & CONTINUES_MASK) != CONTINUES;
        if (begins && shown == columns)
            break;
        shown += begins;
    }
    for (; shown < columns && end + 1 < RANGE_TEXT; shown++)
        text[end++] = ' ';
    text[end] = 0;
    return text;
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
