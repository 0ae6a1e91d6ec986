/* Everything a user can set, and the table of options that sets it. One table serves --help, the
 * command line, the `train:` section of a partition file and the run log. */
#ifndef PIPETRAIN_SETTINGS_H
#define PIPETRAIN_SETTINGS_H

#include <stdbool.h>
#include <stdint.h>

#include "pipetrain/learn.h"
#include "pipetrain/options.h"
#include "pipetrain/partition.h"
#include "pipetrain/schedule.h"
#include "pipetrain/status.h"

typedef struct pt_settings {
    /* what to do */
    bool help, version, check, check_gradients;
    char *infer, *weights, *out, *init, *save, *plan_out;
    char *checkpoint, *every, *resume, *upload;
    int64_t keep;
    bool keep_best;
    int64_t stages; /* --check: 0 = as many as ranks */
    /* data */
    char *dataset, *data;
    bool shuffle, flip;
    int64_t crop, samples;
    double validation; /* fraction of the training set; 0: none */
    /* training */
    int64_t batch, micro_batch, accumulate, epochs, steps, seed, eval_every;
    char *optimizer;
    bool decay_norms;
    double lr, momentum, weight_decay, beta1, beta2, eps, clip;
    char *lr_schedule, *milestones;
    double lr_factor, lr_floor, warmup;
    /* pipeline */
    char *schedule, *schedule_out, *predict;
    pt_own_lists *own_lists; /* no option: what pt_config_read_lists read, and … */
    bool own_synchronous;    /* … whether they flush, known when settled */
    double pipemare_lr, pipemare_dc;
    bool two_versions, nesterov_last, stash, gap_aware, blocking_sends;
    int64_t in_flight, sync_epochs, gap_every;
    int64_t chunks; /* settled: 1 unless the schedule has several */
    char *recompute;
    /* machine */
    char *backend, *precision, *p2p, *clock;
    char *stall; /* NULL: as the environment says */
    bool deterministic;
    int64_t threads;
    /* output */
    char *log, *timing, *trace, *summary, *clock_out;
    int64_t log_every;
    bool progress;
    /* debugging */
    char *debug;     /* NULL: not given; "": all ranks; else a list of ranks */
    int64_t fail_at; /* fault injection for tests: this rank fails at its first update */
} pt_settings;

enum { PT_MAX_OPTIONS = 96 };

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

/* --schedule FILE.csv: the file's name, or NULL where none is used. */
const char *pt_config_lists_file(const pt_config *config);
/* Takes over that file's text. Call before pt_config_settle. */
pt_status pt_config_read_lists(pt_config *config, const char *text, size_t bytes, pt_error *err);

/* Settles what follows from what: batch, micro-batch and accumulate; combinations that have no
 * meaning are PT_EINPUT with the reason. Call after pt_config_apply. */
pt_status pt_config_settle(pt_config *config, pt_error *err);

/* The optimizer that the settings name. */
pt_optimizer_spec pt_config_optimizer(const pt_settings *settings);

/* --every: steps or seconds; both 0: at the end of each epoch. PT_EINPUT: it is neither. */
pt_status pt_config_every(const pt_settings *settings, int64_t *ret_steps, double *ret_seconds,
                          pt_error *err);

/* --keep-best gives way where no checkpoints are taken. PT_EINPUT: it has no score to go by, or
 * --upload no command. */
pt_status pt_config_settle_checkpoint(pt_settings *settings, pt_error *err);

/* A limit of --stall, or of the variable in its place: `text` is seconds, "auto" (0) or "off" (-1).
 * PT_EINPUT: it is none of these; the message begins with `name`. */
pt_status pt_config_stall(const char *name, const char *text, double *ret_seconds, pt_error *err);
/* The one that counts: the option, else the environment, else off. */
pt_status pt_config_find_stall(const pt_settings *settings, double *ret_seconds, pt_error *err);
/* How long a rank may stand, by such a limit that is not off, and the median time of its steps (0:
 * none has ended yet, and it may take longer). */
int64_t pt_config_stall_ns(double seconds, int64_t median_ns);

/* The learning-rate schedule of a run whose epochs have this many steps. */
pt_status pt_config_lr(const pt_config *config, int64_t steps_per_epoch, int64_t total_steps,
                       pt_lr_spec *ret_lr, pt_error *err);

#endif
