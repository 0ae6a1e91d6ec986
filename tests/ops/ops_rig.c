/* See ops_rig.h. Device memory is touched through upload, download and reorder only. */
#include "ops_rig.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ops_tests.h"
#include "pipetrain/rng.h"
#include "suite.h"

enum { MOST_SAMPLES = 64 };

struct ops_rig {
    pt_backend *b;
    const pt_backend_row *row;
    pt_op op;
    int samples;
    uint64_t version; /* of the parameters: grows with every upload */
    void *dev_sample;
    pt_layout *plain_in[PT_MAX_INPUTS], *plain_out;
    pt_kernel *producer[PT_MAX_INPUTS]; /* NULL: the input is plain */
    const pt_layout *in[PT_MAX_INPUTS];
    pt_kernel *k;
    pt_op_tensor param[PT_MAX_PARAMS], state[PT_MAX_STATE];
    int n_params, n_states;
    void *dev_plain; /* where a value passes on its way in and out */
    void *dev_in[PT_MAX_INPUTS], *dev_out, *dev_saved, *dev_d_out, *dev_d_in[PT_MAX_INPUTS];
    void *dev_param[PT_MAX_PARAMS], *dev_d_param[PT_MAX_PARAMS], *dev_state[PT_MAX_STATE];
    ops_tensor out; /* plain, host */
};

/* ---- data -------------------------------------------------------------------------------------
 */

static ops_tensor tensor_new(const char *name, int number, int64_t n)
{
    ops_tensor t = {.n = n, .at = calloc((size_t)n, sizeof(float))};
    assert_non_null(t.at);
    snprintf(t.name, sizeof t.name, number ? "%s %d" : "%s", name, number);
    return t;
}

static void fill_normal(ops_tensor *t, pt_rng *rng)
{
    for (int64_t i = 0; i < t->n; i++)
        t->at[i] = pt_rng_normal(rng);
}

/* Values that keep their side of zero when finite differences move them by 1/16. */
static void fill_off_zero(ops_tensor *t, pt_rng *rng)
{
    fill_normal(t, rng);
    for (int64_t i = 0; i < t->n; i++)
        t->at[i] += t->at[i] < 0 ? -0.25f : 0.25f;
}

/* Values a quarter apart in random order, so that no maximum changes hands. */
static void fill_distinct(ops_tensor *t, pt_rng *rng)
{
    for (int64_t i = 0; i < t->n; i++) {
        int64_t j = pt_rng_below(rng, (uint32_t)(i + 1));
        t->at[i] = t->at[j];
        t->at[j] = 0.25f * (float)(i - t->n / 2);
    }
}

/* Numbers that bf16 can tell, so that a maximum is the same for ref: to nearest, ties to even. */
static void round_to_precision(ops_tensor *t)
{
    for (int64_t i = 0; i < t->n && ops_precision == PT_BF16; i++) {
        uint32_t bits;
        memcpy(&bits, &t->at[i], sizeof bits);
        bits = (bits + 0x7fffu + (bits >> 16 & 1u)) & 0xffff0000u;
        memcpy(&t->at[i], &bits, sizeof bits);
    }
}

static void fill_input(pt_op_kind kind, ops_tensor *t, pt_rng *rng)
{
    if (kind == PT_OP_RELU)
        fill_off_zero(t, rng);
    else if (kind == PT_OP_MAX_POOL)
        fill_distinct(t, rng);
    else
        fill_normal(t, rng);
    round_to_precision(t);
}

/* Rows are not numbered as the data set is. */
uint32_t ops_sample(int n)
{
    return (uint32_t)(n * 7919 % 1000 + 65536 * (n % 3));
}

pt_op ops_infer(const ops_case *c)
{
    pt_error err = {PT_OK, ""};
    pt_op op = c->op;
    if (op.kind == PT_OP_BATCH_NORM)
        op.n_inputs = 1; /* files know the short form only */
    assert_ok(pt_op_infer(&op, &err), &err);
    op.n_inputs = c->op.n_inputs;
    return op;
}

