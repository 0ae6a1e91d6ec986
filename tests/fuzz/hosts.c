/* hosts.json of a directory of checkpoints. */
#include <string.h>

#include "fuzz.h"
#include "pipetrain/store.h"

static void look_at(const pt_store_hosts *hosts, int i)
{
    const pt_store_host *host = &hosts->list[i];
    pt_error shown = {0};
    FUZZ_PROMISE(host->number > (i > 0 ? hosts->list[i - 1].number : 0));
    FUZZ_PROMISE(host->number < INT64_MAX && host->last_launch < INT64_MAX); /* have a next one */
    FUZZ_PROMISE(host->first_launch <= host->last_launch);
    FUZZ_PROMISE(pt_store_find_host(hosts, host->name) == host); /* and so no name is there twice */
    if (strlen(host->name) < sizeof shown.text) {
        pt_fail(&shown, PT_EINPUT, "%s", host->name);
        FUZZ_PROMISE(strcmp(shown.text, host->name) == 0); /* no message has to change it */
    }
}

bool fuzz_one(const uint8_t *data, size_t bytes)
{
    pt_store_hosts hosts = {NULL, 0};
    pt_error err = {0};
    bool good =
        fuzz_accepts(pt_store_parse_hosts((const char *)data, bytes, &hosts, &err), &err, "");
    FUZZ_PROMISE(good || hosts.n == 0);
    for (int i = 0; i < hosts.n; i++)
        look_at(&hosts, i);
    pt_store_clear_hosts(&hosts);
    return good;
}
