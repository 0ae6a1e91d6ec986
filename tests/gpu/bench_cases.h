/* The launches that bench_kernels times: what each does to the buffers of a rig, and how many bytes
 * it has to move through the device's memory. */
#ifndef PIPETRAIN_BENCH_CASES_H
#define PIPETRAIN_BENCH_CASES_H

#include "kernels/launch.h"

enum { RIG_VALUES = 5 };

/* Buffers for one type of value. Flat buffers are fp32 and have the length of a value; they lie in
 * the same memory. */
typedef struct rig {
    cudaStream_t stream;
    pt_cu_type type;
    int64_t samples, side, channels, classes; /* images are side × side */
    void *value[RIG_VALUES];                  /* values(rig) elements of fp32 each */
    float *per_channel[6];                    /* 2 · channels each */
    int32_t *which;                           /* values(rig) */
    int32_t *label;                           /* loss_samples(rig) */
    uint32_t *sample;                         /* samples */
    void *partials;                           /* partials_bytes(rig) */
    void *result;                             /* a pt_loss_result or a double */
} rig;

int64_t rig_values(const rig *r);       /* samples · side² · channels */
int64_t rig_loss_samples(const rig *r); /* as many as fit into a value */
size_t rig_partials_bytes(const rig *r);

/* What limits a kernel on every device of today: moving its bytes, or its arithmetic. */
typedef enum rig_bound { BOUND_MEMORY, BOUND_ARITHMETIC } rig_bound;

typedef struct rig_case {
    const char *name;
    rig_bound bound;
    bool flat; /* fp32 only, whatever the type of values */
    /* Puts one launch on the stream; *ret_bytes are those that it must read and write. What it
     * reads in several passes over a block too large for the caches counts once a pass. */
    cudaError_t (*launch)(const rig *r, double *ret_bytes);
} rig_case;

extern const rig_case rig_cases[];
extern const int rig_n_cases;

#endif
