/* A file to write and to read, alone in the folder of the test, and tensors for it. */
#ifndef PIPETRAIN_TESTS_SAFETENSORS_RIG_H
#define PIPETRAIN_TESTS_SAFETENSORS_RIG_H

#include <stdio.h>
#include <unistd.h>

#include "folder.h"
#include "pipetrain/safetensors.h"

static char path[300];

static inline int begin(void **state)
{
    int failed = make_folder(state);
    snprintf(path, sizeof path, "%s/a.safetensors", folder);
    return failed;
}

/* Fails when a temporary file was left behind. */
static inline int end(void **state)
{
    unlink(path);
    int left = count_entries(folder);
    return remove_folder(state) || left ? -1 : 0;
}

static const float weights[6] = {1.5f, -2, 3, 4, 5, -0.0f};
static const int64_t steps[2] = {INT64_MIN, 42};
static const int32_t labels[3] = {-1, 0, 7};
static const uint8_t pixels[5] = {0, 1, 127, 128, 255};
static const float scalar[1] = {0.25f};

/* Odd sizes in the middle, so that what follows lies at crooked offsets. */
static const pt_st_tensor tensors[] = {
    {"conv1.weight", PT_F32, 3, {1, 2, 3}, weights, sizeof weights},
    {"pixels", PT_U8, 1, {5}, pixels, sizeof pixels},
    {"steps", PT_I64, 1, {2}, steps, sizeof steps},
    {"empty", PT_F32, 2, {0, 7}, NULL, 0},
    {"labels \"quoted\" \xC3\xA9", PT_I32, 1, {3}, labels, sizeof labels},
    {"scalar", PT_F32, 0, {0}, scalar, sizeof scalar},
};

static const pt_st_metadata metadata[] = {{"format", "pt"}, {"step", "12"}};

enum { N_TENSORS = sizeof tensors / sizeof *tensors, N_METADATA = 2 };

#endif
