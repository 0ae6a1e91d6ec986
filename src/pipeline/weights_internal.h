/* The inside of a stage's weights, shared by weights*.c. */
#ifndef PIPETRAIN_PIPELINE_WEIGHTS_INTERNAL_H
#define PIPETRAIN_PIPELINE_WEIGHTS_INTERNAL_H

#include "pipetrain/weights.h"

typedef struct stash_slot {
    float *dev;
    uint64_t content;
    uint64_t made_from; /* content of θ then */
    int64_t version;
    int staleness; /* how far ahead it was predicted … */
    int gathered;  /* … and with the gradients of how many micro-batches */
    int holders;   /* micro-batches between their forward and their backward */
} stash_slot;

struct pt_weights {
    pt_backend *backend;
    pt_weights_spec spec;
    const pt_optimizer_row *optimizer;
    size_t n; /* elements of a parameter buffer */
    float *theta, *gradient, *state;
    float *moments[PT_MOST_STATE_BUFFERS]; /* of the optimizer */
    float *drift;          /* correction: mean move of an update; NULL: nothing is corrected */
    float *back;           /* θ taken back along it … */
    uint64_t back_content; /* … whose number is that … */
    uint64_t back_from;    /* … made from this content of θ; 0: from none */
    float *own;            /* gradients of one micro-batch; NULL: they go where the step's are */
    float *mean_squares;   /* gap-aware: of the velocity */
    double top_rate;       /* gap-aware: the highest learning rate of the updates so far */
    float *predicted;
    uint64_t content;           /* of θ */
    uint64_t last_content;      /* the newest number given to anything */
    uint64_t predicted_content; /* of `predicted` … */
    uint64_t predicted_from;    /* … which was made from this content of θ … */
    int predicted_staleness;    /* … for this staleness; 0: never made … */
    int predicted_gathered;     /* … with the gradients of so many micro-batches */
    int gathered;               /* micro-batches whose gradients the step has so far */
    float *previous;            /* two versions: θ before the last update … */
    uint64_t previous_content;
    int64_t updates;
    stash_slot *stash;
};

/* A piece of the buffers whose weights have the same decay. */
typedef struct weights_piece {
    pt_optimizer_spec optimizer;
    pt_optimizer_buffers at;
    size_t begin;
} weights_piece;

enum { WEIGHT_PIECES = 2 }; /* with decay, and without */

/* 0: with decay; 1: without. May be empty. */
weights_piece pt_weights_piece(const pt_weights *weights, int which);

/* ---- weights_versions.c -----------------------------------------------------------------------
 */
bool pt_weights_predicts(const pt_weights_spec *spec);
bool pt_weights_keep(const pt_weights_spec *spec); /* versions, from a forward to its backward */
/* What leads `staleness` steps on, when so many steps are done. */
pt_prediction pt_weights_prediction(const pt_weights *weights, const weights_piece *piece,
                                    int64_t step, int staleness);
/* `predicted` was just made, or will be when the compute lane gets there, from θ as it is now. */
void pt_weights_has_predicted(pt_weights *weights, int staleness);

/* ---- weights_gap.c ----------------------------------------------------------------------------
 */
size_t pt_weights_gap_buffers(const pt_weights_spec *spec); /* beside the versions */
pt_status pt_weights_gap_new(pt_weights *weights, pt_error *err);
/* In an update, once the weights have changed. */
pt_status pt_weights_gap_update(pt_weights *weights, pt_error *err);

/* ---- weights_back.c ---------------------------------------------------------------------------
 */
size_t pt_weights_back_buffers(const pt_weights_spec *spec);
pt_status pt_weights_back_new(pt_weights *weights, pt_error *err);
/* In an update: before θ changes, and when everything else has been told. */
pt_status pt_weights_back_before(pt_weights *weights, pt_error *err);
pt_status pt_weights_back_after(pt_weights *weights, pt_error *err);
/* θ taken back, or θ itself where that is not known. */
pt_weight_set pt_weights_back(const pt_weights *weights);

/* ---- weights.c --------------------------------------------------------------------------------
 */
/* A parameter buffer, zeroed. */
pt_status pt_weights_buffer(pt_weights *weights, float **ret_dev, pt_error *err);

#endif
