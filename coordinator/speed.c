#include "coordinator/speed.h"

#include <math.h>
#include <string.h>

#include "base/macro.h"

enum { RECENT_PASSES = 8, UNKNOWN_SHARE = 4 };     /* time left is said once less than a fourth are of unknown kinds */

_Static_assert((SPEED_SAMPLES - 2) * SPEED_SAMPLE_MS >= SPEED_WINDOW_MS, "those of a window, one before it, and the next");

/* ---- one rate ------------------------------------------------------------------------------------------------------ */

/* Since the first sample. Its end is where the total moved last, not now, or heartbeats a second apart would make it swing; if
 * nothing has moved for longer than that, it falls. */
static void rate_work_out(struct speed_rate *r)
{
    double end = r->clock_ms - r->moved_ms > 2 * SPEED_SAMPLE_MS ? r->clock_ms : r->moved_ms, window = end - r->sample[0].at_ms;

    if (window >= SPEED_LEAST_MS)
        r->known = (r->total - r->sample[0].total) * 1e3 / window;
}

static void rate_sample(struct speed_rate *r)
{
    bool settled = r->clock_ms - r->begun_ms > SPEED_SETTLE_MS;

    if (!settled)
        r->n = 0;                       /* the first sample moves along until everybody has been heard */
    if (r->n && r->clock_ms - r->sample[r->n - 1].at_ms < SPEED_SAMPLE_MS)
        return;
    r->sample[r->n].at_ms = r->clock_ms;
    r->sample[r->n++].total = r->total;
}

static void rate_note(struct speed_rate *r, double passed_ms, double total)
{
    bool moved = total > r->total;

    r->clock_ms += passed_ms;
    r->total = total;
    if (moved && !r->begun) {
        r->begun = true;
        r->begun_ms = r->clock_ms;
    }
    if (moved) {
        r->moved_ms = r->clock_ms;
        rate_sample(r);
    }
    while (r->n > 1 && r->clock_ms - r->sample[1].at_ms >= SPEED_WINDOW_MS)
        memmove(r->sample, r->sample + 1, (size_t)--r->n * sizeof *r->sample);
    if (r->n)
        rate_work_out(r);
}

/* What was known stays until there is something new. */
static void rate_begin_again(struct speed_rate *r, double total, bool forget)
{
    *r = (struct speed_rate) {.total = total, .known = forget ? 0 : r->known};
}

/* ---- passes ---------------------------------------------------------------------------------------------------------- */

/* The first of a kind is like no other (workers are cold, models load): it counts only until there is a second. */
static void pass_ends(struct speed *s)
{
    double *mean = &s->pass[s->last.kind].mean_ms;
    int n = s->pass[s->last.kind].n++;

    *mean = n < 2 ? s->pass_ms : *mean + (s->pass_ms - *mean) / MIN(n, RECENT_PASSES);
}

static void pass_begins(struct speed *s, const struct speed_look *look)
{
    if (s->seen && s->whole && look->stage == s->last.stage)
        pass_ends(s);
    if (!s->seen || look->stage != s->last.stage) {
        memset(s->pass, 0, sizeof s->pass);
        rate_begin_again(&s->updates, look->updates, true);
        rate_begin_again(&s->steps, look->steps + look->steps_running, true);
    }
    s->whole = s->seen;
    s->pass_ms = 0;
    s->pass_steps = look->steps;
    s->pass_episodes = look->episodes;
}

/* The first one alone says something only if it was long. */
static bool is_known(const struct speed *s, int kind)
{
    return s->pass[kind].n >= 2 || (s->pass[kind].n == 1 && s->pass[kind].mean_ms >= SPEED_SURE_MS);
}

/* Of a pass of this kind; of one that never ended yet: of any. NAN: none did. */
static double pass_mean_ms(const struct speed *s, int kind)
{
    double sum = 0;
    int n = 0;

    if (s->pass[kind].n)
        return s->pass[kind].mean_ms;
    for (int k = 0; k < PASS_KINDS; k++)
        if (s->pass[k].n) {
            sum += s->pass[k].mean_ms;
            n++;
        }
    return n ? sum / n : NAN;
}

