/* Lists of one's own: what is read, what is refused and where, and what becomes of it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pipetrain/schedule.h"
#include "suite.h"

#define HEADING "rank,action,micro_batch\n"
#define ALL(rank, m)                                                                               \
    rank ",FORWARD," m "\n" rank ",BACKWARD_INPUT," m "\n" rank ",BACKWARD_WEIGHT," m "\n"

enum { SLOTS = 2 };

static pt_own_lists *parse(const char *text)
{
    static pt_error err;
    pt_own_lists *own = NULL;
    assert_ok(pt_own_lists_parse("my.csv", text, strlen(text), &own, &err), &err);
    return own;
}

static pt_schedule *generate(const pt_own_lists *own, pt_schedule_spec spec)
{
    static pt_error err;
    pt_schedule *s = NULL;
    assert_ok(pt_own_lists_generate(own, &spec, &s, &err), &err);
    return s;
}

/* "F0 B0 W0 U0 …" */
static void spell(const pt_action_list *list, char *text, size_t bytes)
{
    static const char letters[] = "FBWCUIrsRS";
    size_t at = 0;
    text[0] = 0;
    for (int i = 0; i < list->n && at < bytes; i++)
        at += (size_t)snprintf(text + at, bytes - at, "%s%c%d", i ? " " : "",
                               letters[list->actions[i].kind], list->actions[i].micro_batch);
}

static void assert_list(const pt_schedule *s, int rank, const char *expected)
{
    char text[512];
    spell(&s->ranks[rank], text, sizeof text);
    assert_string_equal(text, expected);
}

/* ---- reading ---- */

/* Blanks, blank lines, DOS line ends, columns in another order, a column of chunks, ranks that take
 * turns, and no newline at the end. */
static void test_forms(void **state)
{
    (void)state;
    static const char *const texts[] = {
        HEADING ALL("0", "0") ALL("0", "1") ALL("1", "0") ALL("1", "1"),
        "rank,action,micro_batch\r\n" ALL("1", "0") "\r\n\n \t\n" ALL("0", "0") ALL("1", "1")
            ALL("0", "1"),
        "micro_batch, chunk,action ,rank\n0,0,FORWARD,1\n0,0,FORWARD,0\n0,0,BACKWARD_INPUT,0\n"
        "0,0,BACKWARD_WEIGHT,0\n1,0,FORWARD,0\n1,0,BACKWARD_INPUT,0\n1,0,BACKWARD_WEIGHT,0\n"
        "0,0,BACKWARD_INPUT,1\n 0 , 0 , BACKWARD_WEIGHT , 1 \n1,0,FORWARD,1\n"
        "1,0,BACKWARD_INPUT,1\n1,0,BACKWARD_WEIGHT,1",
    };
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        pt_own_lists *own = parse(texts[i]);
        assert_int_equal(pt_own_lists_stages(own), 2);
        assert_int_equal(pt_own_lists_micro_batches(own), 2);
        pt_schedule *s = generate(own, (pt_schedule_spec){NULL, 2, 2, 2, 0, false, 1});
        for (int rank = 0; rank < 2; rank++)
            assert_list(s, rank, "F0 B0 W0 F1 B1 W1 U1");
        pt_schedule_free(s);
        pt_own_lists_free(own);
    }
    pt_own_lists_free(NULL);
}

