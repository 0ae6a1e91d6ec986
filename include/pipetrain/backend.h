/* One table of functions per compute library.
 *
 * Memory. `void *` named dev_… is an address in the backend's own memory: arithmetic on it is
 * allowed, dereferencing it is the backend's business (on a GPU it is a device pointer). Host
 * memory that takes part in transfers comes from host_new (pinned, where that means something).
 *
 * Order. Work is asked of three lanes: compute (kernels, losses, flat buffers), in (host to device)
 * and out (device to host). A lane does its work in the order it was asked for and side by side
 * with the others; calls may return before the work is done. An event marks a place on a lane:
 * another lane can be told to wait for it, and the host can ask whether it was reached. Nothing
 * else orders lanes. On CPUs every call is done when it returns, and events are always reached.
 *
 * Kernels. A kernel is one op prepared for one number of samples. `plan` chooses primitive and
 * layouts; it is cheap and is called for the *whole* graph in topological order, so that a cut
 * never changes a choice; that is what makes any number of stages give the same bits. `build` makes
 * the primitive runnable and is called for the layers of one's own stage only.
 *
 * Values and their gradients have the layout that the kernel which produces the value planned for
 * it (kernel->out); a kernel whose library wants another one reorders inside, in its scratch.
 * Parameters and their gradients are always plain fp32 in PyTorch's order (OIHW, OI): optimizers,
 * predictors, checkpoints and clipping see flat buffers and nothing else. */
#ifndef PIPETRAIN_BACKEND_H
#define PIPETRAIN_BACKEND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "pipetrain/op.h"
#include "pipetrain/shape.h"
#include "pipetrain/status.h"

typedef struct pt_backend pt_backend;
typedef struct pt_kernel pt_kernel;
typedef struct pt_event pt_event;

typedef enum pt_lane {
    PT_LANE_COMPUTE,
    PT_LANE_IN,  /* copy_in */
    PT_LANE_OUT, /* copy_out */
    PT_LANES
} pt_lane;

/* How the elements of a micro-batch of one value lie in memory. Backends extend it. */
typedef struct pt_layout {
    size_t bytes; /* padding of blocked formats included */
} pt_layout;

typedef enum pt_mode {
    PT_TRAIN, /* batch statistics, dropout on, whatever the backward needs is kept */
    PT_EVAL   /* running statistics, dropout off, nothing kept */
} pt_mode;

/* What the backward of a kernel reads beside d_out; lets a stage keep no more than that. */
enum {
    PT_READS_INPUT_FOR_INPUT = 1,  /* backward_input reads in[0] */
    PT_READS_OUTPUT_FOR_INPUT = 2, /* backward_input reads out */
    PT_READS_INPUT_FOR_WEIGHT = 4, /* backward_weight reads in[0] */
    PT_SPLITS_BACKWARD = 8,        /* the weight gradient is a call of its own (conv2d, linear);
                                      without this flag backward_input also makes it (batch-norm) */
    PT_MAY_RUN_IN_PLACE = 16,      /* forward: out may be in[0]'s memory; backward_input: d_in[0]
                                      may be d_out's (relu) */
    PT_PASSES_GRADIENT = 32,       /* every d_in has the bytes of d_out (add; flatten where the
                                      layouts agree): the caller may alias instead of calling */
    PT_PASSES_VALUE = 64           /* out has the bytes of in[0] (flatten where the layouts agree,
                                      dropout in evaluation): the caller may alias */
};

/* Facts that plan() leaves for the stage. Backends extend the struct; read-only for callers. */
struct pt_kernel {
    pt_backend *backend;
    pt_op op;
    int samples;
    pt_mode mode;
    unsigned flags;       /* PT_READS_… and friends */
    const pt_layout *out; /* owned by the kernel */
    size_t saved_bytes;   /* what forward leaves for backward beside in and out: batch statistics,
                             pooling indices, dropout masks. Per micro-batch in flight. */
    size_t private_bytes; /* what build takes by dev_new for this kernel alone */
    size_t shared_bytes;  /* temporaries of one call: all kernels built on the backend share one
                             block, as large as the largest of them needs */
    bool built;
};

