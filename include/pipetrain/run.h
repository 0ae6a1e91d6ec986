/* One run on one rank: everything that training, evaluation and inference need, opened in order and
 * closed in reverse. The struct is read by the files of src/run and by nobody below. */
#ifndef PIPETRAIN_RUN_H
#define PIPETRAIN_RUN_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "pipetrain/backend.h"
#include "pipetrain/dataset.h"
#include "pipetrain/engine.h"
#include "pipetrain/loader.h"
#include "pipetrain/mark.h"
#include "pipetrain/partition.h"
#include "pipetrain/schedule.h"
#include "pipetrain/settings.h"
#include "pipetrain/stage.h"
#include "pipetrain/status.h"
#include "pipetrain/weights_io.h"
#include "pipetrain/world.h"

typedef struct pt_reporter pt_reporter;     /* console, log and sums; src/run/reporter.h */
typedef struct pt_timeline pt_timeline;     /* --timing and --trace; likewise */
typedef struct pt_checkpoint pt_checkpoint; /* --checkpoint; src/run/checkpoint.h */
typedef struct pt_watchdog pt_watchdog;     /* --stall; src/run/watchdog.h */
typedef struct pt_progress pt_progress;     /* PIPETRAIN_PROGRESS; src/run/progress.h */

/* What a run needs of the program around it. */
typedef struct pt_run_app {
    FILE *console;            /* rank 0's */
    const volatile int *stop; /* set by a signal handler: leave now */
    /* The same for an end with something to go on from: with --checkpoint, one is taken at the end
     * of the step that begins next, and training ends there. Rank 0's counts. NULL: never. */
    const volatile int *halt;
    /* The rank stalls and has said so; ends the process. Called in another thread, in which MPI
     * must not be called. Not called without --stall. */
    void (*stalled)(void);
} pt_run_app;

/* An evaluation of what is held out, after so many steps. */
typedef struct pt_score {
    int64_t step;          /* 0: none */
    double loss, accuracy; /* NAN: the model does not classify */
} pt_score;

/* Where --resume found a run to stand; all 0 where it begins at the beginning. */
typedef struct pt_resumed {
    int64_t step;   /* done */
    int64_t launch; /* of the run that wrote it */
    pt_pass_result
        sums; /* losses, and what was counted, of the epoch that the step is in, or ends */
    double best_accuracy;   /* on the test set; NAN: nothing was evaluated */
    double best_validation; /* accuracy on what is held out; likewise */
    pt_score best;          /* that `best` names, whose checkpoint is kept: --keep-best */
    bool here;              /* the step lies in --checkpoint, too … */
    bool is_best;           /* … and `best` names it: its score will be found again */
} pt_resumed;

/* The lists of every rank for one span, proven by the checker. */
typedef struct pt_span {
    pt_schedule *schedule;
    pt_schedule_rank *facts; /* per block */
} pt_span;

/* A block of layers that this rank owns: one for each chunk. */
typedef struct pt_block {
    const pt_stage_spec *spec; /* of the run's specs */
    pt_flat flat;
    pt_weights *weights;
    pt_stage *stage;
    pt_stage_cost cost;    /* profiled, or as --clock states */
    pt_load_report loaded; /* by --init or --weights */
} pt_block;