static void test_bad_files(void **state)
{
    (void)state;
    static char long_line[1000];
    memset(long_line, 'x', sizeof long_line - 1);
    const struct {
        const char *text, *words;
    } cases[] = {
        {"", "my.csv: is empty; the first line must be rank,action,micro_batch"},
        {"\n \n", "my.csv: is empty"},
        {HEADING, "my.csv: holds a heading and no actions"},
        {"rank,action\n0,FORWARD\n", "my.csv:1: the column micro_batch is missing"},
        {"0,FORWARD,0\n", "my.csv:1: unknown column '0'; the first line must be rank,action"},
        {"rank,action,micro_batch,rank\n", "my.csv:1: the column rank stands here twice"},
        {"rank,action,micro_batch,chunk,x\n", "my.csv:1: 5 columns"},
        {HEADING "0,FORWARD\n", "my.csv:2: 2 cells; the heading has 3 columns"},
        {HEADING "\n0,FORWARD,0,0\n", "my.csv:3: 4 cells"},
        {HEADING "x,FORWARD,0\n", "my.csv:2: rank 'x' is not a whole number from 0 to 1023"},
        {HEADING "-1,FORWARD,0\n", "my.csv:2: rank '-1'"},
        {HEADING "1024,FORWARD,0\n", "my.csv:2: rank '1024'"},
        {HEADING "0,FORWARD,\n", "my.csv:2: micro_batch ''"},
        {HEADING "0,FORWARD,1.5\n", "my.csv:2: micro_batch '1.5'"},
        {HEADING "0,FORWARD,99999999999999999999\n", "my.csv:2: micro_batch '9999"},
        {"rank,action,micro_batch,chunk\n0,FORWARD,0,64\n", "my.csv:2: chunk '64'"},
        {HEADING "0,FORWARDS,0\n",
         "my.csv:2: unknown action 'FORWARDS' (FORWARD, BACKWARD_INPUT, BACKWARD_WEIGHT); did you "
         "mean FORWARD?"},
        {HEADING "0,forward,0\n", "my.csv:2: unknown action 'forward'"},
        {HEADING ALL("0", "0") "0,UPDATE,0\n",
         "my.csv:5: UPDATE has no place in a list: updates and messages are put in"},
        {HEADING "0,INFER,0\n", "my.csv:2: INFER has no place in a list: it lists what training"},
        {HEADING ALL("0", "0") "0,BACKWARD_INPUT,0\n",
         "my.csv:5: the second BACKWARD_INPUT of micro-batch 0 on rank 0; the first is in line 3"},
        {HEADING ALL("0", "0") ALL("0", "2"), "my.csv: rank 0 has no FORWARD of micro-batch 1"},
        {HEADING ALL("0", "0") "0,FORWARD,1\n0,BACKWARD_INPUT,1\n",
         "my.csv: rank 0 has no BACKWARD_WEIGHT of micro-batch 1"},
        {HEADING ALL("0", "0") ALL("2", "0"), "my.csv: rank 1 has no FORWARD of micro-batch 0; "
                                              "each of the ranks 0 to 2 runs each of the "
                                              "micro-batches 0 to 0"},
        {HEADING "0,FORWARD,99999999\n", "my.csv: rank 0 has no FORWARD of micro-batch 0"},
        {long_line, "my.csv:1: a line of 999 bytes"},
    };
    static pt_error err;
    pt_own_lists *untouched = NULL;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_fails(
            pt_own_lists_parse("my.csv", cases[i].text, strlen(cases[i].text), &untouched, &err),
            PT_EINPUT, cases[i].words, &err);
        assert_null(untouched);
    }
    assert_fails(pt_own_lists_parse("my.csv", "ra\0nk\n", 6, &untouched, &err), PT_EINPUT,
                 "my.csv:1: holds a byte 0", &err);
}

/* Every cut of a good file, and every byte of it replaced: refused, or read as something whole. */
static void test_damaged_files(void **state)
{
    (void)state;
    static const char good[] = HEADING ALL("0", "0") ALL("1", "0") ALL("0", "1") ALL("1", "1");
    static const char bytes[] = {0, '\n', ',', '0', '1', '9', '-', 'x', '\xff'};
    static pt_error err;
    int read = 0, refused = 0;
    for (size_t i = 0; i < 2 * strlen(good); i++)
        for (size_t b = 0; b < sizeof bytes; b++) {
            char text[sizeof good];
            size_t at = i / 2, length = i % 2 ? strlen(good) : at;
            pt_own_lists *own = NULL;
            memcpy(text, good, sizeof good);
            text[at] = bytes[b];
            pt_status status = pt_own_lists_parse("my.csv", text, length, &own, &err);
            read += status == PT_OK;
            refused += status == PT_EINPUT;
            assert_true(status == PT_OK || (status == PT_EINPUT && !own));
            pt_own_lists_free(own);
        }
    assert_true(read > 0 && refused > 20 * read);
}

/* ---- what becomes of it ---- */

static void test_step_repeats(void **state)
{
    (void)state;
    static pt_error err;
    pt_schedule_rank rank;
    pt_own_lists *own = parse(HEADING "0,FORWARD,0\n0,FORWARD,1\n0,BACKWARD_INPUT,0\n"
                                      "0,BACKWARD_INPUT,1\n0,BACKWARD_WEIGHT,0\n"
                                      "0,BACKWARD_WEIGHT,1\n");
    pt_schedule *s = generate(own, (pt_schedule_spec){"any", 1, 5, 2, 0, true, 1});
    assert_list(s, 0, "F0 F1 B0 B1 W0 W1 C1 U1 F2 F3 B2 B3 W2 W3 C3 U3 F4 B4 W4 C4 U4");
    assert_string_equal(s->spec.name, "my.csv");
    assert_true(s->synchronous);
    assert_int_equal(s->ranks[0].actions[9].line, 3); /* F3 */
    assert_ok(pt_schedule_lower(s, &err), &err);
    assert_ok(pt_schedule_check(s, SLOTS, &rank, &err), &err);
    assert_int_equal(rank.held_peak, 2);
    pt_schedule_free(s);
    pt_own_lists_free(own);
}

