/* What the files of the store share. */
#ifndef PIPETRAIN_STORE_INTERNAL_H
#define PIPETRAIN_STORE_INTERNAL_H

#include <stdint.h>

#include "pipetrain/status.h"

static inline pt_status pt_store_no_memory(pt_error *err)
{
    return pt_fail(err, PT_ENOMEM, "no memory for the path of a checkpoint");
}

/* The greatest number of a step, a launch, a host, so that counting on is safe. */
#define PT_STORE_MOST INT64_C(1000000000000000000)

/* With all that lies in it; none is fine. */
pt_status pt_store_remove_folder(const char *folder, pt_error *err);

#endif
