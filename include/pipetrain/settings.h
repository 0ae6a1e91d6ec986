/* Everything a user can set, and the table of options that sets it. One table serves --help, the
 * command line, the `train:` section of a partition file and the run log. */
#ifndef PIPETRAIN_SETTINGS_H
#define PIPETRAIN_SETTINGS_H

#include <stdbool.h>
#include <stdint.h>

#include "pipetrain/learn.h"
#include "pipetrain/options.h"
#include "pipetrain/partition.h"
#include "pipetrain/status.h"

typedef struct pt_settings {
    /* what to do */
    bool help, version, check, check_gradients;
    char *infer, *weights, *out, *init, *save, *plan_out;
    int64_t stages; /* --check: 0 = as many as ranks */
    /* data */
    char *dataset, *data;
    bool shuffle, flip;
    int64_t crop, samples;
    /* training */
    int64_t batch, micro_batch, accumulate, epochs, steps, seed, eval_every;
    char *optimizer;
    double lr, momentum, weight_decay, clip;
    char *lr_schedule, *milestones;
    double lr_factor, lr_floor, warmup;
    /* pipeline */
    char *schedule, *predict;
    bool stash, blocking_sends;
    int64_t in_flight;
    /* machine */
    char *backend, *precision, *p2p;
    bool deterministic;
    int64_t threads;
    /* output */
    char *log, *timing, *trace, *summary;
    int64_t log_every;
    bool progress;
    /* debugging */
    char *debug;     /* NULL: not given; "": all ranks; else a list of ranks */
    int64_t fail_at; /* fault injection for tests: this rank fails at its first update */
} pt_settings;

enum { PT_MAX_OPTIONS = 64 };

/* The settings with the table bound to them. Caller's memory; clear it with pt_config_clear. */
typedef struct pt_config {
    pt_settings settings;
    unsigned char sources[PT_MAX_OPTIONS];
    pt_options options;
} pt_config;

/* Fills in the defaults. */
pt_status pt_config_init(pt_config *config, pt_error *err);
void pt_config_clear(pt_config *config);

/* Prints usage, every option and a few examples. */
void pt_config_help(FILE *out);

/* Takes over the `train:` section; the command line, parsed before, wins. */
pt_status pt_config_apply(pt_config *config, const pt_partition *partition, pt_error *err);

/* Settles what follows from what: batch, micro-batch and accumulate; combinations that have no
 * meaning are PT_EINPUT with the reason. Call after pt_config_apply. */
pt_status pt_config_settle(pt_config *config, pt_error *err);

/* The learning-rate schedule of a run whose epochs have this many steps. */
pt_status pt_config_lr(const pt_config *config, int64_t steps_per_epoch, int64_t total_steps,
                       pt_lr_spec *ret_lr, pt_error *err);

#endif