/* The same lists are late where a step has fewer micro-batches. */
static void test_synchronous_or_not(void **state)
{
    (void)state;
    static pt_error err;
    static const struct {
        int per_step;
        bool synchronous;
        const char *list;
    } cases[] = {
        {1, false, "F0 F1 B0 W0 U0 F2 B1 W1 U1 B2 W2 U2"},
        {2, false, "F0 F1 B0 W0 F2 B1 W1 U1 B2 W2 U2"},
        {3, true, "F0 F1 B0 W0 F2 B1 W1 B2 W2 U2"},
    };
    pt_own_lists *own = parse(HEADING "0,FORWARD,0\n0,FORWARD,1\n0,BACKWARD_INPUT,0\n"
                                      "0,BACKWARD_WEIGHT,0\n0,FORWARD,2\n0,BACKWARD_INPUT,1\n"
                                      "0,BACKWARD_WEIGHT,1\n0,BACKWARD_INPUT,2\n"
                                      "0,BACKWARD_WEIGHT,2\n");
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        bool synchronous = !cases[i].synchronous;
        assert_ok(pt_own_lists_synchronous(own, cases[i].per_step, &synchronous, &err), &err);
        assert_int_equal(synchronous, cases[i].synchronous);
        pt_schedule *s =
            generate(own, (pt_schedule_spec){NULL, 1, 3, cases[i].per_step, 0, false, 1});
        assert_list(s, 0, cases[i].list);
        assert_int_equal(s->synchronous, cases[i].synchronous);
        assert_ok(pt_schedule_lower(s, &err), &err);
        assert_ok(pt_schedule_check(s, SLOTS, NULL, &err), &err);
        pt_schedule_free(s);
    }
    pt_own_lists_free(own);
}

static void test_sizes(void **state)
{
    (void)state;
    static pt_error err;
    pt_own_lists *own = parse(HEADING ALL("0", "0") ALL("0", "1") ALL("0", "2"));
    pt_schedule *untouched = NULL;
    pt_schedule_spec spec = {NULL, 2, 3, 3, 0, false, 1};
    assert_fails(pt_own_lists_generate(own, &spec, &untouched, &err), PT_EINPUT,
                 "my.csv has lists for 1 rank, and this run has 2", &err);
    spec = (pt_schedule_spec){NULL, 1, 4, 2, 0, false, 1};
    assert_fails(pt_own_lists_generate(own, &spec, &untouched, &err), PT_EINPUT,
                 "my.csv has 3 micro-batches a rank; it must have those of one step, which are 2, "
                 "or those of a whole epoch, which are 4",
                 &err);
    spec.micro_batches = 0;
    assert_fails(pt_own_lists_generate(own, &spec, &untouched, &err), PT_EINPUT,
                 "schedule 'my.csv': 0 micro-batches", &err);
    assert_null(untouched);
    /* A span may be shorter than the list. */
    pt_schedule *s = generate(own, (pt_schedule_spec){NULL, 1, 2, 3, 0, false, 1});
    assert_list(s, 0, "F0 B0 W0 F1 B1 W1 U1");
    pt_schedule_free(s);
    pt_own_lists_free(own);
}

