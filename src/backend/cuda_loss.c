/* Losses: one kernel that reads predictions, labels or targets on the device and writes gradient
 * and result. The result goes to pinned host memory; nobody waits here. */
#include "cuda.h"

pt_status pt_cuda_loss(pt_backend *b, const pt_loss *loss, const pt_loss_args *args, pt_error *err)
{
    pt_cuda *cuda = (pt_cuda *)b;
    const pt_cuda_layout *layout = (const pt_cuda_layout *)args->layout;
    if (layout->channels_last)
        return pt_fail(err, PT_EINTERNAL, "a loss of predictions that are images");
    PT_TRY(pt_cuda_need_rooms(cuda, pt_cu_loss_bytes(args->samples), err));
    return pt_cuda_check(pt_cu_loss(cuda->lane[PT_LANE_COMPUTE], layout->type, loss, args->samples,
                                    args->dev_y, args->dev_label, args->dev_target, args->scale,
                                    args->dev_d_y, args->host_result, cuda->rooms),
                         NULL, "pt_cu_loss", err);
}
