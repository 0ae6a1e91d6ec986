/* Weights on disk: one safetensors file a layer, PyTorch's names and shapes, nothing about the cut,
 * so that any number of ranks reads what any other number wrote.
 *
 *   DIR/layer-000-conv1.safetensors      conv1.weight (6,1,5,5)  conv1.bias (6)
 *   DIR/layer-004-bn1.safetensors        bn1.weight  bn1.bias  bn1.running_mean  bn1.running_var */
#ifndef PIPETRAIN_WEIGHTS_IO_H
#define PIPETRAIN_WEIGHTS_IO_H

#include <stdbool.h>

#include "pipetrain/flat.h"
#include "pipetrain/graph.h"
#include "pipetrain/partition.h"
#include "pipetrain/safetensors.h"
#include "pipetrain/status.h"
#include "pipetrain/weights.h"

/* Random initial values (and 0/1 statistics). */
pt_status pt_weights_randomise(pt_weights *weights, const pt_flat *flat, const pt_graph *graph,
                               pt_init_kind kind, uint64_t seed, pt_error *err);

/* Every rank writes the files of its own layers into an existing directory. */
pt_status pt_weights_save(pt_weights *weights, const pt_flat *flat, const pt_graph *graph,
                          const char *dir, pt_error *err);
/* Makes the directory and its parents; refuses one that holds weights of another model. */
pt_status pt_weights_make_dir(const char *dir, const pt_graph *graph, pt_error *err);

/* The file of a layer in such a directory; free() it. NULL when memory ran out. */
char *pt_weights_file_name(const pt_graph *graph, int node);
/* PT_EINPUT names `path` and both shapes where a stored tensor is not what the model wants. */
pt_status pt_weights_check_shape(const pt_st_tensor *got, const pt_flat_tensor *want,
                                 const char *path, pt_error *err);

/* What a load found of the stage's own tensors. free(missing_names). */
typedef struct pt_load_report {
    int loaded, missing;
    char *missing_names; /* "conv1.weight, conv1.bias", or NULL */
} pt_load_report;

/* Reads the stage's own tensors from a file or a directory. `all`: a missing tensor is PT_EINPUT
 * (--weights); otherwise it keeps its value and is reported (--init). A tensor of another shape is
 * PT_EINPUT. */
pt_status pt_weights_load(pt_weights *weights, const pt_flat *flat, const pt_graph *graph,
                          const char *path, bool all, pt_load_report *ret_report, pt_error *err);

#endif
