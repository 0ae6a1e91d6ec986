/* Every wait sees the stop flag: rank 1 waits for what rank 0 never says until a signal comes. */
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

#include "pipetrain/clock.h"
#include "pipetrain/link.h"
#include "tap.h"

enum {
    SIGNAL_AFTER_NS = 20 * 1000 * 1000,
    /* A wait sleeps some 75 µs between two looks; a loaded host may take its time. */
    REACTION_NS = 1000 * 1000 * 1000
};

static volatile int stop;

static void on_signal(int number)
{
    (void)number;
    stop = 1;
}

/* SIGUSR1 comes while the wait is on. */
static timer_t set_timer(void)
{
    timer_t timer;
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
    struct itimerspec when = {.it_value = {.tv_nsec = SIGNAL_AFTER_NS}};
    if (signal(SIGUSR1, on_signal) == SIG_ERR || timer_create(CLOCK_MONOTONIC, &event, &timer) ||
        timer_settime(timer, 0, &when, NULL))
        exit(1);
    return timer;
}

static void interrupt(tap *t, pt_status (*wait)(tap *t, void *with), void *with)
{
    stop = 0;
    pt_world_watch(t->world, &stop);
    int64_t began = pt_clock_ns();
    timer_t timer = set_timer();
    pt_status status = wait(t, with);
    int64_t took = pt_clock_ns() - began;
    timer_delete(timer);
    pt_world_watch(t->world, NULL);
    CHECK(t, status == PT_EINTERRUPTED && t->err.code == PT_EINTERRUPTED, "status %d: %s",
          (int)status, t->err.text);
    CHECK(t, took >= SIGNAL_AFTER_NS && took < REACTION_NS, "it took %lld ns", (long long)took);
}

static pt_status wait_receive(tap *t, void *with)
{
    const void *got = NULL;
    return pt_link_receive(with, 100, &got, &t->err);
}

/* The link is as good as before: what comes later arrives. */
static void test_receive(tap *t)
{
    char memory[200];
    pt_link *link = NULL;
    const void *got = NULL;
    void *slot = NULL;
    pt_link_spec spec = {.from = 0, .to = 1, .slots = 2, .slot_bytes = 100, .buffer = memory};
    CHECK_OK(t, pt_link_open(t->world, &spec, &link, &t->err));
    if (!link)
        exit(1);
    if (t->rank == 1) {
        interrupt(t, wait_receive, link);
        CHECK(t, pt_link_receive_wait_ns(link) >= SIGNAL_AFTER_NS, "%lld ns of waiting counted",
              (long long)pt_link_receive_wait_ns(link));
    }
    CHECK_OK(t, pt_world_barrier(t->world, PT_FOR_STATUS, &t->err));
    if (t->rank == 0) {
        CHECK_OK(t, pt_link_send_slot(link, &slot, &t->err));
        memset(memory, 'x', 100);
        CHECK_OK(t, pt_link_send(link, 100, NULL, &t->err));
        CHECK_OK(t, pt_link_flush(link, &t->err));
    } else {
        CHECK_OK(t, pt_link_receive(link, 100, &got, &t->err));
        CHECK(t, memory[99] == 'x', "another message came");
    }
    pt_link_close(link);
}

static pt_status wait_open(tap *t, void *with)
{
    pt_link *link = NULL;
    pt_link_spec spec = {.from = 0, .to = 1, .slots = 2, .slot_bytes = 100, .buffer = with};
    return pt_link_open(t->world, &spec, &link, &t->err);
}

static pt_status wait_broadcast(tap *t, void *with)
{
    return pt_world_broadcast(t->world, PT_FOR_CLIP, 0, with, 100, &t->err);
}

static pt_status wait_gather(tap *t, void *with)
{
    static const size_t counts[] = {100, 100};
    return pt_world_gather(t->world, PT_FOR_ANSWERS, 1, with, 100, counts, (char *)with + 100,
                           &t->err);
}

static pt_status wait_barrier(tap *t, void *with)
{
    (void)with;
    return pt_world_barrier(t->world, PT_FOR_STOP, &t->err);
}

static pt_status wait_clock(tap *t, void *with)
{
    (void)with;
    int64_t offset = 0;
    return pt_world_clock_offset(t->world, &offset, &t->err);
}

/* After these the purposes are out of step for good, which is what the stop flag means. */
static void test_collectives(tap *t)
{
    pt_status (*const waits[])(tap *, void *) = {wait_broadcast, wait_gather, wait_barrier,
                                                 wait_clock};
    char memory[300] = "";
    for (size_t i = 0; i < sizeof waits / sizeof *waits && t->rank == 1; i++)
        interrupt(t, waits[i], memory);
}

static void test_open(tap *t)
{
    char memory[200];
    if (t->rank == 1)
        interrupt(t, wait_open, memory);
}

int main(int argc, char **argv)
{
    static const tap_case cases[] = {
        {"a receive is interrupted and goes on later", test_receive},
        {"collectives are interrupted", test_collectives},
        {"the opening of a link is interrupted", test_open},
    };
    return tap_main(argc, argv, 2, cases, sizeof cases / sizeof *cases);
}
