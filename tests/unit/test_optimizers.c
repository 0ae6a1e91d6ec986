/* Optimizers against PyTorch's numbers and plain loops in double. */
#include <math.h>
#include <string.h>

#include "learn_rig.h"
#include "suite.h"

static void buffers_new(pt_backend *b, const pt_optimizer_row *row, pt_optimizer_buffers *ret_at)
{
    *ret_at = (pt_optimizer_buffers){.n = N, .theta = vector_new(b), .gradient = vector_new(b)};
    for (int i = 0; i < row->state_buffers; i++)
        ret_at->state[i] = vector_new(b);
}

static void buffers_free(pt_backend *b, pt_optimizer_buffers *at)
{
    b->row->dev_free(b, at->theta);
    b->row->dev_free(b, (void *)(uintptr_t)at->gradient);
    for (int i = 0; i < PT_MOST_STATE_BUFFERS; i++)
        b->row->dev_free(b, at->state[i]);
}

static void put_gradient(pt_backend *b, const pt_optimizer_buffers *at, const float *g)
{
    put(b, (float *)(uintptr_t)at->gradient, g);
}

/* ---- formulas ---------------------------------------------------------------------------------
 */

typedef struct reference {
    double theta[N], state[2][N];
} reference;

static void sgd_reference(const pt_optimizer_spec *spec, double lr, double g, int i, reference *r)
{
    double d = g + spec->decay * r->theta[i], *v = &r->state[0][i];
    *v = spec->momentum * *v + d;
    r->theta[i] -= lr * (strcmp(spec->name, "nesterov") == 0 ? d + spec->momentum * *v : *v);
}

/* Kingma & Ba's algorithm 1 with the corrected means written out, ε beside the root. */
static void adam_reference(const pt_optimizer_spec *spec, int64_t t, double lr, double g, int i,
                           reference *r)
{
    double *m = &r->state[0][i], *v = &r->state[1][i];
    if (strcmp(spec->name, "adamw") == 0)
        r->theta[i] -= lr * spec->decay * r->theta[i];
    else
        g += spec->decay * r->theta[i];
    *m = spec->beta1 * *m + (1 - spec->beta1) * g;
    *v = spec->beta2 * *v + (1 - spec->beta2) * g * g;
    double mean = *m / (1 - pow(spec->beta1, (double)t)),
           square = *v / (1 - pow(spec->beta2, (double)t));
    r->theta[i] -= lr * mean / (sqrt(square) + spec->eps);
}

/* PyTorch's NAdam with AdamW's decay; μ_i is made anew each time. */
static void nadam_reference(const pt_optimizer_spec *spec, int64_t t, double lr, double g, int i,
                            reference *r)
{
    double *m = &r->state[0][i], *v = &r->state[1][i], product = 1, mu = 0;
    for (int64_t k = 1; k <= t; k++) {
        mu = spec->beta1 * (1 - 0.5 * pow(0.96, (double)k * 0.004));
        product *= mu;
    }
    double next = spec->beta1 * (1 - 0.5 * pow(0.96, (double)(t + 1) * 0.004));
    r->theta[i] -= lr * spec->decay * r->theta[i];
    *m = spec->beta1 * *m + (1 - spec->beta1) * g;
    *v = spec->beta2 * *v + (1 - spec->beta2) * g * g;
    double below = sqrt(*v / (1 - pow(spec->beta2, (double)t))) + spec->eps;
    r->theta[i] -= lr * (1 - mu) / (1 - product) * g / below;
    r->theta[i] -= lr * next / (1 - product * next) * *m / below;
}

