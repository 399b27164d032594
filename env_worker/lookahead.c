#include "env_worker/lookahead.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/crc32c.h"

enum { CANDIDATES_MAX = 128, HORIZON_MAX = 64 };

enum todo { TODO_ACT, TODO_SCORE, TODO_NOTHING };

struct candidate {
    struct lookahead *search;
    uint32_t index;
    enum todo todo;             /* what it waits to ask; NOTHING while a job runs and at the end */
    bool asking;                /* a call is open */
    bool alive;                 /* its simulation has not broken */
    uint32_t steps;             /* played of the horizon */
    void *state;                /* bytes of its present state */
    struct pending_call call;
};

struct lookahead {
    struct slot *slot;
    lookahead_done *done;
    bool cancelled;             /* only jobs in hand keep it alive */
    unsigned jobs;              /* in the sim thread */
    unsigned calls, window;     /* open calls, and how many may be */
    uint32_t n, h, m;
    bool mean;
    float temperature;
    void *state;                /* the slot's, as it was */
    size_t state_size;
    struct candidate *candidates;   /* (n) */
    struct move *moves;         /* (n, h) */
    float *scores;              /* (n, h); `last`: only [h-1] of each row */
};

int lookahead_choose(const float *scores, const bool *alive, uint32_t n, uint32_t h, bool mean)
{
    double best_value = 0, best_last = 0, value, last;
    int best = -1;
    uint32_t c, i;

    for (c = 0; c < n; c++) {
        if (!alive[c])
            continue;
        value = last = (double)scores[c * h + h - 1];
        if (mean) {
            for (value = 0, i = 0; i < h; i++)
                value += (double)scores[c * h + i];
            value /= h;
        }
        if (best < 0 || value > best_value || (!(value < best_value) && last > best_last)) {
            best = (int)c;
            best_value = value;
            best_last = last;
        }
    }
    return best;
}

/* ---- memory ---------------------------------------------------------------------------------------------- */

static void free_search(struct lookahead *s)
{
    uint32_t c;

    if (s->candidates)
        for (c = 0; c < s->n; c++)
            free(s->candidates[c].state);
    free(s->candidates);
    free(s->moves);
    free(s->scores);
    free(s->state);
    free(s);
}

/* A job came back: false when the search is over for its owner, and perhaps gone. */
static bool job_back(struct lookahead *s)
{
    s->jobs--;
    if (!s->cancelled)
        return true;
    if (s->jobs == 0)
        free_search(s);
    return false;
}

void lookahead_cancel(struct lookahead *s)
{
    uint32_t c;

    if (!s)
        return;
    for (c = 0; c < s->n; c++)
        pending_cancel(&s->candidates[c].call);
    s->cancelled = true;
    if (s->jobs == 0)
        free_search(s);
}

/* The end: the slot hears of it, then the search is no more. */
static void finish(struct lookahead *s, const struct lookahead_result *result)
{
    s->done(s->slot, result);
    lookahead_cancel(s);
}

static void fail(struct lookahead *s, enum player_answer answer, const char *text)
{
    finish(s, &(struct lookahead_result) { .answer = answer, .text = text });
}

/* ---- the candidates' lives --------------------------------------------------------------------------------- */

static bool ask_next(struct lookahead *s);
static void conclude(struct lookahead *s);

/* The candidate's frame after k >= 1 steps in the search's block; its row begins with a copy of o_0, as Score wants it. */
static uint32_t frame_after(const struct candidate *c, uint32_t k)
{
    return c->index * (c->search->h + 1) + k;
}

static void on_stepped(struct sim_job *job)
{
    struct candidate *c = job->owner;
    struct lookahead *s = c->search;
    int result = job->result;

    sim_job_free(job);
    if (!job_back(s))
        return;
    s->slot->shared->totals.candidate_steps++;
    if (result < 0) {
        c->alive = false;
    } else {
        c->steps++;
        c->todo = c->steps < s->h ? TODO_ACT : TODO_SCORE;
    }
    if (ask_next(s))
        conclude(s);
}

static int step_candidate(struct candidate *c)
{
    struct lookahead *s = c->search;
    struct sim_job *job = sim_job_new(SIM_JOB_CANDIDATE, s->slot->index, 0, on_stepped, c);

    if (!job)
        return -ENOMEM;
    job->state = c->state;
    job->frames = frames_ref(s->slot->search_frames);
    job->frame = frame_after(c, c->steps + 1);
    memcpy(job->action, s->moves[c->index * s->h + c->steps].action, sizeof(job->action));
    s->jobs++;
    simulation_submit(s->slot->shared->simulation, job);
    return 0;
}

