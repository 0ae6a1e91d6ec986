/* kernels/max_pool.cu, avg_pool.cu and global_pool.cu against plain loops in double. */
#include <math.h>

#include "cases.h"
#include "rig.h"
#include "suite.h"

/* Overlapping windows, windows side by side, padding, rows left over, windows that are not square,
 * windows longer than a thread reads at once or than the image; channels in packs and single. */
static const pt_cu_window windows[] = {
    {2, 8, 7, 7, 4, 4, {3, 3}, {2, 2}, {1, 1}},    {2, 3, 6, 8, 3, 4, {2, 2}, {2, 2}, {0, 0}},
    {1, 16, 5, 5, 5, 5, {3, 3}, {1, 1}, {1, 1}},   {3, 5, 7, 5, 3, 2, {2, 3}, {2, 2}, {0, 1}},
    {2, 4, 9, 9, 3, 3, {2, 2}, {3, 3}, {0, 0}},    {1, 1, 1, 1, 1, 1, {1, 1}, {1, 1}, {0, 0}},
    {1, 24, 12, 11, 3, 3, {4, 4}, {4, 3}, {0, 0}}, {0, 8, 4, 4, 2, 2, {2, 2}, {2, 2}, {0, 0}},
    {2, 8, 9, 10, 9, 10, {5, 5}, {1, 1}, {2, 2}},  {1, 3, 3, 3, 1, 1, {7, 7}, {2, 2}, {3, 3}},
    {2, 8, 2, 2, 3, 3, {2, 2}, {1, 1}, {1, 1}}};
enum { WINDOWS = sizeof windows / sizeof *windows };

static int64_t ins(const pt_cu_window *w)
{
    return w->samples * w->in_h * w->in_w * w->channels;
}

static int64_t outs(const pt_cu_window *w)
{
    return w->samples * w->out_h * w->out_w * w->channels;
}

/* Calls visit(context, out, in, tap) for each output and each input that its window holds. */
static void for_taps(const pt_cu_window *w,
                     void (*visit)(void *context, int64_t out, int64_t in, int32_t tap),
                     void *context)
{
    for (int64_t out = 0; out < outs(w); out++) {
        const int64_t c = out % w->channels, at = out / w->channels;
        const int64_t ow = at % w->out_w, oh = at / w->out_w % w->out_h;
        const int64_t n = at / w->out_w / w->out_h;
        for (int64_t u = 0; u < w->kernel[0]; u++)
            for (int64_t v = 0; v < w->kernel[1]; v++) {
                const int64_t h = oh * w->stride[0] - w->padding[0] + u;
                const int64_t x = ow * w->stride[1] - w->padding[1] + v;
                if (h >= 0 && h < w->in_h && x >= 0 && x < w->in_w)
                    visit(context, out, ((n * w->in_h + h) * w->in_w + x) * w->channels + c,
                          (int32_t)(u * w->kernel[1] + v));
            }
    }
}

typedef struct answer {
    const float *x, *dy;
    float *y, *dx;
    int32_t *tap;
    int64_t *winner;
    double *sum, *d_sum, count;
} answer;

static void visit_max(void *context, int64_t out, int64_t in, int32_t tap)
{
    answer *a = context;
    if (a->tap[out] >= 0 && !(a->x[in] > a->y[out]) && !(isnan(a->x[in]) && !isnan(a->y[out])))
        return;
    a->y[out] = a->x[in];
    a->tap[out] = tap;
    a->winner[out] = in;
}

static void max_pool(const pt_cu_window *w, vals *x)
{
    vals dy = rig_normal(x->type, outs(w));
    vals y = rig_empty(x->type, outs(w)), alone = rig_empty(x->type, outs(w));
    vals dx = rig_empty(x->type, ins(w));
    vals y_ = rig_same(&y), dx_ = rig_same(&dx);
    const size_t bytes = (size_t)outs(w) * sizeof(int32_t);
    int32_t *taps = (int32_t *)rig_doubles(outs(w)), *which = (int32_t *)rig_doubles(outs(w));
    int64_t *winner = (int64_t *)rig_doubles(outs(w));
    for (int64_t i = 0; i < outs(w); i++)
        taps[i] = -1;
    answer a = {.x = x->host, .y = y_.host, .tap = taps, .winner = winner};
    for_taps(w, visit_max, &a);
    for (int64_t i = 0; i < ins(w); i++)
        dx_.host[i] = 0;
    for (int64_t i = 0; i < outs(w); i++)
        dx_.host[winner[i]] += dy.host[i];
    for (int64_t i = 0; i < ins(w); i++)
        dx_.host[i] = rig_round(x->type, dx_.host[i]);
    int32_t *dev_which = rig_bytes(bytes, NULL);
    launch(pt_cu_max_pool(NULL, x->type, w, x->dev, y.dev, dev_which));
    launch(pt_cu_max_pool(NULL, x->type, w, x->dev, alone.dev, NULL));
    launch(pt_cu_max_pool_back(NULL, x->type, w, dev_which, dy.dev, dx.dev));
    rig_fetch_bytes(which, dev_which, bytes);
    rig_assert_same("max-pool", &y, y_.host);
    rig_assert_same("max-pool without places", &alone, y_.host);
    for (int64_t i = 0; i < outs(w); i++)
        assert_int_equal(which[i], taps[i]);
    rig_assert_same("max-pool's gradient", &dx, dx_.host);
}

