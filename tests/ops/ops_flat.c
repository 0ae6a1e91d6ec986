#include "ops_flat.h"

#include <stdlib.h>
#include <string.h>

#include "pipetrain/rng.h"
#include "suite.h"

float *ops_flat_new(pt_backend *b, int stream, bool squared)
{
    pt_error err = {PT_OK, ""};
    void *dev = NULL;
    float *host = malloc(OPS_FLAT * sizeof *host);
    pt_rng rng;
    assert_non_null(host);
    pt_rng_init(&rng, /*seed=*/21, PT_RNG_CHECK, (uint32_t)stream, 0);
    for (int i = 0; i < OPS_FLAT; i++) {
        host[i] = pt_rng_normal(&rng);
        host[i] *= squared ? host[i] : 1;
    }
    assert_ok(b->row->dev_new(b, OPS_FLAT * sizeof *host, &dev, &err), &err);
    assert_ok(b->row->upload(b, dev, host, OPS_FLAT * sizeof *host, &err), &err);
    free(host);
    return dev;
}

float *ops_flat_get(pt_backend *b, const float *dev)
{
    pt_error err = {PT_OK, ""};
    float *host = malloc(OPS_FLAT * sizeof *host);
    assert_non_null(host);
    assert_ok(b->row->download(b, host, dev, OPS_FLAT * sizeof *host, &err), &err);
    return host;
}
