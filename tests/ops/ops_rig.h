/* One op on one backend with all the memory it needs, fed and read in plain host arrays.
 *
 * A rig hands a kernel no more than its flags ask for: a backward that reads what it did not
 * announce meets a NULL. */
#ifndef PIPETRAIN_TESTS_OPS_RIG_H
#define PIPETRAIN_TESTS_OPS_RIG_H

#include "ops_cases.h"
#include "pipetrain/backend.h"

/* A plain row-major tensor on the host. */
typedef struct ops_tensor {
    char name[32];
    float *at;
    int64_t n; /* elements */
} ops_tensor;

enum { OPS_MAX_RESULTS = 1 + PT_MAX_INPUTS + PT_MAX_PARAMS + PT_MAX_STATE };

/* What goes in. */
typedef struct ops_data {
    ops_tensor in[PT_MAX_INPUTS], param[PT_MAX_PARAMS], state[PT_MAX_STATE], d_out;
    ops_tensor d_param[PT_MAX_PARAMS]; /* what is there before an accumulating backward */
} ops_data;

/* What comes out: out, d_in…, d_param…, state…, in this order. */
typedef struct ops_result {
    ops_tensor t[OPS_MAX_RESULTS];
    int n;
} ops_result;

typedef enum ops_variant {
    OPS_ACCUMULATE = 1,      /* backward adds to data->d_param */
    OPS_IN_PLACE = 2,        /* out in in[0]'s memory, d_in[0] in d_out's */
    OPS_FEWER_GRADIENTS = 4, /* the gradient of in[0] is not wanted */
    OPS_AGAIN = 8            /* the forward is a second one */
} ops_variant;

typedef struct ops_rig ops_rig;

/* Who the samples of a rig are, for dropout. */
enum { OPS_SEED = 2024, OPS_EPOCH = 3 };
uint32_t ops_sample(int n);

/* Infers the shapes of a case; fails the test when it cannot. */
pt_op ops_infer(const ops_case *c);

void ops_data_new(const ops_case *c, uint64_t seed, ops_data *ret_data);
void ops_data_free(ops_data *data);
void ops_result_free(ops_result *result);

/* Plans and builds the case on an open backend. With `inner`, the inputs have the layouts that the
 * backend's own convolution or linear layer gives them, plain ones without. */
ops_rig *ops_rig_new(pt_backend *b, const ops_case *c, pt_mode mode, bool inner);
void ops_rig_free(ops_rig *rig);
const pt_kernel *ops_rig_kernel(const ops_rig *rig);
bool ops_rig_can_run_in_place(const ops_rig *rig);

/* Uploads data and runs the forward; out (plain) stays valid until the next call. */
const ops_tensor *ops_rig_forward(ops_rig *rig, const ops_data *data, unsigned variant);

/* Forward and, in training, both backwards. */
void ops_rig_run(ops_rig *rig, const ops_data *data, unsigned variant, ops_result *ret_result);

/* After ops_rig_run without OPS_IN_PLACE: whether the bytes that PT_PASSES_VALUE and
 * PT_PASSES_GRADIENT promise to be equal are equal. */
bool ops_rig_passes_value(ops_rig *rig);
bool ops_rig_passes_gradient(ops_rig *rig, int input);

#endif
