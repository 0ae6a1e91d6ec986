/* kernels/elementwise.cu */
#include <math.h>
#include <string.h>

#include "cases.h"
#include "kernels/philox.h"
#include "rig.h"
#include "src/backend/cpu.h"
#include "suite.h"

static const int64_t sizes[] = {0, 1, 5, 8, 17, 1030, 8195};
enum { SIZES = sizeof sizes / sizeof *sizes };

static void relu(pt_cu_type type)
{
    for (int i = 0; i < SIZES; i++) {
        vals x = rig_normal(type, sizes[i]), dy = rig_normal(type, sizes[i]);
        static const float odd[] = {NAN, -0.0f, 0.0f, INFINITY, -INFINITY};
        for (int64_t k = 0; k < x.n && k < 5; k++)
            x.host[k] = odd[k];
        x = rig_same(&x);
        vals y = rig_empty(type, x.n), expected = rig_same(&x), slope = rig_same(&dy);
        for (int64_t k = 0; k < x.n; k++) {
            expected.host[k] = x.host[k] <= 0 ? 0 : x.host[k];
            slope.host[k] = expected.host[k] <= 0 ? 0 : dy.host[k];
        }
        launch(pt_cu_relu(NULL, type, x.n, x.dev, y.dev));
        rig_assert_same("relu", &y, expected.host);
        launch(pt_cu_relu_back(NULL, type, x.n, y.dev, dy.dev, dy.dev));
        rig_assert_same("relu's gradient in place", &dy, slope.host);
        launch(pt_cu_relu(NULL, type, x.n, x.dev, x.dev));
        rig_assert_same("relu in place", &x, expected.host);
    }
}

void elementwise_relu(void **state)
{
    (void)state;
    rig_each_type(relu);
}

static void gelu(pt_cu_type type)
{
    for (int i = 0; i < SIZES; i++) {
        vals x = rig_normal(type, sizes[i]), dy = rig_normal(type, sizes[i]);
        vals y = rig_empty(type, x.n), dx = rig_empty(type, x.n);
        double *expected = rig_doubles(x.n), *slope = rig_doubles(x.n);
        for (int64_t k = 0; k < x.n; k++) {
            expected[k] = pt_element_gelu((double)x.host[k]);
            slope[k] = (double)dy.host[k] * pt_element_gelu_slope((double)x.host[k]);
        }
        launch(pt_cu_gelu(NULL, type, x.n, x.dev, y.dev));
        launch(pt_cu_gelu_back(NULL, type, x.n, x.dev, dy.dev, dx.dev));
        rig_assert_near("gelu", &y, expected, rig_bound(type));
        rig_assert_near("gelu's gradient", &dx, slope, rig_bound(type));
    }
}

/* Far to the left gelu is small but not 0: each value keeps its digits. Their number is that of the
 * exponent x²/2 <= 40 in fp32: 40 · 6e-8. */
static void gelu_tail(void)
{
    static const float left[] = {-3.0f, -5.0f, -7.0f, -9.0f};
    vals x = rig_put(PT_CU_FP32, 4, left), y = rig_empty(PT_CU_FP32, 4);
    launch(pt_cu_gelu(NULL, PT_CU_FP32, 4, x.dev, y.dev));
    rig_fetch(&y);
    for (int i = 0; i < 4; i++)
        assert_true(fabs((double)y.host[i] / pt_element_gelu((double)left[i]) - 1) < 1e-5);
}

void elementwise_gelu(void **state)
{
    (void)state;
    rig_each_type(gelu);
    gelu_tail();
}

static void sums(pt_cu_type type)
{
    for (int i = 0; i < SIZES; i++)
        for (int inputs = 1; inputs <= PT_MAX_INPUTS; inputs++) {
            vals x[PT_MAX_INPUTS];
            const void *dev[PT_MAX_INPUTS];
            for (int j = 0; j < inputs; j++) {
                x[j] = rig_normal(type, sizes[i]);
                dev[j] = x[j].dev;
            }
            vals expected = rig_same(&x[0]);
            for (int64_t k = 0; k < expected.n; k++) {
                for (int j = 1; j < inputs; j++)
                    expected.host[k] += x[j].host[k];
                expected.host[k] = rig_round(type, expected.host[k]);
            }
            vals y = inputs % 2 ? rig_empty(type, sizes[i]) : x[1]; /* in place */
            launch(pt_cu_sum(NULL, type, sizes[i], inputs, dev, y.dev));
            rig_assert_same("sum", &y, expected.host);
        }
}

