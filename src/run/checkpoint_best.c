/* --keep-best: which step has the best score, and that its checkpoint stays. */
#include "checkpoint_internal.h"

#include <math.h>

#include "pipetrain/log.h"

static bool is_better(const pt_score *one, const pt_score *other)
{
    if (!isfinite(one->loss))
        return false;
    if (other->step == 0)
        return true;
    bool classifies = !isnan(one->accuracy);
    return classifies && one->accuracy != other->accuracy ? one->accuracy > other->accuracy
                                                          : one->loss < other->loss;
}

void pt_checkpoint_score(pt_checkpoint *c, const pt_score *score)
{
    if (pt_checkpoint_is_root(c) && c->run->settings->keep_best && is_better(score, &c->best))
        c->better = *score;
}

pt_score pt_checkpoint_best(const pt_checkpoint *c)
{
    return c ? c->best : (pt_score){0};
}

/* The one that was the best is then one of many. */
static pt_status name_best(void *context, pt_error *err)
{
    pt_checkpoint *c = context;
    PT_TRY(pt_store_point(c->dir, PT_STORE_BEST, c->better.step, err));
    c->best = c->better;
    return pt_checkpoint_prune(c, err);
}

void pt_checkpoint_begin_naming(pt_checkpoint *c)
{
    if (c->committed && c->stand.step == c->better.step) {
        c->phase = NAMING;
        pt_writer_start(c->writer, name_best, c);
        return;
    }
    pt_log(PT_LOG_WARNING, "the best step so far, %lld, has no checkpoint in %s that could be kept",
           (long long)c->better.step, c->dir);
    c->better = (pt_score){0};
}

void pt_checkpoint_end_naming(pt_checkpoint *c, pt_status status, const pt_error *why)
{
    if (status != PT_OK)
        pt_log(PT_LOG_WARNING, "step %lld is the best so far, but %s", (long long)c->better.step,
               why->text);
    c->better = (pt_score){0};
}
