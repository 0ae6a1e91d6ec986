/* Files that are written. Two in one: the later one would write over the other.
 *
 * Folders (--save, --checkpoint) may be shared, for no two files in them have the same name. */
#include "outputs.h"

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

/* When it is opened. */
typedef enum moment { AT_THE_START, AT_THE_END, AT_THE_END_OF_TRAINING } moment;

static const struct {
    const char *option;
    size_t offset;
    moment moment;
} outputs[] = {
    {"out", offsetof(pt_settings, out), AT_THE_END},
    {"plan-out", offsetof(pt_settings, plan_out), AT_THE_END},
    {"schedule-out", offsetof(pt_settings, schedule_out), AT_THE_END_OF_TRAINING},
    {"clock-out", offsetof(pt_settings, clock_out), AT_THE_END},
    {"log", offsetof(pt_settings, log), AT_THE_START},
    {"timing", offsetof(pt_settings, timing), AT_THE_START},
    {"trace", offsetof(pt_settings, trace), AT_THE_START},
    {"summary", offsetof(pt_settings, summary), AT_THE_END_OF_TRAINING},
};

enum { N_OUTPUTS = sizeof outputs / sizeof *outputs };

static const char *path_of(const pt_settings *s, int i)
{
    return *(char *const *)((const char *)s + outputs[i].offset);
}

static const char *without_dots(const char *path)
{
    while (strncmp(path, "./", 2) == 0)
        path += 2;
    return path;
}

/* Not devices: /dev/null and terminals take what anybody writes. */
static bool is_same(const char *one, const char *other)
{
    struct stat a, b;
    bool same_name = strcmp(without_dots(one), without_dots(other)) == 0;
    if (stat(one, &a) != 0 || stat(other, &b) != 0)
        return same_name;
    return S_ISREG(a.st_mode) && a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

pt_status pt_outputs_check(pt_run *run, pt_error *err)
{
    const pt_settings *s = run->settings;
    if (run->rank != 0)
        return PT_OK;
    for (int i = 0; i < N_OUTPUTS; i++)
        for (int k = i + 1; k < N_OUTPUTS && path_of(s, i); k++)
            if (path_of(s, k) && is_same(path_of(s, i), path_of(s, k)))
                return pt_fail(err, PT_EINPUT,
                               "--%s %s and --%s %s are one file, and each would write over the "
                               "other; give them two",
                               outputs[i].option, path_of(s, i), outputs[k].option, path_of(s, k));
    return PT_OK;
}

static bool is_tried(const pt_run *run, int i)
{
    return path_of(run->settings, i) && outputs[i].moment != AT_THE_START &&
           !(run->settings->infer && outputs[i].moment == AT_THE_END_OF_TRAINING);
}

pt_status pt_outputs_try(const pt_run *run, pt_error *err)
{
    for (int i = 0; i < N_OUTPUTS && run->rank == 0; i++) {
        const char *path = path_of(run->settings, i);
        FILE *file = is_tried(run, i) ? fopen(path, "a") : NULL;
        if (is_tried(run, i) && !file)
            return pt_fail(err, PT_EINPUT, "--%s: cannot write %s: %s", outputs[i].option, path,
                           strerror(errno));
        if (file)
            fclose(file);
    }
    return PT_OK;
}
