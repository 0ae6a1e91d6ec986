/* The clock backend: its lanes keep the stated times, and its file is read strictly. Times are
 * bounded exactly from below and not at all, or coarsely, from above: this machine may be busy. */
#include <stdlib.h>
#include <string.h>

#include "suite.h"

#include "../../src/run/clock_times.h"
#include "backend_row.h"
#include "pipetrain/clock.h"

#define HEAD "stage,forward_us,backward_input_us,backward_weight_us,update_us\n"

enum { MS = 1000 * 1000, SAMPLES = 3, ELEMENTS = 10 };
static const int64_t ANY_DELAY_NS = (int64_t)5000 * MS;

static const pt_call_times TIMES[] = {{3 * MS, 5 * MS, 7 * MS}, {2 * MS, 1 * MS, 0}};

/* ---- the backend ---- */

static pt_backend *open_clock(void)
{
    pt_error err = {PT_OK, ""};
    pt_backend *b = NULL;
    const pt_backend_config config = {
        .threads = 1, .layer_times = TIMES, .update_ns_per_element = MS};
    assert_ok(backend_row("clock")->open(&config, &b, &err), &err);
    return b;
}

static pt_op linear(uint32_t layer)
{
    pt_error err = {PT_OK, ""};
    pt_op op = {0};
    pt_op_defaults(&op, PT_OP_LINEAR);
    op.n_inputs = 1;
    op.in[0] = (pt_shape){.ndim = 1, .dims = {4}};
    op.features = 6;
    op.layer = layer;
    assert_ok(pt_op_infer(&op, &err), &err);
    return op;
}

static pt_kernel *plan(const pt_backend_row *row, pt_backend *b, const pt_op *op)
{
    pt_error err = {PT_OK, ""};
    pt_layout *in = NULL;
    pt_kernel *k = NULL;
    assert_ok(row->plain_layout(b, &op->in[0], SAMPLES, &in, &err), &err);
    const pt_layout *layouts[] = {in};
    assert_ok(row->plan(b, op, SAMPLES, PT_TRAIN, layouts, &k, &err), &err);
    row->layout_free(b, in);
    assert_ok(row->build(k, &err), &err);
    return k;
}

/* Events around what is asked of the compute lane. */
typedef struct stretch {
    pt_backend *b;
    pt_event *begin, *end;
    pt_error err;
} stretch;

static void begin(stretch *s, pt_backend *b)
{
    *s = (stretch){.b = b};
    assert_ok(b->row->event_new(b, &s->begin, &s->err), &s->err);
    assert_ok(b->row->event_new(b, &s->end, &s->err), &s->err);
    assert_ok(b->row->event_record(b, PT_LANE_COMPUTE, s->begin, &s->err), &s->err);
}

static void end(stretch *s)
{
    assert_ok(s->b->row->event_record(s->b, PT_LANE_COMPUTE, s->end, &s->err), &s->err);
}

static int64_t length(const stretch *s)
{
    return s->b->row->event_ns(s->b, s->end) - s->b->row->event_ns(s->b, s->begin);
}

static void clear(stretch *s)
{
    s->b->row->event_free(s->b, s->begin);
    s->b->row->event_free(s->b, s->end);
}

static void test_calls_take_their_times(void **state)
{
    (void)state;
    const pt_kernel_args args = {0};
    const pt_sgd rule = {0};
    pt_backend *b = open_clock();
    const pt_backend_row *row = b->row;
    const pt_op ops[] = {linear(0), linear(1)};
    pt_kernel *first = plan(row, b, &ops[0]), *second = plan(row, b, &ops[1]);
    stretch all;
    bool done = true;
    int64_t asked = pt_clock_ns();
    begin(&all, b);
    assert_ok(row->forward(first, &args, &all.err), &all.err);
    assert_ok(row->forward(second, &args, &all.err), &all.err);
    assert_ok(row->backward_input(second, &args, &all.err), &all.err);
    assert_ok(row->backward_input(first, &args, &all.err), &all.err);
    assert_ok(row->backward_weight(first, &args, &all.err), &all.err);
    assert_ok(row->sgd(b, ELEMENTS, &rule, NULL, NULL, NULL, NULL, &all.err), &all.err);
    end(&all);
    assert_ok(row->event_done(b, all.end, &done, &all.err), &all.err);
    if (done && pt_clock_ns() - asked < 28 * MS)
        fail_msg("an event is reached before its time");
    assert_ok(row->finish(b, &all.err), &all.err);
    /* The first call begins when it is asked for: that much behind the event and no more. */
    int64_t took = length(&all), wanted = (3 + 2 + 1 + 5 + 7 + ELEMENTS) * MS;
    assert_true(took >= wanted);
    assert_true(took <= wanted + ANY_DELAY_NS);
    assert_true(pt_clock_ns() - asked >= wanted);
    assert_ok(row->event_done(b, all.end, &done, &all.err), &all.err);
    assert_true(done);
    clear(&all);
    row->release(first);
    row->release(second);
    row->close(b);
}

