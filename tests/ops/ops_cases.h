/* The ops that every backend is tested with: each kind at the sizes that go wrong first. */
#ifndef PIPETRAIN_TESTS_OPS_CASES_H
#define PIPETRAIN_TESTS_OPS_CASES_H

#include "pipetrain/op.h"

typedef struct ops_case {
    const char *name;
    int samples;
    pt_op op; /* not yet inferred */
} ops_case;

extern const ops_case ops_cases[];
extern const int ops_n_cases;

#endif
