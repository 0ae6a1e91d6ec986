/* The inside of the engine: engine.c runs lists, engine_links.c opens links, engine_actions.c does
 * what an action says, engine_flights.c keeps the micro-batches and their host memory,
 * engine_results.c reads losses and times when a device has come to them, engine_clip.c takes the
 * global norm, engine_times.c does the sums of a pass. */
#ifndef PIPETRAIN_PIPELINE_ENGINE_INTERNAL_H
#define PIPETRAIN_PIPELINE_ENGINE_INTERNAL_H

#include "pipetrain/engine.h"
#include "pipetrain/link.h"

/* Adds what follows from the timings to the sums of `result`. */
void pt_timings_sum(const pt_timing *timings, int n, bool synchronous, int64_t start, int64_t end,
                    pt_pass_result *result);

/* A micro-batch on its way through this rank. The host may be done with it while a device still
 * reads its memory, so there are a few more than micro-batches in flight. */
typedef struct flight {
    int micro_batch; /* -1: nobody */
    pt_micro_batch mb;
    pt_epoch_item item;
    void *answer;     /* last stage: labels or targets, pinned */
    pt_event *gone;   /* compute has come to its end */
    int64_t departed; /* how many departed before and with it; 0: never flown */
} flight;

enum { MORE_FLIGHTS = 2 }; /* so far the host may run ahead of a device */

/* A stretch of compute whose beginning and end are known when the device has come to them. */
typedef struct span {
    pt_event *begin, *end;
    int64_t *start_ns, *ns; /* of a pt_timing: start_ns is set once, ns added to */
} span;

/* A loss that was asked for. */
typedef struct late_loss {
    pt_event *event;
    int64_t samples;
} late_loss;

/* A ring: entries first … first + n - 1, modulo room, are under way, the oldest first. */
typedef struct ring {
    int room, first, n;
} ring;

/* What a link's slot waits for. */
typedef struct slot_event {
    pt_backend *backend;
    pt_event *event;
} slot_event;

enum { ACTS_IN, ACTS_OUT, GRADS_IN, GRADS_OUT, LINKS };

/* A block of layers at work: its stage, the micro-batches in it, and the links of its two edges. */
typedef struct block {
    pt_stage *stage;
    const pt_stage_spec *spec;
    int slots; /* micro-batches in flight at most */
    flight *flights;
    int n_flights;
    pt_link *links[LINKS];
    void *buffers[LINKS];           /* of the links' slots */
    slot_event *slot_events[LINKS]; /* one per slot: its copy is done */
    int next_slot[LINKS];
} block;

/* The global gradient norm. Every rank sums its tensors one by one; rank 0 adds the sums in layer
 * order, which no cut changes, and tells everyone the factor. */
typedef struct clipper {
    int chunks;
    double *mine, *all; /* sums of squares per tensor; `all` on rank 0 only */
    size_t n_mine;
    size_t *bytes;  /* of every rank's part; rank 0 */
    size_t *counts; /* [rank][chunk]: tensors; rank 0 */
    double norm, scale;
} clipper;

struct pt_engine {
    pt_engine_spec spec;
    block *blocks; /* one per chunk */
    int n_blocks;
    int64_t departures;
    pt_timing *timings; /* [micro-batch][chunk] … */
    int first_timing;   /* … this pass's begin here … */
    int n_timings;      /* … and end here */
    int64_t next_step;  /* of the epoch: the next to begin … */
    int64_t end_step;   /* … unless the pass ends there */
    span *spans;
    ring span_ring;
    late_loss *losses; /* last stage */
    pt_loss_result *loss_results;
    ring loss_ring;
    float *input[2];         /* first stage: one micro-batch each, pinned */
    pt_event *input_read[2]; /* the device has it */
    int n_inputs, next_input;
    float *outputs; /* last stage: predictions on the host */
    clipper clip;
    pt_step_result step;     /* of the step whose backwards are under way */
    pt_pass_result sums;     /* of the pass */
    int64_t busy_ns;         /* of all passes */
    const pt_pass *pass;     /* the caller's; after a failure it is gone … */
    uint32_t epoch;          /* … and its epoch is still told */
    const pt_action *action; /* the one that is running … */
    block *at;               /* … and the block that it is for */
    const flight *went_back; /* the latest backward's, if no forward came since; or NULL */
    pt_between_ops between;
};

