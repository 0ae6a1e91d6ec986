/* Inside the CUDA backend: what its files share. Private to src/backend/cuda*.
 *
 * The parts, from the bottom:
 *
 *   cuda_error.c     a CUDA error as one message of ours
 *   cuda_memory.c    the arena, the rooms, pinned host memory
 *   cuda_lanes.c     streams, events, copies
 *   cuda_layout.c    layouts, and moving values between them
 *   cuda_weight.c    kept copies of weights in the order and type that the libraries want
 *   cuda_conv.c cuda_gemm.c    the libraries: plans of cuDNN and cuBLASLt
 *   cuda_conv_op.c cuda_linear_op.c cuda_norm.c cuda_pool.c cuda_simple.c cuda_join.c
 *                    the ops: a pt_cuda_kind each
 *   cuda_loss.c cuda_flat.c    losses and flat buffers
 *   cuda.c           the row: open, close, plan, build, dispatch
 *   cuda_load.c      in the program, not in the module: the way to the row
 *
 * Every planned value is (rows, channels) of the type that the precision says: images are NHWC,
 * vectors flat. Only values from outside are plain fp32 NCHW; the dispatcher moves them into a room
 * before a kind sees them, so that kinds know one layout.
 *
 * Kernels, losses and flat maths go to the compute lane. Temporaries live within one call; they lie
 * in the rooms, one block of the backend that each kernel, loss or sum divides as it likes, and
 * that the order of the compute lane protects. */
#ifndef PIPETRAIN_BACKEND_CUDA_H
#define PIPETRAIN_BACKEND_CUDA_H

#include "cuda_conv.h"
#include "cuda_gemm.h"
#include "kernels/launch.h"
#include "pipetrain/backend.h"

typedef struct pt_cuda_block pt_cuda_block;
typedef struct pt_cuda_kernel pt_cuda_kernel;

typedef struct pt_cuda {
    pt_backend base;
    pt_backend_config config;
    int device;
    pt_cu_type type; /* of planned values */
    cudaStream_t lane[PT_LANES];
    cudaEvent_t zeroed;     /* orders a new block's zeros before other lanes */
    struct pt_cuda_origin { /* times of events are counted from here */
        cudaEvent_t event;
        int64_t ns; /* when it was reached, on our clock */
    } origin[2];
    int origin_now; /* the other one is for events that were recorded before it */
    pt_cuda_convs *convs;
    pt_cuda_gemms *gemms;

    char *arena; /* NULL: every block is a cudaMalloc of its own */
    size_t arena_bytes;
    pt_cuda_block *blocks;        /* of the arena, by address */
    pt_cuda_block *loose;         /* those of their own */
    size_t bytes_now, bytes_peak; /* asked for by dev_new, and the rooms */

    char *rooms; /* in an arena they end where it ends */
    size_t rooms_bytes;
    int kernels; /* planned and not yet released: the last one takes the rooms along */

    double *host_sum; /* of pt_cuda_sum_of_squares */
} pt_cuda;

/* ---- errors -----------------------------------------------------------------------------------
 */

/* Turns an error into a message: op (NULL: none), call, the error's name, its text, and a hint.
 * PT_ENOMEM when memory ran out, else PT_EBACKEND. */
pt_status pt_cuda_check(cudaError_t error, const pt_op *op, const char *call, pt_error *err);

/* ---- memory -----------------------------------------------------------------------------------
 */

pt_status pt_cuda_reserve(pt_backend *b, size_t bytes, size_t *ret_free, pt_error *err);
pt_status pt_cuda_dev_new(pt_backend *b, size_t bytes, void **ret_dev, pt_error *err);
void pt_cuda_dev_free(pt_backend *b, void *dev);
pt_status pt_cuda_host_new(pt_backend *b, size_t bytes, void **ret_host, pt_error *err);
void pt_cuda_host_free(pt_backend *b, void *host);
void pt_cuda_memory(const pt_backend *b, size_t *ret_now, size_t *ret_peak);

/* Makes the rooms at least that large; what they held is lost. */
pt_status pt_cuda_need_rooms(pt_cuda *cuda, size_t bytes, pt_error *err);
void pt_cuda_free_rooms(pt_cuda *cuda);
/* Everything that is left, on closing. */
void pt_cuda_free_all(pt_cuda *cuda);

/* ---- lanes ------------------------------------------------------------------------------------
 */

pt_status pt_cuda_lanes_open(pt_cuda *cuda, pt_error *err);
void pt_cuda_lanes_close(pt_cuda *cuda); /* waits for what was asked */

pt_status pt_cuda_upload(pt_backend *b, void *dev_dst, const void *src, size_t bytes,
                         pt_error *err);
