/* Partition files, and lists of actions: found and read by rank 0, parsed by all. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "app.h"
#include "pipetrain/text.h"

static const char DEFAULT_FILE[] = "partitions/lenet5.yaml";

/* The folder that holds the running program, or NULL. free() it. */
static char *program_folder(void)
{
    char path[4096];
    ssize_t n = readlink("/proc/self/exe", path, sizeof path - 1);
    if (n <= 0)
        return NULL;
    path[n] = 0;
    char *slash = strrchr(path, '/');
    if (!slash)
        return NULL;
    *slash = 0;
    return strdup(path);
}

char *pt_app_default_partition(void)
{
    /* Beside it, or above the build folder that it lies in, at the top or under src/app. */
    static const char *const places[] = {"", "../", "../../../"};
    if (access(DEFAULT_FILE, R_OK) == 0)
        return strdup(DEFAULT_FILE);
    char *folder = program_folder(), *path = NULL;
    for (int i = 0; folder && i < 3; i++) {
        path = pt_text_format("%s/%s%s", folder, places[i], DEFAULT_FILE);
        if (path && access(path, R_OK) == 0)
            break;
        free(path);
        path = NULL;
    }
    free(folder);
    return path ? path : strdup(DEFAULT_FILE); /* whose absence is then reported by name */
}

/* Rank 0 broadcasts its file; the text, closed by a 0 byte, is the caller's. */
static pt_status share_text(pt_world *world, char **text, size_t *bytes, pt_error *err)
{
    uint64_t n = *bytes;
    PT_TRY(pt_world_broadcast(world, PT_FOR_PARTITION, /*root=*/0, &n, sizeof n, err));
    if (pt_world_rank(world) != 0) {
        *bytes = (size_t)n;
        *text = calloc((size_t)n + 1, 1);
        if (!*text)
            return pt_fail(err, PT_ENOMEM, "no memory for a file of %zu bytes", *bytes);
    }
    return pt_world_broadcast(world, PT_FOR_PARTITION, /*root=*/0, *text, *bytes, err);
}

static pt_status read_everywhere(pt_world *world, const char *path, char **text, size_t *bytes,
                                 pt_error *err)
{
    pt_status status = PT_OK;
    if (pt_world_rank(world) == 0)
        status = pt_text_read_file(path, text, bytes, err);
    PT_TRY(pt_world_agree(world, status, err, NULL));
    return share_text(world, text, bytes, err);
}

pt_status pt_app_read_partition(pt_world *world, const char *path, pt_partition **ret_partition,
                                char **ret_text, pt_error *err)
{
    char *text = NULL;
    size_t bytes = 0;
    pt_partition *partition = NULL;
    pt_status status = PT_OK;
    PT_GOTO(status, read_everywhere(world, path, &text, &bytes, err));
    status = pt_partition_parse(path, text, bytes, &partition, err);
    PT_GOTO(status, pt_world_agree(world, status, err, NULL));
    *ret_partition = partition;
    *ret_text = text;
    return PT_OK;
out:
    pt_partition_free(partition);
    free(text);
    return status;
}

pt_status pt_app_read_lists(pt_world *world, pt_config *config, pt_error *err)
{
    const char *path = pt_config_lists_file(config);
    char *text = NULL;
    size_t bytes = 0;
    if (!path)
        return PT_OK;
    pt_status status = read_everywhere(world, path, &text, &bytes, err);
    if (status == PT_OK)
        status = pt_world_agree(world, pt_config_read_lists(config, text, bytes, err), err, NULL);
    free(text);
    return status;
}
