/* Rules for late gradients on flat fp32 buffers. */
#include "cuda.h"

pt_status pt_cuda_mean_squares(pt_backend *b, size_t n, float keep, float rest, const float *x,
                               float *average, pt_error *err)
{
    return pt_cuda_check(
        pt_cu_mean_squares(((pt_cuda *)b)->lane[PT_LANE_COMPUTE], n, keep, rest, x, average), NULL,
        "pt_cu_mean_squares", err);
}

pt_status pt_cuda_gap(pt_backend *b, size_t n, const pt_gap *rule, const float *forward,
                      const float *theta, const float *average, const float *own, float *gradient,
                      pt_error *err)
{
    return pt_cuda_check(pt_cu_gap(((pt_cuda *)b)->lane[PT_LANE_COMPUTE], n, rule, forward, theta,
                                   average, own, gradient),
                         NULL, "pt_cu_gap", err);
}

pt_status pt_cuda_look_back(pt_backend *b, size_t n, const pt_look_back *rule, const float *theta,
                            float *drift, float *back, pt_error *err)
{
    return pt_cuda_check(
        pt_cu_look_back(((pt_cuda *)b)->lane[PT_LANE_COMPUTE], n, rule, theta, drift, back), NULL,
        "pt_cu_look_back", err);
}
