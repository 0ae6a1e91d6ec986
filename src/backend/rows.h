/* The rows that backends.c lists. Private to src/backend. */
#ifndef PIPETRAIN_BACKEND_ROWS_H
#define PIPETRAIN_BACKEND_ROWS_H

#include "pipetrain/backend.h"

extern const pt_backend_row pt_backend_ref, pt_backend_onednn;

#endif
