/* The manifest as JSON: made, sealed, opened. Whether a run fits one is checkpoint_fits.c's
 * business.
 */
#include "checkpoint_manifest.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "checkpoint_store.h"
#include "json_run.h"

enum { FORMAT = 1, DIGITS = 17 /* that a double needs to come back as it was */ };

static const char CHECKSUM[] = "crc32";
static const int64_t MOST_COUNT = 1000000000000000000; /* so that counting on is safe */

/* ---- sealing ----------------------------------------------------------------------------------
 */

/* Of everything but the checksum itself, and however the text is laid out. */
static pt_status seal_of(json_t *manifest, uint32_t *ret_crc, pt_error *err)
{
    json_object_del(manifest, CHECKSUM);
    char *text = json_dumps(manifest, JSON_COMPACT | JSON_SORT_KEYS | JSON_REAL_PRECISION(DIGITS));
    if (!text)
        return pt_fail(err, PT_ENOMEM, "no memory for the manifest");
    *ret_crc = pt_store_checksum(0, text, strlen(text));
    free(text);
    return PT_OK;
}

pt_status pt_manifest_print(json_t *manifest, char **ret_text, pt_error *err)
{
    uint32_t crc = 0;
    PT_TRY(seal_of(manifest, &crc, err));
    json_object_set_new(manifest, CHECKSUM, json_integer((json_int_t)crc));
    *ret_text = json_dumps(manifest, JSON_INDENT(1) | JSON_REAL_PRECISION(DIGITS));
    return *ret_text ? PT_OK : pt_fail(err, PT_ENOMEM, "no memory for the manifest");
}

static pt_status check_seal(json_t *manifest, pt_error *err)
{
    json_t *value = json_object_get(manifest, CHECKSUM);
    json_int_t was = json_integer_value(value);
    bool there = json_is_integer(value);
    uint32_t crc = 0;
    PT_TRY(seal_of(manifest, &crc, err));
    if (!there || was != (json_int_t)crc)
        return pt_fail(err, PT_EINPUT, "it is not what was written: its checksum is another");
    json_int_t format = json_integer_value(json_object_get(manifest, "format"));
    if (format != FORMAT)
        return pt_fail(err, PT_EINPUT, "it has the format %lld, and this program reads %d",
                       (long long)format, FORMAT);
    return PT_OK;
}

pt_status pt_manifest_parse(const char *text, size_t bytes, json_t **ret_manifest, pt_error *err)
{
    json_error_t where;
    json_t *manifest = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, &where);
    pt_status status = PT_OK;
    if (!manifest)
        status =
            pt_fail(err, PT_EINPUT, "it is no manifest, or not all of one (line %d)", where.line);
    else if (!json_is_object(manifest))
        status = pt_fail(err, PT_EINPUT, "it is no manifest: it holds no object");
    else
        status = check_seal(manifest, err);
    if (status == PT_OK)
        *ret_manifest = manifest;
    else
        json_decref(manifest);
    return status;
}

/* ---- a run's ----------------------------------------------------------------------------------
 */

static json_t *layers_of(const pt_graph *graph)
{
    json_t *layers = json_array();
    for (int i = 0; i < graph->n_nodes; i++)
        json_array_append_new(layers, json_pack("[s, s]", graph->nodes[i].name,
                                                pt_op_rows[graph->nodes[i].op.kind].name));
    return layers;
}

static void add_tensor(json_t *object, const pt_node *node, const pt_op_tensor *tensor)
{
    json_t *dims = json_array();
    for (int d = 0; d < tensor->ndim; d++)
        json_array_append_new(dims, json_integer((json_int_t)tensor->dims[d]));
    json_t *name = json_sprintf("%s.%s", node->name, tensor->name);
    json_object_set_new(object, json_string_value(name), dims);
    json_decref(name);
}

static json_t *tensors_of(const pt_graph *graph)
{
    json_t *object = json_object();
    for (int i = 0; i < graph->n_nodes; i++) {
        pt_op_tensor params[PT_MAX_PARAMS], states[PT_MAX_STATE];
        const pt_node *node = &graph->nodes[i];
        int n_params = pt_op_params(&node->op, params), n_states = pt_op_state(&node->op, states);
        for (int p = 0; p < n_params; p++)
            add_tensor(object, node, &params[p]);
        for (int s = 0; s < n_states; s++)
            add_tensor(object, node, &states[s]);
    }
    return object;
}

/* The names of the layers where blocks begin. */
static json_t *cuts_of(const pt_run *run)
{
    json_t *cuts = json_array();
    for (int b = 0; b < run->stages * run->chunks; b++)
        json_array_append_new(cuts, json_string(run->partition->graph.nodes[run->begins[b]].name));
    return cuts;
}

