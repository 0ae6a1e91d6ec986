/* The forward's memory plan: where every value of a stage lives.
 *
 *   kept for the backward  → stash, a fixed offset each
 *   not kept               → scratch, sharing bytes with values of other times
 *   flatten and friends    → the storage of their input, nothing runs
 *   relu where it is safe  → in place on its input                                            */
#include <stdlib.h>

#include "program_internal.h"

int pt_storages_add(storages *all, size_t bytes, int now)
{
    if (all->n == all->room) {
        int room = all->room ? 2 * all->room : 64;
        storage *at = realloc(all->at, (size_t)room * sizeof *at);
        if (!at)
            return NOWHERE;
        all->at = at;
        all->room = room;
    }
    all->at[all->n] = (storage){.bytes = bytes, .first = now, .last = now};
    return all->n++;
}

pt_status pt_storages_plan(storages *all, size_t *ret_bytes, pt_error *err)
{
    pt_arena_item *items = calloc((size_t)all->n + 1, sizeof *items);
    if (!items)
        return pt_fail(err, PT_ENOMEM, "no memory for a plan of %d buffers", all->n);
    for (int i = 0; i < all->n; i++)
        items[i] = (pt_arena_item){.bytes = all->at[i].home == IN_SCRATCH ? all->at[i].bytes : 0,
                                   .first = all->at[i].first,
                                   .last = all->at[i].last};
    *ret_bytes = pt_arena_plan(items, all->n);
    for (int i = 0; i < all->n; i++)
        if (all->at[i].home == IN_SCRATCH)
            all->at[i].offset = items[i].offset;
    free(items);
    return PT_OK;
}

static bool listed(const int *values, int n, int value)
{
    for (int i = 0; i < n; i++)
        if (values[i] == value)
            return true;
    return false;
}

bool pt_program_sends(const pt_program *p, int value)
{
    return listed(p->spec->out, p->spec->n_out, value);
}

bool pt_program_receives(const pt_program *p, int value)
{
    return listed(p->spec->in, p->spec->n_in, value);
}

bool pt_program_holds(const pt_program *p, int value)
{
    if (value > p->spec->first && value <= p->spec->end)
        return !p->nodes[value - 1].absorbed; /* made by a node of this stage */
    return (value == 0 && p->spec->stage == 0) || pt_program_receives(p, value);
}

/* How many inputs of ops, anywhere in the graph, are this value. */
static int readers(const pt_graph *graph, int value)
{
    int n = 0;
    for (int i = 0; i < graph->n_nodes; i++)
        for (int j = 0; j < graph->nodes[i].op.n_inputs; j++)
            n += graph->nodes[i].inputs[j] == value;
    return n;
}

static int values_in(const pt_program *p, int home)
{
    int n = 0;
    for (int v = 0; v <= p->graph->n_nodes; v++)
        n += p->value_at[v] == home;
    return n;
}

/* May node i write over its input? See the rule at the top of program.h. A layer that will run
 * again needs its input once more. */
static bool may_run_in_place(const pt_program *p, int i)
{
    const pt_kernel *kernel = p->kernels[i];
    int value = p->nodes[i].inputs[0];
    int maker = value - 1;
    if (!(kernel->flags & PT_MAY_RUN_IN_PLACE) || maker < p->spec->first)
        return false; /* arrived from elsewhere, or the model's input */
    return readers(p->graph, value) == 1 && !pt_program_sends(p, value) &&
           !(p->kernels[maker]->flags & PT_READS_OUTPUT_FOR_INPUT) &&
           values_in(p, p->value_at[value]) == 1 &&
           (!pt_program_recomputes(p, i + 1) || pt_program_recomputes(p, value));
}

/* Has node i no output of its own? One that is kept has, where its input is not. */
static bool is_alias(const pt_program *p, int i)
{
    return (p->kernels[i]->flags & PT_PASSES_VALUE) &&
           (pt_program_recomputes(p, i + 1) || !pt_program_recomputes(p, p->nodes[i].inputs[0]));
}

