/* Which settings go together: for settings.c, when all were said, and for setup.c, when the
 * schedule is known. Private to src/run. */
#ifndef PIPETRAIN_RUN_SETTINGS_RULES_H
#define PIPETRAIN_RUN_SETTINGS_RULES_H

#include "pipetrain/settings.h"

/* Batch and lists are settled. What gives way to something said more plainly is switched off;
 * PT_EINPUT: two settings have no meaning together: why, and what to write instead. */
pt_status pt_rules_settle(pt_config *config, pt_error *err);

/* What the schedule makes of the settings, on all stages. */
typedef struct pt_rules_facts {
    int stages;
    int staleness; /* the largest, updates */
    int waiting;   /* micro-batches whose weight gradients wait while others compute, at most */
} pt_rules_facts;

/* PT_EINPUT: a rule does not fit so much lateness: why, and what to write instead. */
pt_status pt_rules_accept(const pt_settings *settings, const pt_rules_facts *facts, pt_error *err);

/* ", gap-aware, pipemare-lr 2": the rules that are on beside prediction and stash, for people. */
void pt_rules_describe(const pt_config *config, char *text, size_t size);

#endif
