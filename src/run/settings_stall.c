/* How long a rank may stand: --stall, or the environment. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "pipetrain/settings.h"

static const double LEAST_S = 0.1, MOST_S = 1e9;

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
