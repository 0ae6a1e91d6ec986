/* Whole runs on a backend that does its work late, against the same runs on one that does it at
 * once: weights, statistics and losses have the same bits, whatever the order of the lanes. */
#include <stdlib.h>
#include <string.h>

#include "late_backend.h"
#include "pipetrain/run.h"
#include "tap.h"

enum { ORDERS = 12, MOST_WORDS = 8 };

/* Values that skip stages, values in place and in scratch, dropout, statistics; as many cuts as
 * there may be ranks. */
static const char MODEL[] = "name: late\n"
                            "input: {shape: [2, 6, 6]}\n"
                            "layers:\n"
                            "  - {name: conv1, kind: conv2d, features: 4, kernel: 3, padding: 1}\n"
                            "  - {name: relu0, kind: relu}\n"
                            "  - {name: bn1, kind: batch-norm}\n"
                            "  - {name: relu1, kind: relu}\n"
                            "  - {name: drop1, kind: dropout, p: 0.25}\n"
                            "  - {name: conv2, kind: conv2d, features: 4, kernel: 3, padding: 1}\n"
                            "  - {name: gelu1, kind: gelu}\n"
                            "  - {name: sum, kind: add, inputs: [gelu1, relu1]}\n"
                            "  - {name: cat, kind: concat, inputs: [sum, input]}\n"
                            "  - {name: pool, kind: max-pool, kernel: 2, stride: 2}\n"
                            "  - {name: flat, kind: flatten}\n"
                            "  - {name: drop2, kind: dropout, p: 0.25}\n"
                            "  - {name: fc, kind: linear, features: 5}\n"
                            "loss: {kind: cross-entropy}\n"
                            "cuts:\n"
                            "  2: [conv2]\n"
                            "  3: [relu0, cat]\n"
                            "  4: [bn1, conv2, flat]\n"
                            "  6: [bn1, conv2, sum, pool, fc]\n"
                            "  8: [bn1, conv2, gelu1, sum, cat, pool, fc]\n";

/* Every stage ends with weights: gradients arrive where they wait, and nowhere in scratch. */
static const char CHAIN[] = "name: chain\n"
                            "input: {shape: [2, 6, 6]}\n"
                            "layers:\n"
                            "  - {name: conv1, kind: conv2d, features: 4, kernel: 3, padding: 1}\n"
                            "  - {name: relu1, kind: relu}\n"
                            "  - {name: conv2, kind: conv2d, features: 4, kernel: 3, padding: 1}\n"
                            "  - {name: gelu1, kind: gelu}\n"
                            "  - {name: conv3, kind: conv2d, features: 4, kernel: 3, padding: 1}\n"
                            "  - {name: flat, kind: flatten}\n"
                            "  - {name: fc, kind: linear, features: 5}\n"
                            "loss: {kind: cross-entropy}\n"
                            "cuts:\n"
                            "  2: [gelu1]\n"
                            "  3: [relu1, gelu1]\n"
                            "  4: [relu1, gelu1, flat]\n";

/* What a run leaves on one rank: all its tensors, one behind the other, and the last losses. */
typedef struct outcome {
    float *numbers;
    size_t n;
    pt_pass_result pass;
} outcome;

static void append(outcome *o, const float *x, size_t n)
{
    o->numbers = realloc(o->numbers, (o->n + n) * sizeof *x);
    if (!o->numbers)
        exit(1);
    memcpy(o->numbers + o->n, x, n * sizeof *x);
    o->n += n;
}

static void keep(tap *t, const pt_run *run, outcome *o)
{
    enum { MOST = 4096 };
    float x[MOST];
    for (int c = 0; c < run->chunks; c++) {
        const pt_block *block = &run->blocks[c];
        for (int i = 0; i < block->flat.n_params; i++) {
            CHECK_OK(t, pt_weights_get_param(block->weights, i, x, &t->err));
            append(o, x, (size_t)block->flat.params[i].shape.elements);
        }
        for (int i = 0; i < block->flat.n_state; i++) {
            CHECK_OK(t, pt_weights_get_state(block->weights, i, x, &t->err));
            append(o, x, (size_t)block->flat.state[i].shape.elements);
        }
        pt_gap_found gap = pt_stage_gap(block->stage); /* of the last epoch */
        append(o, (float[]){(float)gap.rms, (float)gap.relative}, 2);
    }
}

/* The losses that rank 0 wrote, without the times. */
static void keep_losses(tap *t, const char *path, outcome *o)
{
    char line[1024];
    FILE *log = t->rank == 0 ? fopen(path, "r") : NULL;
    while (log && fgets(line, sizeof line, log)) {
        const char *at = strstr(line, "loss\":");
        float value = at ? strtof(at + strlen("loss\":"), NULL) : 0;
        if (at)
            append(o, &value, 1);
    }
    if (log)
        fclose(log);
}

static void configure(tap *t, pt_config *config, const char *options, const char *log)
{
    char words[512], *save = NULL;
    CHECK_OK(t, pt_config_init(config, &t->err));
    snprintf(words, sizeof words,
             "dataset=synthetic backend=ref samples=40 batch=9 micro-batch=3 steps=11 eval-every=1 "
             "weight-decay=0.01 log=%s progress=off %s",
             log, options);
    for (char *word = strtok_r(words, " ", &save); word; word = strtok_r(NULL, " ", &save)) {
        char *value = strchr(word, '=');
        *value++ = 0;
        CHECK_OK(t, pt_options_set(&config->options, word, value, PT_FROM_COMMAND_LINE, "test",
                                   &t->err));
    }
    CHECK_OK(t, pt_config_settle(config, &t->err));
}

