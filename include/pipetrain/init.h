/* Initial values of parameters and state, a pure function of (seed, layer index, parameter index):
 * the same on any rank and at any number of stages. */
#ifndef PIPETRAIN_INIT_H
#define PIPETRAIN_INIT_H

#include <stdint.h>

#include "pipetrain/op.h"
#include "pipetrain/partition.h"

/* Fills dst[params[param].elements] for op->layer. batch-norm: weight 1, bias 0. */
void pt_init_param(const pt_op *op, int param, pt_init_kind kind, uint64_t seed, float *dst);

/* running_mean 0, running_var 1. */
void pt_init_state(const pt_op *op, int state, float *dst);

#endif
