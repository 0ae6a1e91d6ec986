/* Flat buffers of a backend under test. */
#ifndef PIPETRAIN_TESTS_OPS_FLAT_H
#define PIPETRAIN_TESTS_OPS_FLAT_H

#include "pipetrain/backend.h"

enum { OPS_FLAT = 40003 }; /* elements: several pieces of work, and one that is not full */

/* Normal numbers of that stream, or their squares, on the device. */
float *ops_flat_new(pt_backend *b, int stream, bool squared);
/* On the host; free() it. */
float *ops_flat_get(pt_backend *b, const float *dev);

#endif
