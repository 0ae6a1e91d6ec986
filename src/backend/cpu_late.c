/* Rules for late gradients on flat fp32 buffers: how much weights move, what that makes of a
 * gradient, and where they were. */
#include "cpu.h"

#include "kernels/elements.h"

typedef struct square_job {
    float keep, rest;
    const float *x;
    float *average;
} square_job;

static void mean_squares_piece(void *context, size_t begin, size_t end)
{
    const square_job *job = context;
    const float keep = job->keep, rest = job->rest, *x = job->x;
    float *average = job->average;
    for (size_t i = begin; i < end; i++)
        average[i] = pt_element_mean_square(keep, rest, x[i], average[i]);
}

pt_status pt_cpu_mean_squares(pt_backend *b, size_t n, float keep, float rest, const float *x,
                              float *average, pt_error *err)
{
    square_job job = {keep, rest, x, average};
    return pt_cpu_ranges(b, n, mean_squares_piece, &job, err);
}

typedef struct gap_job {
    pt_gap rule;
    const float *forward, *theta, *average, *own;
    float *gradient;
} gap_job;

static void gap_piece(void *context, size_t begin, size_t end)
{
    const gap_job *job = context;
    const pt_gap r = job->rule;
    const float *forward = job->forward, *theta = job->theta;
    const float *average = job->average, *own = job->own;
    float *gradient = job->gradient;
    for (size_t i = begin; r.accumulate && i < end; i++)
        gradient[i] +=
            pt_element_gap(r.top, r.unbias, r.least, forward[i], theta[i], average[i], own[i]);
    for (size_t i = begin; !r.accumulate && i < end; i++)
        gradient[i] =
            pt_element_gap(r.top, r.unbias, r.least, forward[i], theta[i], average[i], own[i]);
}

pt_status pt_cpu_gap(pt_backend *b, size_t n, const pt_gap *rule, const float *forward,
                     const float *theta, const float *average, const float *own, float *gradient,
                     pt_error *err)
{
    gap_job job = {*rule, forward, theta, average, own, gradient};
    return pt_cpu_ranges(b, n, gap_piece, &job, err);
}

typedef struct back_job {
    pt_look_back rule;
    const float *theta;
    float *drift, *back;
} back_job;

static void look_back_piece(void *context, size_t begin, size_t end)
{
    const back_job *job = context;
    const pt_look_back r = job->rule;
    const float *theta = job->theta;
    float *drift = job->drift, *back = job->back;
    for (size_t i = begin; i < end; i++)
        back[i] = pt_element_look_back(r.keep, r.rest, r.delay, theta[i], back[i], &drift[i]);
}

pt_status pt_cpu_look_back(pt_backend *b, size_t n, const pt_look_back *rule, const float *theta,
                           float *drift, float *back, pt_error *err)
{
    back_job job = {*rule, theta, drift, back};
    return pt_cpu_ranges(b, n, look_back_piece, &job, err);
}
