/* The cuda backend on the fake runtime (fake/fake.h) when calls fail: the first, the second, … of
 * every sort in turn, through a training step of a small network. Each failure comes back as one
 * status with one message, and nothing is left behind. */
#include <stdlib.h>
#include <string.h>

#include "backend_row.h"
#include "fake/fake.h"
#include "pipetrain/backend.h"
#include "suite.h"

enum { SAMPLES = 3, CLASSES = 5, LAYERS = 9, MOST = 64 };

/* Whatever a step holds; released in one place, from any state. */
typedef struct step {
    pt_backend *b;
    pt_layout *outside;
    pt_kernel *k[LAYERS];
    void *dev[MOST], *host[MOST];
    int n_dev, n_host;
    pt_event *event;
    void *value[LAYERS + 1], *gradient[LAYERS + 1], *saved[LAYERS]; /* value i goes into layer i */
    void *param[LAYERS][PT_MAX_PARAMS], *d_param[LAYERS][PT_MAX_PARAMS];
    void *state[LAYERS][PT_MAX_STATE];
    void *sample, *label;
    void *host_image;
    pt_loss_result *host_result;
} step;

static const pt_op ops[LAYERS] = {
    {.kind = PT_OP_CONV2D,
     .features = 4,
     .kernel = {3, 3},
     .stride = {1, 1},
     .padding = {1, 1},
     .groups = 1,
     .bias = true},
    {.kind = PT_OP_BATCH_NORM, .eps = 1e-5, .momentum = 0.1},
    {.kind = PT_OP_RELU},
    {.kind = PT_OP_MAX_POOL, .kernel = {2, 2}, .stride = {2, 2}},
    {.kind = PT_OP_AVG_POOL, .kernel = {2, 2}, .stride = {1, 1}},
    {.kind = PT_OP_FLATTEN},
    {.kind = PT_OP_GELU},
    {.kind = PT_OP_DROPOUT, .p = 0.25},
    {.kind = PT_OP_LINEAR, .features = CLASSES, .bias = true},
};
static const pt_shape image = {3, {2, 6, 6}};

/* ---- building --------------------------------------------------------------------------------
 */

static pt_status device(step *s, size_t bytes, void **ret_dev, pt_error *err)
{
    assert_in_range(s->n_dev, 0, MOST - 1);
    PT_TRY(s->b->row->dev_new(s->b, bytes, &s->dev[s->n_dev], err));
    *ret_dev = s->dev[s->n_dev++];
    return PT_OK;
}

static pt_status pinned(step *s, size_t bytes, void **ret_host, pt_error *err)
{
    assert_in_range(s->n_host, 0, MOST - 1);
    PT_TRY(s->b->row->host_new(s->b, bytes, &s->host[s->n_host], err));
    *ret_host = s->host[s->n_host++];
    return PT_OK;
}

static pt_status plan(step *s, pt_error *err)
{
    const pt_backend_row *row = s->b->row;
    const pt_shape *shape = &image;
    PT_TRY(row->plain_layout(s->b, &image, SAMPLES, &s->outside, err));
    for (int i = 0; i < LAYERS; i++) {
        const pt_layout *in = i == 0 ? s->outside : s->k[i - 1]->out;
        pt_op op = ops[i];
        op.n_inputs = 1;
        op.in[0] = *shape;
        op.layer = (uint32_t)i;
        PT_TRY(pt_op_infer(&op, err));
        PT_TRY(row->plan(s->b, &op, SAMPLES, PT_TRAIN, &in, &s->k[i], err));
        shape = &s->k[i]->op.out;
    }
    return PT_OK;
}

