/* The names of the precisions. A file of its own: the cuda module wants it without the registry. */
#include "pipetrain/backend.h"

const char *const pt_precision_names[PT_PRECISIONS + 1] = {
    [PT_FP32] = "fp32",
    [PT_TF32] = "tf32",
    [PT_BF16] = "bf16",
};
