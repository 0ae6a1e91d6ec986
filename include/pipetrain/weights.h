/* The weights of a stage and their versions.
 *
 *   θ          the true weights; only UPDATE changes them
 *   current    a forward reads θ                        (no prediction, or staleness 0)
 *   predicted  a forward reads what θ will be, in a buffer of its own; θ is never touched
 *   stashed    the backward reads the very bytes that its forward read, from a ring of versions
 *   corrected  the backward reads about what its forward read, taken back along the mean move of θ
 *   gap-aware  the same ring, which the backward does not read: its gradient is compared with it
 *   previous   θ as it was before the last update: what most passes read where there are two
 * versions
 *
 * Every distinct content has a number, so that kernels reorder a weight once and not once a call.
 */
#ifndef PIPETRAIN_WEIGHTS_H
#define PIPETRAIN_WEIGHTS_H

#include <stdbool.h>
#include <stdint.h>

#include "pipetrain/backend.h"
#include "pipetrain/flat.h"
#include "pipetrain/learn.h"
#include "pipetrain/status.h"

typedef struct pt_weights pt_weights;

typedef struct pt_weights_spec {
    const pt_flat *flat; /* outlives the weights */
    pt_optimizer_spec optimizer;
    const pt_predictor_row *predictor;
    pt_lr_spec lr;
    bool stash;
    int versions; /* stash: contents alive at most: from the checker, the versions, or (predicting:
                     one version may be foreseen from several distances) the micro-batches */
    /* PipeDream-2BW (Narayanan et al., ICML 2021): step t reads version max(t-1, 0) in both passes,
     * on every stage; no forward may be more than one update late. Not with stash or prediction.
     * Steps before the lr's first_late read the newest version, and so does that step. */
    bool two_versions;
    /* Gap-aware (Barkai et al., ICLR 2020): a gradient counts less the further the weights have
     * gone since its forward. Keeps `versions` too, with or without stash. sgd or nesterov; not
     * with two versions. */
    bool gap_aware;
    int per_step; /* gap_aware: micro-batches of a step at most */
    /* PipeMare's discrepancy correction (Yang et al., MLSys 2021, T2): backwards read the newest
     * weights less `delay` times a mean of their moves, which keeps decay^(1/delay) of itself at an
     * update. Not with stash, two versions, gap_aware or prediction. */
    struct {
        double delay; /* updates, on average; 0: nothing is corrected */
        double decay; /* 0 … 1; 0: nothing is corrected */
    } correction;
    bool training; /* false: θ and running statistics only */
} pt_weights_spec;

/* One content: what a forward or a backward reads. */
typedef struct pt_weight_set {
    const float *dev_params;
    uint64_t content; /* the number of these bytes */
    int64_t version;  /* updates done when the set was made */
    int stash_slot;   /* -1: not stashed */
} pt_weight_set;

pt_status pt_weights_new(pt_backend *backend, const pt_weights_spec *spec, pt_weights **ret_weights,
                         pt_error *err);
void pt_weights_free(pt_weights *weights); /* NULL is fine */

/* For a forward that is `staleness` updates ahead of its own backward. Under stashing the set is
 * held until pt_weights_release. */
pt_status pt_weights_for_forward(pt_weights *weights, int staleness, pt_weight_set *ret_set,
                                 pt_error *err);
/* For the backward of the micro-batch whose forward got `forward`. */
pt_weight_set pt_weights_for_backward(const pt_weights *weights, const pt_weight_set *forward);
void pt_weights_release(pt_weights *weights, const pt_weight_set *forward);
/* θ itself: evaluation and saving. */
pt_weight_set pt_weights_now(const pt_weights *weights);

/* One optimizer step with the learning rate of this step; `scale` is the clip factor (1: none). */
pt_status pt_weights_update(pt_weights *weights, double scale, pt_error *err);
/* Forgets what the optimizer and the rules remember and counts from step 0 again. Weights and
 * statistics stay as they are. */
pt_status pt_weights_restart(pt_weights *weights, pt_error *err);
int64_t pt_weights_updates(const pt_weights *weights); /* how many so far */
double pt_weights_lr(const pt_weights *weights);       /* of the next update */

float *pt_weights_gradient(pt_weights *weights); /* of the step so far: flat, device */
/* Where the backward of the micro-batch whose forward got `forward` puts its gradients, and whether
 * it adds them to what is there. `accumulate`: false for the first micro-batch of a step. */
typedef struct pt_gradient_place {
    float *dev;
    bool accumulate;
} pt_gradient_place;
pt_gradient_place pt_weights_gradient_place(pt_weights *weights, const pt_weight_set *forward,
                                            bool accumulate);
/* After that backward, and before that of another micro-batch: its gradients become part of the
 * step's. */
pt_status pt_weights_take_gradient(pt_weights *weights, const pt_weight_set *forward,
                                   bool accumulate, pt_error *err);
float *pt_weights_state(pt_weights *weights); /* flat, device: running statistics */

/* Host copies of one tensor, for saving and giving weights. `i` counts flat->params or ->state. */
pt_status pt_weights_get_param(pt_weights *weights, int i, float *dst, pt_error *err);
pt_status pt_weights_set_param(pt_weights *weights, int i, const float *src, pt_error *err);
pt_status pt_weights_get_state(pt_weights *weights, int i, float *dst, pt_error *err);
pt_status pt_weights_set_state(pt_weights *weights, int i, const float *src, pt_error *err);

/* What goes on from step to step beside weights and statistics, a value for each weight: the
 * optimizer's state, and what the rules remember. Returns how many there are; the names are static:
 * "exp_avg", "drift" … */
enum { PT_MOST_MEMORIES = PT_MOST_STATE_BUFFERS + 4 };
int pt_weights_memories(const pt_weights_spec *spec, const char *ret_names[PT_MOST_MEMORIES]);
/* Those of weight i, flat->params[i], while no micro-batch is under way. */
pt_status pt_weights_get_memory(pt_weights *weights, int which, int i, float *dst, pt_error *err);
pt_status pt_weights_set_memory(pt_weights *weights, int which, int i, const float *src,
                                pt_error *err);
/* Once weights, statistics and memories are set: as if so many updates had led there. Training goes
 * on with the bits that it would have had. */
void pt_weights_resume(pt_weights *weights, int64_t updates);

/* What the buffers of such a spec take, bytes; the prediction that --check prints. */
size_t pt_weights_bytes(const pt_weights_spec *spec);

#endif
