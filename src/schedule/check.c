/* The checker: every rank's own rules first, since they name the very action that is wrong; then
 * all ranks together, every send synchronous, which finds what no list shows alone: messages that
 * cross and ranks that wait for each other. */
#include <stdlib.h>
#include <string.h>

#include "internal.h"

enum { RANKS_NAMED = 8 }; /* waiting ranks in a message; the picture marks them all */

/* Ends the text in *stream with the picture and makes it the error message. */
static pt_status refuse(FILE *stream, char **text, pt_player *player, const pt_flaw *flaw,
                        pt_error *err)
{
    pt_status status = PT_OK;
    if (stream) {
        status = pt_schedule_draw_stopped(player, flaw, stream, err);
        if (fclose(stream) != 0 && status == PT_OK)
            status = PT_ENOMEM;
    }
    if (!stream || status == PT_ENOMEM)
        status = pt_fail(err, PT_ENOMEM, "no memory to say why a schedule is refused");
    else if (status == PT_OK)
        status = pt_fail(err, PT_EINPUT, "%s", *text);
    free(*text);
    return status;
}

/* One action is to blame: the picture shows what could be played before it. */
static pt_status refuse_flaw(pt_player *player, const pt_flaw *flaw, pt_error *err)
{
    const pt_schedule *schedule = player->schedule;
    char *text = NULL, unit[PT_UNIT_TEXT];
    size_t bytes;
    FILE *stream = open_memstream(&text, &bytes);
    if (stream && flaw->action.line > 0)
        fprintf(stream, "%s:%d: ", schedule->spec.name, flaw->action.line);
    if (stream)
        fprintf(stream, "schedule '%s' is refused: rank %d, action %d, %s of %s: %s\n",
                schedule->spec.name, flaw->rank, flaw->index,
                pt_action_name((pt_action_kind)flaw->action.kind),
                pt_schedule_name_unit(&schedule->spec, &flaw->action, unit), flaw->reason);
    player->stop_rank = flaw->rank;
    player->stop_at = flaw->index;
    return refuse(stream, &text, player, flaw, err);
}

static pt_status refuse_crossing(pt_player *player, pt_error *err)
{
    int rank = player->crossed_rank, index = player->cursor[rank];
    pt_flaw flaw = {
        .rank = rank, .index = index, .action = player->schedule->ranks[rank].actions[index]};
    snprintf(flaw.reason, sizeof(flaw.reason),
             "the next message from rank %d is that of micro-batch %d: the orders of the two ranks "
             "cross",
             flaw.action.peer, player->crossed_message);
    return refuse_flaw(player, &flaw, err);
}

/* Where a waiting action comes from, and the end of what is said of it. */
static void print_line(const pt_schedule *schedule, const pt_action *action, FILE *stream)
{
    if (action->line > 0)
        fprintf(stream, " (%s:%d)", schedule->spec.name, action->line);
    fputc('\n', stream);
}

static pt_status refuse_deadlock(pt_player *player, int slots, pt_error *err)
{
    const pt_schedule *schedule = player->schedule;
    char *text = NULL;
    size_t bytes;
    FILE *stream = open_memstream(&text, &bytes);
    int waiting = 0;
    if (stream)
        fprintf(stream, "schedule '%s' is refused: with %d slot%s an edge it would never end\n",
                schedule->spec.name, slots, slots == 1 ? "" : "s");
    for (int rank = 0; stream && rank < schedule->spec.stages; rank++) {
        char line[160];
        if (player->cursor[rank] >= schedule->ranks[rank].n || ++waiting > RANKS_NAMED)
            continue;
        pt_player_describe(player, rank, line, sizeof(line));
        fprintf(stream, "  %s", line);
        print_line(schedule, &schedule->ranks[rank].actions[player->cursor[rank]], stream);
    }
    if (waiting > RANKS_NAMED)
        fprintf(stream, "  and %d more ranks wait\n", waiting - RANKS_NAMED);
    return refuse(stream, &text, player, NULL, err);
}

static pt_status check_ranks(pt_player *player, pt_schedule_rank *found, pt_error *err)
{
    for (int rank = 0; rank < player->schedule->spec.stages; rank++) {
        pt_flaw flaw;
        pt_status status = pt_schedule_check_rank(player->schedule, rank, found, &flaw, err);
        if (status == PT_EINPUT)
            return refuse_flaw(player, &flaw, err);
        PT_TRY(status);
    }
    return PT_OK;
}

static pt_status check_together(pt_player *player, int slots, pt_error *err)
{
    switch (pt_player_run(player, NULL)) {
    case PT_PLAY_CROSSED:
        return refuse_crossing(player, err);
    case PT_PLAY_STUCK:
        return refuse_deadlock(player, slots, err);
    case PT_PLAY_DONE:
        break;
    }
    return PT_OK;
}

pt_status pt_schedule_check(const pt_schedule *schedule, int slots, pt_schedule_rank *ret_ranks,
                            pt_error *err)
{
    size_t blocks = (size_t)pt_schedule_blocks(&schedule->spec);
    pt_player *player = NULL;
    pt_schedule_rank *found = calloc(blocks, sizeof(*found));
    pt_status status = PT_OK;
    if (!found) {
        status = pt_fail(err, PT_ENOMEM, "no memory to check a schedule of %zu blocks", blocks);
        goto out;
    }
    PT_GOTO(status, pt_player_new(schedule, NULL, slots, /*synchronous=*/true, &player, err));
    PT_GOTO(status, check_ranks(player, found, err));
    PT_GOTO(status, check_together(player, slots, err));
    if (ret_ranks)
        memcpy(ret_ranks, found, blocks * sizeof(*found));
out:
    pt_player_free(player);
    free(found);
    return status;
}
