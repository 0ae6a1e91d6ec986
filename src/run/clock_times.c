/* The file of stage times: read for the clock backend, written from what a run measured. */
#include "clock_times.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pipetrain/text.h"
#include "setup.h"

static const char HEAD[] = "stage,forward_us,backward_input_us,backward_weight_us,update_us";
static const double MOST_US = 1e9; /* a quarter of an hour: more is a slip */

enum { FIELDS = 5, FIELD_TEXT = 32 };

/* ---- reading ----------------------------------------------------------------------------------
 */

typedef struct reader {
    const char *name;
    int line, stages;
    pt_stage_cost *costs;
    int *lines; /* per stage, and behind them of "*": where it was said; 0: nowhere */
    pt_stage_cost others;
    pt_error *err;
} reader;

/* The next field of the line, without blanks around it; returns its column, from 1. One that is too
 * long ends in what no number has: it is refused, and not read in part. */
static int field(const char *line, size_t length, size_t *at, char text[FIELD_TEXT])
{
    size_t from = *at, to = from;
    while (to < length && line[to] != ',')
        to++;
    *at = to + 1;
    while (from < to && (line[from] == ' ' || line[from] == '\t'))
        from++;
    while (to > from && strchr(" \t\r", line[to - 1]))
        to--;
    if (to - from < FIELD_TEXT)
        snprintf(text, FIELD_TEXT, "%.*s", (int)(to - from), line + from);
    else
        snprintf(text, FIELD_TEXT, "%.*s…", FIELD_TEXT - (int)sizeof "…", line + from);
    return (int)from + 1;
}

static pt_status read_stage(const reader *r, int column, const char *text, int *ret_stage)
{
    double number = 0;
    if (strcmp(text, "*") == 0) {
        *ret_stage = r->stages;
        return PT_OK;
    }
    if (!pt_text_number(text, &number) || !(number >= 0) || !(number < r->stages) ||
        number != floor(number))
        return pt_fail(r->err, PT_EINPUT,
                       "%s:%d:%d: '%s' is not a stage of this run; write one of 0 to %d, or * for "
                       "all without a row",
                       r->name, r->line, column, text, r->stages - 1);
    *ret_stage = (int)number;
    return PT_OK;
}

static pt_status read_row(reader *r, const char *line, size_t length)
{
    double numbers[FIELDS] = {0};
    size_t at = 0;
    int stage = 0, n = 0;
    for (; at <= length && n < FIELDS; n++) {
        char text[FIELD_TEXT];
        int column = field(line, length, &at, text);
        if (n == 0)
            PT_TRY(read_stage(r, column, text, &stage));
        else if (!pt_text_number(text, &numbers[n]) || !(numbers[n] >= 0) ||
                 !(numbers[n] <= MOST_US))
            return pt_fail(r->err, PT_EINPUT,
                           "%s:%d:%d: '%s' is not a time; write µs, a number of 0 to %.0f", r->name,
                           r->line, column, text, MOST_US);
    }
    if (n < FIELDS || at <= length)
        return pt_fail(r->err, PT_EINPUT, "%s:%d:%zu: a row has %d fields; write %s", r->name,
                       r->line, n < FIELDS ? length + 1 : at, FIELDS, HEAD);
    if (r->lines[stage])
        return pt_fail(r->err, PT_EINPUT,
                       "%s:%d:1: this stage has a row before, in line %d; leave one out", r->name,
                       r->line, r->lines[stage]);
    r->lines[stage] = r->line;
    *(stage < r->stages ? &r->costs[stage] : &r->others) = (pt_stage_cost){
        .forward = numbers[1],
        .backward_input = numbers[2],
        .backward_weight = numbers[3],
        .update = numbers[4],
    };
    return PT_OK;
}

static pt_status read_lines(reader *r, const char *text, size_t bytes)
{
    const char *end = text + bytes;
    bool has_head = false;
    for (size_t length = 0; text < end; text += length + 1) {
        const char *stop = memchr(text, '\n', (size_t)(end - text));
        length = (size_t)((stop ? stop : end) - text);
        r->line++;
        if (memchr(text, 0, length))
            return pt_fail(r->err, PT_EINPUT, "%s:%d: holds a byte 0: this is not a text file",
                           r->name, r->line);
        size_t shown = length - (length > 0 && text[length - 1] == '\r');
        if (shown == 0 || *text == '#')
            continue;
        if (has_head)
            PT_TRY(read_row(r, text, shown));
        else if (shown != strlen(HEAD) || strncmp(text, HEAD, shown) != 0)
            return pt_fail(r->err, PT_EINPUT, "%s:%d:1: the first line must be %s", r->name,
                           r->line, HEAD);
        has_head = true;
    }
    return has_head ? PT_OK
                    : pt_fail(r->err, PT_EINPUT, "%s: an empty file; its first line must be %s",
                              r->name, HEAD);
}