static void call_back(struct candidate *c)
{
    c->call = (struct pending_call) {0};
    c->asking = false;
    c->search->calls--;
}

static void on_acted(int result, const struct message *reply, void *arg)
{
    struct candidate *c = arg;
    struct lookahead *s = c->search;
    char text[120] = "";
    enum player_answer answer;

    call_back(c);
    answer = act_answer(result, reply, &s->slot->episode, &s->moves[c->index * s->h + c->steps], 1, text, sizeof(text));
    if (answer == PLAYER_OK && step_candidate(c) < 0)
        answer = PLAYER_NO_ANSWER;
    if (answer != PLAYER_OK) {
        fail(s, answer, text);
        return;
    }
    ask_next(s);
}

static void on_scored(int result, const struct message *reply, void *arg)
{
    struct candidate *c = arg;
    struct lookahead *s = c->search;
    uint32_t n = s->mean ? s->h : 1;
    char text[120] = "";
    enum player_answer answer;

    call_back(c);
    answer = score_answer(result, reply, &s->slot->episode, s->scores + c->index * s->h + (s->h - n), n, text, sizeof(text));
    if (answer != PLAYER_OK) {
        fail(s, answer, text);
        return;
    }
    if (ask_next(s))
        conclude(s);
}

/* What a candidate's frames are to the episode, and what was done after each: its first step, then the moves tried. */
static void tell_past(const struct candidate *c, uint32_t *step, float *action)
{
    const struct lookahead *s = c->search;
    const struct episode *e = &s->slot->episode;
    const struct move *moves = s->moves + c->index * s->h;

    step[0] = 0;
    memcpy(action, e->steps ? e->action : moves[0].action, SIM_ACTION_DIMS * sizeof(*action));
    for (uint32_t i = 1; i <= s->h; i++) {
        step[i] = e->steps + i;
        if (i < s->h)
            memcpy(action + i * SIM_ACTION_DIMS, moves[i].action, SIM_ACTION_DIMS * sizeof(*action));
    }
}

static int ask(struct candidate *c)
{
    struct lookahead *s = c->search;
    struct slot *slot = s->slot;
    const struct episode *e = &slot->episode;
    struct wire_client *server;
    uint32_t at[HORIZON_MAX], step[HORIZON_MAX + 1], i, n = s->mean ? s->h : 1;
    float action[HORIZON_MAX * SIM_ACTION_DIMS];

    if (c->todo == TODO_ACT) {
        server = servers_pick(&slot->shared->servers, GANTRY__ROLE__ROLE_ACTOR, e->lease.policy_version, slot->index);
        if (!server)
            return -ENOTCONN;
        return request_act(server, e, &(struct act_ways) {slot->shared->chain, slot->shared->full}, s->temperature, e->steps + c->steps, c->index, c->steps ? slot->search_frames : e->frames,
                           c->steps ? frame_after(c, c->steps) : e->steps, on_acted, c, &c->call);
    }
    server = servers_pick(&slot->shared->servers, GANTRY__ROLE__ROLE_PRM_SERVER, e->lease.prm_version, slot->index);
    if (!server)
        return -ENOTCONN;
    for (i = 0; i < n; i++)
        at[i] = s->h - n + i + 1;
    tell_past(c, step, action);
    return request_score(server, e, &(struct score_images) {
        .frames = slot->search_frames, .first = frame_after(c, 0), .n = s->h + 1, .at = at, .n_at = n, .step = step, .action = action,
    }, on_scored, c, &c->call);
}

/* Send what waits, as far as the window allows. True: nothing waits or is under way, the search is ready to conclude. */
static bool ask_next(struct lookahead *s)
{
    uint32_t i;
    int r;

    for (i = 0; i < s->n && s->calls < s->window; i++) {
        struct candidate *c = &s->candidates[i];

        if (!c->alive || c->asking || c->todo == TODO_NOTHING)
            continue;
        r = ask(c);
        if (r < 0) {
            fail(s, PLAYER_NO_ANSWER, r == -ENOTCONN ? "look-ahead: no server is known" : strerror(-r));
            return false;
        }
        c->asking = true;
        c->todo = TODO_NOTHING;
        s->calls++;
    }
    return s->calls == 0 && s->jobs == 0;
}

/* ---- beginning and end ----------------------------------------------------------------------------------------- */

