/* Ctrl-C. The handler only sets a flag: the loop that sees it reports and leaves in order. If
 * nobody sees it within a second (an op that takes very long, a system call that hangs), SIGALRM
 * ends the process, so that all ranks are gone within two seconds whatever they were doing. */
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "app.h"

static volatile int stop;

enum { PATIENCE_S = 1, EXIT_INTERRUPTED = 130 };

static void leave(int signal_number)
{
    (void)signal_number;
    _exit(EXIT_INTERRUPTED);
}

static void ask_to_stop(int signal_number)
{
    if (stop)
        leave(signal_number);
    stop = signal_number;
    alarm(PATIENCE_S);
}

static void handle(int signal_number, void (*handler)(int))
{
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = handler;
    sigaction(signal_number, &action, NULL);
}

void pt_app_catch_signals(void)
{
    handle(SIGINT, ask_to_stop);
    handle(SIGTERM, ask_to_stop);
    handle(SIGALRM, leave);
}

const volatile int *pt_app_stop_flag(void)
{
    return &stop;
}
