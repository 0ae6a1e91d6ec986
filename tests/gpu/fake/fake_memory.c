/* Fake memory: a range of addresses that nobody else uses, cut into blocks of whole pages, closed
 * unless a queue runs. */
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "fake_inside.h"

/* GUARD: bytes behind a block that must stay. MOST_POISON: of a large block only so much is
 * poisoned, for workspaces that nobody reads the fresh bytes of cost more time than all else. */
enum { PAGE = 4096, POISON = 0xa5, GUARD = 64, MOST_POISON = 1 << 20 };

static const size_t pool_bytes = (size_t)64 << 30; /* of addresses */

typedef struct block {
    char *at;
    size_t bytes, taken;
    struct block *next;
} block;

/* Of one device, for all processes that share it. */
typedef struct account {
    _Atomic size_t used, most;
} account;

enum { ACCOUNTS = PAGE / sizeof(account) };

static struct {
    account own[1], *shared;
    char *pool;
    size_t high; /* what was ever used */
    block *device, *host;
    int open;
} memory;

/* ---- doors ---------------------------------------------------------------------------------- */

static void protect(int rights)
{
    if (memory.high > 0 && mprotect(memory.pool, memory.high, rights) != 0)
        pt_fake_misuse("mprotect of %zu bytes failed", memory.high);
}

void pt_fake_open(void)
{
    if (memory.open++ == 0)
        protect(PROT_READ | PROT_WRITE);
}

void pt_fake_shut(void)
{
    if (--memory.open == 0)
        protect(PROT_NONE);
}

bool pt_fake_is_device(const void *at)
{
    const char *c = at;
    return memory.pool && c >= memory.pool && c < memory.pool + pool_bytes;
}

void pt_fake_check_range(const void *at, size_t bytes)
{
    const char *c = at;
    if (!pt_fake_is_device(at))
        return;
    for (const block *b = memory.device; b; b = b->next)
        if (c >= b->at && c + bytes <= b->at + b->bytes)
            return;
    pt_fake_misuse("%zu bytes of device memory at %p are in no live block", bytes, at);
}

/* ---- accounts ------------------------------------------------------------------------------- */

static account *account_of_device(void)
{
    const char *path = getenv("PT_FAKE_SHARED");
    if (!path)
        return memory.own;
    if (!memory.shared) {
        int file = open(path, O_RDWR);
        void *at = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, file, /*offset=*/0);
        if (file < 0 || at == MAP_FAILED || pt_fake_device() >= (int)ACCOUNTS)
            pt_fake_misuse("%s cannot be shared", path);
        (void)close(file);
        memory.shared = at;
    }
    return &memory.shared[pt_fake_device()];
}

/* Whether the device has so much left; then it is taken. */
static bool take(size_t bytes)
{
    account *a = account_of_device();
    size_t used = atomic_fetch_add(&a->used, bytes) + bytes, most = atomic_load(&a->most);
    if (bytes > pt_fake_memory_bytes() || used > pt_fake_memory_bytes()) {
        (void)atomic_fetch_sub(&a->used, bytes);
        return false;
    }
    while (used > most && !atomic_compare_exchange_weak(&a->most, &most, used))
        ;
    return true;
}

static void give(size_t bytes)
{
    (void)atomic_fetch_sub(&account_of_device()->used, bytes);
}

/* ---- device --------------------------------------------------------------------------------- */

static cudaError_t map_pool(void)
{
    if (memory.pool)
        return cudaSuccess;
    void *pool = mmap(NULL, pool_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1,
                      /*offset=*/0);
    if (pool == MAP_FAILED)
        return cudaErrorMemoryAllocation;
    memory.pool = pool;
    return cudaSuccess;
}

static void check_guard(const block *b)
{
    for (int i = 0; i < GUARD; i++)
        if ((unsigned char)b->at[b->bytes + i] != POISON)
            pt_fake_misuse("something was written behind a block of %zu bytes", b->bytes);
}

