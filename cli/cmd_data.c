/* cmd_data.c - `gantry data`: recorded episodes in and out, and their statistics. */
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/atomic_file.h"
#include "base/clock.h"
#include "base/episode.h"
#include "cli/cli.h"
#include "cli/model.h"
#include "cli/run_open.h"
#include "data/export.h"
#include "data/import.h"
#include "data/statistics.h"
#include "run/trajectory.h"

static int usage(FILE *out, int status)
{
    fprintf(
        out,
        "usage: gantry data import --from libero-hdf5|rlds|npz|lerobot SRC --to DIR\n"
        "                   [--name NAME] [--chain render|plain|lanczos3|rot180+jpeg95+lanczos3]\n"
        "                   [--size PIXELS] [--images A,B] [--state A|none] [--action A]\n"
        "                   [--instruction A]\n"
        "                   [--gripper libero|as-is|none] [--no-ops keep|drop] [--failed keep|drop]\n"
        "                   [--limit N]\n"
        "                                                    episodes of others as a data set:\n"
        "                                                    demos: {from: DIR} in a run file\n"
        "       gantry data stats DATASET|RUN [-o FILE]      counts, and dataset_statistics.json as OpenVLA\n"
        "                                                    has it\n"
        "       gantry data export RUN|DATASET --to lerobot|npz DIR [--all]\n"
        "                   [--purpose demo|rollout|train|eval]\n"
        "                                                    successful episodes, one .npz each;\n"
        "                                                    deploy/npz_to_lerobot.py makes a LeRobot data\n"
        "                                                    set of them (parquet is not written here)\n");
    return status;
}

static int fail(const char *verb, const struct error *error, int r)
{
    fprintf(stderr, "gantry data %s: %s\n", verb, error_text(error, r));
    return CLI_FAILED;
}

/* ---- progress: a line that is written over on a terminal, else one every ten seconds ------------------ */

struct watch {
    const char *what;
    uint64_t start_ms, said_ms;
    bool terminal;
};

static struct watch watch_start(const char *what)
{
    uint64_t now = clock_mono_ms();

    return (struct watch){what, now, now, isatty(STDERR_FILENO) == 1};
}

static bool tell(void *arg, int done, int total, int64_t steps)
{
    struct watch *w = arg;
    uint64_t now = clock_mono_ms(), left;

    if (now - w->said_ms < (w->terminal ? 200u : 10000u) && done < total)
        return true;
    w->said_ms = now;
    left = (now - w->start_ms) * (uint64_t)(total - done) / (uint64_t)MAX(done, 1) / 1000;
    fprintf(stderr, "%s%s: %d/%d episodes  %" PRId64 " steps  %.0f steps/s  %" PRIu64 ":%02" PRIu64 " left%s",
            w->terminal ? "\r" : "", w->what, done, total, steps,
            (double)steps * 1000 / (double)MAX(now - w->start_ms, (uint64_t)1), left / 60, left % 60,
            w->terminal && done < total ? "   " : "\n");
    return true;
}

static void left_out(void *arg, const char *where)
{
    const struct watch *w = arg;

    fprintf(stderr, "%sgantry data import: %s: no steps in it: left out\n", w->terminal ? "\r\033[K" : "", where);
}

/* ---- import ------------------------------------------------------------------------------------- */

static int choose(const char *option, const char *text, const char *a, const char *b, bool *ret, struct error *error)
{
    if (text && strcmp(text, a) && strcmp(text, b))
        return error_set(error, EINVAL, "%s: '%s' is not %s or %s", option, text, a, b);
    if (text)
        *ret = !strcmp(text, a);
    return 0;
}

static int choose_gripper(const char *text, enum import_gripper *ret, struct error *error)
{
    static const char *const names[] = {
        [GRIPPER_AS_IT_IS] = "as-is", [GRIPPER_LIBERO] = "libero", [GRIPPER_NONE] = "none"};

    for (size_t i = 0; i < ARRAY_SIZE(names); i++)
        if (text && !strcmp(text, names[i])) {
            *ret = (enum import_gripper)i;
            return 0;
        }
    return text ? error_set(error, EINVAL, "--gripper: '%s' is not libero, as-is or none", text) : 0;
}

