/* Which settings go together.
 *
 * A feature is something that settings may ask for. Pairs of features that have no meaning are rows
 * of one table: why, and what to write instead. Some features give way instead of being refused, as
 * far as only a default, or the partition file, asked for them. */
#include "settings_rules.h"

#include <stdlib.h>
#include <string.h>

#include "pipetrain/schedule.h"

/* ---- features ---------------------------------------------------------------------------------
 */

static bool is_synchronous(const pt_settings *s)
{
    return s->own_lists ? s->own_synchronous : pt_schedule_find(s->schedule)->synchronous;
}

static bool is_asynchronous(const pt_settings *s)
{
    return !is_synchronous(s);
}

static bool predicts(const pt_settings *s)
{
    return strcmp(s->predict, "none") != 0;
}

static bool gathers(const pt_settings *s)
{
    return pt_predictor_find(s->predict)->gathers;
}

static bool has_one_micro_batch(const pt_settings *s)
{
    return s->accumulate == 1;
}

static bool stashes(const pt_settings *s)
{
    return s->stash;
}

static bool has_two_versions(const pt_settings *s)
{
    return s->two_versions;
}

static bool is_gap_aware(const pt_settings *s)
{
    return s->gap_aware;
}

static bool slows_late_stages(const pt_settings *s)
{
    return s->pipemare_lr > 0;
}

static bool corrects_backwards(const pt_settings *s)
{
    return s->pipemare_dc > 0;
}

static bool begins_synchronously(const pt_settings *s)
{
    return s->sync_epochs > 0;
}

static bool is_nesterov_last(const pt_settings *s)
{
    return s->nesterov_last;
}

static bool is_not_sgd(const pt_settings *s)
{
    return strcmp(s->optimizer, "sgd") != 0;
}

static bool has_no_velocity(const pt_settings *s)
{
    return pt_optimizer_find(s->optimizer)->state_buffers != 1;
}

static bool clips(const pt_settings *s)
{
    return s->clip > 0;
}

static bool is_further_in_flight(const pt_settings *s)
{
    return s->in_flight > 0;
}

/* One line a feature: its name here, the option that asks for it, how to see that it was asked for.
 */
#define FEATURES(ROW)                                                                              \
    ROW(SYNCHRONOUS, "schedule", is_synchronous)                                                   \
    ROW(ASYNCHRONOUS, "schedule", is_asynchronous)                                                 \
    ROW(PREDICTION, "predict", predicts)                                                           \
    ROW(GATHERING, "predict", gathers)                                                             \
    ROW(ONE_MICRO_BATCH, "accumulate", has_one_micro_batch)                                        \
    ROW(STASH, "stash", stashes)                                                                   \
    ROW(TWO_VERSIONS, "2bw", has_two_versions)                                                     \
    ROW(GAP_AWARE, "gap-aware", is_gap_aware)                                                      \
    ROW(PIPEMARE_LR, "pipemare-lr", slows_late_stages)                                             \
    ROW(PIPEMARE_DC, "pipemare-dc", corrects_backwards)                                            \
    ROW(SYNC_EPOCHS, "sync-epochs", begins_synchronously)                                          \
    ROW(NESTEROV_LAST, "nesterov-last", is_nesterov_last)                                          \
    ROW(NOT_SGD, "optimizer", is_not_sgd)                                                          \
    ROW(NO_VELOCITY, "optimizer", has_no_velocity)                                                 \
    ROW(CLIP, "clip", clips)                                                                       \
    ROW(IN_FLIGHT, "in-flight", is_further_in_flight)

#define AS_ENUM(id, option, is_on) id,
#define AS_ROW(id, option, is_on)  {option, is_on},

typedef enum feature { FEATURES(AS_ENUM) N_FEATURES } feature;

static const struct {
    const char *option;
    bool (*is_on)(const pt_settings *settings);
} features[] = {FEATURES(AS_ROW)};

/* ---- what does not go together ----------------------------------------------------------------
 */

/* Who may have asked for the first of a pair for it to give way without a word. */
typedef enum yielding { NEVER, IF_DEFAULT, IF_NOT_ASKED_HERE } yielding;

