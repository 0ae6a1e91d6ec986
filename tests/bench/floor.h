/* Inside the floor program: what its files share.
 *
 *   floor_calls.c   primitives, and the blocks of memory that they work on
 *   floor_layers.c  the primitives of each kind of layer
 *   floor_plan.c    a whole network: forward from first to last node, backward from last to first
 *   floor.c         running and reporting
 */
#ifndef PIPETRAIN_TESTS_BENCH_FLOOR_H
#define PIPETRAIN_TESTS_BENCH_FLOOR_H

#include <stdbool.h>
#include <stddef.h>

#include <oneapi/dnnl/dnnl.h>

#include "pipetrain/graph.h"

enum { MAX_ARGS = 9 };

typedef enum pass { FORWARD, BACKWARD_DATA, BACKWARD_WEIGHTS, PASSES } pass;

/* One primitive, its arguments as numbers of blocks of memory. */
typedef struct call {
    pass pass;
    int node;
    const_dnnl_primitive_desc_t pd;
    dnnl_primitive_t primitive;
    dnnl_exec_arg_t args[MAX_ARGS];
    int blocks[MAX_ARGS];
    int n_args;
    double *us; /* of every micro-batch */
} call;

typedef struct block {
    void *at;
    size_t bytes;
} block;

typedef struct value {
    dnnl_memory_desc_t md;
    int block;
    int readers;
} value;

typedef struct bench {
    const pt_graph *graph;
    int samples;
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    block *blocks;
    int n_blocks;
    call *calls;
    int n_calls;
    value *values;
    dnnl_primitive_desc_t *forward; /* of every node; NULL where nothing runs */
    int *workspace;                 /* of every node: a block, or -1 */
    int *stats;                     /* of every node: the first of a batch-norm's four, or -1 */
    int *gradient;                  /* of every value: a block, or -1 */
    int *holders;                   /* of every block: gradients that are in it */
} bench;

/* A program of its own: what fails ends it, with a message. */
void floor_die(const char *what, const char *why);
void floor_check(dnnl_status_t status, const char *what);
/* Zeroed memory for n entries. */
void *floor_table(size_t n, size_t size);

int floor_new_block(bench *b);
/* Asks for a primitive of a node; the node's forward, where there is one, is the hint. */
dnnl_primitive_desc_t floor_describe(bench *b, const_dnnl_op_desc_t desc, int node);
bool floor_is_reference(const_dnnl_primitive_desc_t pd);
const dnnl_memory_desc_t *floor_md_of(const_dnnl_primitive_desc_t pd, int arg);
/* One call more; the arguments follow, and the blocks grow to what they need. */
call *floor_add_call(bench *b, pass which, int node, const_dnnl_primitive_desc_t pd);
void floor_add_arg(bench *b, call *c, int arg, int at);

/* (n, c, h, w), or (n, f). */
dnnl_memory_desc_t floor_shaped(const bench *b, const pt_shape *shape, dnnl_format_tag_t tag);
/* The same for layers that know images only: (f) is (f, 1, 1). */
dnnl_memory_desc_t floor_image(const bench *b, const pt_shape *shape, dnnl_format_tag_t tag);

/* x + y to sum, all in the layout md. */
void floor_sum_call(bench *b, pass which, int node, const dnnl_memory_desc_t *md, int x, int y,
                    int sum);

/* How a kind runs. same_bytes: the output is the input's memory where nobody else reads that, and
 * without a backward the gradient is handed on as it is. */
typedef struct kind {
    void (*forward)(bench *b, int node, int in, int out);
    void (*backward)(bench *b, int node, int in, int d_out, int d_in);
    bool same_bytes;
} kind;

extern const kind floor_kinds[PT_OP_KINDS];

/* Makes every call of a micro-batch, in order. */
void floor_plan(bench *b);

#endif
