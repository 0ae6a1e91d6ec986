#include "learn_rig.h"

#include <math.h>
#include <string.h>

#include "backend_row.h"
#include "suite.h"

/* A few float roundings (6e-8 each) a step, values below 4, at most 20 steps. */
static const double FLOAT_TOLERANCE = 2e-5;

pt_backend *open_ref(void)
{
    pt_error err = {PT_OK, ""};
    pt_backend_config config = {.threads = 1};
    pt_backend *b = NULL;
    assert_ok(backend_row("ref")->open(&config, &b, &err), &err);
    return b;
}

float *vector_new(pt_backend *b)
{
    pt_error err = {PT_OK, ""};
    void *dev = NULL;
    assert_ok(b->row->dev_new(b, N * sizeof(float), &dev, &err), &err);
    return dev;
}

void put(pt_backend *b, float *dev, const float *src)
{
    pt_error err = {PT_OK, ""};
    assert_ok(b->row->upload(b, dev, src, N * sizeof(float), &err), &err);
}

void random_vector(pt_rng *rng, float *at)
{
    for (int i = 0; i < N; i++)
        at[i] = pt_rng_normal(rng) / 2;
}

void assert_near(double got, double want, double tolerance, const char *what, int64_t at)
{
    if (!(fabs(got - want) <= tolerance))
        fail_msg("%s at %lld: %.17g, not %.17g", what, (long long)at, got, want);
}

void check_vector(pt_backend *b, const float *dev, const double *want, const char *what,
                  int64_t step)
{
    pt_error err = {PT_OK, ""};
    float got[N];
    assert_ok(b->row->download(b, got, dev, sizeof got, &err), &err);
    for (int i = 0; i < N; i++)
        assert_near((double)got[i], want[i], FLOAT_TOLERANCE, what, step);
}
