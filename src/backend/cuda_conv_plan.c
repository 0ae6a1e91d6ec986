/* Choosing an engine: ask cuDNN's heuristics for candidates, best first, pass over those that the
 * precision or determinism forbids, and take the first whose plan can be finalized. The precise
 * heuristics come first, those that know any shape last. */
#include "cuda_conv_plan.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NOTE(name) (1u << CUDNN_NUMERICAL_NOTE_##name)

static const cudnnBackendHeurMode_t modes[] = {CUDNN_HEUR_MODE_A, CUDNN_HEUR_MODE_B,
                                               CUDNN_HEUR_MODE_FALLBACK};

/* Notes that each precision refuses. Sums are always made in fp32. */
static const unsigned refused[PT_PRECISIONS] = {
    [PT_FP32] = NOTE(TENSOR_CORE) | NOTE(DOWN_CONVERT_INPUTS) | NOTE(REDUCED_PRECISION_REDUCTION),
    [PT_TF32] = NOTE(REDUCED_PRECISION_REDUCTION),
    [PT_BF16] = NOTE(REDUCED_PRECISION_REDUCTION),
};

/* The candidates of one heuristic. */
typedef struct candidates {
    cudnnBackendDescriptor_t *config;
    int64_t n;
} candidates;

static void candidates_clear(candidates *c)
{
    for (int64_t i = 0; i < c->n; i++)
        pt_cudnn_free(&c->config[i]);
    free(c->config);
    *c = (candidates){0};
}

static pt_status fetch(candidates *c, cudnnBackendDescriptor_t heuristic, pt_error *err)
{
    int64_t n = 0;
    PT_TRY(pt_cudnn_check(cudnnBackendGetAttribute(heuristic, CUDNN_ATTR_ENGINEHEUR_RESULTS,
                                                   CUDNN_TYPE_BACKEND_DESCRIPTOR, 0, &n, NULL),
                          "counting candidates", err));
    if (n <= 0)
        return PT_OK;
    c->config = calloc((size_t)n, sizeof *c->config);
    if (!c->config)
        return pt_fail(err, PT_ENOMEM, "out of memory");
    for (c->n = 0; c->n < n; c->n++)
        PT_TRY(pt_cudnn_new(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR, &c->config[c->n], err));
    int64_t got = 0;
    PT_TRY(
        pt_cudnn_check(cudnnBackendGetAttribute(heuristic, CUDNN_ATTR_ENGINEHEUR_RESULTS,
                                                CUDNN_TYPE_BACKEND_DESCRIPTOR, n, &got, c->config),
                       "reading candidates", err));
    while (c->n > got)
        pt_cudnn_free(&c->config[--c->n]);
    return PT_OK;
}

static pt_status ask(candidates *c, cudnnBackendHeurMode_t mode, const pt_conv_graph *graph,
                     const pt_conv_target *target, pt_error *err)
{
    cudnnBackendDescriptor_t heuristic = NULL;
    pt_status status;
    PT_GOTO(status, pt_cudnn_new(CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR, &heuristic, err));
    PT_GOTO(status, pt_cudnn_set(heuristic, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH,
                                 CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &graph->graph, err));
    PT_GOTO(status, pt_cudnn_set(heuristic, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1,
                                 &mode, err));
#if CUDNN_VERSION >= 90800
    if (target->description)
        PT_GOTO(status, pt_cudnn_set(heuristic, CUDNN_ATTR_ENGINEHEUR_DEVICEPROP,
                                     CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &target->description, err));
#else
    (void)target;
#endif
    PT_GOTO(status, pt_cudnn_seal(heuristic, "asking for engines", err));
    status = fetch(c, heuristic, err);
out:
    pt_cudnn_free(&heuristic);
    return status;
}

/* Appends the engine's knobs, "_k2=1" each. */
static void write_knobs(cudnnBackendDescriptor_t config, char *text, size_t size)
{
    enum { KNOBS = CUDNN_KNOB_TYPE_COUNTS };
    cudnnBackendDescriptor_t knob[KNOBS] = {0};
    int64_t n = 0, one = 0;
    for (int i = 0; i < KNOBS; i++)
        if (cudnnBackendCreateDescriptor(CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR, &knob[i]) !=
            CUDNN_STATUS_SUCCESS)
            goto out;
    if (cudnnBackendGetAttribute(config, CUDNN_ATTR_ENGINECFG_KNOB_CHOICES,
                                 CUDNN_TYPE_BACKEND_DESCRIPTOR, KNOBS, &n,
                                 knob) != CUDNN_STATUS_SUCCESS)
        goto out;
    size_t length = strlen(text);
    for (int64_t i = 0; i < n && i < KNOBS && length < size; i++) {
        cudnnBackendKnobType_t type = CUDNN_KNOB_TYPE_COUNTS;
        int64_t value = 0;
        cudnnBackendGetAttribute(knob[i], CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE, CUDNN_TYPE_KNOB_TYPE, 1,
                                 &one, &type);
        cudnnBackendGetAttribute(knob[i], CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE, CUDNN_TYPE_INT64, 1,
                                 &one, &value);
        length += (size_t)snprintf(text + length, size - length, "_k%d=%lld", (int)type,
                                   (long long)value);
    }
out:
    for (int i = 0; i < KNOBS; i++)
        pt_cudnn_free(&knob[i]);
}

