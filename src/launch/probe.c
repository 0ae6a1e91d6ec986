/* Asking hosts: one shell each, all at once. */
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/wait.h>

#include "child.h"
#include "hosts.h"
#include "pipetrain/clock.h"

static const int64_t PAUSE_NS = 5000000; /* between looks at those that have not answered */

/* 0: it could not be started. */
static pid_t ask(const char *command, char *name)
{
    char *words[] = {"/bin/sh", "-c", (char *)(uintptr_t)command, "probe", name, NULL};
    pid_t pid = 0;
    return pt_child_start(words, /*silent=*/true, &pid) == 0 ? pid : 0;
}

/* How many have not answered yet. */
static int hear(pt_hosts *hosts, pid_t *asked)
{
    int waiting = 0;
    for (int i = 0; i < hosts->n; i++) {
        int status = 0;
        if (asked[i] == 0)
            continue;
        if (waitpid(asked[i], &status, WNOHANG) == 0) {
            waiting++;
            continue;
        }
        hosts->list[i].is_left = !WIFEXITED(status) || WEXITSTATUS(status) != 0;
        asked[i] = 0;
    }
    return waiting;
}

pt_status pt_hosts_probe(pt_hosts *hosts, const char *command, double limit_s, pt_error *err)
{
    pid_t *asked = calloc((size_t)hosts->n + 1, sizeof *asked);
    if (!asked)
        return pt_fail(err, PT_ENOMEM, "no memory to ask %d hosts", hosts->n);
    for (int i = 0; i < hosts->n; i++) {
        bool local = pt_host_is_local(hosts->list[i].name);
        asked[i] = local ? 0 : ask(command, hosts->list[i].name);
        hosts->list[i].is_left = !local;
    }
    int64_t end = pt_clock_ns() + (int64_t)(limit_s * 1e9);
    while (hear(hosts, asked) > 0 && pt_clock_ns() < end)
        pt_clock_sleep_ns(PAUSE_NS);
    for (int i = 0; i < hosts->n; i++) {
        if (asked[i] == 0)
            continue;
        kill(-asked[i], SIGKILL); /* all of its session */
        waitpid(asked[i], NULL, 0);
    }
    free(asked);
    return PT_OK;
}
