/* aggmsnag: predictions that go by the gradient which the step has gathered. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "suite.h"
#include "weights_rig.h"

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
            assert_true(weights_value_of(&f, two.dev_params) == -1.5 * step);
            if (stash)
                assert_true(weights_value_of(&f, one.dev_params) == -step);
            pt_weights_release(f.w, &one);
            pt_weights_release(f.w, &two);
            weights_backward(&f);
        }
        weights_update(&f);
        for (int gathered = 0; gathered < 3; gathered++) {
            double theta = -0.25, velocity = 0.5 + gathered;
            pt_weight_set set = weights_forward(&f, 2);
            theta -= 0.25 * velocity + 0.25 * (0.5 * velocity);
            assert_true(weights_value_of(&f, set.dev_params) == theta);
            assert_true(weights_value_of(&f, pt_weights_now(f.w).dev_params) == -0.25);
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
    assert_true(weights_value_of(&f, weights_forward(&f, 1).dev_params) == 0);
    weights_end(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_first_step_goes_by_what_is_gathered),
        cmocka_unit_test(test_a_gathering_prediction_is_made_once),
        cmocka_unit_test(test_others_do_not_gather),
        cmocka_unit_test(test_the_whole_gradient_foresees_the_step),
        cmocka_unit_test(test_restart_forgets_what_was_gathered),
    };
    return cmocka_run_group_tests_name("weights-gather", tests, NULL, NULL);
}
