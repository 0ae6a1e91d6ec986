/* safetensors: a hostile file is refused with a message that says why, a crooked one is read. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "pipetrain/text.h"
#include "safetensors_rig.h"
#include "suite.h"

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hostile_headers),
        cmocka_unit_test(hostile_header_sizes),
        cmocka_unit_test(nested_header),
        cmocka_unit_test(every_truncation_is_noticed),
        cmocka_unit_test(damaged_headers_are_harmless),
        cmocka_unit_test(crooked_files_are_read_aligned),
        cmocka_unit_test(what_is_no_file),
    };
    return cmocka_run_group_tests_name("safetensors_hostile", tests, begin, end);
}