/* Everything a call may touch. Unused members are NULL. */
typedef struct pt_kernel_args {
    const void *dev_in[PT_MAX_INPUTS];
    void *dev_out;
    void *dev_saved;                       /* kernel->saved_bytes, written by forward */
    const float *dev_param[PT_MAX_PARAMS]; /* weight, bias */
    /* Names the contents of dev_param: the same number means the same bytes at the same address,
     * so that a kernel may keep a reordered copy. 0: do not keep. */
    uint64_t param_version;
    float *dev_state[PT_MAX_STATE]; /* running mean and variance; training updates them */
    const void *dev_d_out;
    void *dev_d_in[PT_MAX_INPUTS]; /* NULL where no gradient is wanted */
    float *dev_d_param[PT_MAX_PARAMS];
    bool accumulate; /* d_param += instead of d_param = */
    bool again;      /* a micro-batch's second forward, for its backward: running statistics stay */
    /* Dropout: who the samples are. dev_sample[i] is row i's index in the dataset. */
    uint64_t seed;
    uint32_t epoch;
    const uint32_t *dev_sample; /* kernel->samples entries */
} pt_kernel_args;

typedef enum pt_loss_kind { PT_LOSS_CROSS_ENTROPY, PT_LOSS_MSE, PT_LOSS_KINDS } pt_loss_kind;

/* cross-entropy: l = -sum_c q_c log softmax(y)_c, q = (1-ε)·onehot + ε/C   (labels)
 * mse:           l = 1/F · sum_f (y_f - t_f)²                              (targets)
 * Both are per sample; a step's loss is the mean over its samples. */
typedef struct pt_loss {
    pt_loss_kind kind;
    double smoothing; /* ε of cross-entropy, 0 … 1 */
    pt_shape shape;   /* of one prediction: (C) or (F) */
} pt_loss;

typedef struct pt_loss_result {
    double loss;     /* sum over the samples, not mean */
    int64_t correct; /* first arg-max equals the label; 0 for mse */
} pt_loss_result;

typedef struct pt_loss_args {
    const pt_layout *layout; /* of predictions and their gradient */
    int samples;
    const void *dev_y;
    const int32_t *dev_label; /* (samples), checked by pt_loss_check_labels; cross-entropy */
    const float *dev_target;  /* (samples, F) row-major; mse */
    float scale;              /* d_y = scale · ∂l/∂y: 1 / samples of the whole step */
    void *dev_d_y;            /* NULL: no gradient wanted */
    /* From host_new; filled when the compute lane comes to it: read it after an event. */
    pt_loss_result *host_result;
} pt_loss_args;

/* Every label must name a class: PT_EINPUT says which sample's does not. Host memory. */
pt_status pt_loss_check_labels(const pt_loss *loss, const int32_t *label, int samples,
                               pt_error *err);

/* v ← γ·v + (s·g + λ·θ);  θ ← θ - η·(nesterov ? (s·g + λ·θ) + γ·v : v)
 * PyTorch's SGD (dampening 0), with s the clip scale. Sutskever et al., ICML 2013, for Nesterov. */
typedef struct pt_sgd {
    float lr, momentum, decay, scale;
    bool nesterov;
} pt_sgd;

/* Made by the same pass as the step: out = a·θ + b·v with the new θ and v, for the next forward.
 * The bits are those of axpby after the step. `apart`: the step is foreseen too, and θ and v stay
 * as they are. */
typedef struct pt_foresight {
    float a, b;
    float *dev_out;
    bool apart;
} pt_foresight;

