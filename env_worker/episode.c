#include "env_worker/episode.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "sim/sim.h"
#include "wire/limits.h"

enum { HIDDEN_MAX = WIRE_BODY_MAX / 2 };        /* bytes of a trajectory's hidden states; a longer episode goes without */

static int keep(char *into, size_t size, const char *text)
{
    return snprintf(into, size, "%s", text ? text : "") < (int)size ? 0 : -ENAMETOOLONG;
}

static int grow(void *array, size_t bytes)
{
    void *bigger = realloc(*(void **)array, bytes);

    if (!bigger)
        return -ENOMEM;
    *(void **)array = bigger;
    return 0;
}

/* Arrays only ever grow: a slot's later episodes allocate nothing. */
static int make_room(struct episode *e, uint32_t steps)
{
    if (e->capacity >= steps)
        return 0;
    if (grow(&e->value, sizeof(float) * steps) < 0 || grow(&e->action, sizeof(float) * SIM_ACTION_MAX * steps) < 0 ||
        grow(&e->label, sizeof(float) * SIM_ACTION_MAX * steps) < 0 || grow(&e->progress, sizeof(float) * (steps + 1)) < 0 ||
        grow(&e->step_version, sizeof(uint64_t) * steps) < 0 || grow(&e->turns, sizeof(uint32_t) * steps) < 0 ||
        grow(&e->observed, sizeof(uint32_t) * (steps + 1)) < 0 || grow(&e->reward, sizeof(float) * steps) < 0)
        return -ENOMEM;
    e->capacity = steps;
    return 0;
}

int episode_begin(struct episode *e, const Gantry__Lease *lease, uint32_t max_steps, const struct frames_shape *shape,
                  uint32_t action_dims)
{
    int r;

    if ((r = keep(e->task, sizeof(e->task), lease->task)) < 0 || (r = keep(e->style, sizeof(e->style), lease->style)) < 0 ||
        (r = keep(e->search_score, sizeof(e->search_score), lease->search_score)) < 0 ||
        (r = keep(e->search_method, sizeof(e->search_method), lease->search_method)) < 0 ||
        (r = keep(e->search_judge, sizeof(e->search_judge), lease->search_judge)) < 0 ||
        (r = keep(e->search_proposals, sizeof(e->search_proposals), lease->search_proposals)) < 0 ||
        (r = keep(e->perturb, sizeof(e->perturb), lease->perturb)) < 0)
        return r;
    if ((r = make_room(e, max_steps)) < 0)
        return r;
    if ((r = frames_renew(&e->frames, max_steps + 1, shape)) < 0)
        return r;

    e->lease = *lease;
    e->lease.task = e->task;
    e->lease.style = e->style;
    e->lease.search_score = e->search_score;
    e->lease.search_method = e->search_method;
    e->lease.search_judge = e->search_judge;
    e->lease.search_proposals = e->search_proposals;
    e->lease.perturb = e->perturb;
    e->lease.max_steps = max_steps;
    e->lease.draw_turns = lease->draw_turns && lease->search_n <= 1;    /* candidates are judged by what is seen on the way */
    e->action_dims = action_dims;
    e->instruction[0] = '\0';
    e->rewards = e->steps = e->tokens_per_step = e->hidden_turns = e->n_turns = e->n_observed = 0;
    e->scored = false;
    e->sim_us = e->act_us = e->score_us = 0;
    e->state_digest = e->policy_steps = e->searches = e->perturbed_at = 0;
    e->search_chosen = e->search_all = 0;
    return 0;
}

void episode_release(struct episode *e)
{
    e->frames = frames_unref(e->frames);
    free(e->tokens);
    free(e->logp);
    free(e->value);
    free(e->action);
    free(e->label);
    free(e->reward);
    free(e->progress);
    free(e->hidden);
    free(e->step_version);
    free(e->turns);
    free(e->observed);
    *e = (struct episode) {0};
}

static int record_tokens(struct episode *e, const struct episode_step *step)
{
    uint32_t k = step->n_tokens, room = e->capacity * k;

    if (k > EPISODE_TOKENS_MAX || (e->steps > 0 && k != e->tokens_per_step))
        return -EBADMSG;
    if (e->token_room < room) {
        if (grow(&e->tokens, sizeof(uint32_t) * room) < 0 || grow(&e->logp, sizeof(float) * room) < 0)
            return -ENOMEM;
        e->token_room = room;
    }
    e->tokens_per_step = k;
    memcpy(e->tokens + e->steps * k, step->tokens, sizeof(uint32_t) * k);
    memcpy(e->logp + e->steps * k, step->logp, sizeof(float) * k);
    return 0;
}

int episode_note_hidden(struct episode *e, const Gantry__ActReply *act)
{
    size_t width = act->n_hidden, room = (size_t)e->lease.max_steps * width;

    if (!width || e->hidden_turns < e->n_turns || (e->n_turns > 0 && width != e->hidden_width))
        return 0;                       /* there is a gap: the trajectory goes without */
    if (e->hidden_room < room) {
        if (grow(&e->hidden, sizeof(float) * room) < 0)
            return -ENOMEM;
        e->hidden_room = room;
    }
    memcpy(e->hidden + (size_t)e->n_turns * width, act->hidden, sizeof(float) * width);
    e->hidden_width = (uint32_t)width;
    e->hidden_turns = e->n_turns + 1;
    return 0;
}

