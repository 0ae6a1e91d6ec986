/* Where the elements lie, and how a value gets from one layout to another.
 *
 * Descriptors are compared by the place of every element, not by their names: (n, c, 1, 1) is the
 * same memory plain, channels-last or, with whole blocks, blocked, and is never copied. The place
 * of an element is a sum over dimensions, so comparing costs the sum of the extents. */
#include "onednn.h"

#include <stdlib.h>
#include <string.h>

#include "pipetrain/arena.h"

static const dnnl_format_tag_t plain_tags[] = {
    dnnl_format_tag_undef, dnnl_a, dnnl_ab, dnnl_abc, dnnl_abcd, dnnl_abcde};

static pt_status init_md(dnnl_memory_desc_t *md, int ndims, const dnnl_dims_t dims,
                         dnnl_format_tag_t tag, pt_error *err)
{
    return pt_dnn_check(dnnl_memory_desc_init_by_tag(md, ndims, dims, dnnl_f32, tag), NULL,
                        "memory layout", err);
}

pt_status pt_dnn_plain(const pt_shape *shape, int samples, dnnl_memory_desc_t *ret_md,
                       pt_error *err)
{
    dnnl_dims_t dims = {samples};
    for (int i = 0; i < shape->ndim; i++)
        dims[i + 1] = shape->dims[i];
    return init_md(ret_md, shape->ndim + 1, dims, plain_tags[shape->ndim + 1], err);
}

pt_status pt_dnn_image(const pt_shape *shape, int samples, dnnl_format_tag_t tag,
                       dnnl_memory_desc_t *ret_md, pt_error *err)
{
    dnnl_dims_t dims = {samples, 1, 1, 1};
    for (int i = 0; i < shape->ndim && i < 3; i++)
        dims[i + 1] = shape->dims[i];
    return init_md(ret_md, 4, dims, tag, err);
}

pt_status pt_dnn_plain_like(const dnnl_memory_desc_t *md, dnnl_memory_desc_t *ret_md, pt_error *err)
{
    return init_md(ret_md, md->ndims, md->dims, plain_tags[md->ndims], err);
}

/* The offset, in elements, that index i of dimension d adds. */
static dnnl_dim_t offset(const dnnl_memory_desc_t *md, int d, dnnl_dim_t i)
{
    const dnnl_blocking_desc_t *blocking = &md->format_desc.blocking;
    dnnl_dim_t sum = 0, step = 1;
    for (int b = blocking->inner_nblks - 1; b >= 0; b--) {
        dnnl_dim_t extent = blocking->inner_blks[b];
        if (blocking->inner_idxs[b] == d) {
            sum += i % extent * step;
            i /= extent;
        }
        step *= extent;
    }
    return sum + i * blocking->strides[d];
}

static bool is_blocked(const dnnl_memory_desc_t *md)
{
    return md->format_kind == dnnl_blocked && md->offset0 == 0 && md->data_type == dnnl_f32 &&
           md->extra.flags == dnnl_memory_extra_flag_none;
}

bool pt_dnn_same(const dnnl_memory_desc_t *a, const dnnl_memory_desc_t *b)
{
    if (!is_blocked(a) || !is_blocked(b) || a->ndims != b->ndims)
        return dnnl_memory_desc_equal(a, b);
    for (int d = 0; d < a->ndims; d++) {
        if (a->dims[d] != b->dims[d] || a->padded_dims[d] != b->padded_dims[d])
            return false;
        for (dnnl_dim_t i = 0; i < a->dims[d]; i++)
            if (offset(a, d, i) != offset(b, d, i))
                return false;
    }
    return true;
}

bool pt_dnn_is_plain(const dnnl_memory_desc_t *md)
{
    pt_error ignored;
    dnnl_memory_desc_t plain;
    return pt_dnn_plain_like(md, &plain, &ignored) == PT_OK && pt_dnn_same(md, &plain);
}

/* ---- ports ---------------------------------------------------------------------------------- */

static const int reorder_args[] = {DNNL_ARG_FROM, DNNL_ARG_TO, 0};

static pt_status port_plan(pt_dnn_port *port, pt_dnn_kernel *k, pt_dnn_room room,
                           const dnnl_memory_desc_t *from, const dnnl_memory_desc_t *to,
                           const dnnl_memory_desc_t *primitive_side, pt_error *err)
{
    if (pt_dnn_same(from, to))
        return PT_OK;
    PT_TRY(pt_dnn_call_plan_reorder(&port->reorder, pt_dnn_of(k), &k->base.op, from, to,
                                    /*add=*/false, err));
    PT_TRY(pt_dnn_use(k, &port->reorder, reorder_args, err));
    pt_dnn_need(k, room, dnnl_memory_desc_get_size(primitive_side));
    port->kernel = k;
    port->room = room;
    return PT_OK;
}

pt_status pt_dnn_port_plan_in(pt_dnn_port *port, pt_dnn_kernel *k, pt_dnn_room room,
                              const dnnl_memory_desc_t *value, const dnnl_memory_desc_t *wanted,
                              pt_error *err)
{
    return port_plan(port, k, room, value, wanted, wanted, err);
}

pt_status pt_dnn_port_plan_out(pt_dnn_port *port, pt_dnn_kernel *k, pt_dnn_room room,
                               const dnnl_memory_desc_t *made, const dnnl_memory_desc_t *value,
                               pt_error *err)
{
    return port_plan(port, k, room, made, value, made, err);
}

