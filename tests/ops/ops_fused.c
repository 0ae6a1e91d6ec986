/* Batch-norm with add and relu behind it as one op has the bits of the three ops in a row; and the
 * sum of two values has those of the add op. */
#include <stdlib.h>
#include <string.h>

#include "ops_rig.h"
#include "ops_tests.h"
#include "suite.h"

#define IMAGE                                                                                      \
    {                                                                                              \
        3,                                                                                         \
        {                                                                                          \
            16, 5, 3                                                                               \
        }                                                                                          \
    }
#define FLAT                                                                                       \
    {                                                                                              \
        1,                                                                                         \
        {                                                                                          \
            7                                                                                      \
        }                                                                                          \
    }
#define NORM .kind = PT_OP_BATCH_NORM, .eps = 1e-5, .momentum = 0.1

static const ops_case forms[] = {
    {"relu", 3, {NORM, .n_inputs = 1, .in = {IMAGE}, .relu = true}},
    {"relu of vectors", 9, {NORM, .n_inputs = 1, .in = {FLAT}, .relu = true}},
    {"add", 3, {NORM, .n_inputs = 2, .in = {IMAGE, IMAGE}}},
    {"add, relu", 3, {NORM, .n_inputs = 2, .in = {IMAGE, IMAGE}, .relu = true}},
    {"add, relu of vectors", 9, {NORM, .n_inputs = 2, .in = {FLAT, FLAT}, .relu = true}},
};

/* One op of the row, alone: runs it on x (and z), and gives what comes out. */
typedef struct link {
    ops_case c;
    ops_rig *rig;
    ops_data data;
    ops_result result;
} link;

static void link_open(link *l, pt_backend *b, const ops_case *form, pt_op_kind kind, int n_inputs,
                      pt_mode mode)
{
    *l = (link){.c = *form};
    l->c.op.kind = kind;
    l->c.op.n_inputs = n_inputs;
    l->c.op.relu = false;
    l->c.op.in[1] = l->c.op.in[0];
    ops_data_new(&l->c, /*seed=*/5, &l->data);
    l->rig = ops_rig_new(b, &l->c, mode, /*inner=*/true);
}

static void link_close(link *l)
{
    ops_rig_free(l->rig);
    ops_data_free(&l->data);
    ops_result_free(&l->result);
}

static void give(ops_tensor *to, const ops_tensor *from)
{
    assert_int_equal(to->n, from->n);
    memcpy(to->at, from->at, (size_t)from->n * sizeof *from->at);
}

static const ops_tensor *d_in(const link *l, int i)
{
    return &l->result.t[1 + i];
}

static void assert_same(const char *form, const ops_tensor *one, const ops_tensor *other)
{
    assert_int_equal(one->n, other->n);
    for (int64_t i = 0; i < one->n; i++)
        if (memcmp(&one->at[i], &other->at[i], sizeof *one->at) != 0)
            fail_msg("%s: %s %s, element %lld: %.9g and in a row %.9g", form, one->name,
                     other->name, (long long)i, (double)one->at[i], (double)other->at[i]);
}

/* The row: forwards first, as each gradient needs the outputs. */
static void run_row(link *norm, link *add, link *relu, const ops_data *fused)
{
    const ops_tensor *y;
    give(&norm->data.in[0], &fused->in[0]);
    for (int i = 0; i < 2; i++) {
        give(&norm->data.param[i], &fused->param[i]);
        give(&norm->data.state[i], &fused->state[i]);
        give(&norm->data.d_param[i], &fused->d_param[i]);
    }
    y = ops_rig_forward(norm->rig, &norm->data, 0);
    if (add) {
        give(&add->data.in[0], y);
        give(&add->data.in[1], &fused->in[1]);
        y = ops_rig_forward(add->rig, &add->data, 0);
    }
    if (relu)
        give(&relu->data.in[0], y);
    const ops_tensor *dy = &fused->d_out;
    if (relu) {
        give(&relu->data.d_out, dy);
        ops_rig_run(relu->rig, &relu->data, 0, &relu->result);
        dy = d_in(relu, 0);
    }
    if (add) {
        give(&add->data.d_out, dy);
        ops_rig_run(add->rig, &add->data, 0, &add->result);
        dy = d_in(add, 0);
    }
    give(&norm->data.d_out, dy);
    ops_rig_run(norm->rig, &norm->data, 0, &norm->result);
}

