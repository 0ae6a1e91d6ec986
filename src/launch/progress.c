/* Reading the progress file, and the limit that follows from it. */
#include "progress.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "pipetrain/text.h"

enum { LINE = 80 }; /* bytes, with the line's end */
static const double LEAST_S = 5, MEDIANS = 10, MOST_S = 1e6;

bool pt_progress_parse(const char *line, pt_progress *ret_progress)
{
    pt_progress p = {0};
    int end = 0;
    int n = sscanf(
        line, "launch %" SCNd64 " step %" SCNd64 " of %" SCNd64 " median-step-us %" SCNd64 "%n",
        &p.launch, &p.step, &p.total, &p.median_us, &end);
    if (n != 4 || line[end + (int)strspn(line + end, " ")] != '\n')
        return false;
    if (p.launch < 0 || p.step < 0 || p.total < 0 || p.median_us < 0)
        return false;
    *ret_progress = p;
    return true;
}

/* Opened each time: only then do network file systems look again. */
bool pt_progress_read(const char *path, pt_progress *ret_progress)
{
    char line[LINE + 1];
    struct stat info;
    pt_progress p;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    ssize_t got = pread(fd, line, LINE, 0);
    bool ok = fstat(fd, &info) == 0 && got > 0;
    close(fd);
    line[got > 0 ? got : 0] = 0;
    if (!ok || !pt_progress_parse(line, &p))
        return false;
    p.modified_ns = (int64_t)info.st_mtim.tv_sec * 1000000000 + info.st_mtim.tv_nsec;
    *ret_progress = p;
    return true;
}

bool pt_progress_differs(const pt_progress *one, const pt_progress *other)
{
    return one->launch != other->launch || one->step != other->step ||
           one->modified_ns != other->modified_ns;
}

pt_status pt_stall_parse(const char *where, const char *text, pt_stall *ret_stall, pt_error *err)
{
    pt_stall stall = {.is_off = strcmp(text, "off") == 0, .is_auto = strcmp(text, "auto") == 0};
    bool named = stall.is_off || stall.is_auto;
    if (!named &&
        (!pt_text_number(text, &stall.seconds) || !(stall.seconds > 0) || stall.seconds > MOST_S))
        return pt_fail(err, PT_EINPUT,
                       "%s \"%s\": write a number of seconds above 0, such as 30, or auto, or off",
                       where, text);
    *ret_stall = stall;
    return PT_OK;
}

int64_t pt_stall_limit_ns(const pt_stall *stall, int64_t median_us)
{
    double steps = MEDIANS * (double)median_us / 1e6;
    double seconds = !stall->is_auto ? stall->seconds : steps > LEAST_S ? steps : LEAST_S;
    return stall->is_off ? 0 : (int64_t)(seconds * 1e9);
}
