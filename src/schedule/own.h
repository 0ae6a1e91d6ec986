/* Lists of the user's own, as read from a file; shared by own_read.c and own.c. */
#ifndef PT_SCHEDULE_OWN_H
#define PT_SCHEDULE_OWN_H

#include "pipetrain/schedule.h"

struct pt_own_lists {
    char *file;
    int stages, micro_batches, chunks;
    pt_action_list *ranks; /* [stages]; of an action only kind, micro_batch, chunk and line mean
                              anything */
};

#endif
