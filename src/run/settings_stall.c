/* How long a rank may stand: --stall, or the environment. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "pipetrain/settings.h"

static const double LEAST_S = 0.1, MOST_S = 1e9;

/* Of auto. */
static const double AUTO_S = 5, AUTO_STEPS = 10;
/* Before the first step has ended: ranks meet, data is loaded, stages are measured. */
static const double START_FACTOR = 10, START_S = 60;

static const char VARIABLE[] = "PIPETRAIN_STALL";

pt_status pt_config_stall(const char *name, const char *text, double *ret_seconds, pt_error *err)
{
    static const struct {
        const char *word;
        double seconds;
    } words[] = {{"off", -1}, {"auto", 0}};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        if (strcmp(text, words[i].word) == 0) {
            *ret_seconds = words[i].seconds;
            return PT_OK;
        }
    char *end = NULL;
    errno = 0;
    double seconds = strtod(text, &end);
    if (end == text || *end || errno || !(seconds >= LEAST_S && seconds <= MOST_S))
        return pt_fail(err, PT_EINPUT,
                       "%s \"%s\": write seconds, 0.1 or more, such as 30; or auto; or off", name,
                       text);
    *ret_seconds = seconds;
    return PT_OK;
}

pt_status pt_config_find_stall(const pt_settings *settings, double *ret_seconds, pt_error *err)
{
    const char *set = getenv(VARIABLE);
    if (settings->stall)
        return pt_config_stall("--stall", settings->stall, ret_seconds, err);
    return pt_config_stall(VARIABLE, set && *set ? set : "off", ret_seconds, err);
}

int64_t pt_config_stall_ns(double seconds, int64_t median_ns)
{
    double s = seconds > 0 ? seconds : AUTO_S;
    if (seconds == 0 && AUTO_STEPS * (double)median_ns / 1e9 > s)
        s = AUTO_STEPS * (double)median_ns / 1e9;
    if (median_ns == 0 && s < START_S)
        s = START_FACTOR * s < START_S ? START_FACTOR * s : START_S;
    return (int64_t)(s * 1e9);
}
