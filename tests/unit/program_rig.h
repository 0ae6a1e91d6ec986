/* A network with its data, evaluated three ways: by naive.h, by a chain of pt_programs and by a
 * chain of pt_stages. Their answers must have the same bits. */
#ifndef PIPETRAIN_TESTS_PROGRAM_RIG_H
#define PIPETRAIN_TESTS_PROGRAM_RIG_H

#include "pipetrain/stage.h"
#include "random_graph.h"

enum {
    CLASSES = 3,
    MOST_STAGES = 4,
    BATCHES = 2, /* micro-batches in flight */
    MOST_SAMPLES = 3,
    SEED = 11,
    EPOCH = 2
};

#define RIG_SCALE (1.0f / 5) /* of the loss: a step with all micro-batches */

extern const int rig_samples[BATCHES]; /* of each micro-batch; the last one is short */

/* What goes in, and the whole network's map of parameters. */
typedef struct rig_problem {
    pt_backend *b;
    pt_graph graph;
    pt_flat whole;
    float *input[BATCHES];
    int32_t label[BATCHES][MOST_SAMPLES];
    uint32_t sample[BATCHES][MOST_SAMPLES];
    const bool *recompute; /* [node]: layers whose values are not kept; NULL: none */
    bool moves;            /* backwards have other weights than forwards … */
    const int *begins; /* … and what stages sent each other differs from what they recompute */
    int stages;
} rig_problem;

/* What comes out; gradient and state lie as rig_problem.whole says. */
typedef struct rig_answer {
    float predictions[BATCHES][MOST_SAMPLES * CLASSES];
    pt_loss_result loss[BATCHES];
    float *gradient, *state;
} rig_answer;

/* One stage. */
typedef struct rig_part {
    const pt_stage_spec *spec;
    pt_flat flat;
    pt_weights *weights;
    pt_program *program[BATCHES];
    void *stash[BATCHES], *held[BATCHES], *scratch;
    pt_stage *stage;
} rig_part;

pt_backend *rig_backend(const char *name);

/* Gives a problem, whose backend and graph are there, its data. Clearing takes the graph along. */
void rig_fill(rig_problem *p, uint64_t seed);
void rig_clear(rig_problem *p);

void rig_answer_new(const rig_problem *p, rig_answer *a);
void rig_answer_free(rig_answer *a);
/* Fails the test when a bit differs; how, seed and stages say what was tried. */
void rig_assert_same(const rig_problem *p, const rig_answer *want, const rig_answer *got,
                     const char *how, uint64_t seed, int stages);

/* Parameters that depend on layer and index alone, so that every cut gets the same. */
pt_weights *rig_weights(const rig_problem *p, const pt_flat *flat);
/* What they are after the forwards of a problem that moves. */
void rig_move_weights(const rig_problem *p, const pt_flat *flat, pt_weights *w);
/* Copies a stage's gradient and statistics to their places in the whole network's. */
void rig_gather(const rig_problem *p, pt_weights *w, const pt_flat *flat, rig_answer *a);

/* Programs of every stage, with stash and scratch of their own. `holds`, here and below: weight
 * gradients wait for the input gradients of all micro-batches. */
void rig_parts_open(const rig_problem *p, const pt_stage_spec *specs, int stages, pt_mode mode,
                    bool holds, rig_part *parts);
void rig_parts_close(const rig_problem *p, rig_part *parts, int stages);
/* What a call for micro-batch m works on. */
pt_program_run rig_run(const rig_problem *p, const rig_part *at, int m);

/* All forwards, then all backwards; rig_answer_free the result. Scratch is filled with NaN whenever
 * a plan may not count on what is there, the stash before every forward. */
void rig_naive_answer(const rig_problem *p, pt_mode mode, rig_answer *ret_answer);
void rig_program_answer(const rig_problem *p, const pt_stage_spec *specs, int stages, pt_mode mode,
                        bool holds, rig_answer *ret_answer);
void rig_stage_answer(const rig_problem *p, const pt_stage_spec *specs, int stages, bool holds,
                      rig_answer *ret_answer);

#endif
