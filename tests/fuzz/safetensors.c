/* A file of tensors: opened, every tensor looked up and read, written again, and that one read. */
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"
#include "pipetrain/safetensors.h"

static size_t elements_of(const pt_st_tensor *tensor)
{
    size_t elements = 1;
    for (int d = 0; d < tensor->ndim; d++) {
        FUZZ_PROMISE(tensor->dims[d] >= 0);
        elements *= (size_t)tensor->dims[d];
    }
    return elements;
}

/* Returns how many bytes all tensors hold. */
static size_t read_tensors(const pt_safetensors *file)
{
    size_t bytes = 0;
    for (int i = 0; i < pt_safetensors_count(file); i++) {
        const pt_st_tensor *tensor = pt_safetensors_at(file, i);
        FUZZ_PROMISE(pt_safetensors_find(file, tensor->name) == tensor);
        FUZZ_PROMISE(tensor->ndim >= 0 && tensor->ndim <= PT_SAFETENSORS_DIMS);
        FUZZ_PROMISE(tensor->bytes == elements_of(tensor) * pt_dtype_bytes(tensor->dtype));
        FUZZ_PROMISE((uintptr_t)tensor->data % pt_dtype_bytes(tensor->dtype) == 0);
        void *copy = malloc(tensor->bytes ? tensor->bytes : 1);
        FUZZ_PROMISE(copy);
        memcpy(copy, tensor->data, tensor->bytes);
        free(copy);
        bytes += tensor->bytes;
    }
    return bytes;
}

static void expect_equal(const pt_st_tensor *a, const pt_st_tensor *b)
{
    FUZZ_PROMISE(strcmp(a->name, b->name) == 0 && a->dtype == b->dtype && a->ndim == b->ndim);
    FUZZ_PROMISE(memcmp(a->dims, b->dims, sizeof *a->dims * (size_t)a->ndim) == 0);
    FUZZ_PROMISE(a->bytes == b->bytes && memcmp(a->data, b->data, a->bytes) == 0);
}

static void write_again(const pt_safetensors *file)
{
    int n = pt_safetensors_count(file);
    pt_st_tensor *tensors = calloc((size_t)n + 1, sizeof *tensors);
    const char *path = fuzz_file("again.safetensors", NULL, 0);
    pt_safetensors *again = NULL;
    pt_error err = {0};
    FUZZ_PROMISE(tensors);
    for (int i = 0; i < n; i++)
        tensors[i] = *pt_safetensors_at(file, i);
    FUZZ_PROMISE(pt_safetensors_write(path, tensors, n, NULL, /*n_metadata=*/0, &err) == PT_OK);
    FUZZ_PROMISE(pt_safetensors_open(path, &again, &err) == PT_OK);
    FUZZ_PROMISE(pt_safetensors_count(again) == n);
    for (int i = 0; i < n; i++)
        expect_equal(&tensors[i], pt_safetensors_at(again, i));
    pt_safetensors_close(again);
    free(tensors);
}

bool fuzz_one(const uint8_t *data, size_t bytes)
{
    const char *path = fuzz_file("in.safetensors", data, bytes);
    pt_safetensors *file = NULL;
    pt_error err = {0};
    if (!fuzz_accepts(pt_safetensors_open(path, &file, &err), &err, path)) {
        FUZZ_PROMISE(!file);
        return false;
    }
    FUZZ_PROMISE(read_tensors(file) < bytes);
    const char *format = pt_safetensors_metadata(file, "format");
    FUZZ_PROMISE(!format || strlen(format) < bytes);
    FUZZ_PROMISE(!pt_safetensors_find(file, "a name that no file has"));
    write_again(file);
    pt_safetensors_close(file);
    return true;
}
