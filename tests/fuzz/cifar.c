/* CIFAR's records: the bytes are the one file of CIFAR-10's test set and of either set of
 * CIFAR-100, and, cut into five, the files of CIFAR-10's training set. */
#include <stdio.h>

#include "fuzz.h"

enum { FILES = 5, RECORD = 1 + 3072 };

static const pt_shape SHAPE = {3, {3, 32, 32}};

/* Whole records to each of the files, and what is left over to the last. */
static void write_batches(const uint8_t *data, size_t bytes)
{
    size_t each = bytes / RECORD / FILES * RECORD;
    for (int f = 0; f < FILES; f++) {
        char name[32];
        snprintf(name, sizeof name, "data_batch_%d.bin", f + 1);
        fuzz_file(name, data + (size_t)f * each, f + 1 < FILES ? each : bytes - (FILES - 1) * each);
    }
}

bool fuzz_one(const uint8_t *data, size_t bytes)
{
    pt_dataset_spec spec = {
        .name = "cifar10", .path = fuzz_folder(), .shape = SHAPE, .outputs = 10};
    write_batches(data, bytes);
    bool train = fuzz_dataset(spec);
    fuzz_file("test_batch.bin", data, bytes);
    spec.split = PT_SPLIT_TEST;
    bool ten = fuzz_dataset(spec);
    FUZZ_PROMISE(!train || ten); /* the same records */
    fuzz_file("test.bin", data, bytes);
    spec.name = "cifar100";
    spec.outputs = 100;
    return fuzz_dataset(spec) || ten;
}
