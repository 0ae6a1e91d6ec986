/* Schedules are data: for every rank a static list of actions. The engine runs them, the checker
 * proves them free of deadlock, the simulator times them, --check draws them. No MPI and no tensors
 * are known here.
 *
 * A list covers a *span*: the micro-batches between two drains (one epoch, or what is left of
 * --steps). Micro-batches of a span are numbered 0 … N-1; micro-batch m belongs to optimizer step
 * m / M of the span, and the last step may have fewer than M.
 *
 * A rank owns V chunks, blocks of layers that are next to each other: the model is cut into P·V
 * blocks, and block b is chunk b / P of rank b mod P. A message from the last rank about chunk c
 * goes on to the first rank's chunk c+1.
 *
 *   generate → compute actions → lower → + messages → check → run | simulate | draw            */
#ifndef PIPETRAIN_SCHEDULE_H
#define PIPETRAIN_SCHEDULE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "pipetrain/status.h"

typedef enum pt_action_kind {
    PT_FORWARD,
    PT_BACKWARD_INPUT,  /* and, for ops whose gradient is one pass, everything */
    PT_BACKWARD_WEIGHT, /* accumulates; releases the activations of the micro-batch */
    PT_CLIP,            /* global gradient norm of the step: every rank takes part */
    PT_UPDATE,          /* optimizer; the weight version goes up by one */
    PT_INFER,           /* forward only */
    PT_RECV_ACT,        /* from the block before */
    PT_SEND_ACT,        /* to the block behind */
    PT_RECV_GRAD,       /* from the block behind */
    PT_SEND_GRAD,       /* to the block before */
    PT_ACTION_KINDS
} pt_action_kind;

typedef struct pt_action {
    uint8_t kind;  /* pt_action_kind */
    uint8_t chunk; /* which block of layers of this rank, 0 … V-1; CLIP and UPDATE are of all
                      of them and carry 0 */
    int32_t micro_batch; /* 0 … N-1; for CLIP and UPDATE the last one of the step */
    int32_t step;        /* optimizer step of the span, micro_batch / M */
    int32_t staleness;   /* FORWARD: updates that this rank makes between this action and its own
                            backward of the same micro-batch; 0 otherwise */
    int32_t peer;        /* messages: the other rank; -1 otherwise */
    int32_t line;        /* of the file that one's own list is from; 0: generated */
} pt_action;

typedef struct pt_action_list {
    pt_action *actions;
    int n;
} pt_action_list;

typedef struct pt_schedule_spec {
    const char *name;  /* a row of pt_schedule_rows(), e.g. "1f1b" */
    int stages;        /* P >= 1 */
    int micro_batches; /* N >= 1, of the span */
    int per_step;      /* M >= 1 */
    int in_flight;     /* k >= 0 (async only): forwards more per link behind the stage */
    bool clip;         /* a CLIP before every UPDATE (synchronous schedules only) */
    int chunks;        /* V, 1 … PT_MOST_CHUNKS; more than 1 need two ranks */
} pt_schedule_spec;

enum { PT_MOST_CHUNKS = 64 };

typedef struct pt_schedule {
    pt_schedule_spec spec; /* spec.name is borrowed: static text of a row, "infer", or the name of
                              the file of one's own lists */
    bool synchronous;      /* no forward ever sees older weights than its backward */
    bool infers;           /* forward only */
    bool lowered;
    pt_action_list *ranks; /* spec.stages lists */
} pt_schedule;

typedef struct pt_schedule_row {
    const char *name;
    const char *help;
    bool synchronous;
    bool interleaves; /* takes more than one chunk */
    pt_status (*generate)(const pt_schedule_spec *spec, pt_schedule *schedule, pt_error *err);
} pt_schedule_row;

/* The schedules one can train with. */
const pt_schedule_row *pt_schedule_rows(int *ret_n);
const pt_schedule_row *pt_schedule_find(const char *name); /* or NULL */
const char *const *pt_schedule_names(void);                /* of the rows; ended by NULL */

/* The blocks of a schedule, P·V of them, and the number of one. */
int pt_schedule_blocks(const pt_schedule_spec *spec);
int pt_schedule_block(const pt_schedule_spec *spec, int rank, int chunk);

/* Compute actions of one span. PT_EINPUT for values that the schedule cannot serve (in_flight with
 * a synchronous schedule, clip with an asynchronous one, a step that does not divide into groups),
 * with the reason. */
pt_status pt_schedule_generate(const pt_schedule_spec *spec, pt_schedule **ret_schedule,
                               pt_error *err);

/* INFER of n micro-batches on every rank, through all its chunks. Its spec is named "infer", which
 * is no row: it cannot be trained with. It has one step of n micro-batches and no update. */
pt_status pt_schedule_infer(int stages, int chunks, int n, pt_schedule **ret_schedule,
                            pt_error *err);

/* ---- lists of one's own ----
 *
 * A text file, one line an action: rank, FORWARD or BACKWARD_INPUT or BACKWARD_WEIGHT, micro-batch.
 * The first line names the columns: rank,action,micro_batch. Lines of one rank are its list, in
 * their order; ranks may be mixed. A column `chunk` says which block of the rank; without it there
 * is one. Blank lines mean nothing. */
typedef struct pt_own_lists pt_own_lists;

/* PT_EINPUT: file, line and reason. Every rank must have the three actions of every micro-batch
 * and chunk once; their order is looked at by pt_schedule_check, whose messages name the line. */
pt_status pt_own_lists_parse(const char *file, const char *text, size_t bytes,
                             pt_own_lists **ret_own, pt_error *err);
void pt_own_lists_free(pt_own_lists *own); /* NULL is fine */
int pt_own_lists_stages(const pt_own_lists *own);
int pt_own_lists_chunks(const pt_own_lists *own);
int pt_own_lists_micro_batches(const pt_own_lists *own); /* that each rank has */

