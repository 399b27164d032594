/* A comparison as a page: tables, and every curve of all runs, or arms, in one frame. */
#include <errno.h>

#include "cli/compare.h"
#include "cli/plot.h"
#include "cli/report_style.h"

/* ---- tables ------------------------------------------------------------------------------------------------------------ */

struct html {
    int n;
    struct strbuf *out;
};

static void html_row(const char *label, const char *const *cells, void *arg)
{
    const struct html *html = arg;

    strbuf_adds(html->out, "<tr><td>");
    html_escape(html->out, label);
    strbuf_adds(html->out, "</td>");
    for (int i = 0; i < html->n; i++) {
        strbuf_adds(html->out, "<td>");
        html_escape(html->out, cells[i] ?: "\u2013");
        strbuf_adds(html->out, "</td>");
    }
    strbuf_adds(html->out, "</tr>");
}

static void open_table(const struct comparison *c, bool arms, const char *title, struct strbuf *out)
{
    int n = arms ? c->n_arms : c->n;

    strbuf_addf(out, "<h2>%s</h2><table%s><tr><th></th>", title, n > COMPARE_COLUMNS ? " class='wide'" : "");
    for (int i = 0; i < n; i++) {
        char name[COMPARED_NAME];

        if (arms)
            comparison_arm_name(c, i, name);
        else
            compared_name(c, i, name);
        strbuf_adds(out, "<th>");
        html_escape(out, name);
        strbuf_adds(out, "</th>");
    }
    strbuf_adds(out, "</tr>");
}

/* Where runs have arms, these are told of first. */
static int write_arms(const struct comparison *c, struct strbuf *out)
{
    struct html html = {c->n_arms, out};
    size_t before;
    int r;

    open_table(c, true, "Arms: runs that differ in their seed alone", out);
    before = out->length;
    r = comparison_arm_differences(c, html_row, &html);
    if (out->length > before)
        strbuf_adds(out, "<tr><td>&nbsp;</td></tr>");
    comparison_arm_figures(c, html_row, &html);
    strbuf_adds(out, "</table><p class='note'>Means over the seeds, the least and the most. Differences are over the seeds and states "
                     "that both arms have, with the 95 % interval of a bootstrap over seeds, then states.</p>");
    return r;
}

static int write_runs(const struct comparison *c, struct strbuf *out)
{
    struct html html = {c->n, out};
    size_t before;
    int r;

    open_table(c, false, "What came of them", out);
    comparison_figures(c, html_row, &html);
    strbuf_adds(
        out, "</table><p class='note'>Tests are of each run's own last eval stage, with Wilson's 95 % intervals; differences are "
             "paired over the states that both have played, with their bootstrap interval and McNemar's p.</p>");
    open_table(c, false, "In what they differ", out);
    before = out->length;
    r = comparison_differences(c, html_row, &html);
    strbuf_adds(out, out->length == before ? "</table><p>In nothing but the name.</p>" : "</table>");
    return r;
}

int comparison_page(const struct comparison *c, struct strbuf *out)
{
    int r = 0;

    strbuf_adds(out, "<!doctype html><html lang='en'><meta charset='utf-8'><meta name='viewport' content='width=device-width'>"
                     "<title>gantry compare</title><style>" REPORT_STYLE "</style><h1>Runs beside one another</h1>");
    for (int i = 0; i < c->n; i++) {
        strbuf_addf(out, "%s%s: ", i ? ", " : "<p class='note'>", compared_letter(i));
        html_escape(out, c->runs[i].dir);
    }
    strbuf_adds(out, "</p>");
    if (!comparison_has_seeds(c) && (r = write_runs(c, out)) == 0)
        r = comparison_curves(c, out);
    if (comparison_has_seeds(c) && (r = write_arms(c, out)) == 0 && (r = comparison_curves(c, out)) == 0)
        r = write_runs(c, out);     /* each by itself: for who wants to know */
    strbuf_adds(out, "</html>\n");
    return r < 0 || out->failed ? -ENOMEM : 0;
}
