/* The launcher's loop over processes of this test's own: what it takes for the user's wish. */
#include "signals.h"
#include "watch.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "suite.h"

/* A child that has ended with `code`, and that nobody has asked for that yet. */
static pt_process ended_with(int code)
{
    siginfo_t info;
    pid_t pid = fork();
    if (pid == 0)
        _exit(code);
    assert_true(pid > 0);
    assert_int_equal(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT), 0);
    return (pt_process){.pid = pid};
}

static pt_ending watch(int signals, pt_wish *wish, const pt_process *mpirun)
{
    pt_watch w = {.signals = signals, .wish = wish, .progress = "/nowhere"};
    pt_ending ending;
    pt_watch_job(&w, mpirun, &ending);
    return ending;
}

/* mpirun has ended before the launcher comes to read what was sent to both. */
static void test_signals_that_wait(void **state)
{
    static const struct {
        int numbers[2];
        pt_wish wish;
    } cases[] = {
        {{0, 0}, PT_WISH_GO_ON},
        {{SIGTERM, 0}, PT_WISH_STOP},
        {{SIGUSR1, SIGHUP}, PT_WISH_STOP},
        {{SIGTERM, SIGINT}, PT_WISH_STOP}, /* SIGINT is read first: it is no second Ctrl-C */
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        pt_wish wish = PT_WISH_GO_ON;
        pt_process mpirun = ended_with(130);
        for (int k = 0; k < 2; k++)
            if (cases[i].numbers[k])
                raise(cases[i].numbers[k]);
        pt_ending ending = watch(*(int *)*state, &wish, &mpirun);
        assert_int_equal(ending.cause, PT_CAUSE_ENDED);
        assert_int_equal(ending.code, 130);
        assert_int_equal(ending.wish, cases[i].wish);
        assert_int_equal(wish, cases[i].wish);
    }
}

/* Nothing to wait for, but something to be read. */
static void test_signals_before_a_restart_at_once(void **state)
{
    pt_wish wish = PT_WISH_GO_ON;
    pt_watch w = {.signals = *(int *)*state, .wish = &wish};
    pt_watch_pause(&w, 0);
    assert_int_equal(wish, PT_WISH_GO_ON);
    raise(SIGTERM);
    pt_watch_pause(&w, 0);
    assert_int_equal(wish, PT_WISH_STOP);
}

static int open_signals(void **state)
{
    static int signals;
    pt_error err = {PT_OK, ""};
    *state = &signals;
    return pt_signals_open(&signals, &err) == PT_OK ? 0 : -1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_signals_that_wait),
        cmocka_unit_test(test_signals_before_a_restart_at_once),
    };
    signal(SIGHUP, SIG_DFL); /* this may run under nohup */
    return cmocka_run_group_tests(tests, open_signals, NULL);
}
