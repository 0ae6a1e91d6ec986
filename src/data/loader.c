/* Loader: fills a micro-batch with normalised, augmented inputs and with answers.
 *
 * An input goes straight to its place in the micro-batch and is augmented there, so that bytes,
 * floats and made-up samples share one path and no scratch memory is needed. Bytes are normalised
 * by a table of their 256 values, which is made once a call and channel. */
#include "pipetrain/loader.h"

#include <assert.h>
#include <string.h>

#include "dataset_internal.h"
#include "pipetrain/rng.h"

/* ---- normalisation -------------------------------------------------------------------------- */

/* Channels that are normalised alike count as one. n is 0 when a model asks for nothing. */
static int64_t channels_of(const pt_normalisation *normalisation, const pt_shape *shape)
{
    assert(normalisation->n <= 1 || normalisation->n == shape->dims[0]);
    (void)shape;
    return normalisation->n > 1 ? normalisation->n : 1;
}

static void coefficients(const pt_normalisation *normalisation, int64_t channel, double *ret_mean,
                         double *ret_std)
{
    *ret_mean = normalisation->n > 0 ? normalisation->mean[channel] : 0;
    *ret_std = normalisation->n > 0 ? normalisation->std[channel] : 1;
}

/* dst (n, channels, plane) = (bytes/255 - mean)/std */
static void load_bytes(const pt_dataset *dataset, const pt_normalisation *normalisation,
                       int64_t channels, const uint32_t *samples, int64_t n, float *dst)
{
    const int64_t elements = dataset->elements, plane = elements / channels;
    for (int64_t c = 0; c < channels; c++) {
        float table[256];
        double mean, std;
        coefficients(normalisation, c, &mean, &std);
        for (int value = 0; value < 256; value++)
            table[value] = (float)((value / 255.0 - mean) / std);
        for (int64_t s = 0; s < n; s++) {
            const uint8_t *src = dataset->bytes + (int64_t)samples[s] * elements + c * plane;
            float *out = dst + s * elements + c * plane;
            for (int64_t e = 0; e < plane; e++)
                out[e] = table[src[e]];
        }
    }
}

/* dst (n, channels, plane) = (floats - mean)/std */
static void load_floats(const pt_dataset *dataset, const pt_normalisation *normalisation,
                        int64_t channels, const uint32_t *samples, int64_t n, float *dst)
{
    const int64_t elements = dataset->elements, plane = elements / channels;
    for (int64_t s = 0; s < n; s++) {
        float *input = dst + s * elements;
        pt_dataset_input(dataset, samples[s], input);
        for (int64_t c = 0; c < channels; c++) {
            double mean, std;
            coefficients(normalisation, c, &mean, &std);
            for (int64_t e = c * plane; e < (c + 1) * plane; e++)
                input[e] = (float)((input[e] - mean) / std);
        }
    }
}

/* ---- augmentation --------------------------------------------------------------------------- */

/* What befalls one sample: y[h,w] = x[h + down, w + right], zero outside; then mirrored or not. */
typedef struct image_change {
    int64_t down, right;
    bool mirror;
} image_change;

static image_change draw_change(const pt_augmentation *augmentation, uint64_t seed, uint32_t epoch,
                                uint32_t sample)
{
    image_change change = {0};
    pt_rng rng;
    pt_rng_init(&rng, seed, PT_RNG_AUGMENT, epoch, sample);
    /* The mirror is drawn first, and always: it then stays the same with and without crop. */
    bool mirror = pt_rng_u32(&rng) >> 31;
    change.mirror = augmentation->flip && mirror;
    if (augmentation->crop > 0) {
        uint32_t places = 2 * (uint32_t)augmentation->crop + 1;
        change.down = (int64_t)pt_rng_below(&rng, places) - augmentation->crop;
        change.right = (int64_t)pt_rng_below(&rng, places) - augmentation->crop;
    }
    return change;
}

static void zero(float *dst, int64_t n)
{
    memset(dst, 0, (size_t)n * sizeof *dst);
}

/* row[w] = src[w + right], zero outside; src may be row itself. */
static void shift_row(float *row, const float *src, int64_t width, int64_t right)
{
    int64_t lost = right < 0 ? -right : right;
    if (lost >= width) {
        zero(row, width);
        return;
    }
    size_t bytes = (size_t)(width - lost) * sizeof *row;
    if (right >= 0) {
        memmove(row, src + right, bytes);
        zero(row + width - lost, lost);
    } else {
        memmove(row + lost, src, bytes);
        zero(row, lost);
    }
}

/* Shifts a plane (height, width) in place. Rows are taken in the order in which none is overwritten
 * before it was read. */
static void shift_plane(float *plane, int64_t height, int64_t width, int64_t down, int64_t right)
{
    for (int64_t k = 0; k < height; k++) {
        int64_t h = down >= 0 ? k : height - 1 - k;
        int64_t from = h + down;
        if (from < 0 || from >= height)
            zero(plane + h * width, width);
        else
            shift_row(plane + h * width, plane + from * width, width, right);
    }
}

static void mirror_rows(float *rows, int64_t n, int64_t width)
{
    for (int64_t r = 0; r < n; r++) {
        float *row = rows + r * width;
        for (int64_t left = 0, right = width - 1; left < right; left++, right--) {
            float value = row[left];
            row[left] = row[right];
            row[right] = value;
        }
    }
}

static void apply_change(const image_change *change, const pt_shape *shape, float *input)
{
    const int64_t channels = shape->dims[0], height = shape->dims[1], width = shape->dims[2];
    if (change->down || change->right)
        for (int64_t c = 0; c < channels; c++)
            shift_plane(input + c * height * width, height, width, change->down, change->right);
    if (change->mirror)
        mirror_rows(input, channels * height, width);
}

/* ---- micro-batches -------------------------------------------------------------------------- */

void pt_load_inputs(const pt_dataset *dataset, const pt_shape *shape,
                    const pt_normalisation *normalisation, const pt_augmentation *augmentation,
                    uint64_t seed, uint32_t epoch, const uint32_t *samples, int64_t n, float *dst)
{
    assert(pt_shape_elements(shape) == dataset->elements);
    const int64_t channels = channels_of(normalisation, shape);
    if (dataset->bytes)
        load_bytes(dataset, normalisation, channels, samples, n, dst);
    else
        load_floats(dataset, normalisation, channels, samples, n, dst);
    if (!augmentation || (augmentation->crop <= 0 && !augmentation->flip))
        return;
    assert(shape->ndim == 3);
    for (int64_t s = 0; s < n; s++) {
        image_change change = draw_change(augmentation, seed, epoch, samples[s]);
        apply_change(&change, shape, dst + s * dataset->elements);
    }
}

void pt_load_labels(const pt_dataset *dataset, const uint32_t *samples, int64_t n, int32_t *dst)
{
    for (int64_t s = 0; s < n; s++)
        dst[s] = pt_dataset_label(dataset, samples[s]);
}

void pt_load_targets(const pt_dataset *dataset, int64_t outputs, const uint32_t *samples, int64_t n,
                     float *dst)
{
    assert(outputs == dataset->outputs);
    for (int64_t s = 0; s < n; s++)
        memcpy(dst + s * outputs, pt_dataset_target(dataset, samples[s]),
               (size_t)outputs * sizeof *dst);
}
