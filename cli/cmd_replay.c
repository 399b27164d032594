/* cmd_replay.c - `gantry replay RUN EPISODE [-o FILE.png]`: one journaled episode as a table of steps and a film strip. */
#include "cli/cli.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <string.h>

#include "base/figure.h"
#include "cli/episode_film.h"
#include "cli/run_open.h"

/* A policy without a value head, or whose critic knows more than the actor, says 0 throughout: nothing to show. */
static bool has_values(const Gantry__Trajectory *t)
{
    for (size_t i = 0; i < t->n_value; i++)
        if (t->value[i] != 0)
            return true;
    return false;
}

static void print_steps(const struct episode_film *film)
{
    const Gantry__Trajectory *t = film->trajectory;
    size_t k = t->steps ? t->n_logp / t->steps : 0;
    bool values = has_values(t);
    char blow[EPISODE_BLOW];

    printf("episode %" PRIu64 ": %s, \"%s\", ", t->episode, t->task, t->instruction);
    if (t->purpose == GANTRY__PURPOSE__PURPOSE_DEMO)
        printf("the demonstrator");
    else
        printf("policy v%" PRIu64 ", prm v%" PRIu64 ", T %.2g", t->policy_version, t->prm_version, (double)t->temperature);
    episode_blow(t, blow);
    printf(": %s after %u steps%s\n", t->success ? "success" : "no success", t->steps, blow);
    for (uint32_t s = 0; s < t->steps; s++) {
        double logp = 0;

        if (s + 1 == t->perturbed_at)
            printf("      %s\n", t->perturb);
        for (size_t i = 0; i < k; i++)
            logp += (double)t->logp[s * k + i];
        printf("%4u  action", s);
        for (uint32_t a = 0; a < t->action_dims && (size_t)s * t->action_dims + a < t->n_action; a++)
            printf(" %+.2f", figure((double)t->action[s * t->action_dims + a], 2));
        if (k)
            printf("  logp %7.2f", figure(logp, 2));
        if (values && s < t->n_value)
            printf("  value %+.3f", figure((double)t->value[s], 3));
        if (s + 1 < t->n_progress)
            printf("  progress %.2f", (double)t->progress[s + 1]);
        printf("\n");
    }
}

static int usage(FILE *out, const char *name, int status)
{
    fprintf(out, "usage: %s RUN EPISODE [-o FILE.png]\nPrints the steps and draws a film strip (default episode-N.png). "
            "Episode numbers: gantry\nhistory RUN. The run must have ended, or be drained.\n", name);
    return status;
}

/* Which are there: an rl stage's are dropped after some iterations, so a number that is missing is no surprise. */
static void say_held(struct journal *journal, const char *run_dir)
{
    _cleanup_free_ struct journal_entry *entries = NULL;
    size_t n = 0;

    if (journal_list(journal, JOURNAL_ALL, JOURNAL_ALL, &entries, &n) < 0)
        return;
    fprintf(stderr, "gantry replay: %s holds", run_dir);
    for (size_t i = 0, first = 0; i < n; i++)
        if (i + 1 == n || entries[i + 1].episode != entries[i].episode + 1) {
            fprintf(stderr, "%s %" PRIu64, first ? "," : "", entries[first].episode);
            if (i > first)
                fprintf(stderr, "..%" PRIu64, entries[i].episode);
            first = i + 1;
        }
    fprintf(stderr, "%s (journal.keep: how many iterations of rl stay)\n", n ? "" : " none");
}

int cmd_replay(int argc, char **argv)
{
    _cleanup_(ledger_closep) struct ledger *ledger = NULL;
    _cleanup_(journal_closep) struct journal *journal = NULL;
    _cleanup_(episode_film_release) struct episode_film film = {0};
    struct error error = {0};
    struct image strip = {0};
    char path[PATH_MAX], *end = NULL;
    uint64_t episode = argc > 2 ? strtoull(argv[2], &end, 10) : 0;
    int r;

    if (argc == 2 && (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h")))
        return usage(stdout, argv[0], CLI_OK);
    if ((argc != 3 && !(argc == 5 && !strcmp(argv[3], "-o"))) || !end || *end || end == argv[2] || argv[2][0] == '-')
        return usage(stderr, argv[0], CLI_USAGE);
    r = run_open_ledger(argv[1], &ledger, &error);
    if (r == 0)
        r = run_open_journal(argv[1], ledger_run(ledger)->id, &journal, &error);
    if (r == 0)
        r = episode_film_load(journal, episode, &film, &error);
    if (r == 0) {
        print_steps(&film);
        r = episode_film_draw(&film, 0, &strip);
    }
    if (argc == 5)
        snprintf(path, sizeof path, "%s", argv[4]);
    else
        snprintf(path, sizeof path, "episode-%" PRIu64 ".png", episode);
    if (r == 0 && (r = image_write_png(path, strip.rgb, strip.height, strip.width)) < 0)
        error_set(&error, -r, "%s: cannot be written: %s", path, strerror(-r));
    free(strip.rgb);
    if (r < 0) {
        fprintf(stderr, "gantry replay: %s\n", error_text(&error, r));
        if (r == -ENOENT && journal && !film.trajectory)
            say_held(journal, argv[1]);
        return CLI_FAILED;
    }
    printf("%s\n", path);
    return CLI_OK;
}
