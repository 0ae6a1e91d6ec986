/* Device memory: before `reserve` every block is a cudaMalloc of its own, after it all come from
 * one.
 *
 *   arena   | block | block | free … | block |   free …   | rooms |
 *             first gap that is large enough                grow downwards
 *
 * A stage takes its blocks once and keeps them, so that first fit leaves no gaps; the rooms, which
 * grow while kernels are built, stand at the other end, where growing needs no second copy.
 *
 * What `memory` tells is what was asked for, as on CPUs. Rounding comes on top; `reserve` adds a
 * slack for it. */
#include "cuda.h"

#include <stdlib.h>
#include <string.h>

#include "pipetrain/arena.h"

/* GRAIN: as cudaMalloc aligns; it takes whole PIECEs of the device. SLACK: for 16,384 blocks.
 * LIBRARIES are left to the libraries, which load the code of a kernel when it is first called. */
enum { GRAIN = 256, PIECE = 2 << 20, SLACK = 4 << 20, LIBRARIES = 256 << 20 };

struct pt_cuda_block {
    char *at;
    size_t bytes; /* asked for */
    size_t taken; /* rounded */
    pt_cuda_block *next;
};

static size_t round_up(size_t bytes)
{
    return bytes == 0 ? GRAIN : (bytes + GRAIN - 1) / GRAIN * GRAIN;
}

static void count(pt_cuda *cuda, size_t bytes)
{
    cuda->bytes_now += bytes;
    if (cuda->bytes_now > cuda->bytes_peak)
        cuda->bytes_peak = cuda->bytes_now;
}

static void wait_for_lanes(pt_cuda *cuda)
{
    for (int i = 0; i < PT_LANES; i++)
        if (cuda->lane[i])
            (void)cudaStreamSynchronize(cuda->lane[i]); /* a failure comes back where it matters */
}

/* ---- the arena ------------------------------------------------------------------------------ */

static size_t device_free(pt_cuda *cuda)
{
    size_t bytes = 0, total = 0;
    if (cudaMemGetInfo(&bytes, &total) != cudaSuccess) {
        (void)cudaGetLastError();
        return 0;
    }
    bytes += cuda->arena_bytes; /* an arena that is there would be given back first */
    const size_t kept = SLACK + LIBRARIES;
    return bytes > kept ? (bytes - kept) / GRAIN * GRAIN : 0;
}

static void arena_free(pt_cuda *cuda)
{
    if (cuda->arena)
        (void)cudaFree(cuda->arena);
    cuda->arena = NULL;
    cuda->arena_bytes = 0;
}

static pt_status too_little(const pt_cuda *cuda, size_t bytes, size_t there, pt_error *err)
{
    return pt_fail(err, PT_ENOMEM,
                   "training needs %zu bytes of device memory, but GPU %d has %zu left", bytes,
                   cuda->device, there);
}

pt_status pt_cuda_reserve(pt_backend *b, size_t bytes, size_t *ret_free, pt_error *err)
{
    pt_cuda *cuda = (pt_cuda *)b;
    size_t there = device_free(cuda);
    void *arena = NULL;
    if (ret_free)
        *ret_free = there;
    if (cuda->arena && (cuda->blocks || cuda->rooms))
        return pt_fail(err, PT_EINTERNAL, "device memory is reserved a second time while in use");
    if (bytes > there)
        return too_little(cuda, bytes, there, err);
    arena_free(cuda);
    cudaError_t error = cudaMalloc(&arena, round_up(bytes) + SLACK);
    if (error != cudaErrorMemoryAllocation)
        PT_TRY(pt_cuda_check(error, NULL, "cudaMalloc", err));
    cuda->arena = arena;
    cuda->arena_bytes = arena ? round_up(bytes) + SLACK : 0;
    /* Another process may have been faster, or as fast: both then had their piece, and together
     * left the libraries too little. */
    there = device_free(cuda);
    if (there + PIECE < bytes) {
        (void)cudaGetLastError();
        arena_free(cuda);
        if (ret_free)
            *ret_free = there;
        return too_little(cuda, bytes, there, err);
    }
    return pt_cuda_check(error, NULL, "cudaMalloc", err);
}