static void on_saved_after(struct sim_job *job)
{
    struct lookahead *s = job->owner;
    _cleanup_free_ void *now = job->state;
    bool same = job->result == 0 && job->state_size == s->state_size && memcmp(now, s->state, s->state_size) == 0;
    bool alive[CANDIDATES_MAX];
    uint32_t c;
    int best;

    sim_job_free(job);
    if (!job_back(s))
        return;
    if (!same) {
        fail(s, PLAYER_BROKEN, "look-ahead changed the state it started from");
        return;
    }
    for (c = 0; c < s->n; c++)
        alive[c] = s->candidates[c].alive;
    best = lookahead_choose(s->scores, alive, s->n, s->h, s->mean);
    if (best < 0) {
        fail(s, PLAYER_BROKEN, "look-ahead: the simulation of every candidate broke");
        return;
    }
    finish(s, &(struct lookahead_result) {
        .answer = PLAYER_OK, .moves = s->moves + (uint32_t)best * s->h, .n_moves = s->m,
        .state_digest = crc32c(0, s->state, s->state_size), .text = "",
    });
}

static void conclude(struct lookahead *s)
{
    struct sim_job *job = sim_job_new(SIM_JOB_SAVE, s->slot->index, 0, on_saved_after, s);

    if (!job) {
        fail(s, PLAYER_NO_ANSWER, "look-ahead: out of memory");
        return;
    }
    s->jobs++;
    simulation_submit(s->slot->shared->simulation, job);
}

static void on_saved_before(struct sim_job *job)
{
    struct lookahead *s = job->owner;
    int result = job->result;
    uint32_t i;

    s->state = job->state;
    s->state_size = job->state_size;
    sim_job_free(job);
    if (!job_back(s))
        return;
    for (i = 0; i < s->n && result == 0; i++) {
        s->candidates[i].state = malloc(s->state_size);
        if (!s->candidates[i].state)
            result = -ENOMEM;
        else
            memcpy(s->candidates[i].state, s->state, s->state_size);
    }
    if (result < 0) {
        fail(s, PLAYER_NO_ANSWER, "look-ahead: out of memory");
        return;
    }
    ask_next(s);
}

/* The lease's numbers, checked. */
static int read_terms(struct lookahead *s, const struct episode *e, char *text, size_t size)
{
    const Gantry__Lease *lease = &e->lease;
    uint32_t left = lease->max_steps - e->steps;
    uint32_t h = lease->search_horizon ? lease->search_horizon : 8, m = lease->search_execute ? lease->search_execute : h;

    if (lease->search_n > CANDIDATES_MAX || h > HORIZON_MAX) {
        snprintf(text, size, "look-ahead: n %u, horizon %u; at most %d and %d", lease->search_n, h, CANDIDATES_MAX, HORIZON_MAX);
        return -EINVAL;
    }
    if (lease->prm_version == 0) {
        snprintf(text, size, "look-ahead: the lease names no PRM version to judge by");
        return -EINVAL;
    }
    s->n = lease->search_n;
    s->h = MIN(h, left);
    s->m = MIN(m, s->h);
    s->mean = strcmp(e->search_score, "mean") == 0;
    s->temperature = lease->search_temperature > 0 ? lease->search_temperature : lease->temperature;
    return 0;
}

int lookahead_start(struct slot *slot, lookahead_done *done, struct lookahead **ret, char *text, size_t size)
{
    struct lookahead *s = calloc(1, sizeof(*s));
    struct sim_job *job;
    uint32_t c;
    int r;

    if (!s)
        return -ENOMEM;
    r = read_terms(s, &slot->episode, text, size);
    if (r < 0) {
        free(s);
        return r;
    }
    s->slot = slot;
    s->done = done;
    s->window = MAX(1u, slot->shared->servers.credits / MAX(1u, slot->shared->slots));
    s->candidates = calloc(s->n, sizeof(*s->candidates));
    s->moves = malloc(sizeof(*s->moves) * s->n * s->h);
    s->scores = calloc((size_t)s->n * s->h, sizeof(*s->scores));
    job = sim_job_new(SIM_JOB_SAVE, slot->index, 0, on_saved_before, s);
    if (!s->candidates || !s->moves || !s->scores || !job ||
        frames_renew(&slot->search_frames, s->n * (s->h + 1), &slot->shared->shape) < 0) {
        sim_job_free(job);
        free_search(s);
        return -ENOMEM;
    }
    for (c = 0; c < s->n; c++) {
        s->candidates[c] = (struct candidate) { .search = s, .index = c, .alive = true };
        frames_copy(slot->search_frames, frame_after(&s->candidates[c], 0), slot->episode.frames, 0);
    }
    s->jobs++;
    simulation_submit(slot->shared->simulation, job);
    *ret = s;
    return 0;
}