static const struct {
    feature one, other;
    yielding yields;
    const char *why, *instead;
} pairs[] = {
    {PREDICTION, SYNCHRONOUS, IF_NOT_ASKED_HERE,
     "no forward is ever late, so that there is nothing to predict",
     "write --schedule async, or leave --predict out"},
    {STASH, SYNCHRONOUS, IF_NOT_ASKED_HERE,
     "it keeps old weights for late backwards, and none is late",
     "write --schedule async, or leave --stash out"},
    {TWO_VERSIONS, SYNCHRONOUS, IF_NOT_ASKED_HERE, "it is for late updates, and none is late",
     "write --schedule async, or leave --2bw out"},
    {GAP_AWARE, SYNCHRONOUS, IF_NOT_ASKED_HERE, "it is for late gradients, and none is late",
     "write --schedule async, or leave --gap-aware out"},
    {PIPEMARE_LR, SYNCHRONOUS, IF_NOT_ASKED_HERE, "it slows late stages down, and none is late",
     "write --schedule async, or leave --pipemare-lr out"},
    {PIPEMARE_DC, SYNCHRONOUS, IF_NOT_ASKED_HERE, "it is for late backwards, and none is late",
     "write --schedule async, or leave --pipemare-dc out"},
    {SYNC_EPOCHS, SYNCHRONOUS, IF_NOT_ASKED_HERE,
     "they come before asynchronous ones, and all are synchronous",
     "write --schedule async, or leave --sync-epochs out"},
    {NESTEROV_LAST, SYNCHRONOUS, NEVER,
     "it is for the last stage of an asynchronous run, where alone nothing is late",
     "write --schedule async --optimizer sgd, or leave --nesterov-last out"},
    {NESTEROV_LAST, NOT_SGD, NEVER,
     "it gives the last stage Nesterov's form of the momentum that the others have, and that is "
     "sgd's",
     "write --schedule async --optimizer sgd, or leave --nesterov-last out"},
    {CLIP, ASYNCHRONOUS, NEVER,
     "it needs the gradient norm of the whole network at the end of a step, which nobody waits for",
     "write --schedule 1f1b, or --clip 0"},
    {IN_FLIGHT, SYNCHRONOUS, NEVER, "that schedule fixes how many micro-batches are in flight",
     "write --schedule async, or leave --in-flight out"},
    {GATHERING, ONE_MICRO_BATCH, NEVER,
     "no forward stands between the gradients of a step, so that it is msnag",
     "write --predict msnag, or --accumulate 2 or more"},
    {PREDICTION, TWO_VERSIONS, IF_NOT_ASKED_HERE, "both say which weights a forward uses",
     "write --predict none, or leave --2bw out"},
    {GAP_AWARE, NO_VELOCITY, NEVER,
     "it measures a gap in steps of momentum, and that optimizer's steps are others",
     "write --optimizer sgd, or leave --gap-aware out"},
    {GAP_AWARE, TWO_VERSIONS, NEVER,
     "that makes all gradients equally late, and keeps no weights of each forward",
     "write --stash instead of --2bw, or leave --gap-aware out"},
    {PREDICTION, PIPEMARE_DC, IF_NOT_ASKED_HERE,
     "the correction takes weights back to what a forward read that did not predict",
     "write --predict none, or leave --pipemare-dc out"},
    {PIPEMARE_DC, STASH, NEVER, "it guesses the very weights that are kept there",
     "leave one of the two out"},
    {PIPEMARE_DC, TWO_VERSIONS, NEVER, "it guesses the very weights that are kept there",
     "leave one of the two out"},
    {PIPEMARE_DC, GAP_AWARE, NEVER, "it guesses the very weights that are kept there",
     "write --stash instead of --pipemare-dc, or leave --gap-aware out"},
    {TWO_VERSIONS, STASH, NEVER,
     "it keeps the weights that its backwards need, and --stash would keep others",
     "leave one of the two out"},
};

enum { N_PAIRS = sizeof pairs / sizeof pairs[0], MOST_TEXT = 600 };

/* "--predict msnag", or "--stash": how the feature is asked for. */
static const char *said(const pt_config *config, feature f, char *text, size_t size)
{
    const pt_options *options = &config->options;
    int i = pt_options_find(options, features[f].option);
    char value[MOST_TEXT / 2] = "";
    bool flag = options->rows[i].type == PT_OPTION_FLAG;
    if (!flag)
        pt_options_print(options, i, value, sizeof value);
    snprintf(text, size, "--%s%s%s", features[f].option, flag ? "" : " ", value);
    return text;
}

