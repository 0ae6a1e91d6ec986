/* Segments lie in one folder with those of all other jobs, and are named by the job's number:
 *
 *     /dev/shm/vader_segment.HOST.USER.4eee0001.RANK      4eee: the family, 0001: the job in it
 *     SESSION/ompi.HOST.USER/pid.PID/contact.txt          "1324220416.0;tcp://…" = 4eee0000
 *
 * So the session directory tells which segments are ours, and goes last. */
#include "clean.h"

#include <errno.h>
#include <ftw.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "pipetrain/text.h"

enum { OPEN_FOLDERS = 16, FAMILY_SHIFT = 16 };

static bool is_ours(const char *path)
{
    struct stat info;
    return lstat(path, &info) == 0 && info.st_uid == geteuid();
}

static void remove_matching(const char *pattern)
{
    glob_t found;
    if (glob(pattern, GLOB_NOSORT, NULL, &found) != 0)
        return;
    for (size_t i = 0; i < found.gl_pathc; i++)
        if (is_ours(found.gl_pathv[i]))
            unlink(found.gl_pathv[i]);
    globfree(&found);
}

/* Segments of the family whose mpirun wrote this file. */
static pt_status remove_segments(const char *contact, const char *shared_memory, pt_error *err)
{
    char *text = NULL;
    size_t bytes = 0;
    pt_error ignored = {PT_OK, ""};
    if (pt_text_read_file(contact, &text, &bytes, &ignored) != PT_OK)
        return PT_OK;
    unsigned long family = strtoul(text, NULL, 10) >> FAMILY_SHIFT;
    free(text);
    if (family == 0)
        return PT_OK;
    char *pattern = pt_text_format("%s/vader_segment.*.%u.%lx[0-9a-f][0-9a-f][0-9a-f][0-9a-f].*",
                                   shared_memory, (unsigned)geteuid(), family);
    if (!pattern)
        return pt_fail(err, PT_ENOMEM, "no memory for a path");
    remove_matching(pattern);
    free(pattern);
    return PT_OK;
}

static int remove_one(const char *path, const struct stat *info, int kind, struct FTW *place)
{
    (void)info;
    (void)kind;
    (void)place;
    return remove(path) != 0 && errno != ENOENT;
}

pt_status pt_clean(const char *session, const char *shared_memory, pt_error *err)
{
    glob_t found;
    if (!*session || !is_ours(session))
        return PT_OK;
    char *pattern = pt_text_format("%s/ompi.*/pid.*/contact.txt", session);
    if (!pattern)
        return pt_fail(err, PT_ENOMEM, "no memory for a path");
    pt_status status = PT_OK;
    if (glob(pattern, GLOB_NOSORT, NULL, &found) == 0) {
        for (size_t i = 0; status == PT_OK && i < found.gl_pathc; i++)
            status = remove_segments(found.gl_pathv[i], shared_memory, err);
        globfree(&found);
    }
    free(pattern);
    PT_TRY(status);
    if (nftw(session, remove_one, OPEN_FOLDERS, FTW_DEPTH | FTW_PHYS | FTW_MOUNT) != 0)
        return pt_fail(err, PT_EIO, "%s cannot be removed: %s", session, strerror(errno));
    return PT_OK;
}
