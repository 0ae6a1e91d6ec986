/* A forward that is a micro-batch's second one, for its backward: all as in the first, but running
 * statistics stay. */
#include <string.h>

#include "ops_rig.h"
#include "ops_tests.h"
#include "suite.h"

static void assert_same(const ops_case *c, const ops_tensor *again, const float *first)
{
    if (memcmp(again->at, first, (size_t)again->n * sizeof *first) != 0)
        fail_msg("%s: %s differs", c->name, again->name);
}

static void check(pt_backend *b, const ops_case *c)
{
    ops_data data;
    ops_result once, again;
    ops_data_new(c, /*seed=*/8, &data);
    /* Each in memory of its own: the second forward saves what its backward reads. */
    ops_rig *first = ops_rig_new(b, c, PT_TRAIN, false);
    ops_rig *second = ops_rig_new(b, c, PT_TRAIN, false);
    ops_rig_run(first, &data, 0, &once);
    ops_rig_run(second, &data, OPS_AGAIN, &again);
    pt_op op = ops_infer(c);
    pt_op_tensor tensors[PT_MAX_STATE];
    const int n_states = pt_op_state(&op, tensors), n = once.n - n_states;
    for (int i = 0; i < n; i++)
        assert_same(c, &again.t[i], once.t[i].at);
    for (int i = 0; i < n_states; i++) {
        assert_same(c, &again.t[n + i], data.state[i].at);
        assert_memory_not_equal(once.t[n + i].at, data.state[i].at,
                                (size_t)once.t[n + i].n * sizeof(float));
    }
    ops_rig_free(first);
    ops_rig_free(second);
    ops_result_free(&once);
    ops_result_free(&again);
    ops_data_free(&data);
}

/* The longest form of batch-norm. */
static const ops_case row = {"batch-norm, add, relu",
                             4,
                             {.kind = PT_OP_BATCH_NORM,
                              .n_inputs = 2,
                              .in = {{3, {8, 5, 3}}, {3, {8, 5, 3}}},
                              .eps = 1e-5,
                              .momentum = 0.1,
                              .relu = true}};

void ops_test_again(void **state)
{
    const ops_subject *s = *state;
    pt_backend *b = ops_open(s->row, 1);
    pt_op op = ops_infer(&row);
    for (int i = 0; i < ops_n_cases; i++)
        if (ops_cases[i].op.momentum > 0 || ops_cases[i].op.kind != PT_OP_BATCH_NORM)
            check(b, &ops_cases[i]);
    if (s->row->supports(&op))
        check(b, &row);
    s->row->close(b);
}
