/* The world on three or more ranks of one host: facts, collectives, agreement, mail, clocks. */
#include <stdint.h>
#include <string.h>

#include "../../src/comm/comm_mpi.h"
#include "pipetrain/clock.h"
#include "tap.h"

enum {
    SHORT_BYTES = 64,        /* below every eager limit */
    LONG_BYTES = 1 << 20,    /* above every eager limit */
    SMALL_CHUNK = 1000,      /* makes many chunks of little data, the last one ragged */
    POSTS = 10000,           /* records posted by each rank */
    SLOTS_AT_MOST = 16,      /* generous: a sender has 4 slots of its own */
    CLOCK_BOUND_NS = 2000000 /* ranks of one host share a clock, so the true offset is 0; the error
                                is half a round trip, and a loaded host takes its time */
};

static unsigned char pattern(size_t i, int seed)
{
    return (unsigned char)(i * 31 + i / 251 + (size_t)seed * 7 + 1);
}

static void fill(unsigned char *data, size_t n, int seed)
{
    for (size_t i = 0; i < n; i++)
        data[i] = pattern(i, seed);
}

static bool holds(const unsigned char *data, size_t n, int seed)
{
    for (size_t i = 0; i < n; i++)
        if (data[i] != pattern(i, seed))
            return false;
    return true;
}

static void *memory(size_t bytes)
{
    void *p = malloc(bytes ? bytes : 1);
    if (!p)
        exit(1);
    return p;
}

/* ---- facts ------------------------------------------------------------------------------------*/

static void test_facts(tap *t)
{
    char text[100] = "";
    pt_world_describe(t->world, text, sizeof text);
    CHECK(t, strlen(text) > 3 && !strpbrk(text, "\n,"), "\"%s\"", text);
    CHECK(t, pt_world_host(t->world)[0] != 0, "no host name");
    CHECK(t, pt_world_under_mpirun(t->world), "mpirun was not noticed");
    CHECK(t, pt_world_local_rank(t->world) == t->rank, "local rank %d",
          pt_world_local_rank(t->world));
}

/* ---- collectives ------------------------------------------------------------------------------*/

static void broadcast_everywhere(tap *t, size_t bytes)
{
    unsigned char *data = memory(bytes);
    for (int purpose = 0; purpose < PT_PURPOSES; purpose++) {
        for (int root = 0; root < t->size; root++) {
            int seed = purpose * 100 + root;
            memset(data, 0, bytes);
            if (t->rank == root)
                fill(data, bytes, seed);
            CHECK_OK(t,
                     pt_world_broadcast(t->world, (pt_purpose)purpose, root, data, bytes, &t->err));
            CHECK(t, holds(data, bytes, seed), "purpose %d, root %d", purpose, root);
        }
    }
    free(data);
}

static void test_broadcast_short(tap *t)
{
    broadcast_everywhere(t, 0);
    broadcast_everywhere(t, SHORT_BYTES);
}

static void test_broadcast_long(tap *t)
{
    broadcast_everywhere(t, LONG_BYTES);
}

static void with_small_chunks(tap *t, void (*run)(tap *t, size_t bytes), size_t bytes)
{
    size_t whole = t->world->chunk_bytes;
    t->world->chunk_bytes = SMALL_CHUNK;
    run(t, bytes);
    t->world->chunk_bytes = whole;
}

static void test_broadcast_chunks(tap *t)
{
    with_small_chunks(t, broadcast_everywhere, 10 * SMALL_CHUNK);
    with_small_chunks(t, broadcast_everywhere, 10 * SMALL_CHUNK + 1);
}

/* Rank r gives r · bytes / 2 and a bit, rank 1 nothing. */
static size_t part_bytes(int rank, size_t bytes)
{
    return rank == 1 ? 0 : (size_t)rank * bytes / 2 + 3;
}

static void gather_everywhere(tap *t, size_t bytes)
{
    size_t *counts = memory((size_t)t->size * sizeof *counts), total = 0;
    for (int r = 0; r < t->size; r++)
        total += counts[r] = part_bytes(r, bytes);
    unsigned char *all = memory(total), *mine = memory(counts[t->rank]);
    fill(mine, counts[t->rank], t->rank);
    for (int root = 0; root < t->size; root++) {
        memset(all, 0, total);
        CHECK_OK(t, pt_world_gather(t->world, PT_FOR_CLIP, root, mine, counts[t->rank], counts, all,
                                    &t->err));
        size_t at = 0;
        for (int r = 0; r < t->size && t->rank == root; at += counts[r++])
            CHECK(t, holds(all + at, counts[r], r), "root %d, part of rank %d", root, r);
    }
    free(counts);
    free(all);
    free(mine);
}

