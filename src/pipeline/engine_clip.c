/* Gradient clipping by the global norm across stages. */
#include <math.h>
#include <stdlib.h>

#include "engine_internal.h"

pt_status pt_clipper_init(clipper *c, pt_world *world, const pt_flat *flat, pt_error *err)
{
    int size = pt_world_size(world);
    size_t total = 0, one = sizeof(size_t);
    *c = (clipper){.n_mine = (size_t)flat->n_params, .scale = 1, .norm = NAN};
    c->bytes = malloc((size_t)size * sizeof *c->bytes);
    c->mine = malloc((c->n_mine + 1) * sizeof *c->mine);
    if (!c->bytes || !c->mine)
        return pt_fail(err, PT_ENOMEM, "no memory for the gradient norm");
    for (int r = 0; r < size; r++)
        c->bytes[r] = one;
    size_t mine = c->n_mine * sizeof *c->mine;
    size_t *gathered = malloc((size_t)size * sizeof *gathered);
    if (!gathered)
        return pt_fail(err, PT_ENOMEM, "no memory for the gradient norm");
    pt_status status =
        pt_world_gather(world, PT_FOR_CLIP, /*root=*/0, &mine, one, c->bytes, gathered, err);
    for (int r = 0; r < size && pt_world_rank(world) == 0; r++) {
        c->bytes[r] = gathered[r];
        total += gathered[r];
    }
    free(gathered);
    if (status == PT_OK && pt_world_rank(world) == 0) {
        c->all = malloc(total + 1);
        if (!c->all)
            return pt_fail(err, PT_ENOMEM, "no memory for the gradient norm");
    }
    return status;
}

void pt_clipper_clear(clipper *c)
{
    free(c->mine);
    free(c->all);
    free(c->bytes);
    *c = (clipper){0};
}

pt_status pt_clipper_run(clipper *c, pt_world *world, pt_backend *backend, const pt_flat *flat,
                         const float *dev_gradient, double limit, pt_error *err)
{
    for (int i = 0; i < flat->n_params; i++)
        PT_TRY(backend->row->sum_of_squares(backend, (size_t)flat->params[i].shape.elements,
                                            dev_gradient + flat->params[i].offset, &c->mine[i],
                                            err));
    PT_TRY(pt_world_gather(world, PT_FOR_CLIP, /*root=*/0, c->mine, c->n_mine * sizeof *c->mine,
                           c->bytes, c->all, err));
    double norm_scale[2] = {0, 1};
    if (pt_world_rank(world) == 0) {
        double sum = 0;
        size_t n = 0;
        for (int r = 0; r < pt_world_size(world); r++)
            n += c->bytes[r] / sizeof *c->all;
        for (size_t i = 0; i < n; i++)
            sum += c->all[i];
        norm_scale[0] = sqrt(sum);
        double scale = limit / (norm_scale[0] + 1e-6);
        norm_scale[1] = scale < 1 ? scale : 1;
    }
    PT_TRY(pt_world_broadcast(world, PT_FOR_CLIP, /*root=*/0, norm_scale, sizeof norm_scale, err));
    c->norm = norm_scale[0];
    c->scale = norm_scale[1];
    return PT_OK;
}