void elementwise_sums(void **state)
{
    (void)state;
    rig_each_type(sums);
    vals x = rig_normal(PT_CU_FP32, 4);
    const void *const dev[] = {x.dev};
    assert_int_equal(pt_cu_sum(NULL, PT_CU_FP32, 4, 0, dev, x.dev), cudaErrorInvalidValue);
    assert_int_equal(pt_cu_sum(NULL, PT_CU_FP32, 4, PT_MAX_INPUTS + 1, dev, x.dev),
                     cudaErrorInvalidValue);
}

/* ---- dropout ----------------------------------------------------------------------------------
 */

void elementwise_philox_is_the_host_s(void **state)
{
    (void)state;
    for (int i = 0; i < 200; i++) {
        uint32_t counter[4], key[2], expected[4];
        for (int k = 0; k < 4; k++)
            counter[k] = pt_rng_u32(&rig_rng);
        key[0] = pt_rng_u32(&rig_rng);
        key[1] = pt_rng_u32(&rig_rng);
        pt_philox(counter, key, expected);
        const pt_element_block block =
            pt_element_philox(counter[0], counter[1], counter[2], counter[3], key[0], key[1]);
        assert_memory_equal(block.at, expected, sizeof expected);
        const uint64_t seed = (uint64_t)key[0] << 32 | key[1];
        const uint64_t a = (uint64_t)counter[0] << 32 | counter[1];
        pt_rng rng;
        pt_rng_init(&rng, seed, PT_RNG_DROPOUT, a, counter[2]);
        pt_rng_block_at(&rng, counter[3], expected);
        const pt_element_stream s = pt_element_stream_of(seed, PT_RNG_DROPOUT, a, counter[2]);
        const pt_element_block at = pt_element_block_at(&s, counter[3]);
        assert_memory_equal(at.at, expected, sizeof expected);
    }
}

/* The CPU's mask on plain CHW rows, brought into NHWC. */
static void expect_dropout(const pt_cu_dropout_spec *spec, const uint32_t *sample, const vals *x,
                           float *expected)
{
    const int64_t area = spec->area, channels = spec->channels, each = area * channels;
    vals plain = rig_empty(PT_CU_FP32, x->n), dropped = rig_empty(PT_CU_FP32, x->n);
    pt_op op = {.kind = PT_OP_DROPOUT, .layer = spec->layer, .p = spec->p};
    op.out = (pt_shape){3, {channels, area, 1}};
    const pt_kernel_args args = {.seed = spec->seed, .epoch = spec->epoch, .dev_sample = sample};
    for (int64_t i = 0; i < x->n; i++)
        plain.host[i / each * each + i % channels * area + i % each / channels] = x->host[i];
    pt_cpu_dropout(&op, (int)spec->samples, &args, plain.host, dropped.host);
    for (int64_t i = 0; i < x->n; i++)
        expected[i] = rig_round(
            x->type, dropped.host[i / each * each + i % channels * area + i % each / channels]);
}

static void dropout(pt_cu_type type)
{
    static const int64_t shapes[][3] = {{3, 25, 6},  {2, 16, 8},   {4, 1, 10},  {3, 1, 12},
                                        {2, 49, 5},  {1, 3, 2},    {2, 2, 3},   {5, 1, 1},
                                        {1, 64, 33}, {1, 1, 5000}, {2, 36, 70}, {0, 4, 4}};
    static const double p[] = {0, 0.3, 0.5, 0.9999999999};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (int k = 0; k < 4; k++) {
            const uint32_t sample[] = {7, 59999, 3, 123456, 0};
            const int64_t *s = shapes[i];
            vals x = rig_normal(type, s[0] * s[1] * s[2]);
            vals y = rig_empty(type, x.n), expected = rig_same(&x);
            const pt_cu_dropout_spec spec = {.samples = s[0],
                                             .area = s[1],
                                             .channels = s[2],
                                             .p = p[k],
                                             .seed = 0x123456789abcull,
                                             .layer = 5,
                                             .epoch = 9,
                                             .sample = rig_bytes(sizeof sample, sample)};
            expect_dropout(&spec, sample, &x, expected.host);
            launch(pt_cu_dropout(NULL, type, &spec, x.dev, y.dev));
            rig_assert_same("dropout", &y, expected.host);
            launch(pt_cu_dropout(NULL, type, &spec, x.dev, x.dev));
            rig_assert_same("dropout in place", &x, expected.host);
        }
}

void elementwise_dropout_has_the_mask_of_cpus(void **state)
{
    (void)state;
    rig_each_type(dropout);
    const pt_cu_dropout_spec all = {.samples = 1, .area = 1, .channels = 4, .p = 1};
    vals x = rig_normal(PT_CU_FP32, 4);
    assert_int_equal(pt_cu_dropout(NULL, PT_CU_FP32, &all, x.dev, x.dev), cudaErrorInvalidValue);
}
