/* The CUDA backend: convolutions by cuDNN, products by cuBLASLt, all else by kernels of ours.
 *
 * This file is the row: life of the backend, and the way from an op to its kind. The layout of a
 * value depends on its shape and the precision alone: nothing that is chosen here can depend on a
 * cut. */
#include "cuda.h"

#include <cudnn.h>
#include <stdio.h>
#include <stdlib.h>

#include "pipetrain/arena.h"
#include "rows.h"

/* ---- life ----------------------------------------------------------------------------------- */

static void close_backend(pt_backend *b)
{
    pt_cuda *cuda = (pt_cuda *)b;
    if (!cuda)
        return;
    pt_cuda_free_all(cuda);
    pt_cuda_gemms_close(cuda->gemms);
    pt_cuda_convs_close(cuda->convs);
    pt_cuda_lanes_close(cuda);
    free(cuda);
}

/* 13000 → 13.0, as CUDA counts; cuDNN counts 91900 for 9.19. */
static void split_version(int version, int *ret_major, int *ret_minor)
{
    *ret_major = version / 1000;
    *ret_minor = version % 1000 / 10;
}

static pt_status no_device(cudaError_t error, pt_error *err)
{
    int driver = 0, runtime = 0, major, minor, built_major, built_minor;
    (void)cudaGetLastError();
    if (error == cudaSuccess)
        error = cudaErrorNoDevice;
    if (cudaDriverGetVersion(&driver) != cudaSuccess || driver == 0)
        return pt_fail(err, PT_EINPUT,
                       "no CUDA device: this machine has no NVIDIA driver (%s); use --backend "
                       "onednn",
                       cudaGetErrorName(error));
    if (error == cudaErrorInsufficientDriver && cudaRuntimeGetVersion(&runtime) == cudaSuccess) {
        split_version(driver, &major, &minor);
        split_version(runtime, &built_major, &built_minor);
        return pt_fail(err, PT_EINPUT,
                       "no CUDA device: the driver knows CUDA %d.%d, this build needs %d.%d; "
                       "update the driver or use --backend onednn",
                       major, minor, built_major, built_minor);
    }
    return pt_fail(err, PT_EINPUT, "no CUDA device: %s (%s); use --backend onednn",
                   cudaGetErrorString(error), cudaGetErrorName(error));
}

/* The kernels are compiled for 8.0 and later, where bf16 begins. */
static pt_status check_device(pt_cuda *cuda, pt_error *err)
{
    struct cudaDeviceProp device;
    PT_TRY(pt_cuda_check(cudaGetDeviceProperties(&device, cuda->device), NULL,
                         "cudaGetDeviceProperties", err));
    if (device.major >= 8)
        return PT_OK;
    return pt_fail(err, PT_EINPUT,
                   "GPU %d (%s) has compute capability %d.%d, but 8.0 is needed; use another GPU "
                   "or --backend onednn",
                   cuda->device, device.name, device.major, device.minor);
}

static void choose_device(int local_rank)
{
    int devices = 0;
    if (cudaGetDeviceCount(&devices) == cudaSuccess && devices > 0)
        (void)cudaSetDevice(local_rank % devices);
    (void)cudaGetLastError(); /* open_backend says it in words */
}

static pt_status take_device(pt_cuda *cuda, pt_error *err)
{
    int devices = 0;
    cudaError_t error = cudaGetDeviceCount(&devices);
    if (error != cudaSuccess || devices < 1)
        return no_device(error, err);
    cuda->device = cuda->config.local_rank % devices;
    if (cuda->config.local_rank < 0)
        PT_TRY(pt_cuda_check(cudaGetDevice(&cuda->device), NULL, "cudaGetDevice", err));
    PT_TRY(check_device(cuda, err));
    if (pt_cuda_check(cudaSetDevice(cuda->device), NULL, "cudaSetDevice", err) != PT_OK)
        return pt_fail_within(err, "GPU %d", cuda->device);
    return PT_OK;
}

