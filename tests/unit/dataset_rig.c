#include "dataset_rig.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <zlib.h>

pt_error error;

void put(const char *name, const void *bytes, size_t n)
{
    FILE *stream = fopen(in_folder(name), "wb");
    assert_non_null(stream);
    assert_int_equal(fwrite(bytes, 1, n, stream), n);
    assert_int_equal(fclose(stream), 0);
}

void put_gz(const char *name, const void *bytes, size_t n)
{
    gzFile gz = gzopen(in_folder(name), "wb");
    assert_non_null(gz);
    assert_int_equal(gzwrite(gz, bytes, (unsigned)n), n);
    assert_int_equal(gzclose(gz), Z_OK);
}

void cut(const char *name, off_t bytes)
{
    assert_int_equal(truncate(in_folder(name), bytes), 0);
}

off_t size_of(const char *name)
{
    struct stat info;
    assert_int_equal(stat(in_folder(name), &info), 0);
    return info.st_size;
}

void poke(const char *name, off_t at, uint8_t value)
{
    int fd = open(in_folder(name), O_WRONLY);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, &value, 1, at), 1);
    close(fd);
}

pt_dataset_spec spec_of(const char *name, int64_t channels, int64_t height, int64_t width)
{
    return (pt_dataset_spec){.name = name,
                             .path = folder,
                             .shape = {3, {channels, height, width}},
                             .outputs = 10,
                             .want_inputs = true,
                             .want_answers = true};
}

void make_idx(uint8_t images[IMAGES_SIZE], uint8_t labels[LABELS_SIZE])
{
    const uint8_t images_head[IMAGES_HEAD] = {0, 0, 8, 3,     0, 0, 0, IDX_N,
                                              0, 0, 0, IDX_H, 0, 0, 0, IDX_W};
    const uint8_t labels_head[LABELS_HEAD] = {0, 0, 8, 1, 0, 0, 0, IDX_N};
    memcpy(images, images_head, IMAGES_HEAD);
    memcpy(labels, labels_head, LABELS_HEAD);
    for (int i = 0; i < IDX_N; i++) {
        labels[LABELS_HEAD + i] = (uint8_t)(9 - i);
        for (int e = 0; e < IDX_E; e++)
            images[IMAGES_HEAD + i * IDX_E + e] = (uint8_t)(10 * i + e);
    }
}

void put_idx(void)
{
    uint8_t images[IMAGES_SIZE], labels[LABELS_SIZE];
    make_idx(images, labels);
    put(IMAGES, images, sizeof images);
    put(LABELS, labels, sizeof labels);
}
