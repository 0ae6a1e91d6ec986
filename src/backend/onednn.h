/* Inside the oneDNN backend: what its files share. Private to src/backend/onednn*.
 *
 * The parts, from the bottom:
 *
 *   onednn_call.c    one primitive with its memory objects: plan, build, run; the rooms
 *   onednn_layout.c  memory descriptors compared by their bytes; ports, which move a value between
 *                    the layout it has and the one that a primitive wants
 *   onednn_weight.c  what conv2d and linear share: three passes, kept copies of reordered weights
 *   onednn_conv.c onednn_linear.c onednn_norm.c onednn_pool.c onednn_simple.c onednn_join.c
 *                    the ops: a pt_dnn_kind each
 *   onednn.c         the row: open, close, plan, build, dispatch
 *
 * Planning asks for every primitive of a kernel, so that what build takes is known before: copies
 * of weights, which are the kernel's own, and rooms. Nothing is allocated after build: memory
 * objects are made once and only their addresses change. Scratchpads of primitives and temporaries
 * live within one call; they lie in the rooms, one block of the backend that each kernel divides as
 * it likes and that is as large as the largest kernel needs. */
#ifndef PIPETRAIN_BACKEND_ONEDNN_H
#define PIPETRAIN_BACKEND_ONEDNN_H

#include <oneapi/dnnl/dnnl.h>

#include "cpu.h"

/* Temporaries of one call. Two that are alive together have different rooms. They lie one behind
 * the other in this order, so that the scratchpad is where the block begins. */
typedef enum pt_dnn_room {
    PT_DNN_NO_ROOM, /* nothing to move: the layouts agree */
    PT_DNN_SCRATCHPAD,
    PT_DNN_ROOM_X, /* an input, or the gradient of an input */
    PT_DNN_ROOM_Y, /* the output, or its gradient */
    PT_DNN_ROOM_W, /* the gradient of a weight */
    PT_DNN_ROOM_B, /* the gradient of a bias */
    PT_DNN_ROOMS
} pt_dnn_room;

typedef struct pt_dnn_cached pt_dnn_cached;
typedef struct pt_dnn_kernel pt_dnn_kernel;

typedef struct pt_dnn {
    pt_cpu cpu;
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    dnnl_primitive_attr_t attr;     /* the scratchpad is ours */
    dnnl_primitive_attr_t attr_add; /* and the result is added to what is there: reorders */
    char *rooms;
    size_t rooms_bytes;
    int kernels;           /* planned and not yet released: the last one takes the rooms along */
    pt_dnn_cached *cached; /* reorders between layouts that no kernel owns */
} pt_dnn;

typedef struct pt_dnn_layout {
    pt_layout base;
    dnnl_memory_desc_t md;
} pt_dnn_layout;

/* ---- calls ------------------------------------------------------------------------------------
 */

enum { PT_DNN_MAX_ARGS = 10 };

typedef struct pt_dnn_call {
    pt_dnn *dnn;
    const pt_op *op;  /* for messages; NULL outside kernels */
    const char *what; /* "forward": for messages */
    dnnl_primitive_desc_t pd;
    dnnl_primitive_t primitive;
    dnnl_exec_arg_t args[PT_DNN_MAX_ARGS]; /* the scratchpad is the last one */
    int n_args;
    struct pt_dnn_call *next; /* of the same kernel */
} pt_dnn_call;

/* Turns a status of the library into ours, naming op and primitive; both may be NULL. */
pt_status pt_dnn_check(dnnl_status_t status, const pt_op *op, const char *what, pt_error *err);

/* Asks for a primitive; `desc` is any dnnl_*_desc_t. A zeroed call is an empty one. */
pt_status pt_dnn_call_plan(pt_dnn_call *call, pt_dnn *dnn, const pt_op *op, const char *what,
                           const_dnnl_op_desc_t desc, const pt_dnn_call *hint, pt_error *err);
/* The same for a reorder; add: to += from. */
pt_status pt_dnn_call_plan_reorder(pt_dnn_call *call, pt_dnn *dnn, const pt_op *op,
                                   const dnnl_memory_desc_t *from, const dnnl_memory_desc_t *to,
                                   bool add, pt_error *err);
/* Refuses the library's reference implementation when the configuration asks for that. Reorders are
 * not asked: their plain loops cost little. */
pt_status pt_dnn_call_accept(const pt_dnn_call *call, pt_error *err);
bool pt_dnn_call_is_reference(const pt_dnn_call *call);
const char *pt_dnn_call_name(const pt_dnn_call *call);
/* The layout that the primitive wants or makes: index is DNNL_ARG_SRC and the like. */
const dnnl_memory_desc_t *pt_dnn_call_md(const pt_dnn_call *call, int index);

