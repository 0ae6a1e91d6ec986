/* Learning rates and predictors against formulas and plain loops. */
#include <math.h>
#include <string.h>

#include "learn_rig.h"
#include "suite.h"

/* Of a formula written twice in double. */
static const double DOUBLE_TOLERANCE = 1e-12;
/* Coefficients are handed over in float: 2^-24 relative, of values below 4. */
static const double COEFFICIENT_TOLERANCE = 4.0 / (1 << 23);
/* ---- learning rates ---------------------------------------------------------------------------
 */

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

/* η/4^(1 - t/10), then η; the warm-up below it stays. */
static void test_late_stages_begin_slowly(void **state)
{
    (void)state;
    pt_lr_spec lr = {
        .schedule = "constant", .base = 0.6, .warmup = 3, .total = 50, .delay = 4, .fade = 10};
    for (int64_t t = 0; t < 20; t++) {
        double power = t < 10 ? 1 - (double)t / 10 : 0, rate = t < 3 ? 0.2 * (double)(t + 1) : 0.6;
        assert_near(pt_lr_at(&lr, t), rate / pow(4, power), DOUBLE_TOLERANCE, "late", t);
    }
    assert_near(pt_lr_at(&lr, 5), 0.3, DOUBLE_TOLERANCE, "half of the way", 5);
    lr.delay = 0.75; /* nobody is sped up */
    assert_near(pt_lr_at(&lr, 5), 0.6, DOUBLE_TOLERANCE, "less than one update late", 5);
    lr.delay = 4;
    lr.first_late = 7; /* nothing was late before */
    for (int64_t t = 3; t < 20; t++) {
        double power = t >= 7 && t < 17 ? 1 - (double)(t - 7) / 10 : 0;
        assert_near(pt_lr_at(&lr, t), 0.6 / pow(4, power), DOUBLE_TOLERANCE, "late from 7 on", t);
    }
    lr.first_late = 0;
    lr.fade = 0;
    assert_near(pt_lr_at(&lr, 5), 0.6, DOUBLE_TOLERANCE, "no fade", 5);
}

static void test_cosine_of_nothing_but_warmup(void **state)
{
    (void)state;
    pt_lr_spec lr = {.schedule = "cosine", .base = 1, .warmup = 4, .total = 4};
    assert_near(pt_lr_at(&lr, 3), 1, DOUBLE_TOLERANCE, "last step of warm-up", 3);
    assert_true(isfinite(pt_lr_at(&lr, 4)));
}

/* ---- predictors -------------------------------------------------------------------------------
 */

static const pt_lr_spec unit_rate = {.schedule = "constant", .base = 1};

static pt_optimizer_spec sgd_of(double momentum, double decay)
{
    return (pt_optimizer_spec){.name = "sgd", .momentum = momentum, .decay = decay};
}

static pt_optimizer_spec adam_of(const char *name, double decay)
{
    return (pt_optimizer_spec){
        .name = name, .decay = decay, .beta1 = 0.8, .beta2 = 0.95, .eps = 1e-3};
}

static void test_msnag_has_a_closed_form(void **state)
{
    (void)state;
    static const double known[] = {0, 0.9, 1.71, 2.439, 3.0951, 3.68559};
    pt_optimizer_spec sgd = sgd_of(0.9, 0);
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
            pt_optimizer_spec optimizer = sgd_of(gamma, 0);
            double want = -eta * (gamma - pow(gamma, n + 1)) / (1 - gamma);
            pt_prediction c = msnag->predict(&optimizer, &lr, 0, n);
            assert_near((double)c.a, 1, 0, "a of msnag", n);
            assert_near((double)c.b, want, COEFFICIENT_TOLERANCE, "b of msnag", n);
        }
}

/* One weight through n steps without a gradient, word for word: t steps are done, v of Adam stays
 * as it is, and so does its correction, but for FTPipe's. */
static double walk(const char *predictor, const pt_optimizer_spec *spec, const pt_lr_spec *lr,
                   int64_t t, int n, double theta, const double *moments)
{
    bool moves_on = strcmp(predictor, "msnag-ftpipe") == 0;
    double m = moments[0], v = moments[1];
    for (int i = 1; i <= n; i++) {
        double eta = pt_lr_at(lr, t + i - 1);
        if (strcmp(spec->name, "sgd") == 0) {
            m = spec->momentum * m + spec->decay * theta;
            theta -= eta * m;
            continue;
        }
        double below = sqrt(v) / sqrt(1 - pow(spec->beta2, (double)(t + moves_on * i))) + spec->eps;
        if (strcmp(spec->name, "adamw") == 0) {
            theta *= 1 - eta * spec->decay;
            m *= spec->beta1;
        } else {
            m = spec->beta1 * m + (1 - spec->beta1) * spec->decay * theta;
        }
        theta -= eta * m / (1 - pow(spec->beta1, (double)t + i)) / below;
    }
    return theta;
}

