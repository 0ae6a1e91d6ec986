/* What neither slopes nor a table of answers shows: who wins a tie, and which elements drop. */
#include <stdlib.h>
#include <string.h>

#include "ops_rig.h"
#include "ops_tests.h"
#include "pipetrain/rng.h"
#include "suite.h"

/* One fp32 product. */
static const double scale_bound = 1e-6;

/* All inputs are equal, so each window's gradient belongs to its first element inside the image. */
void ops_test_ties(void **state)
{
    const ops_subject *s = *state;
    const ops_case c = {"ties",
                        1,
                        {.kind = PT_OP_MAX_POOL,
                         .n_inputs = 1,
                         .in = {{3, {1, 4, 4}}},
                         .kernel = {3, 3},
                         .stride = {2, 2},
                         .padding = {1, 1}}};
    /* Windows begin at rows and columns -1 and 1; what is outside never wins. */
    const float expected[16] = {1, 2, 0, 0, 3, 4};
    pt_backend *b = ops_open(s->row, 1);
    ops_data data;
    ops_result result;
    ops_data_new(&c, 1, &data);
    for (int i = 0; i < 16; i++)
        data.in[0].at[i] = -7;
    for (int i = 0; i < 4; i++)
        data.d_out.at[i] = (float)(i + 1);
    ops_rig *rig = ops_rig_new(b, &c, PT_TRAIN, false);
    ops_rig_run(rig, &data, 0, &result);
    for (int i = 0; i < 4; i++)
        assert_true(result.t[0].at[i] == -7.0f);
    assert_memory_equal(result.t[1].at, expected, sizeof expected);
    ops_result_free(&result);
    ops_rig_free(rig);
    ops_data_free(&data);
    s->row->close(b);
}

/* The factors that op.h promises for row n: numbers drawn one after the other from its stream. */
static void expected_mask(const pt_op *op, int n, int64_t elements, float *mask)
{
    pt_rng rng;
    pt_rng_init(&rng, OPS_SEED, PT_RNG_DROPOUT, (uint64_t)op->layer << 32 | OPS_EPOCH,
                ops_sample(n));
    for (int64_t e = 0; e < elements; e++)
        mask[e] = pt_rng_u32(&rng) >= op->p * 4294967296.0 ? (float)(1 / (1 - op->p)) : 0.0f;
}

void ops_test_dropout(void **state)
{
    const ops_subject *s = *state;
    const ops_case c = {
        "mask",
        6,
        {.kind = PT_OP_DROPOUT, .n_inputs = 1, .in = {{3, {3, 11, 7}}}, .layer = 9, .p = 0.3}};
    const int64_t elements = pt_shape_elements(&c.op.in[0]);
    pt_backend *b = ops_open(s->row, 1);
    ops_data data;
    ops_result result;
    ops_data_new(&c, 1, &data);
    float *y = calloc((size_t)(c.samples * elements), sizeof *y);
    float *dx = calloc((size_t)(c.samples * elements), sizeof *dx);
    assert_non_null(y);
    assert_non_null(dx);
    for (int n = 0; n < c.samples; n++)
        expected_mask(&c.op, n, elements, y + n * elements);
    for (int64_t i = 0; i < c.samples * elements; i++) {
        dx[i] = data.d_out.at[i] * y[i];
        y[i] *= data.in[0].at[i];
    }
    ops_rig *rig = ops_rig_new(b, &c, PT_TRAIN, false);
    ops_rig_run(rig, &data, 0, &result);
    ops_assert_near("out", result.t[0].at, y, c.samples * elements, ops_bound(scale_bound), 0);
    ops_assert_near("gradient", result.t[1].at, dx, c.samples * elements, ops_bound(scale_bound),
                    0);
    free(y);
    free(dx);
    ops_result_free(&result);
    ops_rig_free(rig);
    ops_data_free(&data);
    s->row->close(b);
}
