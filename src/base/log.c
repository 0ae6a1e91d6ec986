/* The program's own voice on stderr. A message is one write(), so that lines of several ranks on
 * one terminal do not mix. */
#include "pipetrain/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "pipetrain/status.h"

enum { LINE_TEXT = PT_ERROR_TEXT + 128 }; /* a whole error message and what stands before it */

static pt_log_level shown_level = PT_LOG_INFO;
static int own_rank = -1;

static const char *const LEVEL_WORDS[] = {
    [PT_LOG_ERROR] = "error: ",
    [PT_LOG_WARNING] = "warning: ",
    [PT_LOG_INFO] = "",
    [PT_LOG_DEBUG] = "debug: ",
};

void pt_log_init(pt_log_level level, int rank)
{
    shown_level = level;
    own_rank = rank;
}

void pt_log(pt_log_level level, const char *format, ...)
{
    if (level > shown_level)
        return;
    char line[LINE_TEXT];
    size_t room = sizeof line - 1; /* for the line's end */
    int length = 0;
    if (own_rank >= 0)
        length = snprintf(line, room, "rank %d: ", own_rank);
    length += snprintf(line + length, room - (size_t)length, "%s", LEVEL_WORDS[level]);
    va_list args;
    va_start(args, format);
    vsnprintf(line + length, room - (size_t)length, format, args);
    va_end(args);
    size_t bytes = strlen(line);
    line[bytes++] = '\n';
    for (size_t done = 0; done < bytes;) {
        ssize_t wrote = write(STDERR_FILENO, line + done, bytes - done);
        if (wrote < 0 && errno == EINTR)
            continue;
        if (wrote <= 0)
            return; /* stderr is gone: nobody is left to tell */
        done += (size_t)wrote;
    }
}
