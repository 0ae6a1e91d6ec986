/* A small hash table: a file of 100,000 layers must not take quadratic time to read. */
#include "names.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "pipetrain/text.h"

enum { NEAREST_AMONG = 4096 }; /* names looked at for a suggestion; a hint may stay out */

void pt_names_clear(pt_names *names)
{
    for (int i = 0; i < names->n; i++)
        free(names->entries[i].name);
    free(names->entries);
    free(names->slots);
    *names = (pt_names){0};
}

/* FNV-1a, 32 bits. */
static uint32_t hash(const char *name)
{
    uint32_t h = 2166136261u;
    for (; *name; name++)
        h = (h ^ (unsigned char)*name) * 16777619u;
    return h;
}

/* The slot that holds the name, or the free one where it belongs. */
static int slot_of(const pt_names *names, const char *name)
{
    uint32_t mask = (uint32_t)names->n_slots - 1;
    uint32_t at = hash(name) & mask;
    while (names->slots[at] && strcmp(names->entries[names->slots[at] - 1].name, name) != 0)
        at = (at + 1) & mask;
    return (int)at;
}

const pt_name *pt_names_find(const pt_names *names, const char *name)
{
    if (!names->n)
        return NULL;
    int entry = names->slots[slot_of(names, name)];
    return entry ? &names->entries[entry - 1] : NULL;
}

/* Doubles the room; slots stay at most half full, so that probes are short. */
static bool grow(pt_names *names)
{
    int room = names->room ? 2 * names->room : 64;
    pt_name *entries = realloc(names->entries, sizeof *entries * (size_t)room);
    if (!entries)
        return false;
    names->entries = entries;
    int *slots = calloc(2 * (size_t)room, sizeof *slots);
    if (!slots)
        return false;
    free(names->slots);
    names->slots = slots;
    names->n_slots = 2 * room;
    names->room = room;
    for (int i = 0; i < names->n; i++)
        slots[slot_of(names, entries[i].name)] = i + 1;
    return true;
}

bool pt_names_add(pt_names *names, const pt_name *entry)
{
    if (names->n == names->room && !grow(names))
        return false;
    char *name = strdup(entry->name);
    if (!name)
        return false;
    names->slots[slot_of(names, name)] = names->n + 1;
    names->entries[names->n] = *entry;
    names->entries[names->n++].name = name;
    return true;
}

const char *pt_names_nearest(const pt_names *names, const char *prefix, const char *word)
{
    const char *candidates[NEAREST_AMONG];
    size_t length = strlen(prefix);
    int n = 0;

    for (int i = names->n - 1; i >= 0 && n < NEAREST_AMONG; i--)
        if (!strncmp(names->entries[i].name, prefix, length))
            candidates[n++] = names->entries[i].name + length;
    return pt_text_nearest(word, candidates, n);
}