int episode_record(struct episode *e, const struct episode_step *step)
{
    uint32_t t = e->steps;
    int r;

    if (t >= e->lease.max_steps)
        return -EBADMSG;
    if (step->tokens && (r = record_tokens(e, step)) < 0)
        return r;
    memcpy(e->action + e->action_dims * t, step->action, sizeof(float) * e->action_dims);
    if (step->label)
        memcpy(e->label + e->action_dims * t, step->label, sizeof(float) * e->action_dims);
    e->value[t] = step->value;
    e->reward[t] = step->reward;
    e->rewards += !isnan(step->reward);
    e->step_version[t] = step->version;
    if (step->begins_turn)
        e->turns[e->n_turns++] = t;
    e->steps++;
    return 0;
}

void episode_observed(struct episode *e, uint32_t t)
{
    e->observed[e->n_observed++] = t;
}

uint32_t episode_score_at(const struct episode *e, uint32_t *ret_at)
{
    uint32_t every = MAX(e->lease.score_every, 1u), n = 0;

    for (uint32_t i = 0; i < e->n_observed; i++)
        if (i == 0 || i + 1 == e->n_observed || e->observed[i] - e->observed[ret_at[n - 1]] >= every)
            ret_at[n++] = i;
    return n;
}

float *episode_observed_actions(const struct episode *e)
{
    float *actions = malloc(sizeof(float) * e->action_dims * MAX(e->n_observed, 1u));

    for (uint32_t i = 0; actions && i + 1 < e->n_observed; i++)
        memcpy(actions + i * e->action_dims, e->action + e->observed[i] * e->action_dims, sizeof(float) * e->action_dims);
    return actions;
}

void episode_set_progress(struct episode *e, const uint32_t *at, const float *scores, uint32_t n)
{
    e->progress[e->observed[at[0]]] = scores[0];
    for (uint32_t i = 1; i < n; i++) {
        uint32_t from = e->observed[at[i - 1]], to = e->observed[at[i]];

        for (uint32_t t = from + 1; t <= to; t++) {
            float share = (float)(t - from) / (float)(to - from);

            e->progress[t] = t == to ? scores[i] : scores[i - 1] + share * (scores[i] - scores[i - 1]);
        }
    }
    e->scored = true;
}

/* Hidden states of chunks have a field of their own: an older learner, to which `hidden` has a row a step, passes over it. */
static void put_turns(const struct episode *e, Gantry__Trajectory *ret)
{
    size_t n_hidden = (size_t)e->n_turns * e->hidden_width;
    bool chunks = e->n_turns < e->steps, hidden = e->hidden_turns == e->n_turns && sizeof(float) * n_hidden <= HIDDEN_MAX;

    if (chunks) {
        ret->turns = e->turns;
        ret->n_turns = e->n_turns;
    }
    if (hidden && chunks) {
        ret->turn_hidden = e->hidden;
        ret->n_turn_hidden = n_hidden;
    } else if (hidden) {
        ret->hidden = e->hidden;
        ret->n_hidden = n_hidden;
    }
}

void episode_trajectory(const struct episode *e, bool success, bool timeout, Gantry__Trajectory *ret)
{
    bool demonstration = e->style[0] != '\0';
    uint32_t t = e->steps;

    gantry__trajectory__init(ret);
    ret->episode = e->lease.episode;
    ret->fence = e->lease.fence;
    ret->purpose = e->lease.purpose;
    ret->task = (char *)e->task;
    ret->split = e->lease.split;
    ret->state_seed = e->lease.state_seed;
    ret->policy_version = e->lease.policy_version;
    ret->prm_version = e->lease.prm_version;
    ret->temperature = e->lease.temperature;
    ret->instruction = (char *)e->instruction;
    ret->steps = t;
    ret->max_steps = e->lease.max_steps;
    ret->height = e->frames->shape.height;
    ret->width = e->frames->shape.width;
    ret->images = e->frames->shape.cameras;
    ret->state = e->frames->state;
    ret->n_state = ((size_t)t + 1) * e->frames->shape.state;
    if (e->n_observed <= t) {
        ret->observed = e->observed;
        ret->n_observed = e->n_observed;
    }
    if (t && e->rewards == t) {
        ret->env_reward = e->reward;
        ret->n_env_reward = t;
    }
    ret->action_dims = e->action_dims;
    ret->success = success;
    ret->timeout = timeout;
    ret->action = e->action;
    ret->n_action = (size_t)t * e->action_dims;
    if (demonstration) {
        ret->label = e->label;
        ret->n_label = ret->n_action;
    } else {
        ret->tokens = e->tokens;
        ret->logp = e->logp;
        ret->n_tokens = ret->n_logp = (size_t)t * e->tokens_per_step;
        ret->value = e->value;
        ret->step_version = e->step_version;
        ret->n_value = ret->n_step_version = t;
        put_turns(e, ret);
    }
    if (e->scored) {
        ret->progress = e->progress;
        ret->n_progress = (size_t)t + 1;
    }
    ret->sim_us = e->sim_us;
    ret->act_us = e->act_us;
    ret->score_us = e->score_us;
    ret->search_n = e->lease.search_n;
    ret->state_digest = e->state_digest;
    ret->policy_steps = e->policy_steps;
    if (e->searches) {
        ret->search_chosen = (float)(e->search_chosen / e->searches);
        ret->search_all = (float)(e->search_all / e->searches);
    }
    ret->perturb = (char *)e->perturb;
    ret->perturbed_at = e->perturbed_at;
}