/* Gives every value that the stage holds a storage; those that arrive first. */
static pt_status assign(pt_program *p, pt_error *err)
{
    int n_nodes = p->graph->n_nodes;
    for (int v = 0; v <= n_nodes; v++)
        p->value_at[v] = NOWHERE;
    for (int v = 0; v <= p->spec->first; v++)
        if (pt_program_holds(p, v)) {
            size_t bytes = pt_program_layout(p, v)->bytes;
            p->value_at[v] = pt_storages_add(&p->values, bytes, p->spec->first - 1);
        }
    for (int i = p->spec->first; i < p->spec->end; i++) {
        if (p->nodes[i].absorbed)
            continue;
        int source = p->value_at[p->nodes[i].inputs[0]];
        p->aliased[i - p->spec->first] = is_alias(p, i);
        if (is_alias(p, i) || may_run_in_place(p, i))
            p->value_at[i + 1] = source;
        else
            p->value_at[i + 1] = pt_storages_add(&p->values, p->kernels[i]->out->bytes, i);
    }
    for (int v = 0; v <= n_nodes; v++)
        if (pt_program_holds(p, v) && p->value_at[v] == NOWHERE)
            return pt_fail(err, PT_ENOMEM, "no memory for the plan of a stage");
    return PT_OK;
}

/* Gives what kernels save a storage. */
static pt_status assign_saved(pt_program *p, pt_error *err)
{
    for (int i = p->spec->first; i < p->spec->end; i++) {
        int *at = &p->saved_at[i - p->spec->first];
        size_t bytes = p->kernels[i] ? p->kernels[i]->saved_bytes : 0;
        *at = bytes > 0 ? pt_storages_add(&p->values, bytes, i) : NOWHERE;
        if (bytes > 0 && *at == NOWHERE)
            return pt_fail(err, PT_ENOMEM, "no memory for the plan of a stage");
    }
    return PT_OK;
}

/* Until when is what lies in scratch read? */
static void find_lifetimes(pt_program *p)
{
    for (int i = p->spec->first; i < p->spec->end; i++) {
        const program_node *node = &p->nodes[i];
        if (node->absorbed)
            continue;
        for (int j = 0; j < node->op.n_inputs; j++) {
            storage *in = &p->values.at[p->value_at[node->inputs[j]]];
            in->last = i > in->last ? i : in->last;
        }
        storage *out = &p->values.at[p->value_at[i + 1]];
        out->last = i > out->last ? i : out->last;
    }
    /* What leaves, and the predictions, are read when all ops are done. */
    for (int v = 0; v <= p->graph->n_nodes; v++)
        if (pt_program_holds(p, v) && (pt_program_sends(p, v) || v == p->graph->n_nodes))
            p->values.at[p->value_at[v]].last = p->spec->end;
}

/* Puts what the backward will read where it outlives other micro-batches. */
static void keep(pt_program *p)
{
    for (int v = 0; v <= p->graph->n_nodes; v++)
        if (p->kept[v])
            p->values.at[p->value_at[v]].home = IN_STASH;
    for (int i = 0; i < p->spec->end - p->spec->first; i++)
        if (p->saved_at[i] != NOWHERE && !p->again[i])
            p->values.at[p->saved_at[i]].home = IN_STASH;
    for (int i = 0; i < p->values.n; i++)
        if (p->values.at[i].home == IN_STASH) {
            p->values.at[i].offset = p->stash_bytes;
            p->stash_bytes += pt_align_up(p->values.at[i].bytes);
        }
}

pt_status pt_program_plan_values(pt_program *p, size_t *ret_scratch, pt_error *err)
{
    PT_TRY(assign(p, err));
    PT_TRY(assign_saved(p, err));
    find_lifetimes(p);
    if (p->mode == PT_TRAIN)
        pt_program_choose_kept(p);
    keep(p);
    return pt_storages_plan(&p->values, ret_scratch, err);
}
