/* Rules for late gradients: what they make of gradients and of backwards' weights, and when they
 * keep out of the way. Their numbers over whole runs are tests/train/test_async.py's. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "suite.h"
#include "weights_rig.h"

/* ---- gap-aware --------------------------------------------------------------------------------
 */

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

/* ---- PipeMare's correction --------------------------------------------------------------------
 */

static void begin_corrected(weights_rig *f, double delay, double decay)
{
    weights_begin(f, "none", /*stash=*/false, /*training=*/true);
    f->spec.correction.delay = delay;
    f->spec.correction.decay = decay;
    weights_again(f);
}

/* Every weight of a buffer that holds one value everywhere. */
static double value_of(const weights_rig *f, const float *dev)
{
    float *got = weights_bytes_of(f, dev);
    double value = (double)got[0];
    for (size_t i = 0; i < f->flat.param_elements; i++)
        assert_true(got[i] == got[0]);
    free(got);
    return value;
}

/* D = 1/16 and a delay of 2: a move loses three quarters of its part in the mean at each update.
 * The moves are -1/4, -3/8, -7/16 …: numbers that floats hold exactly. */
static void test_backwards_read_weights_taken_back(void **state)
{
    (void)state;
    weights_rig f;
    begin_corrected(&f, /*delay=*/2, /*decay=*/0.0625);
    pt_weight_set early = weights_forward(&f, 2);
    assert_same_set(pt_weights_for_backward(f.w, &early), pt_weights_now(f.w));
    double theta = 0, move = 0, mean = 0;
    uint64_t last = 0;
    for (int i = 0; i < 4; i++) {
        weights_update(&f);
        move = 0.5 * move - 0.25;
        theta += move;
        mean = 0.25 * mean + 0.75 * move;
        pt_weight_set set = pt_weights_for_backward(f.w, &early), now = pt_weights_now(f.w);
        assert_true(fabs(value_of(&f, set.dev_params) - (theta - 2 * mean)) < 1e-6);
        assert_true(value_of(&f, now.dev_params) == theta);
        assert_same_set(weights_forward(&f, 2), now); /* forwards are not corrected */
        assert_true(set.content != now.content && set.content > last);
        assert_int_equal(set.version, i + 1);
        last = set.content;
    }
    weights_end(&f);
}

static void test_given_weights_are_not_taken_back(void **state)
{
    (void)state;
    pt_error err = {PT_OK, ""};
    float values[FEATURES * FEATURES] = {0};
    weights_rig f;
    begin_corrected(&f, /*delay=*/2, /*decay=*/0.5);
    pt_weight_set early = weights_forward(&f, 2);
    weights_update(&f);
    assert_ok(pt_weights_set_param(f.w, 0, values, &err), &err);
    assert_same_set(pt_weights_for_backward(f.w, &early), pt_weights_now(f.w));
    weights_end(&f);
}

static void test_where_nothing_is_corrected(void **state)
{
    (void)state;
    static const double rules[][2] = {{0, 0.5}, {2, 0}};
    for (int i = 0; i < 2; i++) {
        weights_rig f;
        weights_begin(&f, "none", /*stash=*/false, /*training=*/true);
        size_t plain = pt_weights_bytes(&f.spec);
        f.spec.correction.delay = rules[i][0];
        f.spec.correction.decay = rules[i][1];
        weights_again(&f);
        pt_weight_set early = weights_forward(&f, 2);
        weights_update(&f);
        assert_same_set(pt_weights_for_backward(f.w, &early), pt_weights_now(f.w));
        assert_int_equal(pt_weights_bytes(&f.spec), plain);
        assert_int_equal(weights_bytes_now(f.b) - f.before, plain);
        weights_end(&f);
    }
}

static void test_correction_bytes(void **state)
{
    (void)state;
    weights_rig f;
    weights_begin(&f, "none", /*stash=*/false, /*training=*/true);
    size_t plain = pt_weights_bytes(&f.spec);
    f.spec.correction.delay = 1.5;
    f.spec.correction.decay = 0.135;
    weights_again(&f);
    assert_int_equal(pt_weights_bytes(&f.spec), plain + 2 * f.flat.param_elements * sizeof(float));
    assert_int_equal(weights_bytes_now(f.b) - f.before, pt_weights_bytes(&f.spec));
    weights_end(&f);
}

static void test_restart_forgets_the_drift(void **state)
{
    (void)state;
    double back[2];
    weights_rig f;
    begin_corrected(&f, /*delay=*/2, /*decay=*/0.5);
    for (int run = 0; run < 2; run++) {
        pt_error err = {PT_OK, ""};
        float zeros[FEATURES * FEATURES] = {0};
        pt_weight_set early = weights_forward(&f, 2);
        weights_update(&f);
        float *got = weights_bytes_of(&f, pt_weights_for_backward(f.w, &early).dev_params);
        back[run] = (double)got[0];
        free(got);
        assert_ok(pt_weights_restart(f.w, &err), &err);
        assert_same_set(pt_weights_for_backward(f.w, &early), pt_weights_now(f.w));
        assert_ok(pt_weights_set_param(f.w, 0, zeros, &err), &err);
    }
    assert_true(back[0] == back[1]);
    weights_end(&f);
}

