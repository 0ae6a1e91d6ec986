/* Greedy by size: the largest buffer is placed first, each at the lowest offset where no buffer
 * that lives at the same time stands already. Large ones fix the skeleton, small ones fill gaps.
 *
 * No memory is needed for it, so it cannot fail. Work grows with the square of n times the number
 * of neighbours in time; n is the number of temporaries of one stage, a few hundred. */
#include "pipetrain/arena.h"

#include <assert.h>
#include <stdbool.h>
#include <stdint.h>

static const size_t UNPLACED = SIZE_MAX;

size_t pt_align_up(size_t bytes)
{
    assert(bytes <= SIZE_MAX - (PT_ALIGN - 1));
    return (bytes + PT_ALIGN - 1) / PT_ALIGN * PT_ALIGN;
}

/* The largest item that has no place yet, the first of equals; NULL when all are placed. */
static pt_arena_item *largest_unplaced(pt_arena_item *items, int n)
{
    pt_arena_item *largest = NULL;
    for (int i = 0; i < n; i++)
        if (items[i].offset == UNPLACED && (!largest || items[i].bytes > largest->bytes))
            largest = &items[i];
    return largest;
}

static bool meet_in_time(const pt_arena_item *a, const pt_arena_item *b)
{
    return a->first <= b->last && b->first <= a->last;
}

/* A placed item that bars `item` from `offset`, or NULL. */
static const pt_arena_item *obstacle(const pt_arena_item *items, int n, const pt_arena_item *item,
                                     size_t offset)
{
    for (int i = 0; i < n; i++) {
        const pt_arena_item *other = &items[i];
        if (other->offset != UNPLACED && other->bytes > 0 && meet_in_time(item, other) &&
            offset < other->offset + other->bytes && other->offset < offset + item->bytes)
            return other;
    }
    return NULL;
}

size_t pt_arena_plan(pt_arena_item *items, int n)
{
    for (int i = 0; i < n; i++) {
        assert(items[i].first <= items[i].last);
        items[i].offset = items[i].bytes ? UNPLACED : 0;
    }
    size_t total = 0;
    for (pt_arena_item *item; (item = largest_unplaced(items, n)) != NULL;) {
        /* Whatever bars an offset bars every higher one up to its own end. */
        size_t offset = 0;
        for (const pt_arena_item *other; (other = obstacle(items, n, item, offset)) != NULL;)
            offset = pt_align_up(other->offset + other->bytes);
        item->offset = offset;
        size_t end = pt_align_up(offset + item->bytes);
        total = end > total ? end : total;
    }
    return total;
}
