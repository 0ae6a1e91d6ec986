/* A directory of checkpoints whose writer is killed at, or refused, each of its system calls in
 * turn: whatever was committed is good, `latest` names such a step, and the next writer can go on.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "file_faults.h"
#include "folder.h"
#include "pipetrain/file.h"
#include "pipetrain/store.h"
#include "pipetrain/text.h"
#include "suite.h"

enum { FILES = 2, KEEP = 2, FIRST = 3, BYTES = 1000, LEAST_CALLS = 25, MOST_CALLS = 200 };

/* ---- the writer -------------------------------------------------------------------------------
 */

/* As ranks and rank 0 do it, one after the other. */
static pt_status write_step(int64_t step, bool *ret_committed, pt_error *err)
{
    static const char *const names[FILES] = {"layer-000-a.safetensors", "layer-001-b.safetensors"};
    char data[BYTES];
    pt_store_file files[FILES];
    pt_error ignored = {PT_OK, ""};
    pt_status status = PT_OK;
    *ret_committed = false;
    for (int i = 0; status == PT_OK && i < FILES; i++) {
        memset(data, (int)step + i, sizeof data);
        files[i] = (pt_store_file){names[i], sizeof data, pt_store_checksum(0, data, sizeof data)};
        status = pt_store_write(folder, step, names[i], data, sizeof data, err);
    }
    if (status == PT_OK)
        status = pt_store_sync(folder, step, err);
    if (status != PT_OK) {
        (void)pt_store_remove(folder, step, &ignored);
        return status;
    }
    json_t *manifest = json_pack("{s:i, s:I}", "format", 1, "step", (json_int_t)step);
    status = pt_store_commit(folder, step, manifest, files, FILES, ret_committed, err);
    json_decref(manifest);
    return status == PT_OK ? pt_store_prune(folder, step, KEEP, /*claims=*/NULL, err) : status;
}

static void must_write(int64_t step)
{
    pt_error err = {PT_OK, ""};
    bool committed = false;
    assert_ok(write_step(step, &committed, &err), &err);
    assert_true(committed);
}

/* ---- the judge --------------------------------------------------------------------------------
 */

static bool is_good(int64_t step)
{
    pt_error err = {PT_OK, ""};
    json_t *manifest = NULL;
    bool good = pt_store_read(folder, step, &manifest, &err) == PT_OK;
    if (good)
        assert_int_equal(json_integer_value(json_object_get(manifest, "step")), step);
    json_decref(manifest);
    return good;
}

/* -1: there is none. */
static int64_t latest(void)
{
    pt_error err = {PT_OK, ""};
    char *text = NULL, *path = pt_text_format("%s/latest", folder);
    size_t bytes = 0;
    int64_t step = -1;
    if (pt_text_read_file(path, &text, &bytes, &err) == PT_OK)
        assert_int_equal(sscanf(text, "step-%ld\n", &step), 1);
    free(text);
    free(path);
    return step;
}

/* -1: there is none. */
static int64_t best(void)
{
    pt_error err = {PT_OK, ""};
    int64_t step = 0;
    assert_ok(pt_store_named(folder, PT_STORE_BEST, &step, &err), &err);
    return step;
}

/* All committed steps are good, `latest` is one of them, and `best`; the newest of them. */
static int64_t judge(void)
{
    pt_error err = {PT_OK, ""};
    int64_t *steps = NULL, newest = -1;
    int n = 0;
    assert_ok(pt_store_list(folder, &steps, &n, &err), &err);
    for (int i = 0; i < n; i++)
        if (pt_store_is_committed(folder, steps[i])) {
            assert_true(is_good(steps[i]));
            newest = newest < 0 ? steps[i] : newest;
        }
    free(steps);
    assert_true(is_good(latest()));
    assert_true(best() < 0 || is_good(best()));
    return newest;
}

/* ---- each call in turn ------------------------------------------------------------------------
 */

static void call_best(int64_t step)
{
    pt_error err = {PT_OK, ""};
    assert_ok(pt_store_point(folder, PT_STORE_BEST, step, &err), &err);
}

static void begin_anew(void)
{
    assert_int_equal(empty_folder(NULL), 0);
    for (int64_t step = 1; step < FIRST; step++)
        must_write(step);
    call_best(1);
}

/* What a job says in a process of its own: 0 it succeeded, 1 it failed and said why, 2 it failed
 * but was committed, FAULT_KILLED; 3 where the call never came. */
typedef int (*job)(void);

static int in_child(job what, fault_kind kind, int at, int error)
{
    fflush(NULL);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        faults_begin(kind, at, error);
        int said = what();
        int calls = faults_end();
        _exit(calls <= at ? 3 : said);
    }
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static int write_next(void)
{
    pt_error err = {PT_OK, ""};
    bool committed = false;
    pt_status status = write_step(FIRST, &committed, &err);
    if (status == PT_OK)
        status = pt_store_point(folder, PT_STORE_BEST, FIRST, &err);
    if (status == PT_OK)
        status = pt_store_prune(folder, FIRST, KEEP, /*claims=*/NULL, &err);
    if (status == PT_OK)
        return committed ? 0 : 4;
    if (!strstr(err.text, folder) && !strstr(err.text, "cannot"))
        return 5; /* says nothing */
    return committed ? 2 : 1;
}

