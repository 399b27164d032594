#include "env_worker/lookahead.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/crc32c.h"
#include "env_worker/lookahead_internal.h"

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
    free(s->alive);
    free(s->met);
    free(s->trail);
    free(s->state);
    free(s);
}

bool lookahead_job_back(struct lookahead *s)
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

bool lookahead_waits(const struct lookahead *s)
{
    for (uint32_t c = 0; c < s->n && s->jobs == 0; c++)
        if (s->candidates[c].call.client && wire_client_up(s->candidates[c].call.client))
            return true;
    return false;
}

/* The end: the slot hears of it, then the search is no more. */
static void finish(struct lookahead *s, const struct lookahead_result *result)
{
    s->done(s->slot, result);
    lookahead_cancel(s);
}

void lookahead_fail(struct lookahead *s, enum player_answer answer, const char *text)
{
    finish(s, &(struct lookahead_result){.answer = answer, .text = text});
}

/* ---- the end --------------------------------------------------------------------------------------------------- */

static struct search_candidates judged(const struct lookahead *s)
{
    const Gantry__Lease *lease = &s->slot->episode.lease;

    return (struct search_candidates){
        .n = s->n,
        .h = s->h,
        .scores = s->scores,
        .alive = s->alive,
        .met = s->met,
        .mean = s->mean,
        .judge = s->judge,
        .seed = s->slot->shared->seed,
        .key = lease->sample_key ? lease->sample_key : lease->episode,
        .step = s->slot->episode.steps,
    };
}

/* Chosen against all: what selection believed it won, to be held against what the episode came to. */
static void note_worth(struct lookahead *s, const struct search_candidates *candidates, uint32_t best)
{
    struct episode *e = &s->slot->episode;
    double all = 0;
    uint32_t living = 0;

    if (s->judge == JUDGE_RANDOM)
        return; /* nobody was asked for scores */
    for (uint32_t c = 0; c < s->n; c++)
        if (s->alive[c] && (s->method != SEARCH_REFINE || c <= s->round)) {
            all += search_worth(candidates, c);
            living++;
        }
    e->search_chosen += search_worth(candidates, best);
    e->search_all += all / MAX(living, 1u);
    e->searches++;
}

static bool says_nothing(const struct lookahead *s)
{
    for (uint32_t i = 0; i < s->n * s->h; i++)
        if (s->scores[i] != 0)
            return false;
    return true;
}

static void choose(struct lookahead *s)
{
    struct search_candidates candidates = judged(s);
    int best = s->method == SEARCH_REFINE ? (int)s->best : search_choose(&candidates);

    if (best < 0 || !s->alive[best]) {
        lookahead_fail(s, PLAYER_BROKEN, "look-ahead: the simulation of every candidate broke");
        return;
    }
    if (s->judge == JUDGE_VALUE && says_nothing(s)) {
        lookahead_fail(s, PLAYER_BAD_REQUEST,
                       "look-ahead by value: the policy has no critic that an actor can ask (rl.critic_time and critic_prm make "
                       "it the learner's)");
        return;
    }
    note_worth(s, &candidates, (uint32_t)best);
    finish(s, &(struct lookahead_result){
                  .answer = PLAYER_OK,
                  .moves = s->moves + (uint32_t)best * s->h,
                  .n_moves = s->m,
                  .state_digest = crc32c(0, s->state, s->state_size),
                  .text = "",
              });
}

/* The state could not be saved: a simulator that broke or cannot is to blame itself. */
static void fail_to_save(struct lookahead *s, int result, const char *text)
{
    lookahead_fail(s, result == -EIO || result == -ENOTSUP ? PLAYER_BROKEN : PLAYER_NO_ANSWER, text);
}

static void on_saved_after(struct sim_job *job)
{
    struct lookahead *s = job->owner;
    _cleanup_free_ void *now = job->state;
    int result = job->result;
    bool same = result == 0 && job->state_size == s->state_size && memcmp(now, s->state, s->state_size) == 0;
    char text[sizeof(job->text)];

    memcpy(text, job->text, sizeof(text));
    sim_job_free(job);
    if (!lookahead_job_back(s))
        return;
    if (result < 0)
        fail_to_save(s, result, text);
    else if (same)
        choose(s);
    else
        lookahead_fail(s, PLAYER_BROKEN, "look-ahead changed the state it started from");
}

static void conclude(struct lookahead *s)
{
    struct sim_job *job = sim_job_new(SIM_JOB_SAVE, s->slot->index, 0, on_saved_after, s);

    if (!job) {
        lookahead_fail(s, PLAYER_NO_ANSWER, "look-ahead: out of memory");
        return;
    }
    s->jobs++;
    simulation_submit(s->slot->shared->simulation, job);
}

