/* Taking steps away. */
#include "pipetrain/store.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "claims.h"
#include "internal.h"
#include "pipetrain/manifest.h"
#include "pipetrain/text.h"

static pt_status unlink_all(const char *folder, pt_error *err)
{
    struct dirent **entries = NULL;
    int n = scandir(folder, &entries, NULL, NULL);
    pt_status status = PT_OK;
    if (n < 0 && errno != ENOENT)
        return pt_fail(err, PT_EIO, "%s cannot be read: %s", folder, strerror(errno));
    for (int i = 0; i < n; i++) {
        char *path = pt_text_format("%s/%s", folder, entries[i]->d_name);
        bool dots = strcmp(entries[i]->d_name, ".") == 0 || strcmp(entries[i]->d_name, "..") == 0;
        if (status == PT_OK && !path)
            status = pt_store_no_memory(err);
        if (status == PT_OK && !dots && unlink(path) != 0 && errno != ENOENT)
            status = pt_fail(err, PT_EIO, "%s cannot be removed: %s", path, strerror(errno));
        free(path);
        free(entries[i]);
    }
    free(entries);
    return status;
}

pt_status pt_store_remove_folder(const char *folder, pt_error *err)
{
    PT_TRY(unlink_all(folder, err));
    if (rmdir(folder) != 0 && errno != ENOENT)
        return pt_fail(err, PT_EIO, "%s cannot be removed: %s", folder, strerror(errno));
    return PT_OK;
}

pt_status pt_store_remove(const char *dir, int64_t step, pt_error *err)
{
    char *folder = pt_store_path(dir, step, NULL),
         *manifest = pt_store_path(dir, step, PT_MANIFEST);
    pt_status status = folder && manifest ? PT_OK : pt_store_no_memory(err);
    /* From here on it is half-written, whatever becomes of the rest. */
    if (status == PT_OK && unlink(manifest) != 0 && errno != ENOENT)
        status = pt_fail(err, PT_EIO, "%s cannot be removed: %s", manifest, strerror(errno));
    if (status == PT_OK)
        status = pt_store_remove_folder(folder, err);
    free(folder);
    free(manifest);
    return status;
}

static pt_status remove_claimed(const char *dir, int64_t step, pt_claims *claims, pt_error *err)
{
    if (!pt_claims_take(claims, PT_CLAIM_REMOVE, step))
        return PT_OK;
    pt_status status = pt_store_remove(dir, step, err);
    pt_claims_release(claims, PT_CLAIM_REMOVE);
    return status;
}

pt_status pt_store_prune(const char *dir, int64_t newest, int keep, pt_claims *claims,
                         pt_error *err)
{
    int64_t *steps = NULL, best = -1;
    int n = 0, kept = 0;
    if (keep == 0)
        return PT_OK;
    PT_TRY(pt_store_named(dir, PT_STORE_BEST, &best, err));
    PT_TRY(pt_store_list(dir, &steps, &n, err));
    pt_status status = PT_OK;
    for (int i = 0; status == PT_OK && i < n; i++)
        if (steps[i] <= newest && pt_store_is_committed(dir, steps[i]) && kept++ >= keep &&
            steps[i] != best)
            status = remove_claimed(dir, steps[i], claims, err);
    free(steps);
    return status;
}
