/* What the files of src/schedule/ share: building lists, playing them, drawing them.
 *
 *   list.c      lists of actions, exactly as long as they need to be
 *   blocks.c    blocks of layers, their ranks, and the edges between them
 *   rows.c      the table of schedules, and everything a caller may do with a spec
 *   generate.c  compute actions of gpipe, 1f1b, zb-h1 and async
 *   interleave.c  … of interleaved, and of inference
 *   own_read.c  lists of the user's own, from a file …
 *   own.c       … made into schedules; and schedules written as such a file
 *   lower.c     puts the messages in
 *   rules.c     what one rank's list must obey by itself (rules_state.c: what it adds up to)
 *   play.c      all ranks together, with bounded links: the core of checker, simulator and picture
 *   channel.c   … and these links
 *   check.c     rules, then play; refuses with a reason and a picture
 *   simulate.c  play with costs, twice: find the window, then measure in it
 *   draw.c      the picture                                                                      */
#ifndef PT_SCHEDULE_INTERNAL_H
#define PT_SCHEDULE_INTERNAL_H

#include "pipetrain/schedule.h"

/* ---- list.c ---- */

/* Micro-batches times chunks: a lowered list has at most 9 actions for each (F, B, W, four
 * messages, CLIP, UPDATE) and its length must fit an int. */
enum { PT_SPAN_MAX = 1 << 27 };

/* Room for n actions in an empty list. */
pt_status pt_action_list_reserve(pt_action_list *list, int n, pt_error *err);
void pt_action_list_clear(pt_action_list *list);

/* An empty schedule with spec.stages empty lists. */
pt_status pt_schedule_new(const pt_schedule_spec *spec, bool synchronous, pt_schedule **ret,
                          pt_error *err);

int pt_schedule_steps(const pt_schedule_spec *spec);             /* of the span */
int pt_schedule_last_of(const pt_schedule_spec *spec, int step); /* its last micro-batch */
bool pt_schedule_ends_step(const pt_schedule_spec *spec, int micro_batch);
bool pt_schedule_trains(const pt_schedule *schedule); /* or only infers */

/* ---- blocks.c ---- */

/* The edge over which a message action of this block goes: e joins the blocks e and e+1. -1 where
 * this end of the pipeline has no such message, and for what is no message. */
int pt_schedule_edge(const pt_schedule_spec *spec, int rank, int chunk, pt_action_kind kind);
/* The rank at its other end, or -1. */
int pt_schedule_peer(const pt_schedule_spec *spec, int rank, int chunk, pt_action_kind kind);

/* ---- rows.c ---- */

pt_status pt_schedule_check_counts(const pt_schedule_spec *spec, pt_error *err);

/* ---- generate.c ---- */

pt_status pt_generate_gpipe(const pt_schedule_spec *spec, pt_schedule *schedule, pt_error *err);
pt_status pt_generate_1f1b(const pt_schedule_spec *spec, pt_schedule *schedule, pt_error *err);
pt_status pt_generate_zb_h1(const pt_schedule_spec *spec, pt_schedule *schedule, pt_error *err);
pt_status pt_generate_async(const pt_schedule_spec *spec, pt_schedule *schedule, pt_error *err);

/* ---- interleave.c ---- */

pt_status pt_generate_interleaved(const pt_schedule_spec *spec, pt_schedule *schedule,
                                  pt_error *err);
pt_status pt_generate_infer(const pt_schedule_spec *spec, pt_schedule *schedule, pt_error *err);

/* ---- rules.c ---- */

/* Where and why a list is refused. */
typedef struct pt_flaw {
    int rank;
    int index;        /* of the action; for a missing one, the place where it should stand */
    pt_action action; /* the offending action, or the missing one */
    char reason[256];
} pt_flaw;

/* PT_EINPUT: *ret_flaw says why (err is not written). PT_ENOMEM: err is. ret_ranks has an entry for
 * each block; those of this rank's are written. */
pt_status pt_schedule_check_rank(const pt_schedule *schedule, int rank, pt_schedule_rank *ret_ranks,
                                 pt_flaw *ret_flaw, pt_error *err);

/* ---- play.c ---- */

typedef struct pt_channel pt_channel;

/* Called for every action that was played, rank by rank in the order of its list; but the ranks
 * take turns in no order that means anything. A message's start is when the rank comes to it, its
 * end when the rank goes on. */
typedef struct pt_play_visitor {
    void (*visit)(void *context, int rank, int index, double start, double end);
    void *context;
} pt_play_visitor;

typedef enum pt_play_end { PT_PLAY_DONE, PT_PLAY_STUCK, PT_PLAY_CROSSED } pt_play_end;

typedef struct pt_player {
    const pt_schedule *schedule;
    int slots;
    bool synchronous;       /* a send waits for a slot of the receiver, not for one of its own */
    int stop_rank, stop_at; /* that rank never gets past that action; rank -1: nobody stops */

    /* What the last run left behind. */
    int *cursor;                       /* per rank: the action it is at; n when it has finished */
    double *clock;                     /* per rank: when it came to that action */
    int crossed_rank, crossed_message; /* PT_PLAY_CROSSED: who met which micro-batch's message */

    double (*duration)[PT_ACTION_KINDS]; /* per block; CLIP and UPDATE: of all, at chunk 0 */
    pt_channel *act, *grad;              /* [e]: between block e and e+1, in each direction */
    int *queue;                          /* ring of ranks that may be able to go on */
    bool *queued;
    int queue_head, queue_n;
    int at_clip;      /* ranks that have come to the CLIP of the step */
    bool *clipping;   /* which ones */
    double clip_time; /* when the latest of them came */
} pt_player;

/* costs: one per block, or NULL for forward 1, backward 2 (input 1, weight 1), messages 0. */
pt_status pt_player_new(const pt_schedule *schedule, const pt_stage_cost *costs, int slots,
                        bool synchronous, pt_player **ret_player, pt_error *err);
void pt_player_free(pt_player *player);

/* Plays from the start as far as it goes. Safe on any list, however wrong. visitor may be NULL. */
pt_play_end pt_player_run(pt_player *player, const pt_play_visitor *visitor);

/* Writes "rank 1 waits in RECV_ACT of micro-batch 3 from rank 0". */
void pt_player_describe(const pt_player *player, int rank, char *ret_text, size_t bytes);

/* "micro-batch 3", or "micro-batch 3, chunk 1" where there are several. Returns `text`. */
enum { PT_UNIT_TEXT = 64 };
const char *pt_schedule_name_unit(const pt_schedule_spec *spec, const pt_action *action,
                                  char text[PT_UNIT_TEXT]);

/* ---- draw.c ---- */

/* Draws what the stopped player could play, with '!' at every rank that has not finished, or, given
 * a flaw, at that one alone. */
pt_status pt_schedule_draw_stopped(pt_player *player, const pt_flaw *flaw, FILE *out,
                                   pt_error *err);

#endif
