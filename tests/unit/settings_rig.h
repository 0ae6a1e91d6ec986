/* Settings as a partition file and a command line would give them. */
#ifndef PIPETRAIN_TESTS_SETTINGS_RIG_H
#define PIPETRAIN_TESTS_SETTINGS_RIG_H

#include "pipetrain/settings.h"

/* Must be right; "t.yaml:1:1" is where it stands. */
void settings_set(pt_config *config, const char *name, const char *value, pt_option_source source);

/* Fills in the defaults, reads both and settles. `file` and `line` are lists of words: "name value
 * name value" and "--name value". pt_config_clear the config in any case. */
pt_status settings_settle(pt_config *config, const char *file, const char *line, pt_error *err);

#endif
