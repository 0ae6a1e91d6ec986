/* Operation graphs of convolutions.
 *
 * cuDNN names dimensions N, C, H, W (weights: K, C/G, R, S) whatever the memory order is; the order
 * is in the strides alone. Innermost channels make NHWC and OHWI. */
#include "cuda_conv_graph.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

/* What cuDNN may assume of addresses: less than PT_ALIGN, and enough for its widest loads. */
enum { ALIGNMENT = 16 };

/* The three passes have attributes of different names for the same things. */
typedef struct pass_row {
    const char *words;
    cudnnBackendDescriptorType_t type;
    cudnnBackendAttributeName_t window, x, w, y, alpha, beta;
} pass_row;

static const pass_row passes[PT_CONV_PASSES] = {
    [PT_CONV_FORWARD] = {"the output", CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR,
                         CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC,
                         CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X,
                         CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W,
                         CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y,
                         CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA,
                         CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA},
    [PT_CONV_BACKWARD_INPUT] = {"the input gradient",
                                CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR,
                                CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC,
                                CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX,
                                CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W,
                                CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY,
                                CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA,
                                CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA},
    [PT_CONV_BACKWARD_WEIGHT] = {"the weight gradient",
                                 CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR,
                                 CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC,
                                 CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X,
                                 CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW,
                                 CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY,
                                 CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA,
                                 CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA},
};

pt_status pt_cudnn_check(cudnnStatus_t status, const char *doing, pt_error *err)
{
    if (status == CUDNN_STATUS_SUCCESS)
        return PT_OK;
    char detail[1024] = "";
    cudnnGetLastErrorString(detail, sizeof detail);
    return pt_fail(err, PT_EBACKEND, "cuDNN: %s: %s%s%s", doing, cudnnGetErrorString(status),
                   detail[0] ? ": " : "", detail);
}

pt_status pt_cudnn_new(cudnnBackendDescriptorType_t type, cudnnBackendDescriptor_t *ret_descriptor,
                       pt_error *err)
{
    return pt_cudnn_check(cudnnBackendCreateDescriptor(type, ret_descriptor), "making a descriptor",
                          err);
}

pt_status pt_cudnn_set(cudnnBackendDescriptor_t descriptor, cudnnBackendAttributeName_t name,
                       cudnnBackendAttributeType_t type, int64_t n, const void *values,
                       pt_error *err)
{
    char doing[64];
    snprintf(doing, sizeof doing, "setting attribute %d", (int)name);
    return pt_cudnn_check(cudnnBackendSetAttribute(descriptor, name, type, n, values), doing, err);
}

pt_status pt_cudnn_seal(cudnnBackendDescriptor_t descriptor, const char *what, pt_error *err)
{
    return pt_cudnn_check(cudnnBackendFinalize(descriptor), what, err);
}

void pt_cudnn_free(cudnnBackendDescriptor_t *descriptor)
{
    if (*descriptor)
        cudnnBackendDestroyDescriptor(*descriptor);
    *descriptor = NULL;
}

void pt_conv_describe(const pt_conv_shape *s, char words[PT_CONV_WORDS])
{
#define LD(value) (long long)(value)
    snprintf(words, PT_CONV_WORDS,
             "%s in %s of a convolution of %lld images from %lldx%lldx%lld to %lldx%lldx%lld"
             " (kernel %lldx%lld, stride %lldx%lld, padding %lldx%lld, %lld group%s)%s",
             passes[s->pass].words, pt_precision_names[s->precision], LD(s->n), LD(s->c), LD(s->h),
             LD(s->w), LD(s->k), LD(s->out_h), LD(s->out_w), LD(s->r), LD(s->s), LD(s->stride[0]),
             LD(s->stride[1]), LD(s->padding[0]), LD(s->padding[1]), LD(s->groups),
             s->groups == 1 ? "" : "s", s->deterministic ? ", deterministic" : "");
#undef LD
}

/* dims: N, C, H, W in this order; in memory the channels are innermost. */
static pt_status tensor(cudnnBackendDescriptor_t *ret_tensor, int64_t uid, cudnnDataType_t type,
                        const int64_t dims[4], pt_error *err)
{
    const int64_t c = dims[1], h = dims[2], w = dims[3], alignment = ALIGNMENT;
    const int64_t strides[4] = {h * w * c, 1, w * c, c};
    PT_TRY(pt_cudnn_new(CUDNN_BACKEND_TENSOR_DESCRIPTOR, ret_tensor, err));
    cudnnBackendDescriptor_t d = *ret_tensor;
    PT_TRY(pt_cudnn_set(d, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1, &uid, err));
    PT_TRY(pt_cudnn_set(d, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &type, err));
    PT_TRY(pt_cudnn_set(d, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, 4, dims, err));
    PT_TRY(pt_cudnn_set(d, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, 4, strides, err));
    PT_TRY(pt_cudnn_set(d, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, 1, &alignment, err));
    return pt_cudnn_seal(d, "describing a tensor", err);
}

