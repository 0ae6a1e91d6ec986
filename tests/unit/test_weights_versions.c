/* Weight versions: what forwards and backwards read, how long the bytes stay, and that a content
 * number names one content. */
#include <stdlib.h>
#include <string.h>

#include "pipetrain/rng.h"
#include "suite.h"
#include "weights_rig.h"

/* ---- stash ------------------------------------------------------------------------------------
 */

static void check_stash(const char *predictor)
{
    weights_rig f;
    weights_begin(&f, predictor, /*stash=*/true, /*training=*/true);
    pt_weight_set held[VERSIONS];
    float *bytes[VERSIONS];
    for (int i = 0; i < VERSIONS; i++) {
        held[i] = weights_forward(&f, 2);
        assert_true(held[i].stash_slot >= 0);
        assert_int_equal(held[i].version, i);
        bytes[i] = weights_bytes_of(&f, held[i].dev_params);
        weights_update(&f);
    }
    for (int i = 0; i < VERSIONS; i++) { /* all of them are there, and differ */
        assert_same_set(pt_weights_for_backward(f.w, &held[i]), held[i]);
        assert_holds(&f, held[i].dev_params, bytes[i]);
        for (int j = 0; j < i; j++) {
            assert_int_not_equal(held[i].content, held[j].content);
            assert_int_not_equal(held[i].stash_slot, held[j].stash_slot);
            assert_memory_not_equal(bytes[i], bytes[j], FEATURES * sizeof(float));
        }
    }
    pt_error err = {PT_OK, ""};
    pt_weight_set refused;
    assert_fails(pt_weights_for_forward(f.w, 2, &refused, &err), PT_EINTERNAL, "version", &err);
    pt_weights_release(f.w, &held[0]); /* one goes, one comes; the others stay */
    pt_weight_set newest = weights_forward(&f, 2);
    assert_int_equal(newest.stash_slot, held[0].stash_slot);
    for (int i = 1; i < VERSIONS; i++) {
        assert_holds(&f, held[i].dev_params, bytes[i]);
        assert_int_not_equal(newest.content, held[i].content);
    }
    assert_int_not_equal(newest.content, held[0].content);
    for (int i = 0; i < VERSIONS; i++)
        free(bytes[i]);
    weights_end(&f);
}

static void test_stash_keeps_the_bytes(void **state)
{
    (void)state;
    check_stash("none");
    check_stash("msnag");
}

static void test_one_version_is_stashed_once(void **state)
{
    (void)state;
    weights_rig f;
    weights_begin(&f, "none", /*stash=*/true, /*training=*/true);
    pt_weight_set first = weights_forward(&f, 1), second = weights_forward(&f, 2);
    assert_same_set(first, second);
    float *bytes = weights_bytes_of(&f, first.dev_params);
    weights_update(&f);
    pt_weights_release(f.w, &first); /* the second still holds it */
    for (int i = 0; i < VERSIONS - 1; i++) {
        assert_int_not_equal(weights_forward(&f, 1).stash_slot, second.stash_slot);
        weights_update(&f);
    }
    assert_holds(&f, second.dev_params, bytes);
    free(bytes);
    weights_end(&f);
}

/* The same version foreseen from two distances is two contents. */
static void test_two_distances_are_two_contents(void **state)
{
    (void)state;
    weights_rig f;
    weights_begin(&f, "msnag", /*stash=*/true, /*training=*/true);
    weights_update(&f); /* now there is a velocity */
    pt_weight_set near = weights_forward(&f, 1), far = weights_forward(&f, 2),
                  again = weights_forward(&f, 1);
    assert_int_not_equal(near.content, far.content);
    assert_same_set(near, again);
    weights_end(&f);
}

static void test_nothing_late_is_not_stashed(void **state)
{
    (void)state;
    weights_rig f;
    weights_begin(&f, "msnag", /*stash=*/true, /*training=*/true);
    assert_same_set(weights_forward(&f, 0), pt_weights_now(f.w));
    weights_end(&f);
}

/* ---- two versions -----------------------------------------------------------------------------
 */

