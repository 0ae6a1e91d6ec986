/* The cuda backend as a part of the program: no module, no driver. Stands before the archive that
 * holds the loader, which is then not taken. */
#include "../../../src/backend/rows.h"

bool pt_backend_expects_cuda(void)
{
    return true;
}

pt_status pt_backend_load_cuda(const pt_backend_row **ret_row, pt_error *err)
{
    (void)err;
    *ret_row = &pt_backend_cuda;
    return PT_OK;
}
