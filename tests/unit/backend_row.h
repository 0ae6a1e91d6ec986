/* A backend by its name, or NULL where it can't be had. */
#ifndef PIPETRAIN_TESTS_BACKEND_ROW_H
#define PIPETRAIN_TESTS_BACKEND_ROW_H

#include "pipetrain/backend.h"

static inline const pt_backend_row *backend_row(const char *name)
{
    pt_error err = {PT_OK, ""}, passed;
    const pt_backend_row *row = NULL;
    return pt_backend_find(name, &row, &passed, &err) == PT_OK ? row : NULL;
}

#endif
