/* What the readers in this folder fill in. One struct serves them all: inputs are bytes, or floats,
 * or made on demand; answers are classes or vectors. */
#ifndef PIPETRAIN_DATA_DATASET_INTERNAL_H
#define PIPETRAIN_DATA_DATASET_INTERNAL_H

#include <stdbool.h>
#include <stdint.h>

#include "pipetrain/dataset.h"
#include "pipetrain/safetensors.h"

typedef struct pt_synthetic pt_synthetic;

struct pt_dataset {
    int64_t count;    /* samples */
    int64_t elements; /* of one input */
    int64_t outputs;  /* of one target */
    bool is_bytes;
    const uint8_t *bytes;    /* (count, elements); in `owned` or in `file` */
    const float *floats;     /* (count, elements); inside `file` */
    void *owned;             /* memory behind `bytes`, or NULL */
    int32_t *labels;         /* (count) */
    float *targets;          /* (count, outputs) */
    pt_safetensors *file;    /* arrays */
    pt_synthetic *synthetic; /* makes inputs and targets on demand */
};

/* A kind of dataset. open() gets a dataset of zeros with `elements` and `outputs` set, and fills in
 * the rest; the caller closes it when open() fails. */
typedef struct pt_dataset_row {
    const char *name;
    const char *path;   /* default of --data, or NULL */
    const char *advice; /* what brings a missing file */
    pt_status (*open)(const pt_dataset_spec *spec, const struct pt_dataset_row *row,
                      const char *path, pt_dataset *dataset, pt_error *err);
} pt_dataset_row;

pt_status pt_idx_open(const pt_dataset_spec *spec, const pt_dataset_row *row, const char *path,
                      pt_dataset *dataset, pt_error *err);
pt_status pt_cifar10_open(const pt_dataset_spec *spec, const pt_dataset_row *row, const char *path,
                          pt_dataset *dataset, pt_error *err);
pt_status pt_cifar100_open(const pt_dataset_spec *spec, const pt_dataset_row *row, const char *path,
                           pt_dataset *dataset, pt_error *err);
pt_status pt_arrays_open(const pt_dataset_spec *spec, const pt_dataset_row *row, const char *path,
                         pt_dataset *dataset, pt_error *err);
pt_status pt_synthetic_open(const pt_dataset_spec *spec, const pt_dataset_row *row,
                            const char *path, pt_dataset *dataset, pt_error *err);

/* One file of inputs without answers. */
pt_status pt_idx_open_inputs(const pt_dataset_spec *spec, const char *file, pt_dataset *dataset,
                             pt_error *err);
pt_status pt_arrays_open_inputs(const pt_dataset_spec *spec, const char *file, pt_dataset *dataset,
                                pt_error *err);

void pt_synthetic_free(pt_synthetic *synthetic); /* NULL is fine */
/* dst[elements]; `label` is the class that the sample belongs to. */
void pt_synthetic_input(const pt_synthetic *synthetic, int64_t i, int32_t label, float *dst);
const float *pt_synthetic_target(const pt_synthetic *synthetic, int32_t label);

/* ---- shared by the readers ------------------------------------------------------------------ */

/* How many of `total` samples spec->samples lets through; sets dataset->count. PT_EINPUT when there
 * are none, or more than a sampler can number (32 bits). `file` is for the message, as below. */
pt_status pt_dataset_set_count(pt_dataset *dataset, const pt_dataset_spec *spec, const char *file,
                               int64_t total, pt_error *err);

/* Refuses a file whose samples do not have as many elements as the model's input. `layout` is how
 * the file's sample is written in the message, such as "28x28". */
pt_status pt_dataset_check_elements(const pt_dataset_spec *spec, const char *file, int64_t elements,
                                    const char *layout, pt_error *err);

/* Refuses mse on a dataset that holds classes. */
pt_status pt_dataset_check_classes(const pt_dataset_spec *spec, pt_error *err);

/* Memory for count x elements bytes at dataset->owned and dataset->bytes, if inputs are wanted. */
pt_status pt_dataset_store_bytes(pt_dataset *dataset, const pt_dataset_spec *spec, pt_error *err);
/* Memory for count labels, if answers are wanted. */
pt_status pt_dataset_store_labels(pt_dataset *dataset, const pt_dataset_spec *spec, pt_error *err);

/* Sets labels[i] after a check against the model's outputs. */
pt_status pt_dataset_set_label(pt_dataset *dataset, const char *file, int64_t i, int64_t label,
                               pt_error *err);

#endif
