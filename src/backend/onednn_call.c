/* One primitive of oneDNN with everything that running it needs.
 *
 * Plan asks the library which implementation it would take (microseconds) and how large a
 * scratchpad that wants, build generates the code and makes the memory objects, run changes
 * addresses and executes. In oneDNN 2.6 changing the address of a memory object costs nothing (no
 * zeroing of padding), so objects are never remade. */
#include "onednn.h"

#include <omp.h>
#include <string.h>

#include <oneapi/dnnl/dnnl_debug.h>

#include "pipetrain/arena.h"

/* The number of threads belongs to the calling thread, and the library looks at it when it plans,
 * builds and runs: two backends of one process may have different ones. */
static void use_threads(const pt_dnn *dnn)
{
    omp_set_num_threads(dnn->cpu.config.threads);
}

pt_status pt_dnn_check(dnnl_status_t status, const pt_op *op, const char *what, pt_error *err)
{
    if (status == dnnl_success)
        return PT_OK;
    pt_status code = status == dnnl_out_of_memory ? PT_ENOMEM : PT_EBACKEND;
    if (op)
        return pt_fail(err, code, "%s (layer %u), %s: oneDNN says '%s'", pt_op_rows[op->kind].name,
                       op->layer, what, dnnl_status2str(status));
    return pt_fail(err, code, "%s: oneDNN says '%s'", what, dnnl_status2str(status));
}

static void call_begin(pt_dnn_call *call, pt_dnn *dnn, const pt_op *op, const char *what)
{
    memset(call, 0, sizeof *call);
    call->dnn = dnn;
    call->op = op;
    call->what = what;
    use_threads(dnn);
}

pt_status pt_dnn_call_plan(pt_dnn_call *call, pt_dnn *dnn, const pt_op *op, const char *what,
                           const_dnnl_op_desc_t desc, const pt_dnn_call *hint, pt_error *err)
{
    call_begin(call, dnn, op, what);
    return pt_dnn_check(
        dnnl_primitive_desc_create(&call->pd, desc, dnn->attr, dnn->engine, hint ? hint->pd : NULL),
        op, what, err);
}

pt_status pt_dnn_call_plan_reorder(pt_dnn_call *call, pt_dnn *dnn, const pt_op *op,
                                   const dnnl_memory_desc_t *from, const dnnl_memory_desc_t *to,
                                   bool add, pt_error *err)
{
    call_begin(call, dnn, op, "reorder");
    return pt_dnn_check(dnnl_reorder_primitive_desc_create(&call->pd, from, dnn->engine, to,
                                                           dnn->engine,
                                                           add ? dnn->attr_add : dnn->attr),
                        op, call->what, err);
}

const char *pt_dnn_call_name(const pt_dnn_call *call)
{
    const char *name = NULL;
    if (dnnl_primitive_desc_query(call->pd, dnnl_query_impl_info_str, 0, &name) != dnnl_success)
        return "";
    return name;
}

bool pt_dnn_call_is_reference(const pt_dnn_call *call)
{
    return strncmp(pt_dnn_call_name(call), "ref", 3) == 0;
}

pt_status pt_dnn_call_accept(const pt_dnn_call *call, pt_error *err)
{
    if (!call->dnn->cpu.config.release || !pt_dnn_call_is_reference(call))
        return PT_OK;
    return pt_fail(err, PT_EBACKEND,
                   "%s (layer %u), %s: oneDNN has only its reference implementation (%s) for this "
                   "shape, a thousand times slower than the others; change the layer's channels, "
                   "kernel or groups",
                   pt_op_rows[call->op->kind].name, call->op->layer, call->what,
                   pt_dnn_call_name(call));
}

const dnnl_memory_desc_t *pt_dnn_call_md(const pt_dnn_call *call, int index)
{
    return dnnl_primitive_desc_query_md(call->pd, dnnl_query_exec_arg_md, index);
}

pt_status pt_dnn_call_take(pt_dnn_call *call, const int *indices, pt_error *err)
{
    int n = 0;
    for (; indices[n] && n < PT_DNN_MAX_ARGS - 1; n++)
        call->args[n].arg = indices[n];
    if (indices[n])
        return pt_fail(err, PT_EINTERNAL, "%s: more arguments than %d", call->what, n);
    call->args[n].arg = DNNL_ARG_SCRATCHPAD;
    call->n_args = n + 1;
    return PT_OK;
}

