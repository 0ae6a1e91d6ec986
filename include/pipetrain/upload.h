/* --upload: committed steps are handed to a command of the user's, the oldest first, by a thread of
 * its own, so that neither training nor the next checkpoint waits.
 *
 *   DIR/step-000050/uploaded    the command has ended well for this step
 *
 * What has no such mark, and is still there, is handed over when there is something new, and when a
 * run goes on: so the command may see a step more than once. */
#ifndef PIPETRAIN_UPLOAD_H
#define PIPETRAIN_UPLOAD_H

#include <stdbool.h>

#include "pipetrain/status.h"
#include "pipetrain/store.h"

typedef struct pt_upload pt_upload;

/* `dir` and `command` are borrowed. */
pt_status pt_upload_new(const char *dir, const char *command, pt_upload **ret_upload,
                        pt_error *err);
void pt_upload_free(pt_upload *upload); /* ends a command that runs; NULL is fine */

/* Of the step that is being uploaded; whoever takes steps away asks. NULL for NULL. */
pt_claims *pt_upload_claims(pt_upload *upload);

/* A step was committed, or may have been by a run before. */
void pt_upload_wake(pt_upload *upload); /* NULL is fine */
/* Starts the thread where it has been woken. Never waits. True when nothing is left to do. */
bool pt_upload_between(pt_upload *upload); /* NULL is fine */

#endif
