/* The backward's tape: which calls, in which order, on which buffers. What was not kept is computed
 * again first (program_recompute.c).
 *
 * Gradients are in single-assignment form. Every call gives fresh storages, except that
 *   - an op that hands its gradient on unchanged (add, flatten) lets its inputs share d_out's, and
 *   - an op that can, or an addition, overwrites a storage that nothing will read any more.
 * `wanted[s]` counts who still will: values whose total gradient is in s, and weight gradients,
 * which all run after the last input gradient so that gradients leave the stage as early as they
 * can.
 *
 *   time:  0 … gradients that arrive | CALL_AGAIN … | CALL_INPUT, CALL_ADD … | SEND_GRAD |
 *          CALL_WEIGHT …
 *
 * Where other micro-batches compute between SEND_GRAD and CALL_WEIGHT, scratch is theirs by then:
 * what weight gradients read has a block of its own, one for each micro-batch that waits. All of it
 * is alive when the waiting begins, so nothing in that block shares bytes. */
#include <stdlib.h>

#include "program_internal.h"

typedef struct tape {
    pt_program *p;
    int *total;  /* [value]: storage of its gradient so far, or NOWHERE */
    int *wanted; /* [storage]: future readers */
    int room;
    pt_error *err;
} tape;

static int now(const tape *t)
{
    return t->p->n_calls;
}

static int fresh(tape *t, size_t bytes)
{
    int s = pt_storages_add(&t->p->gradients, bytes, now(t));
    if (s == NOWHERE || s < t->room)
        return s;
    int room = 2 * (s + 1);
    int *wanted = realloc(t->wanted, (size_t)room * sizeof *wanted);
    if (!wanted)
        return NOWHERE;
    for (int i = t->room; i < room; i++)
        wanted[i] = 0;
    t->wanted = wanted;
    t->room = room;
    return s;
}

static void touch(tape *t, int s)
{
    if (s != NOWHERE)
        t->p->gradients.at[s].last = now(t);
}

static void emit(tape *t, call c)
{
    touch(t, c.d_out);
    touch(t, c.x);
    touch(t, c.y);
    touch(t, c.sum);
    if (c.kind == CALL_INPUT)
        for (int j = 0; j < t->p->nodes[c.node].op.n_inputs; j++)
            touch(t, c.d_in[j]);
    int again[MOST_AGAIN];
    pt_program_reads_again(t->p, &c, again);
    for (int i = 0; i < MOST_AGAIN; i++)
        touch(t, again[i]);
    t->p->calls[t->p->n_calls++] = c;
}

static const call blank = {.d_out = NOWHERE, .x = NOWHERE, .y = NOWHERE, .sum = NOWHERE};

/* Adds a contribution, which nobody reads yet, to the gradient of a value. */
static pt_status contribute(tape *t, int value, int contribution)
{
    int before = t->total[value];
    if (before == NOWHERE) {
        t->total[value] = contribution;
        t->wanted[contribution]++;
        return PT_OK;
    }
    int sum = NOWHERE;
    t->wanted[before]--;
    if (t->wanted[before] == 0)
        sum = before;
    else if (t->wanted[contribution] == 0)
        sum = contribution;
    else
        sum = fresh(t, pt_program_layout(t->p, value)->bytes);
    if (sum == NOWHERE)
        return pt_fail(t->err, PT_ENOMEM, "no memory for the plan of a backward");
    call c = blank;
    c.kind = CALL_ADD;
    c.x = before;
    c.y = contribution;
    c.sum = sum;
    c.value = value;
    emit(t, c);
    t->total[value] = sum;
    t->wanted[sum]++;
    return PT_OK;
}

/* The model's input needs no gradient; everything else does. */
static bool wants_gradient(int value)
{
    return value != 0;
}

/* Chooses where the gradients of node i's inputs go. ret_call says whether anything must run. */
static pt_status place_inputs(tape *t, int i, int d_out, int d_in[PT_MAX_INPUTS], bool *ret_call)
{
    const program_node *node = &t->p->nodes[i];
    const pt_kernel *kernel = t->p->kernels[i];
    bool passes = kernel->flags & PT_PASSES_GRADIENT;
    bool reusable = (kernel->flags & PT_MAY_RUN_IN_PLACE) && t->wanted[d_out] == 0;
    /* An op with weights whose gradients are one pass runs even when nobody wants d_in. */
    pt_op_tensor params[PT_MAX_PARAMS];
    *ret_call = !(kernel->flags & PT_SPLITS_BACKWARD) && pt_op_params(&node->op, params) > 0;
    for (int j = 0; j < node->op.n_inputs; j++) {
        d_in[j] = NOWHERE;
        if (!wants_gradient(node->inputs[j]))
            continue;
        if (passes || (reusable && j == 0)) /* others may be of other layouts */
            d_in[j] = d_out;
        else
            d_in[j] = fresh(t, pt_program_layout(t->p, node->inputs[j])->bytes);
        if (d_in[j] == NOWHERE)
            return pt_fail(t->err, PT_ENOMEM, "no memory for the plan of a backward");
        *ret_call |= !passes;
    }
    return PT_OK;
}

