#include "env_worker/player.h"

#include <stdio.h>

#include "base/macro.h"

const struct player_limits player_limits_default = {
    .retries = 6, .pause_ms = 100, .pause_max_ms = 5000, .version_wait_ms = 60000};

void player_init(struct player *player, const struct player_limits *limits, uint64_t first_ticket)
{
    *player = (struct player) { .limits = limits ? limits : &player_limits_default, .last_ticket = first_ticket };
}

static struct player_effect *emit(struct player *player, struct player_effects *out, enum player_effect_kind kind)
{
    struct player_effect *effect = &out->items[out->n++];

    *effect = (struct player_effect) {
        .kind = kind, .episode = player->terms.episode, .fence = player->terms.fence, .step = player->step,
        .success = player->success, .timeout = player->timeout,
    };
    return effect;
}

/* The one job or request of the present phase. */
static void ask(struct player *player, struct player_effects *out)
{
    static const enum player_effect_kind kinds[] = {
        [PLAYER_RESETTING] = PLAYER_DO_RESET, [PLAYER_ACTING] = PLAYER_DO_ACT, [PLAYER_STEPPING] = PLAYER_DO_STEP,
        [PLAYER_SCORING] = PLAYER_DO_SCORE, [PLAYER_DELIVERING] = PLAYER_DO_DELIVER,
    };
    struct player_effect *effect = emit(player, out, kinds[player->phase]);

    player->ticket = effect->ticket = ++player->last_ticket;
    effect->version = player->phase == PLAYER_SCORING ? player->terms.prm_version : player->terms.policy_version;
    effect->action = player->action;
}

static void enter(struct player *player, enum player_phase phase, struct player_effects *out)
{
    player->phase = phase;
    player->failures = 0;
    player->not_yet_since_ms = 0;
    ask(player, out);
}

static void set_free(struct player *player, bool played, struct player_effects *out)
{
    emit(player, out, PLAYER_DO_FREE)->played = played;
    player->phase = PLAYER_IDLE;
    player->ticket = 0;
    player->terms = (struct player_terms) { 0 };
}

static void give_back(struct player *player, enum lease_return reason, const char *text, struct player_effects *out)
{
    struct player_effect *effect = emit(player, out, PLAYER_DO_RETURN);

    effect->reason = reason;
    snprintf(effect->text, sizeof(effect->text), "%s", text ? text : "");
    set_free(player, false, out);
}

/* ---- the way forward ----------------------------------------------------------------------------- */

static void begin(struct player *player, const struct player_terms *terms, struct player_effects *out)
{
    player->terms = *terms;
    player->step = player->actions = player->action = player->beats = 0;
    player->success = player->timeout = false;
    enter(player, PLAYER_RESETTING, out);
}

static void finish(struct player *player, struct player_effects *out)
{
    enter(player, player->terms.prm_version ? PLAYER_SCORING : PLAYER_DELIVERING, out);
}

static void next_action(struct player *player, struct player_effects *out)
{
    if (player->terms.expert || player->action < player->actions)
        enter(player, PLAYER_STEPPING, out);
    else
        enter(player, PLAYER_ACTING, out);
}

static void on_step_done(struct player *player, bool success, struct player_effects *out)
{
    player->step++;
    player->action++;
    player->success = success;
    player->timeout = !success && player->step >= player->terms.max_steps;
    if (player->success || player->timeout)
        finish(player, out);
    else
        next_action(player, out);
}

static void on_sim(struct player *player, const struct player_event *event, struct player_effects *out)
{
    if (event->sim.result < 0) {
        give_back(player, LEASE_SIMULATOR_ERROR, event->sim.text ? event->sim.text : "simulator error", out);
        return;
    }
    player->beats++;
    if (player->phase == PLAYER_RESETTING)
        next_action(player, out);
    else
        on_step_done(player, event->sim.success, out);
}

/* ---- requests that got no good answer -------------------------------------------------------------- */

static uint64_t pause_for(const struct player *player)
{
    uint64_t pause = player->limits->pause_ms;

    for (uint32_t i = 1; i < player->failures && pause < player->limits->pause_max_ms; i++)
        pause *= 2;
    return MIN(pause, (uint64_t)player->limits->pause_max_ms);
}

/* `forever`: a delivery is repeated until it has a verdict. */
static void not_answered(struct player *player, enum player_answer answer, const char *text, bool forever, uint64_t now_ms,
                         struct player_effects *out)
{
    if (answer == PLAYER_NOT_YET) {
        if (!player->not_yet_since_ms)
            player->not_yet_since_ms = MAX(now_ms, (uint64_t)1);
        if (!forever && now_ms - player->not_yet_since_ms >= player->limits->version_wait_ms) {
            give_back(player, LEASE_GIVEN_BACK, "no server holds the leased version", out);
            return;
        }
        player->retry_at_ms = now_ms + player->limits->pause_ms;
        return;
    }
    player->failures++;
    if (answer == PLAYER_BAD_ANSWER && player->failures > PLAYER_BAD_ANSWERS) {
        give_back(player, LEASE_SERVER_ERROR, text ? text : "a server's answer cannot be used", out);
        return;
    }
    if (!forever && player->failures > player->limits->retries) {
        give_back(player, LEASE_GIVEN_BACK, text ? text : "no server answers", out);
        return;
    }
    player->retry_at_ms = now_ms + pause_for(player);
}

