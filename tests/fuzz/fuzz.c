#include "fuzz.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../unit/folder.h"

void fuzz_broken(const char *file, int line, const char *promise)
{
    fprintf(stderr, "%s:%d: a promise does not hold: %s\n", file, line, promise);
    abort();
}

static bool is_quiet(const char *text)
{
    for (const unsigned char *c = (const unsigned char *)text; *c; c++)
        if ((*c < ' ' && *c != '\n') || *c == 0x7f || (c[0] == 0xc2 && c[1] >= 0x80 && c[1] < 0xa0))
            return false;
    return true;
}

bool fuzz_accepts(pt_status status, const pt_error *err, const char *where)
{
    if (status == PT_OK)
        return true;
    if (status != PT_EINPUT || err->code != status || !strstr(err->text, where) ||
        !is_quiet(err->text))
        fprintf(stderr, "refused with status %d, code %d: %s\n", status, err->code, err->text);
    FUZZ_PROMISE(status == PT_EINPUT && err->code == PT_EINPUT);
    FUZZ_PROMISE(strstr(err->text, where));
    FUZZ_PROMISE(is_quiet(err->text));
    return false;
}

/* libfyaml 0.7.12 loses what it had read of some broken files, 4 KiB at most a file: a program that
 * reads one file and ends does not mind, and our own leaks still show. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
    return "leak:libfyaml";
}

/* ---- files ---- */

static void end(void)
{
    (void)remove_folder(NULL);
}

const char *fuzz_folder(void)
{
    if (!folder[0]) {
        FUZZ_PROMISE(make_folder(NULL) == 0);
        atexit(end);
    }
    return folder;
}

const char *fuzz_file(const char *name, const uint8_t *data, size_t bytes)
{
    (void)fuzz_folder();
    const char *path = in_folder(name);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    FUZZ_PROMISE(fd >= 0 && write(fd, data, bytes) == (ssize_t)bytes && close(fd) == 0);
    return path;
}
