/* How often, what stays, and who gets it: --every, --keep-best, --upload. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "pipetrain/settings.h"

static const double MOST_STEPS = 1e15, MOST_SECONDS = 1e9;

pt_status pt_config_every(const pt_settings *s, int64_t *ret_steps, double *ret_seconds,
                          pt_error *err)
{
    *ret_steps = 0;
    *ret_seconds = 0;
    if (!s->every)
        return PT_OK;
    char *end = NULL;
    errno = 0;
    double value = strtod(s->every, &end);
    bool number = end != s->every && errno == 0 && value > 0;
    if (number && strcmp(end, "s") == 0 && value <= MOST_SECONDS) {
        *ret_seconds = value;
        return PT_OK;
    }
    if (!number || *end || value > MOST_STEPS || value != floor(value))
        return pt_fail(err, PT_EINPUT,
                       "--every \"%s\": write a number of steps, such as 500, or of seconds, such "
                       "as 60s",
                       s->every);
    *ret_steps = (int64_t)value;
    return PT_OK;
}

pt_status pt_config_settle_checkpoint(pt_settings *s, pt_error *err)
{
    s->keep_best = s->keep_best && s->checkpoint;
    if (s->keep_best && s->validation == 0)
        return pt_fail(err, PT_EINPUT,
                       "--keep-best goes by what is held out of the training set; write "
                       "--validation FRACTION, such as 0.1, or leave --keep-best out");
    if (s->keep_best && s->eval_every == 0)
        return pt_fail(err, PT_EINPUT,
                       "--keep-best goes by evaluations, and --eval-every 0 leaves them out; write "
                       "--eval-every 1 or more, or leave --keep-best out");
    if (s->upload && !s->upload[strspn(s->upload, " \t\n")])
        return pt_fail(err, PT_EINPUT,
                       "--upload: write a command, such as --upload 'rsync -a \"$1\" host:runs/'");
    return PT_OK;
}
