/* Gives the files of a corpus to a target, each once; prints TAP. What fuzzing once found stays
 * found, in every build and without a fuzzer.
 *
 *   valid-…   must be accepted: the target gets as far as it is meant to
 *   bad-…     must be refused
 *   others    are what they are: inputs that once broke something */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"

static uint8_t *read_file(const char *folder, const char *name, size_t *ret_bytes)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "rb");
    if (!file || fseek(file, 0, SEEK_END) != 0)
        return NULL;
    size_t bytes = (size_t)ftell(file);
    rewind(file);
    /* Not a byte more than the file has, so that a sanitizer sees who reads beyond its end. */
    uint8_t *data = malloc(bytes ? bytes : 1);
    bool got = data && fread(data, 1, bytes, file) == bytes;
    fclose(file);
    *ret_bytes = bytes;
    return got ? data : NULL;
}

static bool begins(const char *name, const char *with)
{
    return strncmp(name, with, strlen(with)) == 0;
}

static bool replay(const char *folder, const char *name)
{
    size_t bytes = 0;
    uint8_t *data = read_file(folder, name, &bytes);
    if (!data) {
        printf("# %s/%s cannot be read\n", folder, name);
        return false;
    }
    bool accepted = fuzz_one(data, bytes);
    free(data);
    return accepted ? !begins(name, "bad-") : !begins(name, "valid-");
}

/* A target that accepts nothing, or everything, has a corpus that shows nothing. */
static bool has(struct dirent *const *entries, int n, const char *kind)
{
    for (int i = 0; i < n; i++)
        if (begins(entries[i]->d_name, kind))
            return true;
    printf("# no seed is called %s…\n", kind);
    return false;
}

static int is_seed(const struct dirent *entry)
{
    return entry->d_name[0] != '.';
}

int main(int argc, char **argv)
{
    struct dirent **entries = NULL;
    int n = argc == 2 ? scandir(argv[1], &entries, is_seed, alphasort) : -1, failed = 0;
    if (n < 1) {
        fprintf(stderr, "usage: %s FOLDER-WITH-A-CORPUS\n", argv[0]);
        return 2;
    }
    bool both_kinds = has(entries, n, "valid-") && has(entries, n, "bad-");
    printf("1..%d\n%s 1 - seeds of both kinds\n", n + 1, both_kinds ? "ok" : "not ok");
    for (int i = 0; i < n; i++) {
        fflush(stdout); /* a crash must not swallow what was well before */
        bool good = replay(argv[1], entries[i]->d_name);
        printf("%s %d - %s\n", good ? "ok" : "not ok", i + 2, entries[i]->d_name);
        failed += !good;
        free(entries[i]);
    }
    free(entries);
    return failed > 0 || !both_kinds;
}
