/* Tiny ops with answers that PyTorch 1.13 gave: what makes ref an oracle and not just consistent.
 *
 * Element i of input k (0, 1, 2) and of parameter k - 8 (8: weight, 9: bias) is
 * (7·i + 3·k) mod 11 - 5: small integers, so that most answers are exact. */
#include <string.h>

#include "ops_rig.h"
#include "ops_tests.h"
#include "suite.h"

/* Whole numbers come out exactly; the rest are a few fp32 roundings away, and GELU near zero is
 * what cancellation leaves in PyTorch's own fp32. */
static const double known_bound = 2e-6;

enum { MOST_OUT = 32 };

typedef struct known {
    ops_case c;
    float out[MOST_OUT];
} known;

/* clang-format off */
static const known table[] = {
    {{"conv2d", 2, {.kind = PT_OP_CONV2D, .n_inputs = 1, .in = {{3, {4, 4, 3}}}, .features = 4,
                    .kernel = {3, 2}, .stride = {2, 1}, .padding = {1, 0}, .groups = 2,
                    .bias = true}},
     {2, 28, -18, 38, 5, 16, -11, 6, 33, 7, 7, -15, -49, -2, 13, -48,
      29, -33, 41, 9, 16, 16, -86, -3, 6, -31, -48, 73, 7, 43, 0, -83}},
    {{"linear", 3, {.kind = PT_OP_LINEAR, .n_inputs = 1, .in = {{1, {5}}}, .features = 2,
                    .bias = true}},
     {6, -18, 50, 2, 6, 55}},
    {{"batch-norm", 2, {.kind = PT_OP_BATCH_NORM, .n_inputs = 1, .in = {{3, {2, 1, 3}}},
                        .eps = 1e-5, .momentum = 0.1}},
     {3.9256773f, -2.66946054f, 1.09918976f, 1.85539758f, -2.82892036f, -7.51323843f,
      -4.5537858f, -0.785135448f, 2.98351479f, -0.486761451f, -5.17107964f, -9.85539722f}},
    {{"relu", 1, {.kind = PT_OP_RELU, .n_inputs = 1, .in = {{1, {7}}}}}, {0, 2, 0, 5, 1, 0, 4}},
    {{"gelu", 1, {.kind = PT_OP_GELU, .n_inputs = 1, .in = {{1, {7}}}}},
     {-1.49011612e-06f, 1.95449996f, -0.0455000997f, 4.99999857f, 0.841344714f, -0.00404986739f,
      3.99987316f}},
    {{"max-pool", 1, {.kind = PT_OP_MAX_POOL, .n_inputs = 1, .in = {{3, {2, 4, 5}}},
                      .kernel = {3, 2}, .stride = {2, 2}, .padding = {1, 1}}},
     {-3, 4, 5, 1, 4, 5, 5, 1, 4, 5, 5, 4}},
    {{"avg-pool", 1, {.kind = PT_OP_AVG_POOL, .n_inputs = 1, .in = {{3, {2, 4, 5}}},
                      .kernel = {3, 2}, .stride = {2, 2}, .padding = {1, 1}}},
     {-1.33333337f, 0.666666687f, 0.833333313f, -0.5f, 0.333333343f, -0.333333343f, 1.33333337f,
      -1.33333337f, 0.666666687f, -0.166666672f, 1, 0.333333343f}},
    {{"global-avg-pool", 2, {.kind = PT_OP_GLOBAL_AVG_POOL, .n_inputs = 1,
                             .in = {{3, {2, 2, 3}}}}},
     {-0.333333343f, -0.5f, 1.16666663f, -0.833333313f}},
    {{"flatten", 1, {.kind = PT_OP_FLATTEN, .n_inputs = 1, .in = {{3, {2, 2, 2}}}}},
     {-5, 2, -2, 5, 1, -3, 4, 0}},
    {{"add", 2, {.kind = PT_OP_ADD, .n_inputs = 3, .in = {{1, {3}}, {1, {3}}, {1, {3}}}}},
     {-6, 4, 3, 2, 1, 0}},
    {{"concat", 2, {.kind = PT_OP_CONCAT, .n_inputs = 2, .in = {{3, {2, 1, 2}}, {3, {1, 1, 2}}}}},
     {-5, 2, -2, 5, -2, 5, 1, -3, 4, 0, 1, -3}},
};
/* clang-format on */

static void fill(ops_tensor *t, int k)
{
    for (int64_t i = 0; i < t->n; i++)
        t->at[i] = (float)((i * 7 + k * 3) % 11 - 5);
}

void ops_test_known(void **state)
{
    const ops_subject *s = *state;
    pt_backend *b = ops_open(s->row, 1);
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        ops_data data;
        ops_data_new(&table[i].c, 1, &data);
        for (int j = 0; j < table[i].c.op.n_inputs; j++)
            fill(&data.in[j], j);
        for (int j = 0; j < PT_MAX_PARAMS; j++)
            fill(&data.param[j], 8 + j);
        ops_rig *rig = ops_rig_new(b, &table[i].c, PT_TRAIN, false);
        const ops_tensor *out = ops_rig_forward(rig, &data, 0);
        assert_in_range(out->n, 1, MOST_OUT);
        ops_assert_near(table[i].c.name, out->at, table[i].out, out->n, ops_bound(known_bound), 0);
        ops_rig_free(rig);
        ops_data_free(&data);
    }
    s->row->close(b);
}
