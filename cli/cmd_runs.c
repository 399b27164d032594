/* cmd_runs.c - `gantry runs`: what runs a directory has, how far each is and what its evaluation found. */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <getopt.h>
#include <jansson.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/json_write.h"
#include "cli/cli.h"
#include "cli/json_at.h"
#include "cli/run_socket.h"
#include "cli/run_stages.h"
#include "run/rundir.h"

enum { STATE_TEXT = 400 };

struct row {
    char dir[PATH_MAX];
    const char *state;          /* running, finished, stopped (by itself), down (before its end), new, unknown (text: why) */
    char text[STATE_TEXT];      /* for people: the state, and where */
    double before, after;       /* success on test states, imitation and the last policy; NAN: not known */
    time_t changed;
};

static int usage(FILE *out, int status)
{
    fprintf(out, "usage: gantry runs [--json] [DIR]\n"
                 "What runs there are in DIR (default runs/), how far each is, and its success on test states: of\n"
                 "imitation and of the last policy, from its own evaluation. The one that changed last comes first.\n");
    return status;
}

static double share(const json_t *object, const char *key)
{
    double value = number_at(object, key);

    return value >= 0 && value <= 1 ? value : NAN;
}

/* What its coordinator says. False: none answers. */
static bool ask(struct row *row)
{
    _cleanup_free_ char *text = NULL;
    json_t *status;

    if (run_socket_call(row->dir, "status", &text, NULL) < 0 || !(status = json_loads(text, 0, NULL)))
        return false;
    row->state = "running";
    snprintf(row->text, sizeof row->text, "%.80s: %.80s, stage %.0f of %.0f", text_at(status, "state"), text_at(status, "title"),
             number_at(status, "stage_number") + 1, number_at(status, "stages"));
    row->changed = time(NULL);
    json_decref(status);
    return true;
}

/* From config.yaml and the ledger. */
static int read_ledger(struct row *row, struct error *error)
{
    _cleanup_free_ struct run_config *config = malloc(sizeof *config);
    struct run_stages stages;
    char path[RUN_PATH];
    int r = rundir_path(row->dir, "config.yaml", path, error);

    if (!config)
        return -ENOMEM;
    if (r == 0)
        r = run_config_load(path, config, error);
    if (r == 0)
        r = rundir_path(row->dir, "ledger.sqlite", path, error);
    if (r == 0 && access(path, F_OK) < 0) {
        row->state = "new";
        snprintf(row->text, sizeof row->text, "not begun");
        return 0;
    }
    if (r == 0)
        r = run_stages_read(row->dir, config, &stages, error);
    if (r < 0)
        return r;
    if (run_stages_all(&stages)) {
        row->state = "finished";
        snprintf(row->text, sizeof row->text, "finished%s", stages.later_open ? "; an evaluation of it has not ended" : "");
        return 0;
    }
    row->state = stages.stopped[0] ? "stopped" : "down";
    snprintf(row->text, sizeof row->text, "%s%s%s, %d of %d stages are done%s%s", row->state, stages.next[0] ? " in " : "",
             stages.next, stages.done, stages.of, stages.stopped[0] ? ": " : "", stages.stopped);
    return 0;
}

static void fill(const char *dir, struct row *row)
{
    struct error error = {0};
    char path[PATH_MAX + 16];
    struct stat st = {0};
    json_t *summary;
    int r;

    *row = (struct row) {.before = NAN, .after = NAN};
    snprintf(row->dir, sizeof row->dir, "%s", dir);
    snprintf(path, sizeof path, "%s/ledger.sqlite", dir);
    if (stat(path, &st) == 0)
        row->changed = st.st_mtime;
    snprintf(path, sizeof path, "%s/summary.json", dir);
    summary = json_load_file(path, 0, NULL);
    row->before = share(summary, "success_before");
    row->after = share(summary, "success_after");
    json_decref(summary);
    if (ask(row) || (r = read_ledger(row, &error)) == 0)
        return;
    row->state = "unknown";
    snprintf(row->text, sizeof row->text, "%s", error_text(&error, r));
}

static int newest_first(const void *a, const void *b)
{
    const struct row *x = a, *y = b;

    return x->changed != y->changed ? (x->changed < y->changed) - (x->changed > y->changed) : strcmp(x->dir, y->dir);
}

static void percent(double value, char ret[8])
{
    snprintf(ret, 8, isnan(value) ? "-" : "%.1f", 100 * value);
}

/* One line a run, whatever a directory is called. */
static void without_controls(char *text)
{
    for (; *text; text++)
        if (iscntrl((unsigned char)*text))
            *text = '?';
}

