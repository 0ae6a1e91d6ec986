/* What all datasets promise, whatever they are read from. */
#include <math.h>
#include <stdlib.h>

#include "fuzz.h"

static void read_answer(const pt_dataset *dataset, const pt_dataset_spec *spec, int64_t i)
{
    for (int64_t k = 0; spec->targets && k < spec->outputs; k++)
        FUZZ_PROMISE(isfinite(pt_dataset_target(dataset, i)[k]));
    if (spec->targets)
        return;
    int32_t label = pt_dataset_label(dataset, i);
    FUZZ_PROMISE(label >= 0 && label < spec->outputs);
}

static void read_input(const pt_dataset *dataset, const pt_dataset_spec *spec, int64_t i,
                       float *input)
{
    int64_t n = pt_shape_elements(&spec->shape);
    pt_dataset_input(dataset, i, input);
    if (pt_dataset_is_bytes(dataset))
        FUZZ_PROMISE(input[n - 1] >= 0 && input[n - 1] <= 255);
    else
        for (int64_t e = 0; e < n; e++)
            FUZZ_PROMISE(isfinite(input[e]));
}

static void read_samples(const pt_dataset *dataset, const pt_dataset_spec *spec)
{
    int64_t n = pt_dataset_count(dataset);
    float *input = malloc((size_t)pt_shape_elements(&spec->shape) * sizeof *input);
    FUZZ_PROMISE(input);
    for (int64_t i = 0; spec->want_inputs && i < n; i++)
        read_input(dataset, spec, i, input);
    for (int64_t i = 0; spec->want_answers && i < n; i++)
        read_answer(dataset, spec, i);
    free(input);
}

/* The number of samples; -1: refused. */
static int64_t count_of(pt_dataset_spec spec, bool inputs, bool answers, int64_t samples)
{
    pt_dataset *dataset = NULL;
    pt_error err = {0};
    spec.want_inputs = inputs;
    spec.want_answers = answers;
    spec.samples = samples;
    if (!fuzz_accepts(pt_dataset_open(&spec, &dataset, &err), &err, "")) {
        FUZZ_PROMISE(!dataset);
        return -1;
    }
    int64_t count = pt_dataset_count(dataset);
    FUZZ_PROMISE(count >= 1);
    read_samples(dataset, &spec);
    pt_dataset_close(dataset);
    return count;
}

bool fuzz_dataset(pt_dataset_spec spec)
{
    int64_t both = count_of(spec, true, true, 0), none = count_of(spec, false, false, 0);
    FUZZ_PROMISE(both == none || both == -1);
    if (none == -1)
        return false;
    /* Headers are judged by all ranks alike, data by those that read it. */
    int64_t inputs = count_of(spec, true, false, 0), answers = count_of(spec, false, true, 0);
    FUZZ_PROMISE(inputs == none || inputs == -1);
    FUZZ_PROMISE(answers == none || answers == -1);
    FUZZ_PROMISE(both == (inputs == -1 || answers == -1 ? -1 : none));
    int64_t first = count_of(spec, true, true, 1);
    FUZZ_PROMISE(both == -1 || first == 1);
    return both != -1;
}
