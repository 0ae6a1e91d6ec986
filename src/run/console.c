/* What a person sees. Numbers between two lines are averages over the steps between them. */
#include "console.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "checkpoint.h"
#include "pipetrain/clock.h"
#include "settings_rules.h"

enum { LINES_PER_EPOCH = 10, BAR_WIDTH = 24, RANGE_COLUMNS = 34 };
static const int64_t BAR_NS = 200000000; /* a bar is redrawn at most five times a second */

struct pt_console {
    pt_run *run;
    FILE *out;
    bool bar; /* the output is a terminal and wants one */
    bool bar_drawn;
    int64_t every; /* steps between lines */
    int64_t start_ns, line_ns, bar_ns;
    int64_t line_busy_ns;
    double predicted_epoch_us;
    /* sums since the last line */
    double loss;
    int64_t samples, correct, steps;
};

/* Is there a person at the other end? Under mpirun a rank's output is always a pseudo-terminal of
 * mpirun's, wherever mpirun's own output goes, so mpirun is the one to ask. */
static bool is_terminal(const pt_run *run, FILE *out)
{
    if (!isatty(fileno(out)))
        return false;
    if (!pt_world_under_mpirun(run->world))
        return true;
    char link[64], target[64] = "";
    snprintf(link, sizeof link, "/proc/%ld/fd/1", (long)getppid());
    ssize_t n = readlink(link, target, sizeof target - 1);
    return n > 0 && (strncmp(target, "/dev/pts/", 9) == 0 || strncmp(target, "/dev/tty", 8) == 0);
}

pt_status pt_console_open(pt_run *run, pt_console **ret_console, pt_error *err)
{
    pt_console *c = calloc(1, sizeof *c);
    if (!c)
        return pt_fail(err, PT_ENOMEM, "no memory for the console");
    c->run = run;
    c->out = run->console;
    c->bar = run->settings->progress && is_terminal(run, c->out);
    c->every = run->settings->log_every;
    if (c->every == 0)
        c->every = (run->steps_per_epoch + LINES_PER_EPOCH - 1) / LINES_PER_EPOCH;
    *ret_console = c;
    return PT_OK;
}

void pt_console_close(pt_console *console)
{
    free(console);
}

/* ---- the table at the start -------------------------------------------------------------------
 */

static const char *bytes_text(uint64_t bytes, char text[32])
{
    if (bytes >= 1u << 30)
        snprintf(text, 32, "%.2f GiB", (double)bytes / (double)(1u << 30));
    else
        snprintf(text, 32, "%.1f MiB", (double)bytes / (double)(1u << 20));
    return text;
}

static bool has_an_epoch(const pt_run *run)
{
    return run->total_steps >= run->steps_per_epoch;
}

static void print_stage(pt_console *c, const stage_card *card)
{
    char range[RANGE_TEXT], memory[32];
    fprintf(c->out, "  %5d  %-12.12s  %s %6d  %10lld  %9.0f  %9.0f  %9s  %9d\n", card->rank,
            card->host, pt_reporter_range(c->run, card, RANGE_COLUMNS, range), card->layers,
            (long long)card->parameters, card->cost.forward,
            card->cost.backward_input + card->cost.backward_weight,
            bytes_text(card->predicted_bytes, memory), card->staleness_max);
}

