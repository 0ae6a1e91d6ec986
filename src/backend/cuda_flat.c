/* Flat fp32 buffers: parameters, gradients, velocities. */
#include "cuda.h"

pt_status pt_cuda_axpby(pt_backend *b, size_t n, float a, const float *x, float c, const float *y,
                        float *out, pt_error *err)
{
    return pt_cuda_check(pt_cu_axpby(((pt_cuda *)b)->lane[PT_LANE_COMPUTE], n, a, x, c, y, out),
                         NULL, "pt_cu_axpby", err);
}

/* The sum stands first, the partial sums behind it. */
enum { SUM_BYTES = 256 };

size_t pt_cuda_squares_bytes(void)
{
    return SUM_BYTES + pt_cu_squares_bytes();
}

pt_status pt_cuda_sum_of_squares(pt_backend *b, size_t n, const float *x, double *ret_sum,
                                 pt_error *err)
{
    pt_cuda *cuda = (pt_cuda *)b;
    cudaStream_t s = cuda->lane[PT_LANE_COMPUTE];
    PT_TRY(pt_cuda_need_rooms(cuda, pt_cuda_squares_bytes(), err));
    double *sum = (double *)cuda->rooms;
    PT_TRY(pt_cuda_check(pt_cu_sum_of_squares(s, n, x, cuda->rooms + SUM_BYTES, sum), NULL,
                         "pt_cu_sum_of_squares", err));
    PT_TRY(
        pt_cuda_check(cudaMemcpyAsync(cuda->host_sum, sum, sizeof *sum, cudaMemcpyDeviceToHost, s),
                      NULL, "cudaMemcpyAsync", err));
    PT_TRY(pt_cuda_check(cudaStreamSynchronize(s), NULL, "cudaStreamSynchronize", err));
    *ret_sum = *cuda->host_sum;
    return PT_OK;
}

pt_status pt_cuda_sgd(pt_backend *b, size_t n, const pt_sgd *rule, float *theta, float *velocity,
                      const float *gradient, const pt_foresight *foresight, pt_error *err)
{
    return pt_cuda_check(pt_cu_sgd(((pt_cuda *)b)->lane[PT_LANE_COMPUTE], n, rule, theta, velocity,
                                   gradient, foresight),
                         NULL, "pt_cu_sgd", err);
}

pt_status pt_cuda_adam(pt_backend *b, size_t n, const pt_adam *rule, float *theta, float *m,
                       float *v, const float *gradient, const pt_adam_foresight *foresight,
                       pt_error *err)
{
    return pt_cuda_check(pt_cu_adam(((pt_cuda *)b)->lane[PT_LANE_COMPUTE], n, rule, theta, m, v,
                                    gradient, foresight),
                         NULL, "pt_cu_adam", err);
}