static pt_status window(cudnnBackendDescriptor_t *ret_window, const pt_conv_shape *s, pt_error *err)
{
    const cudnnDataType_t compute = CUDNN_DATA_FLOAT;
    const cudnnConvolutionMode_t mode = CUDNN_CROSS_CORRELATION; /* the kernel is not flipped */
    const int64_t dims = 2, dilation[2] = {1, 1};
    PT_TRY(pt_cudnn_new(CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR, ret_window, err));
    cudnnBackendDescriptor_t d = *ret_window;
    const struct {
        cudnnBackendAttributeName_t name;
        cudnnBackendAttributeType_t type;
        int64_t n;
        const void *values;
    } attributes[] = {
        {CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, CUDNN_TYPE_INT64, 1, &dims},
        {CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &compute},
        {CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, 1, &mode},
        {CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, CUDNN_TYPE_INT64, 2, s->padding},
        {CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, CUDNN_TYPE_INT64, 2, s->padding},
        {CUDNN_ATTR_CONVOLUTION_DILATIONS, CUDNN_TYPE_INT64, 2, dilation},
        {CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, CUDNN_TYPE_INT64, 2, s->stride},
    };
    for (size_t i = 0; i < sizeof attributes / sizeof *attributes; i++)
        PT_TRY(pt_cudnn_set(d, attributes[i].name, attributes[i].type, attributes[i].n,
                            attributes[i].values, err));
    return pt_cudnn_seal(d, "describing a window", err);
}

static pt_status operation(pt_conv_graph *g, int pass, pt_error *err)
{
    const pass_row *row = &passes[pass];
    const float alpha = 1, beta = 0;
    PT_TRY(pt_cudnn_new(row->type, &g->operation, err));
    cudnnBackendDescriptor_t d = g->operation;
    PT_TRY(pt_cudnn_set(d, row->window, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &g->window, err));
    PT_TRY(pt_cudnn_set(d, row->x, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &g->x, err));
    PT_TRY(pt_cudnn_set(d, row->w, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &g->w, err));
    PT_TRY(pt_cudnn_set(d, row->y, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &g->y, err));
    PT_TRY(pt_cudnn_set(d, row->alpha, CUDNN_TYPE_FLOAT, 1, &alpha, err));
    PT_TRY(pt_cudnn_set(d, row->beta, CUDNN_TYPE_FLOAT, 1, &beta, err));
    return pt_cudnn_seal(d, "describing the operation", err);
}

pt_status pt_conv_graph_build(pt_conv_graph *g, const pt_conv_shape *s, cudnnHandle_t handle,
                              pt_error *err)
{
    assert(s->pass >= 0 && s->pass < PT_CONV_PASSES);
    const int64_t x[4] = {s->n, s->c, s->h, s->w};
    const int64_t w[4] = {s->k, s->groups ? s->c / s->groups : 0, s->r, s->s};
    const int64_t y[4] = {s->n, s->k, s->out_h, s->out_w};
    const cudnnDataType_t type = s->precision == PT_BF16 ? CUDNN_DATA_BFLOAT16 : CUDNN_DATA_FLOAT;
    PT_TRY(tensor(&g->x, PT_CONV_UID_X, type, x, err));
    PT_TRY(tensor(&g->w, PT_CONV_UID_W, type, w, err));
    PT_TRY(tensor(&g->y, PT_CONV_UID_Y, type, y, err));
    PT_TRY(window(&g->window, s, err));
    PT_TRY(operation(g, s->pass, err));
    PT_TRY(pt_cudnn_new(CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR, &g->graph, err));
    if (handle)
        PT_TRY(pt_cudnn_set(g->graph, CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, 1,
                            &handle, err));
    PT_TRY(pt_cudnn_set(g->graph, CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1,
                        &g->operation, err));
    return pt_cudnn_seal(g->graph, "joining the graph", err);
}

void pt_conv_graph_clear(pt_conv_graph *g)
{
    pt_cudnn_free(&g->graph);
    pt_cudnn_free(&g->operation);
    pt_cudnn_free(&g->window);
    pt_cudnn_free(&g->y);
    pt_cudnn_free(&g->w);
    pt_cudnn_free(&g->x);
}
