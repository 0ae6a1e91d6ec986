/* Partition files: one YAML file says what the model is, how it is cut and how it is trained.
 *
 *   name: tiny
 *   input:  {shape: [1, 28, 28], mean: [0.2860], std: [0.3530]}
 *   blocks:                                  # optional: named lists of layers with parameters
 *     basic:
 *       parameters: [out, stride, project]     # written $out, $stride … inside
 *       layers:
 *         - {name: conv1, kind: conv2d, features: $out, kernel: 3, stride: $stride, padding: 1}
 *         - {name: skip, kind: conv2d, features: $out, kernel: 1, stride: $stride, inputs: ["@"],
 *            when: $project}                   # off: left out; its name then means its input
 *         - {name: sum, kind: add, inputs: [conv1, skip]}  # "@" (quoted) is the block's own input
 *   layers:
 *     - {name: conv, kind: conv2d, features: 16, kernel: 3}   # input: the layer before
 *     - {name: g.0, block: basic, out: 32, stride: 2, project: on} # becomes g.0.conv1, g.0.skip …
 *     - {name: "h.{i}", block: basic, repeat: 3, out: 32, stride: 1, project: off}
 *                                              # {i} = 0, 1, 2; each takes what the last one gives
 *     - {name: cat, kind: concat, inputs: [g.0, h.2]}       # "input" is the model's
 *     - {name: pool, kind: global-avg-pool}
 *     - {name: fc, kind: linear, features: 10}
 *   loss:   {kind: cross-entropy, smoothing: 0.1}
 *   init:   pytorch                          # pytorch (default) or he
 *   cuts:                                    # for each number of stages: where stages 2, 3 … begin
 *     2: [h.1]                               # a layer, or a block instance: its first layer
 *   train:  {dataset: fashion-mnist, batch: 128, lr: 0.05}       # rows of the option table
 *
 * Unknown keys, wrong types, values out of range, shapes that do not meet, cuts that drop, double
 * or reorder layers are PT_EINPUT with "file:line:column: what; what to write instead". */
#ifndef PIPETRAIN_PARTITION_H
#define PIPETRAIN_PARTITION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "pipetrain/graph.h"
#include "pipetrain/status.h"

typedef enum pt_init_kind {
    PT_INIT_PYTORCH, /* what torch.nn layers do: uniform ±1/sqrt(fan_in) for weight and bias */
    PT_INIT_HE /* conv weights normal, deviation sqrt(2/fan_out) (He et al., ICCV 2015, as in the
                  wide-resnet code); linear weights as PyTorch; biases 0 */
} pt_init_kind;

enum { PT_MAX_CHANNELS = 64 };

/* y = (x/255 - mean)/std for bytes, (x - mean)/std for floats. One entry serves all channels. */
typedef struct pt_normalisation {
    int n;
    double mean[PT_MAX_CHANNELS], std[PT_MAX_CHANNELS];
} pt_normalisation;

typedef struct pt_cut {
    int stages;
    int *begins; /* stages entries, begins[0] = 0 */
    int line, column;
} pt_cut;

typedef struct pt_setting {
    char *key, *value; /* a scalar's text, a list's items joined by "," */
    int line, column;
} pt_setting;

typedef struct pt_partition {
    char *file; /* for messages */
    char *name;
    pt_graph graph;
    pt_normalisation normalisation;
    pt_init_kind init;
    pt_cut *cuts; /* the first is always that of one stage */
    int n_cuts;
    pt_setting *settings; /* the `train:` section, in file order */
    int n_settings;
} pt_partition;

/* Parses text[bytes]; `file` is only a name. Every rank calls it on the same broadcast text. */
pt_status pt_partition_parse(const char *file, const char *text, size_t bytes,
                             pt_partition **ret_partition, pt_error *err);
void pt_partition_free(pt_partition *partition); /* NULL is fine */

/* The cut written for `stages` stages, or NULL. One stage always has the cut {0}. */
const pt_cut *pt_partition_cut(const pt_partition *partition, int stages);

/* Rewrites text with the cut for `stages` added or replaced under `cuts:` (--plan-out); comments
 * and layout of the rest stay. PT_EINPUT where the file's layout leaves no place for it (all of it
 * in one pair of braces). free() the result. */
pt_status pt_partition_with_cut(const pt_partition *partition, const char *text, const int *begins,
                                int stages, char **ret_text, pt_error *err);

#endif