static const dnnl_memory_desc_t *scratchpad_md(const pt_dnn_call *call)
{
    return dnnl_primitive_desc_query_md(call->pd, dnnl_query_scratchpad_md, 0);
}

size_t pt_dnn_call_scratchpad_bytes(const pt_dnn_call *call)
{
    return dnnl_memory_desc_get_size(scratchpad_md(call));
}

/* The memory object of an argument, without an address yet. */
static pt_status make_memory(pt_dnn_call *call, dnnl_exec_arg_t *arg, pt_error *err)
{
    const dnnl_memory_desc_t *md =
        arg->arg == DNNL_ARG_SCRATCHPAD ? scratchpad_md(call) : pt_dnn_call_md(call, arg->arg);
    if (!md)
        return pt_fail(err, PT_EINTERNAL, "%s: argument %d of a oneDNN primitive", call->what,
                       arg->arg);
    return pt_dnn_check(dnnl_memory_create(&arg->memory, md, call->dnn->engine, DNNL_MEMORY_NONE),
                        call->op, call->what, err);
}

pt_status pt_dnn_call_build(pt_dnn_call *call, pt_error *err)
{
    use_threads(call->dnn);
    PT_TRY(
        pt_dnn_check(dnnl_primitive_create(&call->primitive, call->pd), call->op, call->what, err));
    for (int i = 0; i < call->n_args; i++)
        PT_TRY(make_memory(call, &call->args[i], err));
    return PT_OK;
}

pt_status pt_dnn_call_run(pt_dnn_call *call, const void *const addresses[], pt_error *err)
{
    dnnl_status_t status = dnnl_success;
    int last = call->n_args - 1;
    for (int i = 0; i < last && status == dnnl_success; i++)
        status = dnnl_memory_set_data_handle(call->args[i].memory, (void *)addresses[i]);
    if (status == dnnl_success)
        status = dnnl_memory_set_data_handle(call->args[last].memory, call->dnn->rooms);
    use_threads(call->dnn);
    if (status == dnnl_success)
        status =
            dnnl_primitive_execute(call->primitive, call->dnn->stream, call->n_args, call->args);
    return pt_dnn_check(status, call->op, call->what, err);
}

void pt_dnn_call_clear(pt_dnn_call *call)
{
    for (int i = 0; i < call->n_args; i++)
        dnnl_memory_destroy(call->args[i].memory);
    dnnl_primitive_destroy(call->primitive);
    dnnl_primitive_desc_destroy(call->pd);
    memset(call, 0, sizeof *call);
}

/* ---- rooms ---------------------------------------------------------------------------------- */

pt_status pt_dnn_reserve(pt_dnn *dnn, size_t bytes, pt_error *err)
{
    if (bytes <= dnn->rooms_bytes)
        return PT_OK;
    void *rooms = NULL;
    pt_dnn_free_rooms(dnn);
    PT_TRY(pt_cpu_dev_new(&dnn->cpu.base, bytes, &rooms, err));
    dnn->rooms = rooms;
    dnn->rooms_bytes = bytes;
    return PT_OK;
}

void pt_dnn_free_rooms(pt_dnn *dnn)
{
    pt_cpu_dev_free(&dnn->cpu.base, dnn->rooms);
    dnn->rooms = NULL;
    dnn->rooms_bytes = 0;
}

pt_status pt_dnn_use(pt_dnn_kernel *k, pt_dnn_call *call, const int *indices, pt_error *err)
{
    PT_TRY(pt_dnn_call_take(call, indices, err));
    pt_dnn_need(k, PT_DNN_SCRATCHPAD, pt_dnn_call_scratchpad_bytes(call));
    call->next = k->calls;
    k->calls = call;
    return PT_OK;
}

void pt_dnn_need(pt_dnn_kernel *k, pt_dnn_room room, size_t bytes)
{
    if (bytes > k->room_bytes[room])
        k->room_bytes[room] = bytes;
}

/* Where a room begins; that of PT_DNN_ROOMS is the end of all. */
static size_t room_offset(const pt_dnn_kernel *k, int room)
{
    size_t offset = 0;
    for (int i = 0; i < room; i++)
        offset += pt_align_up(k->room_bytes[i]);
    return offset;
}

size_t pt_dnn_rooms_bytes(const pt_dnn_kernel *k)
{
    return room_offset(k, PT_DNN_ROOMS);
}

void *pt_dnn_room_of(const pt_dnn_kernel *k, pt_dnn_room room)
{
    return pt_dnn_of(k)->rooms + room_offset(k, room);
}
