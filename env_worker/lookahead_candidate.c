/* One candidate's life: ask the policy, play the action in a copy of the state, ask again, ...; then be judged. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "env_worker/lookahead_internal.h"

/* What is left to ask once all its steps are played. */
static enum todo judged_by(const struct lookahead *s)
{
    return lookahead_scores(s) ? TODO_SCORE : s->judge == JUDGE_VALUE ? TODO_VALUE : TODO_NOTHING;
}

static void on_stepped(struct sim_job *job)
{
    struct candidate *c = job->owner;
    struct lookahead *s = c->search;
    int result = job->result;
    bool success = job->success;

    sim_job_free(job);
    if (!lookahead_job_back(s))
        return;
    s->slot->shared->totals.candidate_steps++;
    player_beat(&s->slot->player);
    if (result < 0) {
        s->alive[c->index] = false;
    } else {
        c->steps++;
        if (success && !s->met[c->index])
            s->met[c->index] = c->steps;
        c->todo = c->steps < s->h ? TODO_ACT : judged_by(s);
    }
    if (lookahead_ask_next(s))
        lookahead_advance(s);
}

static int step_candidate(struct candidate *c)
{
    struct lookahead *s = c->search;
    struct sim_job *job = sim_job_new(SIM_JOB_CANDIDATE, s->slot->index, 0, on_stepped, c);

    if (!job)
        return -ENOMEM;
    if (s->trail)
        memcpy(s->trail + ((size_t)c->index * s->h + c->steps) * s->state_size, c->state, s->state_size);
    job->state = c->state;
    job->frames = frames_ref(s->slot->search_frames);
    job->frame = job->row = candidate_frame(c, c->steps + 1);
    memcpy(job->action, s->moves[c->index * s->h + c->steps].action, sizeof(job->action));
    s->jobs++;
    simulation_submit(s->slot->shared->simulation, job);
    return 0;
}

static void call_back(struct candidate *c, int result)
{
    servers_took(&c->search->slot->shared->servers, c->call.client, result, c->call.since_ms);
    c->call = (struct pending_call){0};
    c->asking = false;
    c->search->calls--;
    player_beat(&c->search->slot->player);
}

/* The action is there: try it in the copy; without copies it is ready to be judged. */
static int go_on(struct candidate *c)
{
    struct lookahead *s = c->search;

    if (s->judge == JUDGE_CONFIDENCE)
        s->scores[c->index * s->h + c->steps] = s->moves[c->index * s->h + c->steps].confidence;
    if (s->judge == JUDGE_VALUE && c->steps > 0)
        s->scores[c->index * s->h + c->steps - 1] = s->moves[c->index * s->h + c->steps].value;
    if (s->method != SAMPLE_N)
        return step_candidate(c);
    c->todo = s->gaussian ? TODO_NOTHING : judged_by(s);
    return 0;
}

static void on_acted(int result, const struct message *reply, void *arg)
{
    struct candidate *c = arg;
    struct lookahead *s = c->search;
    char text[120] = "";
    enum player_answer answer;

    call_back(c, result);
    answer = act_answer(result, reply, &s->slot->episode, &s->moves[c->index * s->h + c->steps], 1, text, sizeof(text));
    if (answer == PLAYER_OK && go_on(c) < 0)
        answer = PLAYER_NO_ANSWER;
    if (answer != PLAYER_OK) {
        lookahead_fail(s, answer, text);
        return;
    }
    if (lookahead_ask_next(s))
        lookahead_advance(s);
}

static void on_valued(int result, const struct message *reply, void *arg)
{
    struct candidate *c = arg;
    struct lookahead *s = c->search;
    char text[120] = "";
    enum player_answer answer;

    call_back(c, result);
    answer = value_answer(result, reply, &s->slot->episode, &s->scores[c->index * s->h + s->h - 1], text, sizeof(text));
    if (answer != PLAYER_OK) {
        lookahead_fail(s, answer, text);
        return;
    }
    if (lookahead_ask_next(s))
        lookahead_advance(s);
}

static void on_scored(int result, const struct message *reply, void *arg)
{
    struct candidate *c = arg;
    struct lookahead *s = c->search;
    uint32_t n = s->mean ? s->h : 1;
    char text[120] = "";
    enum player_answer answer;

    call_back(c, result);
    answer = score_answer(result, reply, &s->slot->episode, s->scores + c->index * s->h + (s->h - n), n, text, sizeof(text));
    if (answer != PLAYER_OK) {
        lookahead_fail(s, answer, text);
        return;
    }
    if (lookahead_ask_next(s))
        lookahead_advance(s);
}

/* What a candidate's frames are to the episode, and what was done after each: its first step, then the moves tried. */
static void tell_past(const struct candidate *c, uint32_t *step, float *action)
{
    const struct lookahead *s = c->search;
    const struct episode *e = &s->slot->episode;
    const struct move *moves = s->moves + c->index * s->h;

    step[0] = 0;
    memcpy(action, e->steps ? e->action : moves[0].action, e->action_dims * sizeof(*action));
    for (uint32_t i = 1; i <= s->h; i++) {
        step[i] = e->steps + i;
        if (i < s->h)
            memcpy(action + i * e->action_dims, moves[i].action, e->action_dims * sizeof(*action));
    }
}