static pt_status allocate_layer(step *s, int i, pt_error *err)
{
    pt_op_tensor list[PT_MAX_PARAMS], state[PT_MAX_STATE];
    const pt_kernel *k = s->k[i];
    int params = pt_op_params(&k->op, list), states = pt_op_state(&k->op, state);
    PT_TRY(device(s, k->out->bytes, &s->value[i + 1], err));
    PT_TRY(device(s, k->out->bytes, &s->gradient[i + 1], err));
    if (k->saved_bytes > 0)
        PT_TRY(device(s, k->saved_bytes, &s->saved[i], err));
    for (int j = 0; j < params; j++) {
        size_t bytes = (size_t)list[j].elements * sizeof(float);
        PT_TRY(device(s, bytes, &s->param[i][j], err));
        PT_TRY(device(s, bytes, &s->d_param[i][j], err));
    }
    for (int j = 0; j < states; j++)
        PT_TRY(device(s, (size_t)state[j].elements * sizeof(float), &s->state[i][j], err));
    return PT_OK;
}

static pt_status allocate(step *s, bool arena, pt_error *err)
{
    if (arena)
        PT_TRY(s->b->row->reserve(s->b, (size_t)64 << 20, NULL, err));
    PT_TRY(s->b->row->event_new(s->b, &s->event, err));
    PT_TRY(device(s, s->outside->bytes, &s->value[0], err));
    PT_TRY(device(s, SAMPLES * sizeof(uint32_t), &s->sample, err));
    PT_TRY(device(s, SAMPLES * sizeof(int32_t), &s->label, err));
    for (int i = 0; i < LAYERS; i++) {
        PT_TRY(allocate_layer(s, i, err));
        PT_TRY(s->b->row->build(s->k[i], err));
    }
    PT_TRY(pinned(s, s->outside->bytes, &s->host_image, err));
    void *result = NULL;
    PT_TRY(pinned(s, sizeof(pt_loss_result), &result, err));
    s->host_result = result;
    return PT_OK;
}

/* ---- one step --------------------------------------------------------------------------------
 */

static pt_kernel_args args_of(const step *s, int i)
{
    pt_kernel_args args = {
        .dev_in = {s->value[i]},
        .dev_out = s->value[i + 1],
        .dev_saved = s->saved[i],
        .param_version = 1,
        .dev_d_out = s->gradient[i + 1],
        .dev_d_in = {s->gradient[i]},
        .accumulate = true,
        .dev_sample = s->sample,
    };
    for (int j = 0; j < PT_MAX_PARAMS; j++) {
        args.dev_param[j] = s->param[i][j];
        args.dev_d_param[j] = s->d_param[i][j];
    }
    for (int j = 0; j < PT_MAX_STATE; j++)
        args.dev_state[j] = s->state[i][j];
    return args;
}

static pt_status compute(step *s, pt_error *err)
{
    const pt_backend_row *row = s->b->row;
    const pt_loss loss = {PT_LOSS_CROSS_ENTROPY, 0.1, {1, {CLASSES}}};
    const pt_loss_args of = {
        .layout = s->k[LAYERS - 1]->out,
        .samples = SAMPLES,
        .dev_y = s->value[LAYERS],
        .dev_label = s->label,
        .scale = 1.0f / SAMPLES,
        .dev_d_y = s->gradient[LAYERS],
        .host_result = s->host_result,
    };
    for (int i = 0; i < LAYERS; i++) {
        pt_kernel_args args = args_of(s, i);
        PT_TRY(row->forward(s->k[i], &args, err));
    }
    PT_TRY(row->loss(s->b, &loss, &of, err));
    for (int i = LAYERS - 1; i >= 0; i--) {
        pt_kernel_args args = args_of(s, i);
        PT_TRY(row->backward_input(s->k[i], &args, err));
        if (s->k[i]->flags & PT_SPLITS_BACKWARD)
            PT_TRY(row->backward_weight(s->k[i], &args, err));
    }
    return PT_OK;
}

static pt_status update(step *s, pt_error *err)
{
    const pt_backend_row *row = s->b->row;
    const pt_sgd rule = {.lr = 0.1f, .momentum = 0.9f, .scale = 1};
    const pt_foresight foresight = {.a = 1, .b = -1, .dev_out = s->d_param[0][1]};
    float *bias = s->param[0][1], *velocity = s->param[1][0], *d_bias = s->param[1][1];
    double sum;
    PT_TRY(row->sum_of_squares(s->b, 4, bias, &sum, err));
    PT_TRY(row->axpby(s->b, 4, 1, bias, 1, d_bias, d_bias, err));
    PT_TRY(row->axpby(s->b, 4, 1, bias, 2, d_bias, d_bias, err));
    return row->sgd(s->b, 4, &rule, bias, velocity, d_bias, &foresight, err);
}

