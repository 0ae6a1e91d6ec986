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
#include "store_rig.h"
#include "suite.h"

enum { LEAST_CALLS = 25, MOST_CALLS = 200 };

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_killed),
        cmocka_unit_test(test_killed_in_a_write),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_full_in_a_write),
        cmocka_unit_test(test_killed_at_the_start),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
