/* See rig.h. */
#include "rig.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/bf16.h"
#include "suite.h"

enum { MOST_BLOCKS = 16384 };

pt_rng rig_rng;
int rig_shift;

/* Everything that the test has allocated. */
static struct {
    void *dev[MOST_BLOCKS], *host[MOST_BLOCKS];
    int n_dev, n_host;
} owned;

int rig_setup(void **state)
{
    (void)state;
    rig_shift = 0;
    pt_rng_init(&rig_rng, 7, PT_RNG_CHECK, 0, 0);
    return 0;
}

int rig_teardown(void **state)
{
    (void)state;
    for (int i = 0; i < owned.n_dev; i++)
        cudaFree(owned.dev[i]);
    for (int i = 0; i < owned.n_host; i++)
        free(owned.host[i]);
    owned.n_dev = owned.n_host = 0;
    return 0;
}

static void *host_new(size_t bytes)
{
    void *host = calloc(1, bytes + 1);
    assert_non_null(host);
    assert_true(owned.n_host < MOST_BLOCKS);
    owned.host[owned.n_host++] = host;
    return host;
}

static void *dev_new(size_t bytes)
{
    void *dev = NULL;
    assert_int_equal(cudaMalloc(&dev, bytes + (bytes == 0)), cudaSuccess);
    assert_true(owned.n_dev < MOST_BLOCKS);
    owned.dev[owned.n_dev++] = dev;
    return dev;
}

void *rig_bytes(size_t bytes, const void *host)
{
    void *dev = dev_new(bytes);
    if (host && bytes > 0)
        assert_int_equal(cudaMemcpy(dev, host, bytes, cudaMemcpyHostToDevice), cudaSuccess);
    return dev;
}

void rig_fetch_bytes(void *host, const void *dev, size_t bytes)
{
    if (bytes > 0)
        assert_int_equal(cudaMemcpy(host, dev, bytes, cudaMemcpyDeviceToHost), cudaSuccess);
}

double *rig_doubles(int64_t n)
{
    return host_new((size_t)n * sizeof(double));
}

float rig_round(pt_cu_type type, float x)
{
    return type == PT_CU_BF16 ? pt_float_of_bf16(pt_bf16_of_float(x)) : x;
}

static size_t size_of(pt_cu_type type)
{
    return type == PT_CU_BF16 ? sizeof(pt_bf16) : sizeof(float);
}

static vals vals_new(pt_cu_type type, int64_t n)
{
    const size_t size = size_of(type);
    char *block = dev_new(((size_t)n + (size_t)rig_shift) * size);
    return (vals){type, n, host_new((size_t)n * sizeof(float)), block + (size_t)rig_shift * size};
}

static void upload(vals *v)
{
    pt_bf16 *narrow = host_new((size_t)v->n * sizeof(pt_bf16));
    for (int64_t i = 0; i < v->n; i++) {
        narrow[i] = pt_bf16_of_float(v->host[i]);
        v->host[i] = rig_round(v->type, v->host[i]);
    }
    const void *from = v->type == PT_CU_BF16 ? (const void *)narrow : v->host;
    if (v->n > 0)
        assert_int_equal(
            cudaMemcpy(v->dev, from, (size_t)v->n * size_of(v->type), cudaMemcpyHostToDevice),
            cudaSuccess);
}

vals rig_put(pt_cu_type type, int64_t n, const float *host)
{
    vals v = vals_new(type, n);
    if (n > 0)
        memcpy(v.host, host, (size_t)n * sizeof(float));
    upload(&v);
    return v;
}

vals rig_normal(pt_cu_type type, int64_t n)
{
    vals v = vals_new(type, n);
    for (int64_t i = 0; i < n; i++)
        v.host[i] = pt_rng_normal(&rig_rng);
    upload(&v);
    return v;
}

vals rig_empty(pt_cu_type type, int64_t n)
{
    vals v = vals_new(type, n);
    for (int64_t i = 0; i < n; i++)
        v.host[i] = NAN;
    upload(&v);
    return v;
}

vals rig_same(const vals *v)
{
    return rig_put(v->type, v->n, v->host);
}

const float *rig_fetch(vals *v)
{
    if (v->type == PT_CU_FP32) {
        rig_fetch_bytes(v->host, v->dev, (size_t)v->n * sizeof(float));
        return v->host;
    }
    pt_bf16 *narrow = host_new((size_t)v->n * sizeof(pt_bf16));
    rig_fetch_bytes(narrow, v->dev, (size_t)v->n * sizeof(pt_bf16));
    for (int64_t i = 0; i < v->n; i++)
        v->host[i] = pt_float_of_bf16(narrow[i]);
    return v->host;
}

void rig_launched(cudaError_t error, const char *call, const char *file, int line)
{
    if (error == cudaSuccess)
        error = cudaDeviceSynchronize();
    if (error != cudaSuccess) {
        print_error("%s: %s\n", call, cudaGetErrorString(error));
        _fail(file, line);
    }
}

void rig_assert_near(const char *what, vals *v, const double *expected, double bound)
{
    const float *got = rig_fetch(v);
    double error = 0, size = 0;
    for (int64_t i = 0; i < v->n; i++) {
        const double difference = (double)got[i] - expected[i];
        error += difference * difference;
        size += expected[i] * expected[i];
    }
    if (!(error <= bound * size))
        fail_msg("%s (%lld elements): error %.3g of %.3g, bound %.1g", what, (long long)v->n, error,
                 size, bound);
}

void rig_assert_same(const char *what, vals *v, const float *expected)
{
    const float *got = rig_fetch(v);
    for (int64_t i = 0; i < v->n; i++) {
        const bool same = isnan(expected[i])
                              ? isnan(got[i])
                              : pt_bits_of_float(got[i]) == pt_bits_of_float(expected[i]);
        if (!same)
            fail_msg("%s: element %lld of %lld is %.9g instead of %.9g", what, (long long)i,
                     (long long)v->n, (double)got[i], (double)expected[i]);
    }
}

double rig_bound(pt_cu_type type)
{
    return type == PT_CU_BF16 ? 1.6e-5 : 1e-12;
}

void rig_each_type(void (*body)(pt_cu_type type))
{
    for (int type = PT_CU_FP32; type <= PT_CU_BF16; type++)
        for (rig_shift = 0; rig_shift < 2; rig_shift++) {
            body((pt_cu_type)type);
            rig_teardown(NULL);
        }
    rig_shift = 0;
}
