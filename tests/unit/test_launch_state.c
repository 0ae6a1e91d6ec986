/* What the launcher writes down, whom it ends, and what it cleans away. */
#include "state.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "clean.h"
#include "folder.h"
#include "pipetrain/file.h"
#include "pipetrain/text.h"
#include "suite.h"

static pt_error err;

static void write_text(const char *name, const char *text)
{
    assert_ok(pt_file_write(in_folder(name), text, strlen(text), &err), &err);
}

static bool is_there(const char *name)
{
    return access(in_folder(name), F_OK) == 0;
}

/* ---- the state --------------------------------------------------------------------------------
 */

static void test_state(void **state)
{
    pt_state got, s = {.host = "h",
                       .launcher = {12, 345},
                       .mpirun = {67, 89},
                       .mark = "m",
                       .session = "/s",
                       .starts = 4,
                       .record = {.step = 120, .failures = 2},
                       .launch = 6,
                       .hosts = {&(pt_store_host){.number = 3, .name = "h"}, 1}};
    char *text = NULL;
    size_t bytes = 0;
    (void)state;
    assert_ok(pt_state_read(folder, &got, &err), &err);
    assert_int_equal(got.record.step, -1);
    assert_int_equal(got.launcher.pid, 0);
    assert_ok(pt_state_write(folder, &s, &err), &err);
    assert_ok(pt_state_read(folder, &got, &err), &err);
    assert_string_equal(got.host, "h");
    assert_string_equal(got.mark, "m");
    assert_string_equal(got.session, "/s");
    assert_int_equal(got.launcher.pid, 12);
    assert_int_equal(got.launcher.started, 345);
    assert_int_equal(got.mpirun.pid, 67);
    assert_int_equal(got.mpirun.started, 89);
    assert_int_equal(got.starts, 4);
    assert_int_equal(got.record.step, 120);
    assert_int_equal(got.record.failures, 2);
    assert_ok(pt_text_read_file(in_folder("state.json"), &text, &bytes, &err), &err);
    assert_non_null(strstr(text, "\"launch\": 6"));
    assert_non_null(strstr(text, "\"number\": 3"));
    free(text);
}

/* Of a launcher that did not write down which launch it was. */
static void test_older_state(void **state)
{
    pt_state got;
    (void)state;
    write_text("state.json",
               "{\"format\": 1, \"host\": \"h\", \"launcher\": {\"pid\": 1, \"started\": 2}, "
               "\"mpirun\": {\"pid\": 3, \"started\": 4}, \"mark\": \"m\", \"session\": \"\", "
               "\"starts\": 5, \"failures\": 0, \"step\": 7}");
    assert_ok(pt_state_read(folder, &got, &err), &err);
    assert_int_equal(got.starts, 5);
    assert_int_equal(got.record.step, 7);
}

static void test_bad_states(void **state)
{
    static const char *const bad[] = {"", "{", "[]", "{\"format\": 1}", "{\"format\": 2}"};
    pt_state got;
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        write_text("state.json", bad[i]);
        assert_fails(pt_state_read(folder, &got, &err), PT_EINPUT, "state.json", &err);
    }
    unlink(in_folder("state.json"));
}

static void test_lock(void **state)
{
    int lock = -1, other = -1;
    pt_state s = {.host = "h", .launcher = pt_process_now(getpid())};
    (void)state;
    assert_ok(pt_state_lock(folder, &lock, &err), &err);
    assert_ok(pt_state_write(folder, &s, &err), &err);
    char pid[64];
    snprintf(pid, sizeof pid, "the pid %ld on h", (long)getpid());
    assert_fails(pt_state_lock(folder, &other, &err), PT_EINPUT, pid, &err);
    close(lock);
    assert_ok(pt_state_lock(folder, &other, &err), &err);
    close(other);
}

/* ---- processes --------------------------------------------------------------------------------
 */

