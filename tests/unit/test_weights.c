/* Weight versions on the ref backend: what forwards and backwards read, how long the bytes stay,
 * and that a content number names one content. */
#include <stdlib.h>
#include <string.h>

#include "backend_row.h"
#include "suite.h"

#include "pipetrain/weights.h"
#include "random_graph.h"

enum { FEATURES = 5, VERSIONS = 4 };

typedef struct fixture {
    pt_backend *b;
    pt_graph graph;
    pt_flat flat;
    pt_weights_spec spec;
    pt_weights *w;
    size_t before; /* bytes of the backend before the weights were made */
} fixture;

static size_t bytes_now(const pt_backend *b)
{
    size_t now = 0, peak = 0;
    b->row->memory(b, &now, &peak);
    return now;
}

/* linear → batch-norm → linear. */
static void begin(fixture *f, const char *predictor, bool stash, bool training)
{
    pt_error err = {PT_OK, ""};
    pt_backend_config config = {.threads = 1};
    *f = (fixture){0};
    assert_ok(backend_row("ref")->open(&config, &f->b, &err), &err);
    graph_begin(&f->graph, (pt_shape){.ndim = 1, .dims = {FEATURES}}, FEATURES);
    pt_op linear = graph_op(PT_OP_LINEAR);
    linear.features = FEATURES;
    int value = graph_add1(&f->graph, linear, 0);
    value = graph_add1(&f->graph, graph_op(PT_OP_BATCH_NORM), value);
    graph_add1(&f->graph, linear, value);
    assert_ok(pt_flat_init(&f->flat, &f->graph, 0, f->graph.n_nodes, &err), &err);
    f->spec = (pt_weights_spec){
        .flat = &f->flat,
        .optimizer = {.name = "sgd", .momentum = 0.5},
        .predictor = pt_predictor_find(predictor),
        .lr = {.schedule = "constant", .base = 0.25},
        .stash = stash,
        .versions = VERSIONS,
        .training = training,
    };
    f->before = bytes_now(f->b);
    assert_ok(pt_weights_new(f->b, &f->spec, &f->w, &err), &err);
}

static void end(fixture *f)
{
    pt_weights_free(f->w);
    assert_int_equal(bytes_now(f->b), f->before);
    pt_flat_clear(&f->flat);
    pt_graph_clear(&f->graph);
    f->b->row->close(f->b);
}

/* Host copy of a parameter buffer; free() it. */
static float *bytes_of(const fixture *f, const float *dev)
{
    pt_error err = {PT_OK, ""};
    float *host = malloc(f->flat.param_elements * sizeof *host);
    assert_non_null(host);
    assert_ok(f->b->row->download(f->b, host, dev, f->flat.param_elements * sizeof *host, &err),
              &err);
    return host;
}

static void assert_holds(const fixture *f, const float *dev, const float *want)
{
    float *got = bytes_of(f, dev);
    assert_memory_equal(got, want, f->flat.param_elements * sizeof *got);
    free(got);
}

/* One update with a gradient of ones. */
static void update(fixture *f)
{
    pt_error err = {PT_OK, ""};
    float *ones = malloc(f->flat.param_elements * sizeof *ones);
    assert_non_null(ones);
    for (size_t i = 0; i < f->flat.param_elements; i++)
        ones[i] = 1;
    assert_ok(f->b->row->upload(f->b, pt_weights_gradient(f->w), ones,
                                f->flat.param_elements * sizeof *ones, &err),
              &err);
    assert_ok(pt_weights_update(f->w, /*scale=*/1, &err), &err);
    free(ones);
}

static pt_weight_set forward(fixture *f, int staleness)
{
    pt_error err = {PT_OK, ""};
    pt_weight_set set;
    assert_ok(pt_weights_for_forward(f->w, staleness, &set, &err), &err);
    return set;
}

static void assert_same_set(pt_weight_set a, pt_weight_set b)
{
    assert_ptr_equal(a.dev_params, b.dev_params);
    assert_int_equal(a.content, b.content);
    assert_int_equal(a.stash_slot, b.stash_slot);
}

