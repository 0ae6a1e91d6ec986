/* The files of this rank's layers, side by side in memory as they will lie on disk: a checkpoint is
 * a copy of the tensors into them, and whatever writes them needs to know nothing else.
 *
 *   ┌──────────────────────────────────────────┬───────────────────────────┬─
 *   │ head │ conv1.weight │ conv1.bias │ …      │ head │ conv2.weight │ …   │
 *   └──────────────────────────────────────────┴───────────────────────────┴─
 *     layer-000-conv1.safetensors                layer-003-conv2.safetensors
 *
 * Weights and statistics have PyTorch's names; what the optimizer and the rules remember of a
 * weight is called conv1.weight#exp_avg. Private to src/run. */
#ifndef PIPETRAIN_RUN_CHECKPOINT_IMAGE_H
#define PIPETRAIN_RUN_CHECKPOINT_IMAGE_H

#include "pipetrain/run.h"

typedef struct pt_image pt_image;

/* A file of it. */
typedef struct pt_image_file {
    int node;
    const char *name; /* in the step's folder */
    const void *data;
    size_t bytes;
} pt_image_file;

/* Plans it; the weights need not be there. */
pt_status pt_image_new(const pt_run *run, pt_image **ret_image, pt_error *err);
void pt_image_free(pt_image *image); /* NULL is fine */

size_t pt_image_bytes(const pt_image *image);
int pt_image_count(const pt_image *image);
pt_image_file pt_image_at(const pt_image *image, int i);

/* Takes the memory: the backend's own where it computes in host memory, and so counted. */
pt_status pt_image_allocate(pt_image *image, pt_error *err);
/* Copies all tensors as they are now, where no micro-batch is under way. */
pt_status pt_image_take(pt_image *image, pt_error *err);

/* Gives this rank's weights what the files of a folder hold, `step` updates done. PT_EINPUT: a
 * tensor is missing or has another shape. */
pt_status pt_image_load(const pt_image *image, const char *folder, int64_t step, pt_error *err);

#endif
