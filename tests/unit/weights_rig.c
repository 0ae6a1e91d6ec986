#include "weights_rig.h"

#include <stdlib.h>
#include <string.h>

#include "backend_row.h"
#include "random_graph.h"
#include "suite.h"

size_t weights_bytes_now(const pt_backend *b)
{
    size_t now = 0, peak = 0;
    b->row->memory(b, &now, &peak);
    return now;
}

void weights_begin(weights_rig *f, const char *predictor, bool stash, bool training)
{
    pt_error err = {PT_OK, ""};
    pt_backend_config config = {.threads = 1};
    *f = (weights_rig){0};
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
    f->before = weights_bytes_now(f->b);
    assert_ok(pt_weights_new(f->b, &f->spec, &f->w, &err), &err);
}

void weights_again(weights_rig *f)
{
    pt_error err = {PT_OK, ""};
    pt_weights_free(f->w);
    assert_ok(pt_weights_new(f->b, &f->spec, &f->w, &err), &err);
}

void weights_end(weights_rig *f)
{
    pt_weights_free(f->w);
    assert_int_equal(weights_bytes_now(f->b), f->before);
    pt_flat_clear(&f->flat);
    pt_graph_clear(&f->graph);
    f->b->row->close(f->b);
}

float *weights_bytes_of(const weights_rig *f, const float *dev)
{
    pt_error err = {PT_OK, ""};
    float *host = malloc(f->flat.param_elements * sizeof *host);
    assert_non_null(host);
    assert_ok(f->b->row->download(f->b, host, dev, f->flat.param_elements * sizeof *host, &err),
              &err);
    return host;
}

double weights_value_of(const weights_rig *f, const float *dev)
{
    float *got = weights_bytes_of(f, dev);
    double value = (double)got[0];
    for (size_t i = 0; i < f->flat.param_elements; i++)
        assert_true(got[i] == got[0]);
    free(got);
    return value;
}

void assert_holds(const weights_rig *f, const float *dev, const float *want)
{
    float *got = weights_bytes_of(f, dev);
    assert_memory_equal(got, want, f->flat.param_elements * sizeof *got);
    free(got);
}

void weights_update(weights_rig *f)
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
    f->gathered = 0;
    free(ones);
}

void weights_backward(weights_rig *f)
{
    pt_error err = {PT_OK, ""};
    pt_weight_set now = pt_weights_now(f->w);
    pt_gradient_place place = pt_weights_gradient_place(f->w, &now, f->gathered > 0);
    float *gradient = weights_bytes_of(f, place.dev);
    for (size_t i = 0; i < f->flat.param_elements; i++)
        gradient[i] = (float)(f->gathered + 1);
    assert_ok(f->b->row->upload(f->b, place.dev, gradient,
                                f->flat.param_elements * sizeof *gradient, &err),
              &err);
    assert_ok(pt_weights_take_gradient(f->w, &now, f->gathered > 0, &err), &err);
    f->gathered++;
    free(gradient);
}

pt_weight_set weights_forward(weights_rig *f, int staleness)
{
    pt_error err = {PT_OK, ""};
    pt_weight_set set;
    assert_ok(pt_weights_for_forward(f->w, staleness, &set, &err), &err);
    return set;
}

void assert_same_set(pt_weight_set a, pt_weight_set b)
{
    assert_ptr_equal(a.dev_params, b.dev_params);
    assert_int_equal(a.content, b.content);
    assert_int_equal(a.stash_slot, b.stash_slot);
}
