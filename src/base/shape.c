/* Shapes of one sample: size, equality and the way they are printed. */
#include "pipetrain/shape.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

int64_t pt_shape_elements(const pt_shape *shape)
{
    int64_t elements = 1;
    for (int i = 0; i < shape->ndim; i++)
        if (__builtin_mul_overflow(elements, shape->dims[i], &elements))
            return INT64_MAX;
    return elements;
}

bool pt_shape_equal(const pt_shape *a, const pt_shape *b)
{
    if (a->ndim != b->ndim)
        return false;
    for (int i = 0; i < a->ndim; i++)
        if (a->dims[i] != b->dims[i])
            return false;
    return true;
}

const char *pt_shape_print(const pt_shape *shape, char text[PT_SHAPE_TEXT])
{
    /* Four dimensions of 20 characters and their punctuation: 90 bytes; cut to PT_SHAPE_TEXT. */
    char whole[PT_MAX_DIMS * 22 + 8] = "(";
    size_t length = 1;
    for (int i = 0; i < shape->ndim && i < PT_MAX_DIMS; i++)
        length += (size_t)snprintf(whole + length, sizeof whole - length, "%s%" PRId64,
                                   i ? ", " : "", shape->dims[i]);
    snprintf(whole + length, sizeof whole - length, ")");
    size_t shown = strnlen(whole, PT_SHAPE_TEXT - 1);
    memcpy(text, whole, shown);
    text[shown] = 0;
    return text;
}