/* ---- aggmsnag ---------------------------------------------------------------------------------
 */

static void begin_gathering(weights_rig *f, const char *optimizer, bool stash)
{
    weights_begin(f, "aggmsnag", stash, /*training=*/true);
    f->spec.optimizer = (pt_optimizer_spec){
        .name = optimizer, .momentum = 0.5, .beta1 = 0.5, .beta2 = 0.75, .eps = 1e-3};
    weights_again(f);
}

/* v̂ ← v/2 + g; θ̂ ← θ - v̂/4, and again without g: with v = 1 after an update by ones. */
static void test_the_first_step_goes_by_what_is_gathered(void **state)
{
    (void)state;
    for (int stash = 0; stash < 2; stash++) {
        weights_rig f;
        begin_gathering(&f, "sgd", stash);
        for (int gathered = 0; gathered < 3; gathered++) { /* before the first update */
            double step = 0.25 * gathered;
            pt_weight_set one = weights_forward(&f, 1), two = weights_forward(&f, 2);
            assert_true(value_of(&f, two.dev_params) == -1.5 * step);
            if (stash)
                assert_true(value_of(&f, one.dev_params) == -step);
            pt_weights_release(f.w, &one);
            pt_weights_release(f.w, &two);
            weights_backward(&f);
        }
        weights_update(&f);
        for (int gathered = 0; gathered < 3; gathered++) {
            double theta = -0.25, velocity = 0.5 + gathered;
            pt_weight_set set = weights_forward(&f, 2);
            theta -= 0.25 * velocity + 0.25 * (0.5 * velocity);
            assert_true(value_of(&f, set.dev_params) == theta);
            assert_true(value_of(&f, pt_weights_now(f.w).dev_params) == -0.25);
            pt_weights_release(f.w, &set);
            weights_backward(&f);
        }
        weights_end(&f);
    }
}

/* As long as nothing more is gathered, nothing is made anew. */
static void test_a_gathering_prediction_is_made_once(void **state)
{
    (void)state;
    for (int stash = 0; stash < 2; stash++) {
        weights_rig f;
        begin_gathering(&f, "sgd", stash);
        weights_update(&f);
        pt_weight_set none = weights_forward(&f, 2);
        assert_same_set(weights_forward(&f, 2), none);
        weights_backward(&f);
        pt_weight_set one = weights_forward(&f, 2);
        assert_int_not_equal(one.content, none.content);
        assert_same_set(weights_forward(&f, 2), one);
        weights_end(&f);
    }
}

/* msnag does not look at the gradient. */
static void test_others_do_not_gather(void **state)
{
    (void)state;
    weights_rig f;
    weights_begin(&f, "msnag", /*stash=*/false, /*training=*/true);
    weights_update(&f);
    pt_weight_set before = weights_forward(&f, 2);
    weights_backward(&f);
    assert_same_set(weights_forward(&f, 2), before);
    weights_end(&f);
}

/* One step foreseen with all that the step will have is the step. */
static void test_the_whole_gradient_foresees_the_step(void **state)
{
    (void)state;
    static const char *const optimizers[] = {"sgd", "adam", "adamw"};
    for (int k = 0; k < 3; k++) {
        weights_rig f;
        begin_gathering(&f, optimizers[k], /*stash=*/true);
        f.spec.optimizer.decay = 0.125;
        weights_again(&f);
        for (int step = 0; step < 3; step++) {
            weights_backward(&f); /* a gradient of ones, as weights_update's */
            pt_weight_set set = weights_forward(&f, 1);
            float *foreseen = weights_bytes_of(&f, set.dev_params);
            weights_update(&f);
            assert_holds(&f, pt_weights_now(f.w).dev_params, foreseen);
            pt_weights_release(f.w, &set);
            free(foreseen);
        }
        weights_end(&f);
    }
}

static void test_restart_forgets_what_was_gathered(void **state)
{
    (void)state;
    pt_error err = {PT_OK, ""};
    weights_rig f;
    begin_gathering(&f, "sgd", /*stash=*/false);
    weights_backward(&f);
    assert_ok(pt_weights_restart(f.w, &err), &err);
    assert_true(value_of(&f, weights_forward(&f, 1).dev_params) == 0);
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
        cmocka_unit_test(test_backwards_read_weights_taken_back),
        cmocka_unit_test(test_given_weights_are_not_taken_back),
        cmocka_unit_test(test_where_nothing_is_corrected),
        cmocka_unit_test(test_correction_bytes),
        cmocka_unit_test(test_restart_forgets_the_drift),
        cmocka_unit_test(test_the_first_step_goes_by_what_is_gathered),
        cmocka_unit_test(test_a_gathering_prediction_is_made_once),
        cmocka_unit_test(test_others_do_not_gather),
        cmocka_unit_test(test_the_whole_gradient_foresees_the_step),
        cmocka_unit_test(test_restart_forgets_what_was_gathered),
    };
    return cmocka_run_group_tests_name("weights-rules", tests, NULL, NULL);
}
