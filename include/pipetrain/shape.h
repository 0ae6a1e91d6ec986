/* Shapes of one sample. The batch dimension is never part of a pt_shape: it differs from
 * micro-batch to micro-batch (the last may be short), while a layer's shape does not. */
#ifndef PIPETRAIN_SHAPE_H
#define PIPETRAIN_SHAPE_H

#include <stdbool.h>
#include <stdint.h>

enum { PT_MAX_DIMS = 4 };

/* (F) for features, (C, H, W) for images. */
typedef struct pt_shape {
    int ndim; /* 1 … PT_MAX_DIMS */
    int64_t dims[PT_MAX_DIMS];
} pt_shape;

enum { PT_SHAPE_TEXT = 64 };

/* The product of the dimensions; INT64_MAX when it is larger than that. */
int64_t pt_shape_elements(const pt_shape *shape);
bool pt_shape_equal(const pt_shape *a, const pt_shape *b);

/* Writes "(16, 28, 28)" into text[PT_SHAPE_TEXT], cut to fit, and returns text. */
const char *pt_shape_print(const pt_shape *shape, char text[PT_SHAPE_TEXT]);

#endif
