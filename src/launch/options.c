/* Options as rows, and what the words behind "--" must hold. */
#include "options.h"

#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "pipetrain/text.h"

#define AT(field) offsetof(pt_launch_options, field)

static const char FAILURES[] = "Failures", HOSTS[] = "Hosts", PLACES[] = "Places", HELP[] = "Help";
static const char PROBE[] = "ssh -o BatchMode=yes -o ConnectTimeout=5 \"$1\" true";

static const pt_option rows[] = {
    {.name = "restarts",
     .group = FAILURES,
     .type = PT_OPTION_INT,
     .offset = AT(restarts),
     .argument = "N",
     .min = 0,
     .max = 1e9,
     .help = "Restart so often without a new committed step in between, then give up."},
    {.name = "backoff-max",
     .group = FAILURES,
     .type = PT_OPTION_REAL,
     .offset = AT(backoff_max),
     .argument = "SECONDS",
     .min = 0,
     .max = 1e6,
     .help =
         "The first restart behind a new committed step comes at once, the next ones after 1, 2, "
         "4 … seconds, but no more than this."},
    {.name = "stall",
     .group = FAILURES,
     .type = PT_OPTION_TEXT,
     .offset = AT(stall_text),
     .argument = "SECONDS|auto|off",
     .help =
         "How long training may make no progress: then the program says what each rank waits "
         "for and ends, or, two seconds later, is ended. auto: 5 seconds or 10 times the median "
         "step, whichever is longer. Also read from PIPETRAIN_STALL."},
    {.name = "start-limit",
     .group = FAILURES,
     .type = PT_OPTION_REAL,
     .offset = AT(start_limit),
     .argument = "SECONDS",
     .min = 0,
     .max = 1e6,
     .help = "How long it may take until the first step is done. 0: for ever."},
    {.name = "hosts",
     .group = HOSTS,
     .type = PT_OPTION_TEXT,
     .offset = AT(hosts_text),
     .argument = "A:2,B:2",
     .help = "Hosts and how many ranks each takes. Before every launch they are asked whether they "
             "can be reached; the others train, with as many ranks as they have slots."},
    {.name = "hostfile",
     .group = HOSTS,
     .type = PT_OPTION_TEXT,
     .offset = AT(hostfile),
     .argument = "FILE",
     .help = "The same from a file with lines such as: A slots=2"},
    {.name = "min",
     .group = HOSTS,
     .type = PT_OPTION_INT,
     .offset = AT(min),
     .argument = "N",
     .min = 1,
     .max = 65536,
     .help = "With --hosts or --hostfile: start nothing with fewer ranks than this."},
    {.name = "probe",
     .group = HOSTS,
     .type = PT_OPTION_TEXT,
     .offset = AT(probe),
     .argument = "COMMAND",
     .help = "With --hosts or --hostfile: a line for /bin/sh that succeeds if the host $1 can be "
             "reached. This machine is not asked."},
    {.name = "state",
     .group = PLACES,
     .type = PT_OPTION_TEXT,
     .offset = AT(state),
     .argument = "DIR",
     .help = "Where the launcher keeps what another one needs to go on if this one is killed. Not "
             "given: the folder launcher in the program's --checkpoint."},
    {.name = "mpirun",
     .group = PLACES,
     .type = PT_OPTION_TEXT,
     .offset = AT(mpirun),
     .argument = "PATH",
     .help = "Open MPI's mpirun."},
    {.name = "help",
     .group = HELP,
     .type = PT_OPTION_FLAG,
     .offset = AT(help),
     .help = "Print this text and exit."},
    {.name = "version",
     .group = HELP,
     .type = PT_OPTION_FLAG,
     .offset = AT(version),
     .help = "Print the version and exit."},
};

enum { N_ROWS = sizeof rows / sizeof *rows };
_Static_assert(N_ROWS <= (int)PT_LAUNCH_MOST_OPTIONS, "sources has room for every row");

static pt_launch_options defaults(void)
{
    return (pt_launch_options){.restarts = 5,
                               .backoff_max = 60,
                               .min = 1,
                               .start_limit = 300,
                               .stall_text = "auto",
                               .probe = (char *)(uintptr_t)PROBE,
                               .mpirun = "mpirun"};
}

