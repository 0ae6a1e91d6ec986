/* What a run writes into a manifest and finds there again. Whether a run fits one is
 * checkpoint_fits.c's business.
 */
#include "checkpoint_manifest.h"

#include <math.h>

#include "json_run.h"

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
    json_object_set_new(m, "format", json_integer(PT_MANIFEST_FORMAT));
    json_object_set_new(m, "program", json_string(PT_VERSION));
    json_object_set_new(m, "model", json_string(run->partition->name));
    json_object_set_new(m, "layers", layers_of(&run->partition->graph));
    json_object_set_new(m, "tensors", tensors_of(&run->partition->graph));
    json_object_set_new(m, "samples", json_integer((json_int_t)run->epoch_plan.samples));
    json_object_set_new(m, "validation_samples", json_integer((json_int_t)run->held_out));
    json_object_set_new(m, "total_steps", json_integer((json_int_t)run->total_steps));
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

static json_t *ranks_on(const pt_run *run, const pt_store_host *host)
{
    json_t *ranks = json_array();
    for (int r = 0; r < run->stages; r++)
        if (run->host_numbers[r] == host->number)
            json_array_append_new(ranks, json_integer(r));
    return ranks;
}

pt_status pt_manifest_set_hosts(json_t *m, const pt_run *run, const pt_store_hosts *hosts,
                                pt_error *err)
{
    json_t *list = json_array();
    bool bad = false;
    for (int i = 0; i < hosts->n; i++) {
        const pt_store_host *host = &hosts->list[i];
        json_t *ranks = ranks_on(run, host);
        if (json_array_size(ranks) > 0)
            bad |= json_array_append_new(list, json_pack("{s:I, s:s, s:O}", "number",
                                                         (json_int_t)host->number, "name",
                                                         host->name, "ranks", ranks)) != 0;
        json_decref(ranks);
    }
    bad |= json_object_set_new(m, "hosts", list) != 0;
    return bad ? pt_fail(err, PT_ENOMEM, "no memory for the manifest") : PT_OK;
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
    PT_TRY(pt_manifest_count(m, "step", &r.step, err));
    PT_TRY(pt_manifest_count(m, "launch", &r.launch, err));
    PT_TRY(pt_manifest_count(sums, "correct", &r.sums.correct, err));
    PT_TRY(pt_manifest_count(sums, "samples", &r.sums.samples, err));
    r.sums.loss = get_number(sums, "loss");
    if (json_is_object(best)) {
        PT_TRY(pt_manifest_count(best, "step", &r.best.step, err));
        r.best.loss = get_number(best, "loss");
        r.best.accuracy = get_number(best, "accuracy");
    }
    *ret_resumed = r;
    return PT_OK;
}