static void on_acted(struct player *player, const struct player_event *event, uint64_t now_ms, struct player_effects *out)
{
    if (event->acted.answer == PLAYER_BROKEN) {
        give_back(player, LEASE_SIMULATOR_ERROR, event->acted.text ? event->acted.text : "look-ahead failed", out);
    } else if (event->acted.answer == PLAYER_BAD_REQUEST) {
        give_back(player, LEASE_SERVER_ERROR, event->acted.text ? event->acted.text : "the policy server refused the request",
                  out);
    } else if (event->acted.answer != PLAYER_OK) {
        not_answered(player, event->acted.answer, event->acted.text, false, now_ms, out);
    } else {
        player->beats++;
        player->actions = MAX(event->acted.actions, 1u);
        player->action = 0;
        enter(player, PLAYER_STEPPING, out);
    }
}

static void on_scored(struct player *player, const struct player_event *event, uint64_t now_ms, struct player_effects *out)
{
    if (event->answered.answer == PLAYER_BAD_REQUEST) {
        give_back(player, LEASE_SERVER_ERROR, event->answered.text ? event->answered.text : "the PRM server refused the request",
                  out);
    } else if (event->answered.answer != PLAYER_OK) {
        not_answered(player, event->answered.answer, event->answered.text, false, now_ms, out);
    } else {
        player->beats++;
        enter(player, PLAYER_DELIVERING, out);
    }
}

static void on_delivered(struct player *player, const struct player_event *event, uint64_t now_ms, struct player_effects *out)
{
    enum deliver_verdict verdict = event->delivered.verdict;

    if (event->delivered.answer == PLAYER_BAD_REQUEST || (event->delivered.answer == PLAYER_OK && verdict == DELIVER_REFUSED))
        give_back(player, LEASE_SIMULATOR_ERROR,
                  event->delivered.text ? event->delivered.text : "the learner refused the trajectory", out);
    else if (event->delivered.answer == PLAYER_BAD_ANSWER)
        give_back(player, LEASE_SERVER_ERROR, event->delivered.text ? event->delivered.text : "a server's answer cannot be used", out);
    else if (event->delivered.answer != PLAYER_OK)
        not_answered(player, event->delivered.answer, event->delivered.text, true, now_ms, out);
    else
        set_free(player, verdict == DELIVER_ACCEPTED || verdict == DELIVER_DUPLICATE, out);
}

/* ---- the lease has ended, time ---------------------------------------------------------------------- */

static void on_revoked(struct player *player, const struct player_event *event, struct player_effects *out)
{
    if (player->phase == PLAYER_IDLE || event->episode != player->terms.episode || player->phase == PLAYER_DELIVERING)
        return;             /* played to its end: the first durable delivery counts, whoever held the lease last */
    if (player->ticket)
        emit(player, out, PLAYER_DO_CANCEL)->ticket = player->ticket;
    set_free(player, false, out);
}

static void on_give_up(struct player *player, const char *reason, struct player_effects *out)
{
    if (player->phase == PLAYER_IDLE)
        return;
    if (player->ticket)
        emit(player, out, PLAYER_DO_CANCEL)->ticket = player->ticket;
    give_back(player, LEASE_GIVEN_BACK, reason, out);
}

static bool answers_phase(const struct player *player, enum player_event_kind kind)
{
    switch (kind) {
    case PLAYER_RESET_DONE: return player->phase == PLAYER_RESETTING;
    case PLAYER_ACTED: return player->phase == PLAYER_ACTING;
    case PLAYER_STEP_DONE: return player->phase == PLAYER_STEPPING;
    case PLAYER_SCORED: return player->phase == PLAYER_SCORING;
    case PLAYER_DELIVERED: return player->phase == PLAYER_DELIVERING;
    default: return false;
    }
}

void player_step(struct player *player, const struct player_event *event, uint64_t now_ms, struct player_effects *out)
{
    out->n = 0;
    if (event->kind == PLAYER_LEASE) {
        if (player->phase == PLAYER_IDLE)
            begin(player, &event->terms, out);
        return;
    }
    if (event->kind == PLAYER_REVOKED) {
        on_revoked(player, event, out);
        return;
    }
    if (event->kind == PLAYER_GIVE_UP) {
        on_give_up(player, event->reason, out);
        return;
    }
    if (event->kind == PLAYER_TICK) {
        if (player->phase != PLAYER_IDLE && !player->ticket && now_ms >= player->retry_at_ms)
            ask(player, out);
        return;
    }
    if (!player->ticket || event->ticket != player->ticket || !answers_phase(player, event->kind))
        return;             /* an answer to something given up */
    player->ticket = 0;
    switch (event->kind) {
    case PLAYER_RESET_DONE:
    case PLAYER_STEP_DONE: on_sim(player, event, out); break;
    case PLAYER_ACTED: on_acted(player, event, now_ms, out); break;
    case PLAYER_SCORED: on_scored(player, event, now_ms, out); break;
    case PLAYER_DELIVERED: on_delivered(player, event, now_ms, out); break;
    default: break;
    }
}