static void check_prediction(const char *predictor, const pt_optimizer_spec *spec,
                             const pt_lr_spec *lr, int64_t t, int n)
{
    pt_error err = {PT_OK, ""};
    pt_backend *b = open_ref();
    pt_optimizer_buffers at = {.n = N, .theta = vector_new(b)};
    float start[N], moments[2][N], *dev_out = vector_new(b);
    double want[N];
    pt_rng rng;
    pt_rng_init(&rng, /*seed=*/6, PT_RNG_CHECK, 0, 0);
    random_vector(&rng, start);
    put(b, at.theta, start);
    for (int i = 0; i < 2; i++) {
        at.state[i] = vector_new(b);
        random_vector(&rng, moments[i]);
        for (int e = 0; e < N; e++) /* the mean of squares */
            moments[i][e] = i == 0 ? moments[i][e] : 0.1f + moments[i][e] * moments[i][e];
        put(b, at.state[i], moments[i]);
    }
    for (int e = 0; e < N; e++)
        want[e] = walk(predictor, spec, lr, t, n, (double)start[e],
                       (double[]){(double)moments[0][e], (double)moments[1][e]});
    pt_prediction c = pt_predictor_find(predictor)->predict(spec, lr, t, n);
    assert_ok(pt_optimizer_find(spec->name)->foresee(b, spec, t, &at, &c, dev_out, &err), &err);
    check_vector(b, dev_out, want, spec->name, t * 100 + n);
    b->row->dev_free(b, at.theta);
    b->row->dev_free(b, at.state[0]);
    b->row->dev_free(b, at.state[1]);
    b->row->dev_free(b, dev_out);
    b->row->close(b);
}

static void test_msnag_is_steps_without_gradients(void **state)
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
    const pt_optimizer_spec specs[] = {sgd_of(0.9, 0),      sgd_of(0.9, 0.02),
                                       adam_of("adam", 0),  adam_of("adam", 0.05),
                                       adam_of("adamw", 0), adam_of("adamw", 0.05)};
    for (size_t k = 0; k < sizeof specs / sizeof specs[0]; k++)
        for (size_t i = 0; i < sizeof rates / sizeof rates[0]; i++)
            for (int64_t t = 1; t < 8; t++)
                for (int n = 0; n <= 7; n++) {
                    check_prediction("msnag", &specs[k], &rates[i], t, n);
                    if (strcmp(specs[k].name, "sgd") != 0)
                        check_prediction("msnag-ftpipe", &specs[k], &rates[i], t, n);
                }
}

/* m and v are 0, and so is what 1-β2^0 would divide by. */
static void test_adam_foresees_before_its_first_step(void **state)
{
    (void)state;
    static const char *const names[] = {"adam", "adamw"};
    static const char *const predictors[] = {"msnag", "msnag-ftpipe"};
    pt_lr_spec lr = {.schedule = "constant", .base = 0.5};
    for (int i = 0; i < 4; i++) {
        int k = i / 2;
        pt_error err = {PT_OK, ""};
        pt_backend *b = open_ref();
        pt_optimizer_spec spec = adam_of(names[k], 0.1);
        pt_optimizer_buffers at = {.n = N, .theta = vector_new(b)};
        at.state[0] = vector_new(b);
        at.state[1] = vector_new(b);
        float start[N], *dev_out = vector_new(b);
        double want[N];
        for (int e = 0; e < N; e++) {
            start[e] = 0.25f * (float)e - 2;
            want[e] = (double)start[e] * (k == 0 ? 1 : 0.95 * 0.95 * 0.95); /* 1 - ηλ */
        }
        put(b, at.theta, start);
        pt_prediction c = pt_predictor_find(predictors[i % 2])->predict(&spec, &lr, 0, 3);
        assert_ok(pt_optimizer_find(names[k])->foresee(b, &spec, 0, &at, &c, dev_out, &err), &err);
        check_vector(b, dev_out, want, names[k], 0);
        b->row->dev_free(b, at.theta);
        b->row->dev_free(b, at.state[0]);
        b->row->dev_free(b, at.state[1]);
        b->row->dev_free(b, dev_out);
        b->row->close(b);
    }
}

/* A rate that drops within the steps foreseen matters. */
static void test_predictors_foresee_the_rate(void **state)
{
    (void)state;
    pt_optimizer_spec sgd = sgd_of(0.5, 0);
    pt_lr_spec lr = {
        .schedule = "milestones", .base = 1, .factor = 0.25, .milestones = {11}, .n_milestones = 1};
    pt_prediction c = pt_predictor_find("msnag")->predict(&sgd, &lr, /*step=*/10, /*staleness=*/2);
    assert_near((double)c.b, -(0.5 + 0.25 * 0.25), COEFFICIENT_TOLERANCE, "b of msnag", 10);
    c = pt_predictor_find("spectrain")->predict(&sgd, &lr, /*step=*/10, /*staleness=*/3);
    assert_near((double)c.b, -(1 + 2 * 0.25), COEFFICIENT_TOLERANCE, "b of spectrain", 10);
}

