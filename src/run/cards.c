/* Who the stages are and what they cost: gathered once at the start and once for the summary. */
#include <stdio.h>
#include <stdlib.h>

#include "reporter.h"
#include "setup.h"

static void add_cost(pt_stage_cost *sum, const pt_stage_cost *cost)
{
    sum->forward += cost->forward;
    sum->backward_input += cost->backward_input;
    sum->backward_weight += cost->backward_weight;
    sum->update += cost->update;
}

stage_card pt_reporter_card(const pt_run *run)
{
    size_t now = 0, most = 0;
    run->backend->row->memory(run->backend, &now, &most);
    stage_card card = {
        .rank = run->rank,
        .predicted_bytes = run->predicted_bytes,
        .peak_bytes = most,
        .stash_peak = pt_run_peak(run, 0, PT_PEAK_ALL_STASH),
    };
    for (int c = 0; c < run->chunks; c++) {
        const pt_stage_spec *spec = run->blocks[c].spec;
        int staleness = pt_run_facts(run, c)->staleness_max;
        card.layers += spec->end - spec->first;
        card.parameters += pt_graph_parameters(&run->partition->graph, spec->first, spec->end);
        card.staleness_max = staleness > card.staleness_max ? staleness : card.staleness_max;
        card.ops_again += pt_stage_ops_again(run->blocks[c].stage);
        add_cost(&card.cost, &run->blocks[c].cost);
    }
    snprintf(card.host, sizeof card.host, "%s", run->world ? pt_world_host(run->world) : "here");
    return card;
}

/* printf would count bytes; a column is a character, of one byte or more (UTF-8). */
const char *pt_reporter_range(const pt_run *run, const stage_card *card, int columns,
                              char text[RANGE_TEXT])
{
    enum { CONTINUES = 0x80, CONTINUES_MASK = 0xc0 };
    const pt_node *nodes = run->partition->graph.nodes;
    size_t used = 0, end = 0;
    for (int c = 0; c < run->chunks && used < RANGE_TEXT; c++) {
        const pt_stage_spec *spec = &run->specs[c * run->stages + card->rank];
        used += (size_t)snprintf(text + used, RANGE_TEXT - used, "%s%s … %s", c > 0 ? ", " : "",
                                 nodes[spec->first].name, nodes[spec->end - 1].name);
    }
    int shown = 0;
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

/* What ranks send is their chunks; blocks are in the order of the layers. */
static void put_in_order(const pt_run *run, const pt_stage_cost *gathered, pt_stage_cost *costs)
{
    for (int r = 0; r < run->stages; r++)
        for (int c = 0; c < run->chunks; c++)
            costs[c * run->stages + r] = gathered[r * run->chunks + c];
}

pt_status pt_reporter_costs(pt_run *run, pt_stage_cost *ret_costs, pt_error *err)
{
    pt_stage_cost mine[PT_MOST_CHUNKS];
    size_t blocks = (size_t)pt_run_all_blocks(run), bytes = (size_t)run->chunks * sizeof mine[0];
    pt_stage_cost *gathered = calloc(blocks, sizeof *gathered);
    size_t *counts = calloc((size_t)run->stages, sizeof *counts);
    for (int c = 0; c < run->chunks; c++)
        mine[c] = run->blocks[c].cost;
    for (int i = 0; counts && i < run->stages; i++)
        counts[i] = bytes;
    pt_status status = gathered && counts
                           ? pt_world_gather(run->world, PT_FOR_METRICS, /*root=*/0, mine, bytes,
                                             counts, gathered, err)
                           : pt_fail(err, PT_ENOMEM, "no memory for %zu blocks", blocks);
    if (status == PT_OK && run->rank == 0)
        put_in_order(run, gathered, ret_costs);
    free(gathered);
    free(counts);
    return status;
}
