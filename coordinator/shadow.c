#include "coordinator/shadow.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/figure.h"
#include "base/macro.h"
#include "rl/stats.h"

void shadow_begin(struct shadow *s, uint64_t version, uint64_t against, uint32_t wanted, double margin, double rank)
{
    struct shadow_verdict last = s->last;

    *s = (struct shadow) {.version = version, .against = against, .wanted = MIN(wanted, (uint32_t)SHADOW_MAX), .margin = margin,
                          .rank = rank, .last = last};
}

void shadow_end(struct shadow *s)
{
    struct shadow_verdict last = s->last;

    *s = (struct shadow) {.last = last};
}

static bool is_complete(const struct shadow_episode *e) { return e->frames && e->ended; }

uint32_t shadow_complete(const struct shadow *s)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < s->n; i++)
        n += is_complete(&s->episodes[i]);
    return n;
}

/* Its place, or a new one. An episode that one half never comes of (a busy server, a worker that died) makes room, the oldest
 * first. */
static struct shadow_episode *place(struct shadow *s, uint64_t episode)
{
    uint32_t out = 0;

    for (uint32_t i = 0; i < s->n; i++)
        if (s->episodes[i].episode == episode)
            return &s->episodes[i];
    if (s->n == SHADOW_ROOM) {
        while (is_complete(&s->episodes[out]))      /* at most SHADOW_MAX are */
            out++;
        s->n--;
        memmove(&s->episodes[out], &s->episodes[out + 1], (s->n - out) * sizeof(s->episodes[0]));
    }
    s->episodes[s->n] = (struct shadow_episode) {.episode = episode};
    return &s->episodes[s->n++];
}

static bool in_unit(float x) { return x >= 0 && x <= 1; }

void shadow_scored(struct shadow *s, const struct shadow_report *report)
{
    struct shadow_episode *e;

    if (!s->version || shadow_ready(s) || report->shadow != s->version || report->version != s->against || !report->frames ||
        !in_unit(report->difference) || !in_unit(report->last) || !in_unit(report->shadow_last) ||
        !(fabsf(report->rank) <= 1.0001f))
        return;
    e = place(s, report->episode);
    *e = (struct shadow_episode) {
        .episode = report->episode, .frames = report->frames, .difference = report->difference, .rank = report->rank,
        .last = report->last, .shadow_last = report->shadow_last, .ended = e->ended, .success = e->success,
    };
}

void shadow_outcome(struct shadow *s, uint64_t episode, bool success)
{
    struct shadow_episode *e;

    if (!s->version || shadow_ready(s))
        return;
    e = place(s, episode);
    e->ended = true;
    e->success = success;
}

static int find_aucs(const struct shadow *s, struct shadow_verdict *v)
{
    _cleanup_free_ double *old = calloc(s->n + 1, sizeof(*old));
    _cleanup_free_ double *new = calloc(s->n + 1, sizeof(*new));
    _cleanup_free_ bool *success = calloc(s->n + 1, sizeof(*success));
    int n = 0, r;

    if (!old || !new || !success)
        return -ENOMEM;
    for (uint32_t i = 0; i < s->n; i++)
        if (is_complete(&s->episodes[i])) {
            old[n] = (double)s->episodes[i].last;
            new[n] = (double)s->episodes[i].shadow_last;
            success[n++] = s->episodes[i].success;
        }
    r = auc(old, success, n, &v->auc_against);
    return r < 0 ? r : auc(new, success, n, &v->auc);
}

int shadow_judge(const struct shadow *s, struct shadow_verdict *ret)
{
    struct shadow_verdict v = {.version = s->version, .against = s->against, .auc = NAN, .auc_against = NAN};

    for (uint32_t i = 0; i < s->n; i++) {
        const struct shadow_episode *e = &s->episodes[i];

        if (!is_complete(e))
            continue;
        v.episodes++;
        v.successes += e->success;
        v.frames += e->frames;
        v.difference += (double)e->difference * e->frames;
        v.rank += (double)e->rank;
    }
    v.difference /= v.frames ? (double)v.frames : 1;
    v.rank /= v.episodes ? v.episodes : 1;
    if (v.successes >= SHADOW_EACH && v.episodes - v.successes >= SHADOW_EACH) {
        int r = find_aucs(s, &v);

        if (r < 0)
            return r;
        v.passed = v.auc >= v.auc_against - s->margin;
    } else {
        v.passed = v.rank >= s->rank;
    }
    *ret = v;
    return 0;
}

void shadow_text(const struct shadow_verdict *v, char *ret, size_t size)
{
    char told[96];

    if (isnan(v->auc))
        snprintf(told, sizeof(told), "too few outcomes of both kinds for an AUC");
    else
        snprintf(told, sizeof(told), "AUC %.3f against %.3f at the last frame", v->auc, v->auc_against);
    snprintf(ret, size, "%s (%u of %u succeeded), rank correlation %.3f, mean difference %.4f over %" PRIu64 " frames", told,
             v->successes, v->episodes, figure(v->rank, 3), v->difference, v->frames);
}

void shadow_write(const struct shadow *s, struct strbuf *out)
{
    if (s->last.version)
        strbuf_addf(out, "shadow_last %" PRIu64 " %" PRIu64 " %d %u %u %" PRIu64 " %a %a %a %a\n", s->last.version,
                    s->last.against, s->last.passed, s->last.episodes, s->last.successes, s->last.frames, s->last.difference,
                    s->last.rank, s->last.auc, s->last.auc_against);
    if (!s->version)
        return;
    strbuf_addf(out, "shadow %" PRIu64 " %" PRIu64 " %u %a %a\n", s->version, s->against, s->wanted, s->margin, s->rank);
    for (uint32_t i = 0; i < s->n; i++) {
        const struct shadow_episode *e = &s->episodes[i];

        strbuf_addf(out, "shadow_episode %" PRIu64 " %u %a %a %a %a %d %d\n", e->episode, e->frames, (double)e->difference,
                    (double)e->rank, (double)e->last, (double)e->shadow_last, e->ended, e->success);
    }
}

int shadow_parse(const char *key, const char *value, struct shadow *s, struct error *error)
{
    struct shadow_verdict v = {0};
    struct shadow_episode e = {0};
    int passed, ended, success;

    if (!strcmp(key, "shadow_last") &&
        sscanf(value, "%" SCNu64 " %" SCNu64 " %d %u %u %" SCNu64 " %la %la %la %la", &v.version, &v.against, &passed,
               &v.episodes, &v.successes, &v.frames, &v.difference, &v.rank, &v.auc, &v.auc_against) == 10) {
        v.passed = passed;
        s->last = v;
        return 0;
    }
    if (!strcmp(key, "shadow") &&
        sscanf(value, "%" SCNu64 " %" SCNu64 " %u %la %la", &s->version, &s->against, &s->wanted, &s->margin, &s->rank) == 5 &&
        s->wanted <= SHADOW_MAX)
        return 0;
    if (!strcmp(key, "shadow_episode") && s->n < SHADOW_ROOM &&
        sscanf(value, "%" SCNu64 " %u %a %a %a %a %d %d", &e.episode, &e.frames, &e.difference, &e.rank, &e.last,
               &e.shadow_last, &ended, &success) == 8) {
        e.ended = ended;
        e.success = success;
        s->episodes[s->n++] = e;
        return 0;
    }
    return error_set(error, EBADMSG, "ledger: blob memory: %.30s: \"%.60s\" is no line of a trial", key, value);
}
