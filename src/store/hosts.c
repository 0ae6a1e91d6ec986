/* hosts.json: the list of hosts. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <jansson.h>

#include "internal.h"
#include "pipetrain/file.h"
#include "pipetrain/store.h"
#include "pipetrain/text.h"

#define HOSTS "hosts.json"

static pt_status no_memory(pt_error *err)
{
    return pt_fail(err, PT_ENOMEM, "no memory for the list of hosts");
}

void pt_store_clear_hosts(pt_store_hosts *hosts)
{
    for (int i = 0; i < hosts->n; i++)
        free(hosts->list[i].name);
    free(hosts->list);
    *hosts = (pt_store_hosts){NULL, 0};
}

static pt_store_host *find(const pt_store_hosts *hosts, const char *name)
{
    for (int i = 0; i < hosts->n; i++)
        if (strcmp(hosts->list[i].name, name) == 0)
            return &hosts->list[i];
    return NULL;
}

const pt_store_host *pt_store_find_host(const pt_store_hosts *hosts, const char *name)
{
    return find(hosts, name);
}

static pt_status add(pt_store_hosts *hosts, const char *name, int64_t number, int64_t first,
                     int64_t last, pt_error *err)
{
    pt_store_host *more = realloc(hosts->list, (size_t)(hosts->n + 1) * sizeof *more);
    char *copy = strdup(name);
    if (more)
        hosts->list = more;
    if (!more || !copy) {
        free(copy);
        return no_memory(err);
    }
    more[hosts->n++] = (pt_store_host){number, copy, first, last};
    return PT_OK;
}

/* ---- reading ----------------------------------------------------------------------------------
 */

/* Names are shown on terminals: none of the control characters, in UTF-8 (as in base/status.c). */
static bool is_name(const char *text)
{
    for (const unsigned char *c = (const unsigned char *)text; *c; c++)
        if (*c < ' ' || *c == 0x7f || (c[0] == 0xc2 && c[1] >= 0x80 && c[1] < 0xa0))
            return false;
    return *text;
}

/* A number twice, or one that is less than the one before, is no list that was written here. */
static pt_status take(pt_store_hosts *hosts, json_t *json, pt_error *err)
{
    json_int_t number = 0, first = 0, last = 0;
    const char *name = NULL;
    json_int_t before = hosts->n > 0 ? hosts->list[hosts->n - 1].number : 0;
    if (json_unpack(json, "{s:I, s:s, s:I, s:I !}", "number", &number, "name", &name,
                    "first_launch", &first, "last_launch", &last) != 0 ||
        number <= before || number > PT_STORE_MOST || !is_name(name) || find(hosts, name) ||
        first < 0 || first > last || last > PT_STORE_MOST)
        return pt_fail(err, PT_EINPUT, "entry %d of the list is none of a host", hosts->n);
    return add(hosts, name, number, first, last, err);
}

pt_status pt_store_parse_hosts(const char *text, size_t bytes, pt_store_hosts *ret_hosts,
                               pt_error *err)
{
    json_error_t where;
    json_t *list = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, &where);
    pt_store_hosts hosts = {NULL, 0};
    pt_status status = PT_OK;
    if (!json_is_array(list))
        status = pt_fail(err, PT_EINPUT, "it holds no list of hosts");
    for (size_t i = 0; status == PT_OK && i < json_array_size(list); i++)
        status = take(&hosts, json_array_get(list, i), err);
    json_decref(list);
    if (status == PT_OK)
        *ret_hosts = hosts;
    else
        pt_store_clear_hosts(&hosts);
    return status;
}

pt_status pt_store_read_hosts(const char *dir, pt_store_hosts *ret_hosts, pt_error *err)
{
    char *path = pt_text_format("%s/" HOSTS, dir), *text = NULL;
    size_t bytes = 0;
    if (!path)
        return no_memory(err);
    *ret_hosts = (pt_store_hosts){NULL, 0};
    pt_status status = PT_OK;
    if (access(path, F_OK) == 0 || errno != ENOENT)
        status = pt_text_read_file(path, &text, &bytes, err);
    if (text)
        status = pt_store_parse_hosts(text, bytes, ret_hosts, err);
    if (text && status == PT_EINPUT)
        pt_fail_within(err, "%s cannot be used; remove it to number hosts from 1 again", path);
    free(text);
    free(path);
    return status;
}

/* ---- joining ----------------------------------------------------------------------------------
 */

static pt_status join(pt_store_hosts *hosts, const char *name, int64_t launch, pt_error *err)
{
    pt_store_host *known = find(hosts, name);
    if (!known) {
        int64_t next = hosts->n > 0 ? hosts->list[hosts->n - 1].number + 1 : 1;
        return add(hosts, name, next, launch, launch, err);
    }
    known->last_launch = launch > known->last_launch ? launch : known->last_launch;
    return PT_OK;
}

static char *print(const pt_store_hosts *hosts)
{
    json_t *list = json_array();
    for (int i = 0; i < hosts->n; i++) {
        const pt_store_host *h = &hosts->list[i];
        json_array_append_new(list, json_pack("{s:I, s:s, s:I, s:I}", "number",
                                              (json_int_t)h->number, "name", h->name,
                                              "first_launch", (json_int_t)h->first_launch,
                                              "last_launch", (json_int_t)h->last_launch));
    }
    bool whole = json_array_size(list) == (size_t)hosts->n;
    char *dump = whole ? json_dumps(list, JSON_INDENT(1)) : NULL;
    char *text = dump ? pt_text_format("%s\n", dump) : NULL;
    free(dump);
    json_decref(list);
    return text;
}

pt_status pt_store_join_hosts(const char *dir, int64_t launch, const char *const *names, int n,
                              pt_store_hosts *hosts, pt_error *err)
{
    for (int i = 0; i < n; i++)
        PT_TRY(join(hosts, names[i], launch, err));
    char *path = pt_text_format("%s/" HOSTS, dir), *text = print(hosts);
    pt_status status = path && text ? pt_file_write(path, text, strlen(text), err) : no_memory(err);
    free(text);
    free(path);
    return status;
}
