#include "claims.h"

#include <pthread.h>
#include <stdlib.h>

enum { NO_STEP = -1 };

struct pt_claims {
    pthread_mutex_t mutex;
    int64_t steps[PT_CLAIMANTS];
};

pt_status pt_claims_new(pt_claims **ret_claims, pt_error *err)
{
    pt_claims *c = calloc(1, sizeof *c);
    if (!c)
        return pt_fail(err, PT_ENOMEM, "no memory for an upload");
    pthread_mutex_init(&c->mutex, NULL);
    for (int i = 0; i < PT_CLAIMANTS; i++)
        c->steps[i] = NO_STEP;
    *ret_claims = c;
    return PT_OK;
}

void pt_claims_free(pt_claims *c)
{
    if (!c)
        return;
    pthread_mutex_destroy(&c->mutex);
    free(c);
}

bool pt_claims_take(pt_claims *c, pt_claimant who, int64_t step)
{
    if (!c)
        return true;
    pthread_mutex_lock(&c->mutex);
    bool free_to_go = true;
    for (int i = 0; i < PT_CLAIMANTS; i++)
        free_to_go = free_to_go && (i == (int)who || c->steps[i] != step);
    if (free_to_go)
        c->steps[who] = step;
    pthread_mutex_unlock(&c->mutex);
    return free_to_go;
}

void pt_claims_release(pt_claims *c, pt_claimant who)
{
    if (!c)
        return;
    pthread_mutex_lock(&c->mutex);
    c->steps[who] = NO_STEP;
    pthread_mutex_unlock(&c->mutex);
}
