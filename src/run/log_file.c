/* The run log. jansson writes the numbers; a line is flushed as soon as it is whole, so that the
 * log of a run that dies ends with its last step. */
#include "log_file.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "json_run.h"

struct pt_log_file {
    FILE *file;
    const char *path; /* the settings' */
    bool classes;     /* accuracies mean something */
};

pt_status pt_log_file_open(const char *path, bool again, bool classes, pt_log_file **ret_log,
                           pt_error *err)
{
    pt_log_file *log = calloc(1, sizeof *log);
    if (!log)
        return pt_fail(err, PT_ENOMEM, "no memory for the log");
    log->path = path;
    log->classes = classes;
    log->file = fopen(path, again ? "a" : "w");
    if (!log->file) {
        pt_fail(err, PT_EINPUT, "--log: cannot write %s: %s", path, strerror(errno));
        free(log);
        return PT_EINPUT;
    }
    *ret_log = log;
    return PT_OK;
}

void pt_log_file_close(pt_log_file *log)
{
    if (!log)
        return;
    if (log->file)
        fclose(log->file);
    free(log);
}

/* Writes and releases the object. */
static pt_status put(pt_log_file *log, json_t *object, pt_error *err)
{
    bool ok = object &&
              json_dumpf(object, log->file, JSON_COMPACT | JSON_REAL_PRECISION(17)) == 0 &&
              fputc('\n', log->file) != EOF && fflush(log->file) == 0;
    json_decref(object);
    return ok ? PT_OK
              : pt_fail(err, PT_EIO, "--log: cannot write %s: %s", log->path, strerror(errno));
}

pt_status pt_log_file_run(pt_log_file *log, const pt_run *run, const stage_card *cards,
                          pt_error *err)
{
    json_t *object = json_pack("{s:s}", "type", "run");
    json_t *settings = pt_json_settings(run);
    json_t *stages = json_array();
    for (int i = 0; i < run->stages; i++)
        json_array_append_new(stages,
                              json_pack("{s:i, s:s, s:o, s:I}", "rank", cards[i].rank, "host",
                                        cards[i].host, "host_number", pt_json_host(run, i),
                                        "parameters", (json_int_t)cards[i].parameters));
    json_object_set_new(object, "version", json_string(PT_VERSION));
    json_object_set_new(object, "launch",
                        run->launch > 0 ? json_integer((json_int_t)run->launch) : json_null());
    json_object_set_new(object, "resumed", json_integer((json_int_t)run->resumed.step));
    json_object_set_new(object, "partition", json_string(run->partition->file));
    json_object_set_new(object, "settings", settings);
    json_object_set_new(object, "stages", stages);
    return put(log, object, err);
}

pt_status pt_log_file_step(pt_log_file *log, const pt_step_result *record, int64_t step,
                           pt_error *err)
{
    double n = (double)record->samples;
    json_t *object =
        json_pack("{s:s, s:I, s:i, s:o, s:o, s:f, s:I}", "type", "step", "step", (json_int_t)step,
                  "epoch", (int)record->epoch, "loss", pt_json_number(record->loss / n), "accuracy",
                  pt_json_number(log->classes ? (double)record->correct / n : (double)NAN), "lr",
                  record->lr, "samples", (json_int_t)record->samples);
    if (!isnan(record->norm))
        json_object_set_new(object, "norm", pt_json_number(record->norm));
    return put(log, object, err);
}

pt_status pt_log_file_gap(pt_log_file *log, uint32_t epoch, int64_t step, const pt_gap_found *gaps,
                          int stages, pt_error *err)
{
    json_t *measured = json_array(), *rms = json_array(), *relative = json_array();
    for (int i = 0; i < stages; i++) {
        json_array_append_new(measured, json_integer((json_int_t)gaps[i].measured));
        json_array_append_new(rms, pt_json_mean(gaps[i].rms, gaps[i].measured));
        json_array_append_new(relative, pt_json_mean(gaps[i].relative, gaps[i].measured));
    }
    return put(log,
               json_pack("{s:s, s:I, s:i, s:o, s:o, s:o}", "type", "gap", "step", (json_int_t)step,
                         "epoch", (int)epoch, "measured", measured, "gap", rms, "gap_relative",
                         relative),
               err);
}

pt_status pt_log_file_evaluation(pt_log_file *log, uint32_t epoch, eval_set set,
                                 const run_totals *totals, pt_error *err)
{
    static const struct {
        const char *type, *loss, *accuracy;
    } words[EVAL_SETS] = {
        [EVAL_TEST] = {"eval", "test_loss", "test_accuracy"},
        [EVAL_VALIDATION] = {"validation", "validation_loss", "validation_accuracy"},
    };
    const set_score *score = &totals->scores[set];
    return put(log,
               json_pack("{s:s, s:I, s:i, s:f, s:o, s:o}", "type", words[set].type, "step",
                         (json_int_t)totals->steps, "epoch", (int)epoch, "train_s",
                         (double)totals->train_ns / 1e9, words[set].loss,
                         pt_json_number(score->loss), words[set].accuracy,
                         pt_json_number(score->accuracy)),
               err);
}

pt_status pt_log_file_checkpoint(pt_log_file *log, int64_t step, bool committed, double seconds,
                                 pt_error *err)
{
    return put(log,
               json_pack("{s:s, s:I, s:b, s:f}", "type", "checkpoint", "step", (json_int_t)step,
                         "committed", committed, "seconds", seconds),
               err);
}

pt_status pt_log_file_finish(pt_log_file *log, const run_totals *totals, pt_error *err)
{
    return put(log,
               json_pack("{s:s, s:I, s:I, s:o}", "type", "end", "steps", (json_int_t)totals->steps,
                         "epochs", (json_int_t)totals->epochs, "train_loss",
                         pt_json_number(totals->train_loss)),
               err);
}
