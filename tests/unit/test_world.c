/* The world of one rank, alike with MPI (started without mpirun) and with -Dmpi=disabled: nothing
 * here waits, and what needs two ranks is refused. */
#include "suite.h"

#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "pipetrain/link.h"
#include "pipetrain/world.h"

/* MPI starts once in a process: all tests share one world. */
static int open_world(void **state)
{
    pt_error err = {0};
    pt_world *world = NULL;
    int argc = 1;
    char name[] = "test_world", *args[] = {name, NULL}, **argv = args;
    if (pt_world_open(&argc, &argv, &world, &err) != PT_OK)
        return -1;
    *state = world;
    return 0;
}

static int close_world(void **state)
{
    pt_world_close(*state);
    pt_world_close(NULL);
    return 0;
}

static void test_facts(void **state)
{
    char text[100] = "";
    assert_int_equal(pt_world_rank(*state), 0);
    assert_int_equal(pt_world_size(*state), 1);
    assert_int_equal(pt_world_local_rank(*state), 0);
    assert_false(pt_world_under_mpirun(*state));
    assert_true(pt_world_is_first_process());
    assert_true(strlen(pt_world_host(*state)) > 0);
    pt_world_describe(*state, text, sizeof text);
    assert_true(strstr(text, "MPI") || strstr(text, "MVAPICH"));
    assert_null(strchr(text, '\n'));
}

static void test_collectives(void **state)
{
    pt_error err = {0};
    volatile int stop = 1; /* nothing waits, so nothing is interrupted */
    size_t counts[1] = {5};
    char data[6] = "hello", copy[6] = "";
    int64_t offset = 1;
    pt_world_watch(*state, &stop);
    for (int p = 0; p < PT_PURPOSES; p++) {
        assert_ok(pt_world_broadcast(*state, (pt_purpose)p, 0, data, 6, &err), &err);
        assert_ok(pt_world_barrier(*state, (pt_purpose)p, &err), &err);
    }
    assert_string_equal(data, "hello");
    assert_ok(pt_world_gather(*state, PT_FOR_CLIP, 0, data, 5, counts, copy, &err), &err);
    assert_string_equal(copy, "hello");
    assert_fails(pt_world_gather(*state, PT_FOR_CLIP, 0, data, 4, counts, copy, &err), PT_EINTERNAL,
                 "counts 5", &err);
    assert_ok(pt_world_clock_offset(*state, &offset, &err), &err);
    assert_int_equal(offset, 0);
    pt_world_watch(*state, NULL);
}

static void test_agree(void **state)
{
    pt_error err = {0};
    int rank = 7;
    assert_int_equal(pt_world_agree(*state, PT_OK, &err, &rank), PT_OK);
    assert_int_equal(rank, -1);
    pt_fail(&err, PT_EIO, "the disk is full");
    assert_int_equal(pt_world_agree(*state, PT_EIO, &err, &rank), PT_EIO);
    assert_int_equal(rank, 0);
    assert_string_equal(err.text, "the disk is full");
    assert_int_equal(pt_world_agree(*state, PT_EIO, NULL, NULL), PT_EIO);
}

static void test_mail(void **state)
{
    pt_error err = {0};
    pt_mail *mail = NULL;
    int record = 3, sender = 9;
    assert_ok(pt_mail_open(*state, sizeof record, &mail, &err), &err);
    assert_false(pt_mail_post(mail, &record));
    assert_false(pt_mail_take(mail, &record, &sender));
    assert_ok(pt_mail_flush(mail, &err), &err);
    assert_int_equal(record, 3);
    assert_int_equal(sender, 9);
    pt_mail_close(mail);
    pt_mail_close(NULL);
}

static void test_no_links(void **state)
{
    pt_error err = {0};
    pt_link *link = NULL;
    char memory[8];
    pt_link_spec spec = {.from = 0, .to = 0, .slots = 1, .slot_bytes = 8, .buffer = memory};
    assert_fails(pt_link_open(*state, &spec, &link, &err), PT_EINTERNAL, "two", &err);
    spec.to = 1;
    assert_fails(pt_link_open(*state, &spec, &link, &err), PT_EINTERNAL, "two", &err);
    assert_null(link);
    pt_link_close(NULL);
}

static void test_abort(void **state)
{
    int status = 0;
    fflush(NULL); /* or the child would say it all again */
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0)
        pt_world_abort(*state, 75);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 75);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_facts),    cmocka_unit_test(test_collectives),
        cmocka_unit_test(test_agree),    cmocka_unit_test(test_mail),
        cmocka_unit_test(test_no_links), cmocka_unit_test(test_abort),
    };
    return cmocka_run_group_tests_name("world", tests, open_world, close_world);
}
