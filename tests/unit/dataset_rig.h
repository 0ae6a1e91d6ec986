/* A folder of files to read, good ones and broken ones, for tests of datasets. */
#ifndef PIPETRAIN_TESTS_DATASET_RIG_H
#define PIPETRAIN_TESTS_DATASET_RIG_H

#include <stdbool.h>
#include <sys/types.h>

#include "folder.h"
#include "suite.h"

#include "pipetrain/dataset.h"

extern pt_error error; /* of whatever is called */

void put(const char *name, const void *bytes, size_t n);
void put_gz(const char *name, const void *bytes, size_t n);
/* Cuts a file to `bytes` bytes. */
void cut(const char *name, off_t bytes);
off_t size_of(const char *name);
/* Changes one byte of a file. */
void poke(const char *name, off_t at, uint8_t value);
/* In the folder, with ten classes. */
pt_dataset_spec spec_of(const char *name, int64_t channels, int64_t height, int64_t width);

enum {
    IDX_N = 5,
    IDX_H = 2,
    IDX_W = 3,
    IDX_E = IDX_H * IDX_W,
    IMAGES_HEAD = 16,
    LABELS_HEAD = 8,
    IMAGES_SIZE = IMAGES_HEAD + IDX_N * IDX_E,
    LABELS_SIZE = LABELS_HEAD + IDX_N
};

#define IMAGES "train-images-idx3-ubyte"
#define LABELS "train-labels-idx1-ubyte"

/* Pixel e of image i is 10 i + e, its label 9 - i. */
void make_idx(uint8_t images[IMAGES_SIZE], uint8_t labels[LABELS_SIZE]);
void put_idx(void);

/* After each test the folder is empty. */
#define TEST(name) cmocka_unit_test_teardown(name, empty_folder)

#endif
