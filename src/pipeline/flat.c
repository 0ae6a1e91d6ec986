/* The map of a stage's parameters and running statistics onto flat buffers. */
#include "pipetrain/flat.h"

#include <stdlib.h>

enum { ELEMENTS_PER_LINE = 16 }; /* of 64 bytes, so that every tensor starts on a cache line */

static size_t append(pt_flat_tensor **at, int node, int index, const pt_op_tensor *shape,
                     size_t offset)
{
    **at = (pt_flat_tensor){.node = node, .index = index, .offset = offset, .shape = *shape};
    ++*at;
    size_t lines = ((size_t)shape->elements + ELEMENTS_PER_LINE - 1) / ELEMENTS_PER_LINE;
    return offset + lines * ELEMENTS_PER_LINE;
}

static bool is_spared(const pt_graph *graph, const pt_flat_tensor *param, bool spare_vectors)
{
    return graph->nodes[param->node].spared || (spare_vectors && param->shape.ndim == 1);
}

/* Moves the parameters of one kind behind each other from `offset` on. */
static size_t place(pt_flat *flat, const pt_graph *graph, bool spare_vectors, bool spared,
                    size_t offset)
{
    for (int i = 0; i < flat->n_params; i++) {
        pt_flat_tensor *at = &flat->params[i];
        if (is_spared(graph, at, spare_vectors) == spared)
            offset = append(&at, at->node, at->index, &at->shape, offset);
    }
    return offset;
}

pt_status pt_flat_init(pt_flat *flat, const pt_graph *graph, int first, int end, pt_error *err)
{
    return pt_flat_init_sparing(flat, graph, first, end, /*spare_vectors=*/false, err);
}

pt_status pt_flat_init_sparing(pt_flat *flat, const pt_graph *graph, int first, int end,
                               bool spare_vectors, pt_error *err)
{
    size_t n = (size_t)(end - first);
    pt_flat f = {.first = first, .end = end};
    f.params = calloc(n * PT_MAX_PARAMS + 1, sizeof *f.params);
    f.state = calloc(n * PT_MAX_STATE + 1, sizeof *f.state);
    f.first_param = calloc(n + 1, sizeof *f.first_param);
    f.first_state = calloc(n + 1, sizeof *f.first_state);
    if (!f.params || !f.state || !f.first_param || !f.first_state) {
        pt_flat_clear(&f);
        return pt_fail(err, PT_ENOMEM, "no memory for the map of %zu layers", n);
    }
    pt_flat_tensor *param = f.params, *state = f.state;
    for (int i = first; i < end; i++) {
        pt_op_tensor shapes[PT_MAX_PARAMS > PT_MAX_STATE ? PT_MAX_PARAMS : PT_MAX_STATE];
        f.first_param[i - first] = (int)(param - f.params);
        f.first_state[i - first] = (int)(state - f.state);
        int count = pt_op_params(&graph->nodes[i].op, shapes);
        for (int j = 0; j < count; j++)
            append(&param, i, j, &shapes[j], 0);
        count = pt_op_state(&graph->nodes[i].op, shapes);
        for (int j = 0; j < count; j++)
            f.state_elements = append(&state, i, j, &shapes[j], f.state_elements);
    }
    f.n_params = f.first_param[n] = (int)(param - f.params);
    f.n_state = f.first_state[n] = (int)(state - f.state);
    f.decayed_elements = place(&f, graph, spare_vectors, /*spared=*/false, 0);
    f.param_elements = place(&f, graph, spare_vectors, /*spared=*/true, f.decayed_elements);
    *flat = f;
    return PT_OK;
}

void pt_flat_clear(pt_flat *flat)
{
    free(flat->params);
    free(flat->state);
    free(flat->first_param);
    free(flat->first_state);
    *flat = (pt_flat){0};
}
