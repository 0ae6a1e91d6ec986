/* Kernels whose answer, or whose fault, is known. */
#ifndef PIPETRAIN_TESTS_GPU_KNOWN_H
#define PIPETRAIN_TESTS_GPU_KNOWN_H

#include <cuda_runtime_api.h>

#ifdef __cplusplus
extern "C" {
#endif

/* out[block·threads + i] += Σ_{r<3} ((i + 1) % threads + r), past barriers */
cudaError_t pt_known_neighbour(cudaStream_t s, unsigned blocks, unsigned threads, int *out);
/* out[64]: 10000 · the warp's sum of thread numbers + 100 · lane 3 further in its eight + lane 5 */
cudaError_t pt_known_shuffle(cudaStream_t s, int *out);
cudaError_t pt_known_parting(cudaStream_t s, int *out);      /* a thread leaves before a barrier */
cudaError_t pt_known_warp_parting(cudaStream_t s, int *out); /* half a warp does before a shuffle */
cudaError_t pt_known_unset(cudaStream_t s, float *out); /* out[4] ← shared memory as it was */
cudaError_t pt_known_odd_address(cudaStream_t s, float *out); /* writes 16 bytes at out + 1 */
cudaError_t pt_known_too_large(cudaStream_t s, int *out);     /* 2,048 threads a block */

#ifdef __cplusplus
}
#endif

#endif