/* ---- what is read -----------------------------------------------------------------------------
 */

static void test_plain_weights_are_the_true_ones(void **state)
{
    (void)state;
    fixture f;
    begin(&f, "none", /*stash=*/false, /*training=*/true);
    pt_weight_set early = forward(&f, 3);
    assert_same_set(early, pt_weights_now(f.w));
    assert_same_set(forward(&f, 0), early);
    update(&f);
    assert_same_set(pt_weights_for_backward(f.w, &early), pt_weights_now(f.w));
    assert_ptr_equal(forward(&f, 3).dev_params, early.dev_params);
    assert_int_not_equal(forward(&f, 3).content, early.content);
    pt_weights_release(f.w, &early);
    end(&f);
}

static void test_updates_are_counted(void **state)
{
    (void)state;
    fixture f;
    begin(&f, "none", /*stash=*/false, /*training=*/true);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(pt_weights_updates(f.w), i);
        assert_int_equal(pt_weights_now(f.w).version, i);
        update(&f);
    }
    end(&f);
}

static void test_rate_of_the_next_update(void **state)
{
    (void)state;
    fixture f;
    begin(&f, "none", /*stash=*/false, /*training=*/true);
    pt_weights_free(f.w);
    pt_error err = {PT_OK, ""};
    f.spec.lr = (pt_lr_spec){.schedule = "constant", .base = 1, .warmup = 4};
    assert_ok(pt_weights_new(f.b, &f.spec, &f.w, &err), &err);
    for (int i = 0; i < 6; i++) {
        assert_true(pt_weights_lr(f.w) == (i < 4 ? (i + 1) / 4.0 : 1.0));
        update(&f);
    }
    end(&f);
}

/* ---- stash ------------------------------------------------------------------------------------
 */

