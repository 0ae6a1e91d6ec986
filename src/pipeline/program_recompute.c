/* What outlives the forward, and what is computed again (activation checkpointing: Chen et al.,
 * "Training deep nets with sublinear memory cost", 2016, with segments that a user names).
 *
 * What the backward reads is kept, unless a recomputed layer made it. Such a layer runs again from
 * its inputs, and these are wanted in the same way:
 *
 *     conv1 ──► bn1 ──► relu1 ──► conv2 ──►          bn1 and relu1 are recomputed
 *     kept      again   again     kept
 *
 * A layer runs again only where somebody wants its value, or what its kernel saved: the last one of
 * a stage often need not. The last layer of all is always kept: the loss reads its value before the
 * backward begins. */
#include "program_internal.h"

bool pt_program_recomputes(const pt_program *p, int value)
{
    bool made_here = value > p->spec->first && value <= p->spec->end;
    return p->mode == PT_TRAIN && p->recompute && made_here && value < p->graph->n_nodes &&
           p->recompute[value - 1];
}

static bool is_aliased(const pt_program *p, int value)
{
    return value > p->spec->first && p->aliased[value - 1 - p->spec->first];
}

/* Somebody will read the value after the forward. */
static void want(pt_program *p, int value)
{
    while (is_aliased(p, value))
        value = p->nodes[value - 1].inputs[0];
    if (pt_program_recomputes(p, value))
        p->again[value - 1 - p->spec->first] = true;
    else
        p->kept[value] = true;
}

void pt_program_choose_kept(pt_program *p)
{
    const unsigned reads_input = PT_READS_INPUT_FOR_INPUT | PT_READS_INPUT_FOR_WEIGHT;
    if (p->spec->end == p->graph->n_nodes)
        want(p, p->graph->n_nodes);
    /* From the last to the first: all who want a value come before who makes it. */
    for (int i = p->spec->end - 1; i >= p->spec->first; i--) {
        const program_node *node = &p->nodes[i];
        bool *again = &p->again[i - p->spec->first];
        if (node->absorbed)
            continue;
        if (p->kernels[i]->flags & PT_READS_OUTPUT_FOR_INPUT)
            want(p, i + 1);
        if (p->kernels[i]->flags & reads_input)
            want(p, node->inputs[0]);
        *again |= p->kernels[i]->saved_bytes > 0 && pt_program_recomputes(p, i + 1);
        for (int j = 0; j < node->op.n_inputs && *again; j++)
            want(p, node->inputs[j]);
    }
}

static pt_status fresh(pt_program *p, size_t bytes, int *ret_storage, pt_error *err)
{
    *ret_storage = pt_storages_add(&p->gradients, bytes, p->n_calls);
    return *ret_storage == NOWHERE ? pt_fail(err, PT_ENOMEM, "no memory for the plan of a backward")
                                   : PT_OK;
}

/* Node i as it was in the forward: in place where it was so. */
static pt_status run_again(pt_program *p, int i, pt_error *err)
{
    const program_node *node = &p->nodes[i];
    const size_t saved_bytes = p->kernels[i]->saved_bytes;
    if (p->value_at[i + 1] == p->value_at[node->inputs[0]])
        p->value_again[i + 1] = p->value_again[node->inputs[0]];
    else
        PT_TRY(fresh(p, p->kernels[i]->out->bytes, &p->value_again[i + 1], err));
    if (saved_bytes > 0)
        PT_TRY(fresh(p, saved_bytes, &p->saved_again[i - p->spec->first], err));
    for (int j = 0; j < node->op.n_inputs; j++)
        if (p->value_again[node->inputs[j]] != NOWHERE)
            p->gradients.at[p->value_again[node->inputs[j]]].last = p->n_calls;
    p->calls[p->n_calls++] = (call){.kind = CALL_AGAIN,
                                    .node = i,
                                    .d_out = NOWHERE,
                                    .x = NOWHERE,
                                    .y = NOWHERE,
                                    .sum = NOWHERE};
    return PT_OK;
}

pt_status pt_program_plan_again(pt_program *p, pt_error *err)
{
    for (int v = 0; v <= p->graph->n_nodes; v++)
        p->value_again[v] = NOWHERE;
    for (int i = p->spec->first; i < p->spec->end; i++) {
        const int own = i - p->spec->first;
        p->saved_again[own] = NOWHERE;
        if (p->aliased[own])
            p->value_again[i + 1] = p->value_again[p->nodes[i].inputs[0]];
        else if (p->again[own])
            PT_TRY(run_again(p, i, err));
    }
    return PT_OK;
}

void pt_program_reads_again(const pt_program *p, const call *c, int ret_storages[MOST_AGAIN])
{
    for (int i = 0; i < MOST_AGAIN; i++)
        ret_storages[i] = NOWHERE;
    if (c->kind != CALL_INPUT && c->kind != CALL_WEIGHT)
        return;
    const unsigned flags = p->kernels[c->node]->flags;
    const bool input = c->kind == CALL_INPUT;
    ret_storages[0] = p->saved_again[c->node - p->spec->first];
    if (flags & (input ? PT_READS_INPUT_FOR_INPUT : PT_READS_INPUT_FOR_WEIGHT))
        ret_storages[1] = p->value_again[p->nodes[c->node].inputs[0]];
    if (input && (flags & PT_READS_OUTPUT_FOR_INPUT))
        ret_storages[2] = p->value_again[c->node + 1];
}