static pt_status open_parts(pt_cuda *cuda, pt_error *err)
{
    void *sum = NULL;
    PT_TRY(take_device(cuda, err));
    PT_TRY(pt_cuda_lanes_open(cuda, err));
    PT_TRY(pt_cuda_host_new(&cuda->base, sizeof *cuda->host_sum, &sum, err));
    cuda->host_sum = sum;
    PT_TRY(pt_cuda_convs_open(/*device_json=*/NULL, &cuda->convs, err));
    return pt_cuda_gemms_open(PT_CUDA_GEMM_WORKSPACE, &cuda->gemms, err);
}

static pt_status open_backend(const pt_backend_config *config, pt_backend **ret_backend,
                              pt_error *err)
{
    pt_cuda *cuda = calloc(1, sizeof *cuda);
    if (!cuda)
        return pt_fail(err, PT_ENOMEM, "no memory for the cuda backend");
    cuda->base.row = &pt_backend_cuda;
    cuda->config = *config;
    cuda->type = config->precision == PT_BF16 ? PT_CU_BF16 : PT_CU_FP32;
    pt_status status = open_parts(cuda, err);
    if (status != PT_OK) {
        close_backend(&cuda->base);
        return status;
    }
    *ret_backend = &cuda->base;
    return PT_OK;
}

static void describe(const pt_backend *b, char *text, size_t size)
{
    const pt_cuda *cuda = (const pt_cuda *)b;
    struct cudaDeviceProp device = {.name = "GPU"};
    int runtime = 0, major, minor;
    (void)cudaGetDeviceProperties(&device, cuda->device);
    (void)cudaRuntimeGetVersion(&runtime);
    split_version(runtime, &major, &minor);
    size_t cudnn = cudnnGetVersion();
    snprintf(text, size, "GPU %d: %s, CUDA %d.%d, cuDNN %zu.%zu, %s%s", cuda->device, device.name,
             major, minor, cudnn / 10000, cudnn / 100 % 100,
             pt_precision_names[cuda->config.precision],
             cuda->config.deterministic ? ", deterministic" : "");
}

/* ---- plan ----------------------------------------------------------------------------------- */

static const pt_cuda_kind *const kinds[PT_OP_KINDS] = {
    [PT_OP_CONV2D] = &pt_cuda_kind_conv,       [PT_OP_LINEAR] = &pt_cuda_kind_linear,
    [PT_OP_BATCH_NORM] = &pt_cuda_kind_norm,   [PT_OP_RELU] = &pt_cuda_kind_relu,
    [PT_OP_GELU] = &pt_cuda_kind_gelu,         [PT_OP_MAX_POOL] = &pt_cuda_kind_max_pool,
    [PT_OP_AVG_POOL] = &pt_cuda_kind_avg_pool, [PT_OP_GLOBAL_AVG_POOL] = &pt_cuda_kind_global_pool,
    [PT_OP_FLATTEN] = &pt_cuda_kind_flatten,   [PT_OP_ADD] = &pt_cuda_kind_add,
    [PT_OP_CONCAT] = &pt_cuda_kind_concat,     [PT_OP_DROPOUT] = &pt_cuda_kind_dropout,
};

static bool supports(const pt_op *op)
{
    return op->kind < PT_OP_KINDS && kinds[op->kind];
}

int64_t pt_cuda_elements(const pt_cuda_kernel *k, const pt_shape *shape)
{
    return k->base.samples * pt_shape_elements(shape);
}

void pt_cuda_need(pt_cuda_kernel *k, pt_cuda_room room, size_t bytes)
{
    if (bytes > k->room_bytes[room])
        k->room_bytes[room] = bytes;
}

/* Where a room begins; that of PT_CUDA_ROOMS is the end of all. */
static size_t room_offset(const pt_cuda_kernel *k, int room)
{
    size_t offset = 0;
    for (int i = 0; i < room; i++)
        offset += pt_align_up(k->room_bytes[i]);
    return offset;
}