/* The first gap, in the order of addresses. */
static block **find_gap(size_t taken, char **ret_at)
{
    block **link = &memory.device;
    char *at = memory.pool;
    for (; *link && (size_t)((*link)->at - at) < taken; link = &(*link)->next)
        at = (*link)->at + (*link)->taken;
    *ret_at = at;
    return link;
}

static cudaError_t device_new(void **ret_at, size_t bytes)
{
    size_t taken = (bytes + GUARD + PAGE - 1) / PAGE * PAGE;
    block *b = calloc(1, sizeof *b);
    if (!b || map_pool() != cudaSuccess || !take(bytes)) {
        free(b);
        return cudaErrorMemoryAllocation;
    }
    block **link = find_gap(taken, &b->at);
    b->bytes = bytes;
    b->taken = taken;
    b->next = *link;
    *link = b;
    if (memory.high < (size_t)(b->at - memory.pool) + taken)
        memory.high = (size_t)(b->at - memory.pool) + taken;
    memory.open++; /* the range grew: open all of it */
    protect(PROT_READ | PROT_WRITE);
    memset(b->at, POISON, taken < MOST_POISON ? taken : MOST_POISON);
    memset(b->at + bytes, POISON, GUARD);
    pt_fake_shut();
    *ret_at = b->at;
    return cudaSuccess;
}

cudaError_t cudaMalloc(void **ret_at, size_t bytes)
{
    if (pt_fake_strikes(PT_FAKE_ALLOCATION))
        return cudaErrorMemoryAllocation;
    if (bytes == 0) {
        *ret_at = NULL;
        return cudaSuccess;
    }
    return pt_fake_error(device_new(ret_at, bytes));
}

static block *unlink_block(block **link, const void *at)
{
    while (*link && (*link)->at != at)
        link = &(*link)->next;
    block *b = *link;
    if (b)
        *link = b->next;
    return b;
}

/* Waits for everything, as CUDA does. */
cudaError_t cudaFree(void *at)
{
    if (!at)
        return cudaSuccess;
    pt_fake_run_all();
    block *b = unlink_block(&memory.device, at);
    if (!b)
        pt_fake_misuse("cudaFree of %p, which is no live block", at);
    pt_fake_open();
    check_guard(b);
    memset(b->at, POISON, b->bytes < PAGE ? b->bytes : PAGE);
    pt_fake_shut();
    (void)madvise(b->at, b->taken, MADV_DONTNEED);
    give(b->bytes);
    free(b);
    return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t *ret_free, size_t *ret_total)
{
    *ret_total = pt_fake_memory_bytes();
    size_t used = atomic_load(&account_of_device()->used);
    *ret_free = used < *ret_total ? *ret_total - used : 0;
    return cudaSuccess;
}

/* ---- host ----------------------------------------------------------------------------------- */

cudaError_t cudaHostAlloc(void **ret_at, size_t bytes, unsigned flags)
{
    (void)flags;
    if (pt_fake_strikes(PT_FAKE_ALLOCATION))
        return cudaErrorMemoryAllocation;
    block *b = calloc(1, sizeof *b);
    size_t taken = (bytes + PAGE - 1) / PAGE * PAGE;
    if (b)
        b->at = aligned_alloc(PAGE, taken);
    if (!b || !b->at) {
        free(b);
        return pt_fake_error(cudaErrorMemoryAllocation);
    }
    memset(b->at, POISON, taken);
    b->bytes = bytes;
    b->next = memory.host;
    memory.host = b;
    *ret_at = b->at;
    return cudaSuccess;
}

cudaError_t cudaFreeHost(void *at)
{
    if (!at)
        return cudaSuccess;
    block *b = unlink_block(&memory.host, at);
    if (!b)
        pt_fake_misuse("cudaFreeHost of %p, which is no live block", at);
    free(b->at);
    free(b);
    return cudaSuccess;
}

void pt_fake_count_memory(pt_fake_live *live)
{
    for (const block *b = memory.device; b; b = b->next)
        live->device_blocks++;
    for (const block *b = memory.host; b; b = b->next)
        live->host_blocks++;
}