/* What is asked of a busy lane is exact to the ns, however late the host was. */
static void test_times_chain(void **state)
{
    (void)state;
    enum { CALLS = 20 };
    const pt_kernel_args args = {0};
    pt_backend *b = open_clock();
    const pt_op op = linear(0);
    pt_kernel *k = plan(b->row, b, &op);
    stretch s;
    pt_error err = {PT_OK, ""};
    assert_ok(b->row->forward(k, &args, &err), &err);
    begin(&s, b);
    for (int i = 0; i < CALLS; i++)
        assert_ok(b->row->forward(k, &args, &err), &err);
    /* a second forward is a part of the backward's time */
    assert_ok(b->row->forward(k, &(pt_kernel_args){.again = true}, &err), &err);
    end(&s);
    assert_int_equal(length(&s), CALLS * 3 * MS);
    clear(&s);
    b->row->release(k);
    b->row->close(b);
}

static void test_lanes_wait(void **state)
{
    (void)state;
    const pt_kernel_args args = {0};
    pt_backend *b = open_clock();
    const pt_backend_row *row = b->row;
    const pt_op op = linear(0);
    pt_kernel *k = plan(row, b, &op);
    stretch s;
    pt_event *out = NULL;
    pt_error err = {PT_OK, ""};
    begin(&s, b);
    assert_ok(row->event_new(b, &out, &err), &err);
    assert_int_equal(row->event_ns(b, out), 0);
    assert_ok(row->forward(k, &args, &err), &err);
    end(&s);
    assert_ok(row->event_record(b, PT_LANE_OUT, out, &err), &err);
    assert_true(row->event_ns(b, out) < row->event_ns(b, s.end)); /* lanes are side by side */
    assert_ok(row->event_wait(b, PT_LANE_OUT, s.end, &err), &err);
    assert_ok(row->event_record(b, PT_LANE_OUT, out, &err), &err);
    assert_int_equal(row->event_ns(b, out), row->event_ns(b, s.end));
    row->event_free(b, out);
    clear(&s);
    row->release(k);
    row->close(b);
}

/* A pause passes time, and ends when the next event is reached. */
static void test_pause(void **state)
{
    (void)state;
    const pt_kernel_args args = {0};
    pt_backend *b = open_clock();
    const pt_op op = linear(1);
    pt_kernel *k = plan(b->row, b, &op);
    stretch s;
    begin(&s, b);
    assert_ok(b->row->forward(k, &args, &s.err), &s.err);
    end(&s);
    int64_t start = pt_clock_ns(), pauses = 0;
    for (bool done = false; !done; pauses++) {
        b->row->pause(b);
        assert_ok(b->row->event_done(b, s.end, &done, &s.err), &s.err);
    }
    assert_true(pauses <= 4); /* 2 ms in naps of 1 ms */
    assert_true(pt_clock_ns() - start <= ANY_DELAY_NS);
    clear(&s);
    b->row->release(k);
    b->row->close(b);
}

static void test_sizes_are_those_of_ref(void **state)
{
    (void)state;
    pt_error err = {PT_OK, ""};
    const pt_backend_config config = {.threads = 1};
    pt_backend *clock = open_clock(), *ref = NULL;
    assert_ok(backend_row("ref")->open(&config, &ref, &err), &err);
    const pt_op op = linear(0);
    pt_kernel *a = plan(clock->row, clock, &op), *b = plan(ref->row, ref, &op);
    assert_int_equal(a->out->bytes, SAMPLES * 6 * sizeof(float));
    assert_int_equal(a->out->bytes, b->out->bytes);
    assert_int_equal(a->saved_bytes, b->saved_bytes);
    assert_int_equal(a->flags, b->flags);
    clock->row->release(a);
    ref->row->release(b);
    clock->row->close(clock);
    ref->row->close(ref);
}