/* Names its arguments (0 ends the list). */
pt_status pt_dnn_call_take(pt_dnn_call *call, const int *indices, pt_error *err);
/* Makes it runnable with the arguments that it takes, but for the rooms. */
pt_status pt_dnn_call_build(pt_dnn_call *call, pt_error *err);
size_t pt_dnn_call_scratchpad_bytes(const pt_dnn_call *call);
/* addresses[i] belongs to indices[i]. */
pt_status pt_dnn_call_run(pt_dnn_call *call, const void *const addresses[], pt_error *err);
void pt_dnn_call_clear(pt_dnn_call *call);

/* Makes the rooms at least that large. The old ones go first, with what they held, so that there
 * are never two blocks. */
pt_status pt_dnn_reserve(pt_dnn *dnn, size_t bytes, pt_error *err);
void pt_dnn_free_rooms(pt_dnn *dnn);

/* While planning a kernel: it will run this call, which build then builds. */
pt_status pt_dnn_use(pt_dnn_kernel *k, pt_dnn_call *call, const int *indices, pt_error *err);
/* While planning a kernel: it needs a room of that size. */
void pt_dnn_need(pt_dnn_kernel *k, pt_dnn_room room, size_t bytes);
size_t pt_dnn_rooms_bytes(const pt_dnn_kernel *k);
void *pt_dnn_room_of(const pt_dnn_kernel *k, pt_dnn_room room);

/* ---- layouts ----------------------------------------------------------------------------------
 */

/* Row-major (n, shape). */
pt_status pt_dnn_plain(const pt_shape *shape, int samples, dnnl_memory_desc_t *ret_md,
                       pt_error *err);
/* (n, c, h, w) with a tag, or dnnl_format_tag_any. (F) counts as (F, 1, 1). */
pt_status pt_dnn_image(const pt_shape *shape, int samples, dnnl_format_tag_t tag,
                       dnnl_memory_desc_t *ret_md, pt_error *err);
/* Row-major in the same dimensions as md. */
pt_status pt_dnn_plain_like(const dnnl_memory_desc_t *md, dnnl_memory_desc_t *ret_md,
                            pt_error *err);
/* The same element at the same place, padding included, whatever the descriptors call it. */
bool pt_dnn_same(const dnnl_memory_desc_t *a, const dnnl_memory_desc_t *b);
/* Row-major, without gaps. */
bool pt_dnn_is_plain(const dnnl_memory_desc_t *md);

/* A way for one value between its layout and a primitive's. Where the two agree it does nothing. */
typedef struct pt_dnn_port {
    const pt_dnn_kernel *kernel;
    pt_dnn_room room; /* holds the primitive's side */
    pt_dnn_call reorder;
} pt_dnn_port;

pt_status pt_dnn_port_plan_in(pt_dnn_port *port, pt_dnn_kernel *k, pt_dnn_room room,
                              const dnnl_memory_desc_t *value, const dnnl_memory_desc_t *wanted,
                              pt_error *err);
pt_status pt_dnn_port_plan_out(pt_dnn_port *port, pt_dnn_kernel *k, pt_dnn_room room,
                               const dnnl_memory_desc_t *made, const dnnl_memory_desc_t *value,
                               pt_error *err);
/* In: reorders the value where needed and says where the primitive finds it. */
pt_status pt_dnn_port_take(pt_dnn_port *port, const void *value, const void **ret_address,
                           pt_error *err);
/* Out: where the primitive must write, and then: bring it to the value. */
void *pt_dnn_port_address(const pt_dnn_port *port, void *value);
pt_status pt_dnn_port_give(pt_dnn_port *port, void *value, pt_error *err);
void pt_dnn_port_clear(pt_dnn_port *port);

/* Moves a value between layouts outside kernels; keeps the reorder for the next time. */
pt_status pt_dnn_move(pt_dnn *dnn, const dnnl_memory_desc_t *from, const void *src,
                      const dnnl_memory_desc_t *to, void *dst, pt_error *err);
void pt_dnn_cached_free(pt_dnn_cached *cached);

pt_status pt_dnn_loss(pt_backend *b, const pt_loss *loss, const pt_loss_args *args, pt_error *err);

/* ---- kernels ----------------------------------------------------------------------------------
 */

typedef struct pt_dnn_kind pt_dnn_kind;

