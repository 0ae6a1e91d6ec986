/* A seeded data set that is made on demand: nothing is read and no input is stored.
 *
 * Each class has a smooth pattern: random numbers on a coarse grid (one for each channel),
 * interpolated linearly in between. A sample is the pattern of its class plus noise of its own, so
 * that a linear model learns it and a picture of it looks like blurred patches. Patterns depend on
 * (seed, class) only: training and test set show the same classes. A sample is a pure function of
 * (seed, split, index), whatever the number of samples is.
 *
 * Values lie around 1/2, most of them in 0 … 1, as the normalisations of image models expect.
 *
 * Speed matters, as this set feeds benchmarks. The noise is therefore not Gaussian but triangular,
 * the sum of two random bytes: eight values from one block of random numbers. */
#include <inttypes.h>
#include <stdlib.h>

#include "dataset_internal.h"
#include "pipetrain/rng.h"

enum {
    DEFAULT_SAMPLES = 4096,
    TARGET_CLASSES = 16,  /* distinct targets when answers are vectors */
    GRID_IMAGE = 4,       /* grid points along the height and the width of an image … */
    GRID_LINE = 16,       /* … and along a vector of features */
    NOISES_PER_BLOCK = 8, /* two bytes each of the 16 of a block */
    /* Streams of the domain PT_RNG_SYNTHETIC beside those of the samples (0 and 1, the split). */
    STREAM_PATTERN = 2,
    STREAM_TARGET = 3,
    STREAM_LABEL = 4 /* + split */
};

static const float CENTRE = 0.5F, PATTERN_DEVIATION = 0.25F;
/* Half the pattern's deviation: classes overlap in a single pixel but not in a whole image. */
static const float NOISE_DEVIATION = 0.125F;
/* Deviation of the sum of two uniform bytes: sqrt(2 (256^2 - 1)/12). */
static const float TWO_BYTES_DEVIATION = 104.5108F;

struct pt_synthetic {
    uint64_t seed, split;
    int64_t classes, outputs;
    int64_t channels, height, width;
    int grid_height, grid_width;
    float *grid;    /* (classes, channels, grid_height, grid_width) */
    float *targets; /* (classes, outputs), or NULL */
};

void pt_synthetic_free(pt_synthetic *synthetic)
{
    if (!synthetic)
        return;
    free(synthetic->grid);
    free(synthetic->targets);
    free(synthetic);
}

/* Reads any shape as channels of pictures; a vector is one picture of one row. */
static void set_shape(pt_synthetic *s, const pt_shape *shape)
{
    int n = shape->ndim;
    s->width = shape->dims[n - 1];
    s->height = n > 1 ? shape->dims[n - 2] : 1;
    s->channels = 1;
    for (int d = 0; d < n - 2; d++)
        s->channels *= shape->dims[d];
    int64_t most = n > 1 ? GRID_IMAGE : GRID_LINE;
    s->grid_width = (int)(s->width < most ? s->width : most);
    s->grid_height = (int)(s->height < most ? s->height : most);
}

/* rows x columns normal numbers; row r is drawn from its own stream. NULL when memory ran out. */
static float *draw_table(uint64_t seed, uint64_t stream, int64_t rows, int64_t columns)
{
    float *table = calloc((size_t)rows, (size_t)columns * sizeof *table);
    if (!table)
        return NULL;
    for (int64_t r = 0; r < rows; r++) {
        pt_rng rng;
        pt_rng_init(&rng, seed, PT_RNG_SYNTHETIC, stream, (uint64_t)r);
        for (int64_t c = 0; c < columns; c++)
            table[r * columns + c] = pt_rng_normal(&rng);
    }
    return table;
}

/* Deals labels in rounds: every `classes` samples in a row hold each class once, in an order drawn
 * for that round, so that the classes are balanced at any length. */
static void deal_labels(const pt_synthetic *s, int64_t count, int32_t *deck, int32_t *labels)
{
    for (int64_t first = 0; first < count; first += s->classes) {
        pt_rng rng;
        pt_rng_init(&rng, s->seed, PT_RNG_SYNTHETIC, STREAM_LABEL + s->split,
                    (uint64_t)(first / s->classes));
        for (int64_t c = 0; c < s->classes; c++)
            deck[c] = (int32_t)c;
        for (int64_t c = 0; c < s->classes && first + c < count; c++) {
            int64_t pick = c + pt_rng_below(&rng, (uint32_t)(s->classes - c));
            int32_t label = deck[pick];
            deck[pick] = deck[c];
            labels[first + c] = label;
        }
    }
}

static pt_status make_labels(const pt_synthetic *s, pt_dataset *dataset, pt_error *err)
{
    int32_t *deck = malloc((size_t)s->classes * sizeof *deck);
    dataset->labels = malloc((size_t)dataset->count * sizeof *dataset->labels);
    pt_status status = PT_OK;
    if (deck && dataset->labels)
        deal_labels(s, dataset->count, deck, dataset->labels);
    else
        status =
            pt_fail(err, PT_ENOMEM, "synthetic: no memory for %" PRId64 " labels", dataset->count);
    free(deck);
    return status;
}

