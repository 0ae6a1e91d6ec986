#include "fake_rig.h"

#include "backend_row.h"
#include "fake/fake.h"
#include "pipetrain/arena.h"
#include "suite.h"

pt_backend *open_cuda(uint64_t seed)
{
    const pt_backend_config config = {.threads = 1};
    const pt_backend_row *row = backend_row("cuda");
    pt_error err = {PT_OK, ""};
    pt_backend *b = NULL;
    pt_fake_reset(seed);
    assert_non_null(row);
    assert_ok(row->open(&config, &b, &err), &err);
    return b;
}

void assert_nothing_left(void)
{
    const pt_fake_live live = pt_fake_count_live();
    assert_int_equal(live.device_blocks, 0);
    assert_int_equal(live.host_blocks, 0);
    assert_int_equal(live.streams, 0);
    assert_int_equal(live.events, 0);
}

void close_cuda(pt_backend *b)
{
    b->row->close(b);
    assert_nothing_left();
}

void *device(pt_backend *b, size_t bytes)
{
    pt_error err = {PT_OK, ""};
    void *dev = NULL;
    assert_ok(b->row->dev_new(b, bytes, &dev, &err), &err);
    assert_int_equal((uintptr_t)dev % PT_ALIGN, 0);
    return dev;
}

void *pinned(pt_backend *b, size_t bytes)
{
    pt_error err = {PT_OK, ""};
    void *host = NULL;
    assert_ok(b->row->host_new(b, bytes, &host, &err), &err);
    return host;
}
