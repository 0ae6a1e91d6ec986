/* safetensors: what is written reads back, the same input gives the same bytes, and a hostile file
 * is refused with a message that says why. */
#include "pipetrain/safetensors.h"

#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "folder.h"
#include "pipetrain/text.h"
#include "suite.h"

static char path[300];

static int begin(void **state)
{
    int failed = make_folder(state);
    snprintf(path, sizeof path, "%s/a.safetensors", folder);
    return failed;
}

/* Fails when a temporary file was left behind. */
static int end(void **state)
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

/* Writes a file by hand: a header that claims `claimed` bytes, and `data_bytes` counted bytes. */
static void write_raw(const char *header, size_t header_bytes, uint64_t claimed, size_t data_bytes)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    fwrite(&claimed, 1, sizeof claimed, file);
    fwrite(header, 1, header_bytes, file);
    for (size_t i = 0; i < data_bytes; i++)
        fputc((int)i, file);
    assert_int_equal(fclose(file), 0);
}

#define T(name, dtype, shape, offsets)                                                             \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" offsets "}"

static void hostile_headers(void **state)
{
    (void)state;
    static const struct {
        const char *header;
        size_t data_bytes;
        const char *words;
    } rows[] = {
        {"", 0, "does not begin with {"},
        {"[]", 0, "does not begin with {"},
        {" {}", 0, "does not begin with {"},
        {"{", 0, "the header is not right"},
        {"{}x", 0, "the header is not right"},
        {"{\"a\":}", 0, "the header is not right"},
        {"{\"\xFF\":1}", 0, "the header is not right"},
        {"{" T("a", "U8", "[1]", "[0,1]") "," T("a", "U8", "[1]", "[1,2]") "}", 2, "duplicate"},
        {"{\"a\":3}", 0, "tensor \"a\": is not an object"},
        {"{\"a\":null}", 0, "tensor \"a\": is not an object"},
        {"{\"a\":{}}", 0, "\"dtype\" is missing"},
        {"{\"a\":{\"dtype\":7}}", 0, "\"dtype\" is missing or not a text"},
        {"{" T("a", "BF16", "[1]", "[0,2]") "}", 2, "dtype \"BF16\" is not supported"},
        {"{" T("a", "f32", "[1]", "[0,4]") "}", 4, "dtype \"f32\" is not supported"},
        {"{\"a\":{\"dtype\":\"U8\",\"data_offsets\":[0,1]}}", 1, "\"shape\" is missing"},
        {"{" T("a", "U8", "4", "[0,4]") "}", 4, "\"shape\" is missing or not a list"},
        {"{" T("a", "U8", "[-1]", "[0,1]") "}", 1, "not a size"},
        {"{" T("a", "U8", "[1.0]", "[0,1]") "}", 1, "not a size"},
        {"{" T("a", "U8", "[\"1\"]", "[0,1]") "}", 1, "not a size"},
        {"{" T("a", "U8", "[99999999999999999999]", "[0,1]") "}", 1, "the header is not right"},
        {"{" T("a", "U8", "[1,1,1,1,1,1,1,1,1]", "[0,1]") "}", 1, "9 dimensions, at most 8"},
        {"{" T("a", "U8", "[4294967296,4294967296]", "[0,0]") "}", 0, "more bytes than"},
        {"{" T("a", "I64", "[2305843009213693952]", "[0,0]") "}", 0, "more bytes than"},
        {"{" T("a", "F32", "[2]", "[0,4]") "}", 4, "its shape makes 8 bytes, its offsets 4"},
        {"{" T("a", "F32", "[]", "[0,0]") "}", 0, "its shape makes 4 bytes, its offsets 0"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1]}}", 1, "\"data_offsets\" is missing"},
        {"{" T("a", "U8", "[1]", "[0]") "}", 1, "\"data_offsets\" is missing or not [begin, end]"},
        {"{" T("a", "U8", "[1]", "[0,1,2]") "}", 1, "\"data_offsets\""},
        {"{" T("a", "U8", "[1]", "[0,true]") "}", 1, "\"data_offsets\""},
        {"{" T("a", "U8", "[1]", "[-1,0]") "}", 1, "\"data_offsets\""},
        {"{" T("a", "U8", "[1]", "[1,0]") "}", 1, "end before they begin"},
        {"{" T("a", "U8", "[5]", "[0,5]") "}", 4, "the file holds 4: it is truncated"},
        {"{" T("a", "U8", "[1]", "[9223372036854775806,9223372036854775807]") "}", 4, "truncated"},
        {"{" T("a", "U8", "[2]", "[0,2]") "," T("b", "U8", "[2]", "[1,3]") "}", 3, "overlap"},
        {"{" T("a", "U8", "[2]", "[0,2]") "," T("b", "U8", "[2]", "[0,2]") "}", 2, "overlap"},
        {"{" T("a", "U8", "[3]", "[0,3]") "," T("b", "U8", "[0]", "[1,1]") "}", 3, "overlap"},
        {"{" T("a", "U8", "[1]", "[0,1]") "," T("b", "U8", "[1]", "[2,3]") "}", 3, "a hole"},
        {"{" T("a", "U8", "[1]", "[1,2]") "}", 2, "a hole"},
        {"{" T("a", "U8", "[1]", "[0,1]") "}", 3, "2 bytes stand after the last tensor"},
        {"{}", 1, "1 bytes stand after the last tensor"},
        {"{\"__metadata__\":[]}", 0, "__metadata__ is not an object"},
        {"{\"__metadata__\":{\"k\":1}}", 0, "\"k\" is not a text"},
        {"{\"a\\n\\u001b[31mb\":3}", 0, "tensor \"a??[31mb\""}, /* no escapes to the terminal */
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        pt_error err = {0};
        pt_safetensors *file = NULL;
        size_t bytes = strlen(rows[i].header);
        write_raw(rows[i].header, bytes, bytes, rows[i].data_bytes);
        if (pt_safetensors_open(path, &file, &err) == PT_OK)
            fail_msg("accepted: %s", rows[i].header);
        assert_int_equal(err.code, PT_EINPUT);
        if (!strstr(err.text, rows[i].words) || strncmp(err.text, path, strlen(path)) != 0)
            fail_msg("%s: \"%s\" lacks \"%s\"", rows[i].header, err.text, rows[i].words);
        assert_null(file);
    }
}