/* seed 0: at once. */
static outcome train(tap *t, const char *model, const char *options, uint64_t seed)
{
    static volatile int stop;
    char path[64];
    outcome o = {0};
    pt_config config;
    pt_partition *partition = NULL;
    pt_run *run = NULL;
    FILE *console = tmpfile();
    snprintf(path, sizeof path, "late-%d.jsonl", (int)getpid());
    configure(t, &config, options, path);
    CHECK_OK(t, pt_partition_parse("late.yaml", model, strlen(model), &partition, &t->err));
    pt_run_app app = {.console = console, .stop = &stop};
    pt_status status = pt_run_open(t->world, &config, partition, &app, &run, &t->err);
    CHECK(t, status == PT_OK, "%s", t->err.text);
    if (status != PT_OK || !console)
        exit(1);
    if (seed)
        late_begin(run->backend, seed);
    status = pt_run_train(run, &t->err);
    CHECK(t, status == PT_OK, "%s", t->err.text);
    if (status != PT_OK)
        exit(1);
    keep(t, run, &o);
    if (seed) {
        int64_t calls = 0, most = 0;
        late_counts(&calls, &most);
        CHECK(t, calls > 1000 && most > 10, "%lld calls, at most %lld at once: nothing was late",
              (long long)calls, (long long)most);
    }
    pt_run_close(run);
    keep_losses(t, path, &o);
    remove(path);
    fclose(console);
    pt_partition_free(partition);
    pt_config_clear(&config);
    return o;
}

static void compare_model(tap *t, const char *model, const char *options)
{
    outcome want = train(t, model, options, 0);
    CHECK(t, want.n >= 16, "only %zu numbers", want.n); /* a stage of one batch-norm */
    for (uint64_t seed = 1; seed <= ORDERS; seed++) {
        outcome got = train(t, model, options, seed * 1000 + (uint64_t)t->rank);
        bool same = got.n == want.n &&
                    memcmp(got.numbers, want.numbers, want.n * sizeof *want.numbers) == 0;
        CHECK(t, same, "%s, order %d: other numbers", options, (int)seed);
        free(got.numbers);
    }
    free(want.numbers);
}

static void compare(tap *t, const char *options)
{
    compare_model(t, MODEL, options);
}

static void test_async(tap *t)
{
    compare(t, "schedule=async gap-every=2");
}

static void test_async_stash(tap *t)
{
    compare(t, "schedule=async stash=on in-flight=1 gap-every=2");
}

/* Versions beside newest weights, gradients of their own, and weights taken back. */
static void test_rules(tap *t)
{
    compare(t, "schedule=async predict=aggmsnag gap-aware=on");
    compare(t, "schedule=async predict=none pipemare-dc=0.135");
}

static void test_adam(tap *t)
{
    compare(t, "schedule=async optimizer=adam");
    compare(t, "schedule=async optimizer=adamw decay-norms=off stash=on");
    compare(t, "schedule=async optimizer=nadam-async 2bw=on predict=none");
}

static void test_1f1b(tap *t)
{
    compare(t, "schedule=1f1b clip=0.5");
}

static void test_gpipe_blocking(tap *t)
{
    compare(t, "schedule=gpipe blocking-sends=on");
}

/* Several stages on a rank share its lanes, and each has links of its own. */
static void test_interleaved(tap *t)
{
    if (pt_world_size(t->world) == 1)
        return;
    compare(t, "schedule=interleaved clip=0.5 batch=12 micro-batch=1");
    compare(t, "schedule=interleaved blocking-sends=on batch=24 micro-batch=2");
    if (pt_world_size(t->world) == 2)
        compare(t, "schedule=interleaved chunks=3 batch=4 micro-batch=2");
}

/* Weight gradients that wait have memory, and events, of their own. */
static void test_zb_h1(tap *t)
{
    compare(t, "schedule=zb-h1 clip=0.5 blocking-sends=on");
    compare_model(t, CHAIN, "schedule=zb-h1 micro-batch=1");
}

/* Values that are computed again stand beside arriving gradients, or with those that wait; what is
 * sent may leave from scratch. */
static void test_recompute(tap *t)
{
    compare(t, "schedule=1f1b recompute=all");
    compare(t, "schedule=async recompute=relu0,bn1,relu1,drop1,sum,pool");
    compare(t, "schedule=zb-h1 recompute=all micro-batch=1");
    compare_model(t, CHAIN, "schedule=zb-h1 recompute=all micro-batch=1");
}

int main(int argc, char **argv)
{
    static const tap_case cases[] = {
        {"async, msnag", test_async},
        {"async, msnag, stashed, more in flight", test_async_stash},
        {"gap-aware aggmsnag, PipeMare's correction", test_rules},
        {"adam, adamw spared and stashed, nadam with two versions", test_adam},
        {"1f1b, clipped", test_1f1b},
        {"gpipe, blocking sends", test_gpipe_blocking},
        {"zb-h1, clipped, blocking sends", test_zb_h1},
        {"layers that are recomputed", test_recompute},
        {"interleaved, clipped; blocking sends", test_interleaved},
    };
    return tap_main(argc, argv, 1, cases, sizeof cases / sizeof *cases);
}
