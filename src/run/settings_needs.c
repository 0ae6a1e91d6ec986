/* Options that need others, or a command that has a use for them: a table. */
#include "settings_needs.h"

#include <string.h>

#include "pipetrain/schedule.h"
#include "settings_table.h"

static bool asked(const pt_config *config, const char *option)
{
    return pt_options_source(&config->options, option) == PT_FROM_COMMAND_LINE;
}

static bool infers(const pt_settings *s)
{
    return s->infer != NULL;
}

static bool has_backwards(const pt_settings *s)
{
    return !infers(s);
}

static bool looks(const pt_settings *s)
{
    return s->check || s->check_gradients;
}

static bool runs(const pt_settings *s)
{
    return !looks(s);
}

static bool trains(const pt_settings *s)
{
    return !infers(s) && !looks(s);
}

static bool checks(const pt_settings *s)
{
    return s->check;
}

static bool trains_or_checks(const pt_settings *s)
{
    return !infers(s) && !s->check_gradients;
}

static bool evaluates(const pt_settings *s)
{
    return s->eval_every > 0;
}

static bool checkpoints(const pt_settings *s)
{
    return s->checkpoint != NULL;
}

static bool clocks(const pt_settings *s)
{
    return strcmp(s->backend, "clock") == 0;
}

static bool interleaves(const pt_settings *s)
{
    const pt_schedule_row *row = pt_schedule_find(s->schedule);
    return row && row->interleaves;
}

static bool has_milestones(const pt_settings *s)
{
    return strcmp(s->lr_schedule, "milestones") == 0;
}

static bool is_cosine(const pt_settings *s)
{
    return strcmp(s->lr_schedule, "cosine") == 0;
}

static bool has_momentum(const pt_settings *s)
{
    return pt_optimizer_find(s->optimizer)->state_buffers == 1;
}

static bool has_betas(const pt_settings *s)
{
    return !has_momentum(s);
}

/* An option that would do nothing is refused: its writer expects something of it. */
static const struct {
    const char *option, *needs;
    bool (*fits)(const pt_settings *settings);
} needs[] = {
    {"weights", "--infer (to train from given weights write --init)", infers},
    {"out", "--infer", infers},
    {"stages", "--check", checks},
    {"init", "training", trains},
    {"save", "training", trains},
    {"checkpoint", "training or --check", trains_or_checks},
    {"every", "--checkpoint", checkpoints},
    {"keep", "--checkpoint", checkpoints},
    {"keep-best", "--checkpoint", checkpoints},
    {"upload", "--checkpoint", checkpoints},
    {"resume", "training", trains},
    {"validation", "training or --check", trains_or_checks},
    {"validation", "--eval-every 1 or more", evaluates},
    {"log", "training", trains},
    {"timing", "training", trains},
    {"trace", "training", trains},
    {"summary", "training", trains},
    {"fail-at", "training", trains},
    {"stall", "training or --infer", runs},
    {"momentum", "--optimizer sgd or nesterov (the others have --beta1)", has_momentum},
    {"beta1", "--optimizer adam, adamw or nadam-async (the others have --momentum)", has_betas},
    {"beta2", "--optimizer adam, adamw or nadam-async", has_betas},
    {"eps", "--optimizer adam, adamw or nadam-async", has_betas},
    {"recompute", "training, --check or --check-gradients", has_backwards},
    {"chunks", "--schedule interleaved (a list of one's own says it in a column chunk)",
     interleaves},
    {"clock", "--backend clock", clocks},
    {"clock-out", "training or --check", trains_or_checks},
    {"schedule-out", "training or --check", trains_or_checks},
    {"sync-epochs", "training or --check", trains_or_checks},
    {"gap-every", "training or --check", trains_or_checks},
    {"milestones", "--lr-schedule milestones", has_milestones},
    {"lr-factor", "--lr-schedule milestones", has_milestones},
    {"lr-floor", "--lr-schedule cosine", is_cosine},
};

pt_status pt_needs_settle(const pt_config *config, pt_error *err)
{
    const pt_settings *s = &config->settings;
    if (s->check + s->check_gradients + infers(s) > 1)
        return pt_fail(err, PT_EINPUT,
                       "--check, --check-gradients and --infer are three things to do; give one");
    for (size_t i = 0; i < sizeof needs / sizeof needs[0]; i++)
        if (asked(config, needs[i].option) && !needs[i].fits(s))
            return pt_fail(err, PT_EINPUT, "--%s goes with %s; leave it out here", needs[i].option,
                           needs[i].needs);
    if (infers(s) && !s->weights)
        return pt_fail(err, PT_EINPUT, "--infer needs --weights FILE_OR_DIR: what to predict with");
    if (infers(s) && !s->out)
        return pt_fail(err, PT_EINPUT, "--infer needs --out FILE.csv: where the predictions go");
    return PT_OK;
}

/* Whatever would show or keep numbers is refused; evaluations are left out. */
pt_status pt_needs_settle_clock(pt_config *config, pt_error *err)
{
    static const char *const computes[] = {"infer",      "check-gradients", "init",     "save",
                                           "checkpoint", "resume",          "gap-every"};
    pt_settings *s = &config->settings;
    if (!clocks(s))
        return PT_OK;
    if (!s->clock)
        return pt_fail(err, PT_EINPUT,
                       "--backend clock needs --clock FILE.csv: how long each stage takes");
    for (size_t i = 0; i < sizeof computes / sizeof *computes; i++)
        if (pt_options_source(&config->options, computes[i]) != PT_FROM_DEFAULT)
            return pt_fail(err, PT_EINPUT,
                           "--backend clock computes nothing, so --%s has nothing to work with; "
                           "leave it out, or choose another backend",
                           computes[i]);
    if (s->eval_every > 0 && asked(config, "eval-every"))
        return pt_fail(err, PT_EINPUT,
                       "--backend clock computes nothing, so there is nothing to evaluate; write "
                       "--eval-every 0");
    s->eval_every = 0;
    return PT_OK;
}