static void hostile_header_sizes(void **state)
{
    (void)state;
    static const struct {
        uint64_t claimed;
        const char *words;
    } rows[] = {
        {3, "is truncated: a header of 3 bytes is announced, 2 are left"},
        {100000000, "is truncated"},
        {100000001, "at most 100000000 are allowed"},
        {UINT64_MAX, "at most 100000000 are allowed"},
        {UINT64_MAX - 7, "at most 100000000 are allowed"}, /* wraps when 8 is added */
        {0, "does not begin with {"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        pt_error err = {0};
        pt_safetensors *file = NULL;
        write_raw("{}", 2, rows[i].claimed, 0);
        assert_fails(pt_safetensors_open(path, &file, &err), PT_EINPUT, rows[i].words, &err);
    }
}

/* Deep nesting must not exhaust the stack. */
static void nested_header(void **state)
{
    (void)state;
    enum { DEPTH = 1000000 };
    char *header = malloc(DEPTH);
    assert_non_null(header);
    memset(header, '[', DEPTH);
    memcpy(header, "{\"a\":", 5);
    pt_error err = {0};
    pt_safetensors *file = NULL;
    write_raw(header, DEPTH, DEPTH, 0);
    free(header);
    assert_fails(pt_safetensors_open(path, &file, &err), PT_EINPUT, "the header is not right",
                 &err);
}

static void every_truncation_is_noticed(void **state)
{
    (void)state;
    pt_error err = {0};
    char *text;
    size_t bytes;
    assert_ok(pt_safetensors_write(path, tensors, N_TENSORS, metadata, N_METADATA, &err), &err);
    assert_ok(pt_text_read_file(path, &text, &bytes, &err), &err);
    free(text);
    while (bytes-- > 0) {
        pt_safetensors *file = NULL;
        assert_int_equal(truncate(path, (off_t)bytes), 0);
        assert_int_equal(pt_safetensors_open(path, &file, &err), PT_EINPUT);
        assert_null(file);
    }
}

/* One byte changed anywhere in the header: refused or read, but never out of bounds (sanitizers
 * watch) and never with data outside of the file. */
static void damaged_headers_are_harmless(void **state)
{
    (void)state;
    pt_error err = {0};
    char *text;
    size_t bytes;
    int refused = 0;
    assert_ok(pt_safetensors_write(path, tensors, N_TENSORS, NULL, 0, &err), &err);
    assert_ok(pt_text_read_file(path, &text, &bytes, &err), &err);
    for (size_t i = 0; i < bytes; i++) {
        char kept = text[i];
        text[i] = (char)(kept ^ (1 << i % 7));
        FILE *out = fopen(path, "wb");
        assert_non_null(out);
        assert_int_equal(fwrite(text, 1, bytes, out), bytes);
        assert_int_equal(fclose(out), 0);
        text[i] = kept;
        pt_safetensors *file = NULL;
        if (pt_safetensors_open(path, &file, &err) != PT_OK) {
            assert_int_equal(err.code, PT_EINPUT);
            refused++;
            continue;
        }
        unsigned sum = 0;
        for (int k = 0; k < pt_safetensors_count(file); k++) {
            const pt_st_tensor *tensor = pt_safetensors_at(file, k);
            for (size_t b = 0; b < tensor->bytes; b++)
                sum += ((const unsigned char *)tensor->data)[b];
        }
        assert_true(sum > 0); /* every byte was touched */
        pt_safetensors_close(file);
    }
    free(text);
    assert_in_range(refused, 1, bytes - 1);
}

/* A header of odd length, as other writers may leave it, and entries out of data order. */
static void crooked_files_are_read_aligned(void **state)
{
    (void)state;
    static const char header[] =
        "{" T("b", "F32", "[2]", "[1,9]") "," T("a", "U8", "[1]", "[0,1]") "} ";
    pt_error err = {0};
    pt_safetensors *file = NULL;
    for (size_t bytes = sizeof header - 2; bytes <= sizeof header - 1; bytes++) {
        write_raw(header, bytes, bytes, 9);
        assert_ok(pt_safetensors_open(path, &file, &err), &err);
        assert_string_equal(pt_safetensors_at(file, 0)->name, "a");
        assert_string_equal(pt_safetensors_at(file, 1)->name, "b");
        static const unsigned char expected[] = {1, 2, 3, 4, 5, 6, 7, 8};
        const pt_st_tensor *b = pt_safetensors_find(file, "b");
        assert_int_equal((uintptr_t)b->data % sizeof(float), 0);
        assert_memory_equal(b->data, expected, sizeof expected);
        pt_safetensors_close(file);
    }
}

static void what_is_no_file(void **state)
{
    (void)state;
    pt_error err = {0};
    pt_safetensors *file = NULL;
    unlink(path);
    assert_fails(pt_safetensors_open(path, &file, &err), PT_EINPUT, "no such file", &err);
    assert_fails(pt_safetensors_open(folder, &file, &err), PT_EINPUT, "not a regular file", &err);
    assert_int_equal(mkfifo(path, 0600), 0); /* must not wait for a writer */
    assert_fails(pt_safetensors_open(path, &file, &err), PT_EINPUT, "not a regular file", &err);
    assert_null(file);
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
        cmocka_unit_test(hostile_headers),
        cmocka_unit_test(hostile_header_sizes),
        cmocka_unit_test(nested_header),
        cmocka_unit_test(every_truncation_is_noticed),
        cmocka_unit_test(damaged_headers_are_harmless),
        cmocka_unit_test(crooked_files_are_read_aligned),
        cmocka_unit_test(what_is_no_file),
        cmocka_unit_test(dtypes),
    };
    return cmocka_run_group_tests_name("safetensors", tests, begin, end);
}