/* A process that sleeps, with or without the mark. */
static pid_t start_sleeper(const char *mark)
{
    int ready[2];
    char byte;
    assert_int_equal(pipe(ready), 0);
    pid_t pid = fork();
    if (pid == 0) {
        /* Its environment as /proc shows it is that of exec. The pipe's end closes there. */
        fcntl(ready[1], F_SETFD, FD_CLOEXEC);
        setenv(PT_MARK, mark, 1);
        execlp("sleep", "sleep", "60", (char *)NULL);
        _exit(1);
    }
    close(ready[1]);
    assert_int_equal(read(ready[0], &byte, 1), 0);
    close(ready[0]);
    return pid;
}

static void end_sleeper(pid_t pid)
{
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

static void test_identity(void **state)
{
    pid_t pid = start_sleeper("mine");
    pt_process now = pt_process_now(pid), later = now;
    (void)state;
    assert_true(now.pid == pid && now.started > 0);
    assert_true(pt_process_is_alive(&now));
    later.started++; /* the same number, used again */
    assert_false(pt_process_is_alive(&later));
    kill(pid, SIGKILL);
    siginfo_t info;
    waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT);
    assert_false(pt_process_is_alive(&now)); /* though nobody has waited for it yet */
    end_sleeper(pid);
}

/* Stopped ones, too; and nobody else's. */
static void test_marked_end(void **state)
{
    pid_t mine[] = {start_sleeper("mine"), start_sleeper("mine")};
    pid_t other[] = {start_sleeper("mine2"), start_sleeper("min")};
    (void)state;
    kill(mine[1], SIGSTOP);
    assert_int_equal(pt_marked_count("mine"), 2);
    assert_int_equal(pt_marked_count("nobody's"), 0);
    assert_int_equal(pt_marked_end("mine", /*limit_s=*/10), 0);
    for (int i = 0; i < 2; i++) {
        int status = 0;
        assert_int_equal(waitpid(mine[i], &status, 0), mine[i]);
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
        assert_int_equal(waitpid(other[i], &status, WNOHANG), 0);
        end_sleeper(other[i]);
    }
}

/* ---- cleaning ---------------------------------------------------------------------------------
 */

static void test_clean(void **state)
{
    char own[512], name[128];
    unsigned uid = (unsigned)geteuid();
    (void)state;
    assert_ok(pt_file_make_folders(in_folder("s/ompi.h.0/pid.9/0/1"), &err), &err);
    assert_ok(pt_file_make_folders(in_folder("shm"), &err), &err);
    assert_ok(pt_file_make_folders(in_folder("elsewhere"), &err), &err);
    write_text("elsewhere/precious", "");
    assert_int_equal(symlink(in_folder("elsewhere"), in_folder("s/ompi.h.0/link")), 0);
    write_text("s/ompi.h.0/pid.9/contact.txt", "1324220416.0;tcp://1.2.3.4:5\n"); /* 0x4eee0000 */
    static const struct {
        const char *format;
        bool goes;
    } cases[] = {
        {"shm/vader_segment.h.%u.4eee0001.0", true},
        {"shm/vader_segment.h.%u.4eee0002.13", true},
        {"shm/vader_segment.h.%u.4eef0001.0", false},
        {"shm/vader_segment.h.%u.14eee0001.0", false},
        {"shm/vader_segment.h.9%u.4eee0001.0", false},
        {"shm/other.h.%u.4eee0001.0", false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        snprintf(name, sizeof name, cases[i].format, uid);
        write_text(name, "");
    }
    snprintf(own, sizeof own, "%s", in_folder("s"));
    assert_ok(pt_clean(own, in_folder("shm"), &err), &err);
    assert_false(is_there("s"));
    assert_true(is_there("elsewhere/precious"));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        snprintf(name, sizeof name, cases[i].format, uid);
        if (is_there(name) == cases[i].goes)
            fail_msg("%s %s", name, cases[i].goes ? "is still there" : "was removed");
    }
    assert_ok(pt_clean(own, in_folder("shm"), &err), &err); /* nothing is there any more */
    assert_ok(pt_clean("", in_folder("shm"), &err), &err);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_state),      cmocka_unit_test(test_older_state),
        cmocka_unit_test(test_bad_states), cmocka_unit_test(test_lock),
        cmocka_unit_test(test_identity),   cmocka_unit_test(test_marked_end),
        cmocka_unit_test(test_clean),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
