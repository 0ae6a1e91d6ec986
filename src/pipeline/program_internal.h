/* The inside of a program, shared by the files that make and run it. */
#ifndef PIPETRAIN_PIPELINE_PROGRAM_INTERNAL_H
#define PIPETRAIN_PIPELINE_PROGRAM_INTERNAL_H

#include "pipetrain/arena.h"
#include "pipetrain/program.h"

enum { NOWHERE = -1 };

/* A node of the graph as this stage runs it. */
typedef struct program_node {
    pt_op op;
    int inputs[PT_MAX_INPUTS];
    int weights;   /* the node that its parameters and state belong to */
    bool absorbed; /* a later node does its work: no kernel, and its value does not exist */
} program_node;

/* Which of a run's blocks of memory; see program.h. */
typedef enum storage_home { IN_SCRATCH, IN_STASH, IN_HELD } storage_home;

/* A block of bytes that one or more values (or gradients) live in. */
typedef struct storage {
    size_t bytes;
    storage_home home;
    int first, last; /* lifetime in scratch, indices of ops */
    size_t offset;   /* in its home */
} storage;

typedef struct storages {
    storage *at;
    int n, room;
} storages;

/* One call, or addition, of the backward. Numbers are indices into `gradients`. */
typedef enum call_kind {
    CALL_AGAIN, /* a forward, for what was not kept */
    CALL_INPUT,
    CALL_ADD,
    CALL_WEIGHT
} call_kind;

typedef struct call {
    call_kind kind;
    int node;                /* all but CALL_ADD */
    int d_out;               /* CALL_INPUT, CALL_WEIGHT */
    int d_in[PT_MAX_INPUTS]; /* CALL_INPUT; NOWHERE: not wanted */
    int x, y, sum;           /* CALL_ADD */
    int value;               /* CALL_ADD: whose gradient is added up */
} call;

struct pt_program {
    pt_backend *backend;
    const pt_graph *graph;
    const pt_stage_spec *spec;
    const pt_flat *flat;
    int samples;
    pt_mode mode;
    bool holds;
    const bool *recompute; /* [node]; NULL: none */
    pt_layout *input_layout;
    program_node *nodes; /* of the whole graph; fused on this stage */
    pt_kernel **kernels; /* the same; NULL: absorbed */

    storages values; /* forward */
    int *value_at;   /* [value]: its storage, or NOWHERE */
    int *saved_at;   /* [node - first]: likewise of what its kernel saves */
    bool *aliased;   /* [node - first]: nothing to run, out is in[0] */
    bool *kept;      /* [value]: the backward, or what it computes again, reads it in the stash */
    bool *again;     /* [node - first]: computed again for the backward */

    storages gradients; /* backward, with what it computes again */
    int *value_again;   /* [value]: its storage where it is computed again, or NOWHERE */
    int *saved_again;   /* [node - first]: likewise of what its kernel saves */
    int *gradient_in;   /* [value]: where an arriving gradient belongs, or NOWHERE */
    int *gradient_out;  /* [value]: where the total gradient is at the end, or NOWHERE */
    call *calls;        /* CALL_AGAIN first, CALL_INPUT and CALL_ADD, then CALL_WEIGHT */
    int n_calls, n_input_calls;

    size_t stash_bytes, scratch_bytes, held_bytes;
};

/* Adds a storage, in scratch for now; returns its index, or NOWHERE when memory ran out. */
int pt_storages_add(storages *all, size_t bytes, int now);
/* Lays out what is in scratch; returns the bytes it needs. */
pt_status pt_storages_plan(storages *all, size_t *ret_bytes, pt_error *err);

/* Fills nodes. */
pt_status pt_program_fuse(pt_program *p, pt_error *err);
/* Fills values, value_at, saved_at, aliased, kept, again and stash_bytes. */
pt_status pt_program_plan_values(pt_program *p, size_t *ret_scratch, pt_error *err);
/* Fills gradients, value_again, saved_again, gradient_in, gradient_out, calls and held_bytes. Needs
 * the values' plan. */
pt_status pt_program_plan_gradients(pt_program *p, size_t *ret_scratch, pt_error *err);

/* ---- program_recompute.c ----------------------------------------------------------------------
 */
/* Is the value made here by a layer whose values are not kept? */
bool pt_program_recomputes(const pt_program *p, int value);
/* Fills kept and again. Needs aliased. */
void pt_program_choose_kept(pt_program *p);
/* Appends the calls of what is computed again. Fills value_again and saved_again. */
pt_status pt_program_plan_again(pt_program *p, pt_error *err);
/* What a call of the backward reads of that: storages, of which some may be NOWHERE. */
enum { MOST_AGAIN = 3 };
void pt_program_reads_again(const pt_program *p, const call *c, int ret_storages[MOST_AGAIN]);

/* Is the value present on this stage: received, made and not absorbed, or (first stage) loaded? */
bool pt_program_holds(const pt_program *p, int value);
/* Does it cross the cut behind, or before, this stage? */
bool pt_program_sends(const pt_program *p, int value);
bool pt_program_receives(const pt_program *p, int value);

#endif
