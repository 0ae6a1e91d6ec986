/* What names mean while a partition file is read: full name -> value and first node. */
#ifndef PIPETRAIN_MODEL_NAMES_H
#define PIPETRAIN_MODEL_NAMES_H

#include <stdbool.h>

/* A layer, a block instance, or a layer that `when: off` dropped. */
typedef struct pt_name {
    char *name;
    int value;      /* what the name gives as an input */
    int first_node; /* where a cut at this name begins; -1 when nothing of it was kept */
    int line;       /* where it stands in the file */
} pt_name;

typedef struct pt_names {
    pt_name *entries; /* in the order they were added */
    int n, room;
    int *slots; /* open addressing: index + 1 into entries, 0 when free */
    int n_slots;
} pt_names;

void pt_names_clear(pt_names *names);
const pt_name *pt_names_find(const pt_names *names, const char *name); /* or NULL */
/* Copies the name, which must be new. False when memory ran out. */
bool pt_names_add(pt_names *names, const pt_name *entry);
/* The name nearest to prefix + word, without the prefix: for "did you mean"; or NULL. */
const char *pt_names_nearest(const pt_names *names, const char *prefix, const char *word);

#endif