/* ---- rounds ----------------------------------------------------------------------------------------------------- */

/* The policy's few samples become n proposals, each with the tokens of the sample it is a neighbour of (nothing trains on them).
 */
static void propose(struct lookahead *s)
{
    struct search_candidates of = judged(s);
    uint32_t k = MIN(s->n, (uint32_t)GAUSSIAN_FROM);
    const uint32_t dims = s->slot->episode.action_dims;
    float from[GAUSSIAN_FROM * SIM_ACTION_MAX], drawn[SEARCH_N_MAX * SIM_ACTION_MAX];

    for (uint32_t i = 0; i < k; i++)
        memcpy(from + i * dims, s->moves[i].action, sizeof(float) * dims);
    search_gaussian(from, k, dims, of.seed, of.key, of.step, drawn, s->n);
    for (uint32_t i = s->n; i-- > 0;) {
        s->moves[i] = s->moves[i % k];
        memcpy(s->moves[i].action, drawn + i * dims, sizeof(float) * dims);
        s->candidates[i].todo = lookahead_scores(s) ? TODO_SCORE : TODO_NOTHING;
    }
    s->proposed = true;
}

/* refine: the round's candidate has its scores. Keep the better one, and begin the next from its lowest-scored step. */
static void next_round(struct lookahead *s)
{
    struct search_candidates of = judged(s);
    struct candidate *c;
    uint32_t from;

    if (s->round > 0 && s->alive[s->round] && (s->always || search_worth(&of, s->round) > search_worth(&of, s->best)))
        s->best = s->round;
    if (s->round + 1 == s->n || !s->alive[s->best]) {
        conclude(s);
        return;
    }
    from = search_lowest(s->scores + s->best * s->h, s->h);
    c = &s->candidates[++s->round];
    memcpy(s->moves + c->index * s->h, s->moves + s->best * s->h, sizeof(*s->moves) * from);
    memcpy(s->trail + (size_t)c->index * s->h * s->state_size, s->trail + (size_t)s->best * s->h * s->state_size,
           s->state_size * from);
    for (uint32_t i = 0; i <= from; i++)
        frames_copy(s->slot->search_frames, candidate_frame(c, i), s->slot->search_frames,
                    candidate_frame(&s->candidates[s->best], i));
    memcpy(c->state, s->trail + ((size_t)s->best * s->h + from) * s->state_size, s->state_size);
    c->steps = from;
    c->todo = TODO_ACT;
    s->temperature = REFINE_T;
    lookahead_ask_next(s);
}

void lookahead_advance(struct lookahead *s)
{
    if (s->gaussian && !s->proposed) {
        propose(s);
        if (!lookahead_ask_next(s))
            return;
    }
    if (s->method == SEARCH_REFINE)
        next_round(s);
    else
        conclude(s);
}

/* ---- beginning ------------------------------------------------------------------------------------------------- */

/* Every candidate begins from the slot's state. */
static int copy_state(struct lookahead *s)
{
    if (s->method == SEARCH_REFINE && !(s->trail = calloc((size_t)s->n * s->h, s->state_size)))
        return -ENOMEM;
    for (uint32_t i = 0; i < s->n; i++) {
        s->candidates[i].state = malloc(s->state_size);
        if (!s->candidates[i].state)
            return -ENOMEM;
        memcpy(s->candidates[i].state, s->state, s->state_size);
    }
    return 0;
}

static void on_saved_before(struct sim_job *job)
{
    struct lookahead *s = job->owner;
    int result = job->result;
    char text[sizeof(job->text)];

    s->state = job->state;
    s->state_size = job->state_size;
    memcpy(text, job->text, sizeof(text));
    sim_job_free(job);
    if (!lookahead_job_back(s))
        return;
    if (result < 0)
        fail_to_save(s, result, text);
    else if (copy_state(s) < 0)
        lookahead_fail(s, PLAYER_NO_ANSWER, "look-ahead: out of memory");
    else
        lookahead_ask_next(s);
}

