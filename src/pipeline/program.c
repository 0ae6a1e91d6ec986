/* Making and running a program. The plans are made in program_values.c, program_gradients.c and
 * program_recompute.c. */
#include "pipetrain/program.h"

#include <stdlib.h>

#include "program_internal.h"

static const char *name_of(const pt_program *p, int i)
{
    return p->graph->nodes[p->nodes[i].weights].name;
}

/* Plans the kernel of every node of the graph, in order; a cut must not change any choice. */
static pt_status plan_kernels(pt_program *p, pt_error *err)
{
    const pt_backend_row *row = p->backend->row;
    PT_TRY(row->plain_layout(p->backend, &p->graph->input, p->samples, &p->input_layout, err));
    for (int i = 0; i < p->graph->n_nodes; i++) {
        const program_node *node = &p->nodes[i];
        const pt_layout *in[PT_MAX_INPUTS] = {NULL};
        if (node->absorbed)
            continue;
        for (int j = 0; j < node->op.n_inputs; j++)
            in[j] = pt_program_layout(p, node->inputs[j]);
        if (row->plan(p->backend, &node->op, p->samples, p->mode, in, &p->kernels[i], err) != PT_OK)
            return pt_fail_within(err, "layer %s", name_of(p, i));
    }
    return PT_OK;
}

pt_status pt_program_build(pt_program *p, pt_error *err)
{
    for (int i = p->spec->first; i < p->spec->end; i++)
        if (p->kernels[i] && p->backend->row->build(p->kernels[i], err) != PT_OK)
            return pt_fail_within(err, "layer %s", name_of(p, i));
    return PT_OK;
}

static pt_status make(pt_program *p, pt_error *err)
{
    size_t n_values = (size_t)p->graph->n_nodes + 1;
    size_t n_own = (size_t)(p->spec->end - p->spec->first);
    p->kernels = calloc(n_values, sizeof(pt_kernel *));
    p->value_at = calloc(n_values, sizeof *p->value_at);
    p->gradient_in = calloc(n_values, sizeof *p->gradient_in);
    p->gradient_out = calloc(n_values, sizeof *p->gradient_out);
    p->saved_at = calloc(n_own, sizeof *p->saved_at);
    p->aliased = calloc(n_own, sizeof *p->aliased);
    p->kept = calloc(n_values, sizeof *p->kept);
    p->again = calloc(n_own, sizeof *p->again);
    p->value_again = calloc(n_values, sizeof *p->value_again);
    p->saved_again = calloc(n_own, sizeof *p->saved_again);
    if (!p->kernels || !p->value_at || !p->gradient_in || !p->gradient_out || !p->saved_at ||
        !p->aliased || !p->kept || !p->again || !p->value_again || !p->saved_again)
        return pt_fail(err, PT_ENOMEM, "no memory for a stage of %zu layers", n_own);
    PT_TRY(pt_program_fuse(p, err));
    PT_TRY(plan_kernels(p, err));
    size_t forward = 0, backward = 0;
    PT_TRY(pt_program_plan_values(p, &forward, err));
    if (p->mode == PT_TRAIN)
        PT_TRY(pt_program_plan_gradients(p, &backward, err));
    p->scratch_bytes = forward > backward ? forward : backward;
    return PT_OK;
}

pt_status pt_program_new(pt_backend *backend, const pt_graph *graph, const pt_stage_spec *spec,
                         const pt_flat *flat, int samples, pt_mode mode, bool holds,
                         const bool *recompute, pt_program **ret_program, pt_error *err)
{
    pt_program *p = calloc(1, sizeof *p);
    if (!p)
        return pt_fail(err, PT_ENOMEM, "no memory for a stage");
    p->backend = backend;
    p->graph = graph;
    p->spec = spec;
    p->flat = flat;
    p->samples = samples;
    p->mode = mode;
    p->holds = holds;
    p->recompute = recompute;
    pt_status status = make(p, err);
    if (status != PT_OK) {
        pt_program_free(p);
        return status;
    }
    *ret_program = p;
    return PT_OK;
}

