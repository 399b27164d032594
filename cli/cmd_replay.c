/* cmd_replay.c - `gantry replay RUN EPISODE`: one journaled episode as a table of steps, a film strip, a video. */
#include "cli/cli.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/figure.h"
#include "cli/episode_film.h"
#include "cli/replay_list.h"
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
        printf("policy v%" PRIu64 ", T %.2g", t->policy_version, (double)t->temperature);
    if (t->prm_version)
        printf(", prm v%" PRIu64, t->prm_version);
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

static int usage(FILE *out, int status)
{
    fprintf(out, "usage: gantry replay RUN\n"
                 "       gantry replay [-o FILE.png] [--video FILE.mp4 [--fps N]] RUN EPISODE\n"
                 "The first lists the episodes that are kept. The second prints the steps of one and draws a film\n"
                 "strip (default episode-N.png), and a video if that is asked for (ffmpeg; 10 pictures a second: of\n"
                 "a policy that answers chunks there is one for each answer). The run must have ended, or be drained.\n");
    return status;
}

struct asked { const char *run, *strip, *video; double fps; bool list; uint64_t episode; };

/* False: usage. */
static bool read_words(int argc, char **argv, struct asked *ret)
{
    static const struct option options[] = {{"video", required_argument, NULL, 'v'}, {"fps", required_argument, NULL, 'f'}, {0}};
    char *end = NULL;
    int option;

    *ret = (struct asked) {.fps = 10};
    while ((option = getopt_long(argc, argv, "o:", options, NULL)) >= 0)
        switch (option) {
        case 'o': ret->strip = optarg; break;
        case 'v': ret->video = optarg; break;
        case 'f':
            ret->fps = strtod(optarg, &end);
            if (end == optarg || *end || !(ret->fps >= 0.1 && ret->fps <= 1000))
                return false;
            break;
        default: return false;
        }
    ret->run = argv[optind];
    ret->list = argc == optind + 1 && optind == 1;
    if (ret->list)
        return true;
    if (argc != optind + 2 || (ret->video && !ret->video[0]))
        return false;
    ret->episode = strtoull(argv[optind + 1], &end, 10);
    return end != argv[optind + 1] && !*end && argv[optind + 1][0] != '-';
}

static int write_strip(const struct episode_film *film, const struct asked *asked, struct error *error)
{
    struct image strip = {0};
    char name[32];
    int r = episode_film_draw(film, &strip);

    snprintf(name, sizeof name, "episode-%" PRIu64 ".png", asked->episode);
    if (r == 0)
        r = image_write_png(asked->strip ?: name, strip.rgb, strip.height, strip.width);
    free(strip.rgb);
    if (r < 0)
        return error_set(error, -r, "%s: cannot be written: %s", asked->strip ?: name, strerror(-r));
    printf("%s\n", asked->strip ?: name);
    return 0;
}

static int replay(struct journal *journal, const struct asked *asked, struct episode_film *film, struct error *error)
{
    int r = episode_film_load(journal, asked->episode, film, error);

    if (r < 0)
        return r;
    print_steps(film);
    r = write_strip(film, asked, error);
    if (r == 0 && asked->video && (r = episode_film_video(film, asked->fps, asked->video, error)) == 0)
        printf("%s\n", asked->video);
    return r;
}

int cmd_replay(int argc, char **argv)
{
    _cleanup_(ledger_closep) struct ledger *ledger = NULL;
    _cleanup_(journal_closep) struct journal *journal = NULL;
    _cleanup_(episode_film_release) struct episode_film film = {0};
    struct error error = {0};
    struct asked asked;
    int r;

    if (cli_asks_help(argc, argv))
        return usage(stdout, CLI_OK);
    if (!read_words(argc, argv, &asked))
        return usage(stderr, CLI_USAGE);
    r = run_open_ledger(asked.run, &ledger, &error);
    if (r == 0)
        r = run_open_journal(asked.run, ledger_run(ledger)->id, &journal, &error);
    if (r == 0 && asked.list)
        r = replay_list(ledger, journal);
    else if (r == 0)
        r = replay(journal, &asked, &film, &error);
    if (r < 0) {
        fprintf(stderr, "gantry replay: %s\n", error_text(&error, r));
        if (r == -ENOENT && journal && !film.trajectory)
            fprintf(stderr, "gantry replay: `gantry replay %s` lists those that are\n", asked.run);
        return CLI_FAILED;
    }
    return CLI_OK;
}