pt_status pt_synthetic_open(const pt_dataset_spec *spec, const pt_dataset_row *row,
                            const char *path, pt_dataset *dataset, pt_error *err)
{
    (void)path;
    int64_t samples = spec->samples ? spec->samples : DEFAULT_SAMPLES;
    PT_TRY(pt_dataset_set_count(dataset, spec, row->name, samples, err));
    if (spec->outputs > INT32_MAX)
        return pt_fail(err, PT_EINPUT, "%s: %" PRId64 " outputs are too many", row->name,
                       spec->outputs);
    if (!spec->want_inputs && !spec->want_answers)
        return PT_OK;
    pt_synthetic *s = calloc(1, sizeof *s);
    if (!s)
        return pt_fail(err, PT_ENOMEM, "%s: no memory", row->name);
    dataset->synthetic = s;
    s->seed = spec->seed;
    s->split = spec->split == PT_SPLIT_TRAIN ? 0 : 1;
    s->classes = spec->targets ? TARGET_CLASSES : spec->outputs;
    s->outputs = spec->outputs;
    set_shape(s, &spec->shape);
    s->grid = draw_table(s->seed, STREAM_PATTERN, s->classes,
                         s->channels * s->grid_height * s->grid_width);
    if (spec->targets)
        s->targets = draw_table(s->seed, STREAM_TARGET, s->classes, s->outputs);
    if (!s->grid || (spec->targets && !s->targets))
        return pt_fail(err, PT_ENOMEM, "%s: no memory for %" PRId64 " patterns", row->name,
                       s->classes);
    return make_labels(s, dataset, err);
}

/* ---- making one sample ---------------------------------------------------------------------- */

/* dst[elements] = CENTRE + noise */
static void write_noise(const pt_synthetic *s, int64_t i, int64_t elements, float *dst)
{
    const float scale = NOISE_DEVIATION / TWO_BYTES_DEVIATION;
    const float offset = CENTRE - 255.0F * scale; /* two bytes add up to 255 on average */
    pt_rng rng;
    pt_rng_init(&rng, s->seed, PT_RNG_SYNTHETIC, s->split, (uint64_t)i);
    for (int64_t e = 0; e < elements; e += NOISES_PER_BLOCK) {
        uint32_t block[4];
        float noise[NOISES_PER_BLOCK];
        pt_rng_block_at(&rng, (uint32_t)(e / NOISES_PER_BLOCK), block);
        for (int k = 0; k < NOISES_PER_BLOCK; k++) {
            uint32_t two = block[k / 2] >> (k % 2 * 16);
            noise[k] = offset + scale * (float)((two & 255) + (two >> 8 & 255));
        }
        int64_t n = elements - e < NOISES_PER_BLOCK ? elements - e : NOISES_PER_BLOCK;
        for (int64_t k = 0; k < n; k++)
            dst[e + k] += noise[k];
    }
}

/* dst[width] = line[columns] stretched: its ends fall on the ends of dst, and between two of its
 * points the way is straight. */
static void stretch(const float *line, int columns, int64_t width, float *dst)
{
    if (columns == 1) {
        for (int64_t w = 0; w < width; w++)
            dst[w] = line[0];
        return;
    }
    const int64_t steps = columns - 1;
    const float scale = (float)steps / (float)(width - 1); /* grid points a pixel */
    int64_t w = 0;
    for (int64_t c = 0; c < steps; c++) {
        const float slope = line[c + 1] - line[c];
        const int64_t end = (c + 1) * (width - 1) / steps + 1; /* of the pixels up to point c + 1 */
        for (; w < end; w++)
            dst[w] = line[c] + ((float)w * scale - (float)c) * slope;
    }
}

/* dst[height, width] = the pattern on grid[grid_height, grid_width] */
static void write_pattern(const pt_synthetic *s, const float *grid, float *dst)
{
    const int columns = s->grid_width, last = s->grid_height - 1;
    for (int64_t h = 0; h < s->height; h++) {
        float line[GRID_LINE]; /* the grid at the height of this row */
        float down = s->height > 1 ? (float)h * (float)last / (float)(s->height - 1) : 0;
        int top = (int)down < last ? (int)down : last;
        const float *above = grid + top * columns;
        const float *below = top < last ? above + columns : above;
        for (int c = 0; c < columns; c++)
            line[c] = PATTERN_DEVIATION * (above[c] + (down - (float)top) * (below[c] - above[c]));
        stretch(line, columns, s->width, dst + h * s->width);
    }
}

void pt_synthetic_input(const pt_synthetic *s, int64_t i, int32_t label, float *dst)
{
    const int64_t plane = s->height * s->width;
    const int64_t grid = s->grid_height * s->grid_width;
    for (int64_t c = 0; c < s->channels; c++)
        write_pattern(s, s->grid + (label * s->channels + c) * grid, dst + c * plane);
    write_noise(s, i, s->channels * plane, dst);
}

const float *pt_synthetic_target(const pt_synthetic *s, int32_t label)
{
    return s->targets + label * s->outputs;
}