void *pt_cuda_room_of(const pt_cuda_kernel *k, pt_cuda_room room)
{
    return pt_cuda_of(k)->rooms + room_offset(k, room);
}

/* Rooms for inputs that lie otherwise than planned values, and for their gradients. Nothing may be
 * aliased where a value is moved. */
static void plan_ports(pt_cuda_kernel *k)
{
    const unsigned aliases = PT_MAY_RUN_IN_PLACE | PT_PASSES_GRADIENT | PT_PASSES_VALUE;
    const pt_op *op = &k->base.op;
    size_t end = room_offset(k, PT_CUDA_ROOMS);
    for (int i = 0; i < op->n_inputs && !k->kind->any_layout; i++) {
        pt_cuda_port *port = &k->port[i];
        port->planned = pt_cuda_layout_of(&op->in[i], k->base.samples, pt_cuda_of(k)->type,
                                          /*channels_last=*/true);
        port->moves = !pt_cuda_same(&port->planned, k->in[i]);
        if (!port->moves)
            continue;
        k->base.flags &= ~aliases;
        port->x = end;
        end += pt_align_up(port->planned.base.bytes);
        port->d_x = end;
        if (k->base.mode == PT_TRAIN)
            end += pt_align_up(port->planned.base.bytes);
    }
    k->base.shared_bytes = end;
}

/* Losses and sums find room where kernels do: it is asked for with the kernels, so that it is
 * predicted and reserved with theirs. */
static void plan_sums(pt_cuda_kernel *k)
{
    const size_t asked[] = {pt_cu_loss_bytes(k->base.samples), pt_cuda_squares_bytes()};
    for (size_t i = 0; i < sizeof asked / sizeof *asked; i++)
        if (asked[i] > k->base.shared_bytes)
            k->base.shared_bytes = asked[i];
}

static void release_kernel(pt_kernel *kernel)
{
    pt_cuda_kernel *k = (pt_cuda_kernel *)kernel;
    if (!k)
        return;
    if (k->kind->clear)
        k->kind->clear(k);
    pt_cuda *cuda = pt_cuda_of(k);
    if (--cuda->kernels == 0)
        pt_cuda_free_rooms(cuda);
    free(k);
}

static pt_status plan(pt_backend *b, const pt_op *op, int samples, pt_mode mode,
                      const pt_layout *const in[], pt_kernel **ret_kernel, pt_error *err)
{
    pt_cuda *cuda = (pt_cuda *)b;
    const pt_cuda_kind *kind = kinds[op->kind];
    pt_cuda_kernel *k = calloc(1, kind->bytes);
    if (!k)
        return pt_fail(err, PT_ENOMEM, "no memory for a kernel");
    k->base.backend = b;
    k->base.op = *op;
    k->base.samples = samples;
    k->base.mode = mode;
    k->kind = kind;
    cuda->kernels++;
    for (int i = 0; i < op->n_inputs; i++)
        k->in[i] = (const pt_cuda_layout *)in[i];
    k->out = pt_cuda_layout_of(&op->out, samples, cuda->type, /*channels_last=*/true);
    k->base.out = &k->out.base;
    pt_status status = kind->plan ? kind->plan(k, err) : PT_OK;
    if (status != PT_OK) {
        release_kernel(&k->base);
        return status;
    }
    plan_ports(k);
    plan_sums(k);
    *ret_kernel = &k->base;
    return PT_OK;
}

static pt_status build(pt_kernel *kernel, pt_error *err)
{
    pt_cuda_kernel *k = (pt_cuda_kernel *)kernel;
    if (kernel->built)
        return PT_OK;
    if (k->kind->build)
        PT_TRY(k->kind->build(k, err));
    PT_TRY(pt_cuda_need_rooms(pt_cuda_of(k), kernel->shared_bytes, err));
    kernel->built = true;
    return PT_OK;
}

/* ---- run ------------------------------------------------------------------------------------ */

