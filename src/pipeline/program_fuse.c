/* Batch-norm with what follows it as one op:
 *
 *   batch-norm → relu                      y = relu(bn(x))
 *   batch-norm → add (z) → relu or not     y = relu(bn(x) + z)
 *
 * The last node of such a row takes over the work of all: it has the inputs x and z, and the
 * batch-norm's parameters. Every gradient is then still added up in the order of readers, from the
 * last to the first, if no other reader of x or z stands between the place where it was read and
 * the place where it is read now; else nothing is fused. So no bit depends on what is fused, and a
 * cut may fall anywhere. The nodes of a row are all kept or all recomputed. */
#include <stdlib.h>

#include "program_internal.h"

enum { NOBODY = -1 };

/* The node that alone reads a value, and once; it must be on this stage and a node of its own. */
static int only_reader(const pt_program *p, int value)
{
    int reader = NOBODY;
    for (int i = value; i < p->graph->n_nodes; i++)
        for (int j = 0; j < p->graph->nodes[i].op.n_inputs; j++)
            if (p->graph->nodes[i].inputs[j] == value) {
                if (reader != NOBODY)
                    return NOBODY;
                reader = i;
            }
    bool here = reader != NOBODY && reader < p->spec->end && !p->nodes[reader].absorbed &&
                p->nodes[reader].weights == reader;
    return here ? reader : NOBODY;
}

/* Does anybody read the value between two nodes? */
static bool is_read_between(const pt_program *p, int value, int from, int to)
{
    for (int i = from + 1; i < to; i++)
        for (int j = 0; j < p->graph->nodes[i].op.n_inputs; j++)
            if (p->graph->nodes[i].inputs[j] == value)
                return true;
    return false;
}

/* A row that begins with a batch-norm: its nodes, NOBODY where there is none. */
typedef struct row {
    int norm, add, relu;
    int other; /* the value that is added */
} row;

static row find_row(const pt_program *p, int norm)
{
    row r = {.norm = norm, .add = NOBODY, .relu = NOBODY};
    int next = only_reader(p, norm + 1);
    if (next != NOBODY && p->nodes[next].op.kind == PT_OP_ADD && p->nodes[next].op.n_inputs == 2) {
        const int *inputs = p->nodes[next].inputs;
        r.add = next;
        r.other = inputs[inputs[0] == norm + 1];
        next = only_reader(p, next + 1);
    }
    if (next != NOBODY && p->nodes[next].op.kind == PT_OP_RELU)
        r.relu = next;
    return r;
}

/* Are the values of all its nodes kept, or those of none? */
static bool is_treated_alike(const pt_program *p, const row *r)
{
    const int behind[] = {r->add, r->relu};
    for (int i = 0; i < 2; i++)
        if (behind[i] != NOBODY &&
            pt_program_recomputes(p, behind[i] + 1) != pt_program_recomputes(p, r->norm + 1))
            return false;
    return true;
}

static void fuse(pt_program *p, const row *r)
{
    const int last = r->relu != NOBODY ? r->relu : r->add;
    if (last == NOBODY || !is_treated_alike(p, r))
        return;
    program_node fused = p->nodes[r->norm];
    if (is_read_between(p, fused.inputs[0], r->norm, last))
        return;
    if (r->add != NOBODY) {
        if (is_read_between(p, r->other, r->add, last))
            return;
        fused.op.n_inputs = 2;
        fused.op.in[1] = fused.op.out;
        fused.inputs[1] = r->other;
    }
    fused.op.relu = r->relu != NOBODY;
    if (!p->backend->row->supports(&fused.op))
        return;
    p->nodes[r->norm].absorbed = true;
    if (r->add != NOBODY)
        p->nodes[r->add].absorbed = true;
    p->nodes[last] = fused;
}

pt_status pt_program_fuse(pt_program *p, pt_error *err)
{
    const pt_graph *graph = p->graph;
    p->nodes = calloc((size_t)graph->n_nodes + 1, sizeof *p->nodes);
    if (!p->nodes)
        return pt_fail(err, PT_ENOMEM, "no memory for a stage of %d layers", graph->n_nodes);
    for (int i = 0; i < graph->n_nodes; i++) {
        p->nodes[i] = (program_node){.op = graph->nodes[i].op, .weights = i};
        for (int j = 0; j < graph->nodes[i].op.n_inputs; j++)
            p->nodes[i].inputs[j] = graph->nodes[i].inputs[j];
    }
    /* Where two batch-norms meet in one add, the later one has fewer nodes in between. */
    for (int i = p->spec->end - 1; i >= p->spec->first; i--)
        if (p->nodes[i].op.kind == PT_OP_BATCH_NORM && p->nodes[i].weights == i) {
            row r = find_row(p, i);
            fuse(p, &r);
        }
    return PT_OK;
}
