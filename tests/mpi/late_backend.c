/* See late_backend.h. Events are those of ref; what is known of them stands in a table beside. */
#include "late_backend.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pipetrain/clock.h"
#include "pipetrain/rng.h"

typedef enum call_kind {
    MOVE,
    FORWARD,
    BACKWARD_INPUT,
    BACKWARD_WEIGHT,
    LOSS,
    ADD,
    AXPBY,
    SGD,
    ADAM,
    MEAN_SQUARES,
    GAP,
    LOOK_BACK,
    REORDER,
    RECORD,
    WAIT
} call_kind;

/* One queued call with all that it was told. */
typedef struct call {
    struct call *next;
    call_kind kind;
    void *dst;
    const void *src, *other;
    size_t n; /* bytes or elements */
    float a, c;
    pt_kernel *kernel;
    pt_kernel_args args;
    const pt_loss *loss;
    pt_loss_args loss_args;
    pt_sgd rule;
    float *velocity;
    bool foresees;
    pt_foresight foresight;
    pt_adam adam;
    float *squares;
    pt_adam_foresight adam_foresight;
    pt_gap gap;
    pt_look_back back;
    const float *theta, *average;
    const pt_shape *shape;
    int samples;
    const pt_layout *from, *to;
    pt_event *event;
    int64_t number; /* of the recording */
} call;

typedef struct known_event {
    pt_event *event;
    int64_t recorded, reached, ns;
} known_event;

enum { MOST_EVENTS = 1024 };

static struct {
    pt_backend *b;
    const pt_backend_row *ref;
    pt_backend_row row;
    call *first[PT_LANES], *last[PT_LANES];
    uint32_t eagerness[PT_LANES];
    known_event events[MOST_EVENTS];
    int n_events;
    int64_t queued, calls, most;
    pt_rng rng;
} late;

static void die(const char *what)
{
    fprintf(stderr, "late backend: %s\n", what);
    exit(1);
}

static known_event *known(pt_event *event)
{
    for (int i = 0; i < late.n_events; i++)
        if (late.events[i].event == event)
            return &late.events[i];
    if (late.n_events == MOST_EVENTS)
        die("too many events");
    late.events[late.n_events] = (known_event){.event = event};
    return &late.events[late.n_events++];
}

static pt_status queue(pt_lane lane, const call *c)
{
    call *copy = malloc(sizeof *copy);
    if (!copy)
        die("no memory");
    *copy = *c;
    copy->next = NULL;
    if (late.last[lane])
        late.last[lane]->next = copy;
    else
        late.first[lane] = copy;
    late.last[lane] = copy;
    late.calls++;
    late.queued++;
    late.most = late.queued > late.most ? late.queued : late.most;
    return PT_OK;
}

/* ---- running ----------------------------------------------------------------------------------
 */

static pt_status run(const call *c, pt_error *err)
{
    const pt_backend_row *ref = late.ref;
    pt_backend *b = late.b;
    switch (c->kind) {
    case MOVE:
        return ref->copy(b, c->dst, c->src, c->n, err);
    case FORWARD:
        return ref->forward(c->kernel, &c->args, err);
    case BACKWARD_INPUT:
        return ref->backward_input(c->kernel, &c->args, err);
    case BACKWARD_WEIGHT:
        return ref->backward_weight(c->kernel, &c->args, err);
    case LOSS:
        return ref->loss(b, c->loss, &c->loss_args, err);
    case ADD:
        return ref->add(b, c->from, c->src, c->other, c->dst, err);
    case AXPBY:
        return ref->axpby(b, c->n, c->a, c->src, c->c, c->other, c->dst, err);
    case SGD:
        return ref->sgd(b, c->n, &c->rule, c->dst, c->velocity, c->src,
                        c->foresees ? &c->foresight : NULL, err);
    case ADAM:
        return ref->adam(b, c->n, &c->adam, c->dst, c->velocity, c->squares, c->src,
                         c->foresees ? &c->adam_foresight : NULL, err);
    case MEAN_SQUARES:
        return ref->mean_squares(b, c->n, c->a, c->c, c->src, c->dst, err);
    case GAP:
        return ref->gap(b, c->n, &c->gap, c->other, c->theta, c->average, c->src, c->dst, err);
    case LOOK_BACK:
        return ref->look_back(b, c->n, &c->back, c->theta, c->velocity, c->dst, err);
    case REORDER:
        return ref->reorder(b, c->shape, c->samples, c->from, c->src, c->to, c->dst, err);
    case RECORD:
        known(c->event)->reached = c->number;
        known(c->event)->ns = pt_clock_ns();
        return PT_OK;
    case WAIT:
        return PT_OK;
    }
    return PT_EINTERNAL;
}

static bool blocked(const call *c)
{
    return c->kind == WAIT && known(c->event)->reached < c->number;
}

