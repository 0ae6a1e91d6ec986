/* Learning-rate schedules: η as a pure function of the step, so that predictors can look ahead. */
#include "pipetrain/learn.h"

#include <math.h>
#include <string.h>

static double constant_factor(const pt_lr_spec *spec, int64_t step)
{
    (void)spec;
    (void)step;
    return 1;
}

static double milestones_factor(const pt_lr_spec *spec, int64_t step)
{
    double factor = 1;
    for (int i = 0; i < spec->n_milestones; i++)
        if (step >= spec->milestones[i])
            factor *= spec->factor;
    return factor;
}

/* Loshchilov & Hutter, "SGDR", ICLR 2017, eq. (5), one cycle. */
static double cosine_factor(const pt_lr_spec *spec, int64_t step)
{
    int64_t length = spec->total - spec->warmup;
    if (length <= 0)
        return 1;
    double u = (double)(step - spec->warmup) / (double)length;
    u = u < 0 ? 0 : u > 1 ? 1 : u;
    return spec->floor + (1 - spec->floor) * (1 + cos(acos(-1.0) * u)) / 2;
}

/* One line a row; the table and the list of names are both made of it. */
#define ROWS(ROW)                                                                                  \
    ROW("constant", constant_factor)                                                               \
    ROW("milestones", milestones_factor)                                                           \
    ROW("cosine", cosine_factor)

#define AS_ROW(name, factor)  {name, factor},
#define AS_NAME(name, factor) name,

static const struct {
    const char *name;
    double (*factor)(const pt_lr_spec *spec, int64_t step);
} rows[] = {ROWS(AS_ROW)};

static const char *const names[] = {ROWS(AS_NAME) NULL};

enum { N_ROWS = sizeof rows / sizeof rows[0] };

const char *const *pt_lr_names(void)
{
    return names;
}

static double of_schedule(const pt_lr_spec *spec, int64_t step)
{
    if (step < spec->warmup)
        return spec->base * (double)(step + 1) / (double)spec->warmup;
    for (int i = 0; i < N_ROWS; i++)
        if (strcmp(rows[i].name, spec->schedule) == 0)
            return spec->base * rows[i].factor(spec, step);
    return spec->base;
}

double pt_lr_at(const pt_lr_spec *spec, int64_t step)
{
    double rate = of_schedule(spec, step);
    int64_t t = step - spec->first_late;
    if (t < 0 || t >= spec->fade || !(spec->delay > 1))
        return rate;
    return rate / pow(spec->delay, 1 - (double)t / (double)spec->fade);
}