void pt_launch_options_help(FILE *out)
{
    fputs(
        "pipetrain-launch " PT_VERSION ": starts a training, watches it, and starts it again from "
        "its last\ncheckpoint when it fails.\n\n"
        "  pipetrain-launch [options] -- [mpirun's options] ./pipetrain [PARTITION.yaml] "
        "--checkpoint DIR\n                                --resume DIR [options]\n\n"
        "It restarts a run of which a rank or mpirun was killed or sent SIGTERM, which hangs, or "
        "which\nended with an error. It does not restart one that is done, was refused (exit code "
        "2) or was\nstopped. It may itself be killed: the same line again ends what is left of the "
        "run and goes on.\n\n"
        "Ctrl-C, SIGTERM or SIGUSR1: checkpoint, then stop (exit code 75; the same line goes on); "
        "at once\nwhere training has not begun. Ctrl-C again: end now (130).\n\n"
        "Examples\n"
        "  pipetrain-launch -- -np 2 ./pipetrain --checkpoint ck --resume ck --every 100\n"
        "  pipetrain-launch --hosts a:4,b:4 --min 4 -- ./pipetrain --checkpoint ck --resume ck\n\n",
        out);
    pt_launch_options d = defaults();
    pt_options_help(rows, N_ROWS, &d, out);
    fputs(
        "\nExit status: what the program ends with (0 done, 2 bad usage or input, 75 stopped with "
        "a\ncheckpoint), 130 when the launcher was told to end now, or 1 when restarts are used "
        "up.\n",
        out);
}

/* ---- the words for mpirun ------------------------------------------------------------------- */

/* The value of --name in the words, the last one as the program reads it; NULL: it is not there. */
static const char *value_of(char *const *words, const char *name)
{
    const char *value = NULL;
    size_t length = strlen(name);
    for (int i = 0; words[i]; i++) {
        const char *word = words[i];
        if (strncmp(word, "--", 2) != 0 || strncmp(word + 2, name, length) != 0)
            continue;
        if (word[2 + length] == '=')
            value = word + 2 + length + 1;
        else if (!word[2 + length] && words[i + 1])
            value = words[i + 1];
    }
    return value;
}

/* Places of ranks belong to the launcher once it has been told of hosts. */
static const char *word_about_places(char *const *words)
{
    static const char *const names[] = {"np",       "-np",       "n",           "-n",
                                        "c",        "host",      "-host",       "H",
                                        "hostfile", "-hostfile", "machinefile", "-machinefile"};
    for (int i = 0; words[i]; i++)
        for (size_t k = 0; words[i][0] == '-' && k < sizeof names / sizeof *names; k++)
            if (strcmp(words[i] + 1, names[k]) == 0)
                return words[i];
    return NULL;
}

static pt_status check_words(pt_launch_options *o, pt_error *err)
{
    static const char example[] = "write: pipetrain-launch [options] -- [mpirun's options] "
                                  "./pipetrain --checkpoint DIR --resume DIR …";
    if (!o->words || !o->words[0])
        return pt_fail(err, PT_EINPUT, "there is nothing to start; %s", example);
    if (strcmp(o->words[0], "mpirun") == 0)
        return pt_fail(err, PT_EINPUT,
                       "the launcher starts mpirun by itself: leave that word out; %s", example);
    const char *checkpoint = value_of(o->words, "checkpoint");
    const char *resume = value_of(o->words, "resume");
    if (!checkpoint || !*checkpoint)
        return pt_fail(err, PT_EINPUT,
                       "a run without checkpoints cannot be restarted: add --checkpoint DIR "
                       "--resume DIR to pipetrain's options");
    if (!resume)
        return pt_fail(err, PT_EINPUT,
                       "a restart would begin from the beginning: add --resume %s to pipetrain's "
                       "options; the first start takes it, too",
                       checkpoint);
    if (strcmp(resume, checkpoint) != 0)
        return pt_fail(
            err, PT_EINPUT,
            "--resume %s, but --checkpoint %s: a restart would not go on from the newest "
            "step; write the same directory for both",
            resume, checkpoint);
    o->checkpoint = strdup(checkpoint);
    return o->checkpoint ? PT_OK : pt_fail(err, PT_ENOMEM, "no memory for a path");
}

