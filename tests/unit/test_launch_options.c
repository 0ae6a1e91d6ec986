/* The launcher's command line, lists of hosts, and what mpirun is told. */
#include "options.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "folder.h"
#include "job.h"
#include "suite.h"

enum { MOST_WORDS = 32 };
static pt_error err;

/* Reads a line whose words have single blanks between them. */
static pt_status read_line(const char *line, pt_launch_options *o, char *argv[MOST_WORDS])
{
    static char copy[1024];
    int argc = 0;
    char *rest = copy;
    snprintf(copy, sizeof copy, "pipetrain-launch %s", line);
    for (char *word; argc < MOST_WORDS - 1 && (word = strsep(&rest, " "));)
        if (*word)
            argv[argc++] = word;
    argv[argc] = NULL;
    return pt_launch_options_read(o, argc, argv, &err);
}

static void test_refused(void **state)
{
    static const char *const cases[][2] = {
        {"", "nothing to start"},
        {"--restarts 3", "nothing to start"},
        {"-np 2 ./p", "stand behind --"},
        {"-- mpirun -np 2 ./p --checkpoint d --resume d", "leave that word out"},
        {"-- -np 2 ./p", "add --checkpoint DIR --resume DIR"},
        {"-- -np 2 ./p --checkpoint= --resume d", "add --checkpoint DIR --resume DIR"},
        {"-- -np 2 ./p --checkpoint d", "add --resume d"},
        {"-- -np 2 ./p --checkpoint d --resume e", "the same directory for both"},
        {"--min 2 -- ./p --checkpoint d --resume d", "--min goes with --hosts"},
        {"--probe true -- ./p --checkpoint d --resume d", "--probe goes with --hosts"},
        {"--hosts a --hostfile b -- ./p --checkpoint d --resume d", "write one of them"},
        {"--hosts a -- -np 2 ./p --checkpoint d --resume d", "-np behind --"},
        {"--hosts a -- --host b ./p --checkpoint d --resume d", "--host behind --"},
        {"--hosts a:2 --min 3 -- ./p --checkpoint d --resume d", "the hosts have 2 slots"},
        {"--hosts a:0 -- ./p --checkpoint d --resume d", "no number of slots"},
        {"--hosts a:x -- ./p --checkpoint d --resume d", "no number of slots"},
        {"--hosts a,,b -- ./p --checkpoint d --resume d", "names no host"},
        {"--hosts :2 -- ./p --checkpoint d --resume d", "names no host"},
        {"--hosts a,b,a:2 -- ./p --checkpoint d --resume d", "named twice"},
        {"--hostfile /no/file -- ./p --checkpoint d --resume d", "no such file"},
        {"--stall soon -- ./p --checkpoint d --resume d", "--stall \"soon\""},
        {"--stall 5 -- ./p --checkpoint d --resume d --stall 6", "said twice"},
        {"--state= -- ./p --checkpoint d --resume d", "--state"},
        {"--restart 3 -- ./p --checkpoint d --resume d", "did you mean --restarts"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *argv[MOST_WORDS];
        pt_launch_options o;
        pt_status status = read_line(cases[i][0], &o, argv);
        pt_launch_options_clear(&o);
        if (status != PT_EINPUT || !strstr(err.text, cases[i][1]))
            fail_msg("\"%s\" gives \"%s\" and not \"%s\"", cases[i][0], err.text, cases[i][1]);
    }
}

static void test_taken(void **state)
{
    char *argv[MOST_WORDS];
    pt_launch_options o;
    (void)state;
    assert_ok(read_line("--restarts=7 --backoff-max 1.5 -- -np 2 ./p m.yaml --checkpoint=d "
                        "--resume d --stall off",
                        &o, argv),
              &err);
    assert_int_equal(o.restarts, 7);
    assert_true(o.backoff_max == 1.5);
    assert_string_equal(o.checkpoint, "d");
    assert_string_equal(o.state, "d/launcher");
    assert_string_equal(o.words[0], "-np");
    assert_true(o.stall.is_off); /* the program's word counts */
    assert_int_equal(o.hosts.n, 0);
    pt_launch_options_clear(&o);

    /* The last one counts, as it does for the program. */
    assert_ok(read_line("--state s -- ./p --checkpoint e --checkpoint d --resume d", &o, argv),
              &err);
    assert_string_equal(o.checkpoint, "d");
    assert_string_equal(o.state, "s");
    assert_true(o.stall.is_auto);
    pt_launch_options_clear(&o);
}

static void test_environment(void **state)
{
    char *argv[MOST_WORDS];
    pt_launch_options o;
    (void)state;
    setenv("PIPETRAIN_STALL", "7", 1);
    assert_ok(read_line("-- ./p --checkpoint d --resume d", &o, argv), &err);
    assert_true(o.stall.seconds == 7);
    pt_launch_options_clear(&o);
    assert_ok(read_line("--stall 8 -- ./p --checkpoint d --resume d", &o, argv), &err);
    assert_true(o.stall.seconds == 8);
    pt_launch_options_clear(&o);
    setenv("PIPETRAIN_STALL", "x", 1);
    assert_fails(read_line("-- ./p --checkpoint d --resume d", &o, argv), PT_EINPUT,
                 "PIPETRAIN_STALL \"x\"", &err);
    pt_launch_options_clear(&o);
    unsetenv("PIPETRAIN_STALL");
}

static void test_host_files(void **state)
{
    static const struct {
        const char *text, *want; /* slots in all and what mpirun is told; or the refusal */
        int slots;
    } cases[] = {
        {"a slots=2\n\n# all of it\nb\t# one\r\nc slots=3", "a:2,b:1,c:3", 6},
        {"a slots=2\nb slots=x\n", ":2: \"slots=x\" is not understood", 0},
        {"a\na\n", ":2: the host a is named twice", 0},
        {"# nobody\n", "names no host", 0},
    };
    const char *path = in_folder("hosts");
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        pt_hosts hosts = {NULL, 0};
        FILE *out = fopen(path, "w");
        fputs(cases[i].text, out);
        fclose(out);
        if (!cases[i].slots) {
            assert_fails(pt_hosts_read(path, &hosts, &err), PT_EINPUT, cases[i].want, &err);
            continue;
        }
        assert_ok(pt_hosts_read(path, &hosts, &err), &err);
        char *argument = pt_hosts_argument(&hosts);
        assert_string_equal(argument, cases[i].want);
        assert_int_equal(pt_hosts_slots(&hosts), cases[i].slots);
        free(argument);
        pt_hosts_clear(&hosts);
    }
}

