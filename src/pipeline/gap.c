/* Measuring the gap; gap.h says when. */
#include "gap.h"

#include <math.h>

static int64_t count_weights(const pt_flat *flat)
{
    int64_t n = 0;
    for (int i = 0; i < flat->n_params; i++)
        n += flat->params[i].shape.elements;
    return n;
}

/* A stage without weights has nothing to be late. */
static bool measures(const pt_stage_plan *plan)
{
    return plan->gap_every > 0 && plan->flat->param_elements > 0;
}

size_t pt_gap_bytes(const pt_stage_plan *plan)
{
    return measures(plan) ? 2 * plan->flat->param_elements * sizeof(float) : 0;
}

pt_status pt_gap_new(gap_meter *g, const pt_stage_plan *plan, pt_error *err)
{
    pt_backend *b = plan->backend;
    void *read = NULL, *off = NULL;
    *g = (gap_meter){.backend = b, .slot = -1};
    if (!measures(plan))
        return PT_OK;
    g->elements = plan->flat->param_elements;
    g->weights = count_weights(plan->flat);
    g->every = plan->gap_every;
    PT_TRY(b->row->dev_new(b, g->elements * sizeof(float), &read, err));
    g->read = read;
    PT_TRY(b->row->dev_new(b, g->elements * sizeof(float), &off, err));
    g->off = off;
    pt_gap_restart(g);
    return PT_OK;
}

void pt_gap_free(gap_meter *g)
{
    if (!g->backend)
        return;
    g->backend->row->dev_free(g->backend, g->read);
    g->backend->row->dev_free(g->backend, g->off);
}

void pt_gap_restart(gap_meter *g)
{
    g->found = (pt_gap_found){0};
    g->due_in = g->every;
    g->slot = -1;
}

pt_status pt_gap_forward(gap_meter *g, const pt_micro_batch *mb, pt_error *err)
{
    if (g->every == 0)
        return PT_OK;
    g->due_in -= g->due_in > 0;
    if (g->due_in > 0 || g->slot >= 0)
        return PT_OK;
    g->due_in = g->every;
    g->slot = mb->slot;
    return g->backend->row->copy(g->backend, g->read, mb->weights.dev_params,
                                 g->elements * sizeof(float), err);
}

pt_status pt_gap_backward(gap_meter *g, const pt_micro_batch *mb, const float *dev_theta,
                          pt_error *err)
{
    pt_backend *b = g->backend;
    double off = 0, theta = 0;
    if (g->slot != mb->slot)
        return PT_OK;
    g->slot = -1;
    PT_TRY(b->row->axpby(b, g->elements, 1, g->read, -1, dev_theta, g->off, err));
    PT_TRY(b->row->sum_of_squares(b, g->elements, g->off, &off, err));
    PT_TRY(b->row->sum_of_squares(b, g->elements, dev_theta, &theta, err));
    g->found.measured++;
    g->found.rms += sqrt(off / (double)g->weights);
    g->found.relative += off == 0 ? 0 : sqrt(off / theta);
    return PT_OK;
}
