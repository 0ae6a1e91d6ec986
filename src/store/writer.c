#include "pipetrain/writer.h"

#include <stdlib.h>

#include "pipetrain/thread.h"

struct pt_writer {
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t begins;
    pt_writer_job job; /* NULL: none is under way */
    void *context;
    bool ends;
    pt_status status; /* of the last job … */
    pt_error err;     /* … and what it said */
};

static void *work(void *context)
{
    pt_writer *w = context;
    pthread_mutex_lock(&w->mutex);
    for (;;) {
        while (!w->job && !w->ends)
            pthread_cond_wait(&w->begins, &w->mutex);
        if (!w->job)
            break;
        pthread_mutex_unlock(&w->mutex);
        w->err = (pt_error){PT_OK, ""};
        w->status = w->job(w->context, &w->err);
        pthread_mutex_lock(&w->mutex);
        w->job = NULL;
    }
    pthread_mutex_unlock(&w->mutex);
    return NULL;
}

static void clear(pt_writer *w)
{
    pthread_cond_destroy(&w->begins);
    pthread_mutex_destroy(&w->mutex);
    free(w);
}

pt_status pt_writer_new(pt_writer **ret_writer, pt_error *err)
{
    pt_writer *w = calloc(1, sizeof *w);
    if (!w)
        return pt_fail(err, PT_ENOMEM, "no memory for a thread");
    pthread_mutex_init(&w->mutex, NULL);
    pthread_cond_init(&w->begins, NULL);
    pt_status status = pt_thread_start(work, w, &w->thread, err);
    if (status != PT_OK) {
        clear(w);
        return pt_fail_within(err, "checkpoints");
    }
    *ret_writer = w;
    return PT_OK;
}

void pt_writer_free(pt_writer *w)
{
    if (!w)
        return;
    pthread_mutex_lock(&w->mutex);
    w->ends = true;
    pthread_cond_signal(&w->begins);
    pthread_mutex_unlock(&w->mutex);
    pthread_join(w->thread, NULL);
    clear(w);
}

void pt_writer_start(pt_writer *w, pt_writer_job job, void *context)
{
    pthread_mutex_lock(&w->mutex);
    w->job = job;
    w->context = context;
    pthread_cond_signal(&w->begins);
    pthread_mutex_unlock(&w->mutex);
}

bool pt_writer_is_done(pt_writer *w, pt_status *ret_status, pt_error *ret_err)
{
    pthread_mutex_lock(&w->mutex);
    bool done = !w->job;
    if (done) {
        *ret_status = w->status;
        *ret_err = w->err;
    }
    pthread_mutex_unlock(&w->mutex);
    return done;
}