static pt_status differentiate(tape *t, int i, bool *weight_later)
{
    const program_node *node = &t->p->nodes[i];
    int d_out = t->total[i + 1];
    *weight_later = t->p->kernels[i]->flags & PT_SPLITS_BACKWARD;
    t->wanted[d_out] += *weight_later ? 0 : -1; /* else the weight gradient still reads it */

    call c = blank;
    bool must_run = false;
    PT_TRY(place_inputs(t, i, d_out, c.d_in, &must_run));
    if (must_run) {
        c.kind = CALL_INPUT;
        c.node = i;
        c.d_out = d_out;
        emit(t, c);
    }
    /* From the last input to the first, like everything in a backward. Inputs may share a storage:
     * while one is added, the others still want it. */
    for (int j = 0; j < node->op.n_inputs; j++)
        if (c.d_in[j] != NOWHERE)
            t->wanted[c.d_in[j]]++;
    for (int j = node->op.n_inputs - 1; j >= 0; j--)
        if (c.d_in[j] != NOWHERE) {
            t->wanted[c.d_in[j]]--;
            PT_TRY(contribute(t, node->inputs[j], c.d_in[j]));
        }
    return PT_OK;
}

static pt_status arrivals(tape *t)
{
    pt_program *p = t->p;
    for (int v = 0; v <= p->graph->n_nodes; v++) {
        p->gradient_in[v] = p->gradient_out[v] = NOWHERE;
        bool predictions = v == p->graph->n_nodes && p->spec->end == v;
        if (!wants_gradient(v) || !(pt_program_sends(p, v) || predictions))
            continue;
        int s = fresh(t, pt_program_layout(p, v)->bytes);
        if (s == NOWHERE)
            return pt_fail(t->err, PT_ENOMEM, "no memory for the plan of a backward");
        p->gradient_in[v] = t->total[v] = s;
        t->wanted[s]++;
    }
    return PT_OK;
}

static pt_status build(tape *t)
{
    pt_program *p = t->p;
    PT_TRY(arrivals(t));
    PT_TRY(pt_program_plan_again(p, t->err));
    for (int i = p->spec->end - 1; i >= p->spec->first; i--) {
        bool weight_later = false;
        if (!p->nodes[i].absorbed)
            PT_TRY(differentiate(t, i, &weight_later));
    }
    /* Gradients that leave are read by SEND_GRAD, after the last input call. */
    for (int v = 0; v <= p->spec->first; v++)
        if (wants_gradient(v) && pt_program_receives(p, v)) {
            p->gradient_out[v] = t->total[v];
            touch(t, t->total[v]);
        }
    p->n_input_calls = p->n_calls;
    for (int i = p->spec->end - 1; i >= p->spec->first; i--)
        if (p->kernels[i] && (p->kernels[i]->flags & PT_SPLITS_BACKWARD)) {
            call c = blank;
            c.kind = CALL_WEIGHT;
            c.node = i;
            c.d_out = t->total[i + 1];
            emit(t, c);
        }
    return PT_OK;
}

static void hold_storage(pt_program *p, int s)
{
    storage *held = s == NOWHERE ? NULL : &p->gradients.at[s];
    if (!held || held->home == IN_HELD)
        return;
    held->home = IN_HELD;
    held->offset = p->held_bytes;
    p->held_bytes += pt_align_up(held->bytes);
}

/* Puts what the weight gradients read where it outlives other micro-batches. */
static void hold(pt_program *p)
{
    for (int i = p->n_input_calls; i < p->n_calls; i++) {
        int again[MOST_AGAIN];
        pt_program_reads_again(p, &p->calls[i], again);
        hold_storage(p, p->calls[i].d_out);
        for (int j = 0; j < MOST_AGAIN; j++)
            hold_storage(p, again[j]);
    }
}

pt_status pt_program_plan_gradients(pt_program *p, size_t *ret_scratch, pt_error *err)
{
    tape t = {.p = p, .err = err};
    int n_values = p->graph->n_nodes + 1;
    size_t most = (size_t)(p->spec->end - p->spec->first) * (3 + PT_MAX_INPUTS);
    p->calls = calloc(most + 1, sizeof *p->calls);
    t.total = malloc((size_t)n_values * sizeof *t.total);
    pt_status status = PT_OK;
    if (!p->calls || !t.total) {
        status = pt_fail(err, PT_ENOMEM, "no memory for the plan of a backward");
        goto out;
    }
    for (int v = 0; v < n_values; v++)
        t.total[v] = NOWHERE;
    PT_GOTO(status, build(&t));
    if (p->holds)
        hold(p);
    PT_GOTO(status, pt_storages_plan(&p->gradients, ret_scratch, err));
out:
    free(t.total);
    free(t.wanted);
    return status;
}