/* The checker names the line. */
static void test_refused_lists(void **state)
{
    (void)state;
    static const struct {
        const char *text, *words;
    } cases[] = {
        {HEADING "0,BACKWARD_INPUT,0\n0,FORWARD,0\n0,BACKWARD_WEIGHT,0\n" ALL("1", "0"),
         "my.csv:2: schedule 'my.csv' is refused: rank 0, action 0, RECV_GRAD of micro-batch 0: it "
         "comes before the FORWARD"},
        {HEADING ALL("0", "0") ALL("0", "1") ALL("1", "1") ALL("1", "0"),
         "my.csv:8: schedule 'my.csv' is refused: rank 1, action 1, FORWARD of micro-batch 1: it "
         "is out of order"},
        /* rank 0 wants a gradient before it has sent what rank 1 needs to make one */
        {HEADING ALL("0", "0") ALL("0", "1") "1,FORWARD,0\n1,FORWARD,1\n1,BACKWARD_INPUT,0\n"
                                             "1,BACKWARD_WEIGHT,0\n1,BACKWARD_INPUT,1\n"
                                             "1,BACKWARD_WEIGHT,1\n",
         "rank 0 waits in RECV_GRAD of micro-batch 0 from rank 1 (my.csv:3)\n  rank 1 waits in "
         "RECV_ACT of micro-batch 1 from rank 0 (my.csv:9)\n"},
    };
    static pt_error err;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        pt_own_lists *own = parse(cases[i].text);
        int n = pt_own_lists_micro_batches(own);
        pt_schedule *s = generate(own, (pt_schedule_spec){NULL, 2, n, n, 0, false, 1});
        assert_ok(pt_schedule_lower(s, &err), &err);
        assert_fails(pt_schedule_check(s, SLOTS, NULL, &err), PT_EINPUT, cases[i].words, &err);
        pt_schedule_free(s);
        pt_own_lists_free(own);
    }
}

/* Gradients of one-pass layers are added up in BACKWARD_INPUT: it must not overtake an UPDATE, and
 * a list of a whole span can make it. */
static void test_input_gradient_waits_for_update(void **state)
{
    (void)state;
    static pt_error err;
    pt_own_lists *own = parse(HEADING "0,FORWARD,0\n0,FORWARD,1\n0,BACKWARD_INPUT,0\n"
                                      "0,BACKWARD_INPUT,1\n0,BACKWARD_WEIGHT,0\n"
                                      "0,BACKWARD_WEIGHT,1\n");
    pt_schedule *s = generate(own, (pt_schedule_spec){NULL, 1, 2, 1, 0, false, 1});
    assert_ok(pt_schedule_lower(s, &err), &err);
    assert_fails(pt_schedule_check(s, SLOTS, NULL, &err), PT_EINPUT,
                 "my.csv:5: schedule 'my.csv' is refused: rank 0, action 3, BACKWARD_INPUT of "
                 "micro-batch 1: it would add to the gradient of step 0",
                 &err);
    pt_schedule_free(s);
    pt_own_lists_free(own);
}

/* ---- and back ---- */

static void test_round_trip(void **state)
{
    (void)state;
    static pt_error err;
    static const pt_schedule_spec specs[] = {
        {"gpipe", 3, 7, 3, 0, true, 1}, {"1f1b", 4, 9, 4, 0, false, 1},
        {"zb-h1", 4, 9, 4, 0, true, 1}, {"async", 3, 8, 2, 1, false, 1},
        {"1f1b", 1, 1, 1, 0, false, 1},
    };
    for (size_t i = 0; i < sizeof specs / sizeof specs[0]; i++) {
        char *text = NULL;
        size_t bytes = 0;
        pt_schedule *made = NULL, *read;
        FILE *out = open_memstream(&text, &bytes);
        assert_non_null(out);
        assert_ok(pt_schedule_generate(&specs[i], &made, &err), &err);
        assert_ok(pt_schedule_lower(made, &err), &err); /* messages are not written */
        assert_ok(pt_schedule_write(made, out, &err), &err);
        assert_int_equal(fclose(out), 0);
        pt_own_lists *own = parse(text);
        read = generate(own, specs[i]);
        assert_ok(pt_schedule_lower(read, &err), &err);
        assert_int_equal(read->synchronous, made->synchronous);
        for (int rank = 0; rank < specs[i].stages; rank++) {
            assert_int_equal(read->ranks[rank].n, made->ranks[rank].n);
            for (int a = 0; a < read->ranks[rank].n; a++) {
                pt_action *action = &read->ranks[rank].actions[a];
                assert_true(action->line > 1);
                action->line = 0;
                assert_memory_equal(action, &made->ranks[rank].actions[a], sizeof *action);
            }
        }
        pt_schedule_free(made);
        pt_schedule_free(read);
        pt_own_lists_free(own);
        free(text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forms),
        cmocka_unit_test(test_bad_files),
        cmocka_unit_test(test_damaged_files),
        cmocka_unit_test(test_step_repeats),
        cmocka_unit_test(test_synchronous_or_not),
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_refused_lists),
        cmocka_unit_test(test_input_gradient_waits_for_update),
        cmocka_unit_test(test_round_trip),
    };
    return cmocka_run_group_tests_name("own lists", tests, NULL, NULL);
}
