/* A thread that looks at something again and again. */
#ifndef PIPETRAIN_TICKER_H
#define PIPETRAIN_TICKER_H

#include <stdbool.h>
#include <stdint.h>

#include "pipetrain/status.h"

typedef struct pt_ticker pt_ticker;

/* A look, in the ticker's thread. `passed_ns`: since the last one, or the start; far more than was
 * asked for where the process was stopped meanwhile, or the machine has too much to do. True: it
 * has seen enough and is not called again. */
typedef bool (*pt_tick)(void *context, int64_t passed_ns);

/* Its thread takes no signals: these are for the thread that works. PT_EIO: there is no thread. */
pt_status pt_ticker_new(int64_t every_ns, pt_tick tick, void *context, pt_ticker **ret_ticker,
                        pt_error *err);
/* No look is under way behind this, and none comes. NULL is fine. */
void pt_ticker_free(pt_ticker *ticker);

#endif
