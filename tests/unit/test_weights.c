/* The weights of a stage: how they change, who decays, and how much memory they take. */
#include <stdlib.h>
#include <string.h>

#include "suite.h"
#include "weights_rig.h"

/* ---- what is read -----------------------------------------------------------------------------
 */

static void test_plain_weights_are_the_true_ones(void **state)
{
    (void)state;
    weights_rig f;
    weights_begin(&f, "none", /*stash=*/false, /*training=*/true);
    pt_weight_set early = weights_forward(&f, 3);
    assert_same_set(early, pt_weights_now(f.w));
    assert_same_set(weights_forward(&f, 0), early);
    weights_update(&f);
    assert_same_set(pt_weights_for_backward(f.w, &early), pt_weights_now(f.w));
    assert_ptr_equal(weights_forward(&f, 3).dev_params, early.dev_params);
    assert_int_not_equal(weights_forward(&f, 3).content, early.content);
    pt_weights_release(f.w, &early);
    weights_end(&f);
}

static void test_updates_are_counted(void **state)
{
    (void)state;
    weights_rig f;
    weights_begin(&f, "none", /*stash=*/false, /*training=*/true);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(pt_weights_updates(f.w), i);
        assert_int_equal(pt_weights_now(f.w).version, i);
        weights_update(&f);
    }
    weights_end(&f);
}

static void test_rate_of_the_next_update(void **state)
{
    (void)state;
    weights_rig f;
    weights_begin(&f, "none", /*stash=*/false, /*training=*/true);
    f.spec.lr = (pt_lr_spec){.schedule = "constant", .base = 1, .warmup = 4};
    weights_again(&f);
    for (int i = 0; i < 6; i++) {
        assert_true(pt_weights_lr(f.w) == (i < 4 ? (i + 1) / 4.0 : 1.0));
        weights_update(&f);
    }
    weights_end(&f);
}

/* What a first run left in the moments would show in the second. */
static void test_restart_forgets(void **state)
{
    (void)state;
    pt_error err = {PT_OK, ""};
    static const char *const optimizers[] = {"sgd", "adam"};
    for (int k = 0; k < 2; k++) {
        weights_rig f;
        weights_begin(&f, "msnag", /*stash=*/false, /*training=*/true);
        f.spec.optimizer = (pt_optimizer_spec){
            .name = optimizers[k], .momentum = 0.9, .beta1 = 0.9, .beta2 = 0.99, .eps = 1e-8};
        weights_again(&f);
        float zeros[FEATURES * FEATURES] = {0}, *moved[2], *foreseen[2];
        for (int run = 0; run < 2; run++) {
            for (int i = 0; i < f.flat.n_params; i++)
                assert_ok(pt_weights_set_param(f.w, i, zeros, &err), &err);
            assert_ok(pt_weights_restart(f.w, &err), &err);
            for (int i = 0; i < 3; i++)
                weights_update(&f);
            moved[run] = weights_bytes_of(&f, pt_weights_now(f.w).dev_params);
            foreseen[run] = weights_bytes_of(&f, weights_forward(&f, 2).dev_params);
        }
        for (int i = 0; i < f.flat.n_params; i++) {
            size_t at = f.flat.params[i].offset;
            size_t bytes = (size_t)f.flat.params[i].shape.elements * sizeof(float);
            assert_memory_equal(moved[0] + at, moved[1] + at, bytes);
            assert_memory_equal(foreseen[0] + at, foreseen[1] + at, bytes);
            assert_memory_not_equal(moved[0] + at, foreseen[0] + at, bytes);
        }
        for (int run = 0; run < 2; run++) {
            free(moved[run]);
            free(foreseen[run]);
        }
        weights_end(&f);
    }
}

/* ---- weight decay -----------------------------------------------------------------------------
 */