/* Step t reads what was there after step t - 2, in both passes. */
static void test_two_versions(void **state)
{
    (void)state;
    enum { STEPS = 4 };
    pt_error err = {PT_OK, ""};
    weights_rig f;
    float *bytes[STEPS + 1];
    uint64_t last = 0;
    weights_begin(&f, "none", /*stash=*/false, /*training=*/true);
    f.spec.two_versions = true;
    weights_again(&f);
    assert_int_equal(weights_bytes_now(f.b) - f.before, pt_weights_bytes(&f.spec));
    bytes[0] = weights_bytes_of(&f, pt_weights_now(f.w).dev_params);
    assert_same_set(weights_forward(&f, 0), pt_weights_now(f.w));
    assert_same_set(weights_forward(&f, 1),
                    pt_weights_now(f.w)); /* of step 1: there is nothing older */
    for (int t = 1; t <= STEPS; t++) {
        pt_weight_set early =
            weights_forward(&f, 1); /* of step t, before the update of step t - 1 */
        assert_int_equal(early.version, t - 1);
        assert_holds(&f, early.dev_params, bytes[t - 1]);
        weights_update(&f);
        bytes[t] = weights_bytes_of(&f, pt_weights_now(f.w).dev_params);
        pt_weight_set late = weights_forward(&f, 0); /* of the same step, after it */
        assert_int_equal(late.version, t - 1);
        assert_holds(&f, late.dev_params, bytes[t - 1]);
        assert_memory_not_equal(bytes[t], bytes[t - 1], FEATURES * sizeof(float));
        assert_same_set(pt_weights_for_backward(f.w, &early), late);
        assert_same_set(pt_weights_for_backward(f.w, &late), late);
        assert_true(late.content > last && late.content != pt_weights_now(f.w).content);
        last = late.content;
    }
    pt_weight_set refused;
    assert_fails(pt_weights_for_forward(f.w, 2, &refused, &err), PT_EINTERNAL, "2 updates", &err);
    for (int t = 0; t <= STEPS; t++)
        free(bytes[t]);
    weights_end(&f);
}

/* ---- prediction -------------------------------------------------------------------------------
 */

static void test_predicted_set_is_made_once(void **state)
{
    (void)state;
    pt_error err = {PT_OK, ""};
    weights_rig f;
    weights_begin(&f, "msnag", /*stash=*/false, /*training=*/true);
    weights_update(&f);
    weights_update(&f);
    float *theta = weights_bytes_of(&f, pt_weights_now(f.w).dev_params);
    pt_weight_set set = weights_forward(&f, 2);
    assert_ptr_not_equal(set.dev_params, pt_weights_now(f.w).dev_params);
    assert_int_not_equal(set.content, pt_weights_now(f.w).content);
    assert_holds(&f, pt_weights_now(f.w).dev_params, theta); /* θ is never touched */
    /* v = 1, then 1.5: θ̂ = θ - η (γ + γ²) v, in numbers that floats hold exactly */
    float *foreseen = weights_bytes_of(&f, set.dev_params);
    for (int i = 0; i < f.flat.n_params; i++)
        for (int64_t e = 0; e < f.flat.params[i].shape.elements; e++) {
            size_t at = f.flat.params[i].offset + (size_t)e;
            assert_true(foreseen[at] == theta[at] - 0.25f * 0.75f * 1.5f);
        }
    assert_same_set(weights_forward(&f, 2), set); /* made once … */
    /* … and not again: what is written there by hand stays. */
    assert_ok(f.b->row->upload(f.b, (float *)(uintptr_t)set.dev_params, theta,
                               f.flat.param_elements * sizeof(float), &err),
              &err);
    set = weights_forward(&f, 2);
    assert_holds(&f, set.dev_params, theta);
    pt_weight_set further = weights_forward(&f, 3);
    assert_int_not_equal(further.content, set.content);
    weights_update(&f);
    assert_int_not_equal(weights_forward(&f, 3).content, further.content);
    assert_same_set(pt_weights_for_backward(f.w, &set), pt_weights_now(f.w));
    free(theta);
    free(foreseen);
    weights_end(&f);
}

/* An update makes the next prediction in its own pass. What it made, for the rate and the weights
 * after the update, has the bits of one that is made when it is asked for. */
static void test_update_foresees(void **state)
{
    (void)state;
    pt_error err = {PT_OK, ""};
    weights_rig early, late;
    weights_begin(&early, "msnag", /*stash=*/false, /*training=*/true);
    weights_begin(&late, "msnag", /*stash=*/false, /*training=*/true);
    weights_rig *both[] = {&early, &late};
    float values[FEATURES * FEATURES];
    for (int i = 0; i < FEATURES * FEATURES; i++)
        values[i] = 0.1f * (float)(i * i % 11) - 0.37f;
    for (int i = 0; i < 2; i++) { /* numbers that round, and a rate that changes */
        both[i]->spec.optimizer.momentum = 0.87;
        both[i]->spec.optimizer.decay = 0.013;
        both[i]->spec.lr = (pt_lr_spec){.schedule = "constant", .base = 0.31, .warmup = 9};
        weights_again(both[i]);
        assert_ok(pt_weights_set_param(both[i]->w, 0, values, &err), &err);
        weights_update(both[i]);
    }
    for (int staleness = 1; staleness <= 4; staleness++)
        for (int i = 0; i < 3; i++) {
            pt_weight_set before = weights_forward(&early, staleness);
            (void)weights_forward(&late,
                                  staleness + 1); /* what its update foresees is not wanted */
            weights_update(&early);
            weights_update(&late);
            float *made = weights_bytes_of(&early, before.dev_params);
            pt_weight_set set = weights_forward(&early, staleness),
                          want = weights_forward(&late, staleness);
            assert_ptr_equal(set.dev_params, before.dev_params);
            assert_int_not_equal(set.content, before.content);
            assert_int_equal(set.version, pt_weights_updates(early.w));
            assert_holds(&early, set.dev_params, made); /* asking for it made nothing new */
            float *asked = weights_bytes_of(&late, want.dev_params);
            assert_memory_equal(made, asked, early.flat.param_elements * sizeof *made);
            float *theta = weights_bytes_of(&early, pt_weights_now(early.w).dev_params);
            assert_memory_not_equal(made, theta, FEATURES * sizeof *made);
            free(made);
            free(asked);
            free(theta);
        }
    weights_end(&early);
    weights_end(&late);
}