pt_status pt_dnn_port_take(pt_dnn_port *port, const void *value, const void **ret_address,
                           pt_error *err)
{
    if (port->room == PT_DNN_NO_ROOM) {
        *ret_address = value;
        return PT_OK;
    }
    const void *room = pt_dnn_room_of(port->kernel, port->room);
    PT_TRY(pt_dnn_call_run(&port->reorder, (const void *const[]){value, room}, err));
    *ret_address = room;
    return PT_OK;
}

void *pt_dnn_port_address(const pt_dnn_port *port, void *value)
{
    return port->room == PT_DNN_NO_ROOM ? value : pt_dnn_room_of(port->kernel, port->room);
}

pt_status pt_dnn_port_give(pt_dnn_port *port, void *value, pt_error *err)
{
    if (port->room == PT_DNN_NO_ROOM)
        return PT_OK;
    const void *room = pt_dnn_room_of(port->kernel, port->room);
    return pt_dnn_call_run(&port->reorder, (const void *const[]){room, value}, err);
}

void pt_dnn_port_clear(pt_dnn_port *port)
{
    pt_dnn_call_clear(&port->reorder);
    port->room = PT_DNN_NO_ROOM;
}

/* ---- outside kernels ------------------------------------------------------------------------ */

struct pt_dnn_cached {
    dnnl_memory_desc_t from, to;
    pt_dnn_call reorder;
    pt_dnn_cached *next;
};

void pt_dnn_cached_free(pt_dnn_cached *cached)
{
    while (cached) {
        pt_dnn_cached *next = cached->next;
        pt_dnn_call_clear(&cached->reorder);
        free(cached);
        cached = next;
    }
}

static pt_status cached_new(pt_dnn *dnn, const dnnl_memory_desc_t *from,
                            const dnnl_memory_desc_t *to, pt_dnn_cached **ret_cached, pt_error *err)
{
    pt_dnn_cached *cached = calloc(1, sizeof *cached);
    if (!cached)
        return pt_fail(err, PT_ENOMEM, "no memory for a reorder");
    cached->from = *from;
    cached->to = *to;
    pt_status status;
    PT_GOTO(status, pt_dnn_call_plan_reorder(&cached->reorder, dnn, NULL, from, to, false, err));
    PT_GOTO(status, pt_dnn_call_take(&cached->reorder, reorder_args, err));
    PT_GOTO(status, pt_dnn_call_build(&cached->reorder, err));
    cached->next = dnn->cached;
    dnn->cached = cached;
    *ret_cached = cached;
    return PT_OK;
out:
    pt_dnn_cached_free(cached);
    return status;
}

static pt_status cached_find(pt_dnn *dnn, const dnnl_memory_desc_t *from,
                             const dnnl_memory_desc_t *to, pt_dnn_cached **ret_cached,
                             pt_error *err)
{
    pt_dnn_cached *c = dnn->cached;
    while (c && !(dnnl_memory_desc_equal(&c->from, from) && dnnl_memory_desc_equal(&c->to, to)))
        c = c->next;
    if (!c)
        PT_TRY(cached_new(dnn, from, to, &c, err));
    *ret_cached = c;
    return PT_OK;
}

pt_status pt_dnn_move(pt_dnn *dnn, const dnnl_memory_desc_t *from, const void *src,
                      const dnnl_memory_desc_t *to, void *dst, pt_error *err)
{
    pt_dnn_cached *c = NULL;
    if (pt_dnn_same(from, to))
        return pt_cpu_copy(&dnn->cpu.base, dst, src, dnnl_memory_desc_get_size(from), err);
    PT_TRY(cached_find(dnn, from, to, &c, err));
    PT_TRY(pt_dnn_reserve(dnn, pt_dnn_call_scratchpad_bytes(&c->reorder), err));
    return pt_dnn_call_run(&c->reorder, (const void *const[]){src, dst}, err);
}

/* Vectors are plain, so this is for predictions that are images. */
static pt_status loss_of_image(pt_dnn *dnn, const pt_loss *loss, const pt_loss_args *args,
                               const dnnl_memory_desc_t *md, pt_error *err)
{
    dnnl_memory_desc_t plain;
    pt_dnn_cached *in = NULL, *out = NULL;
    PT_TRY(pt_dnn_plain_like(md, &plain, err));
    PT_TRY(cached_find(dnn, md, &plain, &in, err));
    PT_TRY(cached_find(dnn, &plain, md, &out, err));
    size_t pad = pt_dnn_call_scratchpad_bytes(&in->reorder);
    if (pt_dnn_call_scratchpad_bytes(&out->reorder) > pad)
        pad = pt_dnn_call_scratchpad_bytes(&out->reorder);
    pad = pt_align_up(pad);
    size_t bytes = pt_align_up(dnnl_memory_desc_get_size(&plain));
    PT_TRY(pt_dnn_reserve(dnn, pad + 2 * bytes, err));
    float *y = (float *)(dnn->rooms + pad);
    float *d_y = args->dev_d_y ? (float *)(dnn->rooms + pad + bytes) : NULL;
    PT_TRY(pt_dnn_call_run(&in->reorder, (const void *const[]){args->dev_y, y}, err));
    pt_cpu_loss(loss, args, y, d_y);
    return d_y ? pt_dnn_call_run(&out->reorder, (const void *const[]){d_y, args->dev_d_y}, err)
               : PT_OK;
}

pt_status pt_dnn_loss(pt_backend *b, const pt_loss *loss, const pt_loss_args *args, pt_error *err)
{
    const dnnl_memory_desc_t *md = &((const pt_dnn_layout *)args->layout)->md;
    if (!pt_dnn_is_plain(md))
        return loss_of_image((pt_dnn *)b, loss, args, md, err);
    pt_cpu_loss(loss, args, args->dev_y, args->dev_d_y);
    return PT_OK;
}