static void check_training(pt_backend *b, const ops_case *form)
{
    link norm, add, relu;
    bool adds = form->op.n_inputs > 1;
    ops_data data;
    ops_result got;
    ops_data_new(form, /*seed=*/6, &data);
    link_open(&norm, b, form, PT_OP_BATCH_NORM, 1, PT_TRAIN);
    link_open(&add, b, form, PT_OP_ADD, 2, PT_TRAIN);
    link_open(&relu, b, form, PT_OP_RELU, 1, PT_TRAIN);
    ops_rig *rig = ops_rig_new(b, form, PT_TRAIN, /*inner=*/true);
    ops_rig_run(rig, &data, 0, &got);
    run_row(&norm, adds ? &add : NULL, form->op.relu ? &relu : NULL, &data);
    const link *last = form->op.relu ? &relu : &add;
    assert_same(form->name, &got.t[0], &last->result.t[0]);
    assert_same(form->name, &got.t[1], d_in(&norm, 0));
    if (adds)
        assert_same(form->name, &got.t[2], d_in(&add, 1));
    for (int i = 0; i < 4; i++) /* two parameters' gradients and two states */
        assert_same(form->name, &got.t[1 + form->op.n_inputs + i], &norm.result.t[2 + i]);
    link_close(&norm);
    link_close(&add);
    link_close(&relu);
    ops_rig_free(rig);
    ops_result_free(&got);
    ops_data_free(&data);
}

static void check_evaluation(pt_backend *b, const ops_case *form)
{
    link norm, add, relu;
    ops_data data;
    ops_data_new(form, /*seed=*/7, &data);
    link_open(&norm, b, form, PT_OP_BATCH_NORM, 1, PT_EVAL);
    link_open(&add, b, form, PT_OP_ADD, 2, PT_EVAL);
    link_open(&relu, b, form, PT_OP_RELU, 1, PT_EVAL);
    ops_rig *rig = ops_rig_new(b, form, PT_EVAL, /*inner=*/true);
    give(&norm.data.in[0], &data.in[0]);
    for (int i = 0; i < 2; i++) {
        give(&norm.data.param[i], &data.param[i]);
        give(&norm.data.state[i], &data.state[i]);
    }
    const ops_tensor *y = ops_rig_forward(norm.rig, &norm.data, 0);
    if (form->op.n_inputs > 1) {
        give(&add.data.in[0], y);
        give(&add.data.in[1], &data.in[1]);
        y = ops_rig_forward(add.rig, &add.data, 0);
    }
    if (form->op.relu) {
        give(&relu.data.in[0], y);
        y = ops_rig_forward(relu.rig, &relu.data, 0);
    }
    for (unsigned variant = 0; variant <= OPS_IN_PLACE; variant += OPS_IN_PLACE)
        assert_same(form->name, ops_rig_forward(rig, &data, variant), y);
    link_close(&norm);
    link_close(&add);
    link_close(&relu);
    ops_rig_free(rig);
    ops_data_free(&data);
}

void ops_test_sums(void **state)
{
    enum { SAMPLES = 3 };
    static const ops_case both = {
        "sum", SAMPLES, {.kind = PT_OP_ADD, .n_inputs = 2, .in = {IMAGE, IMAGE}}};
    const ops_subject *s = *state;
    pt_backend *b = ops_open(s->row, 1);
    const pt_shape *shape = &both.op.in[0];
    pt_error err = {PT_OK, ""};
    ops_data data;
    ops_data_new(&both, /*seed=*/8, &data);
    ops_rig *rig = ops_rig_new(b, &both, PT_EVAL, /*inner=*/true);
    const pt_layout *inner = ops_rig_kernel(rig)->out;
    pt_layout *plain = NULL;
    void *dev_plain = NULL, *dev[2] = {NULL, NULL};
    assert_ok(s->row->plain_layout(b, shape, SAMPLES, &plain, &err), &err);
    assert_ok(s->row->dev_new(b, plain->bytes, &dev_plain, &err), &err);
    for (int i = 0; i < 2; i++) {
        assert_ok(s->row->dev_new(b, inner->bytes, &dev[i], &err), &err);
        assert_ok(s->row->upload(b, dev_plain, data.in[i].at, plain->bytes, &err), &err);
        assert_ok(s->row->reorder(b, shape, SAMPLES, plain, dev_plain, inner, dev[i], &err), &err);
    }
    assert_ok(s->row->add(b, inner, dev[0], dev[1], dev[1], &err), &err); /* out is y */
    assert_ok(s->row->reorder(b, shape, SAMPLES, inner, dev[1], plain, dev_plain, &err), &err);
    assert_ok(s->row->download(b, data.d_out.at, dev_plain, plain->bytes, &err), &err);
    assert_same("sum", &data.d_out, ops_rig_forward(rig, &data, 0));
    s->row->dev_free(b, dev_plain);
    s->row->dev_free(b, dev[0]);
    s->row->dev_free(b, dev[1]);
    s->row->layout_free(b, plain);
    ops_rig_free(rig);
    ops_data_free(&data);
    s->row->close(b);
}

void ops_test_fused(void **state)
{
    const ops_subject *s = *state;
    int checked = 0;
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        if (!s->row->supports(&forms[i].op))
            continue;
        pt_backend *b = ops_open(s->row, 1);
        check_training(b, &forms[i]);
        check_evaluation(b, &forms[i]);
        s->row->close(b);
        checked++;
    }
    if (checked == 0)
        print_message("# %s does not fuse batch-norm\n", s->row->name);
}