static pt_status run(step *s, bool arena, pt_precision precision, pt_error *err)
{
    const pt_backend_config config = {.threads = 1, .precision = precision};
    const pt_backend_row *row = backend_row("cuda");
    pt_loss_result got;
    bool done = false;
    PT_TRY(row->open(&config, &s->b, err));
    PT_TRY(plan(s, err));
    PT_TRY(allocate(s, arena, err));
    PT_TRY(row->copy_in(s->b, s->value[0], s->host_image, s->outside->bytes, err));
    PT_TRY(row->event_record(s->b, PT_LANE_IN, s->event, err));
    PT_TRY(row->event_wait(s->b, PT_LANE_COMPUTE, s->event, err));
    PT_TRY(compute(s, err));
    PT_TRY(update(s, err));
    PT_TRY(row->event_record(s->b, PT_LANE_COMPUTE, s->event, err));
    PT_TRY(row->event_wait(s->b, PT_LANE_OUT, s->event, err));
    PT_TRY(row->copy_out(s->b, s->host_image, s->value[0], s->outside->bytes, err));
    while (!done)
        PT_TRY(row->event_done(s->b, s->event, &done, err));
    PT_TRY(row->upload(s->b, s->value[0], s->host_image, s->outside->bytes, err));
    PT_TRY(row->download(s->b, &got, s->value[0], sizeof got, err));
    PT_TRY(row->copy(s->b, s->value[1], s->value[0], sizeof got, err));
    return row->finish(s->b, err);
}

static void clear(step *s)
{
    if (!s->b)
        return;
    const pt_backend_row *row = s->b->row;
    for (int i = 0; i < LAYERS; i++)
        row->release(s->k[i]);
    for (int i = 0; i < s->n_dev; i++)
        row->dev_free(s->b, s->dev[i]);
    for (int i = 0; i < s->n_host; i++)
        row->host_free(s->b, s->host[i]);
    row->event_free(s->b, s->event);
    row->layout_free(s->b, s->outside);
    size_t now, peak;
    row->memory(s->b, &now, &peak);
    assert_int_equal(now, 0);
    row->close(s->b);
}

/* ---- faults ----------------------------------------------------------------------------------
 */

static pt_status attempt(bool arena, pt_precision precision, pt_error *err)
{
    step s;
    memset(&s, 0, sizeof s);
    err->code = PT_OK;
    err->text[0] = 0;
    pt_status status = run(&s, arena, precision, err);
    clear(&s);
    const pt_fake_live live = pt_fake_count_live();
    assert_int_equal(live.device_blocks, 0);
    assert_int_equal(live.host_blocks, 0);
    assert_int_equal(live.streams, 0);
    assert_int_equal(live.events, 0);
    return status;
}

/* Every status that a sort of fault may end in, and words that its message must hold. */
static const struct {
    pt_status status;
    const char *words;
    bool always; /* false: what closes and frees may meet it, and has nobody to tell */
} expected[PT_FAKE_FAULTS] = {
    [PT_FAKE_ALLOCATION] = {PT_ENOMEM, "micro-batch", true},
    [PT_FAKE_HANDLE] = {PT_ENOMEM, "out of memory", true},
    [PT_FAKE_COPY] = {PT_EBACKEND, "invalid argument", true},
    [PT_FAKE_LAUNCH] = {PT_EBACKEND, "too many resources", true},
    [PT_FAKE_WAIT] = {PT_EBACKEND, "CUDA_LAUNCH_BLOCKING", false},
};