void ops_data_new(const ops_case *c, uint64_t seed, ops_data *ret_data)
{
    const pt_op op = ops_infer(c);
    ops_data data = {0};
    pt_rng rng;
    pt_rng_init(&rng, seed, PT_RNG_CHECK, 0, 0);
    for (int i = 0; i < op.n_inputs; i++) {
        data.in[i] = tensor_new("in", i + 1, c->samples * pt_shape_elements(&op.in[i]));
        fill_input(op.kind, &data.in[i], &rng);
    }
    data.d_out = tensor_new("d_out", 0, c->samples * pt_shape_elements(&op.out));
    fill_normal(&data.d_out, &rng);
    round_to_precision(&data.d_out);
    pt_op_tensor list[PT_MAX_PARAMS];
    for (int i = 0; i < pt_op_params(&op, list); i++) {
        data.param[i] = tensor_new(list[i].name, 0, list[i].elements);
        data.d_param[i] = tensor_new("d_param", i + 1, list[i].elements);
        fill_normal(&data.param[i], &rng);
        fill_normal(&data.d_param[i], &rng);
    }
    pt_op_tensor state[PT_MAX_STATE];
    for (int i = 0; i < pt_op_state(&op, state); i++) {
        data.state[i] = tensor_new(state[i].name, 0, state[i].elements);
        for (int64_t e = 0; e < state[i].elements; e++) /* variances are above 0 */
            data.state[i].at[e] = i == 0 ? pt_rng_normal(&rng) : 0.5f + pt_rng_unit(&rng);
    }
    *ret_data = data;
}

void ops_data_free(ops_data *data)
{
    for (int i = 0; i < PT_MAX_INPUTS; i++)
        free(data->in[i].at);
    for (int i = 0; i < PT_MAX_PARAMS; i++) {
        free(data->param[i].at);
        free(data->d_param[i].at);
    }
    for (int i = 0; i < PT_MAX_STATE; i++)
        free(data->state[i].at);
    free(data->d_out.at);
    *data = (ops_data){0};
}

void ops_result_free(ops_result *result)
{
    for (int i = 0; i < result->n; i++)
        free(result->t[i].at);
    *result = (ops_result){0};
}

/* ---- memory -----------------------------------------------------------------------------------
 */

static void *dev_new(ops_rig *rig, size_t bytes)
{
    pt_error err = {PT_OK, ""};
    void *dev = NULL;
    assert_ok(rig->row->dev_new(rig->b, bytes, &dev, &err), &err);
    return dev;
}

static void put_flat(ops_rig *rig, void *dev, const ops_tensor *t)
{
    pt_error err = {PT_OK, ""};
    assert_ok(rig->row->upload(rig->b, dev, t->at, (size_t)t->n * sizeof(float), &err), &err);
}

static void get_flat(ops_rig *rig, const void *dev, const ops_tensor *t)
{
    pt_error err = {PT_OK, ""};
    assert_ok(rig->row->finish(rig->b, &err), &err);
    assert_ok(rig->row->download(rig->b, t->at, dev, (size_t)t->n * sizeof(float), &err), &err);
}

static void put(ops_rig *rig, const pt_shape *shape, const pt_layout *plain,
                const pt_layout *layout, void *dev, const ops_tensor *t)
{
    pt_error err = {PT_OK, ""};
    put_flat(rig, rig->dev_plain, t);
    assert_ok(
        rig->row->reorder(rig->b, shape, rig->samples, plain, rig->dev_plain, layout, dev, &err),
        &err);
}

static void get(ops_rig *rig, const pt_shape *shape, const pt_layout *plain,
                const pt_layout *layout, const void *dev, const ops_tensor *t)
{
    pt_error err = {PT_OK, ""};
    assert_ok(
        rig->row->reorder(rig->b, shape, rig->samples, layout, dev, plain, rig->dev_plain, &err),
        &err);
    get_flat(rig, rig->dev_plain, t);
}

/* ---- planning ---------------------------------------------------------------------------------
 */

static pt_layout *plain_layout(ops_rig *rig, const pt_shape *shape)
{
    pt_error err = {PT_OK, ""};
    pt_layout *layout = NULL;
    assert_ok(rig->row->plain_layout(rig->b, shape, rig->samples, &layout, &err), &err);
    return layout;
}