/* The lease's words: -EINVAL with a line. */
static int read_words(struct lookahead *s, const struct episode *e, char *text, size_t size)
{
    int method = search_name(search_method_names, e->search_method), judge = search_name(search_judge_names, e->search_judge);
    int proposals = search_name(search_proposal_names, e->search_proposals);

    if (method < 0 || judge < 0 || proposals < 0) {
        snprintf(text, size, "look-ahead: this worker knows no method '%s', judge '%s' or proposals '%s'", e->search_method,
                 e->search_judge, e->search_proposals);
        return -EINVAL;
    }
    s->method = (enum search_method)method;
    s->judge = (enum search_judge)judge;
    s->gaussian = s->method == SAMPLE_N && proposals == PROPOSE_GAUSSIAN;
    if (s->method == SAMPLE_N && (s->judge == JUDGE_VALUE || s->judge == JUDGE_ORACLE)) {
        snprintf(text, size, "sample_n: the judge %s looks at where an action led, and sample_n plays none", e->search_judge);
        return -EINVAL;
    }
    if (s->gaussian && s->judge == JUDGE_CONFIDENCE) {
        snprintf(text, size, "sample_n: the policy has no confidence in actions it did not propose; take the proposals policy");
        return -EINVAL;
    }
    if (s->method == SEARCH_REFINE && s->judge != JUDGE_PRM) {
        snprintf(text, size, "refine: judged by the reward model alone, not by %s", e->search_judge);
        return -EINVAL;
    }
    return 0;
}

/* The lease's numbers, checked. */
static int read_terms(struct lookahead *s, const struct episode *e, char *text, size_t size)
{
    const Gantry__Lease *lease = &e->lease;
    uint32_t left = lease->max_steps - e->steps;
    uint32_t h = lease->search_horizon ? lease->search_horizon : 8, m = lease->search_execute ? lease->search_execute : h;
    int r = read_words(s, e, text, size);

    if (r < 0)
        return r;
    if (lease->search_n > SEARCH_N_MAX || h > SEARCH_H_MAX) {
        snprintf(text, size, "look-ahead: n %u, horizon %u; at most %d and %d", lease->search_n, h, SEARCH_N_MAX, SEARCH_H_MAX);
        return -EINVAL;
    }
    if (lookahead_scores(s) && lease->prm_version == 0) {
        snprintf(text, size, "look-ahead: the lease names no PRM version to judge by");
        return -EINVAL;
    }
    s->n = s->method == SEARCH_REFINE ? 1 + REFINE_ROUNDS : MAX(lease->search_n, 1u);
    s->h = s->method == SAMPLE_N ? 1 : s->method == SEARCH_REFINE ? left : MIN(h, left);
    s->m = s->method == SEARCH_REFINE ? s->h : MIN(m, s->h);
    s->mean = s->method == SEARCH_REFINE || strcmp(e->search_score, "mean") == 0;
    s->always = lease->refine_always;
    s->stride = s->h + 1 + (s->method == SAMPLE_N);
    s->temperature = s->method == SEARCH_REFINE      ? REFINE_FIRST_T
                     : lease->search_temperature > 0 ? lease->search_temperature
                                                     : lease->temperature;
    return 0;
}

static int make_room(struct lookahead *s)
{
    struct slot *slot = s->slot;

    s->candidates = calloc(s->n, sizeof(*s->candidates));
    s->moves = calloc((size_t)s->n * s->h, sizeof(*s->moves));
    s->scores = calloc((size_t)s->n * s->h, sizeof(*s->scores));
    s->alive = calloc(s->n, sizeof(*s->alive));
    s->met = calloc(s->n, sizeof(*s->met));
    if (!s->candidates || !s->moves || !s->scores || !s->alive || !s->met)
        return -ENOMEM;
    return frames_renew(&slot->search_frames, s->n * s->stride, &slot->shared->shape);
}

int lookahead_start(struct slot *slot, lookahead_done *done, struct lookahead **ret, char *text, size_t size)
{
    struct lookahead *s = calloc(1, sizeof(*s));
    struct sim_job *job;
    uint32_t c, first;
    int r;

    if (!s)
        return -ENOMEM;
    s->slot = slot;
    s->done = done;
    s->window = MAX(1u, slot->shared->servers.credits / MAX(1u, slot->shared->slots));
    r = read_terms(s, &slot->episode, text, size);
    job = r < 0 ? NULL : sim_job_new(SIM_JOB_SAVE, slot->index, 0, on_saved_before, s);
    if (r == 0)
        r = job ? make_room(s) : -ENOMEM;
    if (r < 0) {
        sim_job_free(job);
        free_search(s);
        return r;
    }
    first = s->method == SEARCH_REFINE ? 1 : s->gaussian ? MIN(s->n, (uint32_t)GAUSSIAN_FROM) : s->n; /* who begins */
    for (c = 0; c < s->n; c++) {
        s->candidates[c] = (struct candidate){.search = s, .index = c, .todo = c < first ? TODO_ACT : TODO_NOTHING};
        s->alive[c] = true;
        frames_copy(slot->search_frames, candidate_frame(&s->candidates[c], 0), slot->episode.frames, 0);
    }
    s->jobs++;
    simulation_submit(slot->shared->simulation, job);
    *ret = s;
    return 0;
}
