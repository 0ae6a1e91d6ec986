/* The table of options: the one place where an option is named, typed, bounded and explained. */
#include "settings_table.h"

#include "pipetrain/backend.h"
#include "pipetrain/dataset.h"
#include "pipetrain/learn.h"
#include "pipetrain/schedule.h"
#include "pipetrain/settings.h"

/* Headings of --help. */
#define TO_DO     "What to do"
#define DATA      "Data"
#define TRAINING  "Training"
#define PIPELINE  "Pipeline"
#define MACHINE   "Machine"
#define OUTPUT    "Output"
#define DEBUGGING "Debugging"

#define ROW(type_, name_, group_, member_, argument_, help_)                                       \
    .name = name_, .group = group_, .type = PT_OPTION_##type_,                                     \
    .offset = offsetof(pt_settings, member_), .argument = argument_, .help = help_
#define FLAG(name, group, member, help)                                                            \
    {                                                                                              \
        ROW(FLAG, name, group, member, NULL, help)                                                 \
    }
#define SWITCH(name, group, member, help)                                                          \
    {                                                                                              \
        ROW(SWITCH, name, group, member, "on|off", help)                                           \
    }
#define TEXT(name, group, member, argument, help)                                                  \
    {                                                                                              \
        ROW(TEXT, name, group, member, argument, help)                                             \
    }
#define CHOICE(name, group, member, names, help)                                                   \
    {                                                                                              \
        ROW(CHOICE, name, group, member, "NAME", help), .choices = names                           \
    }
#define INT(name, group, member, argument, low, high, help)                                        \
    {                                                                                              \
        ROW(INT, name, group, member, argument, help), .min = low, .max = high                     \
    }
#define REAL(name, group, member, argument, low, high, help)                                       \
    {                                                                                              \
        ROW(REAL, name, group, member, argument, help), .min = low, .max = high                    \
    }
/* The same, not allowed in a partition file: they say what to do now, not how to train. */
#define FLAG_HERE(name, group, member, help)                                                       \
    {                                                                                              \
        ROW(FLAG, name, group, member, NULL, help), .command_line_only = true                      \
    }
#define TEXT_HERE(name, group, member, argument, help)                                             \
    {                                                                                              \
        ROW(TEXT, name, group, member, argument, help), .command_line_only = true                  \
    }
#define INT_HERE(name, group, member, argument, low, high, help)                                   \
    {                                                                                              \
        ROW(INT, name, group, member, argument, help), .min = low, .max = high,                    \
                                                       .command_line_only = true                   \
    }

static const char *const *precision_names(void)
{
    return pt_precision_names;
}

static const char *const *p2p_names(void)
{
    static const char *const names[] = {"auto", "device", "host", NULL};
    return names;
}

