/* The clock backend's inside. Private to src/backend/clock*. */
#ifndef PIPETRAIN_BACKEND_CLOCK_H
#define PIPETRAIN_BACKEND_CLOCK_H

#include "cpu.h"

typedef struct pt_clock_backend {
    pt_cpu cpu;
    const pt_call_times *times; /* per layer of the graph */
    double update_ns;           /* per element */
    int64_t end_ns[PT_LANES];   /* when a lane has done all that it was asked */
    pt_event *events;           /* all there are */
} pt_clock_backend;

/* ---- clock.c: lanes -------------------------------------------------------------------------- */
/* The compute lane is busy for so long, from its end on, or from now if that is past. */
void pt_clock_take(pt_backend *b, int64_t ns);
/* Waits for all lanes. */
pt_status pt_clock_finish(pt_backend *b, pt_error *err);
/* Leaves everything as it is. */
pt_status pt_clock_copy(pt_backend *b, void *dst, const void *src, size_t bytes, pt_error *err);

/* ---- clock_calls.c: rows of the table -------------------------------------------------------- */
pt_status pt_clock_plain_layout(pt_backend *b, const pt_shape *shape, int samples,
                                pt_layout **ret_layout, pt_error *err);
void pt_clock_layout_free(pt_backend *b, pt_layout *layout);
bool pt_clock_layout_equal(const pt_layout *a, const pt_layout *b);
pt_status pt_clock_reorder(pt_backend *b, const pt_shape *shape, int samples, const pt_layout *from,
                           const void *dev_src, const pt_layout *to, void *dev_dst, pt_error *err);
bool pt_clock_supports(const pt_op *op);
pt_status pt_clock_plan(pt_backend *b, const pt_op *op, int samples, pt_mode mode,
                        const pt_layout *const in[], pt_kernel **ret_kernel, pt_error *err);
pt_status pt_clock_build(pt_kernel *k, pt_error *err);
void pt_clock_release(pt_kernel *k);
pt_status pt_clock_forward(pt_kernel *k, const pt_kernel_args *args, pt_error *err);
pt_status pt_clock_backward_input(pt_kernel *k, const pt_kernel_args *args, pt_error *err);
pt_status pt_clock_backward_weight(pt_kernel *k, const pt_kernel_args *args, pt_error *err);
pt_status pt_clock_loss(pt_backend *b, const pt_loss *loss, const pt_loss_args *args,
                        pt_error *err);
pt_status pt_clock_add(pt_backend *b, const pt_layout *layout, const void *dev_x, const void *dev_y,
                       void *dev_out, pt_error *err);
pt_status pt_clock_axpby(pt_backend *b, size_t n, float a, const float *dev_x, float c,
                         const float *dev_y, float *dev_out, pt_error *err);
pt_status pt_clock_sum_of_squares(pt_backend *b, size_t n, const float *dev_x, double *ret_sum,
                                  pt_error *err);
pt_status pt_clock_sgd(pt_backend *b, size_t n, const pt_sgd *rule, float *dev_theta,
                       float *dev_velocity, const float *dev_gradient,
                       const pt_foresight *foresight, pt_error *err);
pt_status pt_clock_adam(pt_backend *b, size_t n, const pt_adam *rule, float *dev_theta,
                        float *dev_m, float *dev_v, const float *dev_gradient,
                        const pt_adam_foresight *foresight, pt_error *err);
pt_status pt_clock_mean_squares(pt_backend *b, size_t n, float keep, float rest, const float *dev_x,
                                float *dev_average, pt_error *err);
pt_status pt_clock_gap(pt_backend *b, size_t n, const pt_gap *rule, const float *dev_forward,
                       const float *dev_theta, const float *dev_average, const float *dev_own,
                       float *dev_gradient, pt_error *err);
pt_status pt_clock_look_back(pt_backend *b, size_t n, const pt_look_back *rule,
                             const float *dev_theta, float *dev_drift, float *dev_back,
                             pt_error *err);

#endif
