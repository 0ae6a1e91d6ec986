/* Where the emulated kernels meet the runtime that they are linked with: a launch becomes a piece
 * of work for a stream. */
#ifndef PIPETRAIN_TESTS_GPU_ENQUEUE_H
#define PIPETRAIN_TESTS_GPU_ENQUEUE_H

#include <cuda_runtime_api.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Provided by the runtime. The stream calls run(closure) when its turn comes, and then
 * free(closure); on failure nothing is kept and `closure` is freed too. */
cudaError_t pt_fake_enqueue(cudaStream_t stream, void (*run)(void *closure), void *closure);

/* What was wrong with a kernel that ran since the last call (threads that part at a barrier,
 * misaligned accesses): one line that stays until the next failure, or NULL. Ask after run(): a
 * kernel that failed has stopped half-way. */
const char *pt_emulate_failure(void);

#ifdef __cplusplus
}
#endif

#endif
