/* Reads the lists that --schedule FILE.csv names: one line an action, a rank's in their order.
 *
 *     rank,action,micro_batch
 *     0,FORWARD,0
 *     0,FORWARD,1
 *     0,BACKWARD_INPUT,0
 *
 * A fourth column, chunk, is for ranks with several blocks of layers. Here every line is read, and
 * every rank must have each of its three actions of every micro-batch and chunk once. Whether their
 * order can be trained with is the checker's business. */
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"
#include "own.h"
#include "pipetrain/text.h"

enum { LINE_BYTES = 256, MOST_RANKS = 1024 };

typedef enum column { RANK, ACTION, MICRO_BATCH, CHUNK, COLUMNS } column;

static const char *const column_names[COLUMNS] = {"rank", "action", "micro_batch", "chunk"};
static const char HEADING[] = "rank,action,micro_batch";

enum { OF_A_MICRO_BATCH = 3 }; /* actions: the first three kinds */

typedef struct reader {
    pt_own_lists *own;
    int line;           /* 1 … */
    column at[COLUMNS]; /* which column the n-th cell is */
    int cells;
    int64_t *room; /* per rank: actions that fit in its list */
    pt_error *err;
} reader;

#define REFUSE(r, ...) refuse_line(r, (r)->line, __VA_ARGS__)

