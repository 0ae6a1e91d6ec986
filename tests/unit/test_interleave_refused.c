/* Interleaved schedules and their lists: what is refused, the picture, and files. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "schedule_rig.h"

/* ---- what is refused ---- */

static void test_bad_specs(void **state)
{
    (void)state;
    static const struct {
        pt_schedule_spec spec;
        const char *words;
    } cases[] = {
        {{"1f1b", 2, 4, 4, 0, false, 2}, "leave --chunks out or use --schedule interleaved"},
        {{"async", 2, 4, 4, 0, false, 2}, "one block of layers on each rank, not 2"},
        {{"interleaved", 2, 4, 4, 0, false, 0}, "0 chunks on each rank; give 1 to 64"},
        {{"interleaved", 2, 4, 4, 0, false, 65}, "65 chunks on each rank; give 1 to 64"},
        {{"interleaved", 1, 4, 4, 0, false, 2}, "2 chunks on one rank"},
        {{"interleaved", 2, 4, 4, 1, false, 2}, "--in-flight"},
        {{"interleaved", 4, 6, 6, 0, false, 2}, "6 micro-batches does not divide into groups of 4"},
        {{"interleaved", 4, 6, 6, 0, false, 2}, "write --accumulate 4 or --accumulate 8, or"},
        {{"interleaved", 4, 6, 3, 0, false, 2}, "; write --accumulate 4, or"},
        {{"interleaved", 2, 1 << 27, 4, 0, false, 2}, "give 1 to 67108864"},
    };
    static pt_error err;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        pt_schedule *untouched = NULL;
        assert_fails(pt_schedule_generate(&cases[i].spec, &untouched, &err), PT_EINPUT,
                     cases[i].words, &err);
        assert_null(untouched);
    }
    pt_schedule *untouched = NULL;
    assert_fails(pt_schedule_infer(1, 2, 3, &untouched, &err), PT_EINPUT, "2 chunks on one", &err);
    assert_null(untouched);
}

static pt_action *find(pt_schedule *s, int rank, pt_action_kind kind, int chunk, int micro_batch)
{
    for (int i = 0; i < s->ranks[rank].n; i++) {
        pt_action *a = &s->ranks[rank].actions[i];
        if (a->kind == kind && a->chunk == chunk && a->micro_batch == micro_batch)
            return a;
    }
    fail_msg("rank %d has no %s of micro-batch %d, chunk %d", rank, pt_action_name(kind),
             micro_batch, chunk);
    return NULL;
}

