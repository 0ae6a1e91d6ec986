/* Defaults, and what follows from what. */
#include "pipetrain/settings.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "settings_table.h"

static pt_settings defaults(void)
{
    return (pt_settings){
        .dataset = "fashion-mnist",
        .shuffle = true,
        .batch = 32,
        .epochs = 10,
        .seed = 1,
        .eval_every = 1,
        .optimizer = "sgd",
        .lr = 0.05,
        .momentum = 0.9,
        .lr_schedule = "constant",
        .lr_factor = 0.1,
        .schedule = "async",
        .predict = "msnag",
        .backend = "auto",
        .threads = 1,
        .progress = true,
        .fail_at = -1,
    };
}

/* The texts of the settings are owned, so the defaults are copied. */
static pt_status own_texts(pt_settings *settings, pt_error *err)
{
    for (int i = 0; i < pt_settings_n_rows; i++) {
        const pt_option *row = &pt_settings_rows[i];
        if (row->type != PT_OPTION_TEXT && row->type != PT_OPTION_CHOICE)
            continue;
        char **text = (char **)((char *)settings + row->offset);
        if (*text && !(*text = strdup(*text)))
            return pt_fail(err, PT_ENOMEM, "no memory for the settings");
    }
    return PT_OK;
}

pt_status pt_config_init(pt_config *config, pt_error *err)
{
    *config = (pt_config){.settings = defaults()};
    config->options = (pt_options){
        .rows = pt_settings_rows,
        .n_rows = pt_settings_n_rows,
        .settings = &config->settings,
        .sources = config->sources,
    };
    return own_texts(&config->settings, err);
}

void pt_config_clear(pt_config *config)
{
    pt_options_clear(&config->options);
}

void pt_config_help(FILE *out)
{
    fputs("pipetrain " PT_VERSION ": trains and serves neural networks over MPI ranks.\n\n"
          "  mpirun -np N ./pipetrain [PARTITION.yaml] [options]\n\n"
          "Each of the N ranks owns a contiguous block of layers; micro-batches flow through the\n"
          "pipeline without ever being flushed. Without a file: partitions/lenet5.yaml. Every "
          "option\n"
          "may also stand in the file's `train:` section; the command line wins.\n\n"
          "Examples\n"
          "  mpirun -np 2 ./pipetrain                                LeNet-5 on Fashion-MNIST\n"
          "  mpirun -np 2 ./pipetrain --schedule 1f1b --accumulate 4 the synchronous way\n"
          "  ./pipetrain partitions/wrn-16-4.yaml --check --stages 4 look before you run\n"
          "  mpirun -np 2 ./pipetrain --save out/lenet               keep the weights\n"
          "  mpirun -np 2 ./pipetrain --infer test --weights out/lenet --out answers.csv\n\n",
          out);
    pt_settings d = defaults();
    pt_options_help(pt_settings_rows, pt_settings_n_rows, &d, out);
    fputs("\nExit status: 0 done, 1 failed, 2 bad usage or input (nothing was started),\n"
          "130 interrupted.\n",
          out);
}

pt_status pt_config_apply(pt_config *config, const pt_partition *partition, pt_error *err)
{
    for (int i = 0; i < partition->n_settings; i++) {
        const pt_setting *s = &partition->settings[i];
        char where[512];
        snprintf(where, sizeof where, "%s:%d:%d", partition->file, s->line, s->column);
        PT_TRY(pt_options_set(&config->options, s->key, s->value, PT_FROM_PARTITION, where, err));
    }
    return PT_OK;
}

/* Who wins when batch, micro-batch and accumulate do not fit together: the stronger source. Equals
 * that disagree are an error. */
static pt_status settle_batch(pt_config *config, pt_error *err)
{
    pt_settings *s = &config->settings;
    pt_option_source batch = pt_options_source(&config->options, "batch");
    pt_option_source accumulate = pt_options_source(&config->options, "accumulate");
    pt_option_source micro = pt_options_source(&config->options, "micro-batch");
    if (s->accumulate > 0 && s->micro_batch > 0) {
        int64_t product = s->accumulate * s->micro_batch;
        if (s->batch != product && batch > accumulate && batch > micro)
            s->accumulate = 0; /* the batch was said last: it decides with the micro-batch */
        else if (s->batch != product && batch == accumulate && batch == micro)
            return pt_fail(err, PT_EINPUT,
                           "--batch %lld, but --accumulate %lld x --micro-batch %lld is %lld; give "
                           "two of the three, or --batch %lld",
                           (long long)s->batch, (long long)s->accumulate, (long long)s->micro_batch,
                           (long long)product, (long long)product);
        else if (s->batch != product && accumulate < batch)
            s->accumulate = 0;
        else if (s->batch != product && micro < batch)
            s->micro_batch = 0; /* batch and accumulate were both said later */
        else if (batch == PT_FROM_COMMAND_LINE && s->batch != product)
            return pt_fail(err, PT_EINPUT,
                           "--batch %lld and --accumulate %lld do not fit the micro-batch of %lld; "
                           "give --micro-batch too, or only one of them",
                           (long long)s->batch, (long long)s->accumulate,
                           (long long)s->micro_batch);
        else
            s->batch = product;
    }
    if (s->accumulate > 0 && s->micro_batch == 0) {
        if (s->batch % s->accumulate != 0)
            return pt_fail(err, PT_EINPUT,
                           "--batch %lld cannot be divided into --accumulate %lld equal "
                           "micro-batches; give --micro-batch",
                           (long long)s->batch, (long long)s->accumulate);
        s->micro_batch = s->batch / s->accumulate;
    }
    if (s->micro_batch == 0 ||
        (s->micro_batch > s->batch && pt_options_source(&config->options, "micro-batch") < batch))
        s->micro_batch = s->batch;
    if (s->micro_batch > s->batch)
        return pt_fail(err, PT_EINPUT,
                       "--micro-batch %lld is larger than --batch %lld; a step has at least one "
                       "whole micro-batch: make the batch larger or the micro-batch smaller",
                       (long long)s->micro_batch, (long long)s->batch);
    s->accumulate = (s->batch + s->micro_batch - 1) / s->micro_batch;
    return PT_OK;
}

