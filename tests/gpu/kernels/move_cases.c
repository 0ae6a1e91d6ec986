/* kernels/move.cu: whatever moves keeps its bits. */
#include <math.h>

#include "cases.h"
#include "kernels/bf16.h"
#include "rig.h"
#include "suite.h"

static void transpose(int64_t n, int64_t rows, int64_t columns, pt_cu_type from, pt_cu_type to,
                      bool accumulate)
{
    const int64_t all = n * rows * columns;
    vals x = rig_normal(from, all);
    vals y = accumulate ? rig_normal(to, all) : rig_empty(to, all);
    vals expected = rig_same(&y);
    for (int64_t i = 0; i < n; i++)
        for (int64_t r = 0; r < rows; r++)
            for (int64_t c = 0; c < columns; c++) {
                float *at = &expected.host[(i * columns + c) * rows + r];
                const float value = x.host[(i * rows + r) * columns + c];
                *at = rig_round(to, accumulate ? *at + value : value);
            }
    launch(pt_cu_transpose(NULL, n, rows, columns, from, x.dev, to, y.dev, accumulate));
    rig_assert_same("transpose", &y, expected.host);
}

void move_transposes(void **state)
{
    (void)state;
    /* Both sides short, one short, one at the edge of short, both long; whole tiles and parts. */
    static const int64_t shapes[][3] = {{2, 3, 35},   {3, 35, 3},  {2, 16, 100}, {2, 100, 16},
                                        {1, 70, 65},  {2, 64, 64}, {5, 1, 7},    {3, 7, 1},
                                        {2, 17, 130}, {1, 9, 520}, {4, 5, 5},    {0, 4, 4}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (int kind = 0; kind < 8; kind++) {
            const int64_t *s = shapes[i];
            rig_shift = kind % 3 == 1;
            transpose(s[0], s[1], s[2], (pt_cu_type)(kind & 1), (pt_cu_type)(kind >> 1 & 1),
                      kind >> 2);
        }
}

void move_converts(void **state)
{
    (void)state;
    static const int64_t sizes[] = {0, 1, 7, 8, 9, 2051, 8200};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (int kind = 0; kind < 16; kind++) {
            const pt_cu_type from = (pt_cu_type)(kind & 1), to = (pt_cu_type)(kind >> 1 & 1);
            const bool accumulate = kind >> 2 & 1;
            rig_shift = kind >> 3;
            vals x = rig_normal(from, sizes[i]);
            vals y = accumulate ? rig_normal(to, sizes[i]) : rig_empty(to, sizes[i]);
            vals expected = rig_same(&y);
            for (int64_t k = 0; k < x.n; k++)
                expected.host[k] = rig_round(to, accumulate ? y.host[k] + x.host[k] : x.host[k]);
            launch(pt_cu_convert(NULL, x.n, from, x.dev, to, y.dev, accumulate));
            rig_assert_same("convert", &y, expected.host);
        }
}

/* Known answers: ties go to even, the largest values to infinity, subnormal numbers stay. */
void move_rounds_to_bf16(void **state)
{
    (void)state;
    static const struct {
        uint32_t from;
        uint16_t to;
    } rows[] = {{0x3f800000, 0x3f80}, {0x3f808000, 0x3f80}, {0x3f808001, 0x3f81},
                {0x3f818000, 0x3f82}, {0xbf818000, 0xbf82}, {0x7f7fffff, 0x7f80},
                {0x7f800000, 0x7f80}, {0xff800000, 0xff80}, {0x00000000, 0x0000},
                {0x80000000, 0x8000}, {0x00018000, 0x0002}, {0x00008000, 0x0000},
                {0x7fc00001, 0x7fff}, {0xff800001, 0x7fff}};
    enum { ROWS = sizeof rows / sizeof *rows };
    uint32_t from[ROWS];
    uint16_t to[ROWS];
    for (int i = 0; i < ROWS; i++)
        from[i] = rows[i].from;
    for (int shift = 0; shift < 2; shift++) { /* one at a time, and in pairs */
        const float *x = rig_bytes(sizeof from, from);
        char *y = rig_bytes(sizeof to + 2, NULL);
        launch(pt_cu_convert(NULL, ROWS, PT_CU_FP32, x, PT_CU_BF16, y + 2 * shift, false));
        rig_fetch_bytes(to, y + 2 * shift, sizeof to);
        for (int i = 0; i < ROWS; i++)
            assert_int_equal(to[i], rows[i].to);
    }
}

static void copy(pt_cu_type type, const int64_t c[6])
{
    const int64_t rows = c[0], channels = c[1], from = c[2], from_first = c[3], to = c[4];
    const int64_t to_first = c[5];
    vals x = rig_normal(type, rows * from), y = rig_normal(type, rows * to);
    vals expected = rig_same(&y);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t j = 0; j < channels; j++)
            expected.host[r * to + to_first + j] = x.host[r * from + from_first + j];
    launch(pt_cu_copy_channels(NULL, type, rows, channels, x.dev, from, from_first, y.dev, to,
                               to_first));
    rig_assert_same("copied channels", &y, expected.host);
}

static void copies(pt_cu_type type)
{
    static const int64_t cases[][6] = {
        {5, 3, 3, 0, 8, 5},   {7, 16, 16, 0, 48, 32}, {300, 8, 24, 16, 8, 0},
        {9, 4, 12, 4, 20, 8}, {33, 6, 10, 2, 14, 4},  {1, 1, 1, 0, 1, 0},
        {0, 4, 4, 0, 4, 0},   {4, 0, 4, 0, 4, 0},     {70, 64, 192, 64, 64, 0}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        copy(type, cases[i]);
}

void move_copies_channels(void **state)
{
    (void)state;
    rig_each_type(copies);
    vals x = rig_normal(PT_CU_FP32, 8);
    assert_int_equal(pt_cu_copy_channels(NULL, PT_CU_FP32, 2, 3, x.dev, 4, 2, x.dev, 4, 0),
                     cudaErrorInvalidValue);
}