/* Inputs go through their ports, gradients come back through them. */
static pt_status run(pt_kernel *kernel, pt_cuda_run *function, const pt_kernel_args *args,
                     pt_error *err)
{
    pt_cuda_kernel *k = (pt_cuda_kernel *)kernel;
    pt_cuda *cuda = pt_cuda_of(k);
    const pt_op *op = &kernel->op;
    pt_kernel_args inner = *args;
    if (!kernel->built)
        return pt_fail(err, PT_EINTERNAL, "layer %u runs before it was built", op->layer);
    if (!function)
        return PT_OK;
    for (int i = 0; i < op->n_inputs; i++) {
        const pt_cuda_port *port = &k->port[i];
        if (port->moves && args->dev_in[i]) {
            inner.dev_in[i] = cuda->rooms + port->x;
            PT_TRY(pt_cuda_move(cuda, op, &op->in[i], kernel->samples, k->in[i], args->dev_in[i],
                                &port->planned, cuda->rooms + port->x, err));
        }
        if (port->moves && args->dev_d_in[i])
            inner.dev_d_in[i] = cuda->rooms + port->d_x;
    }
    PT_TRY(function(k, &inner, err));
    for (int i = 0; i < op->n_inputs; i++)
        if (k->port[i].moves && args->dev_d_in[i])
            PT_TRY(pt_cuda_move(cuda, op, &op->in[i], kernel->samples, &k->port[i].planned,
                                inner.dev_d_in[i], k->in[i], args->dev_d_in[i], err));
    return PT_OK;
}

static pt_status forward(pt_kernel *k, const pt_kernel_args *args, pt_error *err)
{
    return run(k, ((pt_cuda_kernel *)k)->kind->forward, args, err);
}

static pt_status backward_input(pt_kernel *k, const pt_kernel_args *args, pt_error *err)
{
    return run(k, ((pt_cuda_kernel *)k)->kind->backward_input, args, err);
}

static pt_status backward_weight(pt_kernel *k, const pt_kernel_args *args, pt_error *err)
{
    return run(k, ((pt_cuda_kernel *)k)->kind->backward_weight, args, err);
}

const pt_backend_row pt_backend_cuda = {
    .name = "cuda",
    .help = "cuDNN, cuBLASLt and own kernels on NVIDIA GPUs",
    .choose_device = choose_device,
    .open = open_backend,
    .close = close_backend,
    .reserve = pt_cuda_reserve,
    .dev_new = pt_cuda_dev_new,
    .dev_free = pt_cuda_dev_free,
    .host_new = pt_cuda_host_new,
    .host_free = pt_cuda_host_free,
    .upload = pt_cuda_upload,
    .download = pt_cuda_download,
    .copy = pt_cuda_copy,
    .copy_in = pt_cuda_copy_in,
    .copy_out = pt_cuda_copy_out,
    .event_new = pt_cuda_event_new,
    .event_free = pt_cuda_event_free,
    .event_record = pt_cuda_event_record,
    .event_wait = pt_cuda_event_wait,
    .event_done = pt_cuda_event_done,
    .event_ns = pt_cuda_event_ns,
    .finish = pt_cuda_finish,
    .plain_layout = pt_cuda_plain_layout,
    .layout_free = pt_cuda_layout_free,
    .layout_equal = pt_cuda_layout_equal,
    .reorder = pt_cuda_reorder,
    .supports = supports,
    .plan = plan,
    .build = build,
    .release = release_kernel,
    .forward = forward,
    .backward_input = backward_input,
    .backward_weight = backward_weight,
    .loss = pt_cuda_loss,
    .add = pt_cuda_add,
    .axpby = pt_cuda_axpby,
    .sum_of_squares = pt_cuda_sum_of_squares,
    .sgd = pt_cuda_sgd,
    .adam = pt_cuda_adam,
    .mean_squares = pt_cuda_mean_squares,
    .gap = pt_cuda_gap,
    .look_back = pt_cuda_look_back,
    .on_device = true,
    .memory = pt_cuda_memory,
    .describe = describe,
};