static void test_gather(tap *t)
{
    gather_everywhere(t, SHORT_BYTES);
    gather_everywhere(t, LONG_BYTES);
    with_small_chunks(t, gather_everywhere, 7 * SMALL_CHUNK);
}

/* Nobody leaves before the last one has entered; the ranks of one host share the clock. */
static void test_barrier(tap *t)
{
    size_t *counts = memory((size_t)t->size * sizeof *counts);
    int64_t times[2], (*all)[2] = memory((size_t)t->size * sizeof *all);
    for (int r = 0; r < t->size; r++)
        counts[r] = sizeof times;
    for (int late = 0; late < t->size; late++) {
        if (t->rank == late) /* the one that the others must wait for */
            pt_clock_sleep_ns(5000000);
        times[0] = pt_clock_ns();
        CHECK_OK(t, pt_world_barrier(t->world, PT_FOR_STOP, &t->err));
        times[1] = pt_clock_ns();
        CHECK_OK(t, pt_world_gather(t->world, PT_FOR_METRICS, 0, times, sizeof times, counts, all,
                                    &t->err));
        for (int r = 0; r < t->size && t->rank == 0; r++)
            CHECK(t, all[r][1] >= all[late][0], "rank %d left before rank %d came", r, late);
    }
    free(counts);
    free(all);
}

/* ---- agreement --------------------------------------------------------------------------------*/

/* `failing` has a bit for each rank that fails. */
static void agree_on(tap *t, unsigned failing)
{
    pt_status mine = failing >> t->rank & 1 ? PT_EIO : PT_OK;
    int rank = 99, lowest = -1;
    char expected[80];
    for (int r = t->size - 1; r >= 0; r--)
        if (failing >> r & 1)
            lowest = r;
    snprintf(expected, sizeof expected, "disk of rank %d is full", lowest);
    if (mine != PT_OK)
        pt_fail(&t->err, mine, "disk of rank %d is full", t->rank);
    else
        t->err = (pt_error){0};
    pt_status status = pt_world_agree(t->world, mine, &t->err, &rank);
    CHECK(t, status == (failing ? PT_EIO : PT_OK), "failing %x: status %d", failing, (int)status);
    CHECK(t, rank == lowest, "failing %x: rank %d", failing, rank);
    if (failing)
        CHECK(t, strcmp(t->err.text, expected) == 0 && t->err.code == PT_EIO, "\"%s\"",
              t->err.text);
}

static void test_agree(tap *t)
{
    for (unsigned failing = 0; failing < 1u << t->size; failing++)
        agree_on(t, failing);
}

/* ---- mail -------------------------------------------------------------------------------------*/

typedef struct record {
    int64_t sum;
    int64_t posts; /* merged into this record */
    int32_t number;
    int32_t is_last;
} record;

/* Adds up what does not fit, as callers do. Returns how many records left. */
static int post_all(tap *t, pt_mail *mail, record *merged)
{
    int left = 0;
    for (int i = 0; i < POSTS; i++) {
        merged->sum += i * (t->rank + 1);
        merged->posts++;
        if (pt_mail_post(mail, merged)) {
            left++;
            *merged = (record){.number = merged->number + 1};
        }
    }
    return left;
}

static void post_last(tap *t, pt_mail *mail, record *merged)
{
    int64_t since = 0;
    merged->is_last = 1;
    while (!pt_mail_post(mail, merged))
        pt_comm_pause(t->world, &since);
    CHECK_OK(t, pt_mail_flush(mail, &t->err));
}

static void take_all(tap *t, pt_mail *mail, int posts_each)
{
    record *got = memory((size_t)t->size * sizeof *got), one;
    int64_t since = 0;
    int sender = 0;
    memset(got, 0, (size_t)t->size * sizeof *got);
    for (int lasts = 0; lasts < t->size - 1;) {
        if (!pt_mail_take(mail, &one, &sender)) {
            pt_comm_pause(t->world, &since);
            continue;
        }
        CHECK(t, one.number == got[sender].number, "rank %d's record %d comes as number %d", sender,
              one.number, got[sender].number);
        got[sender].sum += one.sum;
        got[sender].posts += one.posts;
        got[sender].number++;
        lasts += one.is_last;
    }
    for (int r = 1; r < t->size; r++) {
        int64_t sum = (int64_t)POSTS * (POSTS - 1) / 2 * (r + 1) * (posts_each / POSTS);
        CHECK(t, got[r].posts == posts_each && got[r].sum == sum, "rank %d: %lld posts, sum %lld",
              r, (long long)got[r].posts, (long long)got[r].sum);
    }
    CHECK(t, !pt_mail_take(mail, &one, &sender), "mail from nowhere");
    free(got);
}