static int number_of(const char *option, const char *text, int low, int high, int *ret, struct error *error)
{
    char *end;
    long value;

    if (!text)
        return 0;
    value = strtol(text, &end, 10);
    if (*end || end == text || value < low || value > high)
        return error_set(error, EINVAL, "%s: '%s' is not a number from %d to %d", option, text, low, high);
    *ret = (int)value;
    return 0;
}

/* The last part of a path, letters, digits, - and _ only: a key of dataset_statistics.json. */
static void name_of(const char *path, char ret[64])
{
    size_t n = strlen(path), start;

    while (n > 1 && path[n - 1] == '/')
        n--;
    for (start = n; start > 0 && path[start - 1] != '/';)
        start--;
    snprintf(ret, 64, "%.*s", (int)MIN(n - start, (size_t)63), path + start);
    for (char *c = ret; *c; c++)
        if (!((*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z') || (*c >= '0' && *c <= '9') || *c == '-' || *c == '_'))
            *c = '_';
}

static int import(int argc, char **argv)
{
    const char *from = model_option(&argc, argv, "--from"), *to = model_option(&argc, argv, "--to"),
               *name = model_option(&argc, argv, "--name");
    const char *chain = model_option(&argc, argv, "--chain"), *size = model_option(&argc, argv, "--size"),
               *images = model_option(&argc, argv, "--images");
    const char *state = model_option(&argc, argv, "--state"), *action = model_option(&argc, argv, "--action"),
               *instruction = model_option(&argc, argv, "--instruction");
    const char *gripper = model_option(&argc, argv, "--gripper"), *no_ops = model_option(&argc, argv, "--no-ops");
    const char *failed = model_option(&argc, argv, "--failed"), *limit = model_option(&argc, argv, "--limit");
    struct watch watch = watch_start("import");
    struct import_options options;
    struct dataset_info info;
    struct error error = {0};
    char own[64];
    int r;

    if (!from || !to || argc != 1)
        return CLI_USAGE;
    if (!strcmp(from, "lerobot")) {
        fprintf(stderr,
                "gantry data import: LeRobot keeps parquet and mp4, which gantry does not read: `deploy/lerobot_to_npz.py %s "
                "TMP` makes .npz files of it, then `gantry data import --from npz TMP --to %s`\n",
                argv[0], to);
        return CLI_FAILED;
    }
    r = import_defaults(from, &options, &error);
    if (r < 0)
        return fail("import", &error, r);
    if ((r = choose_gripper(gripper, &options.gripper, &error)) < 0 ||
        (r = choose("--no-ops", no_ops, "drop", "keep", &options.drop_no_ops, &error)) < 0 ||
        (r = choose("--failed", failed, "keep", "drop", &options.keep_failed, &error)) < 0 ||
        (r = number_of("--size", size, 16, 1024, &options.size, &error)) < 0 ||
        (r = number_of("--limit", limit, 1, INT_MAX, &options.limit, &error)) < 0)
        return fail("import", &error, r);
    options.resize = size;
    name_of(name ? name : to, own);
    options.name = own;
    options.chain = chain ? chain : options.chain;
    options.source = (struct source_options){.images = images, .state = state, .action = action, .instruction = instruction};
    options.tell = tell;
    options.left_out = left_out;
    options.arg = &watch;
    r = dataset_import(argv[0], to, &options, &info, &error);
    if (r < 0)
        return fail("import", &error, r);
    printf("%s: %d episodes, %d steps, %d %s of %dx%d (%s), actions of %d numbers%s, a state of %d; left out: %d steps "
           "that do nothing, %d episodes without success, %d without steps\n",
           to, info.episodes, info.steps, info.cameras, info.cameras == 1 ? "picture" : "pictures", info.width, info.height,
           info.image_chain, info.action_dims, info.gripper ? ", the last a gripper's" : "", info.state, info.no_ops,
           info.failed, info.empty);
    return CLI_OK;
}

/* ---- a run's journal or a data set ---------------------------------------------------------------- */

struct episodes {
    struct dataset_dir *dataset; /* or */
    struct ledger *ledger;
    struct journal *own;
    struct journal *journal; /* one of the two */
    struct journal_entry *entries;
    size_t n;
};

static void episodes_release(struct episodes *e)
{
    if (!e->dataset)
        free(e->entries);
    dataset_close(e->dataset);
    journal_close(e->own);
    ledger_close(e->ledger);
}

static int episodes_open(const char *path, struct episodes *ret, struct error *error)
{
    char probe[PATH_MAX];
    int r;

    snprintf(probe, sizeof probe, "%s/dataset.json", path);
    if (access(probe, F_OK) == 0) {
        r = dataset_open(path, &ret->dataset, error);
        if (r < 0)
            return r;
        ret->journal = ret->dataset->journal;
        ret->entries = ret->dataset->entries;
        ret->n = (size_t)ret->dataset->info.episodes;
        return 0;
    }
    r = run_open_ledger(path, &ret->ledger, error);
    if (r >= 0)
        r = run_open_journal(path, ledger_run(ret->ledger)->id, &ret->own, error);
    if (r < 0)
        return r;
    ret->journal = ret->own;
    r = journal_list(ret->journal, JOURNAL_ALL, JOURNAL_ALL, &ret->entries, &ret->n);
    return r < 0 ? error_set(error, -r, "%s: its journal cannot be listed", path) : 0;
}

/* ---- stats ---------------------------------------------------------------------------------------- */

static int add_episode(struct statistics *s, const Gantry__Trajectory *t, struct error *error)
{
    const float *label = t->n_label ? t->label : t->action;
    int dims = (int)t->action_dims, state = (int)(t->n_state / ((size_t)t->steps + 1));
    _cleanup_free_ double *row = malloc((size_t)(dims + state + 1) * sizeof *row);

    if (!s->dims) {
        s->dims = dims;
        s->state = state;
    }
    if (!row)
        return error_set(error, ENOMEM, "out of memory");
    if (dims != s->dims || state != s->state || t->n_action != (size_t)t->steps * t->action_dims ||
        (t->n_label && t->n_label != t->n_action))
        return error_set(error, EINVAL,
                         "episode %" PRIu64 ": actions of %d numbers and a state of %d, those before have %d and %d", t->episode,
                         dims, state, s->dims, s->state);
    for (uint32_t i = 0; i < t->steps; i++) {
        for (int k = 0; k < dims; k++)
            row[k] = (double)label[i * t->action_dims + (uint32_t)k];
        for (int k = 0; k < state; k++)
            row[dims + k] = (double)t->state[i * (uint32_t)state + (uint32_t)k];
        if (statistics_add(s, row, row + dims) < 0)
            return error_set(error, ENOMEM, "out of memory");
    }
    s->episodes++;
    return 0;
}

static int stats(int argc, char **argv)
{
    const char *into = model_option(&argc, argv, "-o");
    _cleanup_(episodes_release) struct episodes episodes = {0};
    _cleanup_(statistics_release) struct statistics statistics = {0};
    _cleanup_(strbuf_release) struct strbuf text = STRBUF_INIT;
    struct error error = {0};
    char name[64], path[PATH_MAX];
    int r, demos = 0, left_out = 0;

    if (argc != 1)
        return CLI_USAGE;
    r = episodes_open(argv[0], &episodes, &error);
    statistics.gripper = !episodes.dataset || episodes.dataset->info.gripper;
    for (size_t i = 0; i < episodes.n && r >= 0; i++) {
        _cleanup_(trajectory_freep) Gantry__Trajectory *t = NULL;

        r = trajectory_load(episodes.journal, episodes.entries[i].episode, &t, NULL, NULL, &error);
        if (r < 0)
            break;
        if (t->success && t->split == GANTRY__SPLIT__SPLIT_TRAIN && t->purpose != GANTRY__PURPOSE__PURPOSE_EVAL)
            r = add_episode(&statistics, t, &error), demos += t->purpose == GANTRY__PURPOSE__PURPOSE_DEMO;
        else
            left_out++;
    }
    if (r >= 0 && !statistics.steps)
        r = error_set(&error, ENODATA, "%s: no successful training episode in it", argv[0]);
    if (r < 0)
        return fail("stats", &error, r);
    name_of(episodes.dataset ? episodes.dataset->info.name : argv[0], name);
    r = statistics_write(&statistics, name, &text);
    if (snprintf(path, sizeof path, "%s%s", into ? into : argv[0], into ? "" : "/dataset_statistics.json") >= (int)sizeof path)
        r = -ENAMETOOLONG;
    if (r >= 0)
        r = atomic_file_write_through(path, text.text, text.length);
    if (r < 0)
        return fail("stats", &error, error_set(&error, -r, "%s: cannot be written: %s", path, strerror(-r)));
    printf("%s: %d successful training episodes, %d of them demonstrations (%d episodes left out), %zu steps, actions of %d "
           "numbers, a state of %d\n", path, statistics.episodes, demos, left_out, statistics.steps, statistics.dims, statistics.state);
    return CLI_OK;
}

/* ---- export ---------------------------------------------------------------------------------------- */

static bool purpose_of(const char *text, int *ret)
{
    static const char *const names[] = {
        [0] = "", [EPISODE_DEMO] = "demo", [EPISODE_ROLLOUT] = "rollout", [EPISODE_TRAIN] = "train", [EPISODE_EVAL] = "eval"};

    for (size_t i = 1; i < ARRAY_SIZE(names); i++)
        if (text && !strcmp(text, names[i])) {
            *ret = (int)i;
            return true;
        }
    return !text;
}

static int export(int argc, char **argv)
{
    const char *to = model_option(&argc, argv, "--to"), *purpose = model_option(&argc, argv, "--purpose");
    bool lerobot = to && !strcmp(to, "lerobot");
    _cleanup_(episodes_release) struct episodes episodes = {0};
    struct watch watch = watch_start("export");
    struct export_options options = {.tell = tell, .arg = &watch};
    struct export_result result;
    struct error error = {0};
    int r;

    for (int i = 0; i < argc; i++)
        if (!strcmp(argv[i], "--all")) {
            options.all = true;
            memmove(argv + i, argv + i + 1, (size_t)(argc - i - 1) * sizeof *argv);
            argc--;
            break;
        }
    if (argc != 2 || !to)
        return CLI_USAGE;
    if (!lerobot && strcmp(to, "npz"))
        r = error_set(&error, EINVAL, "--to: there is no format '%s': npz, lerobot", to);
    else
        r = purpose_of(purpose, &options.purpose) ? 0
          : error_set(&error, EINVAL, "--purpose: there is no '%s': demo, rollout, train, eval", purpose);
    if (r < 0)
        return fail("export", &error, r);
    r = episodes_open(argv[0], &episodes, &error);
    if (r >= 0)
        r = dataset_export(episodes.journal, episodes.entries, episodes.n, argv[1], &options, &result, &error);
    if (r < 0)
        return fail("export", &error, r);
    printf("%s: %d episodes, %" PRId64 " steps; %d left out\n", argv[1], result.episodes, result.steps, result.left_out);
    if (lerobot)
        printf("next: deploy/npz_to_lerobot.py %s OUT   (parquet and png by pyarrow and Pillow)\n", argv[1]);
    return CLI_OK;
}

int cmd_data(int argc, char **argv)
{
    static const struct cli_command verbs[] = {{"import", NULL, import}, {"stats", NULL, stats}, {"export", NULL, export}};

    return cli_verb(verbs, ARRAY_SIZE(verbs), usage, argc, argv);
}