__attribute__((format(printf, 3, 4))) static pt_status refuse_line(reader *r, int line,
                                                                   const char *format, ...)
{
    char reason[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(reason, sizeof reason, format, arguments);
    va_end(arguments);
    return line ? pt_fail(r->err, PT_EINPUT, "%s:%d: %s", r->own->file, line, reason)
                : pt_fail(r->err, PT_EINPUT, "%s: %s", r->own->file, reason);
}

/* ---- lines and cells --------------------------------------------------------------------------
 */

/* Cuts a line at its commas; blanks around a cell do not count. Returns how many there are; no more
 * than COLUMNS are kept. */
static int cut(char *line, char *cells[COLUMNS])
{
    int n = 0;
    for (char *cell = line; cell; n++) {
        char *comma = strchr(cell, ',');
        if (comma)
            *comma = 0;
        cell += strspn(cell, " \t");
        size_t length = strlen(cell);
        while (length > 0 && strchr(" \t\r", cell[length - 1]))
            length--;
        cell[length] = 0;
        if (n < COLUMNS)
            cells[n] = cell;
        cell = comma ? comma + 1 : NULL;
    }
    return n;
}

static pt_status read_heading(reader *r, char *cells[COLUMNS], int n)
{
    bool there[COLUMNS] = {false};
    if (n > COLUMNS)
        return REFUSE(r, "%d columns; the first line must be %s", n, HEADING);
    for (int i = 0; i < n; i++) {
        column c = RANK;
        while (c < COLUMNS && strcmp(cells[i], column_names[c]) != 0)
            c++;
        if (c == COLUMNS)
            return REFUSE(r, "unknown column '%s'; the first line must be %s", cells[i], HEADING);
        if (there[c])
            return REFUSE(r, "the column %s stands here twice; the first line must be %s",
                          column_names[c], HEADING);
        there[c] = true;
        r->at[i] = c;
    }
    for (column c = RANK; c < CHUNK; c++)
        if (!there[c])
            return REFUSE(r, "the column %s is missing; the first line must be %s", column_names[c],
                          HEADING);
    r->cells = n;
    return PT_OK;
}

static pt_status read_number(reader *r, const char *cell, column c, int most, int *ret_number)
{
    int64_t number = 0;
    const char *digit = cell;
    for (; *digit >= '0' && *digit <= '9' && number <= most; digit++)
        number = 10 * number + (*digit - '0');
    if (digit == cell || *digit || number > most)
        return REFUSE(r, "%s '%s' is not a whole number from 0 to %d", column_names[c], cell, most);
    *ret_number = (int)number;
    return PT_OK;
}

static pt_status read_kind(reader *r, const char *cell, pt_action_kind *ret_kind)
{
    const char *names[PT_ACTION_KINDS];
    int kind = 0;
    for (int i = 0; i < PT_ACTION_KINDS; i++)
        names[i] = pt_action_name((pt_action_kind)i);
    while (kind < PT_ACTION_KINDS && strcmp(cell, names[kind]) != 0)
        kind++;
    if (kind < OF_A_MICRO_BATCH) {
        *ret_kind = (pt_action_kind)kind;
        return PT_OK;
    }
    if (kind < PT_ACTION_KINDS)
        return REFUSE(r, "%s has no place in a list: %s", cell,
                      kind == PT_INFER ? "it lists what training does"
                                       : "updates and messages are put in when it is read");
    const char *nearest = pt_text_nearest(cell, names, OF_A_MICRO_BATCH);
    char known[64];
    return REFUSE(r, "unknown action '%s' (%s)%s%s%s", cell,
                  pt_text_join(names, OF_A_MICRO_BATCH, known, sizeof known),
                  nearest ? "; did you mean " : "", nearest ? nearest : "", nearest ? "?" : "");
}

/* Room for one more, twice as much whenever it is full. */
static pt_status make_room(reader *r, int rank)
{
    pt_own_lists *own = r->own;
    if (rank >= own->stages) {
        pt_action_list *ranks = realloc(own->ranks, sizeof *ranks * (size_t)(rank + 1));
        if (!ranks)
            return pt_fail(r->err, PT_ENOMEM, "%s: no memory for its lists", own->file);
        own->ranks = ranks;
        for (; own->stages <= rank; own->stages++)
            own->ranks[own->stages] = (pt_action_list){0};
    }
    pt_action_list *list = &own->ranks[rank];
    if (list->n < r->room[rank])
        return PT_OK;
    int64_t room = r->room[rank] ? 2 * r->room[rank] : 64;
    pt_action *actions = realloc(list->actions, sizeof *actions * (size_t)room);
    if (!actions || room > INT32_MAX)
        return pt_fail(r->err, PT_ENOMEM, "%s: no memory for its lists", own->file);
    list->actions = actions;
    r->room[rank] = room;
    return PT_OK;
}

static pt_status read_action(reader *r, char *cells[COLUMNS], int n)
{
    static const int most[COLUMNS] = {
        [RANK] = MOST_RANKS - 1, [MICRO_BATCH] = PT_SPAN_MAX - 1, [CHUNK] = PT_MOST_CHUNKS - 1};
    int number[COLUMNS] = {0};
    pt_action_kind kind = PT_FORWARD;
    if (n != r->cells)
        return REFUSE(r, "%d cell%s; the heading has %d columns", n, n == 1 ? "" : "s", r->cells);
    for (int i = 0; i < n; i++)
        PT_TRY(r->at[i] == ACTION
                   ? read_kind(r, cells[i], &kind)
                   : read_number(r, cells[i], r->at[i], most[r->at[i]], &number[r->at[i]]));
    PT_TRY(make_room(r, number[RANK]));
    pt_action_list *list = &r->own->ranks[number[RANK]];
    list->actions[list->n++] = (pt_action){.kind = (uint8_t)kind,
                                           .chunk = (uint8_t)number[CHUNK],
                                           .micro_batch = number[MICRO_BATCH],
                                           .peer = -1,
                                           .line = r->line};
    if (number[CHUNK] >= r->own->chunks)
        r->own->chunks = number[CHUNK] + 1;
    if (number[MICRO_BATCH] >= r->own->micro_batches)
        r->own->micro_batches = number[MICRO_BATCH] + 1;
    return PT_OK;
}

static pt_status read_lines(reader *r, const char *text, size_t bytes)
{
    const char *end = text + bytes;
    for (const char *at = text; at < end; r->line++) {
        char line[LINE_BYTES], *cells[COLUMNS];
        const char *stop = memchr(at, '\n', (size_t)(end - at));
        size_t length = (size_t)((stop ? stop : end) - at);
        if (length >= sizeof line)
            return REFUSE(r, "a line of %zu bytes; a line is such as 0,FORWARD,0", length);
        if (memchr(at, 0, length))
            return REFUSE(r, "holds a byte 0: this is not a text file");
        memcpy(line, at, length);
        line[length] = 0;
        at += length + 1;
        if (strspn(line, " \t\r") == length)
            continue;
        int n = cut(line, cells);
        PT_TRY(r->cells ? read_action(r, cells, n) : read_heading(r, cells, n));
    }
    r->line = 0;
    if (!r->cells)
        return REFUSE(r, "is empty; the first line must be %s", HEADING);
    return r->own->stages > 0 ? PT_OK : REFUSE(r, "holds a heading and no actions");
}

/* ---- is everything there? ---------------------------------------------------------------------
 */

static size_t place_of(const pt_own_lists *own, const pt_action *a)
{
    size_t unit = (size_t)a->micro_batch * (size_t)own->chunks + a->chunk;
    return OF_A_MICRO_BATCH * unit + a->kind;
}

/* "micro-batch 3", and the chunk where there are several. */
static const char *unit_of(const pt_own_lists *own, const pt_action *a, char text[PT_UNIT_TEXT])
{
    return pt_schedule_name_unit(&(pt_schedule_spec){.chunks = own->chunks}, a, text);
}

/* first[place_of(action)] is the line that has it. A list cannot have all actions of more
 * micro-batches than it has lines, so that many entries and one micro-batch more show what lacks.
 */
static pt_status find_doubles(reader *r, int rank, int *first, int known)
{
    const pt_own_lists *own = r->own;
    const pt_action_list *list = &own->ranks[rank];
    char unit[PT_UNIT_TEXT];
    for (int i = 0; i < list->n; i++) {
        const pt_action *a = &list->actions[i];
        if (a->micro_batch >= known)
            continue;
        int *line = &first[place_of(own, a)];
        if (*line)
            return refuse_line(
                r, a->line, "the second %s of %s on rank %d; the first is in line %d",
                pt_action_name((pt_action_kind)a->kind), unit_of(own, a, unit), rank, *line);
        *line = a->line;
    }
    return PT_OK;
}

static pt_status find_gaps(reader *r, int rank, const int *first, int known)
{
    const pt_own_lists *own = r->own;
    char unit[PT_UNIT_TEXT], chunks[PT_UNIT_TEXT] = "";
    size_t at = 0, chunk_count = (size_t)own->chunks;
    size_t places = OF_A_MICRO_BATCH * chunk_count * (size_t)known;
    while (at < places && first[at])
        at++;
    if (at == places)
        return PT_OK;
    size_t unit_at = at / OF_A_MICRO_BATCH;
    pt_action missing = {.kind = (uint8_t)(at % OF_A_MICRO_BATCH),
                         .chunk = (uint8_t)(unit_at % chunk_count),
                         .micro_batch = (int32_t)(unit_at / chunk_count)};
    if (own->chunks > 1)
        snprintf(chunks, sizeof chunks, " on each of the chunks 0 to %d", own->chunks - 1);
    return REFUSE(r,
                  "rank %d has no %s of %s; each of the ranks 0 to %d runs each of the "
                  "micro-batches 0 to %d%s",
                  rank, pt_action_name((pt_action_kind)missing.kind), unit_of(own, &missing, unit),
                  own->stages - 1, own->micro_batches - 1, chunks);
}

static pt_status check_complete(reader *r)
{
    for (int rank = 0; rank < r->own->stages; rank++) {
        int lines = r->own->ranks[rank].n, known = r->own->micro_batches;
        if (known > lines)
            known = lines + 1;
        int *first =
            calloc((size_t)known * OF_A_MICRO_BATCH * (size_t)r->own->chunks, sizeof *first);
        if (!first)
            return pt_fail(r->err, PT_ENOMEM, "%s: no memory for its lists", r->own->file);
        pt_status status = find_doubles(r, rank, first, known);
        if (status == PT_OK)
            status = find_gaps(r, rank, first, known);
        free(first);
        PT_TRY(status);
    }
    return PT_OK;
}

pt_status pt_own_lists_parse(const char *file, const char *text, size_t bytes,
                             pt_own_lists **ret_own, pt_error *err)
{
    pt_own_lists *own = calloc(1, sizeof *own);
    reader r = {.own = own, .line = 1, .err = err};
    pt_status status = PT_OK;
    r.room = calloc(MOST_RANKS, sizeof *r.room);
    if (own)
        own->file = strdup(file);
    if (!own || !own->file || !r.room) {
        status = pt_fail(err, PT_ENOMEM, "%s: no memory for its lists", file);
        goto out;
    }
    PT_GOTO(status, read_lines(&r, text, bytes));
    PT_GOTO(status, check_complete(&r));
    *ret_own = own;
    own = NULL;
out:
    pt_own_lists_free(own);
    free(r.room);
    return status;
}

void pt_own_lists_free(pt_own_lists *own)
{
    if (!own)
        return;
    for (int rank = 0; rank < own->stages; rank++)
        pt_action_list_clear(&own->ranks[rank]);
    free(own->ranks);
    free(own->file);
    free(own);
}