/* Step t = 1, 2 … of Adam (Kingma & Ba, ICLR 2015, algorithm 1) with the places of ε and of the
 * decay as PyTorch has them, s the clip scale:
 *   d = s·g + λ·θ;  m ← β1·m + (1-β1)·d;  v ← β2·v + (1-β2)·d²
 *   θ ← keep·θ - (rate·m + now·d) / (root·√v + ε),  rate = η/(1-β1^t),  root = 1/√(1-β2^t)
 * Adam has keep = 1 and now = 0. AdamW (Loshchilov & Hutter, ICLR 2019, algorithm 2) has λ = 0 here
 * and keep = 1 - η·λ. NAdam (Dozat, 2016) has rates of its own, one for the gradient that just came
 * in. What is 1 minus something is made in double and rounded once. */
typedef struct pt_adam {
    float rate, now, root, keep, beta1, beta2, rest1, rest2; /* rest1 = 1-β1, rest2 = 1-β2 */
    float eps, decay, scale;
} pt_adam;

enum { PT_MOST_RATES = 64 };

/* Steps to come, one by one: η/(1-β1^t), 1/√(1-β2^t) and 1 - η·λ of each. */
typedef struct pt_rates {
    int n; /* at most PT_MOST_RATES */
    float at[PT_MOST_RATES], root[PT_MOST_RATES], keep[PT_MOST_RATES];
} pt_rates;

/* Made of the θ, m and v that the step leaves, v staying as it is:
 *   no rates:  out = a·θ + b·m/(root·√v + ε)
 *   else       θ̂ = θ, m̂ = m;  for each of the rates, with its own root and keep:
 *                  θ̂ ← keep·θ̂;  m̂ ← β1·m̂ + (1-β1)·λ·θ̂;  θ̂ ← θ̂ - rate·m̂/(root·√v + ε)
 *              out = θ̂: decay that goes through m, or roots that differ, so that no two
 * coefficients do for all weights
 */
typedef struct pt_adam_foresight {
    float a, b;
    pt_rates rates;
    float *dev_out;
    bool apart; /* as in pt_foresight */
} pt_adam_foresight;

/* A late gradient is worth less the further the weights have gone since its forward (gap-aware):
 *   gradient (+)= own / (1 + |θ_forward - θ| / (top·(√(unbias·average) + least)))
 * average is a running mean of squares, unbias 1/(1-Γ^k) after k of its steps. */
typedef struct pt_gap {
    float top, unbias, least;
    bool accumulate; /* gradient += instead of gradient = */
} pt_gap;

/* About where the weights were `delay` updates ago, from a running mean of their moves:
 *   drift ← keep·drift + rest·(θ - back);  back ← θ - delay·drift
 * with θ before its last step in back. */
typedef struct pt_look_back {
    float keep, rest, delay;
} pt_look_back;

typedef enum pt_precision {
    PT_FP32, /* strict: no tensor cores */
    PT_TF32, /* fp32 values; convolutions and products may round factors to 10 bits */
    PT_BF16, /* bf16 values and gradients of values; parameters, their gradients, optimizer state,
                statistics and sums stay fp32 */
    PT_PRECISIONS
} pt_precision;

extern const char *const pt_precision_names[PT_PRECISIONS + 1]; /* "fp32", …, NULL */

/* What the calls of one layer take, ns. */
typedef struct pt_call_times {
    int64_t forward, backward_input, backward_weight;
} pt_call_times;

typedef struct pt_backend_config {
    int threads;    /* CPU threads of this rank, >= 1 */
    bool release;   /* onednn: a reference implementation chosen by the library is an error */
    int local_rank; /* among the ranks of this host: chooses the GPU, round robin; -1: the one that
                       the process has, see pt_backend_choose_device */
    pt_precision precision; /* CPUs compute in fp32 only and refuse others */
    bool deterministic;     /* GPUs: only algorithms that give the same bits in every run */
    /* clock: what to take; one entry per layer of the graph, which outlive the backend. */
    const pt_call_times *layer_times;
    double update_ns_per_element;
} pt_backend_config;

