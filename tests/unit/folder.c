#include "folder.h"

#include <dirent.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

char folder[256];

static int tell(int failed)
{
    if (failed)
        perror(folder);
    return failed ? -1 : 0;
}

int make_folder(void **state)
{
    (void)state;
    const char *base = getenv("TMPDIR");
    snprintf(folder, sizeof folder, "%s/pt-XXXXXX", base && *base ? base : "/tmp");
    return tell(!mkdtemp(folder));
}

static int remove_entry(const char *path, const struct stat *info, int kind, struct FTW *position)
{
    (void)info;
    (void)kind;
    return position->level == 0 ? 0 : remove(path);
}

int empty_folder(void **state)
{
    (void)state;
    return tell(nftw(folder, remove_entry, 8, FTW_DEPTH | FTW_PHYS));
}

int remove_folder(void **state)
{
    return empty_folder(state) || tell(rmdir(folder)) ? -1 : 0;
}

const char *in_folder(const char *name)
{
    static char paths[4][512];
    static int next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", folder, name);
    return path;
}

int count_entries(const char *path)
{
    int n = 0;
    DIR *entries = opendir(path);
    if (!entries)
        return -1;
    while (readdir(entries))
        n++;
    closedir(entries);
    return n - 2; /* "." and ".." */
}
