#include "store_rig.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pipetrain/text.h"
#include "suite.h"

enum { BYTES = 1000 };

pt_status write_step(int64_t step, bool *ret_committed, pt_error *err)
{
    static const char *const names[FILES] = {"layer-000-a.safetensors", "layer-001-b.safetensors"};
    char data[BYTES];
    pt_store_file files[FILES];
    pt_error ignored = {PT_OK, ""};
    pt_status status = PT_OK;
    *ret_committed = false;
    for (int i = 0; status == PT_OK && i < FILES; i++) {
        memset(data, (int)step + i, sizeof data);
        files[i] = (pt_store_file){names[i], sizeof data, pt_store_checksum(0, data, sizeof data)};
        status = pt_store_write(folder, step, names[i], data, sizeof data, err);
    }
    if (status == PT_OK)
        status = pt_store_sync(folder, step, err);
    if (status != PT_OK) {
        (void)pt_store_remove(folder, step, &ignored);
        return status;
    }
    json_t *manifest = json_pack("{s:i, s:I}", "format", 1, "step", (json_int_t)step);
    status = pt_store_commit(folder, step, manifest, files, FILES, ret_committed, err);
    json_decref(manifest);
    return status == PT_OK ? pt_store_prune(folder, step, KEEP, /*claims=*/NULL, err) : status;
}

void must_write(int64_t step)
{
    pt_error err = {PT_OK, ""};
    bool committed = false;
    assert_ok(write_step(step, &committed, &err), &err);
    assert_true(committed);
}

bool is_good(int64_t step)
{
    pt_error err = {PT_OK, ""};
    json_t *manifest = NULL;
    bool good = pt_store_read(folder, step, &manifest, &err) == PT_OK;
    if (good)
        assert_int_equal(json_integer_value(json_object_get(manifest, "step")), step);
    json_decref(manifest);
    return good;
}

int64_t latest(void)
{
    pt_error err = {PT_OK, ""};
    char *text = NULL, *path = pt_text_format("%s/latest", folder);
    size_t bytes = 0;
    int64_t step = -1;
    if (pt_text_read_file(path, &text, &bytes, &err) == PT_OK)
        assert_int_equal(sscanf(text, "step-%ld\n", &step), 1);
    free(text);
    free(path);
    return step;
}

int64_t best(void)
{
    pt_error err = {PT_OK, ""};
    int64_t step = 0;
    assert_ok(pt_store_named(folder, PT_STORE_BEST, &step, &err), &err);
    return step;
}

int64_t judge(void)
{
    pt_error err = {PT_OK, ""};
    int64_t *steps = NULL, newest = -1;
    int n = 0;
    assert_ok(pt_store_list(folder, &steps, &n, &err), &err);
    for (int i = 0; i < n; i++)
        if (pt_store_is_committed(folder, steps[i])) {
            assert_true(is_good(steps[i]));
            newest = newest < 0 ? steps[i] : newest;
        }
    free(steps);
    assert_true(is_good(latest()));
    assert_true(best() < 0 || is_good(best()));
    return newest;
}

void call_best(int64_t step)
{
    pt_error err = {PT_OK, ""};
    assert_ok(pt_store_point(folder, PT_STORE_BEST, step, &err), &err);
}

void begin_anew(void)
{
    assert_int_equal(empty_folder(NULL), 0);
    for (int64_t step = 1; step < FIRST; step++)
        must_write(step);
    call_best(1);
}