static void run_first(int lane)
{
    pt_error err = {PT_OK, ""};
    call *c = late.first[lane];
    if (run(c, &err) != PT_OK)
        die(err.text);
    late.first[lane] = c->next;
    if (!c->next)
        late.last[lane] = NULL;
    free(c);
    late.queued--;
}

/* One call of a lane that can go on, at random. */
static void step(void)
{
    uint32_t total = 0;
    for (int i = 0; i < PT_LANES; i++)
        if (late.first[i] && !blocked(late.first[i]))
            total += late.eagerness[i];
    if (total == 0)
        die("every lane waits for another");
    uint32_t at = pt_rng_below(&late.rng, total);
    for (int i = 0; i < PT_LANES; i++) {
        if (!late.first[i] || blocked(late.first[i]))
            continue;
        if (at < late.eagerness[i]) {
            run_first(i);
            return;
        }
        at -= late.eagerness[i];
    }
}

static void run_all(void)
{
    while (late.queued > 0)
        step();
}

/* ---- the row ----------------------------------------------------------------------------------
 */

static pt_status copy(pt_backend *b, void *dst, const void *src, size_t bytes, pt_error *err)
{
    (void)b, (void)err;
    return queue(PT_LANE_COMPUTE, &(call){.kind = MOVE, .dst = dst, .src = src, .n = bytes});
}

static pt_status copy_in(pt_backend *b, void *dst, const void *src, size_t bytes, pt_error *err)
{
    (void)b, (void)err;
    return queue(PT_LANE_IN, &(call){.kind = MOVE, .dst = dst, .src = src, .n = bytes});
}

static pt_status copy_out(pt_backend *b, void *dst, const void *src, size_t bytes, pt_error *err)
{
    (void)b, (void)err;
    return queue(PT_LANE_OUT, &(call){.kind = MOVE, .dst = dst, .src = src, .n = bytes});
}

static pt_status transfer_now(pt_backend *b, void *dst, const void *src, size_t bytes,
                              pt_error *err)
{
    run_all();
    return late.ref->copy(b, dst, src, bytes, err);
}

static pt_status forward(pt_kernel *k, const pt_kernel_args *args, pt_error *err)
{
    (void)err;
    return queue(PT_LANE_COMPUTE, &(call){.kind = FORWARD, .kernel = k, .args = *args});
}

static pt_status backward_input(pt_kernel *k, const pt_kernel_args *args, pt_error *err)
{
    (void)err;
    return queue(PT_LANE_COMPUTE, &(call){.kind = BACKWARD_INPUT, .kernel = k, .args = *args});
}

static pt_status backward_weight(pt_kernel *k, const pt_kernel_args *args, pt_error *err)
{
    (void)err;
    return queue(PT_LANE_COMPUTE, &(call){.kind = BACKWARD_WEIGHT, .kernel = k, .args = *args});
}

static pt_status loss(pt_backend *b, const pt_loss *what, const pt_loss_args *args, pt_error *err)
{
    (void)b, (void)err;
    args->host_result->loss = -1e9; /* whoever reads it now sees it */
    return queue(PT_LANE_COMPUTE, &(call){.kind = LOSS, .loss = what, .loss_args = *args});
}

static pt_status add(pt_backend *b, const pt_layout *layout, const void *x, const void *y,
                     void *out, pt_error *err)
{
    (void)b, (void)err;
    return queue(PT_LANE_COMPUTE,
                 &(call){.kind = ADD, .from = layout, .src = x, .other = y, .dst = out});
}

static pt_status axpby(pt_backend *b, size_t n, float a, const float *x, float c, const float *y,
                       float *out, pt_error *err)
{
    (void)b, (void)err;
    return queue(PT_LANE_COMPUTE,
                 &(call){.kind = AXPBY, .n = n, .a = a, .src = x, .c = c, .other = y, .dst = out});
}

static pt_status sgd(pt_backend *b, size_t n, const pt_sgd *rule, float *theta, float *velocity,
                     const float *gradient, const pt_foresight *foresight, pt_error *err)
{
    (void)b, (void)err;
    call c = {.kind = SGD, .n = n, .rule = *rule, .dst = theta, .velocity = velocity};
    c.src = gradient;
    c.foresees = foresight != NULL;
    if (foresight)
        c.foresight = *foresight;
    return queue(PT_LANE_COMPUTE, &c);
}

static pt_status adam(pt_backend *b, size_t n, const pt_adam *rule, float *theta, float *m,
                      float *v, const float *gradient, const pt_adam_foresight *foresight,
                      pt_error *err)
{
    (void)b, (void)err;
    call c = {.kind = ADAM, .n = n, .adam = *rule, .dst = theta, .velocity = m, .squares = v};
    c.src = gradient;
    c.foresees = foresight != NULL;
    if (foresight)
        c.adam_foresight = *foresight;
    return queue(PT_LANE_COMPUTE, &c);
}

