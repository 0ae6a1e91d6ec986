/* The rows that backends.c lists. Private to src/backend. */
#ifndef PIPETRAIN_BACKEND_ROWS_H
#define PIPETRAIN_BACKEND_ROWS_H

#include "pipetrain/backend.h"

extern const pt_backend_row pt_backend_ref, pt_backend_onednn, pt_backend_cuda, pt_backend_clock;

/* The row of the cuda backend, which lies in a module of its own. PT_EINPUT: it can't be loaded. */
pt_status pt_backend_load_cuda(const pt_backend_row **ret_row, pt_error *err);
/* Is the driver of its devices on this machine? */
bool pt_backend_expects_cuda(void);

#endif
