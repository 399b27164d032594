/* What went wrong, to look at: failures of the test rows as film strips. */
#include <errno.h>
#include <inttypes.h>
#include <limits.h>

#include "base/atomic_file.h"
#include "cli/episode_film.h"
#include "cli/eval.h"
#include "cli/run_open.h"

static int write_film(struct journal *journal, const struct eval *eval, const struct ledger_episode *e, const char *policy,
                      const char *dir, struct error *error)
{
    _cleanup_(episode_film_release) struct episode_film film = {0};
    struct image strip = {0};
    char path[PATH_MAX];
    int r = episode_film_load(journal, e->episode, &film, error);

    if (r == 0)
        r = episode_film_draw(&film, &strip);
    snprintf(path, sizeof path, "%s/%s-%s-state%" PRIu64 "-episode%" PRIu64 ".png", dir, policy, e->task, e->state_seed,
             e->episode);
    if (r == 0 && (r = image_write_png(path, strip.rgb, strip.height, strip.width)) < 0)
        r = error_set(error, -r, "%s: cannot be written: %s", path, strerror(-r));
    free(strip.rgb);
    return r < 0 && !error->text[0] ? error_set(error, -r, "%s: episode %" PRIu64 ": %s", eval->run_dir, e->episode, strerror(-r))
                                    : r;
}

int eval_films(const struct eval *eval, const char *dir, int most, struct error *error)
{
    _cleanup_(journal_closep) struct journal *journal = NULL;
    int r = mkdir_p(dir, 0755);

    if (r < 0)
        return error_set(error, -r, "%s: cannot be made: %s", dir, strerror(-r));
    r = run_open_journal(eval->run_dir, eval->run_id, &journal, error);
    for (int p = 0; p < eval->ask->n_policies && r == 0; p++) {
        int failures = 0, drawn = 0;
        char tag[EVAL_TAG];

        eval_test_tag(eval, p, tag);
        for (size_t i = 0; i < eval->n_episodes && r == 0; i++) {
            const struct ledger_episode *e = &eval->episodes[i];

            if (e->state != EPISODE_EVALUATED || e->success || strcmp(e->tag, tag))
                continue;
            failures++;
            if (drawn == most)
                continue;
            drawn++;
            r = write_film(journal, eval, e, eval->ask->policies[p], dir, error);
        }
        if (r == 0)
            fprintf(stderr, "gantry: %d of %d failures of %s in %s; the steps of one: gantry replay %s EPISODE\n", drawn,
                    failures, eval->ask->policies[p], dir, eval->run_dir);
    }
    return r;
}
