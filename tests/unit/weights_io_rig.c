#include "weights_io_rig.h"

#include <stdlib.h>
#include <string.h>

#include "backend_row.h"
#include "suite.h"

#include "pipetrain/init.h"
#include "pipetrain/weights_io.h"
#include "random_graph.h"

int rig_begin(void **state)
{
    pt_error err = {PT_OK, ""};
    pt_backend_config config = {.threads = 1};
    fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    assert_int_equal(make_folder(NULL), 0);
    assert_ok(backend_row("ref")->open(&config, &f->b, &err), &err);
    graph_begin(&f->graph, (pt_shape){.ndim = 3, .dims = {2, 4, 4}}, RIG_CLASSES);
    pt_op conv = graph_op(PT_OP_CONV2D), linear = graph_op(PT_OP_LINEAR);
    conv.features = 4;
    conv.kernel[0] = 3;
    conv.kernel[1] = 1;
    linear.features = RIG_CLASSES;
    int value = graph_add1(&f->graph, conv, 0);
    value = graph_add1(&f->graph, graph_op(PT_OP_BATCH_NORM), value);
    value = graph_add1(&f->graph, graph_op(PT_OP_RELU), value);
    value = graph_add1(&f->graph, graph_op(PT_OP_FLATTEN), value);
    graph_add1(&f->graph, linear, value);
    static const char *const names[] = {"group1.0.conv", "bn", "relu", "flat", "fc"};
    for (int i = 0; i < f->graph.n_nodes; i++) {
        free(f->graph.nodes[i].name);
        f->graph.nodes[i].name = strdup(names[i]);
        assert_non_null(f->graph.nodes[i].name);
    }
    *state = f;
    return 0;
}

int rig_end(void **state)
{
    fixture *f = *state;
    pt_graph_clear(&f->graph);
    f->b->row->close(f->b);
    free(f);
    return remove_folder(NULL);
}

part part_new(const fixture *f, int first, int last)
{
    pt_error err = {PT_OK, ""};
    part p = {.flat = malloc(sizeof *p.flat)};
    assert_non_null(p.flat);
    assert_ok(pt_flat_init(p.flat, &f->graph, first, last, &err), &err);
    pt_weights_spec spec = {
        .flat = p.flat,
        .optimizer = {.name = "sgd"},
        .predictor = pt_predictor_find("none"),
        .lr = {.schedule = "constant"},
    };
    assert_ok(pt_weights_new(f->b, &spec, &p.w, &err), &err);
    return p;
}

void part_free(part *p)
{
    pt_weights_free(p->w);
    pt_flat_clear(p->flat);
    free(p->flat);
}

part whole_new(const fixture *f)
{
    part p = part_new(f, 0, f->graph.n_nodes);
    assert_int_equal(p.flat->n_params + p.flat->n_state, RIG_TENSORS);
    return p;
}

part whole_random(const fixture *f, uint64_t seed)
{
    pt_error err = {PT_OK, ""};
    part p = whole_new(f);
    assert_ok(pt_weights_randomise(p.w, p.flat, &f->graph, PT_INIT_PYTORCH, seed, &err), &err);
    float var[4] = {1.5f, 2.5f, 3.5f, 4.5f}; /* no two tensors are equal */
    assert_ok(pt_weights_set_state(p.w, 1, var, &err), &err);
    return p;
}

float *tensor(const part *p, bool param, int i)
{
    pt_error err = {PT_OK, ""};
    const pt_flat_tensor *t = param ? &p->flat->params[i] : &p->flat->state[i];
    float *at = calloc((size_t)t->shape.elements, sizeof *at);
    assert_non_null(at);
    assert_ok(param ? pt_weights_get_param(p->w, i, at, &err)
                    : pt_weights_get_state(p->w, i, at, &err),
              &err);
    return at;
}

bool same_tensor(const part *a, const part *b, bool param, int i)
{
    const pt_flat_tensor *t = param ? &a->flat->params[i] : &a->flat->state[i];
    float *x = tensor(a, param, i), *y = tensor(b, param, i);
    bool same = memcmp(x, y, (size_t)t->shape.elements * sizeof *x) == 0;
    free(x);
    free(y);
    return same;
}

void assert_same_weights(const part *a, const part *b)
{
    for (int i = 0; i < a->flat->n_params; i++)
        assert_true(same_tensor(a, b, true, i));
    for (int i = 0; i < a->flat->n_state; i++)
        assert_true(same_tensor(a, b, false, i));
}

void save(const fixture *f, const part *p)
{
    pt_error err = {PT_OK, ""};
    assert_ok(pt_weights_save(p->w, p->flat, &f->graph, folder, &err), &err);
}