json_t *pt_manifest_new(const pt_run *run)
{
    json_t *m = json_object();
    json_object_set_new(m, "format", json_integer(FORMAT));
    json_object_set_new(m, "program", json_string(PT_VERSION));
    json_object_set_new(m, "model", json_string(run->partition->name));
    json_object_set_new(m, "layers", layers_of(&run->partition->graph));
    json_object_set_new(m, "tensors", tensors_of(&run->partition->graph));
    json_object_set_new(m, "samples", json_integer((json_int_t)run->epoch_plan.samples));
    json_object_set_new(m, "validation_samples", json_integer((json_int_t)run->held_out));
    json_object_set_new(m, "ranks", json_integer(run->stages));
    json_object_set_new(m, "cuts", cuts_of(run));
    json_object_set_new(m, "settings", pt_json_settings(run));
    return m;
}

static json_t *score_of(const pt_score *score)
{
    if (score->step == 0)
        return json_null();
    return json_pack("{s:I, s:o, s:o}", "step", (json_int_t)score->step, "accuracy",
                     pt_json_number(score->accuracy), "loss", pt_json_number(score->loss));
}

pt_status pt_manifest_set(json_t *m, const pt_run *run, const pt_resumed *stand, pt_error *err)
{
    const pt_pass_result *sums = &stand->sums;
    int64_t step = stand->step;
    json_t *all = json_pack("{s:f, s:I, s:I}", "loss", sums->loss, "correct",
                            (json_int_t)sums->correct, "samples", (json_int_t)sums->samples);
    if (!all && !isfinite(sums->loss)) /* a run that has diverged may be kept, too */
        all = json_pack("{s:n, s:I, s:I}", "loss", "correct", (json_int_t)sums->correct, "samples",
                        (json_int_t)sums->samples);
    bool bad = json_object_set_new(m, "sums", all) != 0;
    bad |= json_object_set_new(m, "step", json_integer((json_int_t)step)) != 0;
    bad |= json_object_set_new(m, "epoch",
                               json_integer((json_int_t)(step / run->steps_per_epoch))) != 0;
    bad |= json_object_set_new(m, "epoch_step",
                               json_integer((json_int_t)(step % run->steps_per_epoch))) != 0;
    bad |= json_object_set_new(m, "best_accuracy", pt_json_number(stand->best_accuracy)) != 0;
    bad |= json_object_set_new(m, "best_validation_accuracy",
                               pt_json_number(stand->best_validation)) != 0;
    bad |= json_object_set_new(m, "best", score_of(&stand->best)) != 0;
    bad |= json_object_set_new(m, "launch", json_integer((json_int_t)stand->launch)) != 0;
    return bad ? pt_fail(err, PT_ENOMEM, "no memory for the manifest") : PT_OK;
}

static pt_status get_count(const json_t *object, const char *name, int64_t *ret_count,
                           pt_error *err)
{
    json_t *value = json_object_get(object, name);
    if (!json_is_integer(value) || json_integer_value(value) < 0 ||
        json_integer_value(value) > MOST_COUNT)
        return pt_fail(err, PT_EINPUT, "the manifest has no \"%s\", or not from 0 to %lld", name,
                       (long long)MOST_COUNT);
    *ret_count = json_integer_value(value);
    return PT_OK;
}

/* null stands for what JSON cannot say. */
static double get_number(const json_t *object, const char *name)
{
    json_t *value = json_object_get(object, name);
    return json_is_number(value) ? json_number_value(value) : (double)NAN;
}

pt_status pt_manifest_get(const json_t *m, pt_resumed *ret_resumed, pt_error *err)
{
    pt_resumed r = {.best_accuracy = get_number(m, "best_accuracy"),
                    .best_validation = get_number(m, "best_validation_accuracy")};
    const json_t *sums = json_object_get(m, "sums"), *best = json_object_get(m, "best");
    PT_TRY(get_count(m, "step", &r.step, err));
    PT_TRY(get_count(m, "launch", &r.launch, err));
    PT_TRY(get_count(sums, "correct", &r.sums.correct, err));
    PT_TRY(get_count(sums, "samples", &r.sums.samples, err));
    r.sums.loss = get_number(sums, "loss");
    if (json_is_object(best)) {
        PT_TRY(get_count(best, "step", &r.best.step, err));
        r.best.loss = get_number(best, "loss");
        r.best.accuracy = get_number(best, "accuracy");
    }
    *ret_resumed = r;
    return PT_OK;
}

/* ---- its files --------------------------------------------------------------------------------
 */

size_t pt_manifest_n_files(const json_t *m)
{
    return json_array_size(json_object_get(m, "files"));
}

static bool is_plain_name(const char *name)
{
    return *name && !strchr(name, '/') && strcmp(name, ".") != 0 && strcmp(name, "..") != 0;
}

pt_status pt_manifest_file(const json_t *m, size_t i, pt_store_file *ret_file, pt_error *err)
{
    const json_t *file = json_array_get(json_object_get(m, "files"), i);
    const char *name = json_string_value(json_object_get(file, "name"));
    int64_t bytes = 0, crc = 0;
    PT_TRY(get_count(file, "bytes", &bytes, err));
    PT_TRY(get_count(file, CHECKSUM, &crc, err));
    if (!name || !is_plain_name(name) || crc > UINT32_MAX)
        return pt_fail(err, PT_EINPUT, "file %zu of its list is none of a step", i);
    *ret_file = (pt_store_file){name, (uint64_t)bytes, (uint32_t)crc};
    return PT_OK;
}