/* Twenty steps with changing gradients, rate and clip scale. */
static void check_optimizer(const pt_optimizer_spec *spec)
{
    static const char *const state_names[] = {"first state", "second state"};
    pt_error err = {PT_OK, ""};
    pt_backend *b = open_ref();
    const pt_optimizer_row *row = pt_optimizer_find(spec->name);
    pt_optimizer_buffers at;
    float start[N], g[N];
    reference want = {.theta = {0}};
    pt_rng rng;
    pt_rng_init(&rng, /*seed=*/5, PT_RNG_CHECK, 0, 0);
    buffers_new(b, row, &at);
    random_vector(&rng, start);
    put(b, at.theta, start);
    for (int i = 0; i < N; i++)
        want.theta[i] = (double)start[i];
    for (int64_t t = 0; t < 20; t++) {
        double lr = 0.05 / (double)(1 + t), scale = t % 3 ? 1 : 0.25;
        random_vector(&rng, g);
        put_gradient(b, &at, g);
        for (int i = 0; i < N; i++)
            if (strcmp(spec->name, "nadam-async") == 0)
                nadam_reference(spec, t + 1, lr, scale * (double)g[i], i, &want);
            else if (row->state_buffers == 2)
                adam_reference(spec, t + 1, lr, scale * (double)g[i], i, &want);
            else
                sgd_reference(spec, lr, scale * (double)g[i], i, &want);
        assert_ok(row->step(b, spec, t, lr, scale, &at, NULL, NULL, &err), &err);
        check_vector(b, at.theta, want.theta, spec->name, t);
        for (int i = 0; i < row->state_buffers; i++)
            check_vector(b, at.state[i], want.state[i], state_names[i], t);
    }
    buffers_free(b, &at);
    b->row->close(b);
}

static void test_formulas(void **state)
{
    (void)state;
    static const double first[] = {0, 0.5, 0.9}, decays[] = {0, 0.1};
    const char *const *names = pt_optimizer_names();
    int checked = 0;
    for (int i = 0; names[i]; i++)
        for (int k = 0; k < 3; k++)
            for (int d = 0; d < 2; d++, checked++)
                check_optimizer(&(pt_optimizer_spec){.name = names[i],
                                                     .decay = decays[d],
                                                     .momentum = first[k],
                                                     .beta1 = first[k],
                                                     .beta2 = 0.95,
                                                     .eps = 1e-3});
    assert_int_equal(checked, 30);
}

/* ---- PyTorch ----------------------------------------------------------------------------------
 */

/* torch 1.13.1 in float64: Adam, AdamW and NAdam (foreach=True, as its documentation has it: the
 * other path multiplies one μ twice) with betas=(0.8, 0.95), eps=1e-3, five steps. Before
 * each of NAdam's the weights were multiplied by 1 - lr·decay. */
static void test_adam_has_pytorch_s_numbers(void **state)
{
    (void)state;
    enum { STEPS = 5, WEIGHTS = 4 };
    static const float start[N] = {0.5f, -1.25f, 0.0f, 2.0f};
    static const float g[STEPS][N] = {{0.3f, -0.7f, 0.01f, -2.0f},
                                      {-0.1f, -0.2f, 0.02f, 1.5f},
                                      {0.4f, 0.9f, -0.04f, 0.25f},
                                      {0.0f, -0.6f, 0.0f, -1.0f},
                                      {0.25f, 0.1f, 0.3f, 0.5f}};
    static const struct {
        const char *name;
        double decay, lr, want[N];
    } rows[] = {
        {"adam", 0, 0.05, {0.336254332302, -1.153141774687, -0.098482130581, 2.062523897492}},
        {"adam", 0.1, 0.05, {0.316800580362, -1.124449843576, -0.081264202300, 2.033553025498}},
        {"adamw", 0.1, 0.05, {0.325617209753, -1.123770236506, -0.097072658244, 2.011975027382}},
        {"nadam-async",
         0,
         0.05,
         {0.363102336853, -1.192961991972, -0.119628092696, 2.032282344492}},
        {"nadam-async",
         0.1,
         0.05,
         {0.352143513225, -1.163119961566, -0.118400028001, 1.982074965219}},
        {"nadam-async", 0, 1, {-2.237953262937, -0.109239839435, -2.392561853912, 2.645646889838}},
        {"adamw", 0, 0.05, {0.336254332302, -1.153141774687, -0.098482130581, 2.062523897492}},
    };
    for (size_t k = 0; k < sizeof rows / sizeof rows[0]; k++) {
        pt_error err = {PT_OK, ""};
        pt_backend *b = open_ref();
        const pt_optimizer_row *row = pt_optimizer_find(rows[k].name);
        pt_optimizer_spec spec = {
            .name = rows[k].name, .decay = rows[k].decay, .beta1 = 0.8, .beta2 = 0.95, .eps = 1e-3};
        pt_optimizer_buffers at;
        buffers_new(b, row, &at);
        put(b, at.theta, start);
        for (int t = 0; t < STEPS; t++) {
            put_gradient(b, &at, g[t]);
            assert_ok(row->step(b, &spec, t, rows[k].lr, /*scale=*/1, &at, NULL, NULL, &err), &err);
        }
        check_vector(b, at.theta, rows[k].want, rows[k].name, WEIGHTS);
        buffers_free(b, &at);
        b->row->close(b);
    }
}

