/* Layouts: a type and an order, and how a value gets from one to another. */
#include "cuda.h"

#include <assert.h>
#include <stdlib.h>

size_t pt_cuda_type_bytes(pt_cu_type type)
{
    return type == PT_CU_BF16 ? 2 : 4;
}

pt_cuda_extent pt_cuda_extent_of(const pt_shape *shape)
{
    int64_t elements = pt_shape_elements(shape);
    if (shape->ndim != 3)
        return (pt_cuda_extent){elements, 1};
    return (pt_cuda_extent){shape->dims[0], elements / shape->dims[0]};
}

pt_cuda_layout pt_cuda_layout_of(const pt_shape *shape, int samples, pt_cu_type type,
                                 bool channels_last)
{
    const pt_cuda_extent e = pt_cuda_extent_of(shape);
    return (pt_cuda_layout){
        .base.bytes = (size_t)samples * (size_t)(e.channels * e.area) * pt_cuda_type_bytes(type),
        .type = type,
        .channels_last = channels_last && e.channels > 1 && e.area > 1,
    };
}

bool pt_cuda_same(const pt_cuda_layout *a, const pt_cuda_layout *b)
{
    return a->base.bytes == b->base.bytes && a->type == b->type &&
           a->channels_last == b->channels_last;
}

pt_status pt_cuda_turn_run(pt_cuda *cuda, const pt_op *op, const pt_cuda_turn *t, const void *src,
                           void *dst, pt_error *err)
{
    cudaStream_t s = cuda->lane[PT_LANE_COMPUTE];
    const int64_t elements = t->n * t->rows * t->columns;
    if (t->rows > 1 && t->columns > 1)
        return pt_cuda_check(
            pt_cu_transpose(s, t->n, t->rows, t->columns, t->from, src, t->to, dst, t->accumulate),
            op, "pt_cu_transpose", err);
    if (t->from != t->to || t->accumulate)
        return pt_cuda_check(pt_cu_convert(s, elements, t->from, src, t->to, dst, t->accumulate),
                             op, "pt_cu_convert", err);
    return pt_cuda_copy(&cuda->base, dst, src, (size_t)elements * pt_cuda_type_bytes(t->to), err);
}

pt_status pt_cuda_move(pt_cuda *cuda, const pt_op *op, const pt_shape *shape, int samples,
                       const pt_cuda_layout *from, const void *src, const pt_cuda_layout *to,
                       void *dst, pt_error *err)
{
    const pt_cuda_extent e = pt_cuda_extent_of(shape);
    pt_cuda_turn turn = {.n = samples,
                         .rows = 1,
                         .columns = e.channels * e.area,
                         .from = from->type,
                         .to = to->type};
    if (from->channels_last != to->channels_last) {
        turn.rows = from->channels_last ? e.area : e.channels;
        turn.columns = from->channels_last ? e.channels : e.area;
    }
    return pt_cuda_turn_run(cuda, op, &turn, src, dst, err);
}

/* ---- for callers ---------------------------------------------------------------------------- */

pt_status pt_cuda_plain_layout(pt_backend *b, const pt_shape *shape, int samples,
                               pt_layout **ret_layout, pt_error *err)
{
    (void)b;
    pt_cuda_layout *layout = calloc(1, sizeof *layout);
    if (!layout)
        return pt_fail(err, PT_ENOMEM, "no memory for a layout");
    *layout = pt_cuda_layout_of(shape, samples, PT_CU_FP32, /*channels_last=*/false);
    *ret_layout = &layout->base;
    return PT_OK;
}

void pt_cuda_layout_free(pt_backend *b, pt_layout *layout)
{
    (void)b;
    free(layout);
}

bool pt_cuda_layout_equal(const pt_layout *a, const pt_layout *b)
{
    return pt_cuda_same((const pt_cuda_layout *)a, (const pt_cuda_layout *)b);
}

static pt_status check_bytes(const pt_shape *shape, int samples, const pt_cuda_layout *layout,
                             pt_error *err)
{
    pt_cuda_layout expected =
        pt_cuda_layout_of(shape, samples, layout->type, layout->channels_last);
    if (pt_cuda_same(layout, &expected))
        return PT_OK;
    return pt_fail(err, PT_EINTERNAL, "reorder of %zu bytes with a layout of %zu",
                   expected.base.bytes, layout->base.bytes);
}

pt_status pt_cuda_reorder(pt_backend *b, const pt_shape *shape, int samples, const pt_layout *from,
                          const void *dev_src, const pt_layout *to, void *dev_dst, pt_error *err)
{
    const pt_cuda_layout *source = (const pt_cuda_layout *)from;
    const pt_cuda_layout *target = (const pt_cuda_layout *)to;
    PT_TRY(check_bytes(shape, samples, source, err));
    PT_TRY(check_bytes(shape, samples, target, err));
    return pt_cuda_move((pt_cuda *)b, NULL, shape, samples, source, dev_src, target, dev_dst, err);
}

pt_status pt_cuda_add(pt_backend *b, const pt_layout *layout, const void *x, const void *y,
                      void *out, pt_error *err)
{
    const pt_cu_type type = ((const pt_cuda_layout *)layout)->type;
    const int64_t n = (int64_t)(layout->bytes / pt_cuda_type_bytes(type));
    const void *const both[] = {x, y};
    return pt_cuda_check(pt_cu_sum(((pt_cuda *)b)->lane[PT_LANE_COMPUTE], type, n, 2, both, out),
                         NULL, "pt_cu_sum", err);
}