typedef struct pt_run {
    pt_world *world;
    const pt_config *config;
    const pt_settings *settings; /* of the config */
    const pt_partition *partition;
    FILE *console;
    const volatile int *stop, *halt; /* as pt_run_app says, … */
    void (*stalled)(void);           /* … and this one */

    int stages, rank; /* how many ranks there are, and which one this is */
    int chunks;       /* blocks of layers on each rank */
    bool cut_was_planned;
    int *begins;          /* of all stages · chunks blocks: block c · stages + r is … */
    pt_stage_spec *specs; /* … chunk c of rank r */
    pt_block *blocks;     /* this rank's, [chunks] */
    bool *recompute;      /* [node]: --recompute; NULL: none */

    pt_dataset *train_data, *test_data;
    int64_t held_out; /* samples of the training set, by --validation; the rest is learned */
    pt_sampler *train_order, *test_order, *validation_order;
    pt_epoch_plan epoch_plan, test_plan, validation_plan; /* no samples: not evaluated */
    int64_t steps_per_epoch, total_steps, epochs;
    int64_t epoch; /* that is trained now */
    pt_resumed resumed;
    bool halted;    /* training ended because of `halt` */
    int64_t launch; /* with --checkpoint: how many runs have written there, this one included */
    int64_t *host_numbers; /* likewise, on rank 0: of each rank's host; else NULL */
    pt_lr_spec lr;
    pt_augmentation augmentation;

    pt_span sync;       /* one of --sync-epochs */
    pt_span full, last; /* any other; the shorter last one, if --steps ends inside an epoch */
    pt_span test, validation;
    pt_backend *backend;
    pt_stage_cost *clock_costs;  /* --clock: of every block; else NULL */
    pt_call_times *clock_layers; /* the same, as the backend takes it */
    pt_engine *engine;
    bool device_links; /* messages travel from device to device */
    size_t predicted_bytes;
    pt_error refusal;            /* of a device that is too small for them */
    int64_t largest_micro_batch; /* that fits on this rank; INT64_MAX: no refusal */
    int loaded, missing;         /* tensors, by --init; rank 0: of all ranks */
    pt_reporter *reporter;
    pt_timeline *timeline;     /* NULL: nobody asked for timings */
    pt_checkpoint *checkpoint; /* NULL: nobody asked for any */
    pt_mark mark;              /* where this rank is */
    double stall_s;            /* the watchdog's limit; 0: auto, below: off */
    pt_watchdog *watchdog;     /* NULL: nobody asked for one */
    pt_progress *progress;     /* rank 0, training; NULL: nobody asked for any */
} pt_run;

/* Opens everything for training (or, with --infer, for prediction). Collective: all ranks succeed,
 * or all fail with the message of the lowest rank that could not. */
pt_status pt_run_open(pt_world *world, const pt_config *config, const pt_partition *partition,
                      const pt_run_app *app, pt_run **ret_run, pt_error *err);
/* One stage of `stages`, without its neighbours: what --check looks at. The stage is profiled, its
 * weights are not given. No rank but this one is asked. */
pt_status pt_run_open_alone(const pt_config *config, const pt_partition *partition, int stages,
                            int rank, pt_run **ret_run, pt_error *err);
void pt_run_close(pt_run *run); /* NULL is fine */

/* Trains, evaluates, saves, writes the files that were asked for. PT_ESTOPPED: ended by app->halt,
 * on all ranks alike, in an orderly way. Any other failure is this rank's own: the others
 * must be ended (pt_world_abort). */
pt_status pt_run_train(pt_run *run, pt_error *err);

/* --schedule-out, if it was asked for: the lists of the run's longest span. */
pt_status pt_run_write_schedule(const pt_run *run, pt_error *err);

/* Predicts the samples of --infer; rank 0 writes --out. */
pt_status pt_run_infer(pt_run *run, pt_error *err);

/* The pieces of opening that --check needs alone. `stages` need not be the world's size. */
pt_status pt_run_choose_cut(const pt_partition *partition, int stages, int *begins,
                            bool *ret_planned, pt_error *err);
/* `own` may be NULL; else its lists are used, which must outlive the span. */
pt_status pt_span_new(const pt_schedule_spec *spec, const pt_own_lists *own, pt_span *ret_span,
                      pt_error *err);
/* Forward only. */
pt_status pt_span_infer(int stages, int chunks, int n, pt_span *ret_span, pt_error *err);
void pt_span_clear(pt_span *span); /* cleared or zeroed is fine */
/* "async", or "1f1b for 2 epochs, then async": for people. Returns `text`. */
const char *pt_run_schedule_text(const pt_settings *settings, char *text, size_t size);

#endif
