/* The inside of the engine: engine.c opens links and runs lists, engine_actions.c does what an
 * action says, engine_clip.c takes the global norm, engine_times.c does the sums of a pass. */
#ifndef PIPETRAIN_PIPELINE_ENGINE_INTERNAL_H
#define PIPETRAIN_PIPELINE_ENGINE_INTERNAL_H

#include "pipetrain/engine.h"
#include "pipetrain/link.h"

/* The global gradient norm. Every rank sums its tensors one by one; rank 0 adds the sums in layer
 * order, which no cut changes, and tells everyone the factor. */
typedef struct clipper {
    double *mine, *all; /* sums of squares per tensor; `all` on rank 0 only */
    size_t n_mine;
    size_t *bytes; /* of every rank's part */
    double norm, scale;
} clipper;

pt_status pt_clipper_init(clipper *c, pt_world *world, const pt_flat *flat, pt_error *err);
void pt_clipper_clear(clipper *c);
/* Sets norm and scale = min(1, limit / (norm + 1e-6)), as torch.nn.utils.clip_grad_norm_ does. */
pt_status pt_clipper_run(clipper *c, pt_world *world, pt_backend *backend, const pt_flat *flat,
                         const float *dev_gradient, double limit, pt_error *err);

/* Fills the sums of `result` that follow from the timings. */
void pt_timings_sum(const pt_timing *timings, int n, bool synchronous, int64_t start, int64_t end,
                    pt_pass_result *result);

/* A micro-batch on its way through this rank. */
typedef struct flight {
    int micro_batch; /* -1: nobody */
    pt_micro_batch mb;
    pt_epoch_item item;
} flight;

enum { ACTS_IN, ACTS_OUT, GRADS_IN, GRADS_OUT, LINKS };

struct pt_engine {
    pt_engine_spec spec;
    pt_link *links[LINKS];
    void *buffers[LINKS]; /* of the links' slots */
    flight *flights;      /* spec.slots of them */
    pt_timing *timings;
    int n_timings;
    float *input;    /* first stage: host, one micro-batch */
    int32_t *labels; /* last stage */
    float *outputs;  /* last stage: targets, or predictions on the host */
    clipper clip;
    pt_step_result step; /* of the step whose backwards are under way */
    pt_pass_result sums; /* of the pass */
    int64_t busy_ns;     /* of all passes */
    const pt_pass *pass;
    const pt_action *action; /* the one that is running */
    pt_between_ops between;
};

bool pt_engine_is_first(const pt_engine *e);
bool pt_engine_is_last(const pt_engine *e);

/* Does e->action. */
pt_status pt_engine_act(pt_engine *e, pt_error *err);

#endif
