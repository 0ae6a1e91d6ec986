/* --check-gradients: analytic gradients against central differences of the loss.
 *
 * Two kinds of probe per parameter tensor: along the gradient itself (a strong signal that shows
 * wrong scales), and single elements, the largest ones and arbitrary ones (which show gradients
 * that are missing). The loss is fp32 inside, and relu and max-pool have kinks, so a difference is
 * only as good as its step: several are tried, and the one that agrees best counts. */
#include "pipetrain/inspect.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "pipetrain/rng.h"
#include "pipetrain/weights_io.h"
#include "reporter.h"

enum { ELEMENTS = 6, MOST_SAMPLES = 8 };

/* Relative to the norm of the tensor's gradient. Kinks that lie closer than a step, and the noise
 * of an fp32 loss over a small step, leave up to two percent in a deep network; a gradient that is
 * wrong is off by a tenth and more. */
static const double BOUND = 0.05;
static const double STEPS[] = {1e-1, 3e-2, 1e-2, 3e-3, 1e-3};

typedef struct prober {
    pt_run *run;
    uint32_t *sample;
    void *input, *answer, *result; /* pinned; the result is a pt_loss_result */
    int64_t samples;
} prober;

static pt_status forward(prober *p, pt_micro_batch *mb, pt_error *err)
{
    pt_run *run = p->run;
    PT_TRY(pt_stage_begin(run->blocks[0].stage, PT_TRAIN, /*epoch=*/0, p->sample, p->samples, NULL,
                          mb, err));
    PT_TRY(pt_stage_load(run->blocks[0].stage, mb, p->input, err));
    PT_TRY(pt_stage_forward(run->blocks[0].stage, mb, /*staleness=*/0, NULL, err));
    return pt_stage_loss(run->blocks[0].stage, mb, p->answer, 1.0f / (float)p->samples, p->result,
                         err);
}

static pt_status loss_at(prober *p, double *ret_loss, pt_error *err)
{
    pt_micro_batch mb;
    pt_backend *b = p->run->backend;
    PT_TRY(forward(p, &mb, err));
    PT_TRY(pt_stage_end(p->run->blocks[0].stage, &mb, err));
    PT_TRY(b->row->finish(b, err));
    *ret_loss = ((const pt_loss_result *)p->result)->loss / (double)p->samples;
    return PT_OK;
}

static pt_status backward(prober *p, pt_error *err)
{
    pt_micro_batch mb;
    pt_stage *stage = p->run->blocks[0].stage;
    PT_TRY(forward(p, &mb, err));
    PT_TRY(pt_stage_backward_input(stage, &mb, /*accumulate=*/false, NULL, err));
    PT_TRY(pt_stage_backward_weight(stage, &mb, /*accumulate=*/false, NULL, err));
    return pt_stage_end(stage, &mb, err);
}

/* (L(θ + h·d) - L(θ - h·d)) / 2h for parameter i; leaves θ as it was. */
static pt_status slope(prober *p, int i, const float *theta, const float *direction, int64_t n,
                       double h, double *ret_slope, pt_error *err)
{
    pt_weights *w = p->run->blocks[0].weights;
    double side[2];
    float *moved = malloc((size_t)n * sizeof *moved);
    if (!moved)
        return pt_fail(err, PT_ENOMEM, "no memory for a probe");
    pt_status status = PT_OK;
    for (int s = 0; s < 2; s++) {
        for (int64_t e = 0; e < n; e++)
            moved[e] = theta[e] + (float)((s ? -h : h) * (double)direction[e]);
        PT_GOTO(status, pt_weights_set_param(w, i, moved, err));
        PT_GOTO(status, loss_at(p, &side[s], err));
    }
    PT_GOTO(status, pt_weights_set_param(w, i, theta, err));
    *ret_slope = (side[0] - side[1]) / (2 * h);
out:
    free(moved);
    return status;
}

/* Smallest disagreement over the steps, relative to `scale`. */
static pt_status disagreement(prober *p, int i, const float *theta, const float *direction,
                              int64_t n, double expected, double scale, double *ret_worst,
                              pt_error *err)
{
    double best = INFINITY;
    for (size_t s = 0; s < sizeof STEPS / sizeof STEPS[0]; s++) {
        double found = 0;
        PT_TRY(slope(p, i, theta, direction, n, STEPS[s], &found, err));
        double off = fabs(found - expected) / scale;
        best = off < best ? off : best;
    }
    if (best > *ret_worst)
        *ret_worst = best;
    return PT_OK;
}

static int64_t largest(const float *g, int64_t n)
{
    int64_t best = 0;
    for (int64_t e = 1; e < n; e++)
        if (fabsf(g[e]) > fabsf(g[best]))
            best = e;
    return best;
}

static pt_status probe(prober *p, int i, const float *theta, const float *g, float *direction,
                       int64_t n, double *ret_worst, pt_error *err)
{
    double squares = 0;
    for (int64_t e = 0; e < n; e++)
        squares += (double)g[e] * (double)g[e];
    double norm = sqrt(squares);
    if (norm == 0)
        norm = 1; /* then every slope must be next to nothing */
    for (int64_t e = 0; e < n; e++)
        direction[e] = (float)((double)g[e] / norm);
    double worst = 0;
    PT_TRY(disagreement(p, i, theta, direction, n, squares > 0 ? norm : 0, norm, &worst, err));
    pt_rng rng;
    pt_rng_init(&rng, /*seed=*/1, PT_RNG_CHECK, (uint64_t)i, 0);
    memset(direction, 0, (size_t)n * sizeof *direction);
    for (int k = 0; k < ELEMENTS; k++) {
        int64_t e = k == 0 ? largest(g, n) : (int64_t)pt_rng_below(&rng, (uint32_t)n);
        direction[e] = 1;
        PT_TRY(disagreement(p, i, theta, direction, n, (double)g[e], norm, &worst, err));
        direction[e] = 0;
    }
    *ret_worst = worst;
    return PT_OK;
}