const pt_option pt_settings_rows[] = {
    FLAG_HERE("help", TO_DO, help, "Print this text and exit."),
    FLAG_HERE("version", TO_DO, version, "Print the version and exit."),
    FLAG_HERE("check", TO_DO, check,
              "Print the schedule's grid, the stages, and per rank the memory, staleness and "
              "predicted step time, then exit. Needs no mpirun (see --stages)."),
    INT_HERE("stages", TO_DO, stages, "N", 0, 1024,
             "With --check: the number of stages to look at. 0: as many as there are ranks."),
    FLAG_HERE("check-gradients", TO_DO, check_gradients,
              "Compare the model's gradients with central finite differences, layer by layer, then "
              "exit."),
    TEXT_HERE("infer", TO_DO, infer, "INPUT",
              "Predict instead of train: INPUT is a safetensors file with a tensor x, an IDX file "
              "of images, or the word test for the test set. Needs --weights."),
    TEXT_HERE("weights", TO_DO, weights, "PATH",
              "With --infer: a safetensors file, or a directory that --save wrote."),
    TEXT_HERE("out", TO_DO, out, "FILE.csv",
              "With --infer: where the predictions go, one line a sample, in the order of the "
              "input."),
    TEXT("init", TO_DO, init, "PATH",
         "Start from these weights (a safetensors file, or a directory that --save wrote) instead "
         "of random ones. Layers that the file lacks keep their random weights, and are named."),
    TEXT("save", TO_DO, save, "DIR",
         "Write the weights to DIR when training ends: one safetensors file a layer, "
         "PyTorch's names and shapes."),
    TEXT(
        "checkpoint", TO_DO, checkpoint, "DIR",
        "Write all that training needs to go on to DIR/step-… while it runs, and at its end. Async "
        "schedules drain the pipeline there, so that --every is part of what they compute."),
    TEXT("every", TO_DO, every, "N|Ns",
         "With --checkpoint: every N steps, or every N seconds. Not given: at the end of each "
         "epoch."),
    INT("keep", TO_DO, keep, "K", 0, 1e9,
        "With --checkpoint: the K newest stay, older ones go. 0: all stay."),
    FLAG(
        "keep-best", TO_DO, keep_best,
        "With --checkpoint and --validation: the step with the best validation accuracy stays, too "
        "(without classes, the lowest loss), and DIR/best names it. For that, epochs that are "
        "evaluated end with a checkpoint."),
    TEXT_HERE(
        "upload", TO_DO, upload, "CMD",
        "With --checkpoint: run `CMD DIR/step-…` by sh for every step that is committed (where "
        "CMD says \"$1\", that is the folder), while training goes on. One that fails is tried "
        "again three times, and after the next checkpoint. It may see a step twice; the run's "
        "end waits for it."),
    TEXT(
        "resume", TO_DO, resume, "DIR",
        "Go on from the newest whole checkpoint in DIR, on any number of ranks; from the beginning "
        "where none is there yet, so that one command line with both starts and restarts a run."),
    TEXT_HERE("plan-out", TO_DO, plan_out, "FILE",
              "Write the partition file back with the cut that was used."),
    CHOICE("dataset", DATA, dataset, pt_dataset_names, "Which data to learn."),
    TEXT("data", DATA, data, "PATH",
         "Where the data is: a directory, or a safetensors file for the dataset `arrays`. Default: "
         "the place of the dataset's Debian package."),
    INT("samples", DATA, samples, "N", 0, 1e9,
        "Learn only the first N samples; for synthetic data, how many there are. 0: all."),
    REAL("validation", DATA, validation, "FRACTION", 0, 0.999999,
         "Hold out so much of the training set, chosen by the seed, and evaluate on it every "
         "--eval-every epochs; on the test set then only at the end. Not augmented. 0: none."),
    SWITCH("shuffle", DATA, shuffle, "A new order every epoch, from the seed."),
    INT("crop", DATA, crop, "PIXELS", 0, 1024,
        "Augmentation: pad by so many pixels, then crop at random. 0: off."),
    SWITCH("flip", DATA, flip, "Augmentation: mirror left-right half of the time."),
    INT("batch", TRAINING, batch, "B", 1, 1e9, "Samples per optimizer step."),
    INT("micro-batch", TRAINING, micro_batch, "b", 0, 1e9,
        "Samples per pipeline item; a step has ceil(B/b) of them. 0: the whole batch."),
    INT("accumulate", TRAINING, accumulate, "M", 0, 1e9,
        "Micro-batches per optimizer step: B = M x b, so that it changes the batch, or, where no "
        "micro-batch is given, divides it. 0: from the batch and the micro-batch."),
    INT("epochs", TRAINING, epochs, "E", 1, 1e9, "Passes over the data."),
    INT("steps", TRAINING, steps, "N", 0, 1e15,
        "Optimizer steps in all; ends training even inside an epoch. 0: as many as the epochs "
        "have."),
    CHOICE("optimizer", TRAINING, optimizer, pt_optimizer_names,
           "The rule that changes the weights."),
    REAL("lr", TRAINING, lr, "RATE", 0, 1e6, "Learning rate."),
    REAL("momentum", TRAINING, momentum, "G", 0, 0.9999999, "Momentum of sgd and nesterov."),
    REAL("beta1", TRAINING, beta1, "B", 0, 0.9999999,
         "Of adam, adamw and nadam-async: how much of the mean of gradients stays each step. "
         "nadam-async: 0.99 unless given."),
    REAL("beta2", TRAINING, beta2, "B", 0, 0.9999999,
         "Of the same: how much of the mean of their squares stays each step."),
    REAL("eps", TRAINING, eps, "E", 1e-16, 1,
         "Of the same: added to the root that the step is divided by."),
    REAL(
        "weight-decay", TRAINING, weight_decay, "L", 0, 1e6,
        "L2 penalty added to the gradient; adamw and nadam-async take it off the weights instead."),
    SWITCH("decay-norms", TRAINING, decay_norms,
           "Weight decay of all parameters; off spares those of one dimension: biases, and the "
           "scales and shifts of batch-norm. (A layer with decay: off is always spared.)"),
    REAL("clip", TRAINING, clip, "NORM", 0, 1e12,
         "Scale gradients so that their global norm is at most NORM (synchronous schedules). 0: "
         "off."),
    CHOICE("lr-schedule", TRAINING, lr_schedule, pt_lr_names,
           "How the learning rate changes over the run."),
    TEXT("milestones", TRAINING, milestones, "E1,E2,…",
         "With milestones: the epochs at whose start the rate is multiplied by --lr-factor."),
    REAL("lr-factor", TRAINING, lr_factor, "F", 0, 1000, "With milestones: the factor."),
    REAL("lr-floor", TRAINING, lr_floor, "F", 0, 1,
         "With cosine: the lowest rate, as a fraction of --lr."),
    REAL("warmup", TRAINING, warmup, "EPOCHS", 0, 1e6,
         "Raise the rate linearly from zero over so many epochs."),
    INT("seed", TRAINING, seed, "S", 0, 9e15,
        "Start of all random numbers: weights, order, augmentation, dropout."),
    INT("eval-every", TRAINING, eval_every, "E", 0, 1e9,
        "Evaluate on the test set (with --validation on the samples held out) every E epochs and "
        "at "
        "the end. 0: never, not even at the end."),
    {ROW(CHOICE, "schedule", PIPELINE, schedule, "NAME|FILE",
         "Order of forwards and backwards: gpipe, 1f1b, interleaved and zb-h1 flush the pipeline "
         "every step, async never waits. A file.csv holds lists of one's own, for one step or for "
         "an epoch, as "
         "--schedule-out writes them."),
     .choices = pt_schedule_names, .file = ".csv"},
    INT("chunks", PIPELINE, chunks, "V", 1, PT_MOST_CHUNKS,
        "With interleaved: the model is cut into V blocks for each rank, and rank r of P has the "
        "blocks r, P+r, 2P+r, …; a step needs a multiple of P micro-batches."),
    TEXT_HERE("schedule-out", PIPELINE, schedule_out, "FILE",
              "With training or --check: write what every rank does in an epoch (or in --steps, "
              "when they are fewer), one line an action, for --schedule to read."),
    CHOICE(
        "predict", PIPELINE, predict, pt_predictor_names,
        "Weights that a forward of the async schedule uses: the newest (none), or those "
        "foreseen for its backward, by the optimizer's steps without new gradients (msnag), with "
        "those that the step has gathered so far (aggmsnag), or by repeating its last step "
        "(spectrain). msnag-ftpipe is FTPipe's form of Adam's msnag, to compare with."),
    FLAG("nesterov-last", PIPELINE, nesterov_last,
         "The last stage, where nothing is late, uses --optimizer nesterov, all others sgd "
         "(async)."),
    REAL("pipemare-lr", PIPELINE, pipemare_lr, "EPOCHS", 0, 1e6,
         "A stage that is late learns more slowly at first: its rate is divided by its delay in "
         "updates, by less and less over so many epochs (async). 0: off."),
    REAL("pipemare-dc", PIPELINE, pipemare_dc, "D", 0, 0.9999999,
         "Backwards of a late stage use the newest weights taken back by its delay in updates "
         "along a running mean of their moves, which keeps D of itself over that delay (async); "
         "such as 0.135. 0: off."),
    FLAG("stash", PIPELINE, stash, "Backwards use exactly the weights of their forward (async)."),
    FLAG(
        "gap-aware", PIPELINE, gap_aware,
        "A late gradient counts less the further its weights have gone since its forward, in steps "
        "of their typical size (async; sgd and nesterov). Keeps weights as --stash does."),
    FLAG("2bw", PIPELINE, two_versions,
         "Both passes of step t use the weights after step t-2, on every stage alike (async): two "
         "versions, one update late; needs a step of at least as many micro-batches as there are "
         "stages behind the first."),
    INT("in-flight", PIPELINE, in_flight, "K", 0, 1024,
        "So many micro-batches more in flight per link (async): hides slow links, costs staleness "
        "and memory."),
    TEXT("recompute", PIPELINE, recompute, "LAYERS",
         "Do not keep what these layers make for the backward, which then runs them again with its "
         "own weights: less memory where a stage has several micro-batches in flight, for the time "
         "of their forwards. none, all, or names of layers and blocks, and patterns such as g1.*, "
         "with commas between."),
    INT("sync-epochs", PIPELINE, sync_epochs, "E", 0, 1e9,
        "The first E epochs run 1f1b, where nothing is late, and async begins after them. "
        "--pipemare-lr then counts from there, and --2bw has its second version from there."),
    FLAG("blocking-sends", PIPELINE, blocking_sends,
         "Every send waits until it is received (MPI_Issend). Slow; proves that nothing relies on "
         "buffering."),
    CHOICE("backend", MACHINE, backend, pt_backend_choices, "What computes."),
    CHOICE("precision", MACHINE, precision, precision_names,
           "On GPUs. fp32 is strict; tf32 lets tensor cores round the factors of convolutions and "
           "products to 10 bits; bf16 also keeps values and their gradients in 16 bits, while "
           "weights, optimizer state and statistics stay fp32. CPUs compute in fp32."),
    FLAG("deterministic", MACHINE, deterministic,
         "On GPUs: only algorithms that give the same bits in every run. CPUs always do."),
    CHOICE("p2p", MACHINE, p2p, p2p_names,
           "How messages leave a GPU: through host memory, or from device to device by an MPI that "
           "can. auto asks MPI, and believes it when a message has come through whole."),
    INT("threads", MACHINE, threads, "T", 1, 1024, "CPU threads per rank."),
    TEXT("clock", MACHINE, clock, "FILE.csv",
         "With --backend clock: how long each stage takes. Nothing is computed and losses mean "
         "nothing, but the schedule, the engine and the messages are real."),
    TEXT("stall", MACHINE, stall, "SECONDS|auto|off",
         "A rank that has not come to its next action for so long says where it is and whom it "
         "waits for, and the run ends with 1. auto: ten times the median step, 5 s at least. Ten "
         "times as long, up to 60 s, before the first step has ended. Not given: as the variable "
         "PIPETRAIN_STALL says, else off."),
    TEXT("log", OUTPUT, log, "FILE.jsonl",
         "One JSON object a line: the run, every step, every evaluation."),
    INT("log-every", OUTPUT, log_every, "STEPS", 0, 1e9,
        "A console line every so many steps. 0: about ten an epoch."),
    TEXT("timing", OUTPUT, timing, "FILE.csv",
         "Every micro-batch on every rank: forward, backward, waits, update, staleness, version."),
    TEXT("trace", OUTPUT, trace, "FILE.json",
         "The same as a Chrome or Perfetto trace, all ranks on one clock."),
    TEXT("summary", OUTPUT, summary, "FILE.json",
         "Accuracy, losses, speed, and per stage times, bubble, staleness and memory."),
    INT("gap-every", OUTPUT, gap_every, "K", 0, 1e9,
        "Every K-th micro-batch of an epoch, each stage measures how far the weights of its "
        "forward (foreseen or stashed ones, if so) are from the true weights at its backward: the "
        "gradient is applied to those, with --stash too. Root mean square, and relative to that of "
        "the weights, for --log and --summary; costs two buffers, and waits for the device. 0: "
        "off."),
    TEXT_HERE("clock-out", OUTPUT, clock_out, "FILE.csv",
              "With training or --check: the times that stages were measured to take, as --clock "
              "reads them."),
    SWITCH("progress", OUTPUT, progress, "A progress bar, where the output is a terminal."),
    {ROW(TEXT, "debug", DEBUGGING, debug, "RANKS",
         "These ranks (a list such as 0,2; all without a value) print how to attach gdb and wait "
         "for it."),
     .optional_argument = true, .command_line_only = true},
    INT_HERE("fail-at", DEBUGGING, fail_at, "RANK", -1, 1024,
             "For tests: this rank fails at its first update."),
};

const int pt_settings_n_rows = sizeof pt_settings_rows / sizeof pt_settings_rows[0];