typedef struct pt_backend_row {
    const char *name;
    const char *help;

    void (*choose_device)(int local_rank); /* see pt_backend_choose_device; NULL on CPUs */
    pt_status (*open)(const pt_backend_config *config, pt_backend **ret_backend, pt_error *err);
    void (*close)(pt_backend *b); /* NULL is fine */

    /* Says how much dev_new will be asked for in all, so that it is found out now whether the
     * device has it. PT_ENOMEM says what there is; *ret_free, if not NULL, is that number in any
     * case. CPUs have nothing to reserve and say SIZE_MAX. */
    pt_status (*reserve)(pt_backend *b, size_t bytes, size_t *ret_free, pt_error *err);
    /* Memory is zeroed and aligned to PT_ALIGN. */
    pt_status (*dev_new)(pt_backend *b, size_t bytes, void **ret_dev, pt_error *err);
    void (*dev_free)(pt_backend *b, void *dev);
    pt_status (*host_new)(pt_backend *b, size_t bytes, void **ret_host, pt_error *err);
    void (*host_free)(pt_backend *b, void *host);

    /* Any host memory; after everything asked of any lane so far, and done when they return: for
     * setting up, reading results and tests. */
    pt_status (*upload)(pt_backend *b, void *dev_dst, const void *src, size_t bytes, pt_error *err);
    pt_status (*download)(pt_backend *b, void *dst, const void *dev_src, size_t bytes,
                          pt_error *err);
    /* On the compute lane. */
    pt_status (*copy)(pt_backend *b, void *dev_dst, const void *dev_src, size_t bytes,
                      pt_error *err);
    /* On their own lanes, for training. `host` is from host_new (or from dev_new, where messages
     * travel from device to device) and stays as it is until an event recorded behind is reached.
     */
    pt_status (*copy_in)(pt_backend *b, void *dev_dst, const void *host, size_t bytes,
                         pt_error *err);
    pt_status (*copy_out)(pt_backend *b, void *host, const void *dev_src, size_t bytes,
                          pt_error *err);

    /* An event that was never recorded counts as reached, at time 0. */
    pt_status (*event_new)(pt_backend *b, pt_event **ret_event, pt_error *err);
    void (*event_free)(pt_backend *b, pt_event *event); /* NULL is fine */
    pt_status (*event_record)(pt_backend *b, pt_lane lane, pt_event *event, pt_error *err);
    /* What is asked of the lane from now on waits for the event's last recording. */
    pt_status (*event_wait)(pt_backend *b, pt_lane lane, pt_event *event, pt_error *err);
    /* Never waits. An error is that of any work before the event. */
    pt_status (*event_done)(pt_backend *b, pt_event *event, bool *ret_done, pt_error *err);
    /* When the last recording was reached, on the clock of pt_clock_ns; only once it is done. */
    int64_t (*event_ns)(pt_backend *b, pt_event *event);
    /* Between two looks at events or messages: passes some time, a millisecond at most, without
     * using the processor. NULL: what is waited for is worth a processor. */
    void (*pause)(pt_backend *b);
    pt_status (*finish)(pt_backend *b, pt_error *err); /* waits for all lanes */

    /* The layout of values that come from outside: plain row-major fp32 (n, shape). */
    pt_status (*plain_layout)(pt_backend *b, const pt_shape *shape, int samples,
                              pt_layout **ret_layout, pt_error *err);
    void (*layout_free)(pt_backend *b, pt_layout *layout);
    bool (*layout_equal)(const pt_layout *a, const pt_layout *b);
    /* Reorders one value between layouts (evaluation output, --infer, tests). */
    pt_status (*reorder)(pt_backend *b, const pt_shape *shape, int samples, const pt_layout *from,
                         const void *dev_src, const pt_layout *to, void *dev_dst, pt_error *err);

    /* Also asked of the longer forms of batch-norm, which then need not be supported. */
    bool (*supports)(const pt_op *op);
    /* in[i] are the layouts of the inputs, as planned by their producers; they outlive the kernel.
     */
    pt_status (*plan)(pt_backend *b, const pt_op *op, int samples, pt_mode mode,
                      const pt_layout *const in[], pt_kernel **ret_kernel, pt_error *err);
    pt_status (*build)(pt_kernel *k, pt_error *err);
    void (*release)(pt_kernel *k); /* NULL is fine */

    pt_status (*forward)(pt_kernel *k, const pt_kernel_args *args, pt_error *err);
    pt_status (*backward_input)(pt_kernel *k, const pt_kernel_args *args, pt_error *err);
    pt_status (*backward_weight)(pt_kernel *k, const pt_kernel_args *args, pt_error *err);

    pt_status (*loss)(pt_backend *b, const pt_loss *loss, const pt_loss_args *args, pt_error *err);

    /* out = x + y for two values of one layout (the gradients of a value that several ops read), in
     * the type that it has; out may be x or y. */
    pt_status (*add)(pt_backend *b, const pt_layout *layout, const void *dev_x, const void *dev_y,
                     void *dev_out, pt_error *err);

    /* Flat fp32 buffers of n elements. */
    pt_status (*axpby)(pt_backend *b, size_t n, float a, const float *dev_x, float c,
                       const float *dev_y, float *dev_out, pt_error *err); /* out = a·x + c·y */
    /* In a fixed order, in double; waits. */
    pt_status (*sum_of_squares)(pt_backend *b, size_t n, const float *dev_x, double *ret_sum,
                                pt_error *err);
    /* velocity: NULL when the rule has no momentum. foresight: NULL when none is wanted. */
    pt_status (*sgd)(pt_backend *b, size_t n, const pt_sgd *rule, float *dev_theta,
                     float *dev_velocity, const float *dev_gradient, const pt_foresight *foresight,
                     pt_error *err);
    /* gradient: NULL when no step is wanted, only the foresight. foresight: NULL when none is. */
    pt_status (*adam)(pt_backend *b, size_t n, const pt_adam *rule, float *dev_theta, float *dev_m,
                      float *dev_v, const float *dev_gradient, const pt_adam_foresight *foresight,
                      pt_error *err);

    /* average ← keep·average + rest·x² */
    pt_status (*mean_squares)(pt_backend *b, size_t n, float keep, float rest, const float *dev_x,
                              float *dev_average, pt_error *err);
    /* dev_own may be dev_gradient, unless the rule accumulates. */
    pt_status (*gap)(pt_backend *b, size_t n, const pt_gap *rule, const float *dev_forward,
                     const float *dev_theta, const float *dev_average, const float *dev_own,
                     float *dev_gradient, pt_error *err);
    pt_status (*look_back)(pt_backend *b, size_t n, const pt_look_back *rule,
                           const float *dev_theta, float *dev_drift, float *dev_back,
                           pt_error *err);

    /* dev_… addresses are not host memory: a message is copied out first, or needs an MPI that
     * knows the device. */
    bool on_device;
    /* Bytes that dev_new holds now and held at most. */
    void (*memory)(const pt_backend *b, size_t *ret_now, size_t *ret_peak);
    /* One line for the start-up table: library, version, threads or device. */
    void (*describe)(const pt_backend *b, char *text, size_t size);
} pt_backend_row;

/* Backends extend it. */
struct pt_backend {
    const pt_backend_row *row;
};

/* The names of all backends, best first, after "auto"; and of those in this build that compute.
 * Both end by NULL. */
const char *const *pt_backend_choices(void);
const char *const *pt_backend_names(void);
/* The row called `name`; "auto": the first that opens here. PT_EINPUT: why it can't be had.
 * *ret_passed: why "auto" passed a better one over although the driver of its devices is here;
 * PT_OK: it did not. */
pt_status pt_backend_find(const char *name, const pt_backend_row **ret_row, pt_error *ret_passed,
                          pt_error *err);
/* Makes the device of that local rank the process's own, where the backend called `name` has
 * devices. To be called before MPI_Init, which binds its transports to the device that it finds.
 * Says nothing: what is wrong is told by opening the backend. */
void pt_backend_choose_device(const char *name, int local_rank);

#endif
