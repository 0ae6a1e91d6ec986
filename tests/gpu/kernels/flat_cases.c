/* kernels/flat.cu: the bits of the CPU backends. */
#include <math.h>

#include "cases.h"
#include "rig.h"
#include "src/backend/cpu.h"
#include "suite.h"

static const int64_t sizes[] = {0, 1, 3, 4, 7, 1023, 4099, 9000};
enum { SIZES = sizeof sizes / sizeof *sizes };

/* A double sum of n squares in another order. */
static const double sum_bound = 1e-13;

static void axpby(int64_t n, bool in_place)
{
    pt_cpu cpu = {.config = {.threads = 1}};
    pt_error err;
    vals x = rig_normal(PT_CU_FP32, n), y = rig_normal(PT_CU_FP32, n);
    vals blend = in_place ? x : rig_empty(PT_CU_FP32, n), expected = rig_empty(PT_CU_FP32, n);
    assert_ok(pt_cpu_axpby(&cpu.base, (size_t)n, 0.3f, x.host, -1.7f, y.host, expected.host, &err),
              &err);
    launch(pt_cu_axpby(NULL, (size_t)n, 0.3f, x.dev, -1.7f, y.dev, blend.dev));
    rig_assert_same("axpby", &blend, expected.host);
}

void flat_has_the_bits_of_cpus(void **state)
{
    (void)state;
    for (int i = 0; i < SIZES; i++)
        for (int shift = 0; shift < 2; shift++) {
            rig_shift = shift;
            axpby(sizes[i], false);
            axpby(sizes[i], true);
        }
}

/* What a pass makes of a foresight. */
typedef enum foresees { NOT, WITH_THE_STEP, APART, WAYS } foresees;

static void sgd(int64_t n, const pt_sgd *rule, bool has_velocity, foresees how)
{
    pt_cpu cpu = {.config = {.threads = 1}};
    pt_error err;
    vals theta = rig_normal(PT_CU_FP32, n), v = rig_normal(PT_CU_FP32, n);
    vals g = rig_normal(PT_CU_FP32, n), ahead = rig_empty(PT_CU_FP32, n);
    vals theta_ = rig_same(&theta), v_ = rig_same(&v), ahead_ = rig_empty(PT_CU_FP32, n);
    const pt_foresight foresight = {1.0f, -0.37f, ahead.dev, how == APART};
    const pt_foresight foresight_ = {1.0f, -0.37f, ahead_.host, how == APART};
    launch(pt_cu_sgd(NULL, (size_t)n, rule, theta.dev, has_velocity ? v.dev : NULL, g.dev,
                     how ? &foresight : NULL));
    assert_ok(pt_cpu_sgd(&cpu.base, (size_t)n, rule, theta_.host, has_velocity ? v_.host : NULL,
                         g.host, how ? &foresight_ : NULL, &err),
              &err);
    rig_assert_same("weights", &theta, theta_.host);
    rig_assert_same("velocity", &v, v_.host);
    rig_assert_same("foresight", &ahead, ahead_.host);
}

void flat_sgd_has_the_bits_of_cpus(void **state)
{
    (void)state;
    const pt_sgd plain = {0.1f, 0.0f, 5e-4f, 0.7f, false}, momentum = {0.1f, 0.9f, 5e-4f, 1, false};
    const pt_sgd nesterov = {0.03f, 0.9f, 1e-4f, 0.5f, true};
    for (int i = 0; i < SIZES; i++)
        for (int shift = 0; shift < 2; shift++)
            for (int how = NOT; how < WAYS; how++) {
                rig_shift = shift;
                sgd(sizes[i], &plain, false, (foresees)how);
                sgd(sizes[i], &momentum, true, (foresees)how);
                sgd(sizes[i], &nesterov, true, (foresees)how);
            }
}