/* ---- foresight --------------------------------------------------------------------------------
 */

/* What a step foresees in its own pass has the bits of a pass that does nothing else. */
static void check_foresight(const pt_optimizer_spec *spec)
{
    pt_error err = {PT_OK, ""};
    pt_backend *b = open_ref();
    const pt_optimizer_row *row = pt_optimizer_find(spec->name);
    pt_lr_spec lr = {.schedule = "constant", .base = 0.07};
    pt_optimizer_buffers at;
    float start[N], g[N], together[N], alone[N], *dev_out = vector_new(b);
    pt_rng rng;
    pt_rng_init(&rng, /*seed=*/8, PT_RNG_CHECK, 0, 0);
    buffers_new(b, row, &at);
    random_vector(&rng, start);
    put(b, at.theta, start);
    for (int t = 0; t < 6; t++) {
        pt_prediction c = row->drift(spec, &lr, t + 1, 1 + t % 4);
        random_vector(&rng, g);
        put_gradient(b, &at, g);
        assert_ok(row->step(b, spec, t, lr.base, /*scale=*/1, &at, &c, dev_out, &err), &err);
        assert_ok(b->row->download(b, together, dev_out, sizeof together, &err), &err);
        assert_ok(row->foresee(b, spec, t + 1, &at, &c, dev_out, &err), &err);
        assert_ok(b->row->download(b, alone, dev_out, sizeof alone, &err), &err);
        assert_memory_equal(together, alone, sizeof alone);
        assert_ok(b->row->download(b, alone, at.theta, sizeof alone, &err), &err);
        assert_memory_not_equal(together, alone, sizeof alone);
    }
    b->row->dev_free(b, dev_out);
    buffers_free(b, &at);
    b->row->close(b);
}

static void test_steps_foresee(void **state)
{
    (void)state;
    const char *const *names = pt_optimizer_names();
    int checked = 0;
    for (int i = 0; names[i]; i++)
        for (int d = 0; d < 2 && pt_optimizer_find(names[i])->drift; d++, checked++)
            check_foresight(&(pt_optimizer_spec){.name = names[i],
                                                 .decay = d * 0.1,
                                                 .momentum = 0.9,
                                                 .beta1 = 0.9,
                                                 .beta2 = 0.99,
                                                 .eps = 1e-8});
    assert_int_equal(checked, 6);
}

static void test_names(void **state)
{
    (void)state;
    char text[128];
    const char *const *names = pt_optimizer_names();
    for (int i = 0; names[i]; i++)
        assert_string_equal(pt_optimizer_find(names[i])->name, names[i]);
    assert_null(pt_optimizer_find("adam?"));
    pt_optimizer_spec spec = {.name = "nesterov", .momentum = 0.75, .decay = 0.5, .beta1 = 0.25};
    pt_optimizer_describe(&spec, text, sizeof text);
    assert_string_equal(text, "momentum 0.75, weight decay 0.5");
    spec = (pt_optimizer_spec){.name = "adam", .beta1 = 0.9, .beta2 = 0.99, .eps = 1e-6};
    pt_optimizer_describe(&spec, text, sizeof text);
    assert_string_equal(text, "betas 0.9 and 0.99, eps 1e-06, weight decay 0");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_formulas),
        cmocka_unit_test(test_adam_has_pytorch_s_numbers),
        cmocka_unit_test(test_steps_foresee),
        cmocka_unit_test(test_names),
    };
    return cmocka_run_group_tests_name("optimizers", tests, NULL, NULL);
}