static bool synchronous(const pt_settings *s)
{
    return strcmp(s->schedule, "async") != 0;
}

/* A prediction that was only a default, or stands in the file, gives way to what the command line
 * says about the rest; one that was asked for does not. */
static pt_status settle_prediction(pt_config *config, pt_error *err)
{
    pt_settings *s = &config->settings;
    pt_optimizer_spec optimizer = {s->optimizer, s->momentum, s->weight_decay};
    const pt_predictor_row *row = pt_predictor_find(s->predict);
    bool asked = pt_options_source(&config->options, "predict") == PT_FROM_COMMAND_LINE;
    bool none = strcmp(s->predict, "none") == 0;
    if (!none && synchronous(s) && asked)
        return pt_fail(err, PT_EINPUT,
                       "--predict %s has nothing to predict with --schedule %s: no forward is ever "
                       "late; write --schedule async, or leave --predict out",
                       s->predict, s->schedule);
    bool fits = none || row->accepts(&optimizer, err) == PT_OK;
    if (!fits && pt_options_source(&config->options, "predict") != PT_FROM_DEFAULT)
        return PT_EINPUT;
    if (!none && (synchronous(s) || !fits)) {
        free(s->predict);
        s->predict = strdup("none");
        if (!s->predict)
            return pt_fail(err, PT_ENOMEM, "no memory for the settings");
    }
    return PT_OK;
}

pt_status pt_config_settle(pt_config *config, pt_error *err)
{
    pt_settings *s = &config->settings;
    PT_TRY(settle_batch(config, err));
    PT_TRY(settle_prediction(config, err));
    if (s->stash && synchronous(s)) {
        if (pt_options_source(&config->options, "stash") == PT_FROM_COMMAND_LINE)
            return pt_fail(err, PT_EINPUT,
                           "--stash keeps old weights for late backwards, and with --schedule %s "
                           "none is late; write --schedule async, or leave --stash out",
                           s->schedule);
        s->stash = false;
    }
    if (s->clip > 0 && !synchronous(s))
        return pt_fail(err, PT_EINPUT,
                       "--clip needs the gradient norm of the whole network at the end of a step, "
                       "which the async schedule never waits for; write --schedule 1f1b, or --clip "
                       "0");
    if (s->in_flight > 0 && synchronous(s))
        return pt_fail(
            err, PT_EINPUT,
            "--in-flight is for --schedule async; %s fixes how many micro-batches are in "
            "flight",
            s->schedule);
    if (s->infer && !s->weights)
        return pt_fail(err, PT_EINPUT, "--infer needs --weights FILE_OR_DIR: what to predict with");
    if (s->infer && !s->out)
        return pt_fail(err, PT_EINPUT, "--infer needs --out FILE.csv: where the predictions go");
    if (!s->infer && s->weights)
        return pt_fail(err, PT_EINPUT,
                       "--weights goes with --infer; to train from given weights write --init");
    if (!s->infer && s->out)
        return pt_fail(err, PT_EINPUT, "--out goes with --infer");
    return PT_OK;
}

static pt_status parse_milestones(const pt_settings *s, int64_t steps_per_epoch, pt_lr_spec *lr,
                                  pt_error *err)
{
    for (const char *at = s->milestones; at && *at;) {
        char *end = NULL;
        errno = 0;
        double epoch = strtod(at, &end);
        if (end == at || errno || !(epoch >= 0) || epoch > 1e9 || (*end && *end != ','))
            return pt_fail(err, PT_EINPUT,
                           "--milestones \"%s\": write epochs in ascending order, such as 30,60,80",
                           s->milestones);
        if (lr->n_milestones == PT_MAX_MILESTONES)
            return pt_fail(err, PT_EINPUT, "--milestones: more than %d", PT_MAX_MILESTONES);
        int64_t step = (int64_t)llround(epoch * (double)steps_per_epoch);
        if (lr->n_milestones && step <= lr->milestones[lr->n_milestones - 1])
            return pt_fail(err, PT_EINPUT, "--milestones \"%s\": must ascend", s->milestones);
        lr->milestones[lr->n_milestones++] = step;
        at = *end ? end + 1 : end;
    }
    if (strcmp(s->lr_schedule, "milestones") == 0 && lr->n_milestones == 0)
        return pt_fail(err, PT_EINPUT,
                       "--lr-schedule milestones needs --milestones, such as 30,60,80");
    return PT_OK;
}

pt_status pt_config_lr(const pt_config *config, int64_t steps_per_epoch, int64_t total_steps,
                       pt_lr_spec *ret_lr, pt_error *err)
{
    const pt_settings *s = &config->settings;
    pt_lr_spec lr = {
        .schedule = s->lr_schedule,
        .base = s->lr,
        .warmup = (int64_t)llround(s->warmup * (double)steps_per_epoch),
        .total = total_steps,
        .factor = s->lr_factor,
        .floor = s->lr_floor,
    };
    PT_TRY(parse_milestones(s, steps_per_epoch, &lr, err));
    *ret_lr = lr;
    return PT_OK;
}
