/* Contiguous blocks of layers that balance the stages.
 *
 * Two objectives, one after the other, since a single recursion over (maximum, sum of squares) has
 * no optimal substructure: the first pass finds the smallest possible maximum; the second finds,
 * among the cuts that keep it, the smallest sum of squares. Both run over suffixes, so that
 * reading the choices from the front gives the earliest cut among equals. */
#include "pipetrain/planner.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

/* sum[i]: cost of the nodes before i. A stage [i, j) costs sum[j] - sum[i], in both passes, so that
 * the bound which the first pass finds can be met in the second. */
typedef struct plan {
    const double *sum;
    int n, stages;
    double *now, *next; /* by first node: the best for the rest with k stages, and with k - 1 */
    int *choice;        /* [stage][first node]: where the stage after it begins */
} plan;

/* The smallest maximum over all cuts of [i, n) into k stages. The cost of a stage grows with its
 * end, that of the rest shrinks: the best end is where they cross, found by bisection. */
static double best_maximum(const plan *p, int i, int k)
{
    int low = i + 1, high = p->n - (k - 1); /* the end of the first stage */

    while (low < high) {
        int middle = (low + high) / 2;
        if (p->sum[middle] - p->sum[i] >= p->next[middle])
            high = middle;
        else
            low = middle + 1;
    }
    double best = fmax(p->sum[low] - p->sum[i], p->next[low]);
    if (low > i + 1)
        best = fmin(best, fmax(p->sum[low - 1] - p->sum[i], p->next[low - 1]));
    return best;
}

static void swap(plan *p)
{
    double *other = p->now;
    p->now = p->next;
    p->next = other;
}

static double smallest_maximum(plan *p)
{
    for (int i = 0; i < p->n; i++)
        p->next[i] = p->sum[p->n] - p->sum[i];
    for (int k = 2; k <= p->stages; k++) {
        for (int i = 0; i + k <= p->n; i++)
            p->now[i] = best_maximum(p, i, k);
        swap(p);
    }
    return p->next[0];
}

/* The smallest sum of squares of [i, n) in k stages of at most `bound` each; infinite when there is
 * no such cut. */
static double best_squares(const plan *p, int i, int k, double bound, int *ret_end)
{
    double best = INFINITY;

    *ret_end = i + 1;
    for (int end = i + 1; end <= p->n - (k - 1); end++) {
        double cost = p->sum[end] - p->sum[i];
        if (cost > bound)
            break;
        if (cost * cost + p->next[end] < best) {
            best = cost * cost + p->next[end];
            *ret_end = end;
        }
    }
    return best;
}

static void choose(plan *p, double bound, int *begins)
{
    for (int i = 0; i < p->n; i++) {
        double cost = p->sum[p->n] - p->sum[i];
        p->next[i] = cost <= bound ? cost * cost : INFINITY;
    }
    for (int k = 2; k <= p->stages; k++) {
        int *row = p->choice + (size_t)(p->stages - k) * (size_t)p->n;
        for (int i = 0; i + k <= p->n; i++)
            p->now[i] = best_squares(p, i, k, bound, &row[i]);
        swap(p);
    }
    begins[0] = 0;
    for (int s = 1; s < p->stages; s++)
        begins[s] = p->choice[(size_t)(s - 1) * (size_t)p->n + (size_t)begins[s - 1]];
}

static pt_status check_costs(const double *cost, int n_nodes, int stages, pt_error *err)
{
    if (stages < 1)
        return pt_fail(err, PT_EINPUT, "%d stages; at least 1 is needed", stages);
    if (stages > n_nodes)
        return pt_fail(err, PT_EINPUT,
                       "%d stages are more than the %d layers of this model; use fewer ranks",
                       stages, n_nodes);
    for (int i = 0; i < n_nodes; i++)
        if (!(cost[i] >= 0) || isinf(cost[i]))
            return pt_fail(err, PT_EINPUT, "layer %d has the cost %g; costs are 0 or more", i,
                           cost[i]);
    return PT_OK;
}

pt_status pt_plan_balance(const double *cost, int n_nodes, int stages, int *begins, pt_error *err)
{
    PT_TRY(check_costs(cost, n_nodes, stages, err));
    size_t n = (size_t)n_nodes;
    double *sum = malloc(sizeof *sum * (n + 1));
    plan p = {.sum = sum,
              .n = n_nodes,
              .stages = stages,
              .now = malloc(sizeof *p.now * (n + 1)),
              .next = malloc(sizeof *p.next * (n + 1)),
              .choice = calloc((size_t)stages, sizeof *p.choice * n)};
    bool got_memory = sum && p.now && p.next && p.choice;

    if (got_memory) {
        sum[0] = 0;
        for (int i = 0; i < n_nodes; i++)
            sum[i + 1] = sum[i] + cost[i];
        choose(&p, smallest_maximum(&p), begins);
    }
    free(sum);
    free(p.now);
    free(p.next);
    free(p.choice);
    if (!got_memory)
        return pt_fail(err, PT_ENOMEM, "no memory to plan %d layers on %d stages", n_nodes, stages);
    return PT_OK;
}

/* ---- cost without a measurement ---- */

/* Bytes of one sample that a forward reads and writes. Weights are left out: a batch shares them.
 */
static double bytes_moved(const pt_op *op)
{
    double elements = (double)pt_shape_elements(&op->out);

    if (op->kind == PT_OP_FLATTEN)
        return 0; /* another name for the same bytes */
    for (int i = 0; i < op->n_inputs; i++)
        elements += (double)pt_shape_elements(&op->in[i]);
    return elements * (double)sizeof(float);
}

/* Forward and backward in units of the forward: each gradient costs as much again. Nobody asks for
 * the gradient of the model's input. */
static int passes(const pt_node *node)
{
    pt_op_tensor params[PT_MAX_PARAMS];
    bool input_gradient = false;

    for (int k = 0; k < node->op.n_inputs; k++)
        input_gradient = input_gradient || node->inputs[k] > 0;
    return 1 + (pt_op_params(&node->op, params) > 0) + input_gradient;
}

void pt_plan_estimate(const pt_graph *graph, double flops_per_byte, double *cost)
{
    for (int i = 0; i < graph->n_nodes; i++) {
        const pt_node *node = &graph->nodes[i];
        /* An op waits for arithmetic or for memory, whichever takes longer (the roofline model,
         * Williams et al., CACM 2009). */
        double forward = fmax(pt_op_flops(&node->op), flops_per_byte * bytes_moved(&node->op));
        cost[i] = passes(node) * forward;
    }
}
