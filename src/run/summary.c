/* --summary: one JSON object with what a run was and what came out of it. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "checkpoint.h"
#include "json_run.h"
#include "reporter.h"

static json_t *layers_of(const pt_run *run, const stage_card *card)
{
    json_t *layers = json_array();
    for (int c = 0; c < run->chunks; c++) {
        const pt_stage_spec *spec = &run->specs[c * run->stages + card->rank];
        for (int i = spec->first; i < spec->end; i++)
            json_array_append_new(layers, json_string(run->partition->graph.nodes[i].name));
    }
    return layers;
}

static json_t *stage_object(const pt_run *run, const stage_card *card, const stage_totals *total)
{
    json_t *object = json_object();
    json_t *bubble = total->window_ns > 0
                         ? json_real(1 - (double)total->window_busy_ns / (double)total->window_ns)
                         : json_null();
    json_object_set_new(object, "rank", json_integer(card->rank));
    json_object_set_new(object, "host", json_string(card->host));
    json_object_set_new(object, "host_number", pt_json_host(run, card->rank));
    json_object_set_new(object, "layers", layers_of(run, card));
    json_object_set_new(object, "parameters", json_integer((json_int_t)card->parameters));
    json_object_set_new(object, "busy_us", json_real((double)total->busy_ns / 1e3));
    json_object_set_new(object, "elapsed_us", json_real((double)total->elapsed_ns / 1e3));
    json_object_set_new(object, "bubble", bubble);
    json_object_set_new(object, "recv_wait_us", json_real((double)total->recv_wait_ns / 1e3));
    json_object_set_new(object, "send_wait_us", json_real((double)total->send_wait_ns / 1e3));
    json_object_set_new(object, "staleness_mean",
                        pt_json_mean((double)total->staleness_sum, total->forwards));
    json_object_set_new(object, "staleness_max", json_integer(total->staleness_max));
    json_object_set_new(object, "gap", pt_json_mean(total->gap.rms, total->gap.measured));
    json_object_set_new(object, "gap_relative",
                        pt_json_mean(total->gap.relative, total->gap.measured));
    json_object_set_new(object, "stash_peak", json_integer(card->stash_peak));
    json_object_set_new(object, "ops_again", json_integer(card->ops_again));
    json_object_set_new(object, "peak_bytes", json_integer((json_int_t)card->peak_bytes));
    json_object_set_new(object, "predicted_bytes", json_integer((json_int_t)card->predicted_bytes));
    return object;
}

static json_t *classes_of(const pt_run *run)
{
    const pt_loss *loss = &run->partition->graph.loss;
    return loss->kind == PT_LOSS_CROSS_ENTROPY
               ? json_integer((json_int_t)pt_shape_elements(&loss->shape))
               : json_null();
}

static json_t *summary_object(const pt_run *run, const run_totals *totals, const stage_card *cards,
                              double wall_s)
{
    const pt_settings *s = run->settings;
    json_t *object = json_object();
    json_t *stages = json_array();
    double train_s = (double)totals->train_ns / 1e9;
    for (int i = 0; i < run->stages; i++)
        json_array_append_new(stages, stage_object(run, &cards[i], &totals->stages[i]));
    pt_score best = pt_checkpoint_best(run->checkpoint);
    const set_score *test = &totals->scores[EVAL_TEST], *held = &totals->scores[EVAL_VALIDATION];
    json_object_set_new(object, "test_accuracy", pt_json_number(test->accuracy));
    json_object_set_new(object, "best_accuracy", pt_json_number(test->best_accuracy));
    json_object_set_new(object, "test_loss", pt_json_number(test->loss));
    json_object_set_new(object, "validation_accuracy", pt_json_number(held->accuracy));
    json_object_set_new(object, "best_validation_accuracy", pt_json_number(held->best_accuracy));
    json_object_set_new(object, "validation_loss", pt_json_number(held->loss));
    json_object_set_new(object, "best_step",
                        best.step > 0 ? json_integer((json_int_t)best.step) : json_null());
    json_object_set_new(object, "train_loss", pt_json_number(totals->train_loss));
    json_object_set_new(object, "images_per_s",
                        pt_json_number(train_s > 0 ? (double)totals->samples / train_s : 0));
    json_object_set_new(object, "steps", json_integer((json_int_t)totals->steps));
    json_object_set_new(object, "epochs", json_integer((json_int_t)totals->epochs));
    json_object_set_new(object, "world", json_integer(run->stages));
    json_object_set_new(object, "model", json_string(run->partition->name));
    json_object_set_new(object, "classes", classes_of(run));
    json_object_set_new(object, "schedule", json_string(s->schedule));
    json_object_set_new(object, "sync_epochs", json_integer((json_int_t)s->sync_epochs));
    json_object_set_new(object, "predict", json_string(s->predict));
    json_object_set_new(object, "stash", json_boolean(s->stash));
    json_object_set_new(object, "backend", json_string(run->backend->row->name));
    json_object_set_new(object, "wall_s", json_real(wall_s));
    json_object_set_new(object, "train_s", json_real(train_s));
    json_object_set_new(object, "settings", pt_json_settings(run));
    json_object_set_new(object, "stages", stages);
    return object;
}

pt_status pt_write_summary(const pt_run *run, const run_totals *totals, const stage_card *cards,
                           double wall_s, pt_error *err)
{
    const char *path = run->settings->summary;
    json_t *object = summary_object(run, totals, cards, wall_s);
    int failed = json_dump_file(object, path, JSON_INDENT(2) | JSON_REAL_PRECISION(17));
    json_decref(object);
    return failed ? pt_fail(err, PT_EIO, "--summary: cannot write %s: %s", path, strerror(errno))
                  : PT_OK;
}
