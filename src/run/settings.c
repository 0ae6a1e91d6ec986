/* Defaults, and what follows from what. */
#include "pipetrain/settings.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pipetrain/schedule.h"
#include "settings_needs.h"
#include "settings_rules.h"
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
        .decay_norms = true,
        .beta1 = 0.9,
        .beta2 = 0.999,
        .eps = 1e-8,
        .lr_schedule = "constant",
        .lr_factor = 0.1,
        .schedule = "async",
        .chunks = 2,
        .predict = "msnag",
        .recompute = "none",
        .backend = "auto",
        .precision = "fp32",
        .p2p = "auto",
        .threads = 1,
        .progress = true,
        .keep = 3,
        .fail_at = -1,
    };
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
    return pt_options_own(&config->options, err);
}

void pt_config_clear(pt_config *config)
{
    pt_own_lists_free(config->settings.own_lists);
    config->settings.own_lists = NULL;
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
          "  mpirun -np 2 ./pipetrain --checkpoint ck --resume ck    start, or go on\n"
          "  mpirun -np 2 ./pipetrain --infer test --weights out/lenet --out answers.csv\n\n",
          out);
    pt_settings d = defaults();
    pt_options_help(pt_settings_rows, pt_settings_n_rows, &d, out);
    fputs(
        "\nExit status: 0 done, 1 failed, 2 bad usage or input (nothing was started),\n"
        "75 stopped by SIGUSR1 with a checkpoint (run it again, with --resume), 130 interrupted.\n",
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

/* B = M·b. When all three are given and do not fit, whoever spoke later (the command line) wins
 * over who spoke before (the file); batch and accumulate said in one breath must fit. */
static pt_status settle_batch(pt_config *config, pt_error *err)
{
    pt_settings *s = &config->settings;
    pt_option_source batch = pt_options_source(&config->options, "batch");
    pt_option_source accumulate = pt_options_source(&config->options, "accumulate");
    pt_option_source micro = pt_options_source(&config->options, "micro-batch");
    int64_t product = s->accumulate * s->micro_batch; /* each at most 1e9 */
    if (product > 0 && product != s->batch) {
        if (accumulate == batch && micro <= batch)
            return pt_fail(
                err, PT_EINPUT,
                "--batch %lld, but --accumulate %lld x --micro-batch %lld is %lld; leave "
                "one of the three out, or write --batch %lld",
                (long long)s->batch, (long long)s->accumulate, (long long)s->micro_batch,
                (long long)product, (long long)product);
        if (accumulate > batch)
            s->batch = product;
        else
            s->accumulate = 0;
    }
    if (s->accumulate > 0 && s->micro_batch == 0) {
        if (s->batch % s->accumulate != 0)
            return pt_fail(err, PT_EINPUT,
                           "--batch %lld cannot be divided into --accumulate %lld equal "
                           "micro-batches; give --micro-batch",
                           (long long)s->batch, (long long)s->accumulate);
        s->micro_batch = s->batch / s->accumulate;
    }
    if (s->micro_batch == 0 || (s->micro_batch > s->batch && micro < batch))
        s->micro_batch = s->batch;
    if (s->micro_batch > s->batch)
        return pt_fail(err, PT_EINPUT,
                       "--micro-batch %lld is larger than --batch %lld; a step has at least one "
                       "whole micro-batch: make the batch larger or the micro-batch smaller",
                       (long long)s->micro_batch, (long long)s->batch);
    s->accumulate = (s->batch + s->micro_batch - 1) / s->micro_batch;
    return PT_OK;
}

const char *pt_config_lists_file(const pt_config *config)
{
    if (config->settings.infer || config->settings.check_gradients)
        return NULL;
    const pt_option *row = &pt_settings_rows[pt_options_find(&config->options, "schedule")];
    return pt_option_names_file(row, config->settings.schedule) ? config->settings.schedule : NULL;
}

pt_status pt_config_read_lists(pt_config *config, const char *text, size_t bytes, pt_error *err)
{
    return pt_own_lists_parse(config->settings.schedule, text, bytes, &config->settings.own_lists,
                              err);
}

/* Chunks are for one schedule; own lists know theirs. */
static void settle_chunks(pt_settings *s)
{
    const pt_schedule_row *row = pt_schedule_find(s->schedule);
    if (s->own_lists)
        s->chunks = pt_own_lists_chunks(s->own_lists);
    else if (!row || !row->interleaves || s->check_gradients)
        s->chunks = 1;
}

/* Whether lists flush depends on the micro-batches of a step. What does not read them has no use
 * for a schedule. */
static pt_status settle_lists(pt_config *config, pt_error *err)
{
    pt_settings *s = &config->settings;
    if (s->own_lists)
        return pt_own_lists_synchronous(s->own_lists, (int)s->accumulate, &s->own_synchronous, err);
    if (pt_schedule_find(s->schedule))
        return PT_OK;
    if (pt_config_lists_file(config))
        return pt_fail(err, PT_EINTERNAL, "%s was not read", s->schedule);
    free(s->schedule);
    s->schedule = strdup("1f1b");
    return s->schedule ? PT_OK : pt_fail(err, PT_ENOMEM, "no memory for the settings");
}

pt_optimizer_spec pt_config_optimizer(const pt_settings *s)
{
    return (pt_optimizer_spec){
        .name = s->optimizer,
        .decay = s->weight_decay,
        .momentum = s->momentum,
        .beta1 = s->beta1,
        .beta2 = s->beta2,
        .eps = s->eps,
    };
}

/* The default of one optimizer. */
static void settle_betas(pt_config *config)
{
    pt_settings *s = &config->settings;
    if (strcmp(s->optimizer, "nadam-async") == 0 &&
        pt_options_source(&config->options, "beta1") == PT_FROM_DEFAULT)
        s->beta1 = 0.99;
}

static pt_status settle_every(const pt_settings *s, pt_error *err)
{
    int64_t steps = 0;
    double seconds = 0;
    return pt_config_every(s, &steps, &seconds, err);
}

static pt_status settle_stall(const pt_settings *s, pt_error *err)
{
    double seconds = 0;
    return s->stall ? pt_config_stall("--stall", s->stall, &seconds, err) : PT_OK;
}

pt_status pt_config_settle(pt_config *config, pt_error *err)
{
    PT_TRY(pt_needs_settle(config, err));
    PT_TRY(pt_needs_settle_clock(config, err));
    PT_TRY(settle_batch(config, err));
    settle_betas(config);
    PT_TRY(settle_every(&config->settings, err));
    PT_TRY(pt_config_settle_checkpoint(&config->settings, err));
    PT_TRY(settle_stall(&config->settings, err));
    PT_TRY(settle_lists(config, err));
    settle_chunks(&config->settings);
    return pt_rules_settle(config, err);
}