/* First rank 0 takes nothing, so that a sender runs out of slots; then it takes all along. */
static void test_mail(tap *t)
{
    pt_mail *mail = NULL;
    record merged = {0};
    CHECK_OK(t, pt_mail_open(t->world, sizeof(record), &mail, &t->err));
    if (t->rank != 0) {
        int left = post_all(t, mail, &merged);
        CHECK(t, left >= 1 && left <= SLOTS_AT_MOST * t->size, "%d records left", left);
    }
    CHECK_OK(t, pt_world_barrier(t->world, PT_FOR_METRICS, &t->err));
    if (t->rank == 0) {
        CHECK(t, !pt_mail_post(mail, &merged), "rank 0 can post");
        take_all(t, mail, 2 * POSTS);
    } else {
        post_all(t, mail, &merged);
        post_last(t, mail, &merged);
    }
    pt_mail_close(mail);
}

/* What was posted leaves though rank 0 is waiting for something else. */
static void test_mail_flush(tap *t)
{
    pt_mail *mail = NULL;
    record one = {.sum = t->rank};
    int taken = 0, sender = 0;
    CHECK_OK(t, pt_mail_open(t->world, sizeof one, &mail, &t->err));
    if (t->rank != 0) {
        CHECK(t, pt_mail_post(mail, &one), "the first record does not fit");
        CHECK_OK(t, pt_mail_flush(mail, &t->err));
    }
    CHECK_OK(t, pt_world_barrier(t->world, PT_FOR_METRICS, &t->err));
    for (; t->rank == 0 && pt_mail_take(mail, &one, &sender); taken++)
        CHECK(t, one.sum == sender, "rank %d's record says %lld", sender, (long long)one.sum);
    CHECK(t, taken == (t->rank == 0 ? t->size - 1 : 0), "%d records", taken);
    pt_mail_close(mail);
}

/* ---- clocks -----------------------------------------------------------------------------------*/

static void test_clock(tap *t)
{
    int64_t offset = INT64_MAX;
    CHECK_OK(t, pt_world_clock_offset(t->world, &offset, &t->err));
    CHECK(t, offset < CLOCK_BOUND_NS && offset > -CLOCK_BOUND_NS, "offset %lld ns",
          (long long)offset);
    CHECK(t, t->rank != 0 || offset == 0, "rank 0 differs from itself");
}

/* ---- ranks out of step: the last case, since that purpose is then out of order for good
 * --------*/

static void test_unequal(tap *t)
{
    char data[2 * SHORT_BYTES] = "";
    size_t due = t->rank == 0 ? SHORT_BYTES : t->rank == 1 ? SHORT_BYTES / 2 : 2 * SHORT_BYTES;
    pt_status status = pt_world_broadcast(t->world, PT_FOR_CLIP, 0, data, due, &t->err);
    CHECK(t, status == (t->rank == 0 ? PT_OK : PT_ECOMM), "%d bytes for %d: status %d", SHORT_BYTES,
          (int)due, (int)status);
    if (t->rank > 1)
        CHECK(t, strstr(t->err.text, "rank 0 sent 64 bytes"), "\"%s\"", t->err.text);
}

int main(int argc, char **argv)
{
    static const tap_case cases[] = {
        {"facts about the ranks", test_facts},
        {"every purpose broadcasts 64 B from every root", test_broadcast_short},
        {"every purpose broadcasts 1 MiB from every root", test_broadcast_long},
        {"a broadcast longer than one message", test_broadcast_chunks},
        {"gather with uneven counts", test_gather},
        {"a barrier holds until the last has come", test_barrier},
        {"all agree on the lowest failing rank's message", test_agree},
        {"10,000 posts a rank, merged, all arrive", test_mail},
        {"mail is flushed while rank 0 waits elsewhere", test_mail_flush},
        {"clock offset on one host", test_clock},
        {"unequal lengths are refused", test_unequal},
    };
    return tap_main(argc, argv, 3, cases, sizeof cases / sizeof *cases);
}
