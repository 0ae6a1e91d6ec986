/* Vectors on the ref backend, for tests of optimizers and predictors. */
#ifndef PIPETRAIN_TESTS_LEARN_RIG_H
#define PIPETRAIN_TESTS_LEARN_RIG_H

#include "pipetrain/learn.h"
#include "pipetrain/rng.h"

enum { N = 37 }; /* elements of a vector */

pt_backend *open_ref(void);
float *vector_new(pt_backend *b);
void put(pt_backend *b, float *dev, const float *src);
/* Normal numbers of standard deviation a half. */
void random_vector(pt_rng *rng, float *at);

void assert_near(double got, double want, double tolerance, const char *what, int64_t at);
/* Within a few float roundings. */
void check_vector(pt_backend *b, const float *dev, const double *want, const char *what,
                  int64_t step);

#endif