/* First member of every kernel. */
struct pt_dnn_kernel {
    pt_kernel base;
    const pt_dnn_kind *kind;
    const pt_dnn_layout *in[PT_MAX_INPUTS];
    pt_dnn_layout out;
    pt_dnn_call *calls; /* those that it runs */
    size_t room_bytes[PT_DNN_ROOMS];
};

/* How one kind of op runs. plan gets a zeroed kernel with base and in filled in; it sets flags,
 * saved_bytes, private_bytes and out, uses calls and needs rooms. clear frees what plan and build
 * made, however far they came. */
struct pt_dnn_kind {
    size_t bytes; /* of the kernel's struct */
    pt_status (*plan)(pt_dnn_kernel *k, pt_error *err);
    pt_status (*build)(pt_dnn_kernel *k, pt_error *err); /* what is left to do; NULL: nothing */
    void (*clear)(pt_dnn_kernel *k);
    pt_status (*forward)(pt_dnn_kernel *k, const pt_kernel_args *args, pt_error *err);
    pt_status (*backward_input)(pt_dnn_kernel *k, const pt_kernel_args *args, pt_error *err);
    pt_status (*backward_weight)(pt_dnn_kernel *k, const pt_kernel_args *args, pt_error *err);
};

static inline pt_dnn *pt_dnn_of(const pt_dnn_kernel *k)
{
    return (pt_dnn *)k->base.backend;
}

/* Sets the layout of the kernel's output. */
void pt_dnn_set_out(pt_dnn_kernel *k, const dnnl_memory_desc_t *md);

/* Layouts to try for an op that takes what it gets: its input's first, then those for which the
 * library has fast code. `plan_one` asks for the primitive with one of them; the first that is not
 * a reference implementation stays, and *ret_md says which. */
pt_status pt_dnn_plan_first(pt_dnn_kernel *k,
                            pt_status (*plan_one)(pt_dnn_kernel *k, const dnnl_memory_desc_t *md,
                                                  pt_dnn_call *ret_call, pt_error *err),
                            pt_dnn_call *ret_call, dnnl_memory_desc_t *ret_md, pt_error *err);

extern const pt_dnn_kind pt_dnn_conv, pt_dnn_linear, pt_dnn_norm, pt_dnn_pool, pt_dnn_relu,
    pt_dnn_gelu, pt_dnn_flatten, pt_dnn_dropout, pt_dnn_add, pt_dnn_concat;

/* ---- layers with weights (conv2d, linear) -----------------------------------------------------
 */

typedef enum pt_dnn_pass { PT_DNN_FORWARD, PT_DNN_DATA, PT_DNN_WEIGHT, PT_DNN_PASSES } pt_dnn_pass;

typedef struct pt_dnn_weighted pt_dnn_weighted;

/* Asks for the primitive of one pass with these layouts of source and destination (or of their
 * gradients); the weights' layout is the library's choice. */
typedef pt_status pt_dnn_ask(pt_dnn_weighted *w, pt_dnn_pass pass, const dnnl_memory_desc_t *src,
                             const dnnl_memory_desc_t *dst, pt_dnn_call *ret_call, pt_error *err);

struct pt_dnn_weighted {
    pt_dnn_kernel base;
    pt_dnn_ask *ask;
    dnnl_memory_desc_t src, dst; /* what is asked for first: any layout, or plain */
    dnnl_memory_desc_t weight;   /* as the parameters lie: plain */
    struct pt_dnn_weighted_pass {
        pt_dnn_call call;
        pt_dnn_port src, dst;
    } pass[PT_DNN_PASSES];
    /* Parameters in the layouts that forward and backward-data want; no copy where that is plain.
     */
    struct pt_dnn_kept {
        pt_dnn_call reorder;
        size_t bytes;
        void *copy;
        const float *address; /* of the parameters it was made from, */
        uint64_t version;     /* and which; 0: nothing is kept */
    } kept[2];
    pt_dnn_call set_weight, add_weight; /* from the gradient's layout to plain */
};

/* Plans the passes; ask, src, dst (any or plain) and weight are set. */
pt_status pt_dnn_weighted_plan(pt_dnn_weighted *w, pt_error *err);
pt_status pt_dnn_weighted_build(pt_dnn_kernel *k, pt_error *err);
void pt_dnn_weighted_clear(pt_dnn_kernel *k);
pt_status pt_dnn_weighted_forward(pt_dnn_kernel *k, const pt_kernel_args *args, pt_error *err);
pt_status pt_dnn_weighted_backward_input(pt_dnn_kernel *k, const pt_kernel_args *args,
                                         pt_error *err);
pt_status pt_dnn_weighted_backward_weight(pt_dnn_kernel *k, const pt_kernel_args *args,
                                          pt_error *err);

#endif