static int open_again(void)
{
    pt_error err = {PT_OK, ""};
    int64_t launch = 0;
    return pt_store_open(folder, 1, /*best=*/1, &launch, &err) == PT_OK ? 0 : 1;
}

/* The best one stays beside those that are kept: until another one is, and no longer. */
static void judge_best(bool done)
{
    assert_true(best() == FIRST || (best() == 1 && !done));
    assert_true(!done || !pt_store_is_committed(folder, 1));
}

/* Another run finds the directory as it was left, and goes on in it. */
static void go_on_from(int64_t newest)
{
    pt_error err = {PT_OK, ""};
    int64_t launch = 0;
    assert_ok(pt_store_open(folder, newest, /*best=*/0, &launch, &err), &err);
    assert_int_equal(latest(), newest);
    must_write(newest + 1);
    assert_int_equal(judge(), newest + 1);
    char *step = pt_store_path(folder, newest + 1, NULL);
    assert_int_equal(count_entries(step), FILES + 1); /* nothing is left of what was half-written */
    free(step);
}

static void killed_while_writing(fault_kind kind)
{
    int killed = 0, at = 0;
    for (;; at++) {
        assert_true(at < MOST_CALLS);
        begin_anew();
        int said = in_child(write_next, kind, at, 0);
        int64_t newest = judge();
        judge_best(said == 3);
        if (said == 3) {
            assert_int_equal(newest, FIRST);
            break;
        }
        assert_true(said == FAULT_KILLED || (kind == FAULT_KILL_HALF && said < 3));
        killed += said == FAULT_KILLED;
        assert_true(newest == FIRST || newest == FIRST - 1);
        go_on_from(newest);
    }
    assert_true(at >= LEAST_CALLS);
    assert_true(killed >= (kind == FAULT_KILL ? LEAST_CALLS : FILES + 2));
}

static void test_killed(void **state)
{
    (void)state;
    killed_while_writing(FAULT_KILL);
}

static void test_killed_in_a_write(void **state)
{
    (void)state;
    killed_while_writing(FAULT_KILL_HALF);
}

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

/* A step that failed is said to have, and leaves no folder behind; the run writes the next one. */
static void refused_while_writing(fault_kind kind, int error)
{
    int failed = 0, at = 0;
    for (;; at++) {
        assert_true(at < MOST_CALLS);
        begin_anew();
        int said = in_child(write_next, kind, at, error);
        int64_t newest = judge();
        judge_best(said == 3);
        if (said == 3)
            break;
        assert_in_range(said, 0, 2);
        assert_int_equal(newest, said == 1 ? FIRST - 1 : FIRST);
        failed += said > 0;
        char *step = pt_store_path(folder, FIRST, NULL);
        assert_int_equal(access(step, F_OK) == 0, said != 1);
        free(step);
        must_write(FIRST + 1);
        assert_int_equal(judge(), FIRST + 1);
        assert_int_equal(latest(), FIRST + 1);
    }
    assert_true(at >= LEAST_CALLS);
    assert_true(failed >= LEAST_CALLS - 6); /* what could be cleared away later, may be */
}

static void test_refused(void **state)
{
    (void)state;
    refused_while_writing(FAULT_FAIL, EIO);
    refused_while_writing(FAULT_FAIL, ENOSPC);
}

static void test_full_in_a_write(void **state)
{
    (void)state;
    refused_while_writing(FAULT_FAIL_HALF, ENOSPC);
}

static void spoil(int64_t step)
{
    char *path = pt_store_path(folder, step, "layer-000-a.safetensors");
    FILE *file = fopen(path, "r+");
    assert_non_null(file);
    fputc('!', file);
    fclose(file);
    free(path);
}

/* Step 2 is broken, and `latest` and `best` name it; step 3 is half-written. */
static void test_killed_at_the_start(void **state)
{
    (void)state;
    for (int at = 0;; at++) {
        assert_true(at < MOST_CALLS);
        begin_anew();
        spoil(2);
        call_best(2);
        pt_error err = {PT_OK, ""};
        assert_ok(pt_store_write(folder, FIRST, "layer-000-a.safetensors", "x", 1, &err), &err);
        int said = in_child(open_again, FAULT_KILL, at, 0);
        assert_true(is_good(1));
        assert_true(latest() == 1 || latest() == 2);
        assert_true(latest() == 1 || said == FAULT_KILLED);
        assert_true(latest() != 1 || is_good(latest()));
        assert_true(best() == 1 || (best() == 2 && said == FAULT_KILLED));
        if (said == 3)
            break;
        assert_int_equal(said, FAULT_KILLED);
        go_on_from(1);
    }
}

/* ---- damage -----------------------------------------------------------------------------------
 */

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
        cmocka_unit_test(test_killed),
        cmocka_unit_test(test_killed_in_a_write),
        cmocka_unit_test(test_best_stays_among_many),
        cmocka_unit_test(test_best_that_cannot_be_read),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_full_in_a_write),
        cmocka_unit_test(test_killed_at_the_start),
        cmocka_unit_test(test_every_byte_counts),
        cmocka_unit_test(test_swapped_and_missing_files_are_named),
        cmocka_unit_test(test_files_without_end),
        cmocka_unit_test(test_launches_only_grow),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
