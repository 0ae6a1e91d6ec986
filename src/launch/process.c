/* /proc: who is who. A process is killed by way of a pidfd that was opened before its environment
 * was read: if the number has been used again meanwhile, the signal goes nowhere. */
#include "process.h"

#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <unistd.h>

#include "pipetrain/clock.h"
#include "pipetrain/text.h"

enum { STAT_TEXT = 1024 };
static const int64_t PAUSE_NS = 5000000; /* between looks at what has not ended yet */

/* The part of /proc/PID/stat behind the name, which may hold anything: "S 1 2 …". */
static bool read_stat(int64_t pid, char rest[STAT_TEXT])
{
    char path[64], text[STAT_TEXT];
    snprintf(path, sizeof path, "/proc/%" PRId64 "/stat", pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t got = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    if (fd >= 0)
        close(fd);
    text[got > 0 ? got : 0] = 0;
    const char *name_end = strrchr(text, ')');
    if (!name_end || strlen(name_end) < 3)
        return false;
    snprintf(rest, STAT_TEXT, "%s", name_end + 2);
    return true;
}

static bool has_ended(char state)
{
    return state == 'Z' || state == 'X';
}

pt_process pt_process_now(int64_t pid)
{
    enum { STATE = 3, STARTED = 22 };
    char rest[STAT_TEXT], *save = NULL;
    if (pid <= 0 || !read_stat(pid, rest) || has_ended(rest[0]))
        return (pt_process){0, 0};
    char *word = strtok_r(rest, " ", &save);
    for (int field = STATE; word && field < STARTED; field++)
        word = strtok_r(NULL, " ", &save);
    return (pt_process){pid, word ? strtoll(word, NULL, 10) : 0};
}

bool pt_process_is_alive(const pt_process *process)
{
    return process->pid > 0 && pt_process_now(process->pid).started == process->started;
}

bool pt_process_has_mark(int64_t pid, const char *mark)
{
    char path[64], *text = NULL, want[512];
    size_t bytes = 0;
    bool found = false;
    pt_error ignored = {PT_OK, ""};
    snprintf(path, sizeof path, "/proc/%" PRId64 "/environ", pid);
    int length = snprintf(want, sizeof want, "%s=%s", PT_MARK, mark);
    if (pt_text_read_file(path, &text, &bytes, &ignored) != PT_OK)
        return false;
    for (const char *at = text; !found && at < text + bytes; at += strlen(at) + 1)
        found = length < (int)sizeof want && strcmp(at, want) == 0;
    free(text);
    return found;
}

/* Counts the marked processes, and kills them. */
static int each_marked(const char *mark, bool kills)
{
    int n = 0;
    DIR *proc = opendir("/proc");
    for (struct dirent *entry; proc && (entry = readdir(proc));) {
        int64_t pid = strtoll(entry->d_name, NULL, 10);
        int fd = pid > 0 && pid != getpid() ? pidfd_open((pid_t)pid, 0) : -1;
        if (fd < 0)
            continue;
        if (pt_process_has_mark(pid, mark) && pt_process_now(pid).pid == pid) {
            n++;
            if (kills)
                pidfd_send_signal(fd, SIGKILL, NULL, 0);
        }
        close(fd);
    }
    if (proc)
        closedir(proc);
    return n;
}

int pt_marked_count(const char *mark)
{
    return each_marked(mark, /*kills=*/false);
}

int pt_marked_end(const char *mark, double limit_s)
{
    int n = 0;
    int64_t end = pt_clock_ns() + (int64_t)(limit_s * 1e9);
    while ((n = each_marked(mark, /*kills=*/true)) > 0 && pt_clock_ns() < end)
        pt_clock_sleep_ns(PAUSE_NS);
    return n;
}
