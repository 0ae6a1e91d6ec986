/* What a stage remembers from step to step beside its weights: to be kept, and given back. */
#include <math.h>
#include <stddef.h>

#include "weights_internal.h"

static bool is_gap_aware(const pt_weights_spec *spec)
{
    return pt_weights_gap_buffers(spec) > 0;
}

static bool corrects(const pt_weights_spec *spec)
{
    return pt_weights_back_buffers(spec) > 0;
}

static bool has_two_versions(const pt_weights_spec *spec)
{
    return spec->two_versions;
}

/* Beside the optimizer's. Foreseen weights are made again from what is kept, with the same bits;
 * and where no micro-batch is under way, no stashed version is held. */
static const struct {
    const char *name;
    bool (*is_kept)(const pt_weights_spec *spec);
    size_t at; /* of the buffer's address in pt_weights */
} of_rules[] = {
    {"mean_squares", is_gap_aware, offsetof(pt_weights, mean_squares)},
    {"drift", corrects, offsetof(pt_weights, drift)},
    {"look_back", corrects, offsetof(pt_weights, back)},
    {"previous", has_two_versions, offsetof(pt_weights, previous)},
};

enum { OF_RULES = sizeof of_rules / sizeof *of_rules };
_Static_assert((int)PT_MOST_MEMORIES == (int)PT_MOST_STATE_BUFFERS + (int)OF_RULES, "room for all");

int pt_weights_memories(const pt_weights_spec *spec, const char *ret_names[PT_MOST_MEMORIES])
{
    int n = 0;
    if (!spec->training)
        return 0;
    const pt_optimizer_row *optimizer = pt_optimizer_find(spec->optimizer.name);
    for (; n < optimizer->state_buffers; n++)
        ret_names[n] = optimizer->state_names[n];
    for (int i = 0; i < OF_RULES; i++)
        if (of_rules[i].is_kept(spec))
            ret_names[n++] = of_rules[i].name;
    return n;
}

static float *memory_at(const pt_weights *w, int which)
{
    if (which < w->optimizer->state_buffers)
        return w->moments[which];
    int left = which - w->optimizer->state_buffers;
    for (int i = 0; i < OF_RULES; i++)
        if (of_rules[i].is_kept(&w->spec) && left-- == 0)
            return *(float *const *)((const char *)w + of_rules[i].at);
    return NULL;
}

pt_status pt_weights_get_memory(pt_weights *w, int which, int i, float *dst, pt_error *err)
{
    const pt_flat_tensor *tensor = &w->spec.flat->params[i];
    return w->backend->row->download(w->backend, dst, memory_at(w, which) + tensor->offset,
                                     (size_t)tensor->shape.elements * sizeof(float), err);
}

pt_status pt_weights_set_memory(pt_weights *w, int which, int i, const float *src, pt_error *err)
{
    const pt_flat_tensor *tensor = &w->spec.flat->params[i];
    return w->backend->row->upload(w->backend, memory_at(w, which) + tensor->offset, src,
                                   (size_t)tensor->shape.elements * sizeof(float), err);
}

void pt_weights_resume(pt_weights *w, int64_t updates)
{
    w->updates = updates;
    w->gathered = 0;
    w->predicted_staleness = 0;
    w->content = ++w->last_content;
    w->top_rate = 0;
    for (int64_t t = 0; w->spec.gap_aware && t < updates; t++)
        w->top_rate = fmax(w->top_rate, pt_lr_at(&w->spec.lr, t));
    if (w->previous)
        w->previous_content = ++w->last_content;
    if (w->back && updates > 0) { /* before the first update there is no way back */
        w->back_from = w->content;
        w->back_content = ++w->last_content;
    }
}
