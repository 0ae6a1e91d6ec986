/* Gap-aware: what is left of a late gradient. Its numbers over whole runs are
 * tests/train/test_async.py's, as those of the rules beside it. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "suite.h"
#include "weights_rig.h"

static void begin_gap_aware(weights_rig *f, int per_step)
{
    weights_begin(f, "none", /*stash=*/false, /*training=*/true);
    f->spec.gap_aware = true;
    f->spec.per_step = per_step;
    weights_again(f);
}

static void fill(weights_rig *f, float *dev, float value)
{
    pt_error err = {PT_OK, ""};
    float *host = malloc(f->flat.param_elements * sizeof *host);
    assert_non_null(host);
    for (size_t i = 0; i < f->flat.param_elements; i++)
        host[i] = value;
    assert_ok(f->b->row->upload(f->b, dev, host, f->flat.param_elements * sizeof *host, &err),
              &err);
    free(host);
}

/* The backward of a micro-batch whose every gradient is 1. */
static void backward(weights_rig *f, const pt_weight_set *forward, bool accumulate)
{
    pt_error err = {PT_OK, ""};
    pt_gradient_place place = pt_weights_gradient_place(f->w, forward, accumulate);
    float *was = weights_bytes_of(f, place.dev);
    fill(f, place.dev, place.accumulate ? was[0] + 1 : 1);
    assert_ok(pt_weights_take_gradient(f->w, forward, accumulate, &err), &err);
    pt_weights_release(f->w, forward);
    free(was);
}

static void assert_gradient(const weights_rig *f, double want)
{
    float *got = weights_bytes_of(f, pt_weights_gradient(f->w));
    for (size_t i = 0; i < f->flat.param_elements; i++)
        if (!(fabs((double)got[i] - want) < 1e-6 * want))
            fail_msg("gradient %zu: %.9g, not %.9g", i, (double)got[i], want);
    free(got);
}

/* Rate 0.25, momentum 0.5: after two updates by gradients of 1 the weights have gone 0.25·(1
 * + 1.5), and a typical step is 0.25·√((0.999·1² + 1.5²)/1.999). */
static void test_a_gap_divides(void **state)
{
    (void)state;
    for (int per_step = 1; per_step <= 2; per_step++) {
        weights_rig f;
        begin_gap_aware(&f, per_step);
        pt_weight_set two = weights_forward(&f, 2), late[2];
        weights_update(&f);
        late[0] = weights_forward(&f, 1);
        late[1] = weights_forward(&f, 1);
        weights_update(&f);
        double typical = sqrt((0.999 * 1 + 2.25) / 1.999) + 1e-8;
        double of_one = 1 / (1 + 1.5 / typical), of_two = 1 / (1 + 2.5 / typical);
        backward(&f, &two, /*accumulate=*/false);
        assert_gradient(&f, of_two);
        backward(&f, &late[0], /*accumulate=*/false); /* forgets that */
        assert_gradient(&f, of_one);
        if (per_step == 2) {
            backward(&f, &late[1], /*accumulate=*/true);
            assert_gradient(&f, 2 * of_one);
        }
        pt_weight_set newest = weights_forward(&f, 0); /* nothing late is divided */
        backward(&f, &newest, /*accumulate=*/per_step == 2);
        assert_gradient(&f, per_step == 2 ? 1 + 2 * of_one : 1);
        weights_end(&f);
    }
}

/* The highest rate counts: that of the step to come, or one before. */
static void test_the_highest_rate_measures(void **state)
{
    (void)state;
    for (int rises = 0; rises < 2; rises++) {
        weights_rig f;
        begin_gap_aware(&f, /*per_step=*/1);
        f.spec.lr = (pt_lr_spec){.schedule = "milestones",
                                 .base = 0.25,
                                 .factor = rises ? 4 : 0.5,
                                 .milestones = {1},
                                 .n_milestones = 1};
        weights_again(&f);
        pt_weight_set late = weights_forward(&f, 1);
        weights_update(&f); /* by 0.25·1 */
        backward(&f, &late, /*accumulate=*/false);
        assert_gradient(&f, 1 / (1 + 0.25 / (rises ? 1.0 : 0.25)));
        weights_end(&f);
    }
}

static void test_a_rate_of_0_has_no_gap(void **state)
{
    (void)state;
    weights_rig f;
    begin_gap_aware(&f, /*per_step=*/1);
    f.spec.lr = (pt_lr_spec){.schedule = "constant", .base = 0};
    weights_again(&f);
    pt_weight_set late = weights_forward(&f, 1);
    weights_update(&f);
    backward(&f, &late, /*accumulate=*/false);
    assert_gradient(&f, 1);
    weights_end(&f);
}

/* Backwards read the newest weights, or with stash those of their forward, gap-aware or not. */
static void test_what_gap_aware_backwards_read(void **state)
{
    (void)state;
    for (int stash = 0; stash < 2; stash++) {
        weights_rig f;
        begin_gap_aware(&f, /*per_step=*/1);
        f.spec.stash = stash;
        weights_again(&f);
        pt_weight_set late = weights_forward(&f, 1);
        assert_true(late.stash_slot >= 0);
        weights_update(&f);
        pt_weight_set now = pt_weights_now(f.w);
        assert_same_set(pt_weights_for_backward(f.w, &late), stash ? late : now);
        weights_end(&f);
    }
}

static void test_gap_aware_bytes(void **state)
{
    (void)state;
    for (int i = 0; i < 8; i++) {
        weights_rig f;
        weights_begin(&f, i & 1 ? "msnag" : "none", /*stash=*/i & 2, /*training=*/true);
        size_t plain = pt_weights_bytes(&f.spec), one = f.flat.param_elements * sizeof(float);
        size_t versions = i & 2 ? 0 : (size_t)f.spec.versions - (i & 1); /* not predicted apart */
        f.spec.gap_aware = true;
        f.spec.per_step = i & 4 ? 2 : 1;
        weights_again(&f);
        assert_int_equal(weights_bytes_now(f.b) - f.before, pt_weights_bytes(&f.spec));
        assert_int_equal(pt_weights_bytes(&f.spec), plain + one * (versions + (i & 4 ? 2 : 1)));
        weights_end(&f);
    }
}

/* The mean of squares and the highest rate of a first run would show in the second. */
static void test_restart_forgets_the_gap(void **state)
{
    (void)state;
    weights_rig f;
    begin_gap_aware(&f, /*per_step=*/1);
    f.spec.lr = (pt_lr_spec){
        .schedule = "milestones", .base = 0.25, .factor = 8, .milestones = {2}, .n_milestones = 1};
    weights_again(&f);
    for (int run = 0; run < 2; run++) {
        pt_error err = {PT_OK, ""};
        pt_weight_set late = weights_forward(&f, 1);
        weights_update(&f);
        backward(&f, &late, /*accumulate=*/false);
        assert_gradient(&f, 0.5);
        for (int i = 0; i < 3; i++)
            weights_update(&f);
        assert_ok(pt_weights_restart(f.w, &err), &err);
    }
    weights_end(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_gap_divides),
        cmocka_unit_test(test_the_highest_rate_measures),
        cmocka_unit_test(test_a_rate_of_0_has_no_gap),
        cmocka_unit_test(test_what_gap_aware_backwards_read),
        cmocka_unit_test(test_gap_aware_bytes),
        cmocka_unit_test(test_restart_forgets_the_gap),
    };
    return cmocka_run_group_tests_name("weights-gap", tests, NULL, NULL);
}
