/* The table of schedules. --help, the parser and error messages all read the same rows. */
#include <stdio.h>
#include <string.h>

#include "internal.h"
#include "pipetrain/text.h"

#define SCHEDULES(ROW)                                                                             \
    ROW("gpipe", "all forwards of a step, then all backwards, then the update; most memory", true, \
        false, pt_generate_gpipe)                                                                  \
    ROW("1f1b",                                                                                    \
        "a forward and a backward by turns, flushed every step; gpipe's time, less memory", true,  \
        false, pt_generate_1f1b)                                                                   \
    ROW("interleaved",                                                                             \
        "1f1b with several small blocks of layers on each rank; a shorter fill, more messages",    \
        true, true, pt_generate_interleaved)                                                       \
    ROW("zb-h1",                                                                                   \
        "1f1b with weight gradients put off to where a stage would wait; less idle, all stages "   \
        "hold what 1f1b's first one does",                                                         \
        true, false, pt_generate_zb_h1)                                                            \
    ROW("async", "a forward and a backward by turns, never flushed; forwards see stale weights",   \
        false, false, pt_generate_async)

#define AS_ROW(name_, help_, synchronous_, interleaves_, generate_)                                \
    {.name = name_,                                                                                \
     .help = help_,                                                                                \
     .synchronous = synchronous_,                                                                  \
     .interleaves = interleaves_,                                                                  \
     .generate = generate_},
#define AS_NAME(name_, help_, synchronous_, interleaves_, generate_) name_,

static const pt_schedule_row rows[] = {SCHEDULES(AS_ROW)};
static const char *const names[] = {SCHEDULES(AS_NAME) NULL};
enum { ROWS = sizeof(rows) / sizeof(rows[0]) };

static const char *const action_names[PT_ACTION_KINDS] = {
    [PT_FORWARD] = "FORWARD",
    [PT_BACKWARD_INPUT] = "BACKWARD_INPUT",
    [PT_BACKWARD_WEIGHT] = "BACKWARD_WEIGHT",
    [PT_CLIP] = "CLIP",
    [PT_UPDATE] = "UPDATE",
    [PT_INFER] = "INFER",
    [PT_RECV_ACT] = "RECV_ACT",
    [PT_SEND_ACT] = "SEND_ACT",
    [PT_RECV_GRAD] = "RECV_GRAD",
    [PT_SEND_GRAD] = "SEND_GRAD",
};

const pt_schedule_row *pt_schedule_rows(int *ret_n)
{
    *ret_n = ROWS;
    return rows;
}

const pt_schedule_row *pt_schedule_find(const char *name)
{
    for (int i = 0; name && i < ROWS; i++)
        if (strcmp(rows[i].name, name) == 0)
            return &rows[i];
    return NULL;
}

const char *const *pt_schedule_names(void)
{
    return names;
}

const char *pt_schedule_name_unit(const pt_schedule_spec *spec, const pt_action *action,
                                  char text[PT_UNIT_TEXT])
{
    int used = snprintf(text, PT_UNIT_TEXT, "micro-batch %d", action->micro_batch);
    if (spec->chunks > 1)
        snprintf(text + used, PT_UNIT_TEXT - (size_t)used, ", chunk %d", action->chunk);
    return text;
}

const char *pt_action_name(pt_action_kind kind)
{
    return (unsigned)kind < PT_ACTION_KINDS ? action_names[kind] : "unknown action";
}

pt_status pt_schedule_check_counts(const pt_schedule_spec *spec, pt_error *err)
{
    int chunks = spec->chunks > 0 ? spec->chunks : 1;
    const struct {
        const char *what;
        int value, least, most;
    } counts[] = {
        {"chunks on each rank", spec->chunks, 1, PT_MOST_CHUNKS},
        {"stages", spec->stages, 1, PT_SPAN_MAX / PT_MOST_CHUNKS},
        {"micro-batches in a span", spec->micro_batches, 1, PT_SPAN_MAX / chunks},
        {"micro-batches a step", spec->per_step, 1, INT32_MAX},
        {"forwards in flight", spec->in_flight, 0, INT32_MAX},
    };
    for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++)
        if (counts[i].value < counts[i].least || counts[i].value > counts[i].most)
            return pt_fail(err, PT_EINPUT, "schedule '%s': %d %s; give %d to %d", spec->name,
                           counts[i].value, counts[i].what, counts[i].least, counts[i].most);
    if (spec->stages == 1 && spec->chunks > 1)
        return pt_fail(
            err, PT_EINPUT,
            "%d chunks on one rank, which has nobody to take turns with; start two ranks "
            "or more, or give it one chunk (--chunks 1)",
            spec->chunks);
    return PT_OK;
}

static pt_status find_row(const char *name, const pt_schedule_row **ret_row, pt_error *err)
{
    char known[128];
    *ret_row = pt_schedule_find(name);
    if (!*ret_row)
        return pt_fail(err, PT_EINPUT, "unknown schedule '%s' (%s)", name ? name : "",
                       pt_text_join(names, ROWS, known, sizeof(known)));
    return PT_OK;
}

static pt_status check_spec(const pt_schedule_spec *spec, const pt_schedule_row *row, pt_error *err)
{
    PT_TRY(pt_schedule_check_counts(spec, err));
    if (row->synchronous && spec->in_flight > 0)
        return pt_fail(err, PT_EINPUT,
                       "schedule '%s' cannot keep %d more forwards in flight: it flushes at every "
                       "step, and a forward of the next step would see weights that are not "
                       "updated yet; leave --in-flight out or use --schedule async",
                       row->name, spec->in_flight);
    if (!row->interleaves && spec->chunks > 1)
        return pt_fail(err, PT_EINPUT,
                       "schedule '%s' has one block of layers on each rank, not %d; leave --chunks "
                       "out or use --schedule interleaved",
                       row->name, spec->chunks);
    if (!row->synchronous && spec->clip)
        return pt_fail(err, PT_EINPUT,
                       "schedule '%s' cannot clip by the global norm: stages update one after "
                       "the other, so the norm over all of them is not known yet when the last "
                       "stage has to update; leave clipping out or use --schedule 1f1b",
                       row->name);
    return PT_OK;
}

pt_status pt_schedule_generate(const pt_schedule_spec *spec, pt_schedule **ret_schedule,
                               pt_error *err)
{
    const pt_schedule_row *row;
    PT_TRY(find_row(spec->name, &row, err));
    PT_TRY(check_spec(spec, row, err));

    pt_schedule_spec own = *spec;
    own.name = row->name;
    pt_schedule *schedule;
    PT_TRY(pt_schedule_new(&own, row->synchronous, &schedule, err));
    pt_status status = row->generate(&own, schedule, err);
    if (status != PT_OK) {
        pt_schedule_free(schedule);
        return status;
    }
    *ret_schedule = schedule;
    return PT_OK;
}

pt_status pt_schedule_infer(int stages, int chunks, int n, pt_schedule **ret_schedule,
                            pt_error *err)
{
    pt_schedule_spec spec = {.name = "infer",
                             .stages = stages,
                             .micro_batches = n,
                             .per_step = n > 0 ? n : 1,
                             .chunks = chunks};
    PT_TRY(pt_schedule_check_counts(&spec, err));
    pt_schedule *schedule;
    PT_TRY(pt_schedule_new(&spec, /*synchronous=*/true, &schedule, err));
    schedule->infers = true;
    pt_status status = pt_generate_infer(&spec, schedule, err);
    if (status != PT_OK) {
        pt_schedule_free(schedule);
        return status;
    }
    *ret_schedule = schedule;
    return PT_OK;
}
