/* Manifests of checkpoints: as they are, and sealed again, because no fuzzer guesses a checksum;
 * then where the run stood, the list of files, and whether this run could go on from it. */
#include "../../src/run/checkpoint_manifest.h"

#include <stdlib.h>
#include <string.h>

#include "fuzz.h"
#include "pipetrain/log.h"

enum { STEPS = 100, SAMPLES = 60, BATCH = 32 };

static const char MODEL[] = "name: tiny\n"
                            "input: {shape: [3]}\n"
                            "layers: [{name: fc, kind: linear, features: 2}]\n"
                            "loss: {kind: cross-entropy}\n";

/* A run as far as it is compared. */
static bool fits(const json_t *manifest)
{
    pt_partition *partition = NULL;
    pt_config config;
    pt_error err = {0};
    int begins[] = {0};
    FUZZ_PROMISE(pt_partition_parse("t.yaml", MODEL, sizeof MODEL - 1, &partition, &err) == PT_OK);
    FUZZ_PROMISE(pt_config_init(&config, &err) == PT_OK);
    const pt_run run = {
        .config = &config,
        .settings = &config.settings,
        .partition = partition,
        .stages = 1,
        .chunks = 1,
        .begins = begins,
        .epoch_plan = {.samples = SAMPLES, .batch = BATCH, .micro_batch = BATCH},
        .steps_per_epoch = 2,
        .total_steps = STEPS,
    };
    bool good = fuzz_accepts(pt_manifest_fits(manifest, &run, &err), &err, "");
    pt_config_clear(&config);
    pt_partition_free(partition);
    return good;
}

static bool read_stand(const json_t *manifest)
{
    pt_resumed stand;
    pt_error err = {0};
    if (!fuzz_accepts(pt_manifest_get(manifest, &stand, &err), &err, ""))
        return false;
    FUZZ_PROMISE(stand.step >= 0 && stand.best.step >= 0 && stand.sums.samples >= 0);
    FUZZ_PROMISE(stand.launch >= 0 && stand.launch < INT64_MAX); /* there is a next one */
    return true;
}

static bool read_files(const json_t *manifest)
{
    for (size_t i = 0; i < pt_manifest_n_files(manifest); i++) {
        pt_store_file file;
        pt_error err = {0};
        if (!fuzz_accepts(pt_manifest_file(manifest, i, &file, &err), &err, ""))
            return false;
        FUZZ_PROMISE(*file.name && !strchr(file.name, '/') && strcmp(file.name, ".") != 0 &&
                     strcmp(file.name, "..") != 0);
        FUZZ_PROMISE(file.bytes <= INT64_MAX);
    }
    return true;
}

/* What was printed is read again, and printed alike. */
static json_t *seal(json_t *manifest)
{
    char *text = NULL, *again = NULL;
    json_t *opened = NULL;
    pt_error err = {0};
    FUZZ_PROMISE(pt_manifest_print(manifest, &text, &err) == PT_OK);
    if (fuzz_accepts(pt_manifest_parse(text, strlen(text), &opened, &err), &err, "format")) {
        FUZZ_PROMISE(pt_manifest_print(opened, &again, &err) == PT_OK);
        FUZZ_PROMISE(strcmp(text, again) == 0);
    }
    free(again);
    free(text);
    return opened;
}

bool fuzz_one(const uint8_t *data, size_t bytes)
{
    pt_log_init(PT_LOG_ERROR, -1); /* what has changed is not said */
    json_t *as_it_is = NULL;
    pt_error err = {0};
    bool whole =
        fuzz_accepts(pt_manifest_parse((const char *)data, bytes, &as_it_is, &err), &err, "");
    FUZZ_PROMISE(whole == (as_it_is != NULL));
    json_t *loaded = json_loadb((const char *)data, bytes, JSON_REJECT_DUPLICATES, NULL);
    json_t *opened = json_is_object(loaded) ? seal(loaded) : NULL;
    FUZZ_PROMISE(opened || !whole);
    bool good = opened && read_stand(opened);
    good = opened && read_files(opened) && good;
    good = opened && fits(opened) && good;
    json_decref(opened);
    json_decref(loaded);
    json_decref(as_it_is);
    return good && whole;
}