static int ask_score(struct candidate *c, struct wire_client *server)
{
    struct lookahead *s = c->search;
    const struct episode *e = &s->slot->episode;
    uint32_t n = s->mean ? s->h : 1;
    _cleanup_free_ uint32_t *at = malloc(sizeof(*at) * n), *step = malloc(sizeof(*step) * (s->h + 1));
    _cleanup_free_ float *action = malloc(sizeof(*action) * s->h * e->action_dims);

    if (!at || !step || !action)
        return -ENOMEM;
    for (uint32_t i = 0; i < n; i++)
        at[i] = s->h - n + i + 1;
    tell_past(c, step, action);
    return request_score(server, e,
                         &(struct score_images){
                             .frames = s->slot->search_frames,
                             .first = candidate_frame(c, 0),
                             .n = s->h + 1,
                             .at = at,
                             .n_at = n,
                             .step = step,
                             .action = action,
                             .deadline_ms = servers_patience(&s->slot->shared->servers, server, SCORE_DEADLINE_MS),
                         },
                         on_scored, c, &c->call);
}

/* Without copies there is no next picture: a reward model that reads actions is shown the present one again, after the action. */
static int ask_score_of_action(struct candidate *c, struct wire_client *server)
{
    struct lookahead *s = c->search;
    const struct episode *e = &s->slot->episode;
    const uint32_t first = e->steps ? 0 : 1, n = 3 - first, at = n - 1, step[3] = {0, e->steps, e->steps + 1};
    float action[2 * SIM_ACTION_MAX];

    frames_copy(s->slot->search_frames, candidate_frame(c, 1), e->frames, e->steps);
    frames_copy(s->slot->search_frames, candidate_frame(c, 2), e->frames, e->steps);
    memcpy(action, e->steps ? e->action : s->moves[c->index].action, e->action_dims * sizeof(*action));
    memcpy(action + e->action_dims, s->moves[c->index].action, e->action_dims * sizeof(*action));
    return request_score(server, e,
                         &(struct score_images){
                             .frames = s->slot->search_frames,
                             .first = candidate_frame(c, first),
                             .n = n,
                             .at = &at,
                             .n_at = 1,
                             .step = step + first,
                             .action = action + first * e->action_dims,
                             .deadline_ms = servers_patience(&s->slot->shared->servers, server, SCORE_DEADLINE_MS),
                         },
                         on_scored, c, &c->call);
}

static int ask(struct candidate *c)
{
    struct lookahead *s = c->search;
    struct slot *slot = s->slot;
    struct episode *e = &slot->episode;
    struct wire_client *server;

    if (c->todo == TODO_SCORE) {
        server = servers_pick(&slot->shared->servers, GANTRY__ROLE__ROLE_PRM_SERVER, e->lease.prm_version, slot->index);
        return !server ? -ENOTCONN : s->method == SAMPLE_N ? ask_score_of_action(c, server) : ask_score(c, server);
    }
    server = servers_pick(&slot->shared->servers, GANTRY__ROLE__ROLE_ACTOR, e->lease.policy_version, slot->index);
    if (!server)
        return -ENOTCONN;
    e->policy_steps++;
    return request_act(server, e, &(struct act_ways){slot->shared->chain, slot->shared->full, slot->shared->ended},
                       &(struct act_ask){
                           .temperature = s->temperature,
                           .step = e->steps + c->steps,
                           .sample = c->index,
                           .frames = c->steps ? slot->search_frames : e->frames,
                           .frame = c->steps ? candidate_frame(c, c->steps) : e->steps,
                           .row = c->steps ? candidate_frame(c, c->steps) : e->steps,
                           .value_only = c->todo == TODO_VALUE,
                           .confidence = s->judge == JUDGE_CONFIDENCE,
                           .deadline_ms = servers_patience(&slot->shared->servers, server, ACT_DEADLINE_MS),
                       },
                       c->todo == TODO_VALUE ? on_valued : on_acted, c, &c->call);
}

bool lookahead_ask_next(struct lookahead *s)
{
    for (uint32_t i = 0; i < s->n && s->calls < s->window; i++) {
        struct candidate *c = &s->candidates[i];
        int r;

        if (!s->alive[i] || c->asking || c->todo == TODO_NOTHING)
            continue;
        r = ask(c);
        if (r < 0) {
            lookahead_fail(s, PLAYER_NO_ANSWER, r == -ENOTCONN ? "look-ahead: no server is known" : strerror(-r));
            return false;
        }
        c->asking = true;
        c->todo = TODO_NOTHING;
        s->calls++;
    }
    return s->calls == 0 && s->jobs == 0;
}