static void check_faults(pt_fake_fault what, bool arena, pt_precision precision)
{
    pt_error err = {PT_OK, ""};
    pt_fake_reset(1);
    assert_ok(attempt(arena, precision, &err), &err);
    const int64_t calls = pt_fake_calls(what);
    int64_t told = 0;
    for (int64_t k = 1; k <= calls; k++) {
        pt_fake_reset(1);
        pt_fake_fail(what, k);
        pt_status status = attempt(arena, precision, &err);
        told += status != PT_OK;
        if (status == PT_OK && !expected[what].always)
            continue;
        if (status != expected[what].status || !strstr(err.text, expected[what].words))
            fail_msg("fault %d, call %lld of %lld: status %d, message \"%s\"", (int)what,
                     (long long)k, (long long)calls, (int)status, err.text);
        assert_int_equal(err.code, status);
    }
    assert_in_range(told, 3, calls);
}

static void test_faults(void **state)
{
    const pt_fake_fault what = *(const pt_fake_fault *)*state;
    check_faults(what, /*arena=*/false, PT_FP32);
    check_faults(what, /*arena=*/true, PT_BF16);
}

/* After a failure the runtime's memory of it is gone: the next backend opens and works. */
static void test_failures_are_forgotten(void **state)
{
    (void)state;
    pt_error err = {PT_OK, ""};
    pt_fake_reset(3);
    pt_fake_fail(PT_FAKE_LAUNCH, 4);
    assert_int_equal(attempt(true, PT_TF32, &err), PT_EBACKEND);
    assert_int_equal(cudaPeekAtLastError(), cudaSuccess);
    assert_ok(attempt(true, PT_TF32, &err), &err);
}

/* A second allocation of device memory after `reserve` would defeat it. */
static void test_steps_allocate_nothing(void **state)
{
    (void)state;
    pt_error err = {PT_OK, ""};
    step s;
    memset(&s, 0, sizeof s);
    pt_fake_reset(1);
    assert_ok(run(&s, /*arena=*/true, PT_BF16, &err), &err);
    int64_t before = pt_fake_calls(PT_FAKE_ALLOCATION);
    for (int i = 0; i < 3; i++)
        assert_ok(compute(&s, &err), &err);
    assert_ok(update(&s, &err), &err);
    assert_int_equal(pt_fake_calls(PT_FAKE_ALLOCATION), before);
    clear(&s);
}

/* What the kernels say before is what dev_new and build take: to the byte. */
static void test_prediction_is_exact(void **state)
{
    (void)state;
    for (int precision = 0; precision < PT_PRECISIONS; precision++) {
        const pt_backend_config config = {.threads = 1, .precision = (pt_precision)precision};
        pt_error err = {PT_OK, ""};
        step s;
        size_t own = 0, shared = 0, now, peak;
        memset(&s, 0, sizeof s);
        pt_fake_reset(1);
        assert_ok(backend_row("cuda")->open(&config, &s.b, &err), &err);
        assert_ok(plan(&s, &err), &err);
        for (int i = 0; i < LAYERS; i++) {
            own += s.k[i]->private_bytes;
            if (s.k[i]->shared_bytes > shared)
                shared = s.k[i]->shared_bytes;
        }
        assert_ok(s.b->row->reserve(s.b, own + shared, NULL, &err), &err);
        for (int i = 0; i < LAYERS; i++)
            assert_ok(s.b->row->build(s.k[i], &err), &err);
        s.b->row->memory(s.b, &now, &peak);
        assert_int_equal(now, own + shared);
        assert_int_equal(peak, own + shared);
        clear(&s);
    }
}

static pt_fake_fault sorts[PT_FAKE_FAULTS] = {PT_FAKE_ALLOCATION, PT_FAKE_HANDLE, PT_FAKE_COPY,
                                              PT_FAKE_LAUNCH, PT_FAKE_WAIT};

int main(void)
{
    const struct CMUnitTest tests[] = {
        {"every allocation fails", test_faults, NULL, NULL, &sorts[0]},
        {"every stream and event fails", test_faults, NULL, NULL, &sorts[1]},
        {"every copy fails", test_faults, NULL, NULL, &sorts[2]},
        {"every launch fails", test_faults, NULL, NULL, &sorts[3]},
        {"every wait fails", test_faults, NULL, NULL, &sorts[4]},
        cmocka_unit_test(test_failures_are_forgotten),
        cmocka_unit_test(test_steps_allocate_nothing),
        cmocka_unit_test(test_prediction_is_exact),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