pt_status pt_cuda_download(pt_backend *b, void *dst, const void *dev_src, size_t bytes,
                           pt_error *err);
pt_status pt_cuda_copy(pt_backend *b, void *dev_dst, const void *dev_src, size_t bytes,
                       pt_error *err);
pt_status pt_cuda_copy_in(pt_backend *b, void *dev_dst, const void *host, size_t bytes,
                          pt_error *err);
pt_status pt_cuda_copy_out(pt_backend *b, void *host, const void *dev_src, size_t bytes,
                           pt_error *err);
pt_status pt_cuda_event_new(pt_backend *b, pt_event **ret_event, pt_error *err);
void pt_cuda_event_free(pt_backend *b, pt_event *event);
pt_status pt_cuda_event_record(pt_backend *b, pt_lane lane, pt_event *event, pt_error *err);
pt_status pt_cuda_event_wait(pt_backend *b, pt_lane lane, pt_event *event, pt_error *err);
pt_status pt_cuda_event_done(pt_backend *b, pt_event *event, bool *ret_done, pt_error *err);
int64_t pt_cuda_event_ns(pt_backend *b, pt_event *event);
pt_status pt_cuda_finish(pt_backend *b, pt_error *err);

/* ---- layouts ----------------------------------------------------------------------------------
 */

typedef struct pt_cuda_layout {
    pt_layout base;
    pt_cu_type type;
    bool channels_last; /* NHWC; false for NCHW, for vectors, and where both are the same */
} pt_cuda_layout;

/* (C, H, W) has C channels of area H·W; any other shape is all channels, of area 1. */
typedef struct pt_cuda_extent {
    int64_t channels, area;
} pt_cuda_extent;

size_t pt_cuda_type_bytes(pt_cu_type type);
pt_cuda_extent pt_cuda_extent_of(const pt_shape *shape);
pt_cuda_layout pt_cuda_layout_of(const pt_shape *shape, int samples, pt_cu_type type,
                                 bool channels_last);
bool pt_cuda_same(const pt_cuda_layout *a, const pt_cuda_layout *b);

/* dst[n,c,r] (+)= src[n,r,c] for n matrices of rows × columns, by the cheapest means. */
typedef struct pt_cuda_turn {
    int64_t n, rows, columns;
    pt_cu_type from, to;
    bool accumulate;
} pt_cuda_turn;
pt_status pt_cuda_turn_run(pt_cuda *cuda, const pt_op *op, const pt_cuda_turn *turn,
                           const void *src, void *dst, pt_error *err);
/* One value from layout to layout; op may be NULL. */
pt_status pt_cuda_move(pt_cuda *cuda, const pt_op *op, const pt_shape *shape, int samples,
                       const pt_cuda_layout *from, const void *src, const pt_cuda_layout *to,
                       void *dst, pt_error *err);

pt_status pt_cuda_plain_layout(pt_backend *b, const pt_shape *shape, int samples,
                               pt_layout **ret_layout, pt_error *err);
void pt_cuda_layout_free(pt_backend *b, pt_layout *layout);
bool pt_cuda_layout_equal(const pt_layout *a, const pt_layout *b);
pt_status pt_cuda_reorder(pt_backend *b, const pt_shape *shape, int samples, const pt_layout *from,
                          const void *dev_src, const pt_layout *to, void *dev_dst, pt_error *err);

/* ---- losses and flat buffers ------------------------------------------------------------------
 */

pt_status pt_cuda_loss(pt_backend *b, const pt_loss *loss, const pt_loss_args *args, pt_error *err);
pt_status pt_cuda_add(pt_backend *b, const pt_layout *layout, const void *x, const void *y,
                      void *out, pt_error *err);
pt_status pt_cuda_axpby(pt_backend *b, size_t n, float a, const float *x, float c, const float *y,
                        float *out, pt_error *err);
pt_status pt_cuda_sum_of_squares(pt_backend *b, size_t n, const float *x, double *ret_sum,
                                 pt_error *err);
/* What that asks of the rooms. */
size_t pt_cuda_squares_bytes(void);
pt_status pt_cuda_sgd(pt_backend *b, size_t n, const pt_sgd *rule, float *theta, float *velocity,
                      const float *gradient, const pt_foresight *foresight, pt_error *err);
pt_status pt_cuda_adam(pt_backend *b, size_t n, const pt_adam *rule, float *theta, float *m,
                       float *v, const float *gradient, const pt_adam_foresight *foresight,
                       pt_error *err);

/* ---- cuda_late.c ---- */
pt_status pt_cuda_mean_squares(pt_backend *b, size_t n, float keep, float rest, const float *x,
                               float *average, pt_error *err);
pt_status pt_cuda_gap(pt_backend *b, size_t n, const pt_gap *rule, const float *forward,
                      const float *theta, const float *average, const float *own, float *gradient,
                      pt_error *err);
