/* Is a checkpoint of the run that shall go on from it? */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "checkpoint_manifest.h"
#include "json_run.h"
#include "pipetrain/log.h"

enum { TEXT = 512 };

/* A value as a person reads it; free() it. */
static char *shown(const json_t *value)
{
    return value ? json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY | JSON_REAL_PRECISION(9))
                 : strdup("nothing");
}

static pt_status refuse(const char *what, const json_t *there, const json_t *here, pt_error *err)
{
    char *was = shown(there), *is = shown(here);
    pt_status status = pt_fail(err, PT_EINPUT,
                               "it is of another run: %s is %s there and %s here; go on with the "
                               "same, or take the weights alone, by --init",
                               what, was ? was : "?", is ? is : "?");
    free(was);
    free(is);
    return status;
}

/* ---- the model --------------------------------------------------------------------------------
 */

static pt_status compare_tensors(const json_t *there, const json_t *here, pt_error *err)
{
    const char *name;
    json_t *shape;
    json_object_foreach ((json_t *)here, name, shape)
        if (!json_equal(json_object_get(there, name), shape))
            return refuse(name, json_object_get(there, name), shape, err);
    json_object_foreach ((json_t *)there, name, shape)
        if (!json_object_get(here, name))
            return refuse(name, shape, NULL, err);
    return PT_OK;
}

static pt_status compare_layers(const json_t *there, const json_t *here, pt_error *err)
{
    size_t n = json_array_size(there), m = json_array_size(here);
    for (size_t i = 0; i < n || i < m; i++) {
        char what[64];
        snprintf(what, sizeof what, "layer %zu", i);
        if (!json_equal(json_array_get(there, i), json_array_get(here, i)))
            return refuse(what, json_array_get(there, i), json_array_get(here, i), err);
    }
    return PT_OK;
}

/* ---- settings ---------------------------------------------------------------------------------
 */

/* With another one of these the position would be another, or the optimizer's state mean nothing.
 */
static const char *const must_fit[] = {"optimizer", "dataset", "batch", "shuffle", "seed"};

/* Groups of options that say nothing about what is computed, and single ones; `epochs` and `steps`
 * say where the run ends. */
static const char *const silent_groups[] = {"What to do", "Output", "Debugging"};
static const char *const silent[] = {"data",    "epochs", "steps", "eval-every",
                                     "threads", "p2p",    "clock"};

static bool is_among(const char *word, const char *const *words, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(word, words[i]) == 0)
            return true;
    return false;
}

#define IS_AMONG(word, words) is_among(word, words, sizeof(words) / sizeof *(words))

static void note(char text[TEXT], const char *name, const json_t *there, const json_t *here)
{
    size_t used = strlen(text);
    char *was = shown(there), *is = shown(here);
    snprintf(text + used, TEXT - used, "%s--%s %s (it was %s)", used ? ", " : "", name,
             is ? is : "?", was ? was : "?");
    free(was);
    free(is);
}

static pt_status compare_settings(const json_t *there, const pt_run *run, pt_error *err)
{
    const pt_options *options = &run->config->options;
    char others[TEXT] = "";
    json_t *here = pt_json_settings(run);
    pt_status status = PT_OK;
    for (int i = 0; status == PT_OK && i < options->n_rows; i++) {
        const char *name = options->rows[i].name;
        const json_t *was = json_object_get(there, name), *is = json_object_get(here, name);
        if (!is || (was && json_equal(was, is)))
            continue;
        if (IS_AMONG(name, must_fit))
            status = refuse(name, was, is, err);
        else if (!IS_AMONG(options->rows[i].group, silent_groups) && !IS_AMONG(name, silent))
            note(others, name, was, is);
    }
    json_decref(here);
    if (status == PT_OK && *others)
        pt_log(PT_LOG_WARNING, "--resume %s: goes on with %s", run->settings->resume, others);
    return status;
}

pt_status pt_manifest_fits(const json_t *manifest, const pt_run *run, pt_error *err)
{
    json_t *own = pt_manifest_new(run);
    const json_t *samples = json_object_get(manifest, "samples");
    int64_t step = json_integer_value(json_object_get(manifest, "step"));
    pt_status status =
        compare_tensors(json_object_get(manifest, "tensors"), json_object_get(own, "tensors"), err);
    if (status == PT_OK)
        status = compare_layers(json_object_get(manifest, "layers"), json_object_get(own, "layers"),
                                err);
    if (status == PT_OK && !json_equal(samples, json_object_get(own, "samples")))
        status =
            refuse("the number of samples to learn", samples, json_object_get(own, "samples"), err);
    if (status == PT_OK)
        status = compare_settings(json_object_get(manifest, "settings"), run, err);
    if (status == PT_OK && step > run->total_steps)
        status = pt_fail(err, PT_EINPUT,
                         "it stands at step %lld, and this run ends at %lld; write more --epochs, "
                         "or more --steps",
                         (long long)step, (long long)run->total_steps);
    json_decref(own);
    return status;
}