static pt_kernel *plan(ops_rig *rig, const pt_op *op, pt_mode mode, const pt_layout *const in[])
{
    pt_error err = {PT_OK, ""};
    pt_kernel *k = NULL;
    assert_true(rig->row->supports(op));
    assert_ok(rig->row->plan(rig->b, op, rig->samples, mode, in, &k, &err), &err);
    return k;
}

/* A layer that gives values of this shape in the layout that the backend likes best. */
static pt_kernel *plan_producer(ops_rig *rig, const pt_shape *shape, pt_mode mode,
                                const pt_layout *plain)
{
    pt_error err = {PT_OK, ""};
    pt_op op = {.n_inputs = 1, .in = {*shape}};
    pt_op_defaults(&op, shape->ndim == 3 ? PT_OP_CONV2D : PT_OP_LINEAR);
    op.features = shape->dims[0];
    op.kernel[0] = op.kernel[1] = 1;
    assert_ok(pt_op_infer(&op, &err), &err);
    return plan(rig, &op, mode, &plain);
}

static void new_buffers(ops_rig *rig)
{
    const pt_op *op = &rig->op;
    size_t plain = rig->plain_out->bytes;
    for (int i = 0; i < op->n_inputs; i++) {
        rig->dev_in[i] = dev_new(rig, rig->in[i]->bytes);
        rig->dev_d_in[i] = dev_new(rig, rig->in[i]->bytes);
        if (rig->plain_in[i]->bytes > plain)
            plain = rig->plain_in[i]->bytes;
    }
    uint32_t sample[MOST_SAMPLES];
    pt_error err = {PT_OK, ""};
    for (int n = 0; n < rig->samples; n++)
        sample[n] = ops_sample(n);
    size_t bytes = (size_t)rig->samples * sizeof *sample;
    rig->dev_sample = dev_new(rig, bytes);
    assert_ok(rig->row->upload(rig->b, rig->dev_sample, sample, bytes, &err), &err);
    rig->dev_plain = dev_new(rig, plain);
    rig->dev_out = dev_new(rig, rig->k->out->bytes);
    rig->dev_d_out = dev_new(rig, rig->k->out->bytes);
    if (rig->k->saved_bytes > 0)
        rig->dev_saved = dev_new(rig, rig->k->saved_bytes);
    for (int i = 0; i < rig->n_params; i++) {
        rig->dev_param[i] = dev_new(rig, (size_t)rig->param[i].elements * sizeof(float));
        rig->dev_d_param[i] = dev_new(rig, (size_t)rig->param[i].elements * sizeof(float));
    }
    for (int i = 0; i < rig->n_states; i++)
        rig->dev_state[i] = dev_new(rig, (size_t)rig->state[i].elements * sizeof(float));
    rig->out = tensor_new("out", 0, rig->samples * pt_shape_elements(&op->out));
}

ops_rig *ops_rig_new(pt_backend *b, const ops_case *c, pt_mode mode, bool inner)
{
    pt_error err = {PT_OK, ""};
    ops_rig *rig = calloc(1, sizeof *rig);
    assert_non_null(rig);
    rig->b = b;
    rig->row = b->row;
    rig->op = ops_infer(c);
    rig->samples = c->samples;
    assert_in_range(rig->samples, 1, MOST_SAMPLES);
    for (int i = 0; i < rig->op.n_inputs; i++) {
        rig->plain_in[i] = plain_layout(rig, &rig->op.in[i]);
        if (inner)
            rig->producer[i] = plan_producer(rig, &rig->op.in[i], mode, rig->plain_in[i]);
        rig->in[i] = inner ? rig->producer[i]->out : rig->plain_in[i];
    }
    rig->plain_out = plain_layout(rig, &rig->op.out);
    rig->k = plan(rig, &rig->op, mode, rig->in);
    assert_ok(rig->row->build(rig->k, &err), &err);
    assert_true(rig->k->built);
    rig->n_params = pt_op_params(&rig->op, rig->param);
    rig->n_states = pt_op_state(&rig->op, rig->state);
    new_buffers(rig);
    return rig;
}

