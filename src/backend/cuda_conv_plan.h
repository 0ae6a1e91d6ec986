/* Choosing an engine for a convolution's graph. Private to src/backend/cuda_conv*. */
#ifndef PIPETRAIN_BACKEND_CUDA_CONV_PLAN_H
#define PIPETRAIN_BACKEND_CUDA_CONV_PLAN_H

#include "cuda_conv_graph.h"

/* What plans are made for: one of the two is set. */
typedef struct pt_conv_target {
    cudnnHandle_t handle;
    cudnnBackendDescriptor_t description; /* of a device that need not be here */
} pt_conv_target;

/* Zero-initialise. */
typedef struct pt_conv_choice {
    cudnnBackendDescriptor_t config; /* engine and knobs; kept as long as the plan */
    cudnnBackendDescriptor_t plan;
    unsigned notes;   /* bit 1 << cudnnBackendNumericalNote_t for each note of the engine */
    size_t workspace; /* bytes */
    char engine[128];
} pt_conv_choice;

/* PT_EINPUT when no engine is left. */
pt_status pt_conv_choose(pt_conv_choice *choice, const pt_conv_shape *shape,
                         const pt_conv_target *target, pt_error *err);
void pt_conv_choice_clear(pt_conv_choice *choice);

#endif