/* No layer is left out: neither by aliasing its values nor by melting it into another. */
static void test_every_layer_is_called(void **state)
{
    (void)state;
    pt_error err = {PT_OK, ""};
    pt_backend *b = open_clock();
    pt_op op = {0};
    pt_op_defaults(&op, PT_OP_FLATTEN);
    op.n_inputs = 1;
    op.in[0] = (pt_shape){.ndim = 3, .dims = {2, 2, 2}};
    assert_ok(pt_op_infer(&op, &err), &err);
    pt_kernel *k = plan(b->row, b, &op);
    assert_int_equal(k->flags & (PT_PASSES_GRADIENT | PT_PASSES_VALUE), 0);
    b->row->release(k);
    pt_op_defaults(&op, PT_OP_BATCH_NORM);
    op.n_inputs = 1;
    assert_true(b->row->supports(&op));
    op.relu = true;
    assert_false(b->row->supports(&op));
    op.relu = false;
    op.n_inputs = 2;
    assert_false(b->row->supports(&op));
    b->row->close(b);
}

static void test_nobody_gets_it_unasked(void **state)
{
    (void)state;
    pt_error err = {PT_OK, ""};
    pt_backend *b = NULL;
    const pt_backend_config config = {.threads = 1};
    assert_string_not_equal(backend_row("auto")->name, "clock");
    assert_fails(backend_row("clock")->open(&config, &b, &err), PT_EINPUT, "--clock FILE.csv",
                 &err);
    for (const char *const *name = pt_backend_names(); *name; name++)
        assert_string_not_equal(*name, "clock"); /* those compute */
}

/* ---- the file ---- */

static void test_good_file(void **state)
{
    (void)state;
    pt_error err = {PT_OK, ""};
    pt_stage_cost costs[3];
    const char *text = "# of a run\n" HEAD "\n1, 1.5 ,2,3e2,4\r\n*,5,6,7,8";
    assert_ok(pt_clock_parse("t.csv", text, strlen(text), 3, costs, &err), &err);
    static const double wanted[3][4] = {{5, 6, 7, 8}, {1.5, 2, 300, 4}, {5, 6, 7, 8}};
    for (int s = 0; s < 3; s++) {
        assert_true(costs[s].forward == wanted[s][0]);
        assert_true(costs[s].backward_input == wanted[s][1]);
        assert_true(costs[s].backward_weight == wanted[s][2]);
        assert_true(costs[s].update == wanted[s][3]);
        assert_true(costs[s].clip == 0 && costs[s].send_act == 0 && costs[s].send_grad == 0);
    }
}

