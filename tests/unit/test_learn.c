/* Learning rates, optimizers and predictors against formulas and plain loops. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "backend_row.h"
#include "suite.h"

#include "pipetrain/learn.h"
#include "pipetrain/rng.h"

/* Of a formula written twice in double. */
static const double DOUBLE_TOLERANCE = 1e-12;
/* Coefficients are handed over in float: 2^-24 relative, of values below 4. */
static const double COEFFICIENT_TOLERANCE = 4.0 / (1 << 23);
/* A few float roundings (6e-8 each) a step, values below 4, at most 20 steps. */
static const double FLOAT_TOLERANCE = 2e-5;

enum { N = 37 }; /* elements of a vector */

/* ---- learning rates ---------------------------------------------------------------------------
 */

static void assert_near(double got, double want, double tolerance, const char *what, int64_t at)
{
    if (!(fabs(got - want) <= tolerance))
        fail_msg("%s at %lld: %.17g, not %.17g", what, (long long)at, got, want);
}

static void test_constant(void **state)
{
    (void)state;
    pt_lr_spec lr = {.schedule = "constant", .base = 0.3, .total = 100};
    for (int64_t t = 0; t < 100; t++)
        assert_near(pt_lr_at(&lr, t), 0.3, 0, "constant rate", t);
}

static void test_warmup(void **state)
{
    (void)state;
    const char *const *names = pt_lr_names();
    for (int i = 0; names[i]; i++) {
        pt_lr_spec lr = {.schedule = names[i], .base = 0.5, .warmup = 8, .total = 50, .factor = 2};
        for (int64_t t = 0; t < 8; t++)
            assert_near(pt_lr_at(&lr, t), 0.5 * (double)(t + 1) / 8, DOUBLE_TOLERANCE, names[i], t);
        assert_near(pt_lr_at(&lr, 8), 0.5, DOUBLE_TOLERANCE, names[i], 8);
    }
}

