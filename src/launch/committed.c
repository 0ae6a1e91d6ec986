/* Two small files. */
#include "committed.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "pipetrain/text.h"

static int64_t read_number(const char *directory, const char *file, const char *format,
                           int64_t otherwise)
{
    char *path = pt_text_format("%s/%s", directory, file), *text = NULL;
    size_t bytes = 0;
    int64_t number = otherwise;
    pt_error ignored = {PT_OK, ""};
    if (path && pt_text_read_file(path, &text, &bytes, &ignored) == PT_OK &&
        (sscanf(text, format, &number) != 1 || number < 0))
        number = otherwise;
    free(text);
    free(path);
    return number;
}

int64_t pt_committed_step(const char *directory)
{
    return read_number(directory, "latest", "step-%" SCNd64, /*otherwise=*/-1);
}

int64_t pt_committed_launch(const char *directory)
{
    return read_number(directory, "launch", "%" SCNd64, /*otherwise=*/0);
}
