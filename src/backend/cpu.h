/* What the CPU backends (ref, onednn) share: host memory that counts itself, events that are always
 * reached, losses and flat-buffer maths. Private to src/backend. */
#ifndef PIPETRAIN_BACKEND_CPU_H
#define PIPETRAIN_BACKEND_CPU_H

#include "pipetrain/backend.h"

/* First member of every CPU backend's own struct. */
typedef struct pt_cpu {
    pt_backend base;
    pt_backend_config config;
    size_t bytes_now, bytes_peak; /* of dev_new */
} pt_cpu;

/* Called when opening: refuses what no CPU backend can do. */
pt_status pt_cpu_check_config(const pt_backend_config *config, const char *name, pt_error *err);

/* Rows of pt_backend_row that are the same for every CPU backend. */
pt_status pt_cpu_reserve(pt_backend *b, size_t bytes, size_t *ret_free, pt_error *err);
pt_status pt_cpu_dev_new(pt_backend *b, size_t bytes, void **ret_dev, pt_error *err);
void pt_cpu_dev_free(pt_backend *b, void *dev);
pt_status pt_cpu_host_new(pt_backend *b, size_t bytes, void **ret_host, pt_error *err);
void pt_cpu_host_free(pt_backend *b, void *host);
pt_status pt_cpu_copy(pt_backend *b, void *dst, const void *src, size_t bytes, pt_error *err);
pt_status pt_cpu_event_new(pt_backend *b, pt_event **ret_event, pt_error *err);
void pt_cpu_event_free(pt_backend *b, pt_event *event);
pt_status pt_cpu_event_record(pt_backend *b, pt_lane lane, pt_event *event, pt_error *err);
pt_status pt_cpu_event_wait(pt_backend *b, pt_lane lane, pt_event *event, pt_error *err);
pt_status pt_cpu_event_done(pt_backend *b, pt_event *event, bool *ret_done, pt_error *err);
int64_t pt_cpu_event_ns(pt_backend *b, pt_event *event);
pt_status pt_cpu_finish(pt_backend *b, pt_error *err);
void pt_cpu_memory(const pt_backend *b, size_t *ret_now, size_t *ret_peak);

/* Runs body(context, begin, end) over pieces of n elements, on the rank's thread pool. */
pt_status pt_cpu_ranges(pt_backend *b, size_t n,
                        void (*body)(void *context, size_t begin, size_t end), void *context,
                        pt_error *err);
pt_status pt_cpu_add_flat(pt_backend *b, size_t n, const float *x, const float *y, float *out,
                          pt_error *err);
/* Values of CPUs are fp32 in any layout; what is padded is zero and stays so. */
pt_status pt_cpu_add(pt_backend *b, const pt_layout *layout, const void *x, const void *y,
                     void *out, pt_error *err);
pt_status pt_cpu_axpby(pt_backend *b, size_t n, float a, const float *x, float c, const float *y,
                       float *out, pt_error *err);
/* Blocks of 4,096 elements, summed in double, added in order: the bits do not depend on threads. */
pt_status pt_cpu_sum_of_squares(pt_backend *b, size_t n, const float *x, double *ret_sum,
                                pt_error *err);
/* velocity may be NULL when the rule has no momentum. */
pt_status pt_cpu_sgd(pt_backend *b, size_t n, const pt_sgd *rule, float *theta, float *velocity,
                     const float *gradient, const pt_foresight *foresight, pt_error *err);
pt_status pt_cpu_adam(pt_backend *b, size_t n, const pt_adam *rule, float *theta, float *m,
                      float *v, const float *gradient, const pt_adam_foresight *foresight,
                      pt_error *err);

/* ---- cpu_late.c ---- */
pt_status pt_cpu_mean_squares(pt_backend *b, size_t n, float keep, float rest, const float *x,
                              float *average, pt_error *err);
pt_status pt_cpu_gap(pt_backend *b, size_t n, const pt_gap *rule, const float *forward,
                     const float *theta, const float *average, const float *own, float *gradient,
                     pt_error *err);
pt_status pt_cpu_look_back(pt_backend *b, size_t n, const pt_look_back *rule, const float *theta,
                           float *drift, float *back, pt_error *err);

/* The losses on plain row-major predictions y (samples, shape) and, unless NULL, d_y; fills
 * *args->host_result. */
void pt_cpu_loss(const pt_loss *loss, const pt_loss_args *args, const float *y, float *d_y);

/* Dropout on plain row-major memory: out = x·m/(1-p). The mask is remade from the counter, so
 * nothing is saved; the gradient is the same map applied to d_out. */
void pt_cpu_dropout(const pt_op *op, int samples, const pt_kernel_args *args, const float *x,
                    float *out);

/* Runs body(context, i) for i in [0, n) on the rank's thread pool, statically divided. */
void pt_cpu_parallel(const pt_cpu *cpu, int n, void (*body)(void *context, int i), void *context);

#endif