/* ---- looks ----------------------------------------------------------------------------------------------------------- */

static bool at_work(const struct speed_look *look) { return !look->stopped && (look->playing || look->training); }

/* Waiting is a part of a pass as long as it is short. */
static bool is_idle(const struct speed *s, const struct speed_look *look)
{
    return !at_work(look) && look->now_ms - s->worked_ms > SPEED_IDLE_MS;
}

/* Episodes that are given up take their steps with them: they were played, so the total never falls. */
static double steps_total(struct speed *s, const struct speed_look *look)
{
    double now = look->steps + look->steps_running, before = s->last.steps + s->last.steps_running;

    return s->steps.total + fmax(now - before, 0);
}

static void note(struct speed *s, const struct speed_look *look)
{
    double passed = s->last.stopped || look->stopped ? 0 : (double)(look->now_ms - s->last.now_ms), steps = steps_total(s, look);
    bool other_update = look->updates_planned != s->last.updates_planned || look->updates < s->last.updates;

    /* after an interruption what was held up comes in at once: that is not how fast anybody is */
    if (at_work(look) && (s->last.stopped || is_idle(s, &s->last))) {
        rate_begin_again(&s->steps, steps, false);
        rate_begin_again(&s->updates, look->updates, false);
    }
    if (other_update)
        rate_begin_again(&s->updates, look->updates, false);
    /* somebody began or ended in between: on average half-way */
    rate_note(&s->steps, passed * (s->last.playing + look->playing) / 2, steps);
    rate_note(&s->updates, passed * (s->last.training + look->training) / 2, look->updates);
    if (!is_idle(s, look))
        s->pass_ms += passed;
}

void speed_look(struct speed *s, const struct speed_look *look)
{
    if (s->seen)
        note(s, look);
    if (at_work(look) || look->stopped || !s->seen)
        s->worked_ms = look->now_ms;
    if (!s->seen || look->stage != s->last.stage || look->iteration != s->last.iteration)
        pass_begins(s, look);
    s->last = *look;
    s->seen = true;
}

/* ---- what is said ---------------------------------------------------------------------------------------------------- */

double speed_steps(const struct speed *s)
{
    return !s->last.stopped && s->last.playing && s->steps.known > 0 ? s->steps.known : NAN;
}

double speed_updates(const struct speed *s)
{
    return !s->last.stopped && s->last.training && s->updates.known > 0 ? s->updates.known : NAN;
}

/* This pass and those after it. */
static double left_in_iterations(const struct speed *s)
{
    double passes = 1, unknown = !is_known(s, s->last.kind), ms = fmax(pass_mean_ms(s, s->last.kind) - s->pass_ms, 0);

    for (int k = 0; k < PASS_KINDS; k++)
        if (s->last.after[k]) {
            passes += s->last.after[k];
            unknown += is_known(s, k) ? 0 : s->last.after[k];
            ms += s->last.after[k] * pass_mean_ms(s, k);
        }
    return unknown * UNKNOWN_SHARE < passes ? ms / 1e3 : NAN;
}

/* At the end slots stand idle until the last one is through: half an episode, where they do not begin together. */
static double left_in_episodes(const struct speed *s)
{
    double in = s->last.episodes - s->pass_episodes, mean;

    if (in <= 0)
        return NAN;
    mean = (s->last.steps - s->pass_steps) / in;
    return (fmax(s->last.missing * mean - s->last.steps_running, 0) + s->last.running * mean / 2) / speed_steps(s);
}

double speed_left_s(const struct speed *s)
{
    if (!s->seen || s->last.stopped || is_idle(s, &s->last))
        return NAN;
    if (s->last.iterates && !s->last.draining)
        return left_in_iterations(s);
    if (s->last.missing > 0 && !s->last.draining)
        return left_in_episodes(s);
    return s->last.updates_planned > 0 ? (s->last.updates_planned - s->last.updates) / speed_updates(s) : NAN;
}