void pt_program_free(pt_program *p)
{
    if (!p)
        return;
    for (int i = p->graph->n_nodes - 1; p->kernels && i >= 0; i--)
        p->backend->row->release(p->kernels[i]);
    if (p->input_layout)
        p->backend->row->layout_free(p->backend, p->input_layout);
    free(p->nodes);
    free(p->kernels);
    free(p->values.at);
    free(p->value_at);
    free(p->saved_at);
    free(p->aliased);
    free(p->kept);
    free(p->again);
    free(p->value_again);
    free(p->saved_again);
    free(p->gradients.at);
    free(p->gradient_in);
    free(p->gradient_out);
    free(p->calls);
    free(p);
}

int pt_program_samples(const pt_program *p)
{
    return p->samples;
}

pt_mode pt_program_mode(const pt_program *p)
{
    return p->mode;
}

const pt_stage_spec *pt_program_spec(const pt_program *p)
{
    return p->spec;
}

size_t pt_program_stash_bytes(const pt_program *p)
{
    return p->stash_bytes;
}

size_t pt_program_scratch_bytes(const pt_program *p)
{
    return p->scratch_bytes;
}

size_t pt_program_held_bytes(const pt_program *p)
{
    return p->held_bytes;
}

int pt_program_ops_again(const pt_program *p)
{
    int n = 0;
    for (int i = 0; i < p->spec->end - p->spec->first; i++)
        n += p->again[i];
    return n;
}

size_t pt_program_private_bytes(const pt_program *p)
{
    size_t bytes = 0;
    for (int i = p->spec->first; i < p->spec->end; i++)
        bytes += p->kernels[i] ? p->kernels[i]->private_bytes : 0;
    return bytes;
}

size_t pt_program_shared_bytes(const pt_program *p)
{
    size_t most = 0;
    for (int i = p->spec->first; i < p->spec->end; i++)
        if (p->kernels[i] && p->kernels[i]->shared_bytes > most)
            most = p->kernels[i]->shared_bytes;
    return most;
}

const pt_layout *pt_program_layout(const pt_program *p, int value)
{
    return value == 0 ? p->input_layout : p->kernels[value - 1]->out;
}

static void *address(const storages *all, const pt_program_run *run, int s)
{
    if (s == NOWHERE)
        return NULL;
    void *const base[] = {
        [IN_SCRATCH] = run->dev_scratch, [IN_STASH] = run->dev_stash, [IN_HELD] = run->dev_held};
    return (char *)base[all->at[s].home] + all->at[s].offset;
}

void *pt_program_value(const pt_program *p, const pt_program_run *run, int value)
{
    return address(&p->values, run, p->value_at[value]);
}

void *pt_program_gradient_in(const pt_program *p, const pt_program_run *run, int value)
{
    return address(&p->gradients, run, p->gradient_in[value]);
}

void *pt_program_gradient_out(const pt_program *p, const pt_program_run *run, int value)
{
    return address(&p->gradients, run, p->gradient_out[value]);
}

/* The value as the backward sees it: computed again, or kept. */
static void *value_again(const pt_program *p, const pt_program_run *run, int value)
{
    int s = p->value_again[value];
    return s == NOWHERE ? pt_program_value(p, run, value) : address(&p->gradients, run, s);
}

static void *saved(const pt_program *p, const pt_program_run *run, int i, bool backward)
{
    int own = i - p->spec->first;
    if (backward && p->saved_again[own] != NOWHERE)
        return address(&p->gradients, run, p->saved_again[own]);
    return address(&p->values, run, p->saved_at[own]);
}

