/* The ref backend: plain C straight from the formulas of op.h, the oracle for every other backend.
 *
 * There is one layout, plain row-major, so that planning never chooses anything and reordering is
 * copying. A kernel is its op and the row of functions of its kind. */
#include "ref.h"

#include <stdio.h>
#include <stdlib.h>

#include "rows.h"

typedef struct ref_backend {
    pt_cpu cpu;
} ref_backend;

typedef struct ref_kernel {
    pt_kernel base;
    pt_layout out;
    const pt_ref_op *functions;
} ref_kernel;

static const pt_ref_op *const functions_of[PT_OP_KINDS] = {
    [PT_OP_CONV2D] = &pt_ref_conv2d,
    [PT_OP_LINEAR] = &pt_ref_linear,
    [PT_OP_BATCH_NORM] = &pt_ref_batch_norm,
    [PT_OP_RELU] = &pt_ref_relu,
    [PT_OP_GELU] = &pt_ref_gelu,
    [PT_OP_MAX_POOL] = &pt_ref_max_pool,
    [PT_OP_AVG_POOL] = &pt_ref_avg_pool,
    [PT_OP_GLOBAL_AVG_POOL] = &pt_ref_global_avg_pool,
    [PT_OP_FLATTEN] = &pt_ref_flatten,
    [PT_OP_ADD] = &pt_ref_add,
    [PT_OP_CONCAT] = &pt_ref_concat,
    [PT_OP_DROPOUT] = &pt_ref_dropout,
};

void pt_ref_parallel(const pt_kernel *k, const pt_kernel_args *args, int64_t n,
                     void (*body)(void *job, int i))
{
    pt_ref_job job = {k, args};
    pt_cpu_parallel((const pt_cpu *)k->backend, (int)n, body, &job);
}

int64_t pt_ref_out_elements(const pt_kernel *k)
{
    return k->samples * pt_shape_elements(&k->op.out);
}

/* ---- opening ----------------------------------------------------------------------------------
 */

static pt_status ref_open(const pt_backend_config *config, pt_backend **ret_backend, pt_error *err)
{
    PT_TRY(pt_cpu_check_config(config, pt_backend_ref.name, err));
    ref_backend *ref = calloc(1, sizeof *ref);
    if (!ref)
        return pt_fail(err, PT_ENOMEM, "no memory for the ref backend");
    ref->cpu.base.row = &pt_backend_ref;
    ref->cpu.config = *config;
    *ret_backend = &ref->cpu.base;
    return PT_OK;
}

static void ref_close(pt_backend *b)
{
    free(b);
}

static void ref_describe(const pt_backend *b, char *text, size_t size)
{
    int threads = ((const pt_cpu *)b)->config.threads;
    snprintf(text, size, "ref: plain C, fp32 with sums in double, %d thread%s", threads,
             threads == 1 ? "" : "s");
}

/* ---- layouts ----------------------------------------------------------------------------------
 */

static size_t plain_bytes(const pt_shape *shape, int samples)
{
    return (size_t)samples * (size_t)pt_shape_elements(shape) * sizeof(float);
}

static pt_status ref_plain_layout(pt_backend *b, const pt_shape *shape, int samples,
                                  pt_layout **ret_layout, pt_error *err)
{
    (void)b;
    pt_layout *layout = calloc(1, sizeof *layout);
    if (!layout)
        return pt_fail(err, PT_ENOMEM, "no memory for a layout");
    layout->bytes = plain_bytes(shape, samples);
    *ret_layout = layout;
    return PT_OK;
}

static void ref_layout_free(pt_backend *b, pt_layout *layout)
{
    (void)b;
    free(layout);
}

static bool ref_layout_equal(const pt_layout *a, const pt_layout *b)
{
    return a->bytes == b->bytes;
}

static pt_status ref_reorder(pt_backend *b, const pt_shape *shape, int samples,
                             const pt_layout *from, const void *dev_src, const pt_layout *to,
                             void *dev_dst, pt_error *err)
{
    size_t bytes = plain_bytes(shape, samples);
    if (from->bytes != bytes || to->bytes != bytes)
        return pt_fail(err, PT_EINTERNAL, "reorder of %zu bytes between layouts of %zu and %zu",
                       bytes, from->bytes, to->bytes);
    return pt_cpu_copy(b, dev_dst, dev_src, bytes, err);
}

/* ---- kernels ----------------------------------------------------------------------------------
 */

static bool ref_supports(const pt_op *op)
{
    return op->kind < PT_OP_KINDS;
}

static pt_status check_layouts(const pt_op *op, int samples, const pt_layout *const in[],
                               pt_error *err)
{
    for (int i = 0; i < op->n_inputs; i++)
        if (in[i]->bytes != plain_bytes(&op->in[i], samples))
            return pt_fail(err, PT_EINTERNAL,
                           "input %d of a %s has a layout of %zu bytes where %d samples need %zu",
                           i + 1, pt_op_rows[op->kind].name, in[i]->bytes, samples,
                           plain_bytes(&op->in[i], samples));
    return PT_OK;
}

