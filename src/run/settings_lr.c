/* The learning-rate schedule that the settings ask for. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "pipetrain/settings.h"

static pt_status parse_milestones(const pt_settings *s, int64_t steps_per_epoch, pt_lr_spec *lr,
                                  pt_error *err)
{
    for (const char *at = s->milestones; at && *at;) {
        char *end = NULL;
        errno = 0;
        double epoch = strtod(at, &end);
        if (end == at || errno || !(epoch >= 0) || epoch > 1e9 || (*end && *end != ','))
            return pt_fail(err, PT_EINPUT,
                           "--milestones \"%s\": write epochs in ascending order, such as 30,60,80",
                           s->milestones);
        if (lr->n_milestones == PT_MAX_MILESTONES)
            return pt_fail(err, PT_EINPUT, "--milestones: more than %d", PT_MAX_MILESTONES);
        int64_t step = (int64_t)llround(epoch * (double)steps_per_epoch);
        if (lr->n_milestones && step <= lr->milestones[lr->n_milestones - 1])
            return pt_fail(err, PT_EINPUT, "--milestones \"%s\": must ascend", s->milestones);
        lr->milestones[lr->n_milestones++] = step;
        at = *end ? end + 1 : end;
    }
    if (strcmp(s->lr_schedule, "milestones") == 0 && lr->n_milestones == 0)
        return pt_fail(err, PT_EINPUT,
                       "--lr-schedule milestones needs --milestones, such as 30,60,80");
    return PT_OK;
}

pt_status pt_config_lr(const pt_config *config, int64_t steps_per_epoch, int64_t total_steps,
                       pt_lr_spec *ret_lr, pt_error *err)
{
    const pt_settings *s = &config->settings;
    pt_lr_spec lr = {
        .schedule = s->lr_schedule,
        .base = s->lr,
        .warmup = (int64_t)llround(s->warmup * (double)steps_per_epoch),
        .total = total_steps,
        .factor = s->lr_factor,
        .floor = s->lr_floor,
    };
    PT_TRY(parse_milestones(s, steps_per_epoch, &lr, err));
    *ret_lr = lr;
    return PT_OK;
}
