/* The simulator: the lists played with the costs of their blocks.
 *
 * It plays twice. The first time it finds the window in which bubbles count; the second time it
 * measures in it. For a synchronous schedule the window is the whole span. For an asynchronous one
 * it begins when the last stage starts its first forward (the pipeline is full) and ends when the
 * first stage starts its last forward (the drain begins); a span too short to have such a window is
 * measured as a whole. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"

typedef struct window {
    const pt_schedule *schedule;
    bool *started;                             /* per rank */
    double fill_end;                           /* the latest first compute action of any rank */
    double drain_start;                        /* the first stage's last forward */
    double *busy, *busy_inside, *first, *last; /* per rank */
    double from, to;
    double **start, **end; /* of the caller; may be NULL */
} window;

static bool computes(const pt_action *action)
{
    return action->kind <= PT_INFER;
}

static void find_window(void *context, int rank, int index, double start, double end)
{
    window *w = context;
    const pt_action *a = &w->schedule->ranks[rank].actions[index];
    w->last[rank] = end;
    if (index == 0)
        w->first[rank] = start;
    if (!computes(a))
        return;
    w->busy[rank] += end - start;
    if (!w->started[rank]) {
        w->started[rank] = true;
        w->fill_end = fmax(w->fill_end, start);
    }
    if (rank == 0 && a->kind == PT_FORWARD)
        w->drain_start = start;
}

static void measure(void *context, int rank, int index, double start, double end)
{
    window *w = context;
    if (w->start)
        w->start[rank][index] = start;
    if (w->end)
        w->end[rank][index] = end;
    if (computes(&w->schedule->ranks[rank].actions[index]))
        w->busy_inside[rank] += fmax(0, fmin(end, w->to) - fmax(start, w->from));
}

static pt_status check_costs(const pt_schedule *schedule, const pt_stage_cost *costs, pt_error *err)
{
    for (int block = 0; block < pt_schedule_blocks(&schedule->spec); block++) {
        const pt_stage_cost *c = &costs[block];
        const double all[] = {c->forward, c->backward_input, c->backward_weight, c->update,
                              c->clip,    c->send_act,       c->send_grad};
        for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
            if (!(isfinite(all[i]) && all[i] >= 0))
                return pt_fail(err, PT_EINPUT,
                               "stage %d: a cost of %g µs; costs are finite and 0 or more", block,
                               all[i]);
    }
    return PT_OK;
}

static pt_status refuse(const pt_player *player, pt_error *err)
{
    const pt_schedule *schedule = player->schedule;
    char where[160];
    int rank = 0;
    while (player->cursor[rank] >= schedule->ranks[rank].n)
        rank++;
    pt_player_describe(player, rank, where, sizeof(where));
    return pt_fail(err, PT_EINPUT,
                   "schedule '%s' cannot be timed: it does not come to its end (%s), and "
                   "pt_schedule_check says why",
                   schedule->spec.name, where);
}

static void choose_window(window *w, double total)
{
    bool steady = !w->schedule->synchronous && w->drain_start > w->fill_end;
    w->from = steady ? w->fill_end : 0;
    w->to = steady ? w->drain_start : total;
}

static void report(const window *w, pt_simulated_rank *ret_ranks)
{
    double elapsed = w->to - w->from;
    for (int rank = 0; rank < w->schedule->spec.stages; rank++)
        ret_ranks[rank] = (pt_simulated_rank){
            .busy = w->busy[rank],
            .idle = w->last[rank] - w->first[rank] - w->busy[rank],
            .bubble = elapsed > 0 ? 1 - w->busy_inside[rank] / elapsed : 0,
        };
}

static pt_status simulate(pt_player *player, window *w, pt_simulated_rank *ret_ranks,
                          double *ret_total_us, pt_error *err)
{
    if (pt_player_run(player, &(pt_play_visitor){find_window, w}) != PT_PLAY_DONE)
        return refuse(player, err);
    double total = 0;
    for (int rank = 0; rank < w->schedule->spec.stages; rank++)
        total = fmax(total, w->last[rank]);
    choose_window(w, total);
    pt_player_run(player, &(pt_play_visitor){measure, w});
    if (ret_ranks)
        report(w, ret_ranks);
    if (ret_total_us)
        *ret_total_us = total;
    return PT_OK;
}

pt_status pt_schedule_simulate(const pt_schedule *schedule, const pt_stage_cost *costs, int slots,
                               double **ret_start, double **ret_end, pt_simulated_rank *ret_ranks,
                               double *ret_total_us, pt_error *err)
{
    size_t n = (size_t)schedule->spec.stages;
    PT_TRY(check_costs(schedule, costs, err));
    window w = {.schedule = schedule, .start = ret_start, .end = ret_end};
    pt_player *player = NULL;
    pt_status status = PT_OK;
    w.started = calloc(n, sizeof(*w.started));
    w.busy = calloc(4 * n, sizeof(*w.busy));
    if (!w.started || !w.busy) {
        status = pt_fail(err, PT_ENOMEM, "no memory to time a schedule of %zu stages", n);
        goto out;
    }
    w.busy_inside = w.busy + n;
    w.first = w.busy + 2 * n;
    w.last = w.busy + 3 * n;
    PT_GOTO(status, pt_player_new(schedule, costs, slots, /*synchronous=*/false, &player, err));
    PT_GOTO(status, simulate(player, &w, ret_ranks, ret_total_us, err));
out:
    pt_player_free(player);
    free(w.started);
    free(w.busy);
    return status;
}
