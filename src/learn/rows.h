/* The functions of the optimizers' rows that have files of their own. Private to src/learn. */
#ifndef PIPETRAIN_LEARN_ROWS_H
#define PIPETRAIN_LEARN_ROWS_H

#include "pipetrain/learn.h"

pt_status pt_adam_step(pt_backend *b, const pt_optimizer_spec *spec, int64_t t, double lr,
                       double scale, const pt_optimizer_buffers *at,
                       const pt_prediction *prediction, float *dev_out, pt_error *err);
pt_status pt_nadam_step(pt_backend *b, const pt_optimizer_spec *spec, int64_t t, double lr,
                        double scale, const pt_optimizer_buffers *at,
                        const pt_prediction *prediction, float *dev_out, pt_error *err);
pt_status pt_adam_foresee(pt_backend *b, const pt_optimizer_spec *spec, int64_t t,
                          const pt_optimizer_buffers *at, const pt_prediction *prediction,
                          float *dev_out, pt_error *err);
pt_prediction pt_adam_drift(const pt_optimizer_spec *spec, const pt_lr_spec *lr, int64_t t, int n);
/* The same with FTPipe's correction of v. */
pt_prediction pt_adam_drift_ftpipe(const pt_optimizer_spec *spec, const pt_lr_spec *lr, int64_t t,
                                   int n);
/* Decay that is part of the gradient, and so of m: foreseen in a loop. */
bool pt_adam_is_coupled(const pt_optimizer_spec *spec);

#endif