static void check_accessors(weights_rig *f, bool params)
{
    pt_error err = {PT_OK, ""};
    const pt_flat_tensor *tensors = params ? f->flat.params : f->flat.state;
    int n = params ? f->flat.n_params : f->flat.n_state;
    float in[FEATURES * FEATURES], out[FEATURES * FEATURES];
    for (int i = 0; i < n; i++) {
        for (int64_t e = 0; e < tensors[i].shape.elements; e++)
            in[e] = (float)(100 * (i + 1) + (int)e);
        assert_ok(params ? pt_weights_set_param(f->w, i, in, &err)
                         : pt_weights_set_state(f->w, i, in, &err),
                  &err);
    }
    for (int i = 0; i < n; i++) { /* none has run over its neighbour */
        assert_ok(params ? pt_weights_get_param(f->w, i, out, &err)
                         : pt_weights_get_state(f->w, i, out, &err),
                  &err);
        for (int64_t e = 0; e < tensors[i].shape.elements; e++)
            assert_true(out[e] == (float)(100 * (i + 1) + (int)e));
    }
    assert_true(n > 0);
}

/* linear (spared by the file) → batch-norm → linear: matrices first, no two overlap. */
static void begin_sparing(weights_rig *f, const char *optimizer, bool spare_vectors)
{
    pt_error err = {PT_OK, ""};
    weights_begin(f, "msnag", /*stash=*/false, /*training=*/true);
    pt_weights_free(f->w);
    pt_flat_clear(&f->flat);
    f->graph.nodes[0].spared = true;
    assert_ok(pt_flat_init_sparing(&f->flat, &f->graph, 0, f->graph.n_nodes, spare_vectors, &err),
              &err);
    f->spec.optimizer = (pt_optimizer_spec){.name = optimizer,
                                            .decay = 0.25,
                                            .momentum = 0.5,
                                            .beta1 = 0.5,
                                            .beta2 = 0.75,
                                            .eps = 1e-3};
    assert_ok(pt_weights_new(f->b, &f->spec, &f->w, &err), &err);
}

static bool decays(const pt_flat_tensor *param, bool spare_vectors)
{
    return param->node != 0 && !(spare_vectors && param->shape.ndim == 1);
}

static void test_decayed_parameters_come_first(void **state)
{
    (void)state;
    for (int spare_vectors = 0; spare_vectors < 2; spare_vectors++) {
        weights_rig f;
        int decayed = 0;
        begin_sparing(&f, "sgd", spare_vectors);
        for (int i = 0; i < f.flat.n_params; i++) {
            const pt_flat_tensor *p = &f.flat.params[i];
            size_t end = p->offset + (size_t)p->shape.elements;
            bool first = decays(p, spare_vectors);
            decayed += first;
            assert_int_equal(p->offset % 16, 0);
            assert_true(first ? end <= f.flat.decayed_elements
                              : p->offset >= f.flat.decayed_elements);
            assert_true(end <= f.flat.param_elements);
            for (int j = 0; j < i; j++) {
                const pt_flat_tensor *q = &f.flat.params[j];
                assert_true(end <= q->offset || q->offset + (size_t)q->shape.elements <= p->offset);
                assert_true(q->node < p->node || (q->node == p->node && q->index < p->index));
            }
        }
        assert_int_equal(decayed, spare_vectors ? 1 : 4); /* of six */
        check_accessors(&f, /*params=*/true);
        weights_end(&f);
    }
}

/* The same run with all decayed and with none, side by side: each tensor is as in its kind's run,
 * the steps and what they foresee. */
