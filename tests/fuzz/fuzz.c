#include "fuzz.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

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

static char folder[256];

static void remove_folder(void)
{
    DIR *all = opendir(folder);
    for (struct dirent *entry; all && (entry = readdir(all));)
        unlinkat(dirfd(all), entry->d_name, 0); /* refuses "." and ".." by itself */
    if (all)
        closedir(all);
    rmdir(folder);
}

static void make_folder(void)
{
    const char *base = getenv("TMPDIR");
    snprintf(folder, sizeof folder, "%s/pt-fuzz-XXXXXX", base && *base ? base : "/tmp");
    FUZZ_PROMISE(mkdtemp(folder));
    atexit(remove_folder);
}

const char *fuzz_folder(void)
{
    if (!folder[0])
        make_folder();
    return folder;
}

const char *fuzz_file(const char *name, const uint8_t *data, size_t bytes)
{
    static char paths[4][512];
    static int next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", fuzz_folder(), name);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    FUZZ_PROMISE(fd >= 0 && write(fd, data, bytes) == (ssize_t)bytes && close(fd) == 0);
    return path;
}
