/* One stage prepared for one number of samples: kernels, a memory plan, and the order of calls.
 *
 *   stash    what the backward needs again, one block per micro-batch in flight
 *   scratch  everything else, one block per stage: forwards and backwards never overlap in time
 *   held     where weight gradients wait while other micro-batches compute: the gradients that they
 *            will read, one block per micro-batch that waits; where none ever waits, in scratch
 *
 * Values of layers that are recomputed are not in the stash: backward_input begins by running these
 * layers again, with the weights that it is given, from what came over the cut and from the values
 * of other layers, which are kept for that. What was computed again lies in scratch, or with the
 * gradients that are held. Dropout repeats its masks, running statistics stay as they are. The
 * model's predictions, which the loss reads, are always kept (program_recompute.c).
 *
 * Batch-norm with the add and relu behind it becomes one op where the backend has that op and no
 * value between them is wanted elsewhere: fewer passes over memory, the same bits (program_fuse.c).
 *
 * In-place and aliasing are decided here and nowhere else. A value runs in place only when this
 * stage makes it, one op alone reads it, it does not cross a cut, and no backward wants the old
 * contents. Gradients of a value that several ops read are added from the last reader to the first,
 * whichever stages they are on: the same sums in the same order at any number of stages. */
#ifndef PIPETRAIN_PROGRAM_H
#define PIPETRAIN_PROGRAM_H

#include <stddef.h>
#include <stdint.h>

#include "pipetrain/backend.h"
#include "pipetrain/flat.h"
#include "pipetrain/graph.h"
#include "pipetrain/status.h"

typedef struct pt_program pt_program;

/* Everything one call works on. */
typedef struct pt_program_run {
    void *dev_stash;         /* pt_program_stash_bytes */
    void *dev_scratch;       /* pt_program_scratch_bytes */
    void *dev_held;          /* pt_program_held_bytes; from the first gradient on */
    const float *dev_params; /* flat */
    uint64_t params_version; /* names their contents, 0: unknown */
    float *dev_gradient;     /* flat */
    bool accumulate;         /* add to the gradient instead of overwriting it */
    float *dev_state;        /* flat */
    uint64_t seed;
    uint32_t epoch;
    const uint32_t *dev_sample;
    /* Called after every op, so that messages move while the stage computes. */
    pt_status (*between_ops)(void *context, pt_error *err);
    void *context;
} pt_program_run;

/* Plans the whole graph; nothing runs until pt_program_build. The pointers outlive the program.
 * `holds`: other runs may come between backward_input and backward_weight. `recompute`, one entry
 * per node of the graph, or NULL for none: layers whose values training does not keep. */
pt_status pt_program_new(pt_backend *backend, const pt_graph *graph, const pt_stage_spec *spec,
                         const pt_flat *flat, int samples, pt_mode mode, bool holds,
                         const bool *recompute, pt_program **ret_program, pt_error *err);
/* Builds the kernels of the stage's own layers. */
pt_status pt_program_build(pt_program *program, pt_error *err);
void pt_program_free(pt_program *program); /* NULL is fine */

int pt_program_samples(const pt_program *program);
pt_mode pt_program_mode(const pt_program *program);
const pt_stage_spec *pt_program_spec(const pt_program *program);
size_t pt_program_stash_bytes(const pt_program *program);
size_t pt_program_scratch_bytes(const pt_program *program);
size_t pt_program_held_bytes(const pt_program *program); /* 0 without `holds` */
int pt_program_ops_again(const pt_program *program);     /* that run again in a backward */
/* Of the kernels of the stage's own layers: what all of them take for themselves, and the most that
 * one of them needs of what all kernels of the backend share. */
size_t pt_program_private_bytes(const pt_program *program);
size_t pt_program_shared_bytes(const pt_program *program);

/* Length and layout of a value, and its address during a run. Values that the stage does not hold
 * have no address. */
const pt_layout *pt_program_layout(const pt_program *program, int value);
void *pt_program_value(const pt_program *program, const pt_program_run *run, int value);
/* The gradient of a value: where one that arrives belongs before backward_input, where one that
 * leaves is found after it. NULL when the value has none (the model's input). */
void *pt_program_gradient_in(const pt_program *program, const pt_program_run *run, int value);
void *pt_program_gradient_out(const pt_program *program, const pt_program_run *run, int value);

pt_status pt_program_forward(pt_program *program, const pt_program_run *run, pt_error *err);
pt_status pt_program_backward_input(pt_program *program, const pt_program_run *run, pt_error *err);
pt_status pt_program_backward_weight(pt_program *program, const pt_program_run *run, pt_error *err);

#endif
