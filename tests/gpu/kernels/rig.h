/* Values in device memory, their copies on the host, and how two of them are compared. Serves the
 * kernels on a GPU and, linked with an emulated runtime, the same kernels on a CPU. */
#ifndef PIPETRAIN_TESTS_GPU_RIG_H
#define PIPETRAIN_TESTS_GPU_RIG_H

#include "kernels/launch.h"
#include "pipetrain/rng.h"

/* n elements. Memory ends where they end. The rig frees all values at the end of a test. */
typedef struct vals {
    pt_cu_type type;
    int64_t n;
    float *host; /* as they were put or fetched */
    void *dev;
} vals;

/* Random numbers of the test that runs, the same in every run. */
extern pt_rng rig_rng;
/* Elements by which values that come now lie off a multiple of 16 bytes. */
extern int rig_shift;

/* Normal numbers, rounded to the type. */
vals rig_normal(pt_cu_type type, int64_t n);
/* Those of host[n], rounded to the type. */
vals rig_put(pt_cu_type type, int64_t n, const float *host);
/* NaNs: to be written. */
vals rig_empty(pt_cu_type type, int64_t n);
vals rig_same(const vals *v);                    /* another copy of what v has on the host */
void *rig_bytes(size_t bytes, const void *host); /* any device memory, from host if not NULL */
void rig_fetch_bytes(void *host, const void *dev, size_t bytes);
const float *rig_fetch(vals *v); /* host ← dev */
double *rig_doubles(int64_t n);  /* zeroed host memory */

/* What x becomes in the type. */
float rig_round(pt_cu_type type, float x);

/* cmocka's setup and teardown of every test. */
int rig_setup(void **state);
int rig_teardown(void **state);

/* A call that launches: it must succeed, and so must what it launched. */
#define launch(call) rig_launched((call), #call, __FILE__, __LINE__)
void rig_launched(cudaError_t error, const char *call, const char *file, int line);

/* Σ (v - expected)² <= bound · Σ expected²; v is fetched. */
void rig_assert_near(const char *what, vals *v, const double *expected, double bound);
/* The same bits as fp32 numbers (NaNs equal NaNs). */
void rig_assert_same(const char *what, vals *v, const float *expected);

/* Bound of rig_assert_near for sums and products in fp32 that are rounded to the type once: six
 * digits of fp32; of bf16, whose numbers have 8 bits, (2^-8)²: every rounding at its worst. */
double rig_bound(pt_cu_type type);

/* for (each type) for (shift 0, 1) body(type) */
void rig_each_type(void (*body)(pt_cu_type type));

#endif
