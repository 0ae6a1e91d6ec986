/* Is a checkpoint of the run that shall go on from it? */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "checkpoint_manifest.h"
#include "json_run.h"
#include "pipetrain/log.h"

enum {
    TEXT = 512,
    SHOWN = JSON_COMPACT | JSON_ENCODE_ANY | JSON_ENSURE_ASCII | JSON_REAL_PRECISION(9)
};

/* A value as a person reads it, and no terminal; free() it. */
static char *shown(const json_t *value)
{
    return value ? json_dumps(value, SHOWN) : strdup("nothing");
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
static const char *const must_fit[] = {"optimizer", "dataset", "batch",
                                       "shuffle",   "seed",    "validation"};

/* Groups of options that say nothing about what is computed, and single ones; `epochs` and `steps`
 * say where the run ends, and what follows from that is note_rates' business. */
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

/* The one plan of rates that is stretched over the whole run. */
static void note_rates(char text[TEXT], const json_t *there, const json_t *here)
{
    static const char plan[] = "cosine";
    const json_t *was = json_object_get(there, "total_steps");
    const json_t *is = json_object_get(here, "total_steps");
    const json_t *before = json_object_get(json_object_get(there, "settings"), "lr-schedule");
    const json_t *now = json_object_get(json_object_get(here, "settings"), "lr-schedule");
    size_t used = strlen(text);
    if (!was || json_equal(was, is) || !json_equal(before, now) ||
        strcmp(json_string_value(now), plan) != 0)
        return;
    snprintf(text + used, TEXT - used, "%s--lr-schedule %s over %lld steps (it was %lld)",
             used ? ", " : "", plan, (long long)json_integer_value(is),
             (long long)json_integer_value(was));
}

typedef pt_status (*compare)(void *context, const pt_option *row, const json_t *was,
                             const json_t *is, pt_error *err);

/* Of every option that differs. */
static pt_status compare_settings(const json_t *there, const pt_run *run, compare each,
                                  void *context, pt_error *err)
{
    const pt_options *options = &run->config->options;
    json_t *here = pt_json_settings(run);
    pt_status status = PT_OK;
    for (int i = 0; status == PT_OK && i < options->n_rows; i++) {
        const pt_option *row = &options->rows[i];
        const json_t *was = json_object_get(there, row->name);
        const json_t *is = json_object_get(here, row->name);
        if (is && !(was && json_equal(was, is)))
            status = each(context, row, was, is, err);
    }
    json_decref(here);
    return status;
}

static pt_status refuse_others(void *context, const pt_option *row, const json_t *was,
                               const json_t *is, pt_error *err)
{
    (void)context;
    return IS_AMONG(row->name, must_fit) ? refuse(row->name, was, is, err) : PT_OK;
}

static pt_status note_others(void *context, const pt_option *row, const json_t *was,
                             const json_t *is, pt_error *err)
{
    (void)err;
    if (!IS_AMONG(row->group, silent_groups) && !IS_AMONG(row->name, silent))
        note(context, row->name, was, is);
    return PT_OK;
}

/* ---- all of it --------------------------------------------------------------------------------
 */

static const struct {
    const char *key, *what;
} counts[] = {{"samples", "the number of samples to learn"},
              {"validation_samples", "the number of samples held out"}};

static pt_status compare_counts(const json_t *there, const json_t *here, pt_error *err)
{
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        const json_t *was = json_object_get(there, counts[i].key);
        const json_t *is = json_object_get(here, counts[i].key);
        if (!json_equal(was, is))
            return refuse(counts[i].what, was, is, err);
    }
    return PT_OK;
}

static pt_status compare_all(const json_t *there, const json_t *here, const pt_run *run,
                             pt_error *err)
{
    const json_t *settings = json_object_get(there, "settings");
    int64_t step = json_integer_value(json_object_get(there, "step"));
    char others[TEXT] = "";
    PT_TRY(
        compare_tensors(json_object_get(there, "tensors"), json_object_get(here, "tensors"), err));
    PT_TRY(compare_layers(json_object_get(there, "layers"), json_object_get(here, "layers"), err));
    PT_TRY(compare_settings(settings, run, refuse_others, NULL, err));
    PT_TRY(compare_counts(there, here, err));
    if (step > run->total_steps)
        return pt_fail(err, PT_EINPUT,
                       "it stands at step %lld, and this run ends at %lld; write more --epochs, "
                       "or more --steps",
                       (long long)step, (long long)run->total_steps);
    PT_TRY(compare_settings(settings, run, note_others, others, err));
    note_rates(others, there, here);
    if (*others)
        pt_log(PT_LOG_WARNING, "--resume %s: goes on with %s", run->settings->resume, others);
    return PT_OK;
}

pt_status pt_manifest_fits(const json_t *manifest, const pt_run *run, pt_error *err)
{
    json_t *own = pt_manifest_new(run);
    pt_status status = compare_all(manifest, own, run, err);
    json_decref(own);
    return status;
}