void ops_rig_free(ops_rig *rig)
{
    const pt_backend_row *row = rig->row;
    row->release(rig->k);
    for (int i = 0; i < PT_MAX_INPUTS; i++) {
        row->release(rig->producer[i]);
        row->layout_free(rig->b, rig->plain_in[i]);
        row->dev_free(rig->b, rig->dev_in[i]);
        row->dev_free(rig->b, rig->dev_d_in[i]);
    }
    for (int i = 0; i < PT_MAX_PARAMS; i++) {
        row->dev_free(rig->b, rig->dev_param[i]);
        row->dev_free(rig->b, rig->dev_d_param[i]);
    }
    for (int i = 0; i < PT_MAX_STATE; i++)
        row->dev_free(rig->b, rig->dev_state[i]);
    void *rest[] = {rig->dev_sample, rig->dev_plain, rig->dev_out, rig->dev_saved, rig->dev_d_out};
    for (int i = 0; i < 5; i++)
        row->dev_free(rig->b, rest[i]);
    row->layout_free(rig->b, rig->plain_out);
    free(rig->out.at);
    free(rig);
}

const pt_kernel *ops_rig_kernel(const ops_rig *rig)
{
    return rig->k;
}

bool ops_rig_can_run_in_place(const ops_rig *rig)
{
    return (rig->k->flags & PT_MAY_RUN_IN_PLACE) && rig->row->layout_equal(rig->in[0], rig->k->out);
}

/* ---- running ----------------------------------------------------------------------------------
 */

static pt_kernel_args forward_args(const ops_rig *rig, unsigned variant)
{
    pt_kernel_args args = {
        .dev_out = variant & OPS_IN_PLACE ? rig->dev_in[0] : rig->dev_out,
        .dev_saved = rig->dev_saved,
        .again = variant & OPS_AGAIN,
        .param_version = rig->version,
        .seed = OPS_SEED,
        .epoch = OPS_EPOCH,
        .dev_sample = rig->dev_sample,
    };
    for (int i = 0; i < rig->op.n_inputs; i++)
        args.dev_in[i] = rig->dev_in[i];
    for (int i = 0; i < rig->n_params; i++)
        args.dev_param[i] = rig->dev_param[i];
    for (int i = 0; i < rig->n_states; i++)
        args.dev_state[i] = rig->dev_state[i];
    return args;
}

const ops_tensor *ops_rig_forward(ops_rig *rig, const ops_data *data, unsigned variant)
{
    pt_error err = {PT_OK, ""};
    for (int i = 0; i < rig->op.n_inputs; i++)
        put(rig, &rig->op.in[i], rig->plain_in[i], rig->in[i], rig->dev_in[i], &data->in[i]);
    for (int i = 0; i < rig->n_params; i++)
        put_flat(rig, rig->dev_param[i], &data->param[i]);
    for (int i = 0; i < rig->n_states; i++)
        put_flat(rig, rig->dev_state[i], &data->state[i]);
    rig->version++;
    pt_kernel_args args = forward_args(rig, variant);
    assert_ok(rig->row->forward(rig->k, &args, &err), &err);
    get(rig, &rig->op.out, rig->plain_out, rig->k->out, args.dev_out, &rig->out);
    return &rig->out;
}