static pt_status check_param(prober *p, int i, FILE *out, int *bad, pt_error *err)
{
    pt_run *run = p->run;
    const pt_flat_tensor *t = &run->blocks[0].flat.params[i];
    int64_t n = t->shape.elements;
    double worst = 0;
    float *all = malloc(3 * (size_t)n * sizeof *all);
    if (!all)
        return pt_fail(err, PT_ENOMEM, "no memory for a probe");
    float *theta = all, *g = all + n, *direction = all + 2 * n;
    pt_status status = PT_OK;
    PT_GOTO(status, pt_weights_get_param(run->blocks[0].weights, i, theta, err));
    PT_GOTO(status, run->backend->row->download(
                        run->backend, g, pt_weights_gradient(run->blocks[0].weights) + t->offset,
                        (size_t)n * sizeof *g, err));
    PT_GOTO(status, probe(p, i, theta, g, direction, n, &worst, err));
    bool good = worst <= BOUND;
    *bad += !good;
    fprintf(out, "  %-4s %30s.%-12s %9lld elements  worst %.1e of the gradient\n",
            good ? "ok" : "BAD", run->partition->graph.nodes[t->node].name, t->shape.name,
            (long long)n, worst);
out:
    free(all);
    return status;
}

static pt_status load(prober *p, pt_error *err)
{
    pt_run *run = p->run;
    const pt_graph *graph = &run->partition->graph;
    int64_t sizes[4], outputs = pt_shape_elements(&graph->loss.shape);
    pt_epoch_sizes(&run->epoch_plan, sizes);
    p->samples = sizes[0];
    size_t n = (size_t)p->samples;
    p->sample = calloc(n, sizeof *p->sample);
    if (!p->sample)
        return pt_fail(err, PT_ENOMEM, "no memory for a micro-batch");
    pt_backend *b = run->backend;
    size_t inputs = n * (size_t)pt_shape_elements(&graph->input);
    PT_TRY(b->row->host_new(b, inputs * sizeof(float), &p->input, err));
    PT_TRY(b->row->host_new(b, n * (size_t)outputs * sizeof(float), &p->answer, err));
    PT_TRY(b->row->host_new(b, sizeof(pt_loss_result), &p->result, err));
    for (size_t i = 0; i < n; i++)
        p->sample[i] = (uint32_t)i;
    pt_load_inputs(run->train_data, &graph->input, &run->partition->normalisation, NULL,
                   (uint64_t)run->settings->seed, /*epoch=*/0, p->sample, p->samples, p->input);
    if (graph->loss.kind == PT_LOSS_MSE) {
        pt_load_targets(run->train_data, outputs, p->sample, p->samples, p->answer);
        return PT_OK;
    }
    pt_load_labels(run->train_data, p->sample, p->samples, p->answer);
    return pt_loss_check_labels(&graph->loss, p->answer, (int)p->samples, err);
}

static pt_status check_all(prober *p, FILE *out, pt_error *err)
{
    pt_run *run = p->run;
    int bad = 0;
    PT_TRY(pt_weights_randomise(run->blocks[0].weights, &run->blocks[0].flat,
                                &run->partition->graph, run->partition->init,
                                (uint64_t)run->settings->seed, err));
    PT_TRY(load(p, err));
    fprintf(out, "gradients of %s on %lld samples against central differences, bound %.0e:\n",
            run->partition->name, (long long)p->samples, BOUND);
    stage_card card = pt_reporter_card(run);
    pt_reporter_recompute(run, &card, "  recompute ", out);
    PT_TRY(backward(p, err));
    for (int i = 0; i < run->blocks[0].flat.n_params; i++)
        PT_TRY(check_param(p, i, out, &bad, err));
    if (bad)
        return pt_fail(err, PT_EINTERNAL, "%d of %d parameters have wrong gradients", bad,
                       run->blocks[0].flat.n_params);
    fprintf(out, "all %d parameters agree\n", run->blocks[0].flat.n_params);
    return PT_OK;
}

pt_status pt_check_gradients(const pt_config *config, const pt_partition *partition, FILE *out,
                             pt_error *err)
{
    pt_config small = *config; /* borrows the texts */
    prober p = {0};
    if (small.settings.micro_batch > MOST_SAMPLES)
        small.settings.micro_batch = MOST_SAMPLES;
    small.settings.batch = small.settings.micro_batch;
    small.options.settings = &small.settings;
    pt_status status = pt_run_open_alone(&small, partition, /*stages=*/1, /*rank=*/0, &p.run, err);
    if (status == PT_OK)
        status = check_all(&p, out, err);
    void *pinned[] = {p.input, p.answer, p.result};
    for (int i = 0; p.run && i < 3; i++)
        p.run->backend->row->host_free(p.run->backend, pinned[i]);
    free(p.sample);
    pt_run_close(p.run);
    return status;
}