/* ---- what goes together --------------------------------------------------------------------- */

static bool is_given(const pt_launch_options *o, const char *name)
{
    return pt_options_source(&o->table, name) != PT_FROM_DEFAULT;
}

static pt_status settle_hosts(pt_launch_options *o, pt_error *err)
{
    static const char *const wanting[] = {"min", "probe"};
    if (o->hosts_text && o->hostfile)
        return pt_fail(err, PT_EINPUT, "--hosts and --hostfile say the same: write one of them");
    for (size_t i = 0; i < sizeof wanting / sizeof *wanting; i++)
        if (!o->hosts_text && !o->hostfile && is_given(o, wanting[i]))
            return pt_fail(err, PT_EINPUT, "--%s goes with --hosts or --hostfile", wanting[i]);
    if (!o->hosts_text && !o->hostfile)
        return PT_OK;
    if (o->hosts_text && pt_hosts_parse(o->hosts_text, &o->hosts, err) != PT_OK)
        return pt_fail_within(err, "--hosts");
    if (o->hostfile && pt_hosts_read(o->hostfile, &o->hosts, err) != PT_OK)
        return pt_fail_within(err, "--hostfile");
    const char *word = word_about_places(o->words);
    if (word)
        return pt_fail(
            err, PT_EINPUT,
            "%s behind --: with --hosts the launcher tells mpirun hosts and ranks; leave "
            "it out",
            word);
    if (o->min > pt_hosts_slots(&o->hosts))
        return pt_fail(err, PT_EINPUT, "--min %lld: the hosts have %d slots in all",
                       (long long)o->min, pt_hosts_slots(&o->hosts));
    return PT_OK;
}

/* Said to the program, to the launcher, or by the environment. */
static pt_status settle_stall(pt_launch_options *o, pt_error *err)
{
    const char *where = "--stall", *said = value_of(o->words, "stall");
    const char *environment = getenv("PIPETRAIN_STALL");
    if (said && is_given(o, "stall"))
        return pt_fail(err, PT_EINPUT, "--stall is said twice: leave it out behind --");
    if (!said && !is_given(o, "stall") && environment) {
        where = "PIPETRAIN_STALL";
        said = environment;
    }
    char *copy = strdup(said ? said : o->stall_text);
    if (!copy)
        return pt_fail(err, PT_ENOMEM, "no memory for a word");
    free(o->stall_text);
    o->stall_text = copy;
    return pt_stall_parse(where, copy, &o->stall, err);
}

static pt_status settle_state(pt_launch_options *o, pt_error *err)
{
    if (o->state && !*o->state)
        return pt_fail(err, PT_EINPUT, "--state: write the name of a directory");
    if (!o->state)
        o->state = pt_text_format("%s/launcher", o->checkpoint);
    return o->state ? PT_OK : pt_fail(err, PT_ENOMEM, "no memory for a path");
}

pt_status pt_launch_options_read(pt_launch_options *o, int argc, char *const argv[], pt_error *err)
{
    int own = 1, n = 0;
    const char *none = NULL;
    while (own < argc && strcmp(argv[own], "--") != 0)
        own++;
    *o = defaults();
    o->words = own < argc ? argv + own + 1 : NULL;
    o->table = (pt_options){.rows = rows, .n_rows = N_ROWS, .settings = o, .sources = o->sources};
    PT_TRY(pt_options_own(&o->table, err));
    if (pt_options_parse(&o->table, own, argv, /*max_positional=*/0, &none, &n, err) != PT_OK)
        return o->words ? err->code
                        : pt_fail(err, err->code,
                                  "%s (mpirun's options and the program stand "
                                  "behind --)",
                                  err->text);
    if (o->help || o->version)
        return PT_OK;
    PT_TRY(check_words(o, err));
    PT_TRY(settle_hosts(o, err));
    PT_TRY(settle_stall(o, err));
    return settle_state(o, err);
}

void pt_launch_options_clear(pt_launch_options *o)
{
    pt_options_clear(&o->table);
    pt_hosts_clear(&o->hosts);
    free(o->checkpoint);
    o->checkpoint = NULL;
}
