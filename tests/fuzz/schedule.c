/* Lists of one's own: read, made into schedules of one and of several steps, lowered, checked, and
 * what the checker accepts is simulated, drawn, written, and read again. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"
#include "pipetrain/schedule.h"

enum { COLUMNS = 80, SPANS = 3 };

static const char NAME[] = "l.csv";

/* What was written must be read as the same lists. */
static void write_again(const pt_own_lists *own, const pt_schedule *schedule)
{
    char *text = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);
    pt_own_lists *again = NULL;
    pt_error err = {0};
    FUZZ_PROMISE(out && pt_schedule_write(schedule, out, &err) == PT_OK && fclose(out) == 0);
    FUZZ_PROMISE(pt_own_lists_parse(NAME, text, bytes, &again, &err) == PT_OK);
    FUZZ_PROMISE(pt_own_lists_stages(again) == pt_own_lists_stages(own));
    FUZZ_PROMISE(pt_own_lists_chunks(again) == pt_own_lists_chunks(own));
    FUZZ_PROMISE(pt_own_lists_micro_batches(again) == schedule->spec.micro_batches);
    pt_own_lists_free(again);
    free(text);
}

static void draw(const pt_schedule *schedule)
{
    char *text = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);
    pt_error err = {0};
    FUZZ_PROMISE(out && pt_schedule_draw(schedule, COLUMNS, out, &err) == PT_OK);
    FUZZ_PROMISE(fclose(out) == 0 && bytes > 0);
    free(text);
}

/* Every rank is busy with its own actions and idle for the rest of the time. */
static void simulate(const pt_schedule *schedule)
{
    size_t blocks = (size_t)pt_schedule_blocks(&schedule->spec);
    pt_stage_cost *costs = calloc(blocks, sizeof *costs);
    pt_simulated_rank *ranks = calloc((size_t)schedule->spec.stages, sizeof *ranks);
    double total = 0;
    pt_error err = {0};
    FUZZ_PROMISE(costs && ranks);
    for (size_t b = 0; b < blocks; b++)
        costs[b] =
            (pt_stage_cost){.forward = 1, .backward_input = 2, .backward_weight = 1, .update = 1};
    FUZZ_PROMISE(pt_schedule_simulate(schedule, costs, pt_schedule_slots(&schedule->spec), NULL,
                                      NULL, ranks, &total, &err) == PT_OK);
    for (int r = 0; r < schedule->spec.stages; r++)
        FUZZ_PROMISE(ranks[r].busy + ranks[r].idle <= total * (1 + 1e-9));
    free(costs);
    free(ranks);
}

/* True: the lists can be trained with. */
static bool check(const pt_own_lists *own, pt_schedule_spec spec)
{
    pt_schedule *schedule = NULL;
    pt_error err = {0};
    FUZZ_PROMISE(pt_own_lists_generate(own, &spec, &schedule, &err) == PT_OK);
    FUZZ_PROMISE(pt_schedule_lower(schedule, &err) == PT_OK);
    int slots = pt_schedule_slots(&schedule->spec);
    bool sound = fuzz_accepts(pt_schedule_check(schedule, slots, NULL, &err), &err, NAME);
    if (sound) {
        simulate(schedule);
        draw(schedule);
        write_again(own, schedule);
    }
    pt_schedule_free(schedule);
    return sound;
}

bool fuzz_one(const uint8_t *data, size_t bytes)
{
    pt_own_lists *own = NULL;
    pt_error err = {0};
    if (!fuzz_accepts(pt_own_lists_parse(NAME, (const char *)data, bytes, &own, &err), &err,
                      NAME)) {
        FUZZ_PROMISE(!own);
        return false;
    }
    int n = pt_own_lists_micro_batches(own);
    pt_schedule_spec spec = {.stages = pt_own_lists_stages(own), .micro_batches = n, .per_step = n};
    bool sound = check(own, spec); /* as one step, with clipping, … */
    spec.clip = true;
    check(own, spec);
    spec.clip = false;
    spec.micro_batches = SPANS * n; /* … repeated, … */
    check(own, spec);
    spec.micro_batches = n; /* … and as a span whose every micro-batch is a step */
    spec.per_step = 1;
    sound = check(own, spec) || sound;
    pt_own_lists_free(own);
    return sound;
}
