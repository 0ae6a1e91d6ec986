/* Small helpers on text: nearest word, lists of names, numbers, formatting, whole-file reads. */
#include "pipetrain/text.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { WORD_MAX = 128 }; /* longer words are no slips of the finger */

static int least(int a, int b)
{
    return a < b ? a : b;
}

static char lower(const char *word, size_t i)
{
    return (char)tolower((unsigned char)word[i]);
}

/* Edit distance where swapping two neighbours is one slip, as "btach" for "batch" is (optimal
 * string alignment); upper and lower case are the same. Both words are shorter than WORD_MAX.
 * Three rows of the usual table are enough: a swap looks back two. */
static int distance(const char *a, size_t na, const char *b, size_t nb)
{
    int rows[3][WORD_MAX];
    int *before = rows[0], *last = rows[1], *now = rows[2];
    for (size_t j = 0; j <= nb; j++)
        last[j] = (int)j;
    for (size_t i = 1; i <= na; i++) {
        now[0] = (int)i;
        for (size_t j = 1; j <= nb; j++) {
            int differs = lower(a, i - 1) != lower(b, j - 1);
            int d = least(least(last[j], now[j - 1]) + 1, last[j - 1] + differs);
            if (i > 1 && j > 1 && lower(a, i - 1) == lower(b, j - 2) &&
                lower(a, i - 2) == lower(b, j - 1))
                d = least(d, before[j - 2] + 1);
            now[j] = d;
        }
        int *reused = before;
        before = last;
        last = now;
        now = reused;
    }
    return last[nb];
}

const char *pt_text_nearest(const char *word, const char *const *names, int n)
{
    const char *nearest = NULL;
    int nearest_distance = WORD_MAX;
    size_t length = strlen(word);
    if (length >= WORD_MAX)
        return NULL;
    for (int i = 0; i < n; i++) {
        size_t name_length = strlen(names[i]);
        if (name_length >= WORD_MAX)
            continue;
        int d = distance(word, length, names[i], name_length);
        size_t longer = length > name_length ? length : name_length;
        if (3 * (size_t)d <= longer && d < nearest_distance) {
            nearest = names[i];
            nearest_distance = d;
        }
    }
    return nearest;
}

const char *pt_text_join(const char *const *names, int n, char *text, size_t size)
{
    size_t used = 0;
    text[0] = 0;
    for (int i = 0; i < n && used < size; i++)
        used += (size_t)snprintf(text + used, size - used, "%s%s", i ? ", " : "", names[i]);
    return text;
}

bool pt_text_number(const char *text, double *ret_value)
{
    if (!*text || text[strspn(text, "0123456789+-.eE")])
        return false; /* strtod() alone would take more than we promise */
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end)
        return false;
    *ret_value = value;
    return true;
}

char *pt_text_format(const char *format, ...)
{
    char *text = NULL;
    va_list args;
    va_start(args, format);
    int length = vasprintf(&text, format, args);
    va_end(args);
    return length < 0 ? NULL : text;
}

/* Reads until the end, whatever fstat said: pipes have no size and files grow. */
static pt_status read_all(int fd, const char *path, size_t room, char **ret_text, size_t *ret_bytes,
                          pt_error *err)
{
    pt_status status = PT_OK;
    size_t bytes = 0;
    char *text = malloc(room);
    if (!text)
        return pt_fail(err, PT_ENOMEM, "%s: no memory for its %zu bytes", path, room);
    for (;;) {
        if (bytes + 1 == room) {
            char *more = room > SIZE_MAX / 2 ? NULL : realloc(text, room * 2);
            if (!more) {
                status = pt_fail(err, PT_ENOMEM, "%s: no memory for over %zu bytes", path, room);
                break;
            }
            text = more;
            room *= 2;
        }
        ssize_t got = read(fd, text + bytes, room - 1 - bytes);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            status = pt_fail(err, PT_EIO, "%s: cannot be read: %s", path, strerror(errno));
        if (got <= 0)
            break;
        bytes += (size_t)got;
    }
    if (status != PT_OK) {
        free(text);
        return status;
    }
    text[bytes] = 0;
    *ret_text = text;
    *ret_bytes = bytes;
    return PT_OK;
}

pt_status pt_text_read_file(const char *path, char **ret_text, size_t *ret_bytes, pt_error *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        bool missing = errno == ENOENT || errno == ENOTDIR || errno == ENAMETOOLONG;
        return missing ? pt_fail(err, PT_EINPUT, "%s: no such file", path)
                       : pt_fail(err, PT_EIO, "%s: cannot be opened: %s", path, strerror(errno));
    }
    pt_status status;
    struct stat info;
    if (fstat(fd, &info) != 0)
        status = pt_fail(err, PT_EIO, "%s: cannot be read: %s", path, strerror(errno));
    else if (S_ISDIR(info.st_mode))
        status = pt_fail(err, PT_EINPUT, "%s: is a folder; a file is wanted", path);
    else /* two bytes more: the closing 0, and room to see that the end has come */
        status = read_all(fd, path, (size_t)info.st_size + 2, ret_text, ret_bytes, err);
    close(fd);
    return status;
}
