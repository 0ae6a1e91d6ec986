/* A pair of IDX files, plain or compressed: the bytes are those of the images and, right behind
 * them, those of the labels. The labels begin where the last magic number of theirs, or of gzip,
 * stands. */
#include <string.h>

#include "fuzz.h"

enum { CLASSES = 3, MAGIC = 4 };

static const pt_shape SHAPE = {3, {1, 2, 3}};

static size_t begin_of_labels(const uint8_t *data, size_t bytes)
{
    static const uint8_t plain[MAGIC] = {0, 0, 8, 1}, gzip[MAGIC] = {0x1f, 0x8b, 8, 0};
    for (size_t at = bytes < MAGIC ? 0 : bytes - MAGIC; at > 0; at--)
        if (memcmp(data + at, plain, MAGIC) == 0 || memcmp(data + at, gzip, MAGIC) == 0)
            return at;
    return bytes;
}

bool fuzz_one(const uint8_t *data, size_t bytes)
{
    size_t images = begin_of_labels(data, bytes);
    const char *path = fuzz_file("t10k-images-idx3-ubyte", data, images);
    fuzz_file("t10k-labels-idx1-ubyte", data + images, bytes - images);
    pt_dataset_spec spec = {.name = "idx",
                            .path = fuzz_folder(),
                            .split = PT_SPLIT_TEST,
                            .shape = SHAPE,
                            .outputs = CLASSES};
    bool accepted = fuzz_dataset(spec);

    pt_dataset *inputs = NULL;
    pt_error err = {0};
    bool predicts = fuzz_accepts(pt_dataset_open_inputs(path, &SHAPE, /*want=*/true, &inputs, &err),
                                 &err, path);
    FUZZ_PROMISE(predicts || (!inputs && !accepted));
    pt_dataset_close(inputs);
    return accepted;
}
