/* Primitives and the blocks of memory that they work on. Several values may share a block; a block
 * is as large as the largest that any primitive sees in it. */
#include "floor.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <oneapi/dnnl/dnnl_debug.h>

void floor_die(const char *what, const char *why)
{
    fprintf(stderr, "floor: %s: %s\n", what, why);
    exit(1);
}

void floor_check(dnnl_status_t status, const char *what)
{
    if (status != dnnl_success)
        floor_die(what, dnnl_status2str(status));
}

/* Room for n more entries of a list that grows one by one. */
static void *grow(void *list, int n, size_t size)
{
    if (n & (n - 1)) /* doubled at powers of two */
        return list;
    list = realloc(list, (n ? 2 * (size_t)n : 1) * size);
    if (!list)
        floor_die("memory", "there is none");
    return list;
}

void *floor_table(size_t n, size_t size)
{
    void *at = calloc(n, size);
    if (!at)
        floor_die("memory", "there is none");
    return at;
}

/* ---- calls -------------------------------------------------------------------------------------
 */

int floor_new_block(bench *b)
{
    b->blocks = grow(b->blocks, b->n_blocks, sizeof *b->blocks);
    b->holders = grow(b->holders, b->n_blocks, sizeof *b->holders);
    b->blocks[b->n_blocks] = (block){0};
    b->holders[b->n_blocks] = 0;
    return b->n_blocks++;
}

dnnl_primitive_desc_t floor_describe(bench *b, const_dnnl_op_desc_t desc, int node)
{
    dnnl_primitive_desc_t pd = NULL;
    floor_check(dnnl_primitive_desc_create(&pd, desc, NULL, b->engine, b->forward[node]),
                b->graph->nodes[node].name);
    return pd;
}

bool floor_is_reference(const_dnnl_primitive_desc_t pd)
{
    const char *name = "";
    dnnl_primitive_desc_query(pd, dnnl_query_impl_info_str, 0, &name);
    return strncmp(name, "ref", 3) == 0;
}

const dnnl_memory_desc_t *floor_md_of(const_dnnl_primitive_desc_t pd, int arg)
{
    return dnnl_primitive_desc_query_md(pd, dnnl_query_exec_arg_md, arg);
}

call *floor_add_call(bench *b, pass which, int node, const_dnnl_primitive_desc_t pd)
{
    b->calls = grow(b->calls, b->n_calls, sizeof *b->calls);
    call *c = &b->calls[b->n_calls++];
    *c = (call){.pass = which, .node = node, .pd = pd};
    floor_check(dnnl_primitive_create(&c->primitive, pd), b->graph->nodes[node].name);
    return c;
}

void floor_add_arg(bench *b, call *c, int arg, int at)
{
    size_t bytes = dnnl_memory_desc_get_size(floor_md_of(c->pd, arg));
    if (bytes > b->blocks[at].bytes)
        b->blocks[at].bytes = bytes;
    c->args[c->n_args].arg = arg;
    c->blocks[c->n_args++] = at;
}

/* ---- shapes ------------------------------------------------------------------------------------
 */

/* (n, c, h, w), or (n, f). */
dnnl_memory_desc_t floor_shaped(const bench *b, const pt_shape *shape, dnnl_format_tag_t tag)
{
    dnnl_dims_t dims = {b->samples};
    dnnl_memory_desc_t md;
    for (int i = 0; i < shape->ndim; i++)
        dims[i + 1] = shape->dims[i];
    floor_check(dnnl_memory_desc_init_by_tag(&md, shape->ndim + 1, dims, dnnl_f32, tag), "shape");
    return md;
}

/* The same for layers that know images only: (f) is (f, 1, 1). */
dnnl_memory_desc_t floor_image(const bench *b, const pt_shape *shape, dnnl_format_tag_t tag)
{
    pt_shape padded = *shape;
    for (; padded.ndim < 3; padded.ndim++)
        padded.dims[padded.ndim] = 1;
    return floor_shaped(b, &padded, tag);
}