void pt_console_start(pt_console *c, const stage_card *cards, const pt_stage_cost *costs)
{
    const pt_run *run = c->run;
    const pt_settings *s = run->settings;
    char backend[128], world[128], optimizer[128], schedule[128], rules[256], chunks[32] = "",
                                                                              held[48] = "";
    pt_optimizer_spec optimizer_spec = pt_config_optimizer(s);
    pt_error ignored = {PT_OK, ""};
    int64_t parameters =
        pt_graph_parameters(&run->partition->graph, 0, run->partition->graph.n_nodes);
    run->backend->row->describe(run->backend, backend, sizeof backend);
    pt_world_describe(run->world, world, sizeof world);
    pt_rules_describe(run->config, rules, sizeof rules);
    fprintf(c->out, "pipetrain " PT_VERSION " | %s | %s\n", world, backend);
    if (run->chunks > 1)
        snprintf(chunks, sizeof chunks, " of %d chunks", run->chunks);
    fprintf(c->out, "  model      %s: %lld parameters in %d layers, %d stage%s%s (%s)\n",
            run->partition->name, (long long)parameters, run->partition->graph.n_nodes, run->stages,
            run->stages == 1 ? "" : "s", chunks,
            run->stages == 1       ? "no cut"
            : run->cut_was_planned ? "cut by the planner"
                                   : "cut as the file says");
    if (run->held_out > 0)
        snprintf(held, sizeof held, ", %lld to validate", (long long)run->held_out);
    fprintf(c->out, "  data       %s: %lld samples to learn%s, %lld to test, seed %lld\n",
            s->dataset, (long long)run->epoch_plan.samples, held,
            (long long)(run->test_data ? pt_dataset_count(run->test_data) : 0), (long long)s->seed);
    fprintf(c->out,
            "  schedule   %s, predict %s, stash %s%s | batch %lld = %lld x micro-batch %lld\n",
            pt_run_schedule_text(s, schedule, sizeof schedule), s->predict, s->stash ? "on" : "off",
            rules, (long long)s->batch, (long long)s->accumulate, (long long)s->micro_batch);
    pt_reporter_recompute(run, cards, "  recompute  ", c->out);
    pt_optimizer_describe(&optimizer_spec, optimizer, sizeof optimizer);
    fprintf(c->out, "  optimizer  %s%s, lr %g (%s), %s | %lld steps, %lld epochs\n", s->optimizer,
            s->nesterov_last ? " (nesterov on the last stage)" : "", s->lr, s->lr_schedule,
            optimizer, (long long)run->total_steps, (long long)run->epochs);
    if (run->resumed.step > 0)
        fprintf(c->out, "  resume     %s: from step %lld of %lld\n", s->resume,
                (long long)run->resumed.step, (long long)run->total_steps);
    else if (s->init)
        fprintf(c->out, "  init       %s: %d tensors read, %d left random\n", s->init, run->loaded,
                run->missing);
    /* printf counts bytes, and a µ has two. */
    fprintf(c->out, "  %5s  %-12s  %-*s %6s  %10s  %10s  %10s  %9s  %9s\n", "stage", "host",
            RANGE_COLUMNS, "blocks", "layers", "parameters", "fwd µs", "bwd µs", "memory",
            "staleness");
    for (int i = 0; i < run->stages; i++)
        print_stage(c, &cards[i]);
    if (pt_predict_epoch_us(run, costs, &c->predicted_epoch_us, &ignored) == PT_OK)
        fprintf(c->out, "  predicted  %.1f s %s (%s stages, simulated schedule)\n",
                c->predicted_epoch_us / 1e6,
                has_an_epoch(run) ? "an epoch" : "for these steps, less than an epoch",
                run->clock_costs ? "stated" : "profiled");
    fflush(c->out);
    c->start_ns = c->line_ns = pt_clock_ns();
}

/* ---- steps ------------------------------------------------------------------------------------
 */

void pt_console_epoch(pt_console *c, uint32_t epoch, int64_t steps)
{
    (void)epoch;
    (void)steps;
    c->line_ns = pt_clock_ns();
    c->line_busy_ns = pt_engine_busy_ns(c->run->engine);
    c->loss = 0;
    c->samples = c->correct = c->steps = 0;
}

static void clear_bar(pt_console *c)
{
    if (c->bar_drawn)
        fputs("\r\033[K", c->out);
    c->bar_drawn = false;
}

static void draw_bar(pt_console *c, int64_t step, const pt_step_result *record)
{
    int64_t now = pt_clock_ns();
    if (!c->bar || now - c->bar_ns < BAR_NS)
        return;
    c->bar_ns = now;
    int64_t total = c->run->total_steps, own = step - c->run->resumed.step;
    int filled = (int)(BAR_WIDTH * step / total);
    double left_s = (double)(now - c->start_ns) / 1e9 * (double)(total - step) / (double)own;
    fputs("\r\033[K[", c->out);
    for (int i = 0; i < BAR_WIDTH; i++)
        fputs(i < filled ? "█" : "·", c->out);
    fprintf(c->out, "] %lld/%lld | epoch %d | loss %.4f | %02d:%02d:%02d left", (long long)step,
            (long long)total, record->epoch + 1, record->loss / (double)record->samples,
            (int)(left_s / 3600), (int)fmod(left_s / 60, 60), (int)fmod(left_s, 60));
    fflush(c->out);
    c->bar_drawn = true;
}

static void print_line(pt_console *c, int64_t step, const pt_step_result *record)
{
    int64_t now = pt_clock_ns(), busy = pt_engine_busy_ns(c->run->engine);
    double seconds = (double)(now - c->line_ns) / 1e9;
    double busy_s = (double)(busy - c->line_busy_ns) / 1e9;
    double bubble = seconds > busy_s ? 100 * (1 - busy_s / seconds) : 0;
    clear_bar(c);
    fprintf(c->out, "step %lld/%lld | loss %.4f", (long long)step, (long long)c->run->total_steps,
            c->loss / (double)c->samples);
    if (c->run->partition->graph.loss.kind == PT_LOSS_CROSS_ENTROPY)
        fprintf(c->out, " | acc %.1f%%", 100.0 * (double)c->correct / (double)c->samples);
    fprintf(c->out, " | lr %.1e", record->lr);
    if (!isnan(record->norm))
        fprintf(c->out, " | norm %.2f", record->norm);
    fprintf(c->out, " | %.1f ms | %.0f img/s | bubble %.1f%%\n", 1e3 * seconds / (double)c->steps,
            (double)c->samples / seconds, bubble);
    fflush(c->out);
    c->line_ns = now;
    c->line_busy_ns = busy;
    c->loss = 0;
    c->samples = c->correct = c->steps = 0;
}

