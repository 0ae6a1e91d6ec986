/* The weights of linear → batch-norm → linear on the ref backend, for tests of versions and rules.
 */
#ifndef PIPETRAIN_TESTS_WEIGHTS_RIG_H
#define PIPETRAIN_TESTS_WEIGHTS_RIG_H

#include "pipetrain/weights.h"

enum { FEATURES = 5, VERSIONS = 4 };

typedef struct weights_rig {
    pt_backend *b;
    pt_graph graph;
    pt_flat flat;
    pt_weights_spec spec;
    pt_weights *w;
    int gathered;  /* gradients of weights_backward that the step has */
    size_t before; /* bytes of the backend before the weights were made */
} weights_rig;

/* sgd of momentum 0.5 and rate 0.25, which floats hold exactly. */
void weights_begin(weights_rig *f, const char *predictor, bool stash, bool training);
/* Makes the weights anew from f->spec; what was given to them is lost. */
void weights_again(weights_rig *f);
void weights_end(weights_rig *f); /* and sees that all memory came back */

size_t weights_bytes_now(const pt_backend *b);
/* Host copy of a parameter buffer; free() it. */
float *weights_bytes_of(const weights_rig *f, const float *dev);
/* Of a buffer that must hold one value everywhere. */
double weights_value_of(const weights_rig *f, const float *dev);
void assert_holds(const weights_rig *f, const float *dev, const float *want);
void assert_same_set(pt_weight_set a, pt_weight_set b);

/* One update with a gradient of ones. */
void weights_update(weights_rig *f);
/* The backward of a micro-batch that was not late: a gradient of ones more. */
void weights_backward(weights_rig *f);
pt_weight_set weights_forward(weights_rig *f, int staleness);

#endif
