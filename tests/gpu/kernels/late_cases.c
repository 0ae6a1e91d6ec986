/* kernels/late.cu: the bits of the CPU backends. */
#include "cases.h"
#include "rig.h"
#include "src/backend/cpu.h"
#include "suite.h"

static const int64_t sizes[] = {0, 1, 3, 4, 7, 1023, 4099, 9000};
enum { SIZES = sizeof sizes / sizeof *sizes };

static vals squares(int64_t n)
{
    vals v = rig_normal(PT_CU_FP32, n);
    for (int64_t i = 0; i < n; i++)
        v.host[i] *= v.host[i];
    return rig_put(PT_CU_FP32, n, v.host);
}

static void mean_squares(int64_t n)
{
    pt_cpu cpu = {.config = {.threads = 1}};
    pt_error err;
    vals x = rig_normal(PT_CU_FP32, n), average = squares(n), average_ = rig_same(&average);
    launch(pt_cu_mean_squares(NULL, (size_t)n, 0.97f, 0.03f, x.dev, average.dev));
    assert_ok(pt_cpu_mean_squares(&cpu.base, (size_t)n, 0.97f, 0.03f, x.host, average_.host, &err),
              &err);
    rig_assert_same("mean of squares", &average, average_.host);
}

void late_mean_squares_has_the_bits_of_cpus(void **state)
{
    (void)state;
    for (int i = 0; i < SIZES; i++)
        for (int shift = 0; shift < 2; shift++) {
            rig_shift = shift;
            mean_squares(sizes[i]);
        }
}

static void gap(int64_t n, bool accumulate, bool in_place)
{
    pt_cpu cpu = {.config = {.threads = 1}};
    pt_error err;
    const pt_gap rule = {.top = 0.3f, .unbias = 7, .least = 1e-3f, .accumulate = accumulate};
    vals forward = rig_normal(PT_CU_FP32, n), theta = rig_normal(PT_CU_FP32, n);
    vals average = squares(n), own = rig_normal(PT_CU_FP32, n);
    vals apart = rig_normal(PT_CU_FP32, n), *gradient = in_place ? &own : &apart;
    vals own_ = rig_same(&own), apart_ = rig_same(&apart);
    launch(pt_cu_gap(NULL, (size_t)n, &rule, forward.dev, theta.dev, average.dev, own.dev,
                     gradient->dev));
    assert_ok(pt_cpu_gap(&cpu.base, (size_t)n, &rule, forward.host, theta.host, average.host,
                         own_.host, in_place ? own_.host : apart_.host, &err),
              &err);
    rig_assert_same("gap", gradient, in_place ? own_.host : apart_.host);
}

void late_gap_has_the_bits_of_cpus(void **state)
{
    (void)state;
    for (int i = 0; i < SIZES; i++)
        for (int shift = 0; shift < 2; shift++) {
            rig_shift = shift;
            gap(sizes[i], /*accumulate=*/false, /*in_place=*/false);
            gap(sizes[i], /*accumulate=*/false, /*in_place=*/true);
            gap(sizes[i], /*accumulate=*/true, /*in_place=*/false);
        }
}

static void look_back(int64_t n)
{
    pt_cpu cpu = {.config = {.threads = 1}};
    pt_error err;
    const pt_look_back rule = {.keep = 0.7f, .rest = 0.3f, .delay = 2.9f};
    vals theta = rig_normal(PT_CU_FP32, n), drift = rig_normal(PT_CU_FP32, n);
    vals back = rig_normal(PT_CU_FP32, n), drift_ = rig_same(&drift), back_ = rig_same(&back);
    launch(pt_cu_look_back(NULL, (size_t)n, &rule, theta.dev, drift.dev, back.dev));
    assert_ok(
        pt_cpu_look_back(&cpu.base, (size_t)n, &rule, theta.host, drift_.host, back_.host, &err),
        &err);
    rig_assert_same("drift", &drift, drift_.host);
    rig_assert_same("weights of before", &back, back_.host);
}

void late_look_back_has_the_bits_of_cpus(void **state)
{
    (void)state;
    for (int i = 0; i < SIZES; i++)
        for (int shift = 0; shift < 2; shift++) {
            rig_shift = shift;
            look_back(sizes[i]);
        }
}
