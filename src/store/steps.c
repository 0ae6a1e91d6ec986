/* Steps of a directory: their names, which there are, which one a file names. */
#include "pipetrain/store.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "pipetrain/manifest.h"
#include "pipetrain/text.h"

static const char PREFIX[] = "step-";

char *pt_store_path(const char *dir, int64_t step, const char *file)
{
    return pt_text_format("%s/%s%06" PRId64 "%s%s", dir, PREFIX, step, file ? "/" : "",
                          file ? file : "");
}

/* -1: it is no step's name. */
static int64_t step_of(const char *name)
{
    const size_t prefix = sizeof PREFIX - 1;
    const char *digits = name + prefix;
    size_t n = strncmp(name, PREFIX, prefix) == 0 ? strspn(digits, "0123456789") : 0;
    return n >= 6 && n <= 18 && !digits[n] ? strtoll(digits, NULL, 10) : -1;
}

static int is_step(const struct dirent *entry)
{
    return step_of(entry->d_name) >= 0;
}

static int newest_first(const void *left, const void *right)
{
    int64_t a = *(const int64_t *)left, b = *(const int64_t *)right;
    return a < b ? 1 : a > b ? -1 : 0;
}

pt_status pt_store_list(const char *dir, int64_t **ret_steps, int *ret_n, pt_error *err)
{
    struct dirent **entries = NULL;
    int n = scandir(dir, &entries, is_step, NULL);
    if (n < 0 && errno != ENOENT)
        return pt_fail(err, PT_EINPUT, "cannot read the directory %s: %s", dir, strerror(errno));
    n = n < 0 ? 0 : n;
    int64_t *steps = calloc((size_t)n + 1, sizeof *steps);
    for (int i = 0; i < n; i++) {
        if (steps)
            steps[i] = step_of(entries[i]->d_name);
        free(entries[i]);
    }
    free(entries);
    if (!steps)
        return pt_fail(err, PT_ENOMEM, "no memory for a list of steps");
    qsort(steps, (size_t)n, sizeof *steps, newest_first);
    *ret_steps = steps;
    *ret_n = n;
    return PT_OK;
}

pt_status pt_store_named(const char *dir, const char *name, int64_t *ret_step, pt_error *err)
{
    size_t bytes = 0;
    char *path = pt_text_format("%s/%s", dir, name), *text = NULL;
    int64_t step = -1;
    bool there = path && access(path, F_OK) == 0;
    pt_status status = path ? PT_OK : pt_fail(err, PT_ENOMEM, "no memory for a path");
    if (there && pt_text_read_file(path, &text, &bytes, err) != PT_OK)
        status = pt_fail(err, PT_EIO, "%s cannot be read", path);
    if (there && status == PT_OK) {
        text[strcspn(text, "\n")] = 0;
        step = step_of(text);
        if (step < 0)
            status = pt_fail(err, PT_EIO, "%s names no step", path);
    }
    if (status == PT_OK)
        *ret_step = step;
    free(text);
    free(path);
    return status;
}

bool pt_store_is_committed(const char *dir, int64_t step)
{
    char *path = pt_store_path(dir, step, PT_MANIFEST);
    bool there = path && access(path, F_OK) == 0;
    free(path);
    return there;
}