void pt_console_step(pt_console *c, const pt_step_result *record, int64_t step)
{
    c->loss += record->loss;
    c->samples += record->samples;
    c->correct += record->correct;
    c->steps++;
    if (step % c->every == 0 || step == c->run->total_steps)
        print_line(c, step, record);
    else
        draw_bar(c, step, record);
}

void pt_console_evaluation(pt_console *c, uint32_t epoch, eval_set set, const run_totals *totals)
{
    const set_score *score = &totals->scores[set];
    const char *name = pt_eval_names[set];
    clear_bar(c);
    fprintf(c->out, "epoch %u/%lld", (unsigned)epoch + 1, (long long)c->run->epochs);
    if (!isnan(totals->train_loss)) /* it is, before an epoch has ended */
        fprintf(c->out, " | train loss %.4f", totals->train_loss);
    fprintf(c->out, " | %s loss %.4f", name, score->loss);
    if (c->run->partition->graph.loss.kind == PT_LOSS_CROSS_ENTROPY)
        fprintf(c->out, " | %s accuracy %.2f%%", name, 100 * score->accuracy);
    fputc('\n', c->out);
    fflush(c->out);
    c->line_ns = pt_clock_ns(); /* an evaluation is not training time */
}

void pt_console_checkpoint(pt_console *c, int64_t step, int files, uint64_t bytes, double seconds)
{
    char text[32];
    clear_bar(c);
    fprintf(c->out, "checkpoint of step %lld: %d files, %s, whole after %.2f s\n", (long long)step,
            files, bytes_text(bytes, text), seconds);
    fflush(c->out);
}

/* With --validation the test set is evaluated once: no word of a best time. */
static void print_score(pt_console *c, eval_set set, const set_score *score)
{
    if (score->evaluations == 0 || c->run->partition->graph.loss.kind != PT_LOSS_CROSS_ENTROPY)
        return;
    fprintf(c->out, " | %s accuracy %.2f%%", pt_eval_names[set], 100 * score->accuracy);
    if (set == EVAL_VALIDATION || c->run->held_out == 0)
        fprintf(c->out, " (best %.2f%%)", 100 * score->best_accuracy);
}

void pt_console_finish(pt_console *c, const run_totals *totals)
{
    int64_t own = totals->steps - totals->first_step;
    double train_s = (double)totals->train_ns / 1e9;
    clear_bar(c);
    fprintf(c->out, "%s: %lld steps, %lld epochs in %.1f s of training, %.0f img/s",
            c->run->halted ? "stopped" : "done", (long long)totals->steps,
            (long long)totals->epochs, train_s,
            train_s > 0 ? (double)totals->samples / train_s : 0.0);
    if (c->predicted_epoch_us > 0 && has_an_epoch(c->run) && own > 0)
        fprintf(c->out, " | an epoch took %.1f s, %.1f s were predicted",
                train_s * (double)c->run->steps_per_epoch / (double)own,
                c->predicted_epoch_us / 1e6);
    for (int set = 0; set < EVAL_SETS; set++)
        print_score(c, (eval_set)set, &totals->scores[set]);
    pt_score best = pt_checkpoint_best(c->run->checkpoint);
    if (best.step > 0)
        fprintf(c->out, " | the best step is %lld", (long long)best.step);
    fputc('\n', c->out);
    for (int i = 0; i < c->run->stages; i++) {
        const stage_totals *t = &totals->stages[i];
        double elapsed = (double)(t->elapsed_ns > 0 ? t->elapsed_ns : 1);
        fprintf(c->out, "  stage %d: busy %4.1f%%, waits for receives %4.1f%%, for sends %4.1f%%",
                i, 100 * (double)t->busy_ns / elapsed, 100 * (double)t->recv_wait_ns / elapsed,
                100 * (double)t->send_wait_ns / elapsed);
        if (t->window_ns > 0)
            fprintf(c->out, ", bubble %4.1f%%",
                    100 * (1 - (double)t->window_busy_ns / (double)t->window_ns));
        fprintf(c->out, ", staleness mean %.2f, max %d",
                t->forwards ? (double)t->staleness_sum / (double)t->forwards : 0.0,
                t->staleness_max);
        if (t->gap.measured > 0)
            fprintf(c->out, ", gap %.3g%% of the weights",
                    100 * t->gap.relative / (double)t->gap.measured);
        fputc('\n', c->out);
    }
    fflush(c->out);
}
