/* The tables of a comparison: as text, as JSON. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>

#include "base/json_write.h"
#include "cli/compare.h"

enum { LABEL = 96, SHOWN = 44 };    /* SHOWN: characters of a cell in a terminal */

const char *compared_letter(int run)
{
    static const char letters[COMPARE_MAX][2] = {"a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p", "q", "r",
                                                 "s", "t", "u", "v", "w", "x", "y", "z", "A", "B", "C", "D", "E", "F", "G", "H", "I", "J",
                                                 "K", "L", "M", "N", "O", "P", "Q", "R", "S", "T", "U", "V", "W", "X", "Y", "Z"};

    return letters[run];
}

void compared_name(const struct comparison *c, int run, char ret[COMPARED_NAME])
{
    const char *name = strrchr(c->runs[run].dir, '/');

    snprintf(ret, COMPARED_NAME, "%s: %s", compared_letter(run), name && name[1] ? name + 1 : c->runs[run].dir);
}

void comparison_arm_name(const struct comparison *c, int which, char ret[COMPARED_NAME])
{
    const struct comparison_arm *arm = &c->arms[which];
    const char *dir = c->runs[arm->runs[0]].dir, *name = strrchr(dir, '/');

    snprintf(ret, COMPARED_NAME, "%d: %.36s, %d seed%s", which + 1, name && name[1] ? name + 1 : dir, arm->n, arm->n == 1 ? "" : "s");
}

/* ---- as text ----------------------------------------------------------------------------------------------------------- */

struct text {
    int n;
    size_t widths[COMPARE_COLUMNS + 1];
    struct strbuf *out; /* NULL: widths are measured */
};

static void text_row(const char *label, const char *const *cells, void *arg)
{
    struct text *t = arg;

    for (int i = 0; i <= t->n; i++) {
        const char *cell = i == 0 ? label : cells[i - 1] ?: "-";
        size_t most = i == 0 ? LABEL : SHOWN, length = strlen(cell);

        t->widths[i] = MAX(t->widths[i], MIN(length, most));
        if (t->out && length > most)
            strbuf_addf(t->out, "%s%.*s...", i ? "  " : "", (int)most - 3, cell);
        else if (t->out && i < t->n)
            strbuf_addf(t->out, "%s%-*s", i ? "  " : "", (int)t->widths[i], cell);
        else if (t->out)
            strbuf_addf(t->out, "  %s", cell);
    }
    if (t->out)
        strbuf_addc(t->out, '\n');
}

static int text_rows(const struct comparison *c, bool arms, struct text *t, struct strbuf *out)
{
    static const char *const numbers[COMPARE_COLUMNS] = {"1", "2", "3", "4", "5", "6", "7", "8"};
    const char *headings[COMPARE_COLUMNS];
    size_t before;
    int r;

    for (int i = 0; i < t->n; i++)
        headings[i] = arms ? numbers[i] : compared_letter(i);
    t->out = out;
    text_row("", headings, t);
    before = out ? out->length : 0;
    r = arms ? comparison_arm_differences(c, text_row, t) : comparison_differences(c, text_row, t);
    if (out && out->length == before)
        strbuf_addf(out, "(the configurations differ in nothing but the run's name%s)\n", arms ? " and seed" : "");
    if (out)
        strbuf_addc(out, '\n');
    if (arms)
        comparison_arm_figures(c, text_row, t);
    else
        comparison_figures(c, text_row, t);
    return r;
}

/* Runs have a column each while they fit; then arms have. */
int comparison_print(const struct comparison *c, struct strbuf *out)
{
    bool arms = c->n > COMPARE_COLUMNS;
    struct text t = {.n = arms ? c->n_arms : c->n};
    int r = text_rows(c, arms, &t, NULL);

    for (int i = 0; i < c->n; i++)
        strbuf_addf(out, "%s: %s\n", compared_letter(i), c->runs[i].dir);
    if (r == 0)
        r = text_rows(c, arms, &t, out);
    for (int i = 0; i < c->n_arms && comparison_has_seeds(c) && !arms; i++) {
        strbuf_addf(out, i ? "%d. " : "\n%d. ", i + 1);
        comparison_arm_words(c, i, out);
        strbuf_addc(out, '\n');
    }
    return r < 0 || out->failed ? -ENOMEM : 0;
}

/* ---- as JSON ----------------------------------------------------------------------------------------------------------- */

struct json_rows {
    int n;
    struct json_writer *w;
};

static void json_row(const char *place, const char *const *values, void *arg)
{
    const struct json_rows *rows = arg;

    json_open(rows->w, NULL, '{');
    json_text(rows->w, "key", place);
    json_open(rows->w, "values", '[');
    for (int i = 0; i < rows->n; i++)
        json_text(rows->w, NULL, values[i]);
    json_close(rows->w, ']');
    json_close(rows->w, '}');
}

static void json_run(const struct comparison *c, const struct compared *run, struct json_writer *w)
{
    char *policies = json_dumps(compared_policies(run), JSON_COMPACT);

    json_open(w, NULL, '{');
    json_text(w, "dir", run->dir);
    json_bool(w, "finished", run_stages_all(&run->stages));
    json_raw(w, "policies", policies ?: "null");
    if (run != c->runs && run->over.pairs) {
        json_open(w, "over_first", '{');
        json_text(w, "policy", c->policy);
        json_signed(w, "pairs", run->over.pairs);
        json_number(w, "difference", run->over.mean);
        json_interval(w, "interval95", run->over.low, run->over.high);
        json_signed(w, "gained", run->over.gained);
        json_signed(w, "lost", run->over.lost);
        json_number(w, "mcnemar_p", run->over.p);
        json_close(w, '}');
    }
    json_close(w, '}');
    free(policies);
}

static void json_arm(const struct comparison_arm *arm, struct json_writer *w)
{
    json_open(w, NULL, '{');
    json_open(w, "runs", '[');
    for (int i = 0; i < arm->n; i++)
        json_signed(w, NULL, arm->runs[i]);
    json_close(w, ']');
    json_number(w, "success", arm->success);
    if (arm->over.seeds) {
        json_open(w, "over_first", '{');
        json_signed(w, "seeds", arm->over.seeds);
        json_signed(w, "states", arm->over.states);
        json_number(w, "difference", arm->over.mean);
        json_interval(w, "interval95", arm->over.low, arm->over.high);
        json_close(w, '}');
    }
    json_close(w, '}');
}

int comparison_json(const struct comparison *c, struct strbuf *out)
{
    struct json_writer w = {.out = out};
    struct json_rows rows = {c->n, &w};
    int r;

    json_open(&w, NULL, '{');
    json_open(&w, "runs", '[');
    for (int i = 0; i < c->n; i++)
        json_run(c, &c->runs[i], &w);
    json_close(&w, ']');
    json_open(&w, "arms", '[');
    for (int i = 0; i < c->n_arms; i++)
        json_arm(&c->arms[i], &w);
    json_close(&w, ']');
    json_open(&w, "differences", '[');
    r = comparison_differences(c, json_row, &rows);
    json_close(&w, ']');
    json_close(&w, '}');
    strbuf_addc(out, '\n');
    return r < 0 || out->failed ? -ENOMEM : 0;
}
