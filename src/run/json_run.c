/* Settings and numbers as JSON. */
#include "json_run.h"

#include <math.h>

json_t *pt_json_number(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

json_t *pt_json_mean(double sum, int64_t n)
{
    return n > 0 ? pt_json_number(sum / (double)n) : json_null();
}

json_t *pt_json_host(const pt_run *run, int rank)
{
    return run->host_numbers ? json_integer((json_int_t)run->host_numbers[rank]) : json_null();
}

json_t *pt_json_settings(const pt_run *run)
{
    const pt_options *options = &run->config->options;
    json_t *object = json_object();
    for (int i = 0; i < options->n_rows; i++) {
        const pt_option *row = &options->rows[i];
        const char *at = (const char *)options->settings + row->offset;
        json_t *value = NULL;
        if (row->command_line_only)
            continue;
        switch (row->type) {
        case PT_OPTION_FLAG:
        case PT_OPTION_SWITCH:
            value = json_boolean(*(const bool *)at);
            break;
        case PT_OPTION_INT:
            value = json_integer(*(const int64_t *)at);
            break;
        case PT_OPTION_REAL:
            value = pt_json_number(*(const double *)at);
            break;
        case PT_OPTION_TEXT:
        case PT_OPTION_CHOICE:
            value = *(char *const *)at ? json_string(*(char *const *)at) : json_null();
            break;
        }
        json_object_set_new(object, row->name, value);
    }
    return object;
}
