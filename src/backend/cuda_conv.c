/* Plans of convolutions: the cache, and putting them on a stream. How one is chosen:
 * cuda_conv_plan.c. */
#include "cuda_conv_plan.h"

#include <stdlib.h>
#include <string.h>

struct pt_cuda_conv {
    pt_cuda_convs *convs;
    pt_conv_shape shape; /* the key: compared byte by byte */
    pt_conv_choice choice;
};

struct pt_cuda_convs {
    pt_conv_target target;
    cudaStream_t stream; /* the handle's */
    pt_cuda_conv **plan; /* ascending by shape */
    size_t n, room;
};

static pt_status describe_device(pt_cuda_convs *convs, const char *json, pt_error *err)
{
#if CUDNN_VERSION >= 90800
    PT_TRY(pt_cudnn_new(CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR, &convs->target.description, err));
    PT_TRY(pt_cudnn_set(convs->target.description, CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION,
                        CUDNN_TYPE_CHAR, (int64_t)strlen(json) + 1, json, err));
    return pt_cudnn_seal(convs->target.description, "reading the description of a device", err);
#else
    (void)convs, (void)json;
    return pt_fail(err, PT_EINPUT,
                   "planning for a described device needs cuDNN 9.8 or newer; this build has %d",
                   (int)CUDNN_VERSION);
#endif
}

pt_status pt_cuda_convs_open(const char *device_json, pt_cuda_convs **ret_convs, pt_error *err)
{
    pt_cuda_convs *convs = calloc(1, sizeof *convs);
    pt_status status = PT_OK;
    if (!convs)
        return pt_fail(err, PT_ENOMEM, "out of memory");
    if (device_json)
        PT_GOTO(status, describe_device(convs, device_json, err));
    else
        PT_GOTO(status, pt_cudnn_check(cudnnCreate(&convs->target.handle), "opening", err));
    *ret_convs = convs;
    convs = NULL;
out:
    pt_cuda_convs_close(convs);
    return status;
}

static void conv_free(pt_cuda_conv *conv)
{
    if (conv)
        pt_conv_choice_clear(&conv->choice);
    free(conv);
}

void pt_cuda_convs_close(pt_cuda_convs *convs)
{
    if (!convs)
        return;
    for (size_t i = 0; i < convs->n; i++)
        conv_free(convs->plan[i]);
    free(convs->plan);
    pt_cudnn_free(&convs->target.description);
    if (convs->target.handle)
        cudnnDestroy(convs->target.handle);
    free(convs);
}

/* Where the shape is, or would have to be put. */
static size_t place_of(const pt_cuda_convs *convs, const pt_conv_shape *shape, bool *ret_there)
{
    size_t low = 0, high = convs->n;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = memcmp(&convs->plan[middle]->shape, shape, sizeof *shape);
        if (order == 0) {
            *ret_there = true;
            return middle;
        }
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    *ret_there = false;
    return low;
}

static pt_status insert(pt_cuda_convs *convs, size_t place, pt_cuda_conv *conv, pt_error *err)
{
    if (convs->n == convs->room) {
        size_t room = convs->room ? 2 * convs->room : 64;
        pt_cuda_conv **more = realloc(convs->plan, room * sizeof *more);
        if (!more)
            return pt_fail(err, PT_ENOMEM, "out of memory");
        convs->plan = more;
        convs->room = room;
    }
    memmove(&convs->plan[place + 1], &convs->plan[place], (convs->n - place) * sizeof *convs->plan);
    convs->plan[place] = conv;
    convs->n++;
    return PT_OK;
}

pt_status pt_cuda_conv_plan(pt_cuda_convs *convs, const pt_conv_shape *shape,
                            pt_cuda_conv **ret_conv, pt_error *err)
{
    bool there;
    size_t place = place_of(convs, shape, &there);
    if (there) {
        *ret_conv = convs->plan[place];
        return PT_OK;
    }
    pt_cuda_conv *conv = calloc(1, sizeof *conv);
    pt_status status;
    if (!conv)
        return pt_fail(err, PT_ENOMEM, "out of memory");
    conv->convs = convs;
    conv->shape = *shape;
    PT_GOTO(status, pt_conv_choose(&conv->choice, shape, &convs->target, err));
    PT_GOTO(status, insert(convs, place, conv, err));
    *ret_conv = conv;
    conv = NULL;
out:
    conv_free(conv);
    return status;
}

size_t pt_cuda_conv_workspace(const pt_cuda_conv *conv)
{
    return conv->choice.workspace;
}

const char *pt_cuda_conv_engine(const pt_cuda_conv *conv)
{
    return conv->choice.engine;
}

unsigned pt_cuda_conv_notes(const pt_cuda_conv *conv)
{
    return conv->choice.notes;
}

/* Where this call's tensors are. cuDNN reads it before cudnnBackendExecute returns. None is kept: a
 * pack is cheap to make and cannot be changed, and a plan serves several layers and all slots. */
static pt_status pack_addresses(cudnnBackendDescriptor_t *ret_pack, void *x, void *w, void *y,
                                void *workspace, pt_error *err)
{
    const int64_t uids[3] = {PT_CONV_UID_X, PT_CONV_UID_W, PT_CONV_UID_Y};
    void *const address[3] = {x, w, y};
    PT_TRY(pt_cudnn_new(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, ret_pack, err));
    cudnnBackendDescriptor_t pack = *ret_pack;
    PT_TRY(pt_cudnn_set(pack, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, 3, uids, err));
    PT_TRY(pt_cudnn_set(pack, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, 3,
                        address, err));
    PT_TRY(pt_cudnn_set(pack, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1, &workspace,
                        err));
    return pt_cudnn_seal(pack, "packing addresses", err);
}

static pt_status choose_stream(pt_cuda_convs *convs, cudaStream_t stream, pt_error *err)
{
    if (convs->stream == stream)
        return PT_OK;
    PT_TRY(
        pt_cudnn_check(cudnnSetStream(convs->target.handle, stream), "choosing the stream", err));
    convs->stream = stream;
    return PT_OK;
}

pt_status pt_cuda_conv_run(pt_cuda_conv *conv, cudaStream_t stream, void *x, void *w, void *y,
                           void *workspace, pt_error *err)
{
    cudnnHandle_t handle = conv->convs->target.handle;
    cudnnBackendDescriptor_t pack = NULL;
    pt_status status;
    if (!handle)
        return pt_fail(err, PT_EINTERNAL, "a plan for a described device cannot run");
    PT_GOTO(status, choose_stream(conv->convs, stream, err));
    PT_GOTO(status, pack_addresses(&pack, x, w, y, workspace, err));
    status = pt_cudnn_check(cudnnBackendExecute(handle, conv->choice.plan, pack), "starting", err);
out:
    pt_cudnn_free(&pack);
    if (status != PT_OK) {
        char words[PT_CONV_WORDS];
        pt_conv_describe(&conv->shape, words);
        pt_fail_within(err, "%s, engine %s", words, conv->choice.engine);
    }
    return status;
}