/* One field of one action, and what is said of it. */
static void test_refuses_wrong_actions(void **state)
{
    (void)state;
    static pt_error err;
    static const struct {
        int rank;
        pt_action_kind kind;
        int chunk, micro_batch;
        pt_action put;
        const char *words, *cell;
    } cases[] = {
        {0,
         PT_FORWARD,
         1,
         2,
         {PT_FORWARD, 2, 2, 0, 0, -1, 0},
         "the chunks of a rank are 0 to 1",
         "2Fc!"},
        {0, PT_FORWARD, 1, 2, {PT_FORWARD, 0, 2, 0, 0, -1, 0}, "the second FORWARD", "2Fa!"},
        {1,
         PT_FORWARD,
         1,
         1,
         {PT_FORWARD, 1, 2, 0, 0, -1, 0},
         "before the RECV_ACT of the same micro-batch",
         "2Fb!"},
        {1,
         PT_UPDATE,
         0,
         3,
         {PT_UPDATE, 1, 3, 0, 0, -1, 0},
         "for all chunks of its rank and must carry 0, not 1",
         "5*b!"},
        {1, PT_SEND_ACT, 1, 2, {PT_SEND_ACT, 1, 2, 0, 0, 0, 0}, "must be rank 2", "2>b!"},
        {2, PT_SEND_ACT, 0, 2, {PT_SEND_ACT, 0, 2, 0, 0, 1, 0}, "must be rank 0", "2>a!"},
        {0, PT_RECV_ACT, 1, 2, {PT_RECV_ACT, 1, 2, 0, 0, 1, 0}, "must be rank 2", "2>b!"},
        {2, PT_FORWARD, 1, 3, {PT_SEND_ACT, 1, 3, 0, 0, 0, 0}, "no stage on that side", "3>b!"},
        {2,
         PT_BACKWARD_WEIGHT,
         0,
         5,
         {PT_UPDATE, 0, 5, 0, 0, -1, 0},
         "before the BACKWARD_WEIGHT of micro-batch 5, chunk 0",
         "5*a!"},
        {0,
         PT_BACKWARD_WEIGHT,
         1,
         5,
         {PT_BACKWARD_WEIGHT, 0, 4, 0, 0, -1, 0},
         "BACKWARD_WEIGHT of micro-batch 4, chunk 0: it comes before the BACKWARD_INPUT",
         "4Wa!"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        pt_schedule *s = make(interleaved(3, 6, 6, 2));
        pt_action put = cases[i].put;
        if (put.kind == PT_UPDATE && put.chunk == 1)
            find(s, 1, PT_UPDATE, 0, 5)->chunk = 1;
        else
            *find(s, cases[i].rank, cases[i].kind, cases[i].chunk, cases[i].micro_batch) = put;
        assert_fails(pt_schedule_check(s, 2, NULL, &err), PT_EINPUT, cases[i].words, &err);
        if (!strstr(err.text, cases[i].cell))
            fail_msg("the picture lacks the cell \"%s\":\n%s", cases[i].cell, err.text);
        pt_schedule_free(s);
    }
}

static void remove_action(pt_schedule *s, int rank, pt_action *a)
{
    pt_action_list *list = &s->ranks[rank];
    memmove(a, a + 1, (size_t)(list->actions + list->n - a - 1) * sizeof *a);
    list->n--;
}

static void test_refuses_missing(void **state)
{
    (void)state;
    static pt_error err;
    static const struct {
        int rank;
        pt_action_kind kind;
        int chunk, micro_batch;
        const char *words, *cell;
    } cases[] = {
        {0, PT_SEND_ACT, 1, 2, "SEND_ACT of micro-batch 2, chunk 1: it is missing", "2>b!"},
        {2, PT_SEND_ACT, 0, 2, "SEND_ACT of micro-batch 2, chunk 0: it is missing", "2>a!"},
        {0, PT_SEND_GRAD, 1, 5, "SEND_GRAD of micro-batch 5, chunk 1: it is missing", "5<b!"},
        {1, PT_BACKWARD_WEIGHT, 0, 5, "before the BACKWARD_WEIGHT of micro-batch 5, chunk 0",
         "5*a!"},
        {1, PT_BACKWARD_WEIGHT, 1, 5, "before the BACKWARD_WEIGHT of micro-batch 5, chunk 1",
         "5*a!"},
        {1, PT_UPDATE, 0, 5, "UPDATE of micro-batch 5, chunk 0: it is missing", "5*a!"},
        {2, PT_RECV_GRAD, 0, 3, "before the RECV_GRAD of the same", "3Ba!"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        pt_schedule *s = make(interleaved(3, 6, 6, 2));
        remove_action(s, cases[i].rank,
                      find(s, cases[i].rank, cases[i].kind, cases[i].chunk, cases[i].micro_batch));
        assert_fails(pt_schedule_check(s, 2, NULL, &err), PT_EINPUT, cases[i].words, &err);
        if (!strstr(err.text, cases[i].cell))
            fail_msg("the picture lacks the cell \"%s\":\n%s", cases[i].cell, err.text);
        pt_schedule_free(s);
    }
}

/* The first rank takes gradients of its last chunk before it has given what they come from. */
static void test_refuses_deadlock(void **state)
{
    (void)state;
    static pt_error err;
    pt_schedule *s = make(interleaved(2, 2, 2, 2));
    pt_action *send = find(s, 0, PT_SEND_ACT, 0, 1), *wait = find(s, 0, PT_RECV_ACT, 1, 0);
    pt_action kept = *wait;
    memmove(send + 1, send, (size_t)(wait - send) * sizeof *send);
    *send = kept; /* harmless: it has to wait for another message only */
    assert_ok(pt_schedule_check(s, 2, NULL, &err), &err);
    wait = find(s, 1, PT_RECV_ACT, 0, 1);
    send = find(s, 1, PT_SEND_ACT, 0, 0);
    kept = *wait;
    memmove(send + 1, send, (size_t)(wait - send) * sizeof *send);
    *send = kept;
    assert_fails(pt_schedule_check(s, 2, NULL, &err), PT_EINPUT, "it would never end", &err);
    assert_non_null(
        strstr(err.text, "rank 0 waits in RECV_ACT of micro-batch 0, chunk 1 from rank 1\n"));
    assert_non_null(
        strstr(err.text, "rank 1 waits in RECV_ACT of micro-batch 1, chunk 0 from rank 0\n"));
    pt_schedule_free(s);
}

/* ---- picture and files ---- */

static void test_picture(void **state)
{
    (void)state;
    static pt_error err;
    static const char expected[] =
        "interleaved: 2 stages, 2 micro-batches, 2 a step, 2 chunks a rank\n"
        "  time   0                   5                   10\n"
        "rank 0 | 0Fa 1Fa 0Fb 1Fb   .   . 0Bb 0Wb 1Bb 1Wb 0Ba 0Wa 1Ba 1Wa*\n"
        "rank 1 |   . 0Fa 1Fa 0Fb 1Fb 0Bb 0Wb 1Bb 1Wb 0Ba 0Wa 1Ba 1Wa*  .\n"
        "F forward  B gradient of inputs  W gradient of weights  * update  . idle  a b … chunk\n";
    char *text = NULL;
    size_t bytes;
    FILE *out = open_memstream(&text, &bytes);
    assert_non_null(out);
    pt_schedule *s = make(interleaved(2, 2, 2, 2));
    assert_ok(pt_schedule_draw(s, 100, out, &err), &err);
    fclose(out);
    assert_string_equal(text, expected);
    free(text);
    pt_schedule_free(s);
}

static char *written(const pt_schedule *s)
{
    static pt_error err;
    char *text = NULL;
    size_t bytes;
    FILE *out = open_memstream(&text, &bytes);
    assert_non_null(out);
    assert_ok(pt_schedule_write(s, out, &err), &err);
    fclose(out);
    return text;
}

static void test_own_lists(void **state)
{
    (void)state;
    static pt_error err;
    static const pt_schedule_spec specs[] = {{"interleaved", 2, 7, 4, 0, true, 2},
                                             {"interleaved", 3, 6, 3, 0, false, 3},
                                             {"interleaved", 2, 3, 4, 0, true, 4}};
    for (size_t i = 0; i < sizeof specs / sizeof specs[0]; i++) {
        pt_schedule *made = make(specs[i]), *read = NULL;
        pt_own_lists *own = NULL;
        char *text = written(made);
        assert_memory_equal(text, "rank,action,micro_batch,chunk\n0,FORWARD,0,0\n", 43);
        assert_ok(pt_own_lists_parse("own.csv", text, strlen(text), &own, &err), &err);
        free(text);
        assert_int_equal(pt_own_lists_chunks(own), specs[i].chunks);
        pt_schedule_spec spec = specs[i];
        spec.chunks = 1; /* not read: the file knows */
        assert_ok(pt_own_lists_generate(own, &spec, &read, &err), &err);
        assert_ok(pt_schedule_lower(read, &err), &err);
        assert_true(read->synchronous);
        for (int rank = 0; rank < spec.stages; rank++) {
            assert_int_equal(read->ranks[rank].n, made->ranks[rank].n);
            for (int a = 0; a < read->ranks[rank].n; a++) {
                read->ranks[rank].actions[a].line = 0;
                assert_memory_equal(&read->ranks[rank].actions[a], &made->ranks[rank].actions[a],
                                    sizeof(pt_action));
            }
        }
        pt_schedule_free(made);
        pt_schedule_free(read);
        pt_own_lists_free(own);
    }
}

/* The last weight gradient of the step is the second chunk's, and so the UPDATE stands behind it. A
 * gradient that waits while the other chunk computes needs no memory of its own: each chunk has. */
static void test_own_order(void **state)
{
    (void)state;
    static pt_error err;
    static const char text[] = "rank,action,micro_batch,chunk\n"
                               "0,FORWARD,0,0\n0,FORWARD,0,1\n"
                               "0,BACKWARD_INPUT,0,1\n0,BACKWARD_INPUT,0,0\n"
                               "0,BACKWARD_WEIGHT,0,0\n0,BACKWARD_WEIGHT,0,1\n"
                               "1,FORWARD,0,0\n1,FORWARD,0,1\n"
                               "1,BACKWARD_INPUT,0,1\n1,BACKWARD_INPUT,0,0\n"
                               "1,BACKWARD_WEIGHT,0,1\n1,BACKWARD_WEIGHT,0,0\n";
    pt_own_lists *own = NULL;
    pt_schedule *s = NULL;
    pt_schedule_rank found[4];
    assert_ok(pt_own_lists_parse("own.csv", text, strlen(text), &own, &err), &err);
    assert_ok(
        pt_own_lists_generate(
            own, &(pt_schedule_spec){.stages = 2, .micro_batches = 3, .per_step = 1}, &s, &err),
        &err);
    assert_ok(pt_schedule_lower(s, &err), &err);
    assert_ok(pt_schedule_check(s, 1, found, &err), &err);
    assert_true(s->synchronous);
    for (int block = 0; block < 4; block++) {
        assert_int_equal(found[block].stash_peak, 1);
        assert_int_equal(found[block].all_stash_peak, 2);
        assert_int_equal(found[block].held_peak, 0);
    }
    const pt_action *last = &s->ranks[0].actions[s->ranks[0].n - 1];
    assert_int_equal(last->kind, PT_UPDATE);
    assert_int_equal(last->chunk, 0);
    assert_int_equal(last[-1].chunk, 1);
    pt_schedule_free(s);
    pt_own_lists_free(own);
}

static void test_bad_own_lists(void **state)
{
    (void)state;
    static pt_error err;
    static const char two[] = "rank,action,micro_batch,chunk\n"
                              "0,FORWARD,0,0\n0,BACKWARD_INPUT,0,0\n0,BACKWARD_WEIGHT,0,0\n";
    static const struct {
        const char *more, *words;
    } cases[] = {
        {"0,FORWARD,0,64\n", "bad.csv:5: chunk '64' is not a whole number from 0 to 63"},
        {"0,FORWARD,0,0\n", "bad.csv:5: the second FORWARD of micro-batch 0 on rank 0"},
        {"0,FORWARD,0,1\n0,BACKWARD_WEIGHT,0,1\n",
         "rank 0 has no BACKWARD_INPUT of micro-batch 0, chunk 1; each of the ranks 0 to 0 runs "
         "each of the micro-batches 0 to 0 on each of the chunks 0 to 1"},
        {"0,FORWARD,1,1\n", "rank 0 has no FORWARD of micro-batch 0, chunk 1"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[512];
        pt_own_lists *untouched = NULL;
        snprintf(text, sizeof text, "%s%s", two, cases[i].more);
        assert_fails(pt_own_lists_parse("bad.csv", text, strlen(text), &untouched, &err), PT_EINPUT,
                     cases[i].words, &err);
        assert_null(untouched);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bad_specs),       cmocka_unit_test(test_refuses_wrong_actions),
        cmocka_unit_test(test_refuses_missing), cmocka_unit_test(test_refuses_deadlock),
        cmocka_unit_test(test_picture),         cmocka_unit_test(test_own_lists),
        cmocka_unit_test(test_own_order),       cmocka_unit_test(test_bad_own_lists),
    };
    return cmocka_run_group_tests_name("interleave refused", tests, NULL, NULL);
}
