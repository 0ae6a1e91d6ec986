/* safetensors: what is written reads back, the same input gives the same bytes, and a write that
 * fails leaves nothing. */
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "pipetrain/text.h"
#include "safetensors_rig.h"
#include "suite.h"

static void round_trip(void **state)
{
    (void)state;
    pt_error err = {0};
    pt_safetensors *file = NULL;
    assert_ok(pt_safetensors_write(path, tensors, N_TENSORS, metadata, N_METADATA, &err), &err);
    assert_ok(pt_safetensors_open(path, &file, &err), &err);
    assert_int_equal(pt_safetensors_count(file), N_TENSORS);
    for (int i = 0; i < N_TENSORS; i++) {
        const pt_st_tensor *tensor = pt_safetensors_find(file, tensors[i].name);
        assert_non_null(tensor);
        assert_int_equal(tensor->dtype, tensors[i].dtype);
        assert_int_equal(tensor->ndim, tensors[i].ndim);
        for (int d = 0; d < tensor->ndim; d++)
            assert_int_equal(tensor->dims[d], tensors[i].dims[d]);
        assert_int_equal(tensor->bytes, tensors[i].bytes);
        if (tensor->bytes)
            assert_memory_equal(tensor->data, tensors[i].data, tensor->bytes);
        assert_int_equal((uintptr_t)tensor->data % pt_dtype_bytes(tensor->dtype), 0);
    }
    assert_string_equal(pt_safetensors_at(file, 0)->name, "conv1.weight");
    assert_string_equal(pt_safetensors_at(file, 1)->name, "pixels");
    assert_string_equal(pt_safetensors_at(file, N_TENSORS - 1)->name, "scalar");
    assert_null(pt_safetensors_find(file, "none"));
    assert_null(pt_safetensors_find(file, "__metadata__"));
    assert_string_equal(pt_safetensors_metadata(file, "format"), "pt");
    assert_string_equal(pt_safetensors_metadata(file, "step"), "12");
    assert_null(pt_safetensors_metadata(file, "none"));
    pt_safetensors_close(file);
    assert_int_equal(count_entries(folder), 1);
}

static void same_input_same_bytes(void **state)
{
    (void)state;
    pt_error err = {0};
    char *once, *twice;
    size_t once_bytes, twice_bytes;
    assert_ok(pt_safetensors_write(path, tensors, N_TENSORS, metadata, N_METADATA, &err), &err);
    assert_ok(pt_text_read_file(path, &once, &once_bytes, &err), &err);
    assert_ok(pt_safetensors_write(path, tensors, N_TENSORS, metadata, N_METADATA, &err), &err);
    assert_ok(pt_text_read_file(path, &twice, &twice_bytes, &err), &err);
    assert_int_equal(once_bytes, twice_bytes);
    assert_memory_equal(once, twice, once_bytes);
    free(once);
    free(twice);
}

/* The bytes themselves, so that reader and writer cannot agree on something else. */
static void exact_bytes(void **state)
{
    (void)state;
    static const char expected[] =
        "\x50\0\0\0\0\0\0\0"
        "{\"__metadata__\":{\"k\":\"v\"},"
        "\"x\":{\"dtype\":\"U8\",\"shape\":[5],\"data_offsets\":[0,5]}}  "
        "\x00\x01\x7F\x80\xFF";
    const pt_st_tensor x = {"x", PT_U8, 1, {5}, pixels, sizeof pixels};
    const pt_st_metadata k = {"k", "v"};
    pt_error err = {0};
    char *text;
    size_t bytes;
    assert_ok(pt_safetensors_write(path, &x, 1, &k, 1, &err), &err);
    assert_ok(pt_text_read_file(path, &text, &bytes, &err), &err);
    assert_int_equal(bytes, sizeof expected - 1);
    assert_memory_equal(text, expected, bytes);
    free(text);
}

static void nothing_at_all(void **state)
{
    (void)state;
    pt_error err = {0};
    pt_safetensors *file = NULL;
    assert_ok(pt_safetensors_write(path, NULL, 0, NULL, 0, &err), &err);
    assert_ok(pt_safetensors_open(path, &file, &err), &err);
    assert_int_equal(pt_safetensors_count(file), 0);
    assert_null(pt_safetensors_metadata(file, "format"));
    pt_safetensors_close(file);
    pt_safetensors_close(NULL);
}

