/* The oneDNN backend: fast on CPUs.
 *
 * Every convolution and linear layer lets the library choose its layouts; what follows takes the
 * layout of its first input, so that in a blocked network nothing is ever reordered. This file is
 * the row: life of the backend, layouts as callers see them, and the way from an op to its kind. */
#include "onednn.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "rows.h"

/* ---- life ----------------------------------------------------------------------------------- */

static void close_backend(pt_backend *b)
{
    pt_dnn *dnn = (pt_dnn *)b;
    if (!dnn)
        return;
    pt_dnn_cached_free(dnn->cached);
    pt_dnn_free_rooms(dnn);
    dnnl_primitive_attr_destroy(dnn->attr_add);
    dnnl_primitive_attr_destroy(dnn->attr);
    dnnl_stream_destroy(dnn->stream);
    dnnl_engine_destroy(dnn->engine);
    free(dnn);
}

static dnnl_status_t make_attributes(pt_dnn *dnn)
{
    dnnl_post_ops_t sum = NULL;
    dnnl_status_t status = dnnl_primitive_attr_create(&dnn->attr);
    if (status == dnnl_success)
        status = dnnl_primitive_attr_set_scratchpad_mode(dnn->attr, dnnl_scratchpad_mode_user);
    if (status == dnnl_success)
        status = dnnl_primitive_attr_clone(&dnn->attr_add, dnn->attr);
    if (status == dnnl_success)
        status = dnnl_post_ops_create(&sum);
    if (status == dnnl_success)
        status = dnnl_post_ops_append_sum(sum, /*scale=*/1.0f);
    if (status == dnnl_success)
        status = dnnl_primitive_attr_set_post_ops(dnn->attr_add, sum);
    dnnl_post_ops_destroy(sum);
    return status;
}

static pt_status open_backend(const pt_backend_config *config, pt_backend **ret_backend,
                              pt_error *err)
{
    PT_TRY(pt_cpu_check_config(config, pt_backend_onednn.name, err));
    pt_dnn *dnn = calloc(1, sizeof *dnn);
    if (!dnn)
        return pt_fail(err, PT_ENOMEM, "no memory for the onednn backend");
    dnn->cpu.base.row = &pt_backend_onednn;
    dnn->cpu.config = *config;
    dnnl_status_t status = dnnl_engine_create(&dnn->engine, dnnl_cpu, 0);
    if (status == dnnl_success)
        status = dnnl_stream_create(&dnn->stream, dnn->engine, dnnl_stream_default_flags);
    if (status == dnnl_success)
        status = make_attributes(dnn);
    if (status != dnnl_success) {
        close_backend(&dnn->cpu.base);
        return pt_dnn_check(status, NULL, "opening the onednn backend", err);
    }
    *ret_backend = &dnn->cpu.base;
    return PT_OK;
}

static const struct {
    dnnl_cpu_isa_t isa;
    const char *name;
} isa_names[] = {
    {dnnl_cpu_isa_sse41, "SSE4.1"},
    {dnnl_cpu_isa_avx, "AVX"},
    {dnnl_cpu_isa_avx2, "AVX2"},
    {dnnl_cpu_isa_avx2_vnni, "AVX2"},
    {dnnl_cpu_isa_avx512_core, "AVX-512"},
    {dnnl_cpu_isa_avx512_core_vnni, "AVX-512"},
    {dnnl_cpu_isa_avx512_core_bf16, "AVX-512"},
    {dnnl_cpu_isa_avx512_core_amx, "AVX-512 and AMX"},
};

static void describe(const pt_backend *b, char *text, size_t size)
{
    const pt_dnn *dnn = (const pt_dnn *)b;
    const dnnl_version_t *version = dnnl_version();
    dnnl_cpu_isa_t isa = dnnl_get_effective_cpu_isa();
    const char *name = "other instructions";
    for (size_t i = 0; i < sizeof isa_names / sizeof *isa_names; i++)
        if (isa_names[i].isa == isa)
            name = isa_names[i].name;
    int threads = dnn->cpu.config.threads;
    snprintf(text, size, "oneDNN %d.%d.%d, %s, %d thread%s", version->major, version->minor,
             version->patch, name, threads, threads == 1 ? "" : "s");
}