/* Where the blocks must end. */
static char *blocks_end(const pt_cuda *cuda)
{
    return cuda->rooms ? cuda->rooms : cuda->arena + cuda->arena_bytes;
}

/* The link behind which the first gap of that size begins, and the gap; NULL when there is none. */
static pt_cuda_block **find_gap(pt_cuda *cuda, size_t taken, char **ret_at)
{
    pt_cuda_block **link = &cuda->blocks;
    char *at = cuda->arena;
    for (; *link; link = &(*link)->next) {
        if ((size_t)((*link)->at - at) >= taken)
            break;
        at = (*link)->at + (*link)->taken;
    }
    char *end = *link ? (*link)->at : blocks_end(cuda);
    if ((size_t)(end - at) < taken)
        return NULL;
    *ret_at = at;
    return link;
}

static pt_status arena_exhausted(const pt_cuda *cuda, size_t bytes, pt_error *err)
{
    return pt_fail(err, PT_ENOMEM,
                   "%zu bytes for tensors are more than what is left of the %zu reserved on GPU %d "
                   "(%zu are in use); use a smaller --micro-batch or more stages",
                   bytes, cuda->arena_bytes, cuda->device, cuda->bytes_now);
}

/* Links `block` to where it belongs and gives it its address. */
static pt_status place(pt_cuda *cuda, pt_cuda_block *block, pt_error *err)
{
    pt_cuda_block **link = &cuda->loose;
    if (cuda->arena) {
        link = find_gap(cuda, block->taken, &block->at);
        if (!link)
            return arena_exhausted(cuda, block->bytes, err);
    } else {
        void *at = NULL;
        PT_TRY(pt_cuda_check(cudaMalloc(&at, block->taken), NULL, "cudaMalloc", err));
        block->at = at;
    }
    block->next = *link;
    *link = block;
    return PT_OK;
}

/* Zeros on the compute lane; what the other lanes are asked from now on comes after them. */
static pt_status zero(pt_cuda *cuda, pt_cuda_block *block, pt_error *err)
{
    cudaStream_t compute = cuda->lane[PT_LANE_COMPUTE];
    PT_TRY(pt_cuda_check(cudaMemsetAsync(block->at, 0, block->taken, compute), NULL,
                         "cudaMemsetAsync", err));
    PT_TRY(pt_cuda_check(cudaEventRecord(cuda->zeroed, compute), NULL, "cudaEventRecord", err));
    for (int i = 0; i < PT_LANES; i++)
        if (i != PT_LANE_COMPUTE)
            PT_TRY(pt_cuda_check(cudaStreamWaitEvent(cuda->lane[i], cuda->zeroed, 0), NULL,
                                 "cudaStreamWaitEvent", err));
    return PT_OK;
}

pt_status pt_cuda_dev_new(pt_backend *b, size_t bytes, void **ret_dev, pt_error *err)
{
    pt_cuda *cuda = (pt_cuda *)b;
    if (bytes > SIZE_MAX - GRAIN)
        return arena_exhausted(cuda, bytes, err);
    pt_cuda_block *block = calloc(1, sizeof *block);
    if (!block)
        return pt_fail(err, PT_ENOMEM, "no memory for the record of a block");
    block->bytes = bytes;
    block->taken = round_up(bytes);
    pt_status status = place(cuda, block, err);
    if (status != PT_OK) {
        free(block);
        return status;
    }
    count(cuda, bytes);
    status = zero(cuda, block, err);
    if (status != PT_OK) {
        pt_cuda_dev_free(b, block->at);
        return status;
    }
    *ret_dev = block->at;
    return PT_OK;
}

static pt_cuda_block *unlink_block(pt_cuda_block **link, const void *at)
{
    while (*link && (*link)->at != at)
        link = &(*link)->next;
    pt_cuda_block *block = *link;
    if (block)
        *link = block->next;
    return block;
}