static void max_pools(pt_cu_type type)
{
    for (int i = 0; i < WINDOWS; i++) {
        vals x = rig_normal(type, ins(&windows[i]));
        for (int64_t k = 0; k < x.n; k++) /* many equals */
            x.host[k] = roundf(2 * x.host[k]);
        x = rig_same(&x);
        max_pool(&windows[i], &x);
    }
}

void pool_max(void **state)
{
    (void)state;
    rig_each_type(max_pools);
}

static void max_pools_of_nans(pt_cu_type type)
{
    for (int i = 0; i < WINDOWS; i++) {
        vals x = rig_normal(type, ins(&windows[i]));
        for (int64_t k = 0; k < x.n; k++)
            if (pt_rng_below(&rig_rng, 8) == 0)
                x.host[k] = k % 3 == 0 ? -INFINITY : NAN;
        x = rig_same(&x);
        max_pool(&windows[i], &x);
    }
}

void pool_max_of_nans(void **state)
{
    (void)state;
    rig_each_type(max_pools_of_nans);
}

static void visit_avg(void *context, int64_t out, int64_t in, int32_t tap)
{
    answer *a = context;
    (void)tap;
    a->sum[out] += (double)a->x[in] / a->count;
    a->d_sum[in] += (double)a->dy[out] / a->count;
}

static void avg_pools(pt_cu_type type)
{
    for (int i = 0; i < WINDOWS; i++) {
        const pt_cu_window *w = &windows[i];
        vals x = rig_normal(type, ins(w)), dy = rig_normal(type, outs(w));
        vals y = rig_empty(type, outs(w)), dx = rig_empty(type, ins(w));
        answer a = {.x = x.host, .dy = dy.host};
        a.sum = rig_doubles(outs(w));
        a.d_sum = rig_doubles(ins(w));
        a.count = (double)(w->kernel[0] * w->kernel[1]);
        for_taps(w, visit_avg, &a);
        launch(pt_cu_avg_pool(NULL, type, w, x.dev, y.dev));
        launch(pt_cu_avg_pool_back(NULL, type, w, dy.dev, dx.dev));
        rig_assert_near("avg-pool", &y, a.sum, rig_bound(type));
        rig_assert_near("avg-pool's gradient", &dx, a.d_sum, rig_bound(type));
    }
}

void pool_avg(void **state)
{
    (void)state;
    rig_each_type(avg_pools);
}

/* Windows that hold no input would be read outside of it, and lengths beyond 32 bits would wrap. */
void pool_refuses_windows(void **state)
{
    (void)state;
    static const pt_cu_window wrong[] = {
        {2, 8, 7, 7, 4, 4, {3, 3}, {2, 0}, {1, 1}},
        {2, 8, 7, 7, 4, 4, {3, 3}, {2, 2}, {1, 3}},
        {2, 8, 7, 7, 5, 4, {3, 3}, {2, 2}, {1, 1}},
        {2, 8, 7, 7, 4, 4, {3, 3}, {2, 2}, {1, -1}},
        {2, 8, 0, 7, 1, 4, {3, 3}, {2, 2}, {1, 1}},
        {2, 8, 7, 7, 4, 4, {0, 3}, {2, 2}, {0, 1}},
        {2, -8, 7, 7, 4, 4, {3, 3}, {2, 2}, {1, 1}},
        {-2, 8, 7, 7, 4, 4, {3, 3}, {2, 2}, {1, 1}},
        {1, 1, 1, INT64_C(1) << 32, 1, 1, {1, 1}, {1, 1}, {0, 0}},
        {1, 1, 1 << 20, 1 << 20, 1, 1, {1 << 20, 1 << 20}, {1, 1}, {0, 0}}};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        const pt_cu_window *w = &wrong[i];
        const cudaError_t expected = cudaErrorInvalidValue;
        assert_int_equal(pt_cu_max_pool(NULL, PT_CU_FP32, w, NULL, NULL, NULL), expected);
        assert_int_equal(pt_cu_max_pool_back(NULL, PT_CU_BF16, w, NULL, NULL, NULL), expected);
        assert_int_equal(pt_cu_avg_pool(NULL, PT_CU_FP32, w, NULL, NULL), expected);
        assert_int_equal(pt_cu_avg_pool_back(NULL, PT_CU_BF16, w, NULL, NULL), expected);
    }
}

static void global_pools(pt_cu_type type)
{
    static const int64_t shapes[][3] = {{2, 49, 8},  {3, 1, 5},    {1, 300, 3},
                                        {4, 16, 64}, {2, 35, 300}, {0, 4, 4}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        const int64_t n = shapes[i][0], area = shapes[i][1], channels = shapes[i][2];
        vals x = rig_normal(type, n * area * channels), y = rig_empty(type, n * channels);
        vals dy = rig_normal(type, n * channels), dx = rig_empty(type, x.n);
        double *sum = rig_doubles(y.n), *d_sum = rig_doubles(x.n);
        for (int64_t k = 0; k < x.n; k++) {
            const int64_t out = k / channels / area * channels + k % channels;
            sum[out] += (double)x.host[k] / (double)area;
            d_sum[k] = (double)dy.host[out] / (double)area;
        }
        launch(pt_cu_global_pool(NULL, type, n, area, channels, x.dev, y.dev));
        launch(pt_cu_global_pool_back(NULL, type, n, area, channels, dy.dev, dx.dev));
        rig_assert_near("global pool", &y, sum, rig_bound(type));
        rig_assert_near("global pool's gradient", &dx, d_sum, rig_bound(type));
    }
}

void pool_global(void **state)
{
    (void)state;
    rig_each_type(global_pools);
}
