#include "schedule_edits.h"

#include <stdlib.h>
#include <string.h>

#include "suite.h"

static int find(const pt_action_list *list, pt_action_kind kind, int micro_batch)
{
    for (int i = 0; i < list->n; i++)
        if (list->actions[i].kind == kind && list->actions[i].micro_batch == micro_batch)
            return i;
    fail_msg("the list has no %s of micro-batch %d", pt_action_name(kind), micro_batch);
    return -1;
}

static void remove_at(pt_action_list *list, int at)
{
    memmove(&list->actions[at], &list->actions[at + 1],
            sizeof(pt_action) * (size_t)(list->n - at - 1));
    list->n--;
}

static void insert_at(pt_action_list *list, int at, pt_action action)
{
    list->actions = realloc(list->actions, sizeof(pt_action) * (size_t)(list->n + 1));
    assert_non_null(list->actions);
    memmove(&list->actions[at + 1], &list->actions[at], sizeof(pt_action) * (size_t)(list->n - at));
    list->actions[at] = action;
    list->n++;
}

void apply(const edit *e, pt_schedule *s)
{
    pt_action_list *list = &s->ranks[e->rank];
    int at = find(list, e->kind, e->micro_batch);
    pt_action action = list->actions[at];
    int other = -1;
    if (e->what == SWAP || e->what == MOVE_BEFORE)
        other = find(list, e->other_kind, e->other_micro_batch);
    switch (e->what) {
    case DROP:
        remove_at(list, at);
        break;
    case DOUBLE:
        insert_at(list, at, action);
        break;
    case SWAP:
        list->actions[at] = list->actions[other];
        list->actions[other] = action;
        break;
    case MOVE_BEFORE:
        remove_at(list, at);
        insert_at(list, other - (at < other), action);
        break;
    case SET:
        list->actions[at] = e->set;
        break;
    }
}
