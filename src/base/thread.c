#include "pipetrain/thread.h"

#include <signal.h>
#include <string.h>

pt_status pt_thread_start(void *(*run)(void *context), void *context, pthread_t *ret_thread,
                          pt_error *err)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* what it begins with, it has from its parent */
    int code = pthread_create(ret_thread, NULL, run, context);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return code == 0 ? PT_OK : pt_fail(err, PT_EIO, "no thread: %s", strerror(code));
}
