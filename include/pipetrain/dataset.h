/* Datasets: rows of a table. A dataset is samples of one shape with one answer each: a class
 * (cross-entropy) or a vector (mse). Files are hostile input; lengths are checked before use.
 *
 *  fashion-mnist  IDX files under --data, by default where Debian's package puts them
 *  mnist, idx     {train,t10k}-{images-idx3,labels-idx1}-ubyte, with or without .gz
 *  cifar10        data_batch_{1..5}.bin, test_batch.bin (label, then 3x32x32 bytes)
 *  cifar100       train.bin, test.bin (coarse label, fine label, bytes); the fine label is learnt
 *  arrays         --data FILE.safetensors, or DIR with train.safetensors and test.safetensors:
 *                 x (N, shape…) f32 or u8; y (N) i64/i32/u8 classes, or (N, F) f32 targets.
 *                 A single file serves as training and as test set.
 *  synthetic      seeded: class-dependent pattern plus noise around 1/2, any shape and size,
 *                 classes or targets, nothing read. A sample is a pure function of seed, split
 *                 and index. */
#ifndef PIPETRAIN_DATASET_H
#define PIPETRAIN_DATASET_H

#include <stdbool.h>
#include <stdint.h>

#include "pipetrain/partition.h"
#include "pipetrain/shape.h"
#include "pipetrain/status.h"

typedef enum pt_split { PT_SPLIT_TRAIN, PT_SPLIT_TEST } pt_split;

typedef struct pt_dataset_spec {
    const char *name; /* a row of the table */
    const char *path; /* --data; NULL or "": the row's default */
    pt_split split;
    pt_shape shape;   /* what the model expects of a sample; checked (1x28x28 fits (784) too:
                         equal numbers of elements are enough, row-major) */
    int64_t outputs;  /* model's outputs: classes, or length of the target */
    bool targets;     /* answers are vectors (mse) */
    uint64_t seed;    /* synthetic */
    int64_t samples;  /* synthetic: how many, 0 = 4096; others: 0 = all, else only the first ones */
    bool want_inputs; /* the first stage reads inputs … */
    bool want_answers; /* … and the last one answers; others read only the count */
} pt_dataset_spec;

typedef struct pt_dataset pt_dataset;

const char *const *pt_dataset_names(void); /* ended by NULL */

/* Headers and shapes are checked whatever is wanted, so that every rank refuses the same file; data
 * (truncated, label out of range) only where it is read.
 * PT_EINPUT: unknown name, missing file (with the package or option that would bring it), truncated
 * or inconsistent data, wrong shape, label out of range (with its index). */
pt_status pt_dataset_open(const pt_dataset_spec *spec, pt_dataset **ret_dataset, pt_error *err);
/* Inputs without answers, for prediction: a safetensors file with x, or an IDX file of images,
 * plain or .gz. `want`: this rank reads them; otherwise only the count. */
pt_status pt_dataset_open_inputs(const char *file, const pt_shape *shape, bool want,
                                 pt_dataset **ret_dataset, pt_error *err);
void pt_dataset_close(pt_dataset *dataset); /* NULL is fine */

int64_t pt_dataset_count(const pt_dataset *dataset);
bool pt_dataset_is_bytes(const pt_dataset *dataset); /* inputs are 0 … 255 */

/* One input, raw (not normalised), as floats: dst[elements of shape]. Needs want_inputs. */
void pt_dataset_input(const pt_dataset *dataset, int64_t i, float *dst);
/* Needs want_answers. */
int32_t pt_dataset_label(const pt_dataset *dataset, int64_t i);
const float *pt_dataset_target(const pt_dataset *dataset, int64_t i); /* (outputs) */

#endif
