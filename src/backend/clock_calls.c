/* What the clock backend does when a layer, a loss or an optimizer is called: it passes time.
 * Layouts are those of ref. */
#include <math.h>
#include <stdlib.h>

#include "clock.h"
#include "rows.h"

typedef struct clock_kernel {
    pt_kernel base;
    pt_kernel *facts; /* ref's */
} clock_kernel;

/* ---- layouts: ref's ---------------------------------------------------------------------------
 */

pt_status pt_clock_plain_layout(pt_backend *b, const pt_shape *shape, int samples,
                                pt_layout **ret_layout, pt_error *err)
{
    return pt_backend_ref.plain_layout(b, shape, samples, ret_layout, err);
}

void pt_clock_layout_free(pt_backend *b, pt_layout *layout)
{
    pt_backend_ref.layout_free(b, layout);
}

bool pt_clock_layout_equal(const pt_layout *a, const pt_layout *b)
{
    return pt_backend_ref.layout_equal(a, b);
}

pt_status pt_clock_reorder(pt_backend *b, const pt_shape *shape, int samples, const pt_layout *from,
                           const void *dev_src, const pt_layout *to, void *dev_dst, pt_error *err)
{
    return pt_backend_ref.reorder(b, shape, samples, from, dev_src, to, dev_dst, err);
}

/* ---- kernels ----------------------------------------------------------------------------------
 */

/* Not the forms of batch-norm that swallow the layers behind it: these have times of their own. */
bool pt_clock_supports(const pt_op *op)
{
    bool longer = op->kind == PT_OP_BATCH_NORM && (op->n_inputs > 1 || op->relu);
    return !longer && pt_backend_ref.supports(op);
}

pt_status pt_clock_plan(pt_backend *b, const pt_op *op, int samples, pt_mode mode,
                        const pt_layout *const in[], pt_kernel **ret_kernel, pt_error *err)
{
    clock_kernel *kernel = calloc(1, sizeof *kernel);
    if (!kernel)
        return pt_fail(err, PT_ENOMEM, "no memory for a kernel");
    pt_status status = pt_backend_ref.plan(b, op, samples, mode, in, &kernel->facts, err);
    if (status != PT_OK) {
        free(kernel);
        return status;
    }
    kernel->base = *kernel->facts;
    kernel->base.flags &= ~(unsigned)(PT_PASSES_GRADIENT | PT_PASSES_VALUE);
    *ret_kernel = &kernel->base;
    return PT_OK;
}

pt_status pt_clock_build(pt_kernel *k, pt_error *err)
{
    (void)err;
    k->built = true;
    return PT_OK;
}

void pt_clock_release(pt_kernel *k)
{
    if (k)
        pt_backend_ref.release(((clock_kernel *)k)->facts);
    free(k);
}

static const pt_call_times *times_of(const pt_kernel *k)
{
    return &((const pt_clock_backend *)k->backend)->times[k->op.layer];
}

/* What is stated for a backward includes what it computes again. */
pt_status pt_clock_forward(pt_kernel *k, const pt_kernel_args *args, pt_error *err)
{
    (void)err;
    if (!args->again)
        pt_clock_take(k->backend, times_of(k)->forward);
    return PT_OK;
}

pt_status pt_clock_backward_input(pt_kernel *k, const pt_kernel_args *args, pt_error *err)
{
    (void)args;
    (void)err;
    pt_clock_take(k->backend, times_of(k)->backward_input);
    return PT_OK;
}

pt_status pt_clock_backward_weight(pt_kernel *k, const pt_kernel_args *args, pt_error *err)
{
    (void)args;
    (void)err;
    pt_clock_take(k->backend, times_of(k)->backward_weight);
    return PT_OK;
}

/* ---- what no layer is -------------------------------------------------------------------------
 */

pt_status pt_clock_loss(pt_backend *b, const pt_loss *loss, const pt_loss_args *args, pt_error *err)
{
    (void)b;
    (void)loss;
    (void)err;
    *args->host_result = (pt_loss_result){0, 0};
    return PT_OK;
}

pt_status pt_clock_add(pt_backend *b, const pt_layout *layout, const void *dev_x, const void *dev_y,
                       void *dev_out, pt_error *err)
{
    (void)layout;
    (void)dev_y;
    return pt_clock_copy(b, dev_out, dev_x, 0, err);
}

pt_status pt_clock_axpby(pt_backend *b, size_t n, float a, const float *dev_x, float c,
                         const float *dev_y, float *dev_out, pt_error *err)
{
    (void)a;
    (void)c;
    (void)dev_y;
    return pt_clock_copy(b, dev_out, dev_x, n, err);
}

pt_status pt_clock_sum_of_squares(pt_backend *b, size_t n, const float *dev_x, double *ret_sum,
                                  pt_error *err)
{
    (void)n;
    (void)dev_x;
    PT_TRY(pt_clock_finish(b, err));
    *ret_sum = 0;
    return PT_OK;
}

/* An optimizer may come in several calls: each takes its share. What is foreseen takes none. */
static pt_status update(pt_backend *b, size_t n)
{
    pt_clock_take(b, llround((double)n * ((const pt_clock_backend *)b)->update_ns));
    return PT_OK;
}

pt_status pt_clock_sgd(pt_backend *b, size_t n, const pt_sgd *rule, float *dev_theta,
                       float *dev_velocity, const float *dev_gradient,
                       const pt_foresight *foresight, pt_error *err)
{
    (void)rule;
    (void)dev_theta;
    (void)dev_velocity;
    (void)dev_gradient;
    (void)err;
    return foresight && foresight->apart ? PT_OK : update(b, n);
}

pt_status pt_clock_adam(pt_backend *b, size_t n, const pt_adam *rule, float *dev_theta,
                        float *dev_m, float *dev_v, const float *dev_gradient,
                        const pt_adam_foresight *foresight, pt_error *err)
{
    (void)rule;
    (void)dev_theta;
    (void)dev_m;
    (void)dev_v;
    (void)err;
    return !dev_gradient || (foresight && foresight->apart) ? PT_OK : update(b, n);
}

/* What rules take, beside the optimizer, is not stated. */
pt_status pt_clock_mean_squares(pt_backend *b, size_t n, float keep, float rest, const float *dev_x,
                                float *dev_average, pt_error *err)
{
    (void)keep;
    (void)rest;
    return pt_clock_copy(b, dev_average, dev_x, n, err);
}

pt_status pt_clock_gap(pt_backend *b, size_t n, const pt_gap *rule, const float *dev_forward,
                       const float *dev_theta, const float *dev_average, const float *dev_own,
                       float *dev_gradient, pt_error *err)
{
    (void)rule;
    (void)dev_forward;
    (void)dev_theta;
    (void)dev_average;
    return pt_clock_copy(b, dev_gradient, dev_own, n, err);
}

pt_status pt_clock_look_back(pt_backend *b, size_t n, const pt_look_back *rule,
                             const float *dev_theta, float *dev_drift, float *dev_back,
                             pt_error *err)
{
    (void)rule;
    (void)dev_drift;
    return pt_clock_copy(b, dev_back, dev_theta, n, err);
}
