/* Lists of hosts. Asking them is in probe.c. */
#include "hosts.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "pipetrain/text.h"

enum { MOST_SLOTS = 65536 };

static pt_status no_memory(pt_error *err)
{
    return pt_fail(err, PT_ENOMEM, "no memory for the list of hosts");
}

static bool is_slots(const char *text, int *ret_slots)
{
    char *end = NULL;
    long n = strtol(text, &end, 10);
    bool ok = text[0] >= '0' && text[0] <= '9' && !*end && n > 0 && n <= MOST_SLOTS;
    if (ok)
        *ret_slots = (int)n;
    return ok;
}

static pt_status add(pt_hosts *hosts, const char *name, size_t length, int slots, pt_error *err)
{
    for (int i = 0; i < hosts->n; i++)
        if (strlen(hosts->list[i].name) == length && !strncmp(hosts->list[i].name, name, length))
            return pt_fail(err, PT_EINPUT, "the host %s is named twice; add its slots up",
                           hosts->list[i].name);
    pt_host *more = realloc(hosts->list, (size_t)(hosts->n + 1) * sizeof *more);
    if (!more)
        return no_memory(err);
    hosts->list = more;
    more[hosts->n] = (pt_host){.name = strndup(name, length), .slots = slots};
    if (!more[hosts->n].name)
        return no_memory(err);
    hosts->n++;
    return PT_OK;
}

/* "a:2". An address of IPv6 has more than one colon, and then no slots. */
static pt_status add_word(pt_hosts *hosts, const char *word, pt_error *err)
{
    const char *colon = strchr(word, ':');
    int slots = 1;
    if (colon && strchr(colon + 1, ':'))
        colon = NULL;
    size_t length = colon ? (size_t)(colon - word) : strlen(word);
    if (length == 0 || word[0] == '-' || strpbrk(word, " \t"))
        return pt_fail(err, PT_EINPUT, "\"%s\" names no host; write NAME or NAME:SLOTS", word);
    if (colon && !is_slots(colon + 1, &slots))
        return pt_fail(err, PT_EINPUT, "%s: \"%s\" is no number of slots; write NAME:2", word,
                       colon + 1);
    return add(hosts, word, length, slots, err);
}

pt_status pt_hosts_parse(const char *text, pt_hosts *ret_hosts, pt_error *err)
{
    pt_hosts hosts = {NULL, 0};
    char *copy = strdup(text);
    pt_status status = copy ? PT_OK : no_memory(err);
    for (char *rest = copy, *word; status == PT_OK && (word = strsep(&rest, ","));)
        status = add_word(&hosts, word, err);
    free(copy);
    if (status == PT_OK)
        *ret_hosts = hosts;
    else
        pt_hosts_clear(&hosts);
    return status;
}

static pt_status add_line(pt_hosts *hosts, char *line, pt_error *err)
{
    static const char blanks[] = " \t\r", key[] = "slots=";
    char *rest = NULL;
    line[strcspn(line, "#")] = 0;
    char *name = strtok_r(line, blanks, &rest);
    if (!name)
        return PT_OK;
    int slots = 1;
    for (char *word; (word = strtok_r(NULL, blanks, &rest));)
        if (strncmp(word, key, sizeof key - 1) != 0 || !is_slots(word + sizeof key - 1, &slots))
            return pt_fail(err, PT_EINPUT, "\"%s\" is not understood; write: %s slots=2", word,
                           name);
    return add(hosts, name, strlen(name), slots, err);
}

pt_status pt_hosts_read(const char *path, pt_hosts *ret_hosts, pt_error *err)
{
    pt_hosts hosts = {NULL, 0};
    char *text = NULL;
    size_t bytes = 0;
    int number = 0;
    PT_TRY(pt_text_read_file(path, &text, &bytes, err));
    pt_status status = PT_OK;
    for (char *rest = text, *line; status == PT_OK && (line = strsep(&rest, "\n")); number++)
        status = add_line(&hosts, line, err);
    free(text);
    if (status != PT_OK)
        pt_fail_within(err, "%s:%d", path, number);
    else if (hosts.n == 0)
        status = pt_fail(err, PT_EINPUT, "%s: names no host; write one a line: NAME slots=2", path);
    if (status == PT_OK)
        *ret_hosts = hosts;
    else
        pt_hosts_clear(&hosts);
    return status;
}

void pt_hosts_clear(pt_hosts *hosts)
{
    for (int i = 0; i < hosts->n; i++)
        free(hosts->list[i].name);
    free(hosts->list);
    *hosts = (pt_hosts){NULL, 0};
}

bool pt_host_is_local(const char *name)
{
    static const char *const always[] = {"localhost", "127.0.0.1", "::1"};
    char own[HOST_NAME_MAX + 1] = "";
    for (size_t i = 0; i < sizeof always / sizeof *always; i++)
        if (strcmp(name, always[i]) == 0)
            return true;
    gethostname(own, sizeof own - 1);
    if (strcmp(name, own) == 0)
        return true;
    own[strcspn(own, ".")] = 0;
    return strcmp(name, own) == 0;
}

int pt_hosts_slots(const pt_hosts *hosts)
{
    int slots = 0;
    for (int i = 0; i < hosts->n; i++)
        slots += hosts->list[i].is_left ? 0 : hosts->list[i].slots;
    return slots;
}

char *pt_hosts_argument(const pt_hosts *hosts)
{
    char *text = strdup("");
    for (int i = 0; text && i < hosts->n; i++) {
        const pt_host *host = &hosts->list[i];
        if (host->is_left)
            continue;
        char *longer = pt_text_format("%s%s%s:%d", text, *text ? "," : "", host->name, host->slots);
        free(text);
        text = longer;
    }
    return text;
}