static void check_sparing(const char *optimizer, bool spare_vectors)
{
    enum { ALL, NONE, SOME };
    pt_error err = {PT_OK, ""};
    weights_rig f[3];
    float values[FEATURES * FEATURES], *theta[3], *ahead[3], *asked[3];
    for (int i = 0; i < FEATURES * FEATURES; i++)
        values[i] = 0.2f * (float)(i * i % 7) - 0.5f;
    for (int k = 0; k < 3; k++) {
        begin_sparing(&f[k], optimizer, spare_vectors);
        if (k != SOME) {
            pt_weights_free(f[k].w);
            pt_flat_clear(&f[k].flat);
            f[k].graph.nodes[0].spared = false;
            assert_ok(pt_flat_init(&f[k].flat, &f[k].graph, 0, f[k].graph.n_nodes, &err), &err);
            f[k].spec.optimizer.decay = k == ALL ? 0.25 : 0;
            assert_ok(pt_weights_new(f[k].b, &f[k].spec, &f[k].w, &err), &err);
        }
        for (int i = 0; i < f[k].flat.n_params; i++)
            assert_ok(pt_weights_set_param(f[k].w, i, values, &err), &err);
        for (int step = 0; step < 3; step++) {
            weights_update(&f[k]);
            ahead[k] = weights_bytes_of(&f[k], weights_forward(&f[k], 2).dev_params);
            if (step < 2)
                free(ahead[k]);
        }
        theta[k] = weights_bytes_of(&f[k], pt_weights_now(f[k].w).dev_params);
        asked[k] = weights_bytes_of(&f[k], weights_forward(&f[k], 3).dev_params);
    }
    for (int i = 0; i < f[SOME].flat.n_params; i++) {
        const pt_flat_tensor *mine = &f[SOME].flat.params[i], *plain = &f[ALL].flat.params[i];
        int like = decays(mine, spare_vectors) ? ALL : NONE;
        size_t bytes = (size_t)mine->shape.elements * sizeof(float);
        assert_memory_equal(theta[SOME] + mine->offset, theta[like] + plain->offset, bytes);
        assert_memory_equal(ahead[SOME] + mine->offset, ahead[like] + plain->offset, bytes);
        assert_memory_equal(asked[SOME] + mine->offset, asked[like] + plain->offset, bytes);
        assert_memory_not_equal(theta[ALL] + plain->offset, theta[NONE] + plain->offset, bytes);
        assert_memory_not_equal(ahead[ALL] + plain->offset, ahead[NONE] + plain->offset, bytes);
    }
    for (int k = 0; k < 3; k++) {
        free(theta[k]);
        free(ahead[k]);
        free(asked[k]);
        weights_end(&f[k]);
    }
}

static void test_spared_parameters_do_not_decay(void **state)
{
    (void)state;
    static const char *const optimizers[] = {"sgd", "adam", "adamw"};
    for (int i = 0; i < 6; i++)
        check_sparing(optimizers[i / 2], i % 2);
}

/* ---- accessors and sizes ----------------------------------------------------------------------
 */

static void test_accessors(void **state)
{
    (void)state;
    weights_rig f;
    weights_begin(&f, "none", /*stash=*/false, /*training=*/true);
    check_accessors(&f, /*params=*/true);
    check_accessors(&f, /*params=*/false);
    weights_end(&f);
}

static void test_bytes_are_as_predicted(void **state)
{
    (void)state;
    static const char *const optimizers[] = {"sgd", "adamw"};
    for (int i = 0; i < 16; i++) {
        weights_rig f;
        weights_begin(&f, i & 1 ? "msnag" : "none", /*stash=*/i & 2, /*training=*/i & 4);
        f.spec.optimizer.name = optimizers[i / 8];
        weights_again(&f);
        assert_int_equal(weights_bytes_now(f.b) - f.before, pt_weights_bytes(&f.spec));
        weights_end(&f);
    }
}

static void test_free_takes_null(void **state)
{
    (void)state;
    pt_weights_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plain_weights_are_the_true_ones),
        cmocka_unit_test(test_updates_are_counted),
        cmocka_unit_test(test_rate_of_the_next_update),
        cmocka_unit_test(test_restart_forgets),
        cmocka_unit_test(test_decayed_parameters_come_first),
        cmocka_unit_test(test_spared_parameters_do_not_decay),
        cmocka_unit_test(test_accessors),
        cmocka_unit_test(test_bytes_are_as_predicted),
        cmocka_unit_test(test_free_takes_null),
    };
    return cmocka_run_group_tests_name("weights", tests, NULL, NULL);
}