static void check_stash(const char *predictor)
{
    fixture f;
    begin(&f, predictor, /*stash=*/true, /*training=*/true);
    pt_weight_set held[VERSIONS];
    float *bytes[VERSIONS];
    for (int i = 0; i < VERSIONS; i++) {
        held[i] = forward(&f, 2);
        assert_true(held[i].stash_slot >= 0);
        assert_int_equal(held[i].version, i);
        bytes[i] = bytes_of(&f, held[i].dev_params);
        update(&f);
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
    pt_weight_set newest = forward(&f, 2);
    assert_int_equal(newest.stash_slot, held[0].stash_slot);
    for (int i = 1; i < VERSIONS; i++) {
        assert_holds(&f, held[i].dev_params, bytes[i]);
        assert_int_not_equal(newest.content, held[i].content);
    }
    assert_int_not_equal(newest.content, held[0].content);
    for (int i = 0; i < VERSIONS; i++)
        free(bytes[i]);
    end(&f);
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
    fixture f;
    begin(&f, "none", /*stash=*/true, /*training=*/true);
    pt_weight_set first = forward(&f, 1), second = forward(&f, 2);
    assert_same_set(first, second);
    float *bytes = bytes_of(&f, first.dev_params);
    update(&f);
    pt_weights_release(f.w, &first); /* the second still holds it */
    for (int i = 0; i < VERSIONS - 1; i++) {
        assert_int_not_equal(forward(&f, 1).stash_slot, second.stash_slot);
        update(&f);
    }
    assert_holds(&f, second.dev_params, bytes);
    free(bytes);
    end(&f);
}

/* The same version foreseen from two distances is two contents. */
static void test_two_distances_are_two_contents(void **state)
{
    (void)state;
    fixture f;
    begin(&f, "msnag", /*stash=*/true, /*training=*/true);
    update(&f); /* now there is a velocity */
    pt_weight_set near = forward(&f, 1), far = forward(&f, 2), again = forward(&f, 1);
    assert_int_not_equal(near.content, far.content);
    assert_same_set(near, again);
    end(&f);
}

static void test_nothing_late_is_not_stashed(void **state)
{
    (void)state;
    fixture f;
    begin(&f, "msnag", /*stash=*/true, /*training=*/true);
    assert_same_set(forward(&f, 0), pt_weights_now(f.w));
    end(&f);
}

/* ---- two versions -----------------------------------------------------------------------------
 */

/* Step t reads what was there after step t - 2, in both passes. */
static void test_two_versions(void **state)
{
    (void)state;
    enum { STEPS = 4 };
    pt_error err = {PT_OK, ""};
    fixture f;
    float *bytes[STEPS + 1];
    uint64_t last = 0;
    begin(&f, "none", /*stash=*/false, /*training=*/true);
    pt_weights_free(f.w);
    f.spec.two_versions = true;
    assert_ok(pt_weights_new(f.b, &f.spec, &f.w, &err), &err);
    assert_int_equal(bytes_now(f.b) - f.before, pt_weights_bytes(&f.spec));
    bytes[0] = bytes_of(&f, pt_weights_now(f.w).dev_params);
    assert_same_set(forward(&f, 0), pt_weights_now(f.w));
    assert_same_set(forward(&f, 1), pt_weights_now(f.w)); /* of step 1: there is nothing older */
    for (int t = 1; t <= STEPS; t++) {
        pt_weight_set early = forward(&f, 1); /* of step t, before the update of step t - 1 */
        assert_int_equal(early.version, t - 1);
        assert_holds(&f, early.dev_params, bytes[t - 1]);
        update(&f);
        bytes[t] = bytes_of(&f, pt_weights_now(f.w).dev_params);
        pt_weight_set late = forward(&f, 0); /* of the same step, after it */
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
    end(&f);
}

/* ---- prediction -------------------------------------------------------------------------------
 */

static void test_predicted_set_is_made_once(void **state)
{
    (void)state;
    pt_error err = {PT_OK, ""};
    fixture f;
    begin(&f, "msnag", /*stash=*/false, /*training=*/true);
    update(&f);
    update(&f);
    float *theta = bytes_of(&f, pt_weights_now(f.w).dev_params);
    pt_weight_set set = forward(&f, 2);
    assert_ptr_not_equal(set.dev_params, pt_weights_now(f.w).dev_params);
    assert_int_not_equal(set.content, pt_weights_now(f.w).content);
    assert_holds(&f, pt_weights_now(f.w).dev_params, theta); /* θ is never touched */
    /* v = 1, then 1.5: θ̂ = θ - η (γ + γ²) v, in numbers that floats hold exactly */
    float *foreseen = bytes_of(&f, set.dev_params);
    for (int i = 0; i < f.flat.n_params; i++)
        for (int64_t e = 0; e < f.flat.params[i].shape.elements; e++) {
            size_t at = f.flat.params[i].offset + (size_t)e;
            assert_true(foreseen[at] == theta[at] - 0.25f * 0.75f * 1.5f);
        }
    assert_same_set(forward(&f, 2), set); /* made once … */
    /* … and not again: what is written there by hand stays. */
    assert_ok(f.b->row->upload(f.b, (float *)(uintptr_t)set.dev_params, theta,
                               f.flat.param_elements * sizeof(float), &err),
              &err);
    set = forward(&f, 2);
    assert_holds(&f, set.dev_params, theta);
    pt_weight_set further = forward(&f, 3);
    assert_int_not_equal(further.content, set.content);
    update(&f);
    assert_int_not_equal(forward(&f, 3).content, further.content);
    assert_same_set(pt_weights_for_backward(f.w, &set), pt_weights_now(f.w));
    free(theta);
    free(foreseen);
    end(&f);
}

/* An update makes the next prediction in its own pass. What it made, for the rate and the weights
 * after the update, has the bits of one that is made when it is asked for. */
static void test_update_foresees(void **state)
{
    (void)state;
    pt_error err = {PT_OK, ""};
    fixture early, late;
    begin(&early, "msnag", /*stash=*/false, /*training=*/true);
    begin(&late, "msnag", /*stash=*/false, /*training=*/true);
    fixture *both[] = {&early, &late};
    float values[FEATURES * FEATURES];
    for (int i = 0; i < FEATURES * FEATURES; i++)
        values[i] = 0.1f * (float)(i * i % 11) - 0.37f;
    for (int i = 0; i < 2; i++) { /* numbers that round, and a rate that changes */
        pt_weights_free(both[i]->w);
        both[i]->spec.optimizer.momentum = 0.87;
        both[i]->spec.optimizer.decay = 0.013;
        both[i]->spec.lr = (pt_lr_spec){.schedule = "constant", .base = 0.31, .warmup = 9};
        assert_ok(pt_weights_new(both[i]->b, &both[i]->spec, &both[i]->w, &err), &err);
        assert_ok(pt_weights_set_param(both[i]->w, 0, values, &err), &err);
        update(both[i]);
    }
    for (int staleness = 1; staleness <= 4; staleness++)
        for (int i = 0; i < 3; i++) {
            pt_weight_set before = forward(&early, staleness);
            (void)forward(&late, staleness + 1); /* what its update foresees is not wanted */
            update(&early);
            update(&late);
            float *made = bytes_of(&early, before.dev_params);
            pt_weight_set set = forward(&early, staleness), want = forward(&late, staleness);
            assert_ptr_equal(set.dev_params, before.dev_params);
            assert_int_not_equal(set.content, before.content);
            assert_int_equal(set.version, pt_weights_updates(early.w));
            assert_holds(&early, set.dev_params, made); /* asking for it made nothing new */
            float *asked = bytes_of(&late, want.dev_params);
            assert_memory_equal(made, asked, early.flat.param_elements * sizeof *made);
            float *theta = bytes_of(&early, pt_weights_now(early.w).dev_params);
            assert_memory_not_equal(made, theta, FEATURES * sizeof *made);
            free(made);
            free(asked);
            free(theta);
        }
    end(&early);
    end(&late);
}

/* ---- content numbers --------------------------------------------------------------------------
 */

/* A number that was given to other bytes, or at another address, would make a kernel use a stale
 * copy. Everything that a random run hands out is remembered and compared. */
static void check_content_numbers(const char *predictor, bool stash)
{
    enum { MOMENTS = 60, MOST = 4 * MOMENTS };
    fixture f;
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
    begin(&f, predictor, stash, /*training=*/true);
    for (int t = 0; t < MOMENTS; t++) {
        pt_weight_set set = pt_weights_now(f.w);
        if (pt_rng_below(&rng, 3) == 0)
            update(&f);
        if (n_held == VERSIONS)
            pt_weights_release(f.w, &held[--n_held]);
        if (n_held < VERSIONS)
            set = held[n_held++] = forward(&f, (int)pt_rng_below(&rng, 3));
        float *bytes = bytes_of(&f, set.dev_params);
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
    end(&f);
}

static void test_a_number_names_one_content(void **state)
{
    (void)state;
    check_content_numbers("none", false);
    check_content_numbers("none", true);
    check_content_numbers("msnag", false);
    check_content_numbers("msnag", true);
}

static void test_reading_changes_no_number(void **state)
{
    (void)state;
    pt_error err = {PT_OK, ""};
    float values[FEATURES * FEATURES];
    fixture f;
    begin(&f, "msnag", /*stash=*/false, /*training=*/true);
    uint64_t content = pt_weights_now(f.w).content;
    (void)forward(&f, 2);
    assert_ok(pt_weights_get_param(f.w, 0, values, &err), &err);
    assert_ok(pt_weights_get_state(f.w, 0, values, &err), &err);
    assert_int_equal(pt_weights_now(f.w).content, content);
    end(&f);
}

/* Weights that are given while a prediction of the old ones is remembered. */
static void test_given_weights_are_predicted_anew(void **state)
{
    (void)state;
    pt_error err = {PT_OK, ""};
    float values[FEATURES * FEATURES];
    fixture f;
    begin(&f, "msnag", /*stash=*/false, /*training=*/true);
    update(&f);
    uint64_t content = pt_weights_now(f.w).content;
    pt_weight_set old = forward(&f, 1);
    for (int i = 0; i < FEATURES * FEATURES; i++)
        values[i] = (float)i;
    assert_ok(pt_weights_set_param(f.w, 0, values, &err), &err);
    assert_int_not_equal(pt_weights_now(f.w).content, content);
    pt_weight_set set = forward(&f, 1);
    assert_int_not_equal(set.content, old.content);
    float *bytes = bytes_of(&f, set.dev_params);
    for (int i = 0; i < FEATURES * FEATURES; i++) /* v = 1 after one update: θ - ηγ */
        assert_true(bytes[f.flat.params[0].offset + (size_t)i] == values[i] - 0.125f);
    free(bytes);
    end(&f);
}

/* What a first run left in the moments would show in the second. */
static void test_restart_forgets(void **state)
{
    (void)state;
    pt_error err = {PT_OK, ""};
    static const char *const optimizers[] = {"sgd", "adam"};
    for (int k = 0; k < 2; k++) {
        fixture f;
        begin(&f, "msnag", /*stash=*/false, /*training=*/true);
        pt_weights_free(f.w);
        f.spec.optimizer = (pt_optimizer_spec){
            .name = optimizers[k], .momentum = 0.9, .beta1 = 0.9, .beta2 = 0.99, .eps = 1e-8};
        assert_ok(pt_weights_new(f.b, &f.spec, &f.w, &err), &err);
        float zeros[FEATURES * FEATURES] = {0}, *moved[2], *foreseen[2];
        for (int run = 0; run < 2; run++) {
            for (int i = 0; i < f.flat.n_params; i++)
                assert_ok(pt_weights_set_param(f.w, i, zeros, &err), &err);
            assert_ok(pt_weights_restart(f.w, &err), &err);
            for (int i = 0; i < 3; i++)
                update(&f);
            moved[run] = bytes_of(&f, pt_weights_now(f.w).dev_params);
            foreseen[run] = bytes_of(&f, forward(&f, 2).dev_params);
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
        end(&f);
    }
}

/* ---- weight decay -----------------------------------------------------------------------------
 */

static void check_accessors(fixture *f, bool params)
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
static void begin_sparing(fixture *f, const char *optimizer, bool spare_vectors)
{
    pt_error err = {PT_OK, ""};
    begin(f, "msnag", /*stash=*/false, /*training=*/true);
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
        fixture f;
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
        end(&f);
    }
}

/* The same run with all decayed and with none, side by side: each tensor is as in its kind's run,
 * the steps and what they foresee. */
static void check_sparing(const char *optimizer, bool spare_vectors)
{
    enum { ALL, NONE, SOME };
    pt_error err = {PT_OK, ""};
    fixture f[3];
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
            update(&f[k]);
            ahead[k] = bytes_of(&f[k], forward(&f[k], 2).dev_params);
            if (step < 2)
                free(ahead[k]);
        }
        theta[k] = bytes_of(&f[k], pt_weights_now(f[k].w).dev_params);
        asked[k] = bytes_of(&f[k], forward(&f[k], 3).dev_params);
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
        end(&f[k]);
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
    fixture f;
    begin(&f, "none", /*stash=*/false, /*training=*/true);
    check_accessors(&f, /*params=*/true);
    check_accessors(&f, /*params=*/false);
    end(&f);
}

static void test_bytes_are_as_predicted(void **state)
{
    (void)state;
    static const char *const optimizers[] = {"sgd", "adamw"};
    for (int i = 0; i < 16; i++) {
        pt_error err = {PT_OK, ""};
        fixture f;
        begin(&f, i & 1 ? "msnag" : "none", /*stash=*/i & 2, /*training=*/i & 4);
        pt_weights_free(f.w);
        f.spec.optimizer.name = optimizers[i / 8];
        assert_ok(pt_weights_new(f.b, &f.spec, &f.w, &err), &err);
        assert_int_equal(bytes_now(f.b) - f.before, pt_weights_bytes(&f.spec));
        end(&f);
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
        cmocka_unit_test(test_restart_forgets),
        cmocka_unit_test(test_decayed_parameters_come_first),
        cmocka_unit_test(test_spared_parameters_do_not_decay),
        cmocka_unit_test(test_accessors),
        cmocka_unit_test(test_bytes_are_as_predicted),
        cmocka_unit_test(test_free_takes_null),
    };
    return cmocka_run_group_tests_name("weights", tests, NULL, NULL);
}