pt_status pt_clock_parse(const char *name, const char *text, size_t bytes, int stages,
                         pt_stage_cost *costs, pt_error *err)
{
    int *lines = calloc((size_t)stages + 1, sizeof *lines);
    if (!lines)
        return pt_fail(err, PT_ENOMEM, "no memory for %d stages", stages);
    reader r = {.name = name, .stages = stages, .costs = costs, .lines = lines, .err = err};
    pt_status status = read_lines(&r, text, bytes);
    for (int s = 0; status == PT_OK && s < stages; s++) {
        if (!lines[s] && !lines[stages])
            status = pt_fail(err, PT_EINPUT,
                             "%s: no row for stage %d of %d; add one, or a row that begins with *",
                             name, s, stages);
        else if (!lines[s])
            costs[s] = r.others;
    }
    free(lines);
    return status;
}

/* ---- who bears a stage's times ----------------------------------------------------------------
 */

/* A layer that reads nothing but the model's input gives no gradient to anybody. */
static bool has_input_gradient(const pt_node *node)
{
    for (int i = 0; i < node->op.n_inputs; i++)
        if (node->inputs[i] != 0)
            return true;
    return node->op.kind == PT_OP_BATCH_NORM; /* its weight gradient comes with it */
}

static bool has_weight_gradient(const pt_node *node)
{
    return node->op.kind == PT_OP_CONV2D || node->op.kind == PT_OP_LINEAR;
}

static int last_with(const pt_graph *graph, const pt_stage_spec *spec,
                     bool (*has)(const pt_node *node))
{
    int i = spec->end - 1;
    while (i >= spec->first && !has(&graph->nodes[i]))
        i--;
    return i;
}

pt_status pt_clock_spread(const pt_graph *graph, const pt_stage_spec *spec,
                          const pt_stage_cost *cost, pt_call_times *layers, pt_error *err)
{
    int input = last_with(graph, spec, has_input_gradient);
    int weight = last_with(graph, spec, has_weight_gradient);
    bool has_input = input >= spec->first, has_weight = weight >= spec->first;
    if (!has_input && !has_weight && cost->backward_input + cost->backward_weight > 0)
        return pt_fail(err, PT_EINPUT,
                       "stage %d has no backward: none of its layers has weights, nor any before "
                       "them; give it a row with 0 for both, or cut the model elsewhere",
                       spec->stage);
    layers[spec->first].forward += llround(1e3 * cost->forward);
    if (has_input)
        layers[input].backward_input +=
            llround(1e3 * (cost->backward_input + (has_weight ? 0 : cost->backward_weight)));
    if (has_weight)
        layers[weight].backward_weight +=
            llround(1e3 * (cost->backward_weight + (has_input ? 0 : cost->backward_input)));
    return PT_OK;
}

pt_status pt_clock_read(pt_run *run, pt_error *err)
{
    const pt_graph *graph = &run->partition->graph;
    char *text = NULL;
    size_t bytes = 0;
    int stages = pt_run_all_blocks(run);
    run->clock_costs = calloc((size_t)stages, sizeof *run->clock_costs);
    run->clock_layers = calloc((size_t)graph->n_nodes, sizeof *run->clock_layers);
    if (!run->clock_costs || !run->clock_layers)
        return pt_fail(err, PT_ENOMEM, "no memory for the times of %d stages", stages);
    PT_TRY(pt_text_read_file(run->settings->clock, &text, &bytes, err));
    pt_status status =
        pt_clock_parse(run->settings->clock, text, bytes, stages, run->clock_costs, err);
    free(text);
    for (int s = 0; status == PT_OK && s < stages; s++) {
        status =
            pt_clock_spread(graph, &run->specs[s], &run->clock_costs[s], run->clock_layers, err);
        if (status != PT_OK)
            pt_fail_within(err, "%s", run->settings->clock);
    }
    return status;
}

/* ---- writing ----------------------------------------------------------------------------------
 */

pt_status pt_clock_write(const pt_run *run, const pt_stage_cost *costs, pt_error *err)
{
    const char *path = run->settings->clock_out;
    FILE *file = path ? fopen(path, "w") : NULL;
    if (!path)
        return PT_OK;
    if (!file)
        return pt_fail(err, PT_EIO, "--clock-out: cannot write %s: %s", path, strerror(errno));
    fprintf(file, "%s\n", HEAD);
    for (int s = 0; s < pt_run_all_blocks(run); s++) {
        const pt_stage_cost *c = &costs[s];
        fprintf(file, "%d,%.3f,%.3f,%.3f,%.3f\n", s, c->forward, c->backward_input,
                c->backward_weight, c->update);
    }
    bool failed = ferror(file) != 0;
    failed = fclose(file) != 0 || failed;
    return failed ? pt_fail(err, PT_EIO, "--clock-out: cannot write %s: %s", path, strerror(errno))
                  : PT_OK;
}