/* Of the model. */
bool pt_block_is_first(const block *b);
bool pt_block_is_last(const block *b);
/* Of all flights, in all blocks; as many as micro-batches may be under way, and a few more. */
int pt_engine_flights(const pt_engine *e);

/* Updates between the FORWARD that is running and its own backward, in this pass. */
int pt_engine_staleness(const pt_engine *e);
/* Does e->action. */
pt_status pt_engine_act(pt_engine *e, pt_error *err);

/* ---- the global norm --------------------------------------------------------------------------
 */
pt_status pt_clipper_init(clipper *c, pt_world *world, const block *blocks, int chunks,
                          pt_error *err);
void pt_clipper_clear(clipper *c);
/* Sets norm and scale = min(1, limit / (norm + 1e-6)), as torch.nn.utils.clip_grad_norm_ does. */
pt_status pt_clipper_run(clipper *c, pt_world *world, pt_backend *backend, const block *blocks,
                         double limit, pt_error *err);

/* ---- links ------------------------------------------------------------------------------------
 */
/* All memory is there before the first meeting: a rank that lacks some would leave its neighbour
 * waiting. */
pt_status pt_links_new(pt_engine *e, pt_error *err);
pt_status pt_links_open(pt_engine *e, pt_error *err);
void pt_links_close(pt_engine *e, block *at); /* half-built is fine */
pt_status pt_links_poll(pt_engine *e, pt_error *err);
pt_status pt_links_flush(pt_engine *e, pt_error *err);
/* Since they were opened. */
void pt_links_waits(const pt_engine *e, int64_t *ret_receive_ns, int64_t *ret_send_ns);

/* ---- flights ----------------------------------------------------------------------------------
 */
pt_status pt_flights_new(pt_engine *e, pt_error *err);
void pt_flights_free(pt_engine *e); /* half-built is fine */
/* That of a micro-batch which is in the block of the running action, or NULL. */
flight *pt_flight_find(pt_engine *e, int micro_batch);
/* The micro-batch of the running action; comes into being at its first action in this block. */
pt_status pt_flight_arrive(pt_engine *e, flight **ret_flight, pt_error *err);
pt_status pt_flight_depart(pt_engine *e, flight *f, pt_error *err);
pt_timing *pt_flight_timing(pt_engine *e, const flight *f);
/* First stage: host memory for the next input, free to be written; `given` when it was loaded. */
pt_status pt_input_take(pt_engine *e, float **ret_input, pt_error *err);
pt_status pt_input_given(pt_engine *e, pt_error *err);

/* ---- results that come later ------------------------------------------------------------------
 */
pt_status pt_results_new(pt_engine *e, pt_error *err);
void pt_results_free(pt_engine *e); /* half-built is fine */
/* Around a stretch of compute; one at a time. */
pt_status pt_span_begin(pt_engine *e, int64_t *start_ns, int64_t *ns, pt_error *err);
pt_status pt_span_end(pt_engine *e, pt_error *err);
/* Asks for the loss of a micro-batch whose answer is in place. */
pt_status pt_loss_ask(pt_engine *e, flight *f, pt_error *err);
/* Waits for all losses that were asked for, and adds them, in order, to the step's sums (training)
 * or the pass's (evaluation). */
pt_status pt_loss_collect(pt_engine *e, pt_error *err);
/* Waits for everything that this pass asked of the device. */
pt_status pt_results_settle(pt_engine *e, pt_error *err);

#endif