/* Bytes of the arena may go to the next block at once, so nobody may be at work on them. */
void pt_cuda_dev_free(pt_backend *b, void *dev)
{
    pt_cuda *cuda = (pt_cuda *)b;
    if (!dev)
        return;
    pt_cuda_block *block = unlink_block(&cuda->blocks, dev);
    if (block) {
        wait_for_lanes(cuda);
    } else {
        block = unlink_block(&cuda->loose, dev);
        if (!block)
            return;
        (void)cudaFree(block->at); /* waits */
    }
    cuda->bytes_now -= block->bytes;
    free(block);
}

/* ---- rooms ---------------------------------------------------------------------------------- */

void pt_cuda_free_rooms(pt_cuda *cuda)
{
    if (!cuda->rooms)
        return;
    if (!cuda->arena || cuda->rooms < cuda->arena || cuda->rooms >= cuda->arena + cuda->arena_bytes)
        (void)cudaFree(cuda->rooms);
    cuda->bytes_now -= cuda->rooms_bytes;
    cuda->rooms = NULL;
    cuda->rooms_bytes = 0;
}

/* The end of the last block. */
static char *blocks_used(const pt_cuda *cuda)
{
    char *end = cuda->arena;
    for (const pt_cuda_block *block = cuda->blocks; block; block = block->next)
        end = block->at + block->taken;
    return end;
}

pt_status pt_cuda_need_rooms(pt_cuda *cuda, size_t bytes, pt_error *err)
{
    void *rooms = NULL;
    if (bytes <= cuda->rooms_bytes)
        return PT_OK;
    pt_cuda_free_rooms(cuda);
    if (cuda->arena) {
        char *end = cuda->arena + cuda->arena_bytes;
        if (round_up(bytes) > (size_t)(end - blocks_used(cuda)))
            return arena_exhausted(cuda, bytes, err);
        rooms = end - round_up(bytes);
    } else {
        PT_TRY(pt_cuda_check(cudaMalloc(&rooms, round_up(bytes)), NULL, "cudaMalloc", err));
    }
    cuda->rooms = rooms;
    cuda->rooms_bytes = bytes;
    count(cuda, bytes);
    return PT_OK;
}

void pt_cuda_free_all(pt_cuda *cuda)
{
    while (cuda->blocks)
        pt_cuda_dev_free(&cuda->base, cuda->blocks->at);
    while (cuda->loose)
        pt_cuda_dev_free(&cuda->base, cuda->loose->at);
    pt_cuda_free_rooms(cuda);
    arena_free(cuda);
    if (cuda->host_sum)
        (void)cudaFreeHost(cuda->host_sum);
}

/* ---- host ----------------------------------------------------------------------------------- */

pt_status pt_cuda_host_new(pt_backend *b, size_t bytes, void **ret_host, pt_error *err)
{
    (void)b;
    void *host = NULL;
    if (bytes > SIZE_MAX - GRAIN)
        return pt_cuda_check(cudaErrorMemoryAllocation, NULL, "cudaHostAlloc", err);
    PT_TRY(pt_cuda_check(
        cudaHostAlloc(&host, round_up(bytes), cudaHostAllocPortable | cudaHostAllocMapped), NULL,
        "cudaHostAlloc", err));
    memset(host, 0, round_up(bytes));
    *ret_host = host;
    return PT_OK;
}

/* Waits: a copy may be under way. */
void pt_cuda_host_free(pt_backend *b, void *host)
{
    if (!host)
        return;
    wait_for_lanes((pt_cuda *)b);
    (void)cudaFreeHost(host);
}

void pt_cuda_memory(const pt_backend *b, size_t *ret_now, size_t *ret_peak)
{
    const pt_cuda *cuda = (const pt_cuda *)b;
    *ret_now = cuda->bytes_now;
    *ret_peak = cuda->bytes_peak;
}
