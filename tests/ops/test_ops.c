/* test_ops BACKEND [PRECISION]: every op, loss and flat operation of one backend.
 *
 * The ref backend is checked against finite differences, formulas and answers from outside; the
 * others against ref and against the slopes of ref's forward. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend_row.h"
#include "ops_tests.h"
#include "suite.h"

static const struct {
    const char *name;
    CMUnitTestFunction function;
} whole_tests[] = {
    {"registry", ops_test_registry},
    {"memory", ops_test_memory},
    {"events", ops_test_events},
    {"lanes", ops_test_lanes},
    {"reserve", ops_test_reserve},
    {"precision", ops_test_precision},
    {"sums of values", ops_test_sums},
    {"batch-norm and what follows", ops_test_fused},
    {"second forwards", ops_test_again},
    {"flat buffers", ops_test_flat},
    {"sgd", ops_test_sgd},
    {"foresight", ops_test_foresight},
    {"adam", ops_test_adam},
    {"rules for late gradients", ops_test_late},
    {"cross-entropy", ops_test_entropy},
    {"mse", ops_test_mse},
    {"losses with known answers", ops_test_loss_known},
    {"ops with known answers", ops_test_known},
    {"ties of max-pool", ops_test_ties},
    {"dropout's mask", ops_test_dropout},
};

enum { WHOLE_TESTS = sizeof whole_tests / sizeof whole_tests[0], NAME = 96 };

typedef struct suite {
    int n;
    struct CMUnitTest *tests;
    ops_subject *subjects;
    char (*names)[NAME];
} suite;

static void add(suite *s, CMUnitTestFunction function, ops_subject subject, const char *name,
                const char *suffix)
{
    snprintf(s->names[s->n], NAME, "%s%s", name, suffix);
    s->subjects[s->n] = subject;
    s->tests[s->n] = (struct CMUnitTest){s->names[s->n], function, NULL, NULL, &s->subjects[s->n]};
    s->n++;
}

static bool set_precision(const char *name)
{
    for (int p = 0; p < PT_PRECISIONS; p++)
        if (strcmp(name, pt_precision_names[p]) == 0) {
            ops_precision = (pt_precision)p;
            return true;
        }
    return false;
}

int main(int argc, char **argv)
{
    if (argc < 2 || argc > 3 || (argc == 3 && !set_precision(argv[2]))) {
        fprintf(stderr, "usage: test_ops BACKEND [fp32|tf32|bf16]\n");
        return 2;
    }
    const pt_backend_row *row = backend_row(argv[1]);
    if (!row) {
        fprintf(stderr, "backend '%s' is not in this build\n", argv[1]);
        return 2;
    }
    size_t most = (size_t)(WHOLE_TESTS + 2 * ops_n_cases);
    suite s = {0, calloc(most, sizeof *s.tests), calloc(most, sizeof *s.subjects),
               calloc(most, sizeof *s.names)};
    if (!s.tests || !s.subjects || !s.names)
        return 2;
    for (int i = 0; i < WHOLE_TESTS; i++)
        add(&s, whole_tests[i].function, (ops_subject){row, NULL, false}, whole_tests[i].name, "");
    for (int i = 0; i < ops_n_cases; i++) {
        add(&s, ops_test_case, (ops_subject){row, &ops_cases[i], false}, ops_cases[i].name, "");
        if (strcmp(row->name, "ref") != 0) /* ref has plain layouts only */
            add(&s, ops_test_case, (ops_subject){row, &ops_cases[i], true}, ops_cases[i].name,
                ", inner layouts");
    }
    char group[NAME];
    snprintf(group, sizeof group, "ops on %s, %s", row->name, pt_precision_names[ops_precision]);
    int failed = _cmocka_run_group_tests(group, s.tests, (size_t)s.n, NULL, NULL);
    free(s.tests);
    free(s.subjects);
    free(s.names);
    return failed;
}
