#include "serve/holder.h"

#include <stdio.h>
#include <string.h>

#include "base/macro.h"

void holder_init(struct holder *holder, uint32_t retry_ms)
{
    *holder = (struct holder) { .retry_ms = retry_ms };
}

static struct holder_version *find(struct holder *holder, uint64_t version)
{
    for (size_t i = 0; i < holder->n; i++)
        if (holder->items[i].version == version)
            return &holder->items[i];
    return NULL;
}

static void say(const struct holder_version *item, struct holder_effects *out)
{
    struct holder_effect *effect;

    if (out->n == HOLDER_EFFECTS)
        return;
    effect = &out->items[out->n++];
    *effect = (struct holder_effect) { .kind = HOLDER_SAY, .version = item->version, .ready = item->state == HOLDER_READY };
    memcpy(effect->digest, item->digest, SHA256_SIZE);
    snprintf(effect->text, sizeof(effect->text), "%s", item->text);
}

static void say_all(const struct holder *holder, struct holder_effects *out)
{
    for (size_t i = 0; i < holder->n; i++)
        if (holder->items[i].state == HOLDER_READY || holder->items[i].state == HOLDER_REFUSED)
            say(&holder->items[i], out);
}

/* ---- what is wanted ------------------------------------------------------------------------------ */

/* `item` was loaded (or refused) as other bytes than are wanted now: forget that, unless it serves or is on its way. */
static void renew(struct holder_version *item, const struct holder_listed *listed)
{
    if (!memcmp(item->digest, listed->digest, SHA256_SIZE) || item->state == HOLDER_LOADING_NOW || item->state == HOLDER_READY)
        return;
    memcpy(item->digest, listed->digest, SHA256_SIZE);
    snprintf(item->dir, sizeof(item->dir), "%s", listed->dir);
    item->state = HOLDER_WANTED;
}

static void on_list(struct holder *holder, const struct holder_event *event, struct holder_effects *out)
{
    for (size_t i = 0; i < holder->n; i++)
        holder->items[i].wanted = false;
    for (size_t i = 0; i < event->list.n; i++) {
        const struct holder_listed *listed = &event->list.versions[i];
        struct holder_version *item = find(holder, listed->version);

        if (!item && holder->n < HOLDER_MAX) {
            item = &holder->items[holder->n++];
            *item = (struct holder_version) { .version = listed->version, .state = HOLDER_WANTED };
            memcpy(item->digest, listed->digest, SHA256_SIZE);
            snprintf(item->dir, sizeof(item->dir), "%s", listed->dir);
        }
        if (!item)
            continue;
        renew(item, listed);
        item->wanted = true;
        item->order = (uint32_t)i;
    }
    say_all(holder, out);       /* the coordinator repeats the list until it has heard of each */
}

/* ---- letting go and loading -------------------------------------------------------------------------- */

static bool another_is_ready(const struct holder *holder, const struct holder_version *item)
{
    for (size_t i = 0; i < holder->n; i++)
        if (&holder->items[i] != item && holder->items[i].wanted && holder->items[i].state == HOLDER_READY)
            return true;
    return false;
}

static bool can_go(const struct holder *holder, const struct holder_version *item)
{
    if (item->wanted || item->in_use || item->state == HOLDER_LOADING_NOW)
        return false;
    return item->state != HOLDER_READY || another_is_ready(holder, item);
}

static void let_go(struct holder *holder, struct holder_effects *out)
{
    for (size_t i = 0; i < holder->n;) {
        struct holder_version *item = &holder->items[i];

        if (!can_go(holder, item)) {
            i++;
            continue;
        }
        if (item->state == HOLDER_READY && out->n < HOLDER_EFFECTS)
            out->items[out->n++] = (struct holder_effect) { .kind = HOLDER_FREE, .version = item->version };
        *item = holder->items[--holder->n];
    }
}

/* One load at a time: the newest that is wanted and not tried lately. */
static void load_next(struct holder *holder, uint64_t now_ms, struct holder_effects *out)
{
    struct holder_version *best = NULL;
    struct holder_effect *effect;

    for (size_t i = 0; i < holder->n; i++) {
        struct holder_version *item = &holder->items[i];

        if (item->state == HOLDER_LOADING_NOW)
            return;
        if ((item->state == HOLDER_REFUSED || item->state == HOLDER_POSTPONED) && now_ms >= item->retry_at_ms)
            item->state = HOLDER_WANTED;
        if (item->wanted && item->state == HOLDER_WANTED && (!best || item->order > best->order))
            best = item;
    }
    if (!best || out->n == HOLDER_EFFECTS)
        return;
    best->state = HOLDER_LOADING_NOW;
    effect = &out->items[out->n++];
    *effect = (struct holder_effect) { .kind = HOLDER_LOAD, .version = best->version };
    memcpy(effect->digest, best->digest, SHA256_SIZE);
    snprintf(effect->dir, sizeof(effect->dir), "%s", best->dir);
}

static void on_loaded(struct holder *holder, const struct holder_event *event, uint64_t now_ms, struct holder_effects *out)
{
    struct holder_version *item = find(holder, event->loaded.version);

    if (!item || item->state != HOLDER_LOADING_NOW)
        return;
    item->state = event->loaded.ok ? HOLDER_READY : event->loaded.later ? HOLDER_POSTPONED : HOLDER_REFUSED;
    item->retry_at_ms = now_ms + holder->retry_ms;
    snprintf(item->text, sizeof(item->text), "%s", event->loaded.ok || !event->loaded.text ? "" : event->loaded.text);
    if (item->wanted && item->state != HOLDER_POSTPONED)
        say(item, out);
}

void holder_step(struct holder *holder, const struct holder_event *event, uint64_t now_ms, struct holder_effects *out)
{
    out->n = 0;
    switch (event->kind) {
    case HOLDER_LIST: on_list(holder, event, out); break;
    case HOLDER_LOADED: on_loaded(holder, event, now_ms, out); break;
    case HOLDER_WELCOME: say_all(holder, out); break;
    case HOLDER_TICK: break;
    }
    let_go(holder, out);
    load_next(holder, now_ms, out);
}

bool holder_wants(const struct holder *holder, uint64_t version)
{
    for (size_t i = 0; i < holder->n; i++)
        if (holder->items[i].version == version)
            return holder->items[i].wanted;
    return false;
}

/* ---- requests -------------------------------------------------------------------------------------- */

enum holder_answer holder_peek(const struct holder *holder, uint64_t version)
{
    for (size_t i = 0; i < holder->n; i++) {
        const struct holder_version *item = &holder->items[i];

        if (item->version == version && item->state == HOLDER_READY)
            return HOLDER_SERVE;
        if (item->version == version && item->wanted && item->state != HOLDER_REFUSED)
            return HOLDER_LOADING;
    }
    return HOLDER_WRONG_VERSION;
}

enum holder_answer holder_take(struct holder *holder, uint64_t version)
{
    enum holder_answer answer = holder_peek(holder, version);

    if (answer == HOLDER_SERVE)
        find(holder, version)->in_use++;
    return answer;
}

bool holder_put(struct holder *holder, uint64_t version)
{
    struct holder_version *item = find(holder, version);

    if (!item || !item->in_use)
        return false;
    return --item->in_use == 0 && can_go(holder, item);
}
