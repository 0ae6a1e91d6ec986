/* One pass of one convolution as a cuDNN operation graph, and how cuDNN's failures are told.
 * Private to src/backend/cuda_conv*. */
#ifndef PIPETRAIN_BACKEND_CUDA_CONV_GRAPH_H
#define PIPETRAIN_BACKEND_CUDA_CONV_GRAPH_H

#include <cudnn.h>

#include "cuda_conv.h"

/* Names of the three tensors in a graph; cudnnBackendExecute matches addresses by them. */
enum { PT_CONV_UID_X = 'x', PT_CONV_UID_W = 'w', PT_CONV_UID_Y = 'y' };

/* Zero-initialise; descriptors that were not made are NULL. */
typedef struct pt_conv_graph {
    cudnnBackendDescriptor_t x, w, y; /* tensors */
    cudnnBackendDescriptor_t window;  /* stride, padding, compute type */
    cudnnBackendDescriptor_t operation;
    cudnnBackendDescriptor_t graph;
} pt_conv_graph;

/* handle: of the device to plan for; NULL when a description stands for it. */
pt_status pt_conv_graph_build(pt_conv_graph *graph, const pt_conv_shape *shape,
                              cudnnHandle_t handle, pt_error *err);
void pt_conv_graph_clear(pt_conv_graph *graph); /* a half-built one is fine */

/* The convolution in words, e.g. "the weight gradient in bf16 of a convolution of 32 images from
 * 64x56x56 to 128x28x28 (kernel 3x3, stride 2x2, padding 1x1, 1 group)". */
enum { PT_CONV_WORDS = 256 };
void pt_conv_describe(const pt_conv_shape *shape, char words[PT_CONV_WORDS]);

/* PT_EBACKEND with cuDNN's name of the failure and its last message, unless status is success. */
pt_status pt_cudnn_check(cudnnStatus_t status, const char *doing, pt_error *err);

/* Descriptors: make one, set a value or a list of them, seal it. */
pt_status pt_cudnn_new(cudnnBackendDescriptorType_t type, cudnnBackendDescriptor_t *ret_descriptor,
                       pt_error *err);
pt_status pt_cudnn_set(cudnnBackendDescriptor_t descriptor, cudnnBackendAttributeName_t name,
                       cudnnBackendAttributeType_t type, int64_t n, const void *values,
                       pt_error *err);
pt_status pt_cudnn_seal(cudnnBackendDescriptor_t descriptor, const char *what, pt_error *err);
void pt_cudnn_free(cudnnBackendDescriptor_t *descriptor); /* and forgets it; NULL inside is fine */

#endif
