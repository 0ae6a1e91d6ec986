/* Weights as a library wants them: another order, another type.
 *
 * Two copies are kept: with asynchronous schedules forward and backward use two versions in turn,
 * and each would undo the other's work. With one version both find the same copy. */
#include "cuda.h"

void pt_cuda_weight_plan(pt_cuda_weight *w, pt_cuda_kernel *k, int64_t n, int64_t rows,
                         int64_t columns)
{
    const pt_cu_type type = pt_cuda_of(k)->type;
    w->turn =
        (pt_cuda_turn){.n = n, .rows = rows, .columns = columns, .from = PT_CU_FP32, .to = type};
    if (type == PT_CU_FP32 && (rows == 1 || columns == 1))
        return;
    w->bytes = (size_t)(n * rows * columns) * pt_cuda_type_bytes(type);
    w->copies = k->base.mode == PT_TRAIN ? PT_CUDA_KEPT : 1;
    k->base.private_bytes += (size_t)w->copies * w->bytes;
}

pt_status pt_cuda_weight_build(pt_cuda_weight *w, pt_cuda_kernel *k, pt_error *err)
{
    for (int i = 0; i < w->copies; i++)
        if (!w->kept[i].copy)
            PT_TRY(pt_cuda_dev_new(k->base.backend, w->bytes, &w->kept[i].copy, err));
    return PT_OK;
}

void pt_cuda_weight_clear(pt_cuda_weight *w, pt_cuda_kernel *k)
{
    for (int i = 0; i < w->copies; i++)
        pt_cuda_dev_free(k->base.backend, w->kept[i].copy);
}

pt_status pt_cuda_weight_take(pt_cuda_weight *w, pt_cuda_kernel *k, const pt_kernel_args *args,
                              const void **ret_weight, pt_error *err)
{
    const float *param = args->dev_param[0];
    if (w->copies == 0) {
        *ret_weight = param;
        return PT_OK;
    }
    int found = -1;
    for (int i = 0; i < w->copies && args->param_version != 0; i++)
        if (w->kept[i].version == args->param_version && w->kept[i].address == param)
            found = i;
    if (found < 0) {
        found = (w->last + 1) % w->copies;
        struct pt_cuda_kept *kept = &w->kept[found];
        kept->version = 0;
        PT_TRY(pt_cuda_turn_run(pt_cuda_of(k), &k->base.op, &w->turn, param, kept->copy, err));
        kept->version = args->param_version;
        kept->address = param;
    }
    w->last = found;
    *ret_weight = w->kept[found].copy;
    return PT_OK;
}
