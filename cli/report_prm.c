#include "cli/report_prm.h"

#include <stdio.h>
#include <string.h>

#include "base/figure.h"
#include "cli/plot.h"
#include "cli/report_films.h"
#include "cli/run_open.h"
#include "proto/control.pb-c.h"

enum { SHOWN = 4 };             /* versions: the first and the newest */

static void cell(json_t *metrics, const char *who, const char *what, struct strbuf *out)
{
    char key[64];
    json_t *value;

    snprintf(key, sizeof key, "%s_%s", who, what);
    value = json_object_get(metrics, key);
    if (json_is_number(value))
        strbuf_addf(out, "<td>%.3f</td>", figure(json_number_value(value), 3));
    else
        strbuf_adds(out, "<td>&ndash;</td>");
}

static void write_version(const struct ledger_version *v, struct strbuf *out)
{
    static const struct { const char *what, *title; } rows[] = {
        {"auc_25", "success against failure (AUC) after a quarter of the median success"}, {"auc_50", "half-way"},
        {"auc_75", "after three quarters"},
        {"auc_last", "at the last frame"}, {"time_correlation", "rank correlation with time, on successes"},
        {"bce", "cross-entropy above the labels' own"}, {"calibration", "mean |score - label| in ten bins"},
        {"success_last", "last score of successes"}, {"failure_last", "last score of failures"},
    };
    static const char *const who[] = {"prm", "blind", "clock"};
    json_t *metrics = v->metrics ? json_loads(v->metrics, 0, NULL) : NULL;

    strbuf_addf(out, "<h3>Version %llu</h3><p class='note'>", (unsigned long long)v->number);
    html_escape(out, v->gate_text);
    strbuf_adds(out, "</p><table><tr><th>on held-out episodes</th><th>the model</th><th>blank pictures</th><th>a clock</th>"
                     "</tr>");
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        strbuf_addf(out, "<tr><td>%s</td>", rows[i].title);
        for (size_t k = 0; k < ARRAY_SIZE(who); k++)
            cell(metrics, who[k], rows[i].what, out);
        strbuf_adds(out, "</tr>");
    }
    strbuf_adds(out, "</table>");
    json_decref(metrics);
}

/* What a policy was taught by a model whose gate had said no. */
static void write_doubt(const struct report_data *d, struct strbuf *out)
{
    for (size_t i = 0; i < d->n_versions; i++) {
        const struct ledger_version *v = &d->versions[i];
        size_t scored = 0;

        for (size_t k = 0; k < d->n_episodes && ledger_version_failed_gate(v); k++)
            scored += d->episodes[k].purpose == GANTRY__PURPOSE__PURPOSE_TRAIN && d->episodes[k].prm_version == v->number;
        if (scored)
            strbuf_addf(out, "<p><b>Version %llu did not pass its gate, and scored %zu episodes of reinforcement "
                        "learning.</b></p>", (unsigned long long)v->number, scored);
    }
}

/* Which version scored which iterations of reinforcement learning, as the curves count them: where their return jumps, another
 * took over. Nothing is said of one that scored all. */
static void write_reigns(const struct report_data *d, struct strbuf *out)
{
    _cleanup_(strbuf_release) struct strbuf text = STRBUF_INIT;
    uint64_t version = 0;
    int first = 0, last = 0, reigns = 0;

    for (size_t k = 0; k <= d->n_episodes; k++) {
        const struct ledger_episode *e = k < d->n_episodes ? &d->episodes[k] : NULL;

        if (e && (e->purpose != GANTRY__PURPOSE__PURPOSE_TRAIN || !e->prm_version))
            continue;
        if (version && (!e || e->prm_version != version)) {
            strbuf_addf(&text, "%s%d to %d by version %llu", reigns++ ? ", " : "", first, last, (unsigned long long)version);
            version = 0;
        }
        if (!e)
            break;
        last = report_train_iteration(d, e->stage, e->iteration);
        if (!version)
            first = last;
        version = e->prm_version;
    }
    if (reigns > 1)
        strbuf_addf(out, "<p>Iterations scored: %s.</p>", text.text);
}

/* The newest scored episode of this end that the journal can still show. */
static bool write_scored(struct journal *journal, const struct report_data *d, bool success, struct strbuf *out)
{
    char caption[200];

    for (size_t i = d->n_episodes; i-- > 0;) {
        const struct ledger_episode *e = &d->episodes[i];

        if (!e->prm_version || e->success != success || e->search_n > 1 || e->state == EPISODE_OPEN || e->state == EPISODE_FAILED)
            continue;
        snprintf(caption, sizeof caption, "%s, episode %llu, %s: scores of version %llu, the last %.2f", e->task,
                 (unsigned long long)e->episode, success ? "a success" : "a failure", (unsigned long long)e->prm_version,
                 (double)e->progress_end);
        if (report_film_write(journal, e, caption, out) == 0)
            return true;
    }
    return false;
}

void report_prm_write(const char *run_dir, const struct report_data *d, struct strbuf *out)
{
    _cleanup_(journal_closep) struct journal *journal = NULL;
    size_t all = 0, at = 0;

    for (size_t i = 0; i < d->n_versions; i++)
        all += d->versions[i].kind == KIND_PRM && d->versions[i].metrics;
    if (!all)
        return;
    strbuf_adds(out, "<h2>The reward model</h2>");
    write_doubt(d, out);
    write_reigns(d, out);
    for (size_t i = 0; i < d->n_versions; i++)
        if (d->versions[i].kind == KIND_PRM && d->versions[i].metrics && (at++ == 0 || at + SHOWN - 1 > all))
            write_version(&d->versions[i], out);
    if (all > SHOWN)
        strbuf_addf(out, "<p class='note'>%zu versions between the first and the last %d are left out.</p>", all - SHOWN,
                    SHOWN - 1);
    if (run_open_journal(run_dir, d->run.id, &journal, NULL) == 0) {
        write_scored(journal, d, true, out);
        write_scored(journal, d, false, out);
    }
}
