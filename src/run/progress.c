#include "progress.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "pipetrain/log.h"

static const char VARIABLE[] = "PIPETRAIN_PROGRESS";

struct pt_progress {
    const pt_run *run;
    int file;
    bool failed;
};

static void warn(const char *what)
{
    pt_log(PT_LOG_WARNING, "%s: cannot %s %s: %s; nobody will see there how far the run has come",
           VARIABLE, what, getenv(VARIABLE), strerror(errno));
}

pt_progress *pt_progress_open(const pt_run *run)
{
    const char *path = getenv(VARIABLE);
    if (!path || !*path)
        return NULL;
    int file = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
    pt_progress *p = file >= 0 ? calloc(1, sizeof *p) : NULL;
    if (!p) {
        warn("open");
        if (file >= 0)
            close(file);
        return NULL;
    }
    p->run = run;
    p->file = file;
    return p;
}

void pt_progress_step(pt_progress *p, int64_t step)
{
    if (!p || p->failed)
        return;
    char line[PT_PROGRESS_BYTES + 1];
    memset(line, ' ', sizeof line);
    int n = snprintf(line, sizeof line, "launch %lld step %lld of %lld median-step-us %lld",
                     (long long)p->run->launch, (long long)step, (long long)p->run->total_steps,
                     (long long)(pt_mark_median_ns(&p->run->mark) / 1000));
    if (n >= 0 && n < PT_PROGRESS_BYTES)
        line[n] = ' ';
    line[PT_PROGRESS_BYTES - 1] = '\n';
    p->failed = pwrite(p->file, line, PT_PROGRESS_BYTES, /*offset=*/0) != PT_PROGRESS_BYTES;
    if (p->failed)
        warn("write");
}

void pt_progress_touch(pt_progress *p)
{
    if (p)
        futimens(p->file, NULL); /* its bytes are the other thread's business */
}

void pt_progress_close(pt_progress *p)
{
    if (!p)
        return;
    close(p->file);
    free(p);
}
