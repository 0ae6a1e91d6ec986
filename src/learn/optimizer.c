/* Optimizers as rows. Each step is one fused pass of the backend over the stage's flat buffers. */
#include "pipetrain/learn.h"

#include <string.h>

static pt_status sgd_like(pt_backend *b, const pt_optimizer_spec *spec, bool nesterov, double lr,
                          double scale, size_t n, float *dev_theta, float *dev_velocity,
                          const float *dev_gradient, const pt_foresight *foresight, pt_error *err)
{
    pt_sgd rule = {
        .lr = (float)lr,
        .momentum = (float)spec->momentum,
        .decay = (float)spec->decay,
        .scale = (float)scale,
        .nesterov = nesterov,
    };
    return b->row->sgd(b, n, &rule, dev_theta, dev_velocity, dev_gradient, foresight, err);
}

static pt_status sgd_step(pt_backend *b, const pt_optimizer_spec *spec, double lr, double scale,
                          size_t n, float *dev_theta, float *const dev_state[],
                          const float *dev_gradient, const pt_foresight *foresight, pt_error *err)
{
    return sgd_like(b, spec, /*nesterov=*/false, lr, scale, n, dev_theta, dev_state[0],
                    dev_gradient, foresight, err);
}

static pt_status nesterov_step(pt_backend *b, const pt_optimizer_spec *spec, double lr,
                               double scale, size_t n, float *dev_theta, float *const dev_state[],
                               const float *dev_gradient, const pt_foresight *foresight,
                               pt_error *err)
{
    return sgd_like(b, spec, /*nesterov=*/true, lr, scale, n, dev_theta, dev_state[0], dev_gradient,
                    foresight, err);
}

/* One line a row; the table and the list of names are both made of it. */
#define ROWS(ROW)                                                                                  \
    ROW("sgd", "momentum: v = γv + g + λθ, θ = θ - ηv", 1, sgd_step)                               \
    ROW("nesterov", "Nesterov momentum: θ = θ - η(g + λθ + γv)", 1, nesterov_step)

#define AS_ROW(name, help, state_buffers, step)  {name, help, state_buffers, step},
#define AS_NAME(name, help, state_buffers, step) name,

static const pt_optimizer_row rows[] = {ROWS(AS_ROW)};
static const char *const names[] = {ROWS(AS_NAME) NULL};

enum { N_ROWS = sizeof rows / sizeof rows[0] };

const pt_optimizer_row *pt_optimizer_find(const char *name)
{
    for (int i = 0; i < N_ROWS; i++)
        if (strcmp(rows[i].name, name) == 0)
            return &rows[i];
    return NULL;
}

const char *const *pt_optimizer_names(void)
{
    return names;
}
