/* The rules of restarting. */
#include "policy.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

static bool is_final(int code)
{
    static const int codes[] = {PT_EXIT_DONE, PT_EXIT_USAGE, PT_EXIT_STOPPED};
    for (size_t i = 0; i < sizeof codes / sizeof *codes; i++)
        if (code == codes[i])
            return true;
    return false;
}

static double backoff(const pt_policy *policy, int64_t failures)
{
    double delay = failures > 1 ? 1 : 0;
    for (int64_t i = 2; i < failures && delay < policy->backoff_max_s; i++)
        delay *= 2;
    return delay < policy->backoff_max_s ? delay : policy->backoff_max_s;
}

static pt_verdict end_with(int code, const pt_record *record)
{
    return (pt_verdict){.code = code, .record = *record};
}

pt_verdict pt_policy_judge(const pt_policy *policy, const pt_record *record,
                           const pt_ending *ending)
{
    if (ending->wish == PT_WISH_END_NOW)
        return end_with(PT_EXIT_INTERRUPTED, record);
    if (ending->cause == PT_CAUSE_ENDED && is_final(ending->code))
        return end_with(ending->code, record);
    /* It did not stop as it was asked to, but what was committed before is there, or there was
     * nothing to commit. */
    bool lost = ending->step < 0 && ending->has_begun;
    if (ending->wish == PT_WISH_STOP)
        return end_with(lost ? PT_EXIT_FAILED : PT_EXIT_STOPPED, record);
    bool progressed = ending->step > record->step;
    pt_record after = {.step = progressed ? ending->step : record->step,
                       .failures = progressed ? 1 : record->failures + 1};
    if (after.failures > policy->restarts) {
        pt_verdict verdict = end_with(PT_EXIT_FAILED, &after);
        verdict.gave_up = true;
        return verdict;
    }
    return (pt_verdict){
        .restart = true, .delay_s = backoff(policy, after.failures), .record = after};
}

const char *pt_policy_describe(const pt_ending *ending, char *text, int size)
{
    static const char *const words[] = {
        [PT_CAUSE_STALLED] = "made no progress and was ended",
        [PT_CAUSE_SUSPENDED] = "was ended, because its mpirun had been stopped",
        [PT_CAUSE_SLOW_START] = "had not done a step within --start-limit and was ended",
        [PT_CAUSE_NOT_BEGUN] = "was ended before it trained",
        [PT_CAUSE_TOO_FEW_HOSTS] = "was not started: too few hosts can be reached",
    };
    if (ending->cause != PT_CAUSE_ENDED)
        snprintf(text, (size_t)size, "%s", words[ending->cause]);
    else if (ending->code == PT_EXIT_INTERRUPTED) /* and not Ctrl-C, though 130 is 128 + SIGINT */
        snprintf(text, (size_t)size, "was interrupted by a signal to a rank or to mpirun");
    else if (ending->code > 128 && ending->code <= 128 + SIGRTMAX)
        snprintf(text, (size_t)size, "was ended by signal %d (%s)", ending->code - 128,
                 strsignal(ending->code - 128));
    else
        snprintf(text, (size_t)size, "ended with exit code %d", ending->code);
    return text;
}
