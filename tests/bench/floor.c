/* The compute floor: the oneDNN primitives of a network, called bare.
 *
 * usage: floor PARTITION.yaml SAMPLES MICRO_BATCHES     → one JSON object on standard output
 *
 * What training a micro-batch would cost on one thread if nothing but the primitives ran: forward,
 * gradients of the inputs (not of the model's input), gradients of the weights. The library chooses
 * the layouts of convolutions and linear layers; other layers take the layout that their input came
 * in. There is no loader, loss, optimizer, message or engine, and no reorder either: every value is
 * one block of memory, and a primitive that would want another layout than the value has reads the
 * same bytes as if they had it. The numbers mean nothing then, but the time and the traffic do.
 *
 * The program speaks to the library by itself and shares nothing with the backend that it is the
 * yardstick of; only the partition file is read by the program's own parser. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#ifdef _OPENMP
#include <omp.h>
#endif

#include "floor.h"
#include "pipetrain/clock.h"
#include "pipetrain/partition.h"
#include "pipetrain/text.h"

enum { WARM_UP = 2, ALIGN = 64 };

/* ---- running -----------------------------------------------------------------------------------
 */

/* Small numbers of both signs: zeros and denormals would run at speeds of their own. */
static void fill(float *at, size_t n)
{
    uint32_t state = 1;
    for (size_t i = 0; i < n; i++) {
        state = state * 1664525u + 1013904223u;
        at[i] = ((float)(state >> 8) / 8388608.0f - 1) * 0.1f;
    }
}

static void allocate(bench *b, int micro_batches)
{
    for (int i = 0; i < b->n_blocks; i++) {
        size_t bytes = (b->blocks[i].bytes + ALIGN - 1) / ALIGN * ALIGN + ALIGN;
        b->blocks[i].at = aligned_alloc(ALIGN, bytes);
        if (!b->blocks[i].at)
            floor_die("memory", "there is none");
        fill(b->blocks[i].at, bytes / sizeof(float));
    }
    for (int i = 0; i < b->n_calls; i++) {
        call *c = &b->calls[i];
        c->us = floor_table((size_t)micro_batches, sizeof *c->us);
        for (int j = 0; j < c->n_args; j++)
            floor_check(dnnl_memory_create(&c->args[j].memory, floor_md_of(c->pd, c->args[j].arg),
                                           b->engine, b->blocks[c->blocks[j]].at),
                        "memory");
    }
}

/* Runs one micro-batch; m < 0 is a warm-up. Returns µs. */
static double run_once(bench *b, int m)
{
    int64_t start = pt_clock_ns(), before = start;
    for (int i = 0; i < b->n_calls; i++) {
        call *c = &b->calls[i];
        floor_check(dnnl_primitive_execute(c->primitive, b->stream, c->n_args, c->args),
                    b->graph->nodes[c->node].name);
        int64_t now = pt_clock_ns();
        if (m >= 0)
            c->us[m] = (double)(now - before) / 1e3;
        before = now;
    }
    floor_check(dnnl_stream_wait(b->stream), "stream");
    return (double)(pt_clock_ns() - start) / 1e3;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Sorts the numbers. */
static double median(double *x, int n)
{
    qsort(x, (size_t)n, sizeof *x, ascending);
    return (x[(n - 1) / 2] + x[n / 2]) / 2;
}

static double cpu_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

/* µs of every pass of every layer: medians over the micro-batches. */
static void print_layers(const bench *b, int micro_batches)
{
    static const char *const names[PASSES] = {"forward_us", "backward_data_us",
                                              "backward_weights_us"};
    size_t n = (size_t)b->graph->n_nodes;
    double(*us)[PASSES] = floor_table(n, sizeof *us), sum[PASSES] = {0};
    for (int i = 0; i < b->n_calls; i++) {
        const call *c = &b->calls[i];
        double typical = median(c->us, micro_batches);
        us[c->node][c->pass] += typical;
        sum[c->pass] += typical;
    }
    for (int p = 0; p < PASSES; p++)
        printf(" \"%s\": %.3f,\n", names[p], sum[p]);
    printf(" \"layers\": [");
    for (size_t i = 0; i < n; i++) {
        const pt_node *node = &b->graph->nodes[i];
        printf("%s\n  {\"name\": \"%s\", \"kind\": \"%s\"", i ? "," : "", node->name,
               pt_op_rows[node->op.kind].name);
        for (int p = 0; p < PASSES; p++)
            printf(", \"%s\": %.3f", names[p], us[i][p]);
        printf("}");
    }
    printf("]}\n");
    free(us);
}

static void measure(bench *b, const char *model, int micro_batches)
{
    double *us = floor_table((size_t)micro_batches, sizeof *us);
    for (int i = 0; i < WARM_UP; i++)
        run_once(b, -1);
    double cpu = cpu_us();
    for (int m = 0; m < micro_batches; m++)
        us[m] = run_once(b, m);
    cpu = cpu_us() - cpu;
    double typical = median(us, micro_batches); /* and sorted: us[0] is the fastest */
    printf("{\"model\": \"%s\", \"samples\": %d, \"micro_batches\": %d, \"primitives\": %d,\n"
           " \"us\": %.3f, \"fastest_us\": %.3f, \"cpu_us\": %.3f,\n",
           model, b->samples, micro_batches, b->n_calls, typical, us[0], cpu / micro_batches);
    print_layers(b, micro_batches);
    free(us);
}

static int positive(const char *text, const char *what)
{
    char *end = NULL;
    long n = strtol(text, &end, 10);
    if (*end || n < 1 || n > 1000000)
        floor_die(what, "must be a whole number from 1 to 1000000");
    return (int)n;
}

int main(int argc, char **argv)
{
    if (argc != 4) {
        fputs("usage: floor PARTITION.yaml SAMPLES MICRO_BATCHES\n", stderr);
        return 2;
    }
    pt_error err = {PT_OK, ""};
    pt_partition *partition = NULL;
    char *text = NULL;
    size_t bytes = 0;
    if (pt_text_read_file(argv[1], &text, &bytes, &err) != PT_OK ||
        pt_partition_parse(argv[1], text, bytes, &partition, &err) != PT_OK)
        floor_die("partition", err.text);
#ifdef _OPENMP
    omp_set_num_threads(1);
#endif
    bench b = {.graph = &partition->graph, .samples = positive(argv[2], "SAMPLES")};
    int micro_batches = positive(argv[3], "MICRO_BATCHES");
    floor_check(dnnl_engine_create(&b.engine, dnnl_cpu, 0), "engine");
    floor_check(dnnl_stream_create(&b.stream, b.engine, dnnl_stream_default_flags), "stream");
    floor_plan(&b);
    allocate(&b, micro_batches);
    measure(&b, partition->name, micro_batches);
    return 0; /* the process ends here; its memory goes with it */
}
