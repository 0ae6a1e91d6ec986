/* The picture of a schedule: a row per rank, a column per unit of forward time.
 *
 *     1f1b: 2 stages, 4 micro-batches, 2 a step
 *       time   0              5              10             15
 *     rank 0 | 0F 1F  . 0B 0W  . 1B 1W*2F 3F  . 2B 2W  . 3B 3W*
 *     rank 1 |  . 0F 0B 0W 1F 1B 1W* .  . 2F 2B 2W 3F 3B 3W* .
 *     F forward  B gradient of inputs  W gradient of weights  * update  . idle
 *
 * With several chunks a letter says which: 3Fb is micro-batch 3 through the second.
 *
 * A row is one string: a separator before every cell and one after the last. What takes no time
 * (an update, the mark of what is refused) stands in the separators. All times are whole numbers,
 * because the play has unit costs and messages that take no time. */
#include <stdlib.h>
#include <string.h>

#include "internal.h"

enum {
    PICTURE_COLUMNS = 100, /* of a refusal, in characters */
    PICTURE_RANKS = 12,    /* of a refusal: it must fit a pt_error */
    AXIS_EVERY = 5,        /* columns between two numbers of the time axis */
    LETTERS = 26,          /* chunks that have one */
};

static const char letters[PT_ACTION_KINDS] = {
    [PT_FORWARD] = 'F',   [PT_BACKWARD_INPUT] = 'B', [PT_BACKWARD_WEIGHT] = 'W',
    [PT_CLIP] = '#',      [PT_UPDATE] = '*',         [PT_INFER] = 'I',
    [PT_RECV_ACT] = '>',  [PT_SEND_ACT] = '>',       [PT_RECV_GRAD] = '<',
    [PT_SEND_GRAD] = '<',
};

typedef struct grid {
    const pt_schedule *schedule;
    int first_rank, ranks;
    int64_t from; /* time of the first column */
    int columns;
    int cell;      /* characters of a cell */
    size_t stride; /* bytes of a row */
    char *rows;    /* [ranks][stride], each ended by 0 */
} grid;

static int digits(int64_t n)
{
    int count = 1;
    for (; n >= 10; n /= 10)
        count++;
    return count;
}

static int margin(const pt_schedule *schedule)
{
    return (int)strlen("rank  |") + digits(schedule->spec.stages - 1);
}

/* No micro-batch with a number above the last column has begun by then. */
static int cell_width(const pt_schedule *schedule, int64_t last_column)
{
    int64_t most = schedule->spec.micro_batches - 1;
    return digits(most < last_column ? most : last_column) + 1 + (schedule->spec.chunks > 1);
}

/* The narrowest cells, and with them the most of `total` columns, that fit in `width` characters.
 */
static void fit(grid *g, int width, int64_t total)
{
    int64_t columns;
    g->cell = 1;
    do {
        g->cell++;
        columns = (width - margin(g->schedule) - 1) / (g->cell + 1);
        columns = columns < total ? columns : total;
    } while (columns > 1 && cell_width(g->schedule, g->from + columns) > g->cell);
    g->columns = columns > 1 ? (int)columns : 1;
}

static pt_status grid_init(grid *g, pt_error *err)
{
    g->stride = (size_t)g->columns * (size_t)(g->cell + 1) + 2;
    g->rows = malloc((size_t)g->ranks * g->stride);
    if (!g->rows)
        return pt_fail(err, PT_ENOMEM, "no memory to draw a schedule");
    memset(g->rows, ' ', (size_t)g->ranks * g->stride);
    for (int rank = 0; rank < g->ranks; rank++) {
        char *row = g->rows + (size_t)rank * g->stride;
        for (int c = 0; c < g->columns; c++)
            row[(c + 1) * (g->cell + 1) - 1] = '.';
        row[g->stride - 1] = 0;
    }
    return PT_OK;
}

/* The separator before the cell of `when`, or NULL outside the picture. The column after the last
 * has a separator too. */
static char *find_place(grid *g, int rank, double when)
{
    int64_t column = (int64_t)when - g->from;
    if (rank < g->first_rank || rank >= g->first_rank + g->ranks)
        return NULL;
    if (column < 0 || column > g->columns)
        return NULL;
    return g->rows + (size_t)(rank - g->first_rank) * g->stride + column * (g->cell + 1);
}