static void test_milestones(void **state)
{
    (void)state;
    pt_lr_spec lr = {.schedule = "milestones",
                     .base = 0.1,
                     .warmup = 2,
                     .total = 100,
                     .factor = 0.2,
                     .milestones = {10, 20, 50},
                     .n_milestones = 3};
    static const struct {
        int64_t step;
        double factor;
    } rows[] = {{2, 1},     {9, 1},     {10, 0.2},   {19, 0.2},
                {20, 0.04}, {49, 0.04}, {50, 0.008}, {1000, 0.008}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        assert_near(pt_lr_at(&lr, rows[i].step), 0.1 * rows[i].factor, DOUBLE_TOLERANCE,
                    "milestones", rows[i].step);
}

static void test_cosine(void **state)
{
    (void)state;
    pt_lr_spec lr = {.schedule = "cosine", .base = 0.4, .warmup = 5, .total = 105, .floor = 0.1};
    const double pi = acos(-1.0);
    for (int64_t t = 5; t <= 105; t++) {
        double u = (double)(t - 5) / 100;
        assert_near(pt_lr_at(&lr, t), 0.4 * (0.1 + 0.9 * (1 + cos(pi * u)) / 2), DOUBLE_TOLERANCE,
                    "cosine", t);
    }
    assert_near(pt_lr_at(&lr, 55), 0.4 * 0.55, DOUBLE_TOLERANCE, "middle of cosine", 55);
    assert_near(pt_lr_at(&lr, 105), 0.04, DOUBLE_TOLERANCE, "end of cosine", 105);
    /* A predictor looks beyond the end. */
    assert_near(pt_lr_at(&lr, 120), 0.04, DOUBLE_TOLERANCE, "cosine", 120);
}

static void test_cosine_of_nothing_but_warmup(void **state)
{
    (void)state;
    pt_lr_spec lr = {.schedule = "cosine", .base = 1, .warmup = 4, .total = 4};
    assert_near(pt_lr_at(&lr, 3), 1, DOUBLE_TOLERANCE, "last step of warm-up", 3);
    assert_true(isfinite(pt_lr_at(&lr, 4)));
}

/* ---- optimizers -------------------------------------------------------------------------------
 */

static pt_backend *open_ref(void)
{
    pt_error err = {PT_OK, ""};
    pt_backend_config config = {.threads = 1};
    pt_backend *b = NULL;
    assert_ok(backend_row("ref")->open(&config, &b, &err), &err);
    return b;
}

static float *vector_new(pt_backend *b)
{
    pt_error err = {PT_OK, ""};
    void *dev = NULL;
    assert_ok(b->row->dev_new(b, N * sizeof(float), &dev, &err), &err);
    return dev;
}

static void put(pt_backend *b, float *dev, const float *src)
{
    pt_error err = {PT_OK, ""};
    assert_ok(b->row->upload(b, dev, src, N * sizeof(float), &err), &err);
}

static void check_vector(pt_backend *b, const float *dev, const double *want, const char *what,
                         int64_t step)
{
    pt_error err = {PT_OK, ""};
    float got[N];
    assert_ok(b->row->download(b, got, dev, sizeof got, &err), &err);
    for (int i = 0; i < N; i++)
        assert_near((double)got[i], want[i], FLOAT_TOLERANCE, what, step);
}

static void random_vector(pt_rng *rng, float *at)
{
    for (int i = 0; i < N; i++)
        at[i] = pt_rng_normal(rng) / 2;
}

/* Twenty steps with changing gradients, rate and clip scale against a loop in double. */
static void check_optimizer(const pt_optimizer_spec *spec)
{
    pt_error err = {PT_OK, ""};
    pt_backend *b = open_ref();
    const pt_optimizer_row *row = pt_optimizer_find(spec->name);
    bool nesterov = strcmp(spec->name, "nesterov") == 0;
    float *dev_theta = vector_new(b), *dev_v = vector_new(b), *dev_g = vector_new(b);
    float start[N], g[N];
    double theta[N], v[N] = {0};
    pt_rng rng;
    pt_rng_init(&rng, /*seed=*/5, PT_RNG_CHECK, 0, 0);
    random_vector(&rng, start);
    put(b, dev_theta, start);
    for (int i = 0; i < N; i++)
        theta[i] = (double)start[i];
    assert_int_equal(row->state_buffers, 1);
    for (int64_t step = 0; step < 20; step++) {
        double lr = 0.05 / (double)(1 + step), scale = step % 3 ? 1 : 0.25;
        random_vector(&rng, g);
        put(b, dev_g, g);
        for (int i = 0; i < N; i++) {
            double d = scale * (double)g[i] + spec->decay * theta[i];
            v[i] = spec->momentum * v[i] + d;
            theta[i] -= lr * (nesterov ? d + spec->momentum * v[i] : v[i]);
        }
        assert_ok(
            row->step(b, spec, lr, scale, N, dev_theta, (float *[]){dev_v}, dev_g, NULL, &err),
            &err);
        check_vector(b, dev_theta, theta, spec->name, step);
        check_vector(b, dev_v, v, "velocity", step);
    }
    b->row->dev_free(b, dev_theta);
    b->row->dev_free(b, dev_v);
    b->row->dev_free(b, dev_g);
    b->row->close(b);
}

static void test_optimizers(void **state)
{
    (void)state;
    const char *const *names = pt_optimizer_names();
    int checked = 0;
    for (int i = 0; names[i]; i++) {
        static const double momenta[] = {0, 0.5, 0.9}, decays[] = {0, 0.1};
        assert_string_equal(pt_optimizer_find(names[i])->name, names[i]);
        for (int m = 0; m < 3; m++)
            for (int d = 0; d < 2; d++, checked++)
                check_optimizer(&(pt_optimizer_spec){names[i], momenta[m], decays[d]});
    }
    assert_int_equal(checked, 12);
    assert_null(pt_optimizer_find("adam?"));
}

/* ---- predictors -------------------------------------------------------------------------------
 */

static const pt_lr_spec unit_rate = {.schedule = "constant", .base = 1};

static void test_msnag_has_a_closed_form(void **state)
{
    (void)state;
    static const double known[] = {0, 0.9, 1.71, 2.439, 3.0951, 3.68559};
    pt_optimizer_spec sgd = {"sgd", 0.9, 0};
    const pt_predictor_row *msnag = pt_predictor_find("msnag");
    for (int n = 0; n <= 5; n++) {
        pt_prediction c = msnag->predict(&sgd, &unit_rate, /*step=*/7, n);
        assert_near((double)c.a, 1, 0, "a of msnag", n);
        assert_near(-(double)c.b, known[n], COEFFICIENT_TOLERANCE, "known b of msnag", n);
    }
    static const double momenta[] = {0.1, 0.5, 0.9, 0.99};
    for (int m = 0; m < 4; m++)
        for (int n = 0; n <= 12; n++) {
            double gamma = momenta[m], eta = 0.05;
            pt_lr_spec lr = {.schedule = "constant", .base = eta};
            pt_optimizer_spec optimizer = {"sgd", gamma, 0};
            double want = -eta * (gamma - pow(gamma, n + 1)) / (1 - gamma);
            pt_prediction c = msnag->predict(&optimizer, &lr, 0, n);
            assert_near((double)c.a, 1, 0, "a of msnag", n);
            assert_near((double)c.b, want, COEFFICIENT_TOLERANCE, "b of msnag", n);
        }
}

/* The momentum steps that will come, on the vectors themselves: gradients are zero, the decay and
 * the rates of the steps to come are not. */
static void check_prediction(const pt_lr_spec *lr, int64_t step, int staleness)
{
    pt_error err = {PT_OK, ""};
    pt_backend *b = open_ref();
    pt_optimizer_spec sgd = {"sgd", 0.9, 0.02};
    float *dev_theta = vector_new(b), *dev_v = vector_new(b), *dev_out = vector_new(b);
    float start[N], velocity[N];
    double theta[N], v[N];
    pt_rng rng;
    pt_rng_init(&rng, /*seed=*/6, PT_RNG_CHECK, 0, 0);
    random_vector(&rng, start);
    random_vector(&rng, velocity);
    put(b, dev_theta, start);
    put(b, dev_v, velocity);
    for (int i = 0; i < N; i++) {
        theta[i] = (double)start[i];
        v[i] = (double)velocity[i];
        for (int n = 0; n < staleness; n++) {
            v[i] = 0.9 * v[i] + 0.02 * theta[i];
            theta[i] -= pt_lr_at(lr, step + n) * v[i];
        }
    }
    pt_prediction c = pt_predictor_find("msnag")->predict(&sgd, lr, step, staleness);
    assert_ok(b->row->axpby(b, N, c.a, dev_theta, c.b, dev_v, dev_out, &err), &err);
    check_vector(b, dev_out, theta, lr->schedule, step * 100 + staleness);
    b->row->dev_free(b, dev_theta);
    b->row->dev_free(b, dev_v);
    b->row->dev_free(b, dev_out);
    b->row->close(b);
}

static void test_msnag_with_decay_and_changing_rates(void **state)
{
    (void)state;
    const pt_lr_spec rates[] = {
        {.schedule = "constant", .base = 0.1},
        {.schedule = "constant", .base = 0.1, .warmup = 6},
        {.schedule = "milestones",
         .base = 0.2,
         .factor = 0.1,
         .milestones = {3, 5},
         .n_milestones = 2},
        {.schedule = "cosine", .base = 0.3, .total = 9},
    };
    for (size_t i = 0; i < sizeof rates / sizeof rates[0]; i++)
        for (int64_t step = 0; step < 8; step++)
            for (int n = 0; n <= 7; n++)
                check_prediction(&rates[i], step, n);
}

/* A rate that drops within the steps foreseen matters. */
static void test_msnag_foresees_the_rate(void **state)
{
    (void)state;
    pt_optimizer_spec sgd = {"sgd", 0.5, 0};
    pt_lr_spec lr = {
        .schedule = "milestones", .base = 1, .factor = 0.25, .milestones = {11}, .n_milestones = 1};
    pt_prediction c = pt_predictor_find("msnag")->predict(&sgd, &lr, /*step=*/10, /*staleness=*/2);
    assert_near((double)c.b, -(0.5 + 0.25 * 0.25), COEFFICIENT_TOLERANCE, "b", 10);
}

static void test_none_predicts_nothing(void **state)
{
    (void)state;
    pt_optimizer_spec sgd = {"sgd", 0.9, 0.1};
    for (int n = 0; n < 5; n++) {
        pt_prediction c = pt_predictor_find("none")->predict(&sgd, &unit_rate, 3, n);
        assert_near((double)c.a, 1, 0, "a of none", n);
        assert_near((double)c.b, 0, 0, "b of none", n);
    }
}

static void test_what_predictors_accept(void **state)
{
    (void)state;
    pt_error err = {PT_OK, ""};
    pt_optimizer_spec sgd = {"sgd", 0.9, 0}, nesterov = {"nesterov", 0.9, 0};
    const pt_predictor_row *msnag = pt_predictor_find("msnag"), *none = pt_predictor_find("none");
    assert_ok(msnag->accepts(&sgd, &err), &err);
    assert_ok(none->accepts(&sgd, &err), &err);
    assert_ok(none->accepts(&nesterov, &err), &err);
    assert_fails(msnag->accepts(&nesterov, &err), PT_EINPUT, "nesterov", &err);
    assert_null(pt_predictor_find("oracle"));
    const char *const *names = pt_predictor_names();
    for (int i = 0; names[i]; i++)
        assert_string_equal(pt_predictor_find(names[i])->name, names[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_constant),
        cmocka_unit_test(test_warmup),
        cmocka_unit_test(test_milestones),
        cmocka_unit_test(test_cosine),
        cmocka_unit_test(test_cosine_of_nothing_but_warmup),
        cmocka_unit_test(test_optimizers),
        cmocka_unit_test(test_msnag_has_a_closed_form),
        cmocka_unit_test(test_msnag_with_decay_and_changing_rates),
        cmocka_unit_test(test_msnag_foresees_the_rate),
        cmocka_unit_test(test_none_predicts_nothing),
        cmocka_unit_test(test_what_predictors_accept),
    };
    return cmocka_run_group_tests_name("learn", tests, NULL, NULL);
}
