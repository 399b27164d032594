#include "cli/report_films.h"

#include <errno.h>

#include "cli/episode_film.h"
#include "cli/plot.h"
#include "cli/run_open.h"
#include "daemon/run_config.h"
#include "proto/control.pb-c.h"

enum { TASK_FILMS = 8 };

static void add_base64(struct strbuf *out, const uint8_t *bytes, size_t n)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

    for (size_t i = 0; i < n; i += 3) {
        uint32_t word = (uint32_t)bytes[i] << 16 | (i + 1 < n ? (uint32_t)bytes[i + 1] << 8 : 0) | (i + 2 < n ? bytes[i + 2] : 0);

        strbuf_addc(out, digits[word >> 18]);
        strbuf_addc(out, digits[word >> 12 & 63]);
        strbuf_addc(out, i + 1 < n ? digits[word >> 6 & 63] : '=');
        strbuf_addc(out, i + 2 < n ? digits[word & 63] : '=');
    }
}

int report_film_write(struct journal *journal, const struct ledger_episode *e, const char *caption, struct strbuf *out)
{
    _cleanup_(episode_film_release) struct episode_film film = {0};
    _cleanup_free_ uint8_t *png = NULL;
    struct image strip = {0};
    size_t n_png;
    int r = episode_film_load(journal, e->episode, &film, NULL);

    if (r < 0)
        return r;
    r = episode_film_draw(&film, &strip);
    if (r < 0)
        return r;
    r = image_encode_png(strip.rgb, strip.height, strip.width, &png, &n_png);
    free(strip.rgb);
    if (r < 0)
        return r;
    strbuf_adds(out, "<figure><img alt='film strip' src='data:image/png;base64,");
    add_base64(out, png, n_png);
    strbuf_adds(out, "'><figcaption class='note'>");
    html_escape(out, caption);
    strbuf_adds(out, "</figcaption></figure>");
    return 0;
}

struct wanted { uint32_t purpose; bool success, newest; const char *caption; };

/* The first or last episode of this kind that the journal can still show. */
static bool write_one(struct journal *journal, const struct report_data *d, const char *task, const struct wanted *w,
                      struct strbuf *out)
{
    char caption[160];

    for (size_t i = 0; i < d->n_episodes; i++) {
        const struct ledger_episode *e = &d->episodes[w->newest ? d->n_episodes - 1 - i : i];

        if (e->purpose != w->purpose || e->success != w->success || strcmp(e->task, task) || e->search_n > 1 ||
            e->state == EPISODE_OPEN || e->state == EPISODE_FAILED)
            continue;
        snprintf(caption, sizeof caption, "%s: %s", task, w->caption);
        if (report_film_write(journal, e, caption, out) == 0)
            return true;
    }
    return false;
}

void report_films_write(const char *run_dir, const struct report_data *d, struct strbuf *out)
{
    static const struct wanted wanted[] = {
        {GANTRY__PURPOSE__PURPOSE_DEMO, true, false, "the demonstrator"},
        {GANTRY__PURPOSE__PURPOSE_ROLLOUT, false, false, "after imitation, a failure"},
        {GANTRY__PURPOSE__PURPOSE_TRAIN, true, true, "late in reinforcement learning, a success"},
        {GANTRY__PURPOSE__PURPOSE_EVAL, true, true, "evaluation, a success"},
        {GANTRY__PURPOSE__PURPOSE_EVAL, false, true, "evaluation, a failure"},
    };
    _cleanup_(journal_closep) struct journal *journal = NULL;
    const char *tasks[RUN_MAX_TASKS];
    int n = report_tasks(d, tasks, ARRAY_SIZE(tasks)), drawn = 0;

    if (run_open_journal(run_dir, d->run.id, &journal, NULL) == 0)
        for (int i = 0; i < MIN(n, TASK_FILMS); i++)
            for (size_t k = 0; k < ARRAY_SIZE(wanted); k++)
                drawn += write_one(journal, d, tasks[i], &wanted[k], out);
    if (!drawn)
        strbuf_adds(out, "<p class='note'>The journal holds no episodes to show.</p>");
    if (n > TASK_FILMS)
        strbuf_addf(out, "<p class='note'>%d more tasks have no film here: gantry replay RUN EPISODE draws any.</p>",
                    n - TASK_FILMS);
}
