/* Runs of several seeds: which belong together, and what one arm of an experiment brings over another. */
#include <errno.h>
#include <inttypes.h>
#include <math.h>

#include "base/figure.h"
#include "cli/compare.h"

/* Which seed, and where and how it ran, are no other experiment. */
bool comparison_is_aside(const char *place)
{
    static const char *const aside[] = {"run.seed", "cluster.", "timing.", "journal."};

    for (size_t i = 0; i < ARRAY_SIZE(aside); i++)
        if (!strncmp(place, aside[i], strlen(aside[i])))
            return true;
    return false;
}

static void look(const char *place, const char *const *values _unused_, void *arg)
{
    bool *differ = arg;

    *differ |= !comparison_is_aside(place);
}

static int is_of(const struct comparison *c, int run, const struct comparison_arm *arm, bool *ret)
{
    const struct run_config *pair[] = {c->runs[run].config, c->runs[arm->runs[0]].config};
    bool differ = false;
    int r = run_config_compare(pair, 2, look, &differ);

    for (int i = 0; i < arm->n; i++) /* the same seed again: another run of the same, no seed more */
        differ |= c->runs[arm->runs[i]].config->seed == c->runs[run].config->seed;
    *ret = !differ;
    return r;
}

static int find_arm(struct comparison *c, int run)
{
    int at = 0, r = 0;
    bool found = false;

    for (; at < c->n_arms && !found && r == 0; at += !found)
        r = is_of(c, run, &c->arms[at], &found);
    if (r < 0)
        return r;
    if (!found)
        c->arms[c->n_arms++] = (struct comparison_arm){.n = 0};
    c->arms[at].runs[c->arms[at].n++] = run;
    return 0;
}

static double mean_success(const struct comparison *c, const struct comparison_arm *arm)
{
    struct compared_test test;
    double sum = 0;

    for (int i = 0; i < arm->n; i++)
        sum += compared_test(&c->runs[arm->runs[i]], c->policy, &test) ? test.success : NAN;
    return sum / arm->n;
}

/* ---- over the first arm ------------------------------------------------------------------------------------------------- */

struct pairs {
    const struct ledger_episode **rows[2 * COMPARE_MAX];
    int n_rows[2 * COMPARE_MAX], seeds;
};

static void pairs_release(struct pairs *p)
{
    for (size_t i = 0; i < ARRAY_SIZE(p->rows); i++)
        free(p->rows[i]);
}

/* Rows 2k: of the first arm under the k-th seed that both have, 2k + 1: of the other. */
static int read_pairs(const struct comparison *c, const struct comparison_arm *arm, struct pairs *p)
{
    const struct comparison_arm *first = &c->arms[0];

    for (int i = 0; i < first->n; i++)
        for (int k = 0; k < arm->n; k++) {
            const struct compared *a = &c->runs[first->runs[i]], *b = &c->runs[arm->runs[k]];

            if (a->config->seed != b->config->seed || !compared_same_states(a, b))
                continue;
            for (int side = 0; side < 2; side++) {
                int at = 2 * p->seeds + side, n = compared_rows(side ? b : a, c->policy, &p->rows[at]);

                if (n < 0)
                    return n;
                p->n_rows[at] = n;
            }
            p->seeds++;
        }
    return 0;
}

static const struct ledger_episode *row_of(const struct pairs *p, int at, const struct ledger_episode *state)
{
    const struct ledger_episode **found =
        p->n_rows[at] ? bsearch(&state, p->rows[at], (size_t)p->n_rows[at], sizeof(*p->rows[at]), compared_by_state) : NULL;

    return found ? *found : NULL;
}

/* States that all have played, (seeds, states) of each side. */
static int outcomes(const struct pairs *p, double *ret[2])
{
    int states = 0, most = p->n_rows[0];

    for (int i = 0; i < most; i++) {
        bool all = true;

        for (int at = 0; at < 2 * p->seeds && all; at++)
            all = row_of(p, at, p->rows[0][i]) != NULL;
        if (!all)
            continue;
        for (int at = 0; at < 2 * p->seeds; at++)
            ret[at % 2][at / 2 * most + states] = row_of(p, at, p->rows[0][i])->success;
        states++;
    }
    for (int side = 0; side < 2 && states < most; side++) /* rows lie close, as many as there are states */
        for (int seed = 1; seed < p->seeds; seed++)
            memmove(ret[side] + seed * states, ret[side] + seed * most, (size_t)states * sizeof(double));
    return states;
}

static int compare_with_first(const struct comparison *c, struct comparison_arm *arm)
{
    _cleanup_(pairs_release) struct pairs p = {.seeds = 0};
    _cleanup_free_ double *before = NULL, *after = NULL;
    struct interval interval;
    double sum = 0;
    int states, r = read_pairs(c, arm, &p);
    size_t most = (size_t)p.seeds * (size_t)p.n_rows[0];

    if (r < 0 || p.seeds < 2 || !most)
        return r;
    before = calloc(most, sizeof *before);
    after = calloc(most, sizeof *after);
    if (!before || !after)
        return -ENOMEM;
    states = outcomes(&p, (double *[]){before, after});
    if (!states)
        return 0;
    r = hierarchical_bootstrap(after, before, p.seeds, states, BOOTSTRAP_RESAMPLES, .95, c->runs[0].config->seed, &interval);
    if (r < 0)
        return r;
    for (int i = 0; i < p.seeds * states; i++)
        sum += after[i] - before[i];
    arm->over.seeds = p.seeds;
    arm->over.states = states;
    arm->over.mean = sum / (p.seeds * states);
    arm->over.low = interval.low;
    arm->over.high = interval.high;
    return 0;
}

int comparison_find_arms(struct comparison *c)
{
    int r = 0;

    for (int i = 0; i < c->n && r == 0; i++)
        r = find_arm(c, i);
    for (int i = 0; i < c->n_arms && r == 0; i++) {
        c->arms[i].success = mean_success(c, &c->arms[i]);
        if (i > 0)
            r = compare_with_first(c, &c->arms[i]);
    }
    return r;
}

bool comparison_has_seeds(const struct comparison *c)
{
    for (int i = 0; i < c->n_arms; i++)
        if (c->arms[i].n > 1)
            return true;
    return false;
}

void comparison_arm_words(const struct comparison *c, int which, struct strbuf *out)
{
    const struct comparison_arm *arm = &c->arms[which];

    for (int i = 0; i < arm->n; i++)
        strbuf_addf(out, "%s%s", i ? ", " : "", compared_letter(arm->runs[i]));
    for (int i = 0; i < arm->n; i++)
        strbuf_addf(out, "%s%" PRIu64, i ? ", " : arm->n > 1 ? " (seeds " : " (seed ", c->runs[arm->runs[i]].config->seed);
    strbuf_addc(out, ')');
    if (isfinite(arm->success))
        strbuf_addf(out, ": %s %.3f", c->policy, arm->success);
    if (arm->over.seeds)
        strbuf_addf(out, ", %+.1f points [%+.1f %+.1f] over the first by %d seeds and %d states", figure(100 * arm->over.mean, 1),
                    figure(100 * arm->over.low, 1), figure(100 * arm->over.high, 1), arm->over.seeds, arm->over.states);
}
