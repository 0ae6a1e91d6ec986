/* What every test under mpirun is made of: a table of cases that all ranks run together.
 *
 * Each rank checks for itself and prints its failures to stderr with its rank; rank 0 adds them up
 * and prints one TAP line a case. The exit status of every rank is its own count, so that a failure
 * is seen even when the adding up is what is broken. */
#ifndef PIPETRAIN_TESTS_MPI_TAP_H
#define PIPETRAIN_TESTS_MPI_TAP_H

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "pipetrain/world.h"

/* A wait that never ends is the failure these tests look for: SIGALRM then ends the run. */
enum { TAP_SECONDS = 100 };

typedef struct tap {
    pt_world *world;
    int rank, size;
    int failures; /* of this rank, in the case that is running */
    pt_error err;
} tap;

typedef struct tap_case {
    const char *name;
    void (*run)(tap *t);
} tap_case;

/* Counts and reports a failure, and goes on. */
#define CHECK(t, condition, ...)                                                                   \
    do {                                                                                           \
        if (!(condition))                                                                          \
            tap_fail((t), __LINE__, #condition), fprintf(stderr, __VA_ARGS__),                     \
                fputc('\n', stderr);                                                               \
    } while (0)

#define CHECK_OK(t, call) CHECK((t), (call) == PT_OK, "%s", (t)->err.text)

static inline void tap_fail(tap *t, int line, const char *what)
{
    t->failures++;
    fprintf(stderr, "# rank %d, line %d: %s: ", t->rank, line, what);
}

/* Failures of all ranks; rank 0 alone gets to know. */
static inline int tap_add_up(tap *t)
{
    int total = 0, *parts = calloc((size_t)t->size, sizeof *parts);
    size_t *counts = calloc((size_t)t->size, sizeof *counts);
    if (!parts || !counts)
        exit(1);
    for (int r = 0; r < t->size; r++)
        counts[r] = sizeof *parts;
    int mine = t->failures;
    CHECK_OK(
        t, pt_world_gather(t->world, PT_FOR_STATUS, 0, &mine, sizeof mine, counts, parts, &t->err));
    for (int r = 0; r < t->size; r++)
        total += parts[r];
    free(parts);
    free(counts);
    return total + (t->failures - mine);
}

static inline int tap_main(int argc, char **argv, int min_ranks, const tap_case *cases, int n)
{
    tap t = {0};
    int all_failures = 0;
    alarm(TAP_SECONDS);
    if (pt_world_open(&argc, &argv, &t.world, &t.err) != PT_OK) {
        printf("Bail out! %s\n", t.err.text);
        return 1;
    }
    t.rank = pt_world_rank(t.world);
    t.size = pt_world_size(t.world);
    if (t.size < min_ranks) {
        printf("Bail out! %d ranks, at least %d are needed\n", t.size, min_ranks);
        return 1;
    }
    if (t.rank == 0)
        printf("1..%d\n", n);
    for (int i = 0; i < n; i++) {
        t.failures = 0;
        cases[i].run(&t);
        int total = tap_add_up(&t);
        if (t.rank == 0)
            printf("%sok %d - %s\n", total ? "not " : "", i + 1, cases[i].name);
        fflush(stdout);
        all_failures += t.rank == 0 ? total : t.failures;
    }
    pt_world_close(t.world);
    return all_failures ? 1 : 0;
}

#endif