/* The compute actions of one span; spec->name and chunks are not read. Lists of spec->per_step
 * micro-batches are those of one step and repeat; longer ones are those of the span. What they have
 * more than a step, or the span, is left out. CLIP, UPDATE, steps and staleness are put in, and the
 * schedule is synchronous where no forward is late. It borrows from `own`. PT_EINPUT: the numbers
 * of ranks or micro-batches do not fit. */
pt_status pt_own_lists_generate(const pt_own_lists *own, const pt_schedule_spec *spec,
                                pt_schedule **ret_schedule, pt_error *err);
/* Would that schedule, with so many micro-batches a step, be synchronous? */
pt_status pt_own_lists_synchronous(const pt_own_lists *own, int per_step, bool *ret_synchronous,
                                   pt_error *err);

/* Writes the lists of any schedule in that form. */
pt_status pt_schedule_write(const pt_schedule *schedule, FILE *out, pt_error *err);

/* Puts RECV and SEND around the compute actions: a receive right before its consumer, a send right
 * after its producer (a gradient leaves before BACKWARD_WEIGHT). A lowered one stays as it is. */
pt_status pt_schedule_lower(pt_schedule *schedule, pt_error *err);

/* Slots per edge (a cut between two blocks) and direction: two, so that one message travels while
 * the next is made, and as many more as in_flight lets a stage run ahead. With several chunks at
 * least half of a group of P: what the first rank sends back to the last one may come most of a
 * group before its turn. */
int pt_schedule_slots(const pt_schedule_spec *spec);

void pt_schedule_free(pt_schedule *schedule); /* NULL is fine */

/* What the checker found out about one chunk of one rank. */
typedef struct pt_schedule_rank {
    int stash_peak;     /* micro-batches whose activations are alive at once */
    int all_stash_peak; /* the same of all chunks of the rank together: at most the sum of their
                           peaks, and less where they take turns */
    int held_peak;      /* gradients of values that wait for their BACKWARD_WEIGHT while other
                           micro-batches compute, in micro-batches; 0: none ever waits */
    int versions_peak;  /* distinct weight versions alive under stashing */
    int staleness_max;
    double staleness_mean; /* over forwards */
} pt_schedule_rank;

/* Plays a lowered list of all ranks on one thread, every send synchronous, with `slots` posted
 * receives per edge and direction: message i can be sent once message i-slots has been received.
 * CLIP is a meeting of all ranks. Proves: it ends; each message is received by the right action in
 * the order it was sent; every micro-batch has exactly one forward, backward-input and
 * backward-weight per chunk, in that order (or one INFER), and each of these kinds runs, on each
 * chunk, in micro-batch order (sums and statistics have the same bits at any number of stages);
 * every step has one UPDATE, after its last BACKWARD_WEIGHT and before the next step's first
 * BACKWARD_INPUT, and one CLIP before it if the spec clips; each FORWARD's staleness is the true
 * number of updates up to its backward, and 0 in a synchronous schedule. O(actions). ret_ranks has
 * an entry for each block (may be NULL). PT_EINPUT: the message names the rank, the action and the
 * reason and brings the grid around the offending cell, which is marked with '!'. A deadlock names
 * every rank that waits (the first eight of them) and marks each. */
pt_status pt_schedule_check(const pt_schedule *schedule, int slots, pt_schedule_rank *ret_ranks,
                            pt_error *err);

/* Costs of one block, µs per micro-batch (update, clip: per step). */
typedef struct pt_stage_cost {
    double forward, backward_input, backward_weight, update, clip;
    double send_act, send_grad; /* µs a message of this block is under way */
} pt_stage_cost;

typedef struct pt_simulated_rank {
    double busy;   /* µs in compute actions */
    double idle;   /* µs waiting, from the rank's first to its last action */
    double bubble; /* 1 - busy/elapsed between the end of the fill (the last stage starts) and the
                      start of the drain (the first stage starts its last forward); over the whole
                      span for synchronous schedules and where there is no such window */
} pt_simulated_rank;

/* Times a lowered list; costs has one entry per block, and CLIP and UPDATE take what those of all
 * chunks of the rank add up to. A send takes one of the sender's `slots`,
 * free again when its message has been delivered, and returns; the message is delivered once it has
 * arrived and the receiver has one of its own `slots` free. CLIP begins when the last rank comes to
 * it. Every ret_ may be NULL. ret_start[rank] and ret_end[rank] are arrays of ranks[rank].n doubles
 * of the caller, in µs: a message starts when the rank comes to it and ends when the rank goes on,
 * so its length is time waited. ret_total_us is the time of the span. PT_EINPUT for a negative cost
 * or a list that does not come to its end. */
pt_status pt_schedule_simulate(const pt_schedule *schedule, const pt_stage_cost *costs, int slots,
                               double **ret_start, double **ret_end, pt_simulated_rank *ret_ranks,
                               double *ret_total_us, pt_error *err);

/* Draws a lowered list, one row per rank, one column per unit of forward time, from a simulation
 * with forward 1, backward 2 (input 1 + weight 1) and pt_schedule_slots() slots, with a time axis
 * and a legend; with more than one chunk a letter, a, b …, says which. `columns` limits the width
 * in characters; what is cut is said.
 *
 *       time   0              5              10
 *     rank 0 | 0F 1F  . 0B 0W  . 1B 1W*2F 3F  .  …
 *     rank 1 |  . 0F 0B 0W 1F 1B 1W* .  . 2F 2B  … */
pt_status pt_schedule_draw(const pt_schedule *schedule, int columns, FILE *out, pt_error *err);

const char *pt_action_name(pt_action_kind kind); /* "FORWARD" … */

#endif
