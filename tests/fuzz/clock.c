/* Stage times for the clock backend. */
#include "../../src/run/clock_times.h"

#include "fuzz.h"

enum { STAGES = 3 };
#define MOST_US 1e9

static bool in_range(double us)
{
    return us >= 0 && us <= MOST_US;
}

bool fuzz_one(const uint8_t *data, size_t bytes)
{
    pt_stage_cost costs[STAGES] = {{0}};
    pt_error err = {0};
    if (!fuzz_accepts(pt_clock_parse("t.csv", (const char *)data, bytes, STAGES, costs, &err), &err,
                      "t.csv"))
        return false;
    for (int s = 0; s < STAGES; s++) {
        FUZZ_PROMISE(in_range(costs[s].forward) && in_range(costs[s].update));
        FUZZ_PROMISE(in_range(costs[s].backward_input) && in_range(costs[s].backward_weight));
    }
    return true;
}