static void print_table(struct row *rows, size_t n)
{
    int widest = 3;

    for (size_t i = 0; i < n; i++) {
        without_controls(rows[i].dir);
        without_controls(rows[i].text);
        widest = MAX(widest, (int)strlen(rows[i].dir));
    }
    printf("%-*s  %-16s  %9s  %6s  %s\n", widest, "run", "changed", "imitation", "last", "state");
    for (size_t i = 0; i < n; i++) {
        char before[8], after[8], when[24] = "-";
        struct tm tm;

        if (rows[i].changed && localtime_r(&rows[i].changed, &tm))
            strftime(when, sizeof when, "%Y-%m-%d %H:%M", &tm);
        percent(rows[i].before, before);
        percent(rows[i].after, after);
        printf("%-*s  %-16s  %9s  %6s  %s\n", widest, rows[i].dir, when, before, after, rows[i].text);
    }
}

static int print_json(const struct row *rows, size_t n)
{
    _cleanup_(strbuf_release) struct strbuf out = STRBUF_INIT;
    struct json_writer w = {.out = &out};

    json_open(&w, NULL, '[');
    for (size_t i = 0; i < n; i++) {
        json_open(&w, NULL, '{');
        json_text(&w, "dir", rows[i].dir);
        json_text(&w, "state", rows[i].state);
        json_text(&w, "text", rows[i].text);
        json_number(&w, "success_before", rows[i].before);
        json_number(&w, "success_after", rows[i].after);
        json_signed(&w, "changed", rows[i].changed);
        json_close(&w, '}');
    }
    json_close(&w, ']');
    if (out.failed)
        return -ENOMEM;
    puts(out.text);
    return 0;
}

static bool is_run(const char *dir)
{
    static const char *const signs[] = {"config.yaml", "ledger.sqlite"};
    char path[PATH_MAX];

    for (size_t i = 0; i < ARRAY_SIZE(signs); i++)
        if (snprintf(path, sizeof path, "%s/%s", dir, signs[i]) < (int)sizeof path && access(path, F_OK) == 0)
            return true;
    return false;
}

static int add(const char *dir, struct row **rows, size_t *n)
{
    struct row *larger = realloc(*rows, (*n + 1) * sizeof *larger);

    if (!larger)
        return -ENOMEM;
    *rows = larger;
    fill(dir, &larger[(*n)++]);
    return 0;
}

/* The runs that lie in it; of a run, that one. */
static int find(const char *dir, struct row **rows, size_t *n, struct error *error)
{
    struct dirent *entry;
    DIR *directory;
    int r = 0;

    if (is_run(dir))
        return add(dir, rows, n);
    directory = opendir(dir);
    if (!directory)
        return error_set(error, errno, "%s: %s; name a directory that has runs in it", dir, strerror(errno));
    while (r == 0 && (entry = readdir(directory))) {
        char path[PATH_MAX];

        if (entry->d_name[0] != '.' && snprintf(path, sizeof path, "%s/%s", dir, entry->d_name) < (int)sizeof path && is_run(path))
            r = add(path, rows, n);
    }
    closedir(directory);
    return r;
}

int cmd_runs(int argc, char **argv)
{
    static const struct option options[] = {{"json", no_argument, NULL, 'j'}, {"help", no_argument, NULL, 'h'}, {0}};
    _cleanup_free_ struct row *rows = NULL;
    struct error error = {0};
    bool json = false;
    const char *dir;
    size_t n = 0;
    int option, r;

    while ((option = getopt_long(argc, argv, "jh", options, NULL)) >= 0)
        switch (option) {
        case 'j': json = true; break;
        case 'h': return usage(stdout, CLI_OK);
        default: return usage(stderr, CLI_USAGE);
        }
    if (argc > optind + 1)
        return usage(stderr, CLI_USAGE);
    dir = argv[optind] ?: "runs";
    if ((r = find(dir, &rows, &n, &error)) == 0 && n)
        qsort(rows, n, sizeof *rows, newest_first);
    if (r == 0 && n == 0 && !json)
        r = error_set(&error, ENOENT, "%s: there are no runs in it; `gantry up` makes one where its file says run.dir", dir);
    if (r == 0 && json)
        r = print_json(rows, n);
    else if (r == 0)
        print_table(rows, n);
    if (r < 0)
        fprintf(stderr, "gantry runs: %s\n", error_text(&error, r));
    return r < 0 ? CLI_FAILED : CLI_OK;
}
