/* A directory of checkpoints that was changed by others: what is damaged is noticed and named, and
 * what cannot be known takes nothing away. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "pipetrain/file.h"
#include "pipetrain/text.h"
#include "store_rig.h"
#include "suite.h"

static void test_best_stays_among_many(void **state)
{
    (void)state;
    begin_anew();
    for (int64_t step = FIRST; step < 9; step++)
        must_write(step);
    assert_true(is_good(1) && is_good(7) && is_good(8));
    assert_false(pt_store_is_committed(folder, 2) || pt_store_is_committed(folder, 6));
    call_best(7);
    must_write(9);
    assert_false(pt_store_is_committed(folder, 1));
    judge();
}

/* What it names cannot be known: nothing is taken away. */
static void test_best_that_cannot_be_read(void **state)
{
    (void)state;
    pt_error err = {PT_OK, ""};
    begin_anew();
    char *path = pt_text_format("%s/best", folder);
    assert_ok(pt_file_write(path, "stop-1\n", 7, &err), &err);
    bool committed = false;
    assert_fails(write_step(FIRST, &committed, &err), PT_EIO, "names no step", &err);
    assert_true(committed);
    assert_true(is_good(1) && is_good(2) && is_good(FIRST));
    int64_t launch = 0;
    assert_ok(pt_store_open(folder, FIRST, /*best=*/0, &launch, &err), &err);
    assert_int_equal(best(), -1);
    free(path);
}

static void test_every_byte_counts(void **state)
{
    (void)state;
    static const char *const names[] = {"layer-001-b.safetensors", "manifest.json"};
    begin_anew();
    for (size_t n = 0; n < sizeof names / sizeof *names; n++) {
        pt_error err = {PT_OK, ""};
        char *path = pt_store_path(folder, 2, names[n]), *text = NULL;
        size_t bytes = 0;
        assert_ok(pt_text_read_file(path, &text, &bytes, &err), &err);
        for (size_t i = 0; i < bytes; i++) {
            char was = text[i];
            text[i] ^= 1;
            assert_ok(pt_file_write(path, text, bytes, &err), &err);
            /* Between the words of the manifest a blank may be another. */
            assert_true(!is_good(2) || was == ' ' || was == '\n');
            text[i] = was;
        }
        for (size_t length = 0; length < bytes; length += 1 + bytes / 50) {
            assert_ok(pt_file_write(path, text, length, &err), &err);
            assert_false(is_good(2));
        }
        assert_ok(pt_file_write(path, text, bytes, &err), &err);
        assert_true(is_good(2));
        free(text);
        free(path);
    }
}

static void test_swapped_and_missing_files_are_named(void **state)
{
    (void)state;
    pt_error err = {PT_OK, ""};
    json_t *manifest = NULL;
    begin_anew();
    char *a = pt_store_path(folder, 2, "layer-000-a.safetensors");
    char *b = pt_store_path(folder, 2, "layer-001-b.safetensors");
    char *c = pt_store_path(folder, 2, "c");
    assert_int_equal(rename(a, c) + rename(b, a) + rename(c, b), 0);
    assert_fails(pt_store_read(folder, 2, &manifest, &err), PT_EINPUT, "layer-000-a", &err);
    assert_fails(pt_store_read(folder, 2, &manifest, &err), PT_EINPUT, "checksum", &err);
    assert_int_equal(rename(b, c) + rename(a, b) + rename(c, a), 0);
    assert_true(is_good(2));
    assert_int_equal(unlink(b), 0);
    assert_fails(pt_store_read(folder, 2, &manifest, &err), PT_EINPUT, "layer-001-b", &err);
    assert_null(manifest);
    free(a);
    free(b);
    free(c);
}

static void test_files_without_end(void **state)
{
    (void)state;
    pt_error err = {PT_OK, ""};
    json_t *manifest = NULL;
    begin_anew();
    char *path = pt_store_path(folder, 2, "layer-000-a.safetensors");
    assert_int_equal(unlink(path) + symlink("/dev/zero", path), 0);
    assert_fails(pt_store_read(folder, 2, &manifest, &err), PT_EINPUT, "at least", &err);
    free(path);
}

/* Of the file and of what the run that goes on knows, the larger one counts, if it has a next one.
 */
static void test_launches_only_grow(void **state)
{
    (void)state;
    const struct {
        const char *file;
        int64_t before, now;
    } cases[] = {
        {"7\n", 3, 8}, {"2\n", 5, 6}, {"9223372036854775807\n", 4, 5}, {"-9\n", 0, 1}, {"x", 1, 2}};
    begin_anew();
    char *path = pt_text_format("%s/launch", folder);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        pt_error err = {PT_OK, ""};
        int64_t launch = cases[i].before;
        assert_ok(pt_file_write(path, cases[i].file, strlen(cases[i].file), &err), &err);
        assert_ok(pt_store_open(folder, 2, /*best=*/1, &launch, &err), &err);
        assert_int_equal(launch, cases[i].now);
    }
    free(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_best_stays_among_many),
        cmocka_unit_test(test_best_that_cannot_be_read),
        cmocka_unit_test(test_every_byte_counts),
        cmocka_unit_test(test_swapped_and_missing_files_are_named),
        cmocka_unit_test(test_files_without_end),
        cmocka_unit_test(test_launches_only_grow),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
