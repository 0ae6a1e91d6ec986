/* What a run will do: its steps and epochs, the lists for them, and what these need at most. */
#include "settings_rules.h"
#include "setup.h"

int pt_run_all_blocks(const pt_run *run)
{
    return run->stages * run->chunks;
}

int pt_run_block(const pt_run *run, int chunk)
{
    return chunk * run->stages + run->rank;
}

const pt_schedule_rank *pt_run_facts(const pt_run *run, int chunk)
{
    const pt_span *span = run->full.facts ? &run->full : &run->last;
    return span->facts ? &span->facts[pt_run_block(run, chunk)] : NULL;
}

/* Lists for one step, for an epoch, or for all steps where they are fewer: anything else was meant
 * for another run. */
static pt_status check_own_lists(const pt_run *run, pt_error *err)
{
    const pt_settings *s = run->settings;
    if (!s->own_lists)
        return PT_OK;
    int64_t n = pt_own_lists_micro_batches(s->own_lists);
    int64_t step = pt_epoch_per_step(&run->epoch_plan);
    int64_t epoch = pt_epoch_micro_batches(&run->epoch_plan);
    int64_t all = run->total_steps < run->steps_per_epoch
                      ? pt_epoch_micro_batches_of(&run->epoch_plan, run->total_steps)
                      : epoch;
    if (n == step || n == epoch || n == all)
        return PT_OK;
    return pt_fail(err, PT_EINPUT,
                   "%s has %lld micro-batches a rank; it must have those of one step of this run, "
                   "which are %lld, or those of an epoch, which are %lld",
                   s->schedule, (long long)n, (long long)step, (long long)epoch);
}

static pt_status accept_staleness(const pt_run *run, pt_error *err)
{
    const pt_span *span = run->full.facts ? &run->full : &run->last;
    pt_rules_facts facts = {.stages = run->stages};
    for (int b = 0; span->facts && b < pt_run_all_blocks(run); b++) {
        int staleness = span->facts[b].staleness_max, waiting = span->facts[b].held_peak;
        facts.staleness = staleness > facts.staleness ? staleness : facts.staleness;
        facts.waiting = waiting > facts.waiting ? waiting : facts.waiting;
    }
    return pt_rules_accept(run->settings, &facts, err);
}

pt_status pt_run_plan(pt_run *run, pt_error *err)
{
    const pt_settings *s = run->settings;
    if (run->test_data)
        PT_TRY(pt_span_infer(run->stages, run->chunks, (int)pt_epoch_micro_batches(&run->test_plan),
                             &run->test, err));
    if (run->validation_plan.samples)
        PT_TRY(pt_span_infer(run->stages, run->chunks,
                             (int)pt_epoch_micro_batches(&run->validation_plan), &run->validation,
                             err));
    if (s->infer)
        return PT_OK;
    if (s->fail_at >= run->stages)
        return pt_fail(err, PT_EINPUT, "--fail-at %lld: the last rank is %d", (long long)s->fail_at,
                       run->stages - 1);
    run->steps_per_epoch = pt_epoch_steps(&run->epoch_plan);
    run->total_steps = s->epochs * run->steps_per_epoch;
    /* Who spoke last decides between steps and epochs; said together, whichever ends first. */
    pt_option_source steps = pt_options_source(&run->config->options, "steps");
    pt_option_source epochs = pt_options_source(&run->config->options, "epochs");
    if (s->steps > 0 && (steps > epochs || (steps == epochs && s->steps < run->total_steps)))
        run->total_steps = s->steps;
    if (run->total_steps / run->steps_per_epoch >= INT32_MAX)
        return pt_fail(err, PT_EINPUT, "--steps %lld is more than %d epochs of this data",
                       (long long)s->steps, INT32_MAX);
    run->epochs = (run->total_steps + run->steps_per_epoch - 1) / run->steps_per_epoch;
    PT_TRY(pt_config_lr(run->config, run->steps_per_epoch, run->total_steps, &run->lr, err));

    pt_schedule_spec spec = {
        .name = s->schedule,
        .stages = run->stages,
        .per_step = (int)pt_epoch_per_step(&run->epoch_plan),
        .in_flight = (int)s->in_flight,
        .clip = s->clip > 0,
        .chunks = run->chunks,
    };
    int64_t rest = run->total_steps % run->steps_per_epoch;
    PT_TRY(check_own_lists(run, err));
    PT_TRY(pt_run_plan_sync(run, &spec, err));
    PT_TRY(pt_run_accept_gap(run, err));
    if (run->total_steps - s->sync_epochs * run->steps_per_epoch >= run->steps_per_epoch) {
        spec.micro_batches = (int)pt_epoch_micro_batches(&run->epoch_plan);
        PT_TRY(pt_span_new(&spec, s->own_lists, &run->full, err));
    }
    if (rest > 0) {
        spec.micro_batches = (int)pt_epoch_micro_batches_of(&run->epoch_plan, rest);
        PT_TRY(pt_span_new(&spec, s->own_lists, &run->last, err));
    }
    return accept_staleness(run, err);
}

int pt_run_link_slots(const pt_run *run)
{
    const pt_schedule_spec spec = {
        .stages = run->stages, .chunks = run->chunks, .in_flight = (int)run->settings->in_flight};
    return pt_schedule_slots(&spec);
}
