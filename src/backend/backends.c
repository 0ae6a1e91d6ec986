/* The registry: which backends this build has, best first. */
#include "pipetrain/backend.h"

#include <string.h>

#include "rows.h"

static const pt_backend_row *const rows[] = {
#ifdef HAVE_ONEDNN
    &pt_backend_onednn,
#endif
    &pt_backend_ref,
    NULL,
};

static const char *const choices[] = {
    "auto",
#ifdef HAVE_ONEDNN
    "onednn",
#endif
    "ref",
    NULL,
};

const pt_backend_row *const *pt_backend_rows(void)
{
    return rows;
}

const char *const *pt_backend_choices(void)
{
    return choices;
}

const char *const *pt_backend_names(void)
{
    return choices + 1;
}

static bool opens(const pt_backend_row *row)
{
    const pt_backend_config config = {.threads = 1};
    pt_backend *backend = NULL;
    pt_error err = {PT_OK, ""};
    if (row->open(&config, &backend, &err) != PT_OK)
        return false;
    row->close(backend);
    return true;
}

const pt_backend_row *pt_backend_find(const char *name)
{
    bool any = strcmp(name, "auto") == 0;
    for (int i = 0; rows[i]; i++)
        if (any ? opens(rows[i]) : strcmp(name, rows[i]->name) == 0)
            return rows[i];
    return NULL;
}