static void new_files_have_the_usual_mode(void **state)
{
    (void)state;
    pt_error err = {0};
    mode_t mask = umask(022);
    unlink(path);
    pt_status status = pt_safetensors_write(path, tensors, 1, NULL, 0, &err);
    umask(mask);
    assert_int_equal(status, PT_OK);
    struct stat info;
    assert_int_equal(stat(path, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0644);
}

static void writer_refuses(void **state)
{
    (void)state;
    pt_error err = {0};
    unlink(path);
    const pt_st_tensor twice[] = {tensors[0], tensors[0]};
    assert_fails(pt_safetensors_write(path, twice, 2, NULL, 0, &err), PT_EINPUT,
                 "\"conv1.weight\" is given twice", &err);
    const pt_st_tensor reserved = {"__metadata__", PT_U8, 1, {5}, pixels, sizeof pixels};
    assert_fails(pt_safetensors_write(path, &reserved, 1, NULL, 0, &err), PT_EINPUT,
                 "cannot be called __metadata__", &err);
    const pt_st_tensor latin = {"caf\xE9", PT_U8, 1, {5}, pixels, sizeof pixels};
    assert_fails(pt_safetensors_write(path, &latin, 1, NULL, 0, &err), PT_EINPUT, "UTF-8", &err);
    const pt_st_metadata latin_value = {"key", "caf\xE9"};
    assert_fails(pt_safetensors_write(path, NULL, 0, &latin_value, 1, &err), PT_EINPUT, "UTF-8",
                 &err);
    const pt_st_tensor short_data = {"x", PT_F32, 1, {5}, pixels, sizeof pixels};
    assert_fails(pt_safetensors_write(path, &short_data, 1, NULL, 0, &err), PT_EINTERNAL,
                 "its shape does not make 5 bytes", &err);
    assert_int_equal(count_entries(folder), 0);
}

static void writer_cannot_write(void **state)
{
    (void)state;
    pt_error err = {0};
    char *missing = pt_text_format("%s/none/a.safetensors", folder);
    assert_fails(pt_safetensors_write(missing, tensors, 1, NULL, 0, &err), PT_EIO,
                 "none/a.safetensors: cannot be created", &err);
    free(missing);
    unlink(path);
    assert_int_equal(mkdir(path, 0755), 0); /* a folder stands where the file should go */
    assert_fails(pt_safetensors_write(path, tensors, 1, NULL, 0, &err), PT_EIO,
                 "cannot be put in place", &err);
    assert_int_equal(count_entries(folder), 1);
    assert_int_equal(rmdir(path), 0);
}

/* A failed write leaves the file of before as it was. */
static void the_old_file_survives(void **state)
{
    (void)state;
    pt_error err = {0};
    pt_safetensors *file = NULL;
    const pt_st_tensor bad[] = {tensors[1], tensors[1]};
    assert_ok(pt_safetensors_write(path, tensors, 1, NULL, 0, &err), &err);
    assert_int_equal(pt_safetensors_write(path, bad, 2, NULL, 0, &err), PT_EINPUT);
    assert_ok(pt_safetensors_open(path, &file, &err), &err);
    assert_non_null(pt_safetensors_find(file, "conv1.weight"));
    pt_safetensors_close(file);
}

/* The disk is full in the middle of the file, here by way of the limit on file sizes. */
static void a_write_that_fails_leaves_no_trace(void **state)
{
    (void)state;
    pt_error err = {0};
    pt_safetensors *file = NULL;
    assert_ok(pt_safetensors_write(path, &tensors[1], 1, NULL, 0, &err), &err);
    struct rlimit usual, tight;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &usual), 0);
    tight = usual;
    tight.rlim_cur = 100; /* bytes: the header fits in part */
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &tight), 0);
    pt_status status = pt_safetensors_write(path, tensors, N_TENSORS, NULL, 0, &err);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &usual), 0);
    signal(SIGXFSZ, handler);
    assert_int_equal(status, PT_EIO);
    assert_non_null(strstr(err.text, "cannot be written"));
    assert_int_equal(count_entries(folder), 1);
    assert_ok(pt_safetensors_open(path, &file, &err), &err);
    assert_int_equal(pt_safetensors_count(file), 1);
    assert_memory_equal(pt_safetensors_at(file, 0)->data, pixels, sizeof pixels);
    pt_safetensors_close(file);
}

/* One may write into such a folder but not read it, so that it cannot be opened to be synced. Root
 * may read everything and acts as somebody else here. */
static void a_folder_may_be_write_only(void **state)
{
    (void)state;
    enum { NOBODY = 65534 };
    pt_error err = {0};
    char *inner = pt_text_format("%s/inner", folder), *file = pt_text_format("%s/a", inner);
    bool is_root = geteuid() == 0;
    assert_int_equal(mkdir(inner, 0700), 0);
    assert_int_equal(chmod(folder, 0711), 0);
    if (is_root) {
        assert_int_equal(chown(inner, NOBODY, NOBODY), 0);
        assert_int_equal(seteuid(NOBODY), 0);
    }
    pt_status status = PT_OK;
    bool reached = chmod(inner, 0300) == 0; /* not where $TMPDIR itself is closed to others */
    if (reached)
        status = pt_safetensors_write(file, tensors, 1, NULL, 0, &err);
    if (is_root)
        assert_int_equal(seteuid(0), 0);
    bool is_there = access(file, F_OK) == 0;
    unlink(file);
    assert_int_equal(rmdir(inner), 0);
    free(file);
    free(inner);
    if (!reached)
        skip();
    assert_ok(status, &err);
    assert_true(is_there);
}

static void dtypes(void **state)
{
    (void)state;
    assert_int_equal(pt_dtype_bytes(PT_F32), sizeof(float));
    assert_int_equal(pt_dtype_bytes(PT_I64), 8);
    assert_int_equal(pt_dtype_bytes(PT_I32), 4);
    assert_int_equal(pt_dtype_bytes(PT_U8), 1);
    assert_string_equal(pt_dtype_name(PT_I64), "I64");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(round_trip),
        cmocka_unit_test(same_input_same_bytes),
        cmocka_unit_test(exact_bytes),
        cmocka_unit_test(nothing_at_all),
        cmocka_unit_test(new_files_have_the_usual_mode),
        cmocka_unit_test(writer_refuses),
        cmocka_unit_test(writer_cannot_write),
        cmocka_unit_test(the_old_file_survives),
        cmocka_unit_test(a_write_that_fails_leaves_no_trace),
        cmocka_unit_test(a_folder_may_be_write_only),
        cmocka_unit_test(dtypes),
    };
    return cmocka_run_group_tests_name("safetensors", tests, begin, end);
}