/* What forward and backward of node i have in common. */
static void common_args(const pt_program *p, const pt_program_run *run, int i, bool backward,
                        pt_kernel_args *args)
{
    void *(*value)(const pt_program *, const pt_program_run *, int) =
        backward ? value_again : pt_program_value;
    const program_node *node = &p->nodes[i];
    const pt_flat *flat = p->flat;
    int own = node->weights - p->spec->first;
    *args = (pt_kernel_args){
        .dev_out = value(p, run, i + 1),
        .dev_saved = saved(p, run, i, backward),
        .param_version = run->params_version,
        .accumulate = run->accumulate,
        .seed = run->seed,
        .epoch = run->epoch,
        .dev_sample = run->dev_sample,
    };
    for (int j = 0; j < node->op.n_inputs; j++)
        args->dev_in[j] = value(p, run, node->inputs[j]);
    for (int j = flat->first_param[own], k = 0; j < flat->first_param[own + 1]; j++, k++) {
        args->dev_param[k] = run->dev_params + flat->params[j].offset;
        if (run->dev_gradient)
            args->dev_d_param[k] = run->dev_gradient + flat->params[j].offset;
    }
    for (int j = flat->first_state[own], k = 0; j < flat->first_state[own + 1]; j++, k++)
        args->dev_state[k] = run->dev_state + flat->state[j].offset;
}

static pt_status pause(const pt_program_run *run, pt_error *err)
{
    return run->between_ops ? run->between_ops(run->context, err) : PT_OK;
}

pt_status pt_program_forward(pt_program *p, const pt_program_run *run, pt_error *err)
{
    for (int i = p->spec->first; i < p->spec->end; i++) {
        if (p->aliased[i - p->spec->first] || p->nodes[i].absorbed)
            continue;
        pt_kernel_args args;
        common_args(p, run, i, /*backward=*/false, &args);
        if (p->backend->row->forward(p->kernels[i], &args, err) != PT_OK)
            return pt_fail_within(err, "forward of layer %s", name_of(p, i));
        PT_TRY(pause(run, err));
    }
    return PT_OK;
}

static pt_status run_call(pt_program *p, const pt_program_run *run, const call *c, pt_error *err)
{
    const pt_backend_row *row = p->backend->row;
    if (c->kind == CALL_ADD)
        return row->add(p->backend, pt_program_layout(p, c->value),
                        address(&p->gradients, run, c->x), address(&p->gradients, run, c->y),
                        address(&p->gradients, run, c->sum), err);
    pt_kernel_args args;
    common_args(p, run, c->node, /*backward=*/true, &args);
    args.dev_d_out = address(&p->gradients, run, c->d_out);
    pt_status status = PT_OK;
    if (c->kind == CALL_AGAIN) {
        args.again = true;
        status = row->forward(p->kernels[c->node], &args, err);
    } else if (c->kind == CALL_INPUT) {
        for (int j = 0; j < p->nodes[c->node].op.n_inputs; j++)
            args.dev_d_in[j] = address(&p->gradients, run, c->d_in[j]);
        status = row->backward_input(p->kernels[c->node], &args, err);
    } else {
        status = row->backward_weight(p->kernels[c->node], &args, err);
    }
    return status == PT_OK ? PT_OK
                           : pt_fail_within(err, "backward of layer %s", name_of(p, c->node));
}

static pt_status run_calls(pt_program *p, const pt_program_run *run, int from, int to,
                           pt_error *err)
{
    for (int i = from; i < to; i++) {
        PT_TRY(run_call(p, run, &p->calls[i], err));
        PT_TRY(pause(run, err));
    }
    return PT_OK;
}

pt_status pt_program_backward_input(pt_program *p, const pt_program_run *run, pt_error *err)
{
    return run_calls(p, run, 0, p->n_input_calls, err);
}

pt_status pt_program_backward_weight(pt_program *p, const pt_program_run *run, pt_error *err)
{
    return run_calls(p, run, p->n_input_calls, p->n_calls, err);
}
