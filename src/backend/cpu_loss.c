/* Losses and dropout on plain row-major memory.
 *
 * Losses are summed in double, sample after sample: the printed loss must not depend on the number
 * of stages or threads, and a sum over 60,000 samples must not lose digits. */
#include "cpu.h"

#include <assert.h>
#include <math.h>

#include "kernels/elements.h"
#include "pipetrain/rng.h"

static int64_t first_max(const float *y, int64_t n)
{
    int64_t best = 0;
    for (int64_t i = 1; i < n; i++)
        if (y[i] > y[best])
            best = i;
    return best;
}

/* l = log sum_c exp y_c - sum_c q_c y_c, with the largest y taken out of the exponentials;
 * ∂l/∂y_c = softmax(y)_c - q_c. */
static double cross_entropy(double smoothing, int64_t classes, const float *y, int32_t label,
                            double scale, float *d_y)
{
    double max = (double)y[first_max(y, classes)], sum = 0, mean = 0;
    for (int64_t c = 0; c < classes; c++) {
        sum += exp((double)y[c] - max);
        mean += ((double)y[c] - max) / (double)classes;
    }
    if (d_y)
        for (int64_t c = 0; c < classes; c++) {
            double q = smoothing / (double)classes + (c == label ? 1 - smoothing : 0);
            d_y[c] = (float)(scale * (exp((double)y[c] - max) / sum - q));
        }
    return log(sum) - (1 - smoothing) * ((double)y[label] - max) - smoothing * mean;
}

static double mean_square(int64_t features, const float *y, const float *target, double scale,
                          float *d_y)
{
    double sum = 0;
    for (int64_t f = 0; f < features; f++) {
        double difference = (double)y[f] - (double)target[f];
        sum += difference * difference;
        if (d_y)
            d_y[f] = (float)(scale * 2 * difference / (double)features);
    }
    return sum / (double)features;
}

void pt_cpu_loss(const pt_loss *loss, const pt_loss_args *args, const float *y, float *d_y)
{
    int64_t width = pt_shape_elements(&loss->shape);
    pt_loss_result result = {0, 0};
    for (int n = 0; n < args->samples; n++) {
        const float *row = y + n * width;
        float *d_row = d_y ? d_y + n * width : NULL;
        if (loss->kind == PT_LOSS_MSE) {
            result.loss +=
                mean_square(width, row, args->dev_target + n * width, (double)args->scale, d_row);
            continue;
        }
        int32_t label = args->dev_label[n];
        assert(label >= 0 && label < width);
        result.correct += first_max(row, width) == label;
        result.loss +=
            cross_entropy(loss->smoothing, width, row, label, (double)args->scale, d_row);
    }
    *args->host_result = result;
}

/* One row of the micro-batch: x and out have `elements` elements. */
static void dropout_sample(const pt_op *op, const pt_kernel_args *args, int n, int64_t elements,
                           const float *x, float *out)
{
    const double threshold = op->p * 4294967296.0;
    const float scale = (float)(1 / (1 - op->p));
    pt_rng rng;
    pt_rng_init(&rng, args->seed, PT_RNG_DROPOUT, (uint64_t)op->layer << 32 | args->epoch,
                args->dev_sample[n]);
    for (int64_t e = 0; e < elements; e += 4) {
        uint32_t block[4];
        pt_rng_block_at(&rng, (uint32_t)(e / 4), block);
        for (int64_t i = e; i < e + 4 && i < elements; i++)
            out[i] = pt_element_dropout(block[i - e], threshold, scale, x[i]);
    }
}

void pt_cpu_dropout(const pt_op *op, int samples, const pt_kernel_args *args, const float *x,
                    float *out)
{
    int64_t elements = pt_shape_elements(&op->out);
    for (int n = 0; n < samples; n++)
        dropout_sample(op, args, n, elements, x + n * elements, out + n * elements);
}
