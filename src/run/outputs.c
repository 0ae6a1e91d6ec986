/* Two outputs in one file: the later one would write over the other.
 *
 * Folders (--save, --checkpoint) may be shared, for no two files in them have the same name. */
#include "settings_outputs.h"

#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <sys/stat.h>

static const struct {
    const char *option;
    size_t offset;
} outputs[] = {
    {"out", offsetof(pt_settings, out)},
    {"plan-out", offsetof(pt_settings, plan_out)},
    {"schedule-out", offsetof(pt_settings, schedule_out)},
    {"clock-out", offsetof(pt_settings, clock_out)},
    {"log", offsetof(pt_settings, log)},
    {"timing", offsetof(pt_settings, timing)},
    {"trace", offsetof(pt_settings, trace)},
    {"summary", offsetof(pt_settings, summary)},
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

/* Not devices: /dev/null and /dev/stdout take what anybody writes. */
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
