/* Sizes are small, odd where that is allowed, and never all equal, so that a swapped pair of
 * indices shows. "ragged" stands for the short last micro-batch of a data set. */
#include "ops_cases.h"

#define IMAGE(c, h, w)                                                                             \
    {                                                                                              \
        3,                                                                                         \
        {                                                                                          \
            c, h, w                                                                                \
        }                                                                                          \
    }
#define FLAT(f)                                                                                    \
    {                                                                                              \
        1,                                                                                         \
        {                                                                                          \
            f                                                                                      \
        }                                                                                          \
    }

/* clang-format off */
#define CONV(name_, n, c, h, w, o, kh, kw, sh, sw, ph, pw, g, bias_)                               \
    {name_, n, {.kind = PT_OP_CONV2D, .n_inputs = 1, .in = {IMAGE(c, h, w)}, .features = o,        \
                .kernel = {kh, kw}, .stride = {sh, sw}, .padding = {ph, pw}, .groups = g,          \
                .bias = bias_}}
#define LINEAR(name_, n, i, o, bias_)                                                              \
    {name_, n, {.kind = PT_OP_LINEAR, .n_inputs = 1, .in = {FLAT(i)}, .features = o,               \
                .bias = bias_}}
#define NORM(name_, n, shape, momentum_)                                                           \
    {name_, n, {.kind = PT_OP_BATCH_NORM, .n_inputs = 1, .in = {shape}, .eps = 1e-5,               \
                .momentum = momentum_}}
#define SIMPLE(name_, n, kind_, shape) {name_, n, {.kind = kind_, .n_inputs = 1, .in = {shape}}}
#define POOL(name_, n, kind_, c, h, w, kh, kw, sh, sw, ph, pw)                                     \
    {name_, n, {.kind = kind_, .n_inputs = 1, .in = {IMAGE(c, h, w)}, .kernel = {kh, kw},          \
                .stride = {sh, sw}, .padding = {ph, pw}}}
#define TWO(name_, n, kind_, a, b) {name_, n, {.kind = kind_, .n_inputs = 2, .in = {a, b}}}
#define THREE(name_, n, kind_, a, b, c)                                                            \
    {name_, n, {.kind = kind_, .n_inputs = 3, .in = {a, b, c}}}
#define DROPOUT(name_, n, shape, p_)                                                               \
    {name_, n, {.kind = PT_OP_DROPOUT, .n_inputs = 1, .in = {shape}, .layer = 5, .p = p_}}

