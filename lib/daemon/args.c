#include "daemon/args.h"

#include <argp.h>
#include <errno.h>
#include <sysexits.h>

#include "daemon/crash.h"
#include "daemon/lifecycle.h"
#include "version.h"

enum { KEY_DIE = 0x1000 };      /* above ASCII: no short option */

static const struct {
    struct argp_option option;
    unsigned takes;             /* 0: every daemon */
} all_options[] = {
    {{"join", 'j', "ENDPOINT", 0, "the coordinator: ipc://PATH, tcp://HOST:PORT, or file:PATH of an endpoint file", 0},
     ARGS_JOIN},
    {{"run-dir", 'r', "DIR", 0, "the run directory", 0}, ARGS_RUN_DIR},
    {{"config", 'c', "FILE", 0, "the run's configuration (default: config.yaml in the run directory)", 0}, ARGS_CONFIG},
    {{"device", 'd', "DEVICE", 0, "cpu or cuda:N (default: cpu)", 0}, ARGS_DEVICE},
    {{"threads", 't', "N", 0, "compute threads, 1 to 256", 0}, ARGS_THREADS},
    {{"slots", 's', "K", 0, "episodes played at once, 1 to 64", 0}, ARGS_SLOTS},
    {{"listen", 'l', "ADDRESS", 0, "where to listen: ipc://PATH or tcp://HOST:PORT (default: in the run directory)", 0},
     ARGS_LISTEN},
    {{"key", 'k', "FILE", 0, "our secret key, for members on other hosts (gantry keys add)", 0}, ARGS_KEY},
    {{"cache", 'C', "DIR", 0, "keep versions here that are brought over from the learner, where the run directory is not seen "
      "(default: $CACHE_DIRECTORY, or ~/.cache/gantry)", 0}, ARGS_CACHE},
    {{"rank", 'R', "R", 0, "learner rank, from 0", 0}, ARGS_RANK},
    {{"name", 'n', "NAME", 0, "tells two of a kind apart; a worker started again as NAME (or NAME#LIFE) takes its earlier life's "
      "place", 0}, ARGS_NAME},
    {{"render", 'g', "WHERE", 0, "software, auto, or the number of an EGL device (default: software)", 0}, ARGS_RENDER},
    {{"simulator", 'S', "COMMAND", 0, "suite remote: this command or unix:PATH, whatever the run's configuration says", 0},
     ARGS_SIMULATOR},
    {{"log-level", 'L', "LEVEL", 0, "error, warn, info or debug (default: info, or $GANTRY_LOG_LEVEL)", 0}, 0},
    {{"die-with-parent", KEY_DIE, NULL, 0, "be killed when the parent process dies", 0}, 0},
};

struct parsing {
    const struct args_about *about;
    struct args *args;
};

static unsigned parse_number(struct argp_state *state, const char *text, const char *option, unsigned min, unsigned max)
{
    char *end;
    unsigned long n;

    errno = 0;
    n = strtoul(text, &end, 10);
    if (errno || end == text || *end || text[0] == '-' || n < min || n > max)
        argp_error(state, "--%s: '%s' is not a number from %u to %u", option, text, min, max);
    return (unsigned)n;
}

static void check_needed(struct argp_state *state, const struct parsing *p)
{
    const struct args *a = p->args;
    unsigned given = (a->join ? ARGS_JOIN : 0) | (a->run_dir ? ARGS_RUN_DIR : 0) | (a->config ? ARGS_CONFIG : 0) |
                     (a->device ? ARGS_DEVICE : 0) | (a->threads ? ARGS_THREADS : 0) | (a->slots ? ARGS_SLOTS : 0) |
                     (a->listen ? ARGS_LISTEN : 0) | (a->name ? ARGS_NAME : 0) | (a->render ? ARGS_RENDER : 0) |
                     (a->key ? ARGS_KEY : 0) | (a->simulator ? ARGS_SIMULATOR : 0) | (a->cache ? ARGS_CACHE : 0) | ARGS_RANK;

    for (size_t i = 0; i < ARRAY_SIZE(all_options); i++)
        if (all_options[i].takes & p->about->needs & ~given)
            argp_error(state, "--%s is needed", all_options[i].option.name);
}

static error_t parse_option(int key, char *value, struct argp_state *state)
{
    struct parsing *p = state->input;
    struct args *a = p->args;

    switch (key) {
    case 'j': a->join = value; return 0;
    case 'r': a->run_dir = value; return 0;
    case 'c': a->config = value; return 0;
    case 'd': a->device = value; return 0;
    case 'l': a->listen = value; return 0;
    case 'n': a->name = value; return 0;
    case 'k': a->key = value; return 0;
    case 'C': a->cache = value; return 0;
    case 'g': a->render = value; return 0;
    case 'S': a->simulator = value; return 0;
    case 't': a->threads = parse_number(state, value, "threads", 1, 256); return 0;
    case 's': a->slots = parse_number(state, value, "slots", 1, 64); return 0;
    case 'R': a->rank = parse_number(state, value, "rank", 0, 1023); return 0;
    case 'L':
        if (log_level_parse(value, &a->log_level) < 0)
            argp_error(state, "--log-level: '%s' is not error, warn, info or debug", value);
        return 0;
    case KEY_DIE: a->die_with_parent = true; return 0;
    case ARGP_KEY_ARG: argp_error(state, "'%s': no argument is expected, only options", value); return 0;
    case ARGP_KEY_END: check_needed(state, p); return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static void print_version(FILE *out, struct argp_state *state)
{
    fprintf(out, "%s %s\n", state->name, GANTRY_BUILD);
}

void args_parse(int argc, char **argv, const struct args_about *about, struct args *ret)
{
    struct argp_option options[ARRAY_SIZE(all_options) + 1] = {{0}};
    struct argp argp = {.options = options, .parser = parse_option, .doc = about->doc};
    struct args args = {.log_level = LOG_LEVEL_INFO};
    struct parsing parsing = {about, &args};
    const char *level = getenv("GANTRY_LOG_LEVEL");
    size_t n = 0;

    lifecycle_limits();
    for (size_t i = 0; i < ARRAY_SIZE(all_options); i++)
        if (!all_options[i].takes || all_options[i].takes & about->takes)
            options[n++] = all_options[i].option;
    if (level && log_level_parse(level, &args.log_level) < 0)
        log_warn("GANTRY_LOG_LEVEL not understood, taking info", "value=%s", LOG_Q(level));
    argp_program_version_hook = print_version;
    argp_err_exit_status = EX_USAGE;
    argp_parse(&argp, argc, argv, 0, NULL, &parsing);
    log_open(about->role);
    log_set_level(args.log_level);
    crash_install(about->role, GANTRY_BUILD);
    if (args.die_with_parent && lifecycle_die_with_parent() < 0) {
        log_error("the parent process is gone already", "role=%s", about->role);
        exit(EXIT_FAILURE);
    }
    *ret = args;
}
