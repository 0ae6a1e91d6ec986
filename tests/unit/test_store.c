/* What a directory of checkpoints says beside its steps: which one is the newest, how many runs
 * there were, where they ran. Steps themselves are the business of test_checkpoint_faults.c and
 * test_checkpoint_damage.c. */
#include "pipetrain/store.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "folder.h"
#include "pipetrain/file.h"
#include "suite.h"

#define HOST(number, name, first, last)                                                            \
    "{\"number\": " number ", \"name\": " name ", \"first_launch\": " first                        \
    ", \"last_launch\": " last "}"

static pt_error err;

static void write_text(const char *name, const char *text)
{
    assert_ok(pt_file_write(in_folder(name), text, strlen(text), &err), &err);
}

static void test_named(void **state)
{
    int64_t step = -2;
    (void)state;
    assert_ok(pt_store_named(folder, PT_STORE_LATEST, &step, &err), &err);
    assert_int_equal(step, -1);
    write_text(PT_STORE_LATEST, "step-000120\n");
    assert_ok(pt_store_named(folder, PT_STORE_LATEST, &step, &err), &err);
    assert_int_equal(step, 120);
    write_text(PT_STORE_LATEST, "nothing\n");
    assert_fails(pt_store_named(folder, PT_STORE_LATEST, &step, &err), PT_EIO, "names no step",
                 &err);
    assert_int_equal(step, 120);
}

static int64_t opened(int64_t before)
{
    int64_t launch = before;
    assert_ok(pt_store_open(folder, /*step=*/-1, /*best=*/0, &launch, &err), &err);
    return launch;
}

/* A launch is counted as it begins, whatever becomes of it. */
static void test_launches(void **state)
{
    (void)state;
    assert_int_equal(pt_store_launches(folder), 0);
    assert_int_equal(opened(0), 1);
    assert_int_equal(opened(0), 2);
    assert_int_equal(pt_store_launches(folder), 2);
    assert_int_equal(opened(7), 8); /* goes on from a run with seven */
    assert_int_equal(opened(3), 9);
    write_text("launch", "many\n");
    assert_int_equal(pt_store_launches(folder), 0);
    assert_int_equal(opened(9), 10);
    write_text("launch", "1000000000000000000\n"); /* has no next one */
    assert_int_equal(opened(10), 11);
    write_text("hosts.json", "[" HOST("1", "\"a\"", "2", "20") "]"); /* knows better */
    assert_int_equal(opened(11), 21);
}

/* ---- hosts ------------------------------------------------------------------------------------
 */

static void join(int64_t launch, const char *const *names, int n, pt_store_hosts *ret_hosts)
{
    *ret_hosts = (pt_store_hosts){NULL, 0};
    assert_ok(pt_store_read_hosts(folder, ret_hosts, &err), &err);
    assert_ok(pt_store_join_hosts(folder, launch, names, n, ret_hosts, &err), &err);
}

static void assert_host(const pt_store_hosts *hosts, const char *name, int64_t number,
                        int64_t first, int64_t last)
{
    const pt_store_host *host = pt_store_find_host(hosts, name);
    assert_non_null(host);
    assert_int_equal(host->number, number);
    assert_int_equal(host->first_launch, first);
    assert_int_equal(host->last_launch, last);
}

/* Four ranks on two hosts, one of which leaves, comes back, and finds its number. */
static void test_hosts(void **state)
{
    pt_store_hosts hosts;
    (void)state;
    assert_ok(pt_store_read_hosts(folder, &hosts, &err), &err);
    assert_int_equal(hosts.n, 0);
    join(1, (const char *const[]){"b", "b", "a", "a"}, 4, &hosts);
    assert_int_equal(hosts.n, 2);
    assert_host(&hosts, "b", 1, 1, 1);
    assert_host(&hosts, "a", 2, 1, 1);
    pt_store_clear_hosts(&hosts);
    join(2, (const char *const[]){"a", "c \"quoted\""}, 2, &hosts);
    pt_store_clear_hosts(&hosts);
    join(4, (const char *const[]){"d", "b"}, 2, &hosts);
    pt_store_clear_hosts(&hosts);
    assert_ok(pt_store_read_hosts(folder, &hosts, &err), &err);
    assert_int_equal(hosts.n, 4);
    assert_host(&hosts, "b", 1, 1, 4);
    assert_host(&hosts, "a", 2, 1, 2);
    assert_host(&hosts, "c \"quoted\"", 3, 2, 2);
    assert_host(&hosts, "d", 4, 4, 4);
    assert_null(pt_store_find_host(&hosts, "c"));
    pt_store_clear_hosts(&hosts);
}

/* A list that could give a number to a second host is not gone on with. */
static void test_hosts_broken(void **state)
{
    static const struct {
        const char *text, *says;
    } cases[] = {
        {"", "holds no list"},
        {"{}", "holds no list"},
        {"[", "holds no list"},
        {"[1]", "entry 0"},
        {"[" HOST("0", "\"a\"", "1", "1") "]", "entry 0"},
        {"[" HOST("1", "\"\"", "1", "1") "]", "entry 0"},
        {"[" HOST("1", "7", "1", "1") "]", "entry 0"},
        {"[" HOST("1", "\"\\u001b[2J\"", "1", "1") "]", "entry 0"},
        {"[" HOST("1", "\"a\"", "2", "1") "]", "entry 0"},
        {"[" HOST("1", "\"a\"", "-1", "1") "]", "entry 0"},
        {"[" HOST("1", "\"a\"", "1", "1e3") "]", "entry 0"},
        {"[" HOST("1000000000000000001", "\"a\"", "1", "1") "]", "entry 0"},
        {"[" HOST("1", "\"a\"", "1", "1") "," HOST("1", "\"b\"", "1", "1") "]", "entry 1"},
        {"[" HOST("2", "\"a\"", "1", "1") "," HOST("1", "\"b\"", "1", "1") "]", "entry 1"},
        {"[" HOST("1", "\"a\"", "1", "1") "," HOST("2", "\"a\"", "1", "1") "]", "entry 1"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        pt_store_hosts hosts = {NULL, 0};
        write_text("hosts.json", cases[i].text);
        assert_fails(pt_store_read_hosts(folder, &hosts, &err), PT_EINPUT, cases[i].says, &err);
        assert_non_null(strstr(err.text, "hosts.json"));
        assert_int_equal(hosts.n, 0);
    }
}

/* ---- life -------------------------------------------------------------------------------------
 */

/* Fails where anything else was left behind. */
static int end(void **state)
{
    static const char *const files[] = {"hosts.json", "launch", PT_STORE_LATEST};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        unlink(in_folder(files[i]));
    int left = count_entries(folder);
    return remove_folder(state) || left ? -1 : 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_named, make_folder, end),
        cmocka_unit_test_setup_teardown(test_launches, make_folder, end),
        cmocka_unit_test_setup_teardown(test_hosts, make_folder, end),
        cmocka_unit_test_setup_teardown(test_hosts_broken, make_folder, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
