#include "settings_rig.h"

#include <string.h>

#include "suite.h"

enum { MOST_WORDS = 16, MOST_TEXT = 512 };

void settings_set(pt_config *config, const char *name, const char *value, pt_option_source source)
{
    pt_error err = {PT_OK, ""};
    assert_ok(pt_options_set(&config->options, name, value, source, "t.yaml:1:1", &err), &err);
}

pt_status settings_settle(pt_config *config, const char *file, const char *line, pt_error *err)
{
    char text[2][MOST_TEXT], *rest = NULL, *words[MOST_WORDS] = {"pipetrain"};
    int n = 1, n_positional = 0;
    const char *positional[1];
    assert_ok(pt_config_init(config, err), err);
    snprintf(text[0], MOST_TEXT, "%s", line);
    snprintf(text[1], MOST_TEXT, "%s", file);
    for (char *w = strtok_r(text[0], " ", &rest); w; w = strtok_r(NULL, " ", &rest))
        words[n++] = w;
    assert_ok(pt_options_parse(&config->options, n, words, 1, positional, &n_positional, err), err);
    for (char *w = strtok_r(text[1], " ", &rest); w; w = strtok_r(NULL, " ", &rest))
        settings_set(config, w, strtok_r(NULL, " ", &rest), PT_FROM_PARTITION);
    return pt_config_settle(config, err);
}