/* ---- layouts -------------------------------------------------------------------------------- */

static pt_status plain_layout(pt_backend *b, const pt_shape *shape, int samples,
                              pt_layout **ret_layout, pt_error *err)
{
    (void)b;
    dnnl_memory_desc_t md;
    PT_TRY(pt_dnn_plain(shape, samples, &md, err));
    pt_dnn_layout *layout = calloc(1, sizeof *layout);
    if (!layout)
        return pt_fail(err, PT_ENOMEM, "no memory for a layout");
    layout->md = md;
    layout->base.bytes = dnnl_memory_desc_get_size(&md);
    *ret_layout = &layout->base;
    return PT_OK;
}

static void layout_free(pt_backend *b, pt_layout *layout)
{
    (void)b;
    free(layout);
}

static bool layout_equal(const pt_layout *a, const pt_layout *b)
{
    return pt_dnn_same(&((const pt_dnn_layout *)a)->md, &((const pt_dnn_layout *)b)->md);
}

static pt_status reorder(pt_backend *b, const pt_shape *shape, int samples, const pt_layout *from,
                         const void *src, const pt_layout *to, void *dst, pt_error *err)
{
    (void)shape;
    (void)samples;
    return pt_dnn_move((pt_dnn *)b, &((const pt_dnn_layout *)from)->md, src,
                       &((const pt_dnn_layout *)to)->md, dst, err);
}

/* ---- kernels -------------------------------------------------------------------------------- */

static const pt_dnn_kind *const kinds[PT_OP_KINDS] = {
    [PT_OP_CONV2D] = &pt_dnn_conv,     [PT_OP_LINEAR] = &pt_dnn_linear,
    [PT_OP_BATCH_NORM] = &pt_dnn_norm, [PT_OP_RELU] = &pt_dnn_relu,
    [PT_OP_GELU] = &pt_dnn_gelu,       [PT_OP_MAX_POOL] = &pt_dnn_pool,
    [PT_OP_AVG_POOL] = &pt_dnn_pool,   [PT_OP_GLOBAL_AVG_POOL] = &pt_dnn_pool,
    [PT_OP_FLATTEN] = &pt_dnn_flatten, [PT_OP_ADD] = &pt_dnn_add,
    [PT_OP_CONCAT] = &pt_dnn_concat,   [PT_OP_DROPOUT] = &pt_dnn_dropout,
};

static bool supports(const pt_op *op)
{
    bool longer = op->kind == PT_OP_BATCH_NORM && (op->relu || op->n_inputs > 1);
    return op->kind < PT_OP_KINDS && kinds[op->kind] && !longer;
}

static void release_kernel(pt_kernel *kernel)
{
    pt_dnn_kernel *k = (pt_dnn_kernel *)kernel;
    if (!k)
        return;
    if (k->kind->clear)
        k->kind->clear(k);
    pt_dnn *dnn = pt_dnn_of(k);
    if (--dnn->kernels == 0)
        pt_dnn_free_rooms(dnn);
    free(k);
}

static pt_status plan(pt_backend *b, const pt_op *op, int samples, pt_mode mode,
                      const pt_layout *const in[], pt_kernel **ret_kernel, pt_error *err)
{
    const pt_dnn_kind *kind = kinds[op->kind];
    pt_dnn_kernel *k = calloc(1, kind->bytes);
    if (!k)
        return pt_fail(err, PT_ENOMEM, "no memory for a kernel");
    k->base.backend = b;
    k->base.op = *op;
    k->base.samples = samples;
    k->base.mode = mode;
    k->kind = kind;
    pt_dnn_of(k)->kernels++;
    for (int i = 0; i < op->n_inputs; i++)
        k->in[i] = (const pt_dnn_layout *)in[i];
    pt_status status = kind->plan(k, err);
    if (status != PT_OK) {
        release_kernel(&k->base);
        return status;
    }
    k->base.shared_bytes = pt_dnn_rooms_bytes(k);
    *ret_kernel = &k->base;
    return PT_OK;
}