const ops_case ops_cases[] = {
    /*                          n   c  h  w   o  kh kw sh sw ph pw g  bias */
    CONV("conv 3x3",            4,  3, 8, 9,  5, 3, 3, 1, 1, 1, 1, 1, true),
    CONV("conv 3x3 blocked",    3, 16, 7, 7, 32, 3, 3, 1, 1, 1, 1, 1, true),
    CONV("conv odd channels",   3, 17, 5, 6, 19, 3, 3, 1, 1, 1, 1, 1, true),
    CONV("conv no padding",     4,  1, 9, 7,  6, 5, 5, 1, 1, 0, 0, 1, true),
    CONV("conv stride 2",       3,  4, 9, 8,  6, 3, 3, 2, 2, 1, 1, 1, true),
    CONV("conv rows left over", 2,  3, 8, 8,  4, 3, 3, 2, 2, 0, 0, 1, true),
    CONV("conv stride 3x1",     2,  3, 10, 5, 4, 3, 2, 3, 1, 0, 1, 1, true),
    CONV("conv kernel 3x1",     3,  4, 6, 7,  5, 3, 1, 1, 1, 1, 0, 1, true),
    CONV("conv kernel 1x5",     2,  3, 4, 9,  2, 1, 5, 1, 2, 0, 2, 1, true),
    CONV("conv 1x1",            5,  8, 5, 3, 16, 1, 1, 1, 1, 0, 0, 1, true),
    CONV("conv 1x1 stride 2",   3,  8, 7, 5, 12, 1, 1, 2, 2, 0, 0, 1, false),
    CONV("conv groups 2",       3,  6, 6, 5,  4, 3, 3, 1, 1, 1, 1, 2, true),
    CONV("conv groups 4 of 32", 2, 32, 5, 5, 32, 3, 3, 1, 1, 1, 1, 4, false),
    CONV("conv depthwise",      3, 16, 6, 7, 16, 3, 3, 1, 1, 1, 1, 16, true),
    CONV("conv depthwise odd",  2,  5, 7, 6, 10, 3, 3, 2, 2, 1, 1, 5, false),
    CONV("conv no bias",        4, 16, 6, 6, 16, 3, 3, 1, 1, 1, 1, 1, false),
    CONV("conv batch 1",        1,  3, 7, 7,  8, 3, 3, 1, 1, 1, 1, 1, true),
    CONV("conv ragged",        13,  6, 6, 6, 16, 5, 5, 1, 1, 0, 0, 1, true),
    CONV("conv whole image",    3,  4, 5, 4,  7, 5, 4, 1, 1, 0, 0, 1, true),

    LINEAR("linear",            4, 10, 7, true),
    LINEAR("linear wide",       6, 120, 84, true),
    LINEAR("linear no bias",    5, 33, 10, false),
    LINEAR("linear batch 1",    1, 20, 9, true),
    LINEAR("linear ragged",    13, 17, 3, true),
    LINEAR("linear to one",     3, 8, 1, true),

    NORM("norm image",          4, IMAGE(3, 5, 4), 0.1),
    NORM("norm blocked",        3, IMAGE(16, 4, 5), 0.1),
    NORM("norm odd channels",   3, IMAGE(19, 3, 3), 0.3),
    NORM("norm batch 1 image",  1, IMAGE(4, 5, 5), 0.1),
    NORM("norm features",       9, FLAT(6), 0.1),
    NORM("norm many features",  7, FLAT(33), 0.0),
    NORM("norm one value",      1, FLAT(5), 0.1),
    NORM("norm ragged",        13, IMAGE(5, 2, 3), 1.0),

    SIMPLE("relu image",        3, PT_OP_RELU, IMAGE(5, 4, 3)),
    SIMPLE("relu blocked",      2, PT_OP_RELU, IMAGE(16, 3, 5)),
    SIMPLE("relu features",     4, PT_OP_RELU, FLAT(11)),
    SIMPLE("relu batch 1",      1, PT_OP_RELU, FLAT(3)),
    SIMPLE("gelu image",        3, PT_OP_GELU, IMAGE(5, 4, 3)),
    SIMPLE("gelu blocked",      2, PT_OP_GELU, IMAGE(16, 3, 5)),
    SIMPLE("gelu features",     4, PT_OP_GELU, FLAT(11)),

    /*                                               c   h  w  kh kw sh sw ph pw */
    POOL("max 2x2",             3, PT_OP_MAX_POOL,   6,  8, 6, 2, 2, 2, 2, 0, 0),
    POOL("max blocked",         2, PT_OP_MAX_POOL,  16,  6, 6, 2, 2, 2, 2, 0, 0),
    POOL("max overlapping",     3, PT_OP_MAX_POOL,   3,  7, 8, 3, 3, 2, 2, 0, 0),
    POOL("max dense",           2, PT_OP_MAX_POOL,   2,  5, 6, 3, 2, 1, 1, 0, 0),
    POOL("max padding",         3, PT_OP_MAX_POOL,   4,  7, 5, 3, 3, 2, 2, 1, 1),
    POOL("max rows left over",  2, PT_OP_MAX_POOL,   3,  7, 9, 2, 2, 2, 2, 0, 0),
    POOL("max batch 1",         1, PT_OP_MAX_POOL,   5,  4, 7, 2, 3, 2, 3, 0, 1),
    POOL("avg 2x2",             3, PT_OP_AVG_POOL,   6,  8, 6, 2, 2, 2, 2, 0, 0),
    POOL("avg blocked",         2, PT_OP_AVG_POOL,  16,  6, 6, 2, 2, 2, 2, 0, 0),
    POOL("avg overlapping",     3, PT_OP_AVG_POOL,   3,  7, 8, 3, 3, 2, 2, 0, 0),
    POOL("avg padding",         3, PT_OP_AVG_POOL,   4,  7, 5, 3, 3, 2, 2, 1, 1),
    POOL("avg rows left over",  2, PT_OP_AVG_POOL,   3,  7, 9, 2, 3, 3, 2, 0, 1),
    POOL("avg stride beyond",   2, PT_OP_AVG_POOL,   3,  9, 8, 2, 2, 3, 3, 0, 0),
    SIMPLE("global avg",        3, PT_OP_GLOBAL_AVG_POOL, IMAGE(5, 4, 7)),
    SIMPLE("global avg blocked", 2, PT_OP_GLOBAL_AVG_POOL, IMAGE(32, 3, 3)),
    SIMPLE("global avg batch 1", 1, PT_OP_GLOBAL_AVG_POOL, IMAGE(6, 1, 5)),

    SIMPLE("flatten image",     3, PT_OP_FLATTEN, IMAGE(5, 4, 3)),
    SIMPLE("flatten blocked",   2, PT_OP_FLATTEN, IMAGE(16, 4, 4)),
    SIMPLE("flatten 1x1",       4, PT_OP_FLATTEN, IMAGE(16, 1, 1)),
    SIMPLE("flatten features",  2, PT_OP_FLATTEN, FLAT(7)),

    TWO("add 2 images",         3, PT_OP_ADD, IMAGE(5, 4, 3), IMAGE(5, 4, 3)),
    TWO("add 2 blocked",        2, PT_OP_ADD, IMAGE(16, 4, 3), IMAGE(16, 4, 3)),
    THREE("add 3 features",     4, PT_OP_ADD, FLAT(9), FLAT(9), FLAT(9)),
    THREE("add 3 batch 1",      1, PT_OP_ADD, IMAGE(3, 2, 5), IMAGE(3, 2, 5), IMAGE(3, 2, 5)),
    TWO("concat 2 images",      3, PT_OP_CONCAT, IMAGE(3, 4, 5), IMAGE(2, 4, 5)),
    TWO("concat 2 blocked",     2, PT_OP_CONCAT, IMAGE(16, 3, 4), IMAGE(32, 3, 4)),
    TWO("concat mixed",         2, PT_OP_CONCAT, IMAGE(16, 3, 4), IMAGE(3, 3, 4)),
    THREE("concat 3 features",  4, PT_OP_CONCAT, FLAT(3), FLAT(1), FLAT(6)),
    THREE("concat 3 batch 1",   1, PT_OP_CONCAT, IMAGE(1, 2, 3), IMAGE(4, 2, 3), IMAGE(2, 2, 3)),

    DROPOUT("dropout image",    3, IMAGE(5, 4, 3), 0.5),
    DROPOUT("dropout blocked",  2, IMAGE(16, 3, 3), 0.3),
    DROPOUT("dropout features", 4, FLAT(13), 0.9),
    DROPOUT("dropout nothing",  2, FLAT(6), 0.0),
};
/* clang-format on */

const int ops_n_cases = sizeof ops_cases / sizeof ops_cases[0];