/* False when the cell is outside the picture. */
static bool paint_cell(grid *g, int rank, double when, const pt_action *a)
{
    char *place = find_place(g, rank, when), text[16];
    if (!place || (int64_t)when - g->from == g->columns)
        return false;
    char letter = a->kind < PT_ACTION_KINDS ? letters[a->kind] : '?';
    char chunk[2] = "";
    if (g->schedule->spec.chunks > 1)
        chunk[0] = a->chunk < LETTERS ? (char)('a' + a->chunk) : '?';
    int n = snprintf(text, sizeof(text), "%d%c%s", a->micro_batch, letter, chunk);
    if (n > g->cell) /* only a micro-batch that the span does not have is too wide */
        n = snprintf(text, sizeof(text), "?%c%s", letter, chunk);
    memset(place + 1, ' ', (size_t)g->cell);
    memcpy(place + 1 + g->cell - n, text, (size_t)n);
    return true;
}

static void paint(void *context, int rank, int index, double start, double end)
{
    grid *g = context;
    const pt_action *a = &g->schedule->ranks[rank].actions[index];
    char *place;
    (void)end;
    if (a->kind < PT_CLIP || a->kind == PT_INFER) {
        paint_cell(g, rank, start, a);
    } else if (a->kind <= PT_UPDATE) {
        place = find_place(g, rank, start);
        if (place && *place != letters[PT_CLIP])
            *place = letters[a->kind];
    }
}

static void mark(grid *g, int rank, double when, const pt_action *a)
{
    if (paint_cell(g, rank, when, a))
        *find_place(g, rank, when + 1) = '!';
}

/* ---- printing ---- */

static void print_axis(const grid *g, FILE *out)
{
    int at = 0;
    fprintf(out, "%*s  ", margin(g->schedule) - 2, "time");
    for (int c = 0; c < g->columns; c++) {
        if ((g->from + c) % AXIS_EVERY != 0)
            continue;
        int place = c * (g->cell + 1) + 1;
        at += fprintf(out, "%*s%lld", place - at, "", (long long)(g->from + c));
    }
    fputc('\n', out);
}

static void print_rows(const grid *g, FILE *out)
{
    int width = digits(g->schedule->spec.stages - 1);
    print_axis(g, out);
    for (int rank = 0; rank < g->ranks; rank++) {
        char *row = g->rows + (size_t)rank * g->stride;
        size_t n = g->stride - 1;
        while (n > 0 && row[n - 1] == ' ')
            n--;
        fprintf(out, "rank %*d |%.*s\n", width, g->first_rank + rank, (int)n, row);
    }
    if (g->ranks < g->schedule->spec.stages)
        fprintf(out, "ranks %d to %d of %d\n", g->first_rank, g->first_rank + g->ranks - 1,
                g->schedule->spec.stages);
}

static void print_legend(const pt_schedule *schedule, bool refused, FILE *out)
{
    if (pt_schedule_trains(schedule))
        fprintf(out, "F forward  B gradient of inputs  W gradient of weights  %s  . idle",
                schedule->spec.clip ? "# clip and update" : "* update");
    else
        fprintf(out, "I inference  . idle");
    if (schedule->spec.chunks > 1)
        fprintf(out, "  a b … chunk");
    if (refused)
        fprintf(out, "\n> activation  < gradient  ! here");
    fputc('\n', out);
}

static void print_title(const pt_schedule *schedule, FILE *out)
{
    const pt_schedule_spec *spec = &schedule->spec;
    fprintf(out, "%s: %d stage%s, %d micro-batch%s", spec->name, spec->stages,
            spec->stages == 1 ? "" : "s", spec->micro_batches,
            spec->micro_batches == 1 ? "" : "es");
    if (pt_schedule_trains(schedule))
        fprintf(out, ", %d a step", spec->per_step);
    if (spec->chunks > 1)
        fprintf(out, ", %d chunks a rank", spec->chunks);
    if (spec->in_flight > 0)
        fprintf(out, ", %d more in flight", spec->in_flight);
    fputc('\n', out);
}