pt_status pt_cuda_look_back(pt_backend *b, size_t n, const pt_look_back *rule, const float *theta,
                            float *drift, float *back, pt_error *err);

/* ---- kernels ----------------------------------------------------------------------------------
 */

/* Temporaries of one call. Two that are alive together have different rooms. */
typedef enum pt_cuda_room {
    PT_CUDA_ROOM_WORKSPACE, /* of a library; first, so that it begins where the block begins */
    PT_CUDA_ROOM_W,         /* the gradient of a weight */
    PT_CUDA_ROOM_B,         /* the gradient of a bias */
    PT_CUDA_ROOM_PARTIALS,
    PT_CUDA_ROOMS
} pt_cuda_room;

/* For products: what NVIDIA's guide to cuBLAS advises for its largest GPUs. */
enum { PT_CUDA_GEMM_WORKSPACE = 32 << 20 };

typedef pt_status pt_cuda_run(pt_cuda_kernel *k, const pt_kernel_args *args, pt_error *err);

/* One kind of op. NULL functions have nothing to do. */
typedef struct pt_cuda_kind {
    size_t bytes;    /* of its kernel struct */
    bool any_layout; /* takes inputs as they lie; others see the layout of planned values */
    pt_status (*plan)(pt_cuda_kernel *k, pt_error *err);
    pt_status (*build)(pt_cuda_kernel *k, pt_error *err);
    void (*clear)(pt_cuda_kernel *k); /* also of a half-planned kernel */
    pt_cuda_run *forward, *backward_input, *backward_weight;
} pt_cuda_kind;

extern const pt_cuda_kind pt_cuda_kind_conv, pt_cuda_kind_linear, pt_cuda_kind_norm,
    pt_cuda_kind_relu, pt_cuda_kind_gelu, pt_cuda_kind_max_pool, pt_cuda_kind_avg_pool,
    pt_cuda_kind_global_pool, pt_cuda_kind_flatten, pt_cuda_kind_add, pt_cuda_kind_concat,
    pt_cuda_kind_dropout;

/* A value on its way between the layout it has and that of planned values: offsets in the rooms. */
typedef struct pt_cuda_port {
    bool moves;
    pt_cuda_layout planned;
    size_t x, d_x;
} pt_cuda_port;

/* First member of every kernel. */
struct pt_cuda_kernel {
    pt_kernel base;
    const pt_cuda_kind *kind;
    const pt_cuda_layout *in[PT_MAX_INPUTS];
    pt_cuda_layout out;
    pt_cuda_port port[PT_MAX_INPUTS];
    size_t room_bytes[PT_CUDA_ROOMS];
};

static inline pt_cuda *pt_cuda_of(const pt_cuda_kernel *k)
{
    return (pt_cuda *)k->base.backend;
}

static inline cudaStream_t pt_cuda_stream(const pt_cuda_kernel *k)
{
    return pt_cuda_of(k)->lane[PT_LANE_COMPUTE];
}

/* Elements of a whole micro-batch. */
int64_t pt_cuda_elements(const pt_cuda_kernel *k, const pt_shape *shape);

/* While planning: it needs a room of that size. */
void pt_cuda_need(pt_cuda_kernel *k, pt_cuda_room room, size_t bytes);
void *pt_cuda_room_of(const pt_cuda_kernel *k, pt_cuda_room room);

/* ---- weights ----------------------------------------------------------------------------------
 */

enum { PT_CUDA_KEPT = 2 }; /* forward and backward may use different versions in turn */

/* Weights turned from plain fp32 to what a library wants, kept while their version is the same. */
typedef struct pt_cuda_weight {
    pt_cuda_turn turn;
    size_t bytes; /* of one copy; 0: the plain weights are what is wanted */
    int copies, last;
    struct pt_cuda_kept {
        void *copy;
        const float *address; /* of the parameters it was made from, */
        uint64_t version;     /* and which; 0: nothing is kept */
    } kept[PT_CUDA_KEPT];
} pt_cuda_weight;

/* n matrices of rows × columns of plain fp32, to be turned and converted to values' type. */
void pt_cuda_weight_plan(pt_cuda_weight *w, pt_cuda_kernel *k, int64_t n, int64_t rows,
                         int64_t columns);
pt_status pt_cuda_weight_build(pt_cuda_weight *w, pt_cuda_kernel *k, pt_error *err);
void pt_cuda_weight_clear(pt_cuda_weight *w, pt_cuda_kernel *k);
pt_status pt_cuda_weight_take(pt_cuda_weight *w, pt_cuda_kernel *k, const pt_kernel_args *args,
                              const void **ret_weight, pt_error *err);

#endif