static pt_status mean_squares(pt_backend *b, size_t n, float keep, float rest, const float *x,
                              float *average, pt_error *err)
{
    (void)b, (void)err;
    call c = {.kind = MEAN_SQUARES, .n = n, .a = keep, .c = rest, .src = x, .dst = average};
    return queue(PT_LANE_COMPUTE, &c);
}

static pt_status gap(pt_backend *b, size_t n, const pt_gap *rule, const float *forward_,
                     const float *theta, const float *average, const float *own, float *gradient,
                     pt_error *err)
{
    (void)b, (void)err;
    call c = {.kind = GAP, .n = n, .gap = *rule, .other = forward_, .theta = theta};
    c.average = average;
    c.src = own;
    c.dst = gradient;
    return queue(PT_LANE_COMPUTE, &c);
}

static pt_status look_back(pt_backend *b, size_t n, const pt_look_back *rule, const float *theta,
                           float *drift, float *back, pt_error *err)
{
    (void)b, (void)err;
    call c = {.kind = LOOK_BACK, .n = n, .back = *rule, .theta = theta, .velocity = drift};
    c.dst = back;
    return queue(PT_LANE_COMPUTE, &c);
}

static pt_status reorder(pt_backend *b, const pt_shape *shape, int samples, const pt_layout *from,
                         const void *src, const pt_layout *to, void *dst, pt_error *err)
{
    (void)b, (void)err;
    call c = {.kind = REORDER, .shape = shape, .samples = samples, .from = from, .to = to};
    c.src = src;
    c.dst = dst;
    return queue(PT_LANE_COMPUTE, &c);
}

static pt_status sum_of_squares(pt_backend *b, size_t n, const float *x, double *ret_sum,
                                pt_error *err)
{
    run_all();
    return late.ref->sum_of_squares(b, n, x, ret_sum, err);
}

static pt_status event_record(pt_backend *b, pt_lane lane, pt_event *event, pt_error *err)
{
    (void)b, (void)err;
    int64_t number = ++known(event)->recorded;
    return queue(lane, &(call){.kind = RECORD, .event = event, .number = number});
}

static pt_status event_wait(pt_backend *b, pt_lane lane, pt_event *event, pt_error *err)
{
    (void)b, (void)err;
    return queue(lane, &(call){.kind = WAIT, .event = event, .number = known(event)->recorded});
}

/* Time passes while somebody looks, a little. */
static pt_status event_done(pt_backend *b, pt_event *event, bool *ret_done, pt_error *err)
{
    (void)b, (void)err;
    for (uint32_t i = pt_rng_below(&late.rng, 4); i > 0 && late.queued > 0; i--)
        step();
    *ret_done = known(event)->reached == known(event)->recorded;
    return PT_OK;
}

static int64_t event_ns(pt_backend *b, pt_event *event)
{
    (void)b;
    if (known(event)->reached != known(event)->recorded)
        die("the time of an event that is not reached");
    return known(event)->ns;
}

static void event_free(pt_backend *b, pt_event *event)
{
    for (int i = 0; i < late.n_events; i++)
        if (late.events[i].event == event)
            late.events[i] = late.events[--late.n_events];
    late.ref->event_free(b, event);
}

static pt_status finish(pt_backend *b, pt_error *err)
{
    (void)b, (void)err;
    run_all();
    return PT_OK;
}

static void dev_free(pt_backend *b, void *dev)
{
    run_all();
    late.ref->dev_free(b, dev);
}

void late_begin(pt_backend *b, uint64_t seed)
{
    static const uint32_t eagerness[] = {1, 8, 64};
    memset(&late, 0, sizeof late);
    late.b = b;
    late.ref = b->row;
    pt_rng_init(&late.rng, seed, PT_RNG_CHECK, 3, 0);
    for (int i = 0; i < PT_LANES; i++)
        late.eagerness[i] = eagerness[pt_rng_below(&late.rng, 3)];
    late.row = *b->row;
    late.row.copy = copy;
    late.row.copy_in = copy_in;
    late.row.copy_out = copy_out;
    late.row.upload = late.row.download = transfer_now;
    late.row.forward = forward;
    late.row.backward_input = backward_input;
    late.row.backward_weight = backward_weight;
    late.row.loss = loss;
    late.row.add = add;
    late.row.axpby = axpby;
    late.row.sgd = sgd;
    late.row.adam = adam;
    late.row.mean_squares = mean_squares;
    late.row.gap = gap;
    late.row.look_back = look_back;
    late.row.reorder = reorder;
    late.row.sum_of_squares = sum_of_squares;
    late.row.event_record = event_record;
    late.row.event_wait = event_wait;
    late.row.event_done = event_done;
    late.row.event_ns = event_ns;
    late.row.event_free = event_free;
    late.row.finish = finish;
    late.row.dev_free = dev_free;
    late.row.on_device = true;
    b->row = &late.row;
}

void late_counts(int64_t *ret_calls, int64_t *ret_most_at_once)
{
    *ret_calls = late.calls;
    *ret_most_at_once = late.most;
}