static pt_status inspect(cudnnBackendDescriptor_t config, unsigned *ret_notes, int64_t *ret_index,
                         pt_error *err)
{
    cudnnBackendNumericalNote_t note[CUDNN_NUMERICAL_NOTE_TYPE_COUNT];
    cudnnBackendDescriptor_t engine = NULL;
    unsigned notes = 0;
    int64_t n = 0, index = -1;
    pt_status status;
    PT_GOTO(status, pt_cudnn_new(CUDNN_BACKEND_ENGINE_DESCRIPTOR, &engine, err));
    PT_GOTO(status,
            pt_cudnn_check(cudnnBackendGetAttribute(config, CUDNN_ATTR_ENGINECFG_ENGINE,
                                                    CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &n, &engine),
                           "reading a candidate's engine", err));
    PT_GOTO(status, pt_cudnn_check(cudnnBackendGetAttribute(engine, CUDNN_ATTR_ENGINE_GLOBAL_INDEX,
                                                            CUDNN_TYPE_INT64, 1, &n, &index),
                                   "reading an engine's number", err));
    PT_GOTO(status,
            pt_cudnn_check(cudnnBackendGetAttribute(engine, CUDNN_ATTR_ENGINE_NUMERICAL_NOTE,
                                                    CUDNN_TYPE_NUMERICAL_NOTE,
                                                    CUDNN_NUMERICAL_NOTE_TYPE_COUNT, &n, note),
                           "reading an engine's notes", err));
    for (int64_t i = 0; i < n && i < CUDNN_NUMERICAL_NOTE_TYPE_COUNT; i++)
        notes |= 1u << note[i];
    *ret_notes = notes;
    *ret_index = index;
out:
    pt_cudnn_free(&engine);
    return status;
}

/* An engine may refuse here what its heuristic proposed; that is no failure of ours. */
static pt_status finalize(cudnnBackendDescriptor_t config, const pt_conv_target *target,
                          cudnnBackendDescriptor_t *ret_plan, size_t *ret_workspace, pt_error *err)
{
    cudnnBackendDescriptor_t plan = NULL;
    int64_t n = 0, bytes = 0;
    pt_status status;
    PT_GOTO(status, pt_cudnn_new(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR, &plan, err));
    PT_GOTO(status, pt_cudnn_set(plan, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG,
                                 CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &config, err));
    if (target->handle)
        PT_GOTO(status, pt_cudnn_set(plan, CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, 1,
                                     &target->handle, err));
#if CUDNN_VERSION >= 90800
    if (target->description)
        PT_GOTO(status, pt_cudnn_set(plan, CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP,
                                     CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &target->description, err));
#endif
    PT_GOTO(status, pt_cudnn_seal(plan, "finalizing a plan", err));
    PT_GOTO(status,
            pt_cudnn_check(cudnnBackendGetAttribute(plan, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE,
                                                    CUDNN_TYPE_INT64, 1, &n, &bytes),
                           "reading a plan's workspace", err));
    *ret_workspace = bytes > 0 ? (size_t)bytes : 0;
    *ret_plan = plan;
    plan = NULL;
out:
    pt_cudnn_free(&plan);
    return status;
}

/* Tries one candidate; *ret_taken says whether it became the choice. Why it did not, when it was
 * not for its notes, is left in err. */
static bool take(pt_conv_choice *choice, cudnnBackendDescriptor_t *config, unsigned forbidden,
                 const pt_conv_target *target, pt_error *err)
{
    unsigned notes = 0;
    int64_t index = -1;
    if (inspect(*config, &notes, &index, err) != PT_OK || (notes & forbidden))
        return false;
    if (finalize(*config, target, &choice->plan, &choice->workspace, err) != PT_OK)
        return false;
    snprintf(choice->engine, sizeof choice->engine, "eng%lld", (long long)index);
    write_knobs(*config, choice->engine, sizeof choice->engine);
    choice->notes = notes;
    choice->config = *config;
    *config = NULL;
    return true;
}

static pt_status nothing_left(const pt_conv_shape *shape, int64_t asked, const pt_error *why,
                              pt_error *err)
{
    const size_t version = cudnnGetVersion();
    char words[PT_CONV_WORDS];
    pt_conv_describe(shape, words);
    return pt_fail(err, PT_EINPUT,
                   "cuDNN %zu.%zu has no engine for %s: of %lld candidates none is allowed and "
                   "able; write a smaller micro-batch or another --precision%s%s%s",
                   version / 10000, version / 100 % 100, words, (long long)asked,
                   shape->deterministic ? ", or leave --deterministic out" : "",
                   why->text[0] ? ". The last refusal: " : "", why->text);
}

pt_status pt_conv_choose(pt_conv_choice *choice, const pt_conv_shape *shape,
                         const pt_conv_target *target, pt_error *err)
{
    const unsigned forbidden =
        refused[shape->precision] | (shape->deterministic ? NOTE(NONDETERMINISTIC) : 0);
    pt_conv_graph graph = {0};
    char words[PT_CONV_WORDS];
    int64_t asked = 0;
    pt_error why = {0}; /* the last refusal, for the message */
    bool taken = false;
    pt_status status = pt_conv_graph_build(&graph, shape, target->handle, err);
    if (status != PT_OK) {
        pt_conv_describe(shape, words);
        pt_fail_within(err, "%s", words);
        goto out;
    }
    for (size_t m = 0; m < sizeof modes / sizeof *modes && !taken; m++) {
        candidates found = {0};
        if (ask(&found, modes[m], &graph, target, &why) == PT_OK)
            for (int64_t i = 0; i < found.n && !taken; i++, asked++)
                taken = take(choice, &found.config[i], forbidden, target, &why);
        candidates_clear(&found);
    }
    if (!taken)
        status = nothing_left(shape, asked, &why, err);
out:
    pt_conv_graph_clear(&graph);
    return status;
}

void pt_conv_choice_clear(pt_conv_choice *choice)
{
    pt_cudnn_free(&choice->plan);
    pt_cudnn_free(&choice->config);
}
