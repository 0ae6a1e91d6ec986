/* What weights remember: kept, given to other weights, and gone on from with the same bits. */
#include <stdlib.h>
#include <string.h>

#include "suite.h"
#include "weights_rig.h"

enum { BEFORE = 3, BEHIND = 4, MOST_ELEMENTS = 64 };

typedef struct rule {
    const char *what, *predictor;
    void (*set)(pt_weights_spec *spec);
    const char *names[PT_MOST_MEMORIES + 1];
} rule;

static void adam(pt_weights_spec *spec)
{
    spec->optimizer =
        (pt_optimizer_spec){.name = "adamw", .beta1 = 0.9, .beta2 = 0.99, .eps = 1e-8};
}

static void two_versions(pt_weights_spec *spec)
{
    spec->two_versions = true;
}

static void gap_aware(pt_weights_spec *spec)
{
    spec->gap_aware = true;
    spec->per_step = 1;
    /* The highest rate so far counts: here it is long past. */
    spec->lr = (pt_lr_spec){.schedule = "milestones",
                            .base = 0.25,
                            .factor = 0.5,
                            .milestones = {1},
                            .n_milestones = 1};
}

static void corrected(pt_weights_spec *spec)
{
    spec->correction.delay = 2;
    spec->correction.decay = 0.25;
}

static void plain(pt_weights_spec *spec)
{
    (void)spec;
}

static const rule rules[] = {
    {"sgd", "none", plain, {"momentum_buffer"}},
    {"msnag", "msnag", plain, {"momentum_buffer"}},
    {"adam", "msnag", adam, {"exp_avg", "exp_avg_sq"}},
    {"two versions", "none", two_versions, {"momentum_buffer", "previous"}},
    {"gap-aware", "none", gap_aware, {"momentum_buffer", "mean_squares"}},
    {"corrected", "none", corrected, {"momentum_buffer", "drift", "look_back"}},
};

enum { RULES = sizeof rules / sizeof *rules };

static void begin(weights_rig *f, const rule *r)
{
    weights_begin(f, r->predictor, /*stash=*/false, /*training=*/true);
    r->set(&f->spec);
    weights_again(f);
}

static void update(weights_rig *f, float value)
{
    pt_error err = {PT_OK, ""};
    float *gradient = calloc(f->flat.param_elements, sizeof *gradient);
    assert_non_null(gradient);
    for (int p = 0; p < f->flat.n_params; p++) /* what lies between them is nobody's */
        for (int64_t i = 0; i < f->flat.params[p].shape.elements; i++)
            gradient[f->flat.params[p].offset + (size_t)i] = value + (float)i;
    assert_ok(f->b->row->upload(f->b, pt_weights_gradient(f->w), gradient,
                                f->flat.param_elements * sizeof *gradient, &err),
              &err);
    pt_weight_set forward = weights_forward(f, 1);
    assert_ok(pt_weights_take_gradient(f->w, &forward, /*accumulate=*/false, &err), &err);
    pt_weights_release(f->w, &forward);
    assert_ok(pt_weights_update(f->w, /*scale=*/1, &err), &err);
    free(gradient);
}

/* Everything that is kept, from one to the other. */
static void hand_over(weights_rig *from, weights_rig *to, int memories)
{
    pt_error err = {PT_OK, ""};
    float data[MOST_ELEMENTS];
    for (int i = 0; i < from->flat.n_params; i++) {
        assert_true(from->flat.params[i].shape.elements <= MOST_ELEMENTS);
        assert_ok(pt_weights_get_param(from->w, i, data, &err), &err);
        assert_ok(pt_weights_set_param(to->w, i, data, &err), &err);
        for (int k = 0; k < memories; k++) {
            assert_ok(pt_weights_get_memory(from->w, k, i, data, &err), &err);
            assert_ok(pt_weights_set_memory(to->w, k, i, data, &err), &err);
        }
    }
}

static void assert_same_bytes(const weights_rig *a, const float *dev_a, const weights_rig *b,
                              const float *dev_b)
{
    float *bytes = weights_bytes_of(a, dev_a);
    assert_holds(b, dev_b, bytes);
    free(bytes);
}

static void assert_same_reads(weights_rig *a, weights_rig *b)
{
    for (int staleness = 0; staleness < 2; staleness++) {
        pt_weight_set one = weights_forward(a, staleness), other = weights_forward(b, staleness);
        assert_same_bytes(a, one.dev_params, b, other.dev_params);
        assert_int_equal(one.version, other.version);
        pt_weight_set back = pt_weights_for_backward(a->w, &one);
        pt_weight_set back_too = pt_weights_for_backward(b->w, &other);
        assert_same_bytes(a, back.dev_params, b, back_too.dev_params);
        pt_weights_release(a->w, &one);
        pt_weights_release(b->w, &other);
    }
}

static void test_goes_on_with_the_same_bits(void **state)
{
    (void)state;
    for (int r = 0; r < RULES; r++) {
        weights_rig straight, resumed;
        const char *names[PT_MOST_MEMORIES];
        begin(&straight, &rules[r]);
        begin(&resumed, &rules[r]);
        update(&resumed, 9); /* what it has in it before must not matter */
        for (int i = 0; i < BEFORE; i++)
            update(&straight, (float)(i + 1));
        hand_over(&straight, &resumed, pt_weights_memories(&straight.spec, names));
        pt_weights_resume(resumed.w, BEFORE);
        assert_int_equal(pt_weights_updates(resumed.w), BEFORE);
        for (int i = 0; i < BEHIND; i++) {
            assert_true(pt_weights_lr(straight.w) == pt_weights_lr(resumed.w));
            assert_same_reads(&straight, &resumed);
            update(&straight, (float)(5 - i));
            update(&resumed, (float)(5 - i));
        }
        assert_same_reads(&straight, &resumed);
        weights_end(&straight);
        weights_end(&resumed);
    }
}

static void test_names(void **state)
{
    (void)state;
    for (int r = 0; r < RULES; r++) {
        weights_rig f;
        const char *names[PT_MOST_MEMORIES];
        begin(&f, &rules[r]);
        int n = pt_weights_memories(&f.spec, names);
        for (int i = 0; i < n; i++) {
            assert_non_null(rules[r].names[i]);
            assert_string_equal(names[i], rules[r].names[i]);
        }
        assert_null(rules[r].names[n]);
        f.spec.training = false;
        assert_int_equal(pt_weights_memories(&f.spec, names), 0);
        f.spec.training = true;
        weights_end(&f);
    }
}

/* A content has one number: what was handed over is not mistaken for what was there. */
static void test_contents_are_new(void **state)
{
    (void)state;
    weights_rig f;
    begin(&f, &rules[5]);
    update(&f, 1);
    pt_weight_set before = weights_forward(&f, 1);
    pt_weight_set back = pt_weights_for_backward(f.w, &before);
    pt_weights_resume(f.w, 7);
    pt_weight_set now = weights_forward(&f, 1);
    pt_weight_set back_now = pt_weights_for_backward(f.w, &now);
    assert_true(now.content > before.content && now.content > back.content);
    assert_true(back_now.content > back.content && back_now.content != now.content);
    pt_weights_resume(f.w, 0); /* no way back from the beginning */
    now = weights_forward(&f, 1);
    assert_same_set(pt_weights_for_backward(f.w, &now), pt_weights_now(f.w));
    weights_end(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_goes_on_with_the_same_bits),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_contents_are_new),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
