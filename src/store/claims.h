/* Two threads work on the steps of one directory: one takes old steps away, the other uploads. What
 * one is at, the other leaves alone. Private to src/store. */
#ifndef PIPETRAIN_STORE_CLAIMS_H
#define PIPETRAIN_STORE_CLAIMS_H

#include <stdbool.h>
#include <stdint.h>

#include "pipetrain/status.h"
#include "pipetrain/store.h"

typedef enum pt_claimant { PT_CLAIM_REMOVE, PT_CLAIM_UPLOAD, PT_CLAIMANTS } pt_claimant;

pt_status pt_claims_new(pt_claims **ret_claims, pt_error *err);
void pt_claims_free(pt_claims *claims); /* NULL is fine */

/* One step at a time for each. False: the other one is at it. Without claims there is no other. */
bool pt_claims_take(pt_claims *claims, pt_claimant who, int64_t step);
void pt_claims_release(pt_claims *claims, pt_claimant who);

#endif