static void test_bad_files(void **state)
{
    (void)state;
    static const struct {
        const char *text, *words;
    } cases[] = {
        {"", "t.csv: an empty file; its first line must be stage,forward_us"},
        {"# nothing\n\n", "an empty file"},
        {"stage,fwd\n", "t.csv:1:1: the first line must be stage,forward_us"},
        {HEAD "2,1,1,1,1\n", "t.csv:2:1: '2' is not a stage of this run; write one of 0 to 1"},
        {HEAD "-1,1,1,1,1\n", "t.csv:2:1: '-1' is not a stage"},
        {HEAD "0.5,1,1,1,1\n", "t.csv:2:1: '0.5' is not a stage"},
        {HEAD "one,1,1,1,1\n", "t.csv:2:1: 'one' is not a stage"},
        {HEAD "0,1,1,1,1\n\n1,2,fast,1,1\n", "t.csv:4:5: 'fast' is not a time; write µs"},
        {HEAD "0,1,1,-1,1\n", "t.csv:2:7: '-1' is not a time"},
        {HEAD "0,1,1,1, 2e9\n", "t.csv:2:10: '2e9' is not a time"},
        {HEAD "0,,1,1,1\n", "t.csv:2:3: '' is not a time"},
        {HEAD "0,nan,1,1,1\n", "'nan' is not a time"},
        {HEAD "0,1,1,1\n", "t.csv:2:8: a row has 5 fields"},
        {HEAD "0,1,1,1,1,1\n", "t.csv:2:10: a row has 5 fields"},
        {HEAD "0,1.00000000000000000000000000000e3,1,1,1\n", /* longer than a field may be */
         "t.csv:2:3: '1.00000000000000000000000000…' is not a time"},
        {HEAD "*,1,1,1,1\n*,1,1,1,1\n", "t.csv:3:1: this stage has a row before, in line 2"},
        {HEAD "0,1,1,1,1\n",
         "t.csv: no row for stage 1 of 2; add one, or a row that begins with *"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        pt_error err = {PT_OK, ""};
        pt_stage_cost costs[2];
        const char *text = cases[i].text;
        assert_fails(pt_clock_parse("t.csv", text, strlen(text), 2, costs, &err), PT_EINPUT,
                     cases[i].words, &err);
    }
}

/* Bytes behind a 0 are not passed over. */
static void test_byte_0(void **state)
{
    (void)state;
    static const char text[] = HEAD "*,1,1,1,1\n\0and more\n", field[] = HEAD "*,1\0,1,1,1\n";
    pt_error err = {PT_OK, ""};
    pt_stage_cost cost;
    assert_fails(pt_clock_parse("t.csv", text, sizeof text - 1, 1, &cost, &err), PT_EINPUT,
                 "t.csv:3: holds a byte 0", &err);
    assert_fails(pt_clock_parse("t.csv", field, sizeof field - 1, 1, &cost, &err), PT_EINPUT,
                 "t.csv:2: holds a byte 0", &err);
}

/* ---- who bears the times ---- */

/* Of the nodes [first, end) of: linear, relu, linear, relu; or of relu, relu, linear. */
static pt_status spread(const char *layers, int first, int behind, pt_call_times *times,
                        pt_error *err)
{
    char text[512];
    pt_partition *partition = NULL;
    snprintf(text, sizeof text,
             "name: n\ninput: {shape: [4]}\nlayers:\n%sloss: {kind: cross-entropy}\n", layers);
    assert_ok(pt_partition_parse("n.yaml", text, strlen(text), &partition, err), err);
    const pt_stage_spec spec = {.stage = 1, .stages = 2, .first = first, .end = behind};
    const pt_stage_cost cost = {.forward = 1, .backward_input = 2, .backward_weight = 4};
    pt_status status = pt_clock_spread(&partition->graph, &spec, &cost, times, err);
    pt_partition_free(partition);
    return status;
}

#define LINEAR(name) "  - {name: " name ", kind: linear, features: 4}\n"
#define RELU(name)   "  - {name: " name ", kind: relu}\n"

static void test_spread(void **state)
{
    (void)state;
    static const char four[] = LINEAR("a") RELU("b") LINEAR("c") RELU("d");
    static const struct {
        const char *layers;
        int first, end;
        pt_call_times wanted[4]; /* µs */
    } cases[] = {
        {four, 0, 4, {{1, 0, 0}, {0, 0, 0}, {0, 0, 4}, {0, 2, 0}}},
        {four, 2, 4, {{0, 0, 0}, {0, 0, 0}, {1, 0, 4}, {0, 2, 0}}},
        {four, 0, 1, {{1, 0, 6}}},                /* nobody wants the input's gradient */
        {four, 3, 4, {{0}, {0}, {0}, {1, 6, 0}}}, /* no weights */
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        pt_error err = {PT_OK, ""};
        pt_call_times times[4] = {{0, 0, 0}};
        assert_ok(spread(cases[i].layers, cases[i].first, cases[i].end, times, &err), &err);
        for (int n = 0; n < 4; n++) {
            assert_int_equal(times[n].forward, 1000 * cases[i].wanted[n].forward);
            assert_int_equal(times[n].backward_input, 1000 * cases[i].wanted[n].backward_input);
            assert_int_equal(times[n].backward_weight, 1000 * cases[i].wanted[n].backward_weight);
        }
    }
    pt_error err = {PT_OK, ""};
    pt_call_times times[3] = {{0, 0, 0}};
    assert_fails(spread(RELU("a") RELU("b") LINEAR("c"), 0, 1, times, &err), PT_EINPUT,
                 "has no backward", &err);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_calls_take_their_times),
        cmocka_unit_test(test_times_chain),
        cmocka_unit_test(test_lanes_wait),
        cmocka_unit_test(test_pause),
        cmocka_unit_test(test_sizes_are_those_of_ref),
        cmocka_unit_test(test_every_layer_is_called),
        cmocka_unit_test(test_nobody_gets_it_unasked),
        cmocka_unit_test(test_good_file),
        cmocka_unit_test(test_bad_files),
        cmocka_unit_test(test_byte_0),
        cmocka_unit_test(test_spread),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