static pt_status written(FILE *out, pt_error *err)
{
    return ferror(out) ? pt_fail(err, PT_EIO, "the picture of a schedule could not be written")
                       : PT_OK;
}

/* ---- the whole schedule ---- */

static int64_t last_time(const pt_player *player)
{
    double last = 0;
    for (int rank = 0; rank < player->schedule->spec.stages; rank++)
        if (player->clock[rank] > last)
            last = player->clock[rank];
    return (int64_t)last;
}

static pt_status draw(pt_player *player, int columns, FILE *out, pt_error *err)
{
    const pt_schedule *schedule = player->schedule;
    if (pt_player_run(player, NULL) != PT_PLAY_DONE)
        return pt_fail(err, PT_EINPUT,
                       "schedule '%s' cannot be drawn: it does not come to its end, and "
                       "pt_schedule_check says why",
                       schedule->spec.name);
    int64_t total = last_time(player);
    grid g = {.schedule = schedule, .ranks = schedule->spec.stages};
    fit(&g, columns, total);
    pt_status status = grid_init(&g, err);
    if (status == PT_OK) {
        pt_player_run(player, &(pt_play_visitor){paint, &g});
        print_title(schedule, out);
        print_rows(&g, out);
        print_legend(schedule, /*refused=*/false, out);
        if (g.columns < total)
            fprintf(out, "cut: %d of %lld columns are shown\n", g.columns, (long long)total);
        status = written(out, err);
    }
    free(g.rows);
    return status;
}

pt_status pt_schedule_draw(const pt_schedule *schedule, int columns, FILE *out, pt_error *err)
{
    pt_player *player;
    int slots = pt_schedule_slots(&schedule->spec);
    PT_TRY(pt_player_new(schedule, NULL, slots, /*synchronous=*/false, &player, err));
    pt_status status = draw(player, columns, out, err);
    pt_player_free(player);
    return status;
}

/* ---- what was refused ---- */

/* The rank that waits longest is nearest to the cause. */
static int first_stuck(const pt_player *player)
{
    int found = 0;
    double earliest = -1;
    for (int rank = 0; rank < player->schedule->spec.stages; rank++) {
        if (player->cursor[rank] >= player->schedule->ranks[rank].n)
            continue;
        if (earliest < 0 || player->clock[rank] < earliest) {
            earliest = player->clock[rank];
            found = rank;
        }
    }
    return found;
}

/* The window: the offending cell at two thirds of the width, in the middle of the ranks. */
static void look_at(grid *g, const pt_player *player, int rank)
{
    int stages = g->schedule->spec.stages;
    int64_t when = (int64_t)player->clock[rank], total = last_time(player) + 1;
    g->from = when; /* the width of a cell depends on it, and this is the latest it can be */
    fit(g, PICTURE_COLUMNS, total);
    int64_t from = when - 2 * g->columns / 3;
    from = from + g->columns > total ? total - g->columns : from;
    g->from = from > 0 ? from : 0;
    g->ranks = stages < PICTURE_RANKS ? stages : PICTURE_RANKS;
    int first = rank - PICTURE_RANKS / 2;
    first = first + g->ranks > stages ? stages - g->ranks : first;
    g->first_rank = first > 0 ? first : 0;
}

static void mark_stuck(grid *g, const pt_player *player)
{
    for (int rank = 0; rank < g->schedule->spec.stages; rank++) {
        const pt_action_list *list = &g->schedule->ranks[rank];
        int at = player->cursor[rank];
        if (at < list->n)
            mark(g, rank, player->clock[rank], &list->actions[at]);
    }
}

pt_status pt_schedule_draw_stopped(pt_player *player, const pt_flaw *flaw, FILE *out, pt_error *err)
{
    grid g = {.schedule = player->schedule};
    pt_player_run(player, NULL);
    look_at(&g, player, flaw ? flaw->rank : first_stuck(player));
    PT_TRY(grid_init(&g, err));
    pt_player_run(player, &(pt_play_visitor){paint, &g});
    if (flaw)
        mark(&g, flaw->rank, player->clock[flaw->rank], &flaw->action);
    else
        mark_stuck(&g, player);
    print_rows(&g, out);
    print_legend(g.schedule, /*refused=*/true, out);
    free(g.rows);
    return written(out, err);
}
