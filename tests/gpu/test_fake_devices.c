/* The cuda backend's memory and its choice of a device on the fake runtime (fake/fake.h): what is
 * reserved and refused, and what is said where there is no device. */
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "backend_row.h"
#include "fake/fake.h"
#include "fake_rig.h"
#include "suite.h"

/* ---- memory -----------------------------------------------------------------------------------
 */

static void test_reserve_allocates_once(void **state)
{
    (void)state;
    enum { BLOCKS = 50 };
    pt_error err = {PT_OK, ""};
    pt_backend *b = open_cuda(1);
    void *dev[BLOCKS], *more = NULL;
    size_t bytes = 0, now, peak, there = 0;
    for (size_t i = 0; i < BLOCKS; i++)
        bytes += 37 * i;
    assert_ok(b->row->reserve(b, bytes, &there, &err), &err);
    int64_t calls = pt_fake_calls(PT_FAKE_ALLOCATION);
    for (size_t i = 0; i < BLOCKS; i++)
        dev[i] = device(b, 37 * i);
    b->row->memory(b, &now, &peak);
    assert_int_equal(now, bytes); /* as asked, not as rounded */
    assert_int_equal(pt_fake_calls(PT_FAKE_ALLOCATION), calls);
    assert_fails(b->row->dev_new(b, (size_t)64 << 20, &more, &err), PT_ENOMEM, "67108864 bytes",
                 &err);
    assert_non_null(strstr(err.text, "micro-batch"));
    assert_fails(b->row->reserve(b, bytes, NULL, &err), PT_EINTERNAL, "second time", &err);
    for (size_t i = 0; i < BLOCKS; i++)
        b->row->dev_free(b, dev[i]);
    assert_ok(b->row->reserve(b, 2 * bytes, NULL, &err), &err); /* nothing is in use: anew */
    b->row->memory(b, &now, &peak);
    assert_int_equal(now, 0);
    assert_int_equal(peak, bytes);
    close_cuda(b);
}

/* What does not fit is refused at once, and what is said to fit does. */
static void test_reserve_knows_the_limit(void **state)
{
    (void)state;
    pt_error err = {PT_OK, ""};
    pt_backend *b = open_cuda(1);
    size_t there = 0, again = 0;
    pt_fake_set_memory((size_t)400 << 20);
    assert_fails(b->row->reserve(b, (size_t)400 << 20, &there, &err), PT_ENOMEM, "419430400 bytes",
                 &err);
    assert_in_range(there, 1 << 20, (400 - 256) << 20); /* some is left to the libraries */
    assert_fails(b->row->reserve(b, there + 1, NULL, &err), PT_ENOMEM, "left", &err);
    assert_ok(b->row->reserve(b, there, &again, &err), &err);
    assert_int_equal(there, again);
    void *all = device(b, there);
    b->row->dev_free(b, all);
    assert_ok(b->row->reserve(b, there, &again, &err), &err); /* gives the old one back first */
    assert_int_equal(there, again);
    close_cuda(b);
}

static void test_too_much_is_said(void **state)
{
    (void)state;
    pt_error err = {PT_OK, ""};
    pt_backend *b = open_cuda(1);
    void *dev = NULL;
    pt_fake_set_memory((size_t)100 << 20);
    assert_fails(b->row->dev_new(b, (size_t)200 << 20, &dev, &err), PT_ENOMEM,
                 "cudaErrorMemoryAllocation (out of memory); use a smaller --micro-batch", &err);
    assert_fails(b->row->dev_new(b, SIZE_MAX - 8, &dev, &err), PT_ENOMEM, "micro-batch", &err);
    assert_null(dev);
    close_cuda(b);
}

/* What makes the other tests believable: the host that reads device memory does not survive. */
static void test_host_cannot_read_the_device(void **state)
{
    (void)state;
    pt_backend *b = open_cuda(1);
    volatile char *dev = device(b, 64);
    int status = 0;
    pid_t child = fork();
    if (child == 0) {
        (void)signal(SIGSEGV, SIG_DFL); /* not cmocka's */
        (void)close(STDERR_FILENO);     /* a sanitizer's report */
        _exit(dev[0]);                  /* zero: would be success */
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_false(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    b->row->dev_free(b, (void *)dev);
    close_cuda(b);
}

/* ---- opening ----------------------------------------------------------------------------------
 */

static void refuses(const char *words)
{
    const pt_backend_config config = {.threads = 1};
    pt_error err = {PT_OK, ""};
    pt_backend *b = NULL;
    assert_fails(backend_row("cuda")->open(&config, &b, &err), PT_EINPUT, words, &err);
    assert_non_null(strstr(err.text, "--backend onednn"));
    assert_null(b);
    assert_int_equal(cudaPeekAtLastError(), cudaSuccess);
    assert_nothing_left();
}

static void test_no_device(void **state)
{
    (void)state;
    pt_fake_reset(1);
    pt_fake_set_devices(0, cudaSuccess);
    refuses("no CUDA device: no CUDA-capable device is detected (cudaErrorNoDevice)");
    pt_fake_set_devices(0, cudaErrorInsufficientDriver);
    pt_fake_set_driver(11080);
    refuses("the driver knows CUDA 11.8, this build needs ");
    pt_fake_set_driver(0);
    refuses("this machine has no NVIDIA driver");
}

static void test_ranks_share_devices(void **state)
{
    (void)state;
    static const char *const names[] = {"GPU 0: ", "GPU 1: ", "GPU 2: ", "GPU 0: ", "GPU 1: "};
    for (int rank = 0; rank < 5; rank++) {
        const pt_backend_config config = {.threads = 1, .local_rank = rank, .precision = PT_BF16};
        const pt_backend_row *row = backend_row("cuda");
        pt_error err = {PT_OK, ""};
        pt_backend *b = NULL;
        char text[200];
        pt_fake_reset(1);
        pt_fake_set_devices(3, cudaSuccess);
        assert_ok(row->open(&config, &b, &err), &err);
        row->describe(b, text, sizeof text);
        assert_memory_equal(text, names[rank], strlen(names[rank]));
        assert_non_null(strstr(text, "bf16"));
        assert_non_null(strstr(text, "cuDNN 9."));
        close_cuda(b);
    }
}

/* --backend auto tries it on the device that the process has chosen, and leaves no context on the
 * first one, which is another rank's. */
static void test_auto_stays_on_its_device(void **state)
{
    (void)state;
    const pt_backend_row *row = NULL;
    pt_error err = {PT_OK, ""}, passed;
    int device_now = -1;
    pt_fake_reset(1);
    pt_fake_set_devices(3, cudaSuccess);
    pt_backend_choose_device("auto", 4);
    assert_ok(pt_backend_find("auto", &row, &passed, &err), &err);
    assert_string_equal(row->name, "cuda");
    assert_int_equal(passed.code, PT_OK);
    assert_int_equal(cudaGetDevice(&device_now), cudaSuccess);
    assert_int_equal(device_now, 1);
    assert_nothing_left();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reserve_allocates_once),
        cmocka_unit_test(test_reserve_knows_the_limit),
        cmocka_unit_test(test_too_much_is_said),
        cmocka_unit_test(test_host_cannot_read_the_device),
        cmocka_unit_test(test_no_device),
        cmocka_unit_test(test_ranks_share_devices),
        cmocka_unit_test(test_auto_stays_on_its_device),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