static void backward(ops_rig *rig, const ops_data *data, unsigned variant)
{
    pt_error err = {PT_OK, ""};
    const unsigned flags = rig->k->flags;
    pt_kernel_args all = forward_args(rig, variant), args = all;
    put(rig, &rig->op.out, rig->plain_out, rig->k->out, rig->dev_d_out, &data->d_out);
    for (int i = 0; i < rig->n_params; i++)
        put_flat(rig, rig->dev_d_param[i], &data->d_param[i]);
    args.accumulate = variant & OPS_ACCUMULATE;
    args.dev_d_out = rig->dev_d_out;
    for (int i = 0; i < rig->op.n_inputs; i++) {
        args.dev_in[i] = flags & PT_READS_INPUT_FOR_INPUT ? all.dev_in[i] : NULL;
        args.dev_d_in[i] = rig->dev_d_in[i];
    }
    if (variant & OPS_IN_PLACE)
        args.dev_d_in[0] = rig->dev_d_out;
    if (variant & OPS_FEWER_GRADIENTS)
        args.dev_d_in[0] = NULL;
    args.dev_out = flags & PT_READS_OUTPUT_FOR_INPUT ? all.dev_out : NULL;
    for (int i = 0; i < rig->n_params; i++)
        args.dev_d_param[i] = flags & PT_SPLITS_BACKWARD ? NULL : rig->dev_d_param[i];
    assert_ok(rig->row->backward_input(rig->k, &args, &err), &err);
    if (!(flags & PT_SPLITS_BACKWARD))
        return;
    for (int i = 0; i < rig->op.n_inputs; i++) {
        args.dev_in[i] = flags & PT_READS_INPUT_FOR_WEIGHT ? all.dev_in[i] : NULL;
        args.dev_d_in[i] = NULL;
    }
    args.dev_out = NULL;
    for (int i = 0; i < rig->n_params; i++)
        args.dev_d_param[i] = rig->dev_d_param[i];
    assert_ok(rig->row->backward_weight(rig->k, &args, &err), &err);
}

static void read_gradients(ops_rig *rig, unsigned variant, ops_result *result)
{
    for (int i = 0; i < rig->op.n_inputs; i++) {
        ops_tensor t =
            tensor_new("gradient of in", i + 1, rig->samples * pt_shape_elements(&rig->op.in[i]));
        bool in_place = i == 0 && (variant & OPS_IN_PLACE);
        if (i > 0 || !(variant & OPS_FEWER_GRADIENTS))
            get(rig, &rig->op.in[i], rig->plain_in[i], rig->in[i],
                in_place ? rig->dev_d_out : rig->dev_d_in[i], &t);
        result->t[result->n++] = t;
    }
    for (int i = 0; i < rig->n_params; i++) {
        ops_tensor t = tensor_new("gradient of parameter", i + 1, rig->param[i].elements);
        get_flat(rig, rig->dev_d_param[i], &t);
        result->t[result->n++] = t;
    }
}

void ops_rig_run(ops_rig *rig, const ops_data *data, unsigned variant, ops_result *ret_result)
{
    ops_result result = {0};
    const ops_tensor *out = ops_rig_forward(rig, data, variant);
    result.t[result.n] = tensor_new("out", 0, out->n);
    memcpy(result.t[result.n++].at, out->at, (size_t)out->n * sizeof(float));
    if (rig->k->mode == PT_TRAIN) {
        backward(rig, data, variant);
        read_gradients(rig, variant, &result);
    }
    for (int i = 0; i < rig->n_states; i++) {
        ops_tensor t = tensor_new(rig->state[i].name, 0, rig->state[i].elements);
        get_flat(rig, rig->dev_state[i], &t);
        result.t[result.n++] = t;
    }
    *ret_result = result;
}

static bool equal_bytes(ops_rig *rig, const void *dev_a, const void *dev_b, size_t bytes)
{
    pt_error err = {PT_OK, ""};
    char *a = malloc(bytes), *b = malloc(bytes);
    assert_non_null(a);
    assert_non_null(b);
    assert_ok(rig->row->download(rig->b, a, dev_a, bytes, &err), &err);
    assert_ok(rig->row->download(rig->b, b, dev_b, bytes, &err), &err);
    bool equal = memcmp(a, b, bytes) == 0;
    free(a);
    free(b);
    return equal;
}

bool ops_rig_passes_value(ops_rig *rig)
{
    return rig->in[0]->bytes == rig->k->out->bytes &&
           equal_bytes(rig, rig->dev_in[0], rig->dev_out, rig->k->out->bytes);
}

bool ops_rig_passes_gradient(ops_rig *rig, int input)
{
    return rig->in[input]->bytes == rig->k->out->bytes &&
           equal_bytes(rig, rig->dev_d_in[input], rig->dev_d_out, rig->k->out->bytes);
}