static void adam(int64_t n, const pt_adam *rule, bool steps, const pt_adam_foresight *wanted)
{
    pt_cpu cpu = {.config = {.threads = 1}};
    pt_error err;
    vals theta = rig_normal(PT_CU_FP32, n), m = rig_normal(PT_CU_FP32, n);
    vals g = rig_normal(PT_CU_FP32, n), v = rig_normal(PT_CU_FP32, n);
    for (int64_t i = 0; i < n; i++) /* a mean of squares */
        v.host[i] *= v.host[i];
    v = rig_put(PT_CU_FP32, n, v.host);
    vals ahead = rig_empty(PT_CU_FP32, n), ahead_ = rig_empty(PT_CU_FP32, n);
    vals theta_ = rig_same(&theta), m_ = rig_same(&m), v_ = rig_same(&v);
    pt_adam_foresight foresight, foresight_;
    if (wanted) {
        foresight = foresight_ = *wanted;
        foresight.dev_out = ahead.dev;
        foresight_.dev_out = ahead_.host;
    }
    launch(pt_cu_adam(NULL, (size_t)n, rule, theta.dev, m.dev, v.dev, steps ? g.dev : NULL,
                      wanted ? &foresight : NULL));
    assert_ok(pt_cpu_adam(&cpu.base, (size_t)n, rule, theta_.host, m_.host, v_.host,
                          steps ? g.host : NULL, wanted ? &foresight_ : NULL, &err),
              &err);
    rig_assert_same("weights", &theta, theta_.host);
    rig_assert_same("mean", &m, m_.host);
    rig_assert_same("mean of squares", &v, v_.host);
    rig_assert_same("foresight", &ahead, ahead_.host);
}

void flat_adam_has_the_bits_of_cpus(void **state)
{
    (void)state;
    const pt_adam coupled = {.rate = 0.03f,
                             .root = 1.3f,
                             .keep = 1,
                             .beta1 = 0.9f,
                             .beta2 = 0.97f,
                             .rest1 = 0.1f,
                             .rest2 = 0.03f,
                             .eps = 1e-3f,
                             .decay = 0.01f,
                             .scale = 0.7f};
    pt_adam decoupled = coupled;
    decoupled.keep = 0.9997f;
    decoupled.decay = 0;
    decoupled.now = 0.02f;
    const pt_adam_foresight straight = {.a = 0.999f, .b = -0.11f};
    const pt_adam_foresight looped = {
        .rates = {3, {0.04f, 0.03f, 0.02f}, {1.3f, 1.2f, 1.1f}, {1, 0.99f, 0.97f}}};
    pt_adam_foresight straight_apart = straight, looped_apart = looped;
    straight_apart.apart = looped_apart.apart = true;
    for (int i = 0; i < SIZES; i++)
        for (int shift = 0; shift < 2; shift++)
            for (int steps = 0; steps < 2; steps++) {
                rig_shift = shift;
                adam(sizes[i], &decoupled, steps, &straight);
                adam(sizes[i], &coupled, steps, &looped);
                adam(sizes[i], &decoupled, steps, &straight_apart);
                adam(sizes[i], &coupled, steps, &looped_apart);
                adam(sizes[i], &coupled, steps, NULL);
            }
}

void flat_sum_of_squares(void **state)
{
    (void)state;
    static const int64_t lengths[] = {0, 1, 255, 2049, 100000};
    void *partials = rig_bytes(pt_cu_squares_bytes(), NULL);
    void *sum = rig_bytes(sizeof(double), NULL);
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        vals x = rig_normal(PT_CU_FP32, lengths[i]);
        double expected = 0, got[2];
        for (int64_t k = 0; k < x.n; k++)
            expected += (double)x.host[k] * (double)x.host[k];
        for (int k = 0; k < 2; k++) {
            launch(pt_cu_sum_of_squares(NULL, (size_t)x.n, x.dev, partials, sum));
            rig_fetch_bytes(&got[k], sum, sizeof(double));
        }
        assert_memory_equal(&got[0], &got[1], sizeof(double));
        assert_true(fabs(got[0] - expected) <= sum_bound * expected);
    }
}

void flat_refuses_momentum_without_velocity(void **state)
{
    (void)state;
    const pt_sgd rule = {.lr = 0.1f, .momentum = 0.9f};
    vals x = rig_normal(PT_CU_FP32, 4);
    assert_int_equal(pt_cu_sgd(NULL, 4, &rule, x.dev, NULL, x.dev, NULL), cudaErrorInvalidValue);
}
