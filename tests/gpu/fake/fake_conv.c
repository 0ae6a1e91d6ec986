/* Stands for src/backend/cuda_conv.c when it is linked with the fake runtime: the formulas of
 * cuda_conv.h as loops, sums in double, run when the stream comes to them. */
#include <stdlib.h>

#include "fake_value.h"
#include "src/backend/cuda_conv.h"
#include "tests/gpu/emulate/enqueue.h"

enum { WORKSPACE = 4000 }; /* not a multiple of anything */

struct pt_cuda_conv {
    pt_conv_shape shape;
    pt_cuda_conv *next;
};

struct pt_cuda_convs {
    pt_cuda_conv *first;
};

typedef struct call {
    pt_conv_shape s;
    void *x, *w, *y, *workspace;
} call;

/* ---- loops ---------------------------------------------------------------------------------- */

/* One pair of an output and a weight, and the input that they meet. */
typedef struct place {
    int64_t x, w, y;
} place;

/* Calls body for all products of the convolution, outputs outermost. */
static void each_product(call *c, void (*body)(call *c, const place *at, double *sum), double *sum)
{
    const pt_conv_shape *s = &c->s;
    const int64_t inputs = s->c / s->groups, outputs = s->k / s->groups;
    const int64_t area = s->out_h * s->out_w;
    for (int64_t out = 0; out < s->n * area * s->k; out++) {
        const int64_t k = out % s->k, pixel = out / s->k;
        const int64_t n = pixel / area, row = pixel % area / s->out_w, column = pixel % s->out_w;
        for (int64_t weight = 0; weight < s->r * s->s * inputs; weight++) {
            const int64_t i = weight % inputs, v = weight / inputs % s->s,
                          u = weight / inputs / s->s;
            const int64_t h = row * s->stride[0] + u - s->padding[0];
            const int64_t w = column * s->stride[1] + v - s->padding[1];
            if (h < 0 || h >= s->h || w < 0 || w >= s->w)
                continue;
            const place at = {
                .x = ((n * s->h + h) * s->w + w) * s->c + k / outputs * inputs + i,
                .w = k * s->r * s->s * inputs + weight,
                .y = out,
            };
            body(c, &at, sum);
        }
    }
}

static void add_y(call *c, const place *at, double *sum)
{
    const bool bf16 = c->s.precision == PT_BF16;
    sum[at->y] += pt_fake_load(bf16, c->x, at->x) * pt_fake_load(bf16, c->w, at->w);
}

static void add_x(call *c, const place *at, double *sum)
{
    const bool bf16 = c->s.precision == PT_BF16;
    sum[at->x] += pt_fake_load(bf16, c->y, at->y) * pt_fake_load(bf16, c->w, at->w);
}

static void add_w(call *c, const place *at, double *sum)
{
    const bool bf16 = c->s.precision == PT_BF16;
    sum[at->w] += pt_fake_load(bf16, c->y, at->y) * pt_fake_load(bf16, c->x, at->x);
}

static void run(void *closure)
{
    call *c = closure;
    const pt_conv_shape *s = &c->s;
    const bool bf16 = s->precision == PT_BF16;
    const struct {
        void (*body)(call *c, const place *at, double *sum);
        void *made;
        int64_t elements;
    } pass[PT_CONV_PASSES] = {
        [PT_CONV_FORWARD] = {add_y, c->y, s->n * s->out_h * s->out_w * s->k},
        [PT_CONV_BACKWARD_INPUT] = {add_x, c->x, s->n * s->h * s->w * s->c},
        [PT_CONV_BACKWARD_WEIGHT] = {add_w, c->w, s->k * s->r * s->s * (s->c / s->groups)},
    };
    double *sum = calloc((size_t)pass[s->pass].elements, sizeof *sum);
    if (!sum)
        abort();
    pt_fake_soil(c->workspace, WORKSPACE);
    each_product(c, pass[s->pass].body, sum);
    for (int64_t i = 0; i < pass[s->pass].elements; i++)
        pt_fake_store(bf16, pass[s->pass].made, i, sum[i]);
    free(sum);
}

/* ---- the interface -------------------------------------------------------------------------- */

pt_status pt_cuda_convs_open(const char *device_json, pt_cuda_convs **ret_convs, pt_error *err)
{
    (void)device_json;
    *ret_convs = calloc(1, sizeof **ret_convs);
    return *ret_convs ? PT_OK : pt_fail(err, PT_ENOMEM, "no memory for convolutions");
}

void pt_cuda_convs_close(pt_cuda_convs *convs)
{
    if (!convs)
        return;
    for (pt_cuda_conv *conv = convs->first, *next; conv; conv = next) {
        next = conv->next;
        free(conv);
    }
    free(convs);
}

pt_status pt_cuda_conv_plan(pt_cuda_convs *convs, const pt_conv_shape *shape,
                            pt_cuda_conv **ret_conv, pt_error *err)
{
    pt_cuda_conv *conv = convs->first;
    while (conv && memcmp(&conv->shape, shape, sizeof *shape) != 0)
        conv = conv->next;
    if (!conv) {
        conv = calloc(1, sizeof *conv);
        if (!conv)
            return pt_fail(err, PT_ENOMEM, "no memory for a convolution");
        conv->shape = *shape;
        conv->next = convs->first;
        convs->first = conv;
    }
    *ret_conv = conv;
    return PT_OK;
}

size_t pt_cuda_conv_workspace(const pt_cuda_conv *conv)
{
    (void)conv;
    return WORKSPACE;
}

unsigned pt_cuda_conv_notes(const pt_cuda_conv *conv)
{
    (void)conv;
    return 0;
}

const char *pt_cuda_conv_engine(const pt_cuda_conv *conv)
{
    (void)conv;
    return "loops";
}

pt_status pt_cuda_conv_run(pt_cuda_conv *conv, cudaStream_t stream, void *x, void *w, void *y,
                           void *workspace, pt_error *err)
{
    const void *const addresses[] = {x, w, y, workspace};
    pt_fake_check_aligned("convolution", addresses, 4);
    call *c = malloc(sizeof *c);
    if (!c)
        return pt_fail(err, PT_ENOMEM, "no memory for a call");
    *c = (call){conv->shape, x, w, y, workspace};
    cudaError_t error = pt_fake_enqueue(stream, run, c);
    if (error != cudaSuccess)
        return pt_fail(err, PT_EBACKEND, "convolution: %s", cudaGetErrorString(error));
    return PT_OK;
}