/* ---- content numbers --------------------------------------------------------------------------
 */

/* A number that was given to other bytes, or at another address, would make a kernel use a stale
 * copy. Everything that a random run hands out is remembered and compared. */
static void check_content_numbers(const char *predictor, bool stash)
{
    enum { MOMENTS = 60, MOST = 4 * MOMENTS };
    weights_rig f;
    struct {
        uint64_t content;
        const float *dev;
        float *bytes;
    } seen[MOST];
    int n = 0;
    pt_weight_set held[VERSIONS];
    int n_held = 0;
    pt_rng rng;
    pt_rng_init(&rng, /*seed=*/3, PT_RNG_CHECK, 0, 0);
    weights_begin(&f, predictor, stash, /*training=*/true);
    for (int t = 0; t < MOMENTS; t++) {
        pt_weight_set set = pt_weights_now(f.w);
        if (pt_rng_below(&rng, 3) == 0)
            weights_update(&f);
        if (pt_rng_below(&rng, 3) == 0)
            weights_backward(&f);
        if (n_held == VERSIONS)
            pt_weights_release(f.w, &held[--n_held]);
        if (n_held < VERSIONS)
            set = held[n_held++] = weights_forward(&f, (int)pt_rng_below(&rng, 3));
        float *bytes = weights_bytes_of(&f, set.dev_params);
        for (int i = 0; i < n; i++)
            if (seen[i].content == set.content) {
                assert_ptr_equal(seen[i].dev, set.dev_params);
                assert_memory_equal(seen[i].bytes, bytes, f.flat.param_elements * sizeof *bytes);
            }
        assert_true(set.content > 0);
        seen[n].content = set.content;
        seen[n].dev = set.dev_params;
        seen[n++].bytes = bytes;
    }
    for (int i = 0; i < n; i++)
        free(seen[i].bytes);
    weights_end(&f);
}

static void test_a_number_names_one_content(void **state)
{
    (void)state;
    check_content_numbers("none", false);
    check_content_numbers("none", true);
    check_content_numbers("msnag", false);
    check_content_numbers("msnag", true);
    check_content_numbers("aggmsnag", false);
    check_content_numbers("aggmsnag", true);
}

static void test_reading_changes_no_number(void **state)
{
    (void)state;
    pt_error err = {PT_OK, ""};
    float values[FEATURES * FEATURES];
    weights_rig f;
    weights_begin(&f, "msnag", /*stash=*/false, /*training=*/true);
    uint64_t content = pt_weights_now(f.w).content;
    (void)weights_forward(&f, 2);
    assert_ok(pt_weights_get_param(f.w, 0, values, &err), &err);
    assert_ok(pt_weights_get_state(f.w, 0, values, &err), &err);
    assert_int_equal(pt_weights_now(f.w).content, content);
    weights_end(&f);
}

/* Weights that are given while a prediction of the old ones is remembered. */
static void test_given_weights_are_predicted_anew(void **state)
{
    (void)state;
    pt_error err = {PT_OK, ""};
    float values[FEATURES * FEATURES];
    weights_rig f;
    weights_begin(&f, "msnag", /*stash=*/false, /*training=*/true);
    weights_update(&f);
    uint64_t content = pt_weights_now(f.w).content;
    pt_weight_set old = weights_forward(&f, 1);
    for (int i = 0; i < FEATURES * FEATURES; i++)
        values[i] = (float)i;
    assert_ok(pt_weights_set_param(f.w, 0, values, &err), &err);
    assert_int_not_equal(pt_weights_now(f.w).content, content);
    pt_weight_set set = weights_forward(&f, 1);
    assert_int_not_equal(set.content, old.content);
    float *bytes = weights_bytes_of(&f, set.dev_params);
    for (int i = 0; i < FEATURES * FEATURES; i++) /* v = 1 after one update: θ - ηγ */
        assert_true(bytes[f.flat.params[0].offset + (size_t)i] == values[i] - 0.125f);
    free(bytes);
    weights_end(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stash_keeps_the_bytes),
        cmocka_unit_test(test_one_version_is_stashed_once),
        cmocka_unit_test(test_two_distances_are_two_contents),
        cmocka_unit_test(test_nothing_late_is_not_stashed),
        cmocka_unit_test(test_two_versions),
        cmocka_unit_test(test_predicted_set_is_made_once),
        cmocka_unit_test(test_update_foresees),
        cmocka_unit_test(test_a_number_names_one_content),
        cmocka_unit_test(test_reading_changes_no_number),
        cmocka_unit_test(test_given_weights_are_predicted_anew),
    };
    return cmocka_run_group_tests_name("weights-versions", tests, NULL, NULL);
}
