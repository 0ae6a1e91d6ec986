/* kernels/loss.cu against the CPU's losses. */
#include <math.h>
#include <string.h>

#include "cases.h"
#include "rig.h"
#include "src/backend/cpu.h"
#include "suite.h"

/* Both sum in double, in different orders; exp and log differ in the last digit. */
static const double sum_bound = 1e-13;

/* Runs both on the same predictions and compares; returns the device's result. */
static pt_loss_result compare(const pt_loss *loss, int samples, vals *y, const int32_t *label,
                              vals *target, bool in_place)
{
    const int64_t width = pt_shape_elements(&loss->shape);
    const float scale = 1.0f / 37;
    vals dy = in_place ? *y : rig_empty(y->type, y->n);
    vals expected = rig_empty(PT_CU_FP32, y->n);
    pt_loss_result cpu = {-1, -1}, got[2];
    const pt_loss_args args = {.samples = samples,
                               .dev_label = label,
                               .dev_target = target ? target->host : NULL,
                               .scale = scale,
                               .host_result = &cpu};
    pt_cpu_loss(loss, &args, y->host, expected.host);
    const int32_t *dev_label = rig_bytes((size_t)samples * sizeof *label, label);
    void *partials = rig_bytes(pt_cu_loss_bytes(samples), NULL);
    pt_loss_result *result = rig_bytes(sizeof *result, NULL);
    for (int i = 0; i < 2; i++) { /* without the gradient, and with */
        launch(pt_cu_loss(NULL, y->type, loss, samples, y->dev, dev_label,
                          target ? target->dev : NULL, scale, i ? dy.dev : NULL, result, partials));
        rig_fetch_bytes(&got[i], result, sizeof got[i]);
    }
    assert_memory_equal(&got[0], &got[1], sizeof got[0]);
    assert_int_equal(got[0].correct, cpu.correct);
    if (isnan(cpu.loss))
        assert_true(isnan(got[0].loss));
    else
        assert_true(fabs(got[0].loss - cpu.loss) <= sum_bound * fabs(cpu.loss));
    double *wanted = rig_doubles(y->n);
    for (int64_t i = 0; i < samples * width; i++)
        wanted[i] = (double)expected.host[i];
    if (!isnan(cpu.loss))
        rig_assert_near("the gradient of the loss", &dy, wanted, rig_bound(y->type));
    return got[0];
}

static void cross_entropy(pt_cu_type type)
{
    static const int64_t sizes[][2] = {{5, 7}, {1, 1}, {300, 10}, {2, 1000}, {3, 257}, {0, 4}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (int k = 0; k < 4; k++) {
            int32_t label[300];
            const int samples = (int)sizes[i][0];
            const pt_loss loss = {PT_LOSS_CROSS_ENTROPY, k & 1 ? 0.1 : 0, {1, {sizes[i][1]}}};
            vals y = rig_normal(type, samples * sizes[i][1]);
            for (int n = 0; n < samples; n++)
                label[n] = (int32_t)pt_rng_below(&rig_rng, (uint32_t)sizes[i][1]);
            compare(&loss, samples, &y, label, NULL, k & 2);
        }
}

void loss_cross_entropy(void **state)
{
    (void)state;
    rig_each_type(cross_entropy);
}

static void mean_square(pt_cu_type type)
{
    static const int64_t sizes[][2] = {{5, 7}, {1, 1}, {270, 3}, {2, 1000}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        static const int32_t label[270];
        const int samples = (int)sizes[i][0];
        const pt_loss loss = {PT_LOSS_MSE, 0, {1, {sizes[i][1]}}};
        vals y = rig_normal(type, samples * sizes[i][1]);
        vals target = rig_normal(PT_CU_FP32, y.n);
        compare(&loss, samples, &y, label, &target, false);
    }
}

void loss_mean_square(void **state)
{
    (void)state;
    rig_each_type(mean_square);
}

/* Equals, NaNs in front and behind, infinities: whose label counts as hit? */
void loss_first_largest(void **state)
{
    (void)state;
    static const struct {
        float y[5];
        int32_t label;
        int correct;
    } rows[] = {{{1, 3, 3, 0, 3}, 1, 1},       {{1, 3, 3, 0, 3}, 2, 0},
                {{0, 0, 0, 0, 0}, 0, 1},       {{NAN, 9, 9, 9, 9}, 0, 1},
                {{NAN, 9, 9, 9, 9}, 1, 0},     {{1, NAN, 2, NAN, 0}, 2, 1},
                {{-9, -8, -7, -6, -5}, 4, 1},  {{-INFINITY, NAN, -INFINITY, NAN, NAN}, 0, 1},
                {{2, 1, INFINITY, 0, 1}, 2, 1}};
    const pt_loss loss = {PT_LOSS_CROSS_ENTROPY, 0, {1, {5}}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        vals y = rig_put(PT_CU_FP32, 5, rows[i].y);
        const pt_loss_result r = compare(&loss, 1, &y, &rows[i].label, NULL, false);
        assert_int_equal(r.correct, rows[i].correct);
    }
}