/* n·η·v, whatever the momentum and the decay. */
static void test_spectrain_is_linear(void **state)
{
    (void)state;
    pt_lr_spec lr = {.schedule = "constant", .base = 0.3};
    for (int n = 0; n < 9; n++) {
        pt_optimizer_spec sgd = sgd_of(0.1 * n, 0.2);
        pt_prediction c = pt_predictor_find("spectrain")->predict(&sgd, &lr, 3, n);
        assert_near((double)c.a, 1, 0, "a of spectrain", n);
        assert_near((double)c.b, -0.3 * n, COEFFICIENT_TOLERANCE, "b of spectrain", n);
        assert_int_equal(c.rates.n, 0);
    }
}

static void test_none_predicts_nothing(void **state)
{
    (void)state;
    pt_optimizer_spec sgd = sgd_of(0.9, 0.1);
    for (int n = 0; n < 5; n++) {
        pt_prediction c = pt_predictor_find("none")->predict(&sgd, &unit_rate, 3, n);
        assert_near((double)c.a, 1, 0, "a of none", n);
        assert_near((double)c.b, 0, 0, "b of none", n);
    }
}

static void test_what_predictors_accept(void **state)
{
    (void)state;
    enum { OPTIMIZERS = 5 };
    static const char *const optimizers[] = {"sgd", "nesterov", "adam", "adamw", "nadam-async"};
    static const struct {
        const char *name;
        const char *refusal[OPTIMIZERS]; /* what to write instead; NULL: accepted */
    } rows[] = {
        {"none", {NULL, NULL, NULL, NULL, NULL}},
        {"msnag",
         {NULL, "--optimizer sgd, or --predict none", NULL, NULL,
          "--predict none, or --optimizer adamw"}},
        {"aggmsnag",
         {NULL, "--predict aggmsnag cannot be used with --optimizer nesterov", NULL, NULL,
          "--predict none, or --optimizer adamw"}},
        {"msnag-ftpipe",
         {"--optimizer adam or adamw, or --predict msnag",
          "--optimizer adam or adamw, or --predict none", NULL, NULL,
          "--optimizer adam or adamw, or --predict none"}},
        {"spectrain",
         {NULL, "--optimizer sgd, or --predict none", "--optimizer sgd, or --predict msnag",
          "--optimizer sgd, or --predict msnag", "--optimizer sgd, or --predict none"}},
    };
    pt_error err = {PT_OK, ""};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        for (int k = 0; k < OPTIMIZERS; k++) {
            const pt_predictor_row *row = pt_predictor_find(rows[i].name);
            pt_optimizer_spec spec = {.name = optimizers[k], .decay = 0.1};
            if (rows[i].refusal[k])
                assert_fails(row->accepts(row, &spec, 3, &err), PT_EINPUT, rows[i].refusal[k],
                             &err);
            else
                assert_ok(row->accepts(row, &spec, 3, &err), &err);
        }
    assert_null(pt_predictor_find("oracle"));
    const char *const *names = pt_predictor_names();
    for (int i = 0; names[i]; i++)
        assert_string_equal(pt_predictor_find(names[i])->name, names[i]);
}

/* The loop of coupled decay has room for so many rates, and uses them all. */
static void test_adam_with_decay_foresees_so_far(void **state)
{
    (void)state;
    pt_error err = {PT_OK, ""};
    const pt_predictor_row *msnag = pt_predictor_find("msnag");
    pt_optimizer_spec spec = adam_of("adam", 0.1);
    assert_ok(msnag->accepts(msnag, &spec, PT_MOST_RATES, &err), &err);
    assert_int_equal(msnag->predict(&spec, &unit_rate, 1, PT_MOST_RATES).rates.n, PT_MOST_RATES);
    assert_fails(msnag->accepts(msnag, &spec, PT_MOST_RATES + 1, &err), PT_EINPUT, "adamw", &err);
    spec.decay = 0;
    assert_ok(msnag->accepts(msnag, &spec, PT_MOST_RATES + 1, &err), &err);
    spec = adam_of("adamw", 0.1);
    assert_ok(msnag->accepts(msnag, &spec, PT_MOST_RATES + 1, &err), &err);
    const pt_predictor_row *ftpipe = pt_predictor_find("msnag-ftpipe");
    assert_ok(ftpipe->accepts(ftpipe, &spec, PT_MOST_RATES, &err), &err);
    assert_fails(ftpipe->accepts(ftpipe, &spec, PT_MOST_RATES + 1, &err), PT_EINPUT,
                 "--predict msnag or", &err);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_constant),
        cmocka_unit_test(test_warmup),
        cmocka_unit_test(test_milestones),
        cmocka_unit_test(test_cosine),
        cmocka_unit_test(test_cosine_of_nothing_but_warmup),
        cmocka_unit_test(test_late_stages_begin_slowly),
        cmocka_unit_test(test_msnag_has_a_closed_form),
        cmocka_unit_test(test_msnag_is_steps_without_gradients),
        cmocka_unit_test(test_adam_foresees_before_its_first_step),
        cmocka_unit_test(test_predictors_foresee_the_rate),
        cmocka_unit_test(test_spectrain_is_linear),
        cmocka_unit_test(test_none_predicts_nothing),
        cmocka_unit_test(test_what_predictors_accept),
        cmocka_unit_test(test_adam_with_decay_foresees_so_far),
    };
    return cmocka_run_group_tests_name("learn", tests, NULL, NULL);
}