/* One answers, one refuses, one says nothing; this machine is not asked. */
static void test_probe(void **state)
{
    static const char command[] =
        "case $1 in good) exit 0;; bad) exit 1;; silent) sleep 60;; *) exit 1;; esac; :";
    pt_hosts hosts = {NULL, 0};
    (void)state;
    setenv(PT_MARK, "asked", 1);
    assert_ok(pt_hosts_parse("good:4,bad:3,silent:2,localhost", &hosts, &err), &err);
    assert_ok(pt_hosts_probe(&hosts, command, /*limit_s=*/0.5, &err), &err);
    for (int i = 0; i < 1000 && pt_marked_count("asked") > 0; i++)
        usleep(5000);
    assert_int_equal(pt_marked_count("asked"), 0); /* the sleep, too, has ended */
    unsetenv(PT_MARK);
    char *argument = pt_hosts_argument(&hosts);
    assert_string_equal(argument, "good:4,localhost:1");
    free(argument);
    assert_int_equal(pt_hosts_slots(&hosts), 5);
    /* What came back is taken again. */
    assert_ok(pt_hosts_probe(&hosts, "exit 0", /*limit_s=*/10, &err), &err);
    assert_int_equal(pt_hosts_slots(&hosts), 10);
    pt_hosts_clear(&hosts);
}

static void test_command(void **state)
{
    char *own[] = {"--bind-to", "none", "./p", "--seed", "2", NULL};
    pt_hosts hosts = {NULL, 0};
    pt_job job = {.mpirun = "mpirun", .session = "/s", .hosts = &hosts, .words = own};
    char line[1024] = "", **words = NULL;
    (void)state;
    assert_ok(pt_hosts_parse("a:2,b:2", &hosts, &err), &err);
    hosts.list[0].is_left = true;
    assert_ok(pt_job_command(&job, &words, &err), &err);
    for (int i = 0; words[i]; i++) {
        strcat(line, words[i]);
        strcat(line, words[i + 1] ? " " : "");
    }
    assert_string_equal(line, "mpirun --mca odls_base_sigkill_timeout 0 --mca orte_tmpdir_base /s "
                              "-x PIPETRAIN_LAUNCHER -x PIPETRAIN_STALL -x PIPETRAIN_PROGRESS "
                              "--host b:2 -np 2 --bind-to none ./p --seed 2");
    pt_job_free_command(words);
    pt_hosts_clear(&hosts);
}

int main(void)
{
    unsetenv("PIPETRAIN_STALL");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refused),     cmocka_unit_test(test_taken),
        cmocka_unit_test(test_environment), cmocka_unit_test(test_host_files),
        cmocka_unit_test(test_probe),       cmocka_unit_test(test_command),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
