/* The dataset `arrays`: a safetensors file whose x and y must fit a model, once with classes and
 * once with vectors for answers; and as inputs to predict from. */
#include "fuzz.h"

enum { CLASSES = 3, FEATURES = 2 };

static const pt_shape SHAPE = {3, {1, 2, 2}};

bool fuzz_one(const uint8_t *data, size_t bytes)
{
    const char *path = fuzz_file("in.safetensors", data, bytes);
    pt_dataset_spec spec = {.name = "arrays", .path = path, .shape = SHAPE, .outputs = CLASSES};
    bool classes = fuzz_dataset(spec);
    spec.outputs = FEATURES;
    spec.targets = true;
    bool vectors = fuzz_dataset(spec);
    FUZZ_PROMISE(!classes || !vectors);

    pt_dataset *inputs = NULL;
    pt_error err = {0};
    bool predicts = fuzz_accepts(pt_dataset_open_inputs(path, &SHAPE, /*want=*/true, &inputs, &err),
                                 &err, path);
    FUZZ_PROMISE(predicts || (!inputs && !classes && !vectors));
    pt_dataset_close(inputs);
    return classes || vectors;
}