void pt_dnn_set_out(pt_dnn_kernel *k, const dnnl_memory_desc_t *md)
{
    k->out.md = *md;
    k->out.base.bytes = dnnl_memory_desc_get_size(md);
    k->base.out = &k->out.base;
}

pt_status pt_dnn_plan_first(pt_dnn_kernel *k,
                            pt_status (*plan_one)(pt_dnn_kernel *k, const dnnl_memory_desc_t *md,
                                                  pt_dnn_call *ret_call, pt_error *err),
                            pt_dnn_call *ret_call, dnnl_memory_desc_t *ret_md, pt_error *err)
{
    static const dnnl_format_tag_t tags[] = {dnnl_nChw16c, dnnl_nChw8c, dnnl_nhwc, dnnl_nchw};
    dnnl_memory_desc_t md = k->in[0]->md;
    for (size_t i = 0;; i++) {
        pt_status status = plan_one(k, &md, ret_call, err);
        if (status == PT_OK && !pt_dnn_call_is_reference(ret_call))
            break;
        if (i == sizeof tags / sizeof *tags) { /* nothing better than a reference: take it or not */
            PT_TRY(status);
            PT_TRY(pt_dnn_call_accept(ret_call, err));
            break;
        }
        pt_dnn_call_clear(ret_call);
        PT_TRY(pt_dnn_image(&k->base.op.in[0], k->base.samples, tags[i], &md, err));
    }
    *ret_md = md;
    return PT_OK;
}

static pt_status build(pt_kernel *kernel, pt_error *err)
{
    pt_dnn_kernel *k = (pt_dnn_kernel *)kernel;
    if (kernel->built)
        return PT_OK;
    for (pt_dnn_call *call = k->calls; call; call = call->next)
        PT_TRY(pt_dnn_call_build(call, err));
    if (k->kind->build)
        PT_TRY(k->kind->build(k, err));
    PT_TRY(pt_dnn_reserve(pt_dnn_of(k), kernel->shared_bytes, err));
    kernel->built = true;
    return PT_OK;
}

typedef pt_status run_function(pt_dnn_kernel *k, const pt_kernel_args *args, pt_error *err);

static pt_status run(pt_kernel *kernel, run_function *function, const pt_kernel_args *args,
                     pt_error *err)
{
    if (!kernel->built)
        return pt_fail(err, PT_EINTERNAL, "layer %u runs before it was built", kernel->op.layer);
    return function ? function((pt_dnn_kernel *)kernel, args, err) : PT_OK;
}

static pt_status forward(pt_kernel *k, const pt_kernel_args *args, pt_error *err)
{
    return run(k, ((pt_dnn_kernel *)k)->kind->forward, args, err);
}

static pt_status backward_input(pt_kernel *k, const pt_kernel_args *args, pt_error *err)
{
    return run(k, ((pt_dnn_kernel *)k)->kind->backward_input, args, err);
}

static pt_status backward_weight(pt_kernel *k, const pt_kernel_args *args, pt_error *err)
{
    return run(k, ((pt_dnn_kernel *)k)->kind->backward_weight, args, err);
}

const pt_backend_row pt_backend_onednn = {
    .name = "onednn",
    .help = "oneDNN, fast on CPUs",
    .open = open_backend,
    .close = close_backend,
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
    .plain_layout = plain_layout,
    .layout_free = layout_free,
    .layout_equal = layout_equal,
    .reorder = reorder,
    .supports = supports,
    .plan = plan,
    .build = build,
    .release = release_kernel,
    .forward = forward,
    .backward_input = backward_input,
    .backward_weight = backward_weight,
    .loss = pt_dnn_loss,
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
    .describe = describe,
};
