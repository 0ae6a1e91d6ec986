/* The groups of tests that test_ops.c runs on one backend. Each test's initial state is an
 * ops_subject. */
#ifndef PIPETRAIN_TESTS_OPS_TESTS_H
#define PIPETRAIN_TESTS_OPS_TESTS_H

#include "ops_cases.h"
#include "pipetrain/backend.h"

/* What one test is about. */
typedef struct ops_subject {
    const pt_backend_row *row;
    const ops_case *c; /* NULL for tests of the whole backend */
    bool inner;        /* inputs in the layouts of the backend's own layers */
} ops_subject;

/* What the backend under test computes in; ref always computes in fp32. */
extern pt_precision ops_precision;

/* The larger of a bound for fp32 and the one of the precision. */
double ops_bound(double fp32_bound);

/* Opens a backend or fails the test. */
pt_backend *ops_open(const pt_backend_row *row, int threads);

/* Fails the test unless max|a - b| <= bound · (max|b| + floor). */
void ops_assert_near(const char *what, const float *a, const float *b, int64_t n, double bound,
                     double floor);

void ops_test_case(void **state);       /* everything about one op */
void ops_test_known(void **state);      /* tiny ops with answers from outside */
void ops_test_ties(void **state);       /* max-pool: the first maximum gets the gradient */
void ops_test_dropout(void **state);    /* the mask is the one that the counters give */
void ops_test_registry(void **state);   /* rows, names and "auto" agree */
void ops_test_memory(void **state);     /* zeroed, aligned, counted */
void ops_test_events(void **state);     /* done after finish */
void ops_test_lanes(void **state);      /* copies and compute in the order of events */
void ops_test_reserve(void **state);    /* what is there is granted */
void ops_test_precision(void **state);  /* CPUs: fp32 only */
void ops_test_foresight(void **state);  /* the bits of sgd, then axpby */
void ops_test_sums(void **state);       /* of two values, in their layout and type */
void ops_test_fused(void **state);      /* longer forms of batch-norm: the bits of the row */
void ops_test_again(void **state);      /* a second forward: the same, running statistics stay */
void ops_test_flat(void **state);       /* axpby, sum of squares */
void ops_test_sgd(void **state);        /* against the formula in double */
void ops_test_adam(void **state);       /* against the formula in double, and foresight */
void ops_test_late(void **state);       /* rules for late gradients, against their formulas */
void ops_test_entropy(void **state);    /* gradients, smoothing, arg-max */
void ops_test_mse(void **state);        /* gradients */
void ops_test_loss_known(void **state); /* uniform logits, ties, bad labels */

#endif