static pt_status ref_plan(pt_backend *b, const pt_op *op, int samples, pt_mode mode,
                          const pt_layout *const in[], pt_kernel **ret_kernel, pt_error *err)
{
    PT_TRY(check_layouts(op, samples, in, err));
    ref_kernel *kernel = calloc(1, sizeof *kernel);
    if (!kernel)
        return pt_fail(err, PT_ENOMEM, "no memory for a kernel");
    const pt_ref_op *functions = functions_of[op->kind];
    bool train = mode == PT_TRAIN;
    kernel->functions = functions;
    kernel->out.bytes = plain_bytes(&op->out, samples);
    kernel->base = (pt_kernel){
        .backend = b,
        .op = *op,
        .samples = samples,
        .mode = mode,
        .flags = train ? functions->train_flags | (op->relu ? functions->relu_flags : 0)
                       : functions->eval_flags,
        .out = &kernel->out,
        .saved_bytes = train && functions->saved ? functions->saved(op, samples) : 0,
    };
    *ret_kernel = &kernel->base;
    return PT_OK;
}

static pt_status ref_build(pt_kernel *k, pt_error *err)
{
    (void)err;
    k->built = true;
    return PT_OK;
}

static void ref_release(pt_kernel *k)
{
    free(k);
}

static pt_status check_call(const pt_kernel *k, bool backward, pt_error *err)
{
    if (!k->built)
        return pt_fail(err, PT_EINTERNAL, "a %s kernel runs before it was built",
                       pt_op_rows[k->op.kind].name);
    if (backward && k->mode != PT_TRAIN)
        return pt_fail(err, PT_EINTERNAL, "backward of a %s kernel that was planned for evaluation",
                       pt_op_rows[k->op.kind].name);
    return PT_OK;
}

static pt_status ref_forward(pt_kernel *k, const pt_kernel_args *args, pt_error *err)
{
    PT_TRY(check_call(k, false, err));
    ((const ref_kernel *)k)->functions->forward(k, args);
    return PT_OK;
}

static pt_status ref_backward_input(pt_kernel *k, const pt_kernel_args *args, pt_error *err)
{
    PT_TRY(check_call(k, true, err));
    ((const ref_kernel *)k)->functions->backward_input(k, args);
    return PT_OK;
}

/* Kinds without a weight gradient of their own have nothing to do here. */
static pt_status ref_backward_weight(pt_kernel *k, const pt_kernel_args *args, pt_error *err)
{
    PT_TRY(check_call(k, true, err));
    const pt_ref_op *functions = ((const ref_kernel *)k)->functions;
    if (functions->backward_weight)
        functions->backward_weight(k, args);
    return PT_OK;
}

static pt_status ref_loss(pt_backend *b, const pt_loss *loss, const pt_loss_args *args,
                          pt_error *err)
{
    (void)b;
    (void)err;
    pt_cpu_loss(loss, args, args->dev_y, args->dev_d_y);
    return PT_OK;
}

const pt_backend_row pt_backend_ref = {
    .name = "ref",
    .help = "plain C, slow and exact: the oracle for the others",
    .open = ref_open,
    .close = ref_close,
    .reserve = pt_cpu_reserve,
    .dev_new = pt_cpu_dev_new,
    .dev_free = pt_cpu_dev_free,
    .host_new = pt_cpu_host_new,
    .host_free = pt_cpu_host_free,
    .upload = pt_cpu_copy,
    .download = pt_cpu_copy,
    .copy = pt_cpu_copy,
    .copy_in = pt_cpu_copy,
    .copy_out = pt_cpu_copy,
    .event_new = pt_cpu_event_new,
    .event_free = pt_cpu_event_free,
    .event_record = pt_cpu_event_record,
    .event_wait = pt_cpu_event_wait,
    .event_done = pt_cpu_event_done,
    .event_ns = pt_cpu_event_ns,
    .finish = pt_cpu_finish,
    .plain_layout = ref_plain_layout,
    .layout_free = ref_layout_free,
    .layout_equal = ref_layout_equal,
    .reorder = ref_reorder,
    .supports = ref_supports,
    .plan = ref_plan,
    .build = ref_build,
    .release = ref_release,
    .forward = ref_forward,
    .backward_input = ref_backward_input,
    .backward_weight = ref_backward_weight,
    .loss = ref_loss,
    .add = pt_cpu_add,
    .axpby = pt_cpu_axpby,
    .sum_of_squares = pt_cpu_sum_of_squares,
    .sgd = pt_cpu_sgd,
    .adam = pt_cpu_adam,
    .mean_squares = pt_cpu_mean_squares,
    .gap = pt_cpu_gap,
    .look_back = pt_cpu_look_back,
    .on_device = false,
    .memory = pt_cpu_memory,
    .describe = ref_describe,
};