static bool gives_way(const pt_config *config, const char *option, yielding yields)
{
    static const int strongest[] = {
        [NEVER] = -1, [IF_DEFAULT] = PT_FROM_DEFAULT, [IF_NOT_ASKED_HERE] = PT_FROM_PARTITION};
    return (int)pt_options_source(&config->options, option) <= strongest[yields];
}

/* Only what may give way can be switched off. */
static pt_status switch_off(pt_settings *s, feature f, pt_error *err)
{
    s->stash = s->stash && f != STASH;
    s->two_versions = s->two_versions && f != TWO_VERSIONS;
    s->gap_aware = s->gap_aware && f != GAP_AWARE;
    s->pipemare_lr = f == PIPEMARE_LR ? 0 : s->pipemare_lr;
    s->pipemare_dc = f == PIPEMARE_DC ? 0 : s->pipemare_dc;
    s->sync_epochs = f == SYNC_EPOCHS ? 0 : s->sync_epochs;
    if (f != PREDICTION)
        return PT_OK;
    free(s->predict);
    s->predict = strdup("none");
    return s->predict ? PT_OK : pt_fail(err, PT_ENOMEM, "no memory for the settings");
}

static pt_status settle_pair(pt_config *config, int i, pt_error *err)
{
    char texts[2][MOST_TEXT];
    pt_settings *s = &config->settings;
    feature one = pairs[i].one, other = pairs[i].other;
    if (!features[one].is_on(s) || !features[other].is_on(s))
        return PT_OK;
    if (gives_way(config, features[one].option, pairs[i].yields))
        return switch_off(s, one, err);
    return pt_fail(err, PT_EINPUT, "%s with %s: %s; %s", said(config, one, texts[0], MOST_TEXT),
                   said(config, other, texts[1], MOST_TEXT), pairs[i].why, pairs[i].instead);
}

/* Which optimizers a predictor accepts, its own row knows. */
static pt_status settle_prediction(pt_config *config, pt_error *err)
{
    pt_settings *s = &config->settings;
    pt_optimizer_spec optimizer = pt_config_optimizer(s);
    pt_error reason = {PT_OK, ""};
    const pt_predictor_row *row = pt_predictor_find(s->predict);
    if (row->accepts(row, &optimizer, 0, &reason) == PT_OK)
        return PT_OK;
    if (gives_way(config, "predict", IF_DEFAULT))
        return switch_off(s, PREDICTION, err);
    return pt_fail(err, PT_EINPUT, "%s", reason.text);
}

pt_status pt_rules_settle(pt_config *config, pt_error *err)
{
    for (int i = 0; i < N_PAIRS; i++)
        PT_TRY(settle_pair(config, i, err));
    return settle_prediction(config, err);
}

pt_status pt_rules_accept(const pt_settings *s, const pt_rules_facts *facts, pt_error *err)
{
    const pt_predictor_row *row = pt_predictor_find(s->predict);
    pt_optimizer_spec optimizer = pt_config_optimizer(s);
    if (s->two_versions && facts->staleness > 1)
        return pt_fail(err, PT_EINPUT,
                       "--2bw keeps two versions of the weights, and a stage here is %d updates "
                       "late; a step needs at least %d micro-batches: write --accumulate %d, or "
                       "--stash",
                       facts->staleness, facts->stages - 1, facts->stages - 1);
    if (s->gap_aware && facts->waiting > 0)
        return pt_fail(err, PT_EINPUT,
                       "--gap-aware divides the gradient of each micro-batch once it is whole, and "
                       "with --schedule %s other micro-batches compute before that; put each "
                       "BACKWARD_WEIGHT behind its BACKWARD_INPUT, or leave --gap-aware out",
                       s->schedule);
    return row->accepts(row, &optimizer, facts->staleness, err);
}

void pt_rules_describe(const pt_config *config, char *text, size_t size)
{
    static const feature shown[] = {TWO_VERSIONS, GAP_AWARE, PIPEMARE_LR, PIPEMARE_DC};
    size_t used = 0;
    text[0] = 0;
    for (size_t i = 0; i < sizeof shown / sizeof shown[0] && used < size; i++) {
        char one[MOST_TEXT];
        if (features[shown[i]].is_on(&config->settings))
            used += (size_t)snprintf(text + used, size - used, ", %s",
                                     said(config, shown[i], one, sizeof one) + strlen("--"));
    }
}
