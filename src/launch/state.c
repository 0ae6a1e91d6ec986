/* The state as JSON, and the lock. */
#include "state.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include <jansson.h>

#include "pipetrain/clock.h"
#include "pipetrain/file.h"
#include "pipetrain/text.h"

enum { FORMAT = 1 };
/* How long a lock without a living launcher is waited for: between fork and exec a child of one
 * that was killed holds it still. */
static const int64_t LOCK_WAIT_NS = 2000000000, LOCK_PAUSE_NS = 20000000;

static pt_status no_memory(pt_error *err)
{
    return pt_fail(err, PT_ENOMEM, "no memory for the launcher's state");
}

static pt_status unpack(const char *text, size_t bytes, pt_state *ret_state, pt_error *err)
{
    json_error_t where;
    pt_state s = {.host = ""};
    const char *host = NULL, *mark = NULL, *session = NULL;
    json_int_t numbers[7];
    int format = 0;
    json_int_t launch = 0;
    json_t *hosts = NULL;
    json_t *json = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, &where);
    int bad =
        !json ||
        json_unpack_ex(json, &where, JSON_STRICT,
                       "{s:i, s:s, s:{s:I, s:I}, s:{s:I, s:I}, s:s, s:s, s:I, s:I, s:I, "
                       "s?I, s?o}",
                       "format", &format, "host", &host, "launcher", "pid", &numbers[0], "started",
                       &numbers[1], "mpirun", "pid", &numbers[2], "started", &numbers[3], "mark",
                       &mark, "session", &session, "starts", &numbers[4], "failures", &numbers[5],
                       "step", &numbers[6], "launch", &launch, "hosts", &hosts) != 0;
    if (!bad && (format != FORMAT || strlen(host) >= sizeof s.host ||
                 strlen(mark) >= sizeof s.mark || strlen(session) >= sizeof s.session))
        bad = 1;
    if (!bad) {
        strcpy(s.host, host);
        strcpy(s.mark, mark);
        strcpy(s.session, session);
        s.launcher = (pt_process){numbers[0], numbers[1]};
        s.mpirun = (pt_process){numbers[2], numbers[3]};
        s.starts = numbers[4];
        s.record = (pt_record){.failures = numbers[5], .step = numbers[6]};
        *ret_state = s;
    }
    json_decref(json);
    return bad ? pt_fail(err, PT_EINPUT,
                         "is not the state of a launcher, or not one of this version (line %d); "
                         "if nothing of its runs is alive, remove it",
                         where.line)
               : PT_OK;
}

pt_status pt_state_read(const char *folder, pt_state *ret_state, pt_error *err)
{
    char *path = pt_text_format("%s/state.json", folder), *text = NULL;
    size_t bytes = 0;
    if (!path)
        return no_memory(err);
    pt_status status = PT_OK;
    if (access(path, F_OK) != 0 && errno == ENOENT) {
        *ret_state = (pt_state){.record = {.step = -1}};
    } else {
        status = pt_text_read_file(path, &text, &bytes, err);
        if (status == PT_OK && unpack(text, bytes, ret_state, err) != PT_OK)
            status = pt_fail_within(err, "%s", path);
    }
    free(text);
    free(path);
    return status;
}

static json_t *hosts_of(const pt_state *s)
{
    json_t *list = json_array();
    for (int i = 0; i < s->hosts.n; i++)
        json_array_append_new(list,
                              json_pack("{s:I, s:s}", "number", (json_int_t)s->hosts.list[i].number,
                                        "name", s->hosts.list[i].name));
    return list;
}

pt_status pt_state_write(const char *folder, const pt_state *s, pt_error *err)
{
    char *path = pt_text_format("%s/state.json", folder);
    json_t *json = json_pack(
        "{s:i, s:s, s:{s:I, s:I}, s:{s:I, s:I}, s:s, s:s, s:I, s:I, s:I, s:I, s:o}", "format",
        FORMAT, "host", s->host, "launcher", "pid", (json_int_t)s->launcher.pid, "started",
        (json_int_t)s->launcher.started, "mpirun", "pid", (json_int_t)s->mpirun.pid, "started",
        (json_int_t)s->mpirun.started, "mark", s->mark, "session", s->session, "starts",
        (json_int_t)s->starts, "failures", (json_int_t)s->record.failures, "step",
        (json_int_t)s->record.step, "launch", (json_int_t)s->launch, "hosts", hosts_of(s));
    char *dump = json ? json_dumps(json, JSON_INDENT(1)) : NULL;
    char *text = dump ? pt_text_format("%s\n", dump) : NULL;
    pt_status status = path && text ? pt_file_write(path, text, strlen(text), err) : no_memory(err);
    json_decref(json);
    free(dump);
    free(text);
    free(path);
    return status;
}

static pt_status refuse(const char *folder, pt_error *err)
{
    pt_state state;
    pt_error ignored = {PT_OK, ""};
    if (pt_state_read(folder, &state, &ignored) != PT_OK || state.launcher.pid == 0)
        return pt_fail(err, PT_EINPUT, "%s: another launcher has begun here; end it first", folder);
    return pt_fail(err, PT_EINPUT,
                   "%s: the launcher with the pid %" PRId64 " on %s runs here; end it first "
                   "(kill %" PRId64 " has it checkpoint and stop), or give this run a --checkpoint "
                   "or --state of its own",
                   folder, state.launcher.pid, state.host, state.launcher.pid);
}

pt_status pt_state_lock(const char *folder, int *ret_lock, pt_error *err)
{
    PT_TRY(pt_file_make_folders(folder, err));
    char *path = pt_text_format("%s/lock", folder);
    int fd = path ? open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666) : -1;
    pt_status status = path ? PT_OK : no_memory(err);
    if (path && fd < 0)
        status = pt_fail(err, PT_EINPUT, "cannot write %s: %s", path, strerror(errno));
    free(path);
    PT_TRY(status);
    int64_t end = pt_clock_ns() + LOCK_WAIT_NS;
    while (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        pt_state state = {.host = ""};
        bool alive =
            pt_state_read(folder, &state, err) == PT_OK && pt_process_is_alive(&state.launcher);
        if (alive || pt_clock_ns() > end) {
            close(fd);
            return refuse(folder, err);
        }
        pt_clock_sleep_ns(LOCK_PAUSE_NS);
    }
    *ret_lock = fd;
    return PT_OK;
}
