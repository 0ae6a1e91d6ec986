/* Gradient clipping by the global norm across stages. */
#include <math.h>
#include <stdlib.h>

#include "engine_internal.h"

/* Rank 0 learns how many tensors each block has. */
static pt_status share_counts(clipper *c, pt_world *world, const size_t *mine, pt_error *err)
{
    size_t ranks = (size_t)pt_world_size(world), one = (size_t)c->chunks * sizeof *mine;
    for (size_t r = 0; r < ranks; r++)
        c->bytes[r] = one;
    PT_TRY(pt_world_gather(world, PT_FOR_CLIP, /*root=*/0, mine, one, c->bytes, c->counts, err));
    size_t total = 0;
    for (size_t r = 0; r < ranks; r++) {
        c->bytes[r] = 0;
        for (int k = 0; k < c->chunks && pt_world_rank(world) == 0; k++)
            c->bytes[r] += c->counts[r * (size_t)c->chunks + (size_t)k] * sizeof *c->mine;
        total += c->bytes[r];
    }
    if (pt_world_rank(world) == 0)
        c->all = malloc(total + 1);
    return c->all || pt_world_rank(world) != 0
               ? PT_OK
               : pt_fail(err, PT_ENOMEM, "no memory for the gradient norm");
}

pt_status pt_clipper_init(clipper *c, pt_world *world, const block *blocks, int chunks,
                          pt_error *err)
{
    size_t ranks = (size_t)pt_world_size(world);
    *c = (clipper){.chunks = chunks, .scale = 1, .norm = NAN};
    size_t *mine = calloc((size_t)chunks, sizeof *mine);
    for (int k = 0; mine && k < chunks; k++) {
        mine[k] = (size_t)pt_stage_flat(blocks[k].stage)->n_params;
        c->n_mine += mine[k];
    }
    c->bytes = malloc(ranks * sizeof *c->bytes);
    c->counts = malloc(ranks * (size_t)chunks * sizeof *c->counts);
    c->mine = malloc((c->n_mine + 1) * sizeof *c->mine);
    pt_status status = mine && c->bytes && c->counts && c->mine
                           ? share_counts(c, world, mine, err)
                           : pt_fail(err, PT_ENOMEM, "no memory for the gradient norm");
    free(mine);
    return status;
}

void pt_clipper_clear(clipper *c)
{
    free(c->mine);
    free(c->all);
    free(c->bytes);
    free(c->counts);
    *c = (clipper){0};
}

static pt_status sum_mine(clipper *c, pt_backend *backend, const block *blocks, pt_error *err)
{
    double *sum = c->mine;
    for (int k = 0; k < c->chunks; k++) {
        const pt_flat *flat = pt_stage_flat(blocks[k].stage);
        const float *dev_gradient = pt_weights_gradient(pt_stage_weights(blocks[k].stage));
        for (int i = 0; i < flat->n_params; i++)
            PT_TRY(backend->row->sum_of_squares(backend, (size_t)flat->params[i].shape.elements,
                                                dev_gradient + flat->params[i].offset, sum++, err));
    }
    return PT_OK;
}

/* What rank r sent is its chunks, one behind the other; added up is block by block. */
static double add_in_layer_order(const clipper *c, int ranks)
{
    double sum = 0;
    for (int k = 0; k < c->chunks; k++) {
        const double *of_rank = c->all;
        for (int r = 0; r < ranks; r++) {
            const size_t *counts = &c->counts[r * c->chunks];
            const double *at = of_rank;
            for (int before = 0; before < k; before++)
                at += counts[before];
            for (size_t i = 0; i < counts[k]; i++)
                sum += at[i];
            of_rank += c->bytes[r] / sizeof *c->all;
        }
    }
    return sum;
}

pt_status pt_clipper_run(clipper *c, pt_world *world, pt_backend *backend, const block *blocks,
                         double limit, pt_error *err)
{
    double norm_scale[2] = {0, 1};
    PT_TRY(sum_mine(c, backend, blocks, err));
    PT_TRY(pt_world_gather(world, PT_FOR_CLIP, /*root=*/0, c->mine, c->n_mine * sizeof *c->mine,
                           c->bytes, c->all, err));
    if (pt_world_rank(world) == 0) {
        norm_scale[0] = sqrt(add_in_layer_order(c, pt_world_size(world)));
        double scale = limit / (norm_scale[0] + 1e-6);
        norm_scale[1] = scale < 1 ? scale : 1;
    }
    PT_TRY(pt_world_broadcast(world, PT_FOR_CLIP, /*root=*/0, norm_scale, sizeof norm_scale, err));
    c->norm = norm_scale[0];
    c->scale = norm_scale[1];
    return PT_OK;
}
