/* sim_server.c - an actor or PRM server around the real holder: loads, answers by version, dies. */
#include <errno.h>
#include <string.h>

#include "tests/sim/sim_world.h"

static int kind_of(uint32_t node)
{
    return node == SIM_PRM ? KIND_PRM : KIND_POLICY;
}

static void step(struct sim_world *w, uint32_t node, const struct holder_event *event)
{
    struct sim_node *n = &w->nodes[node];
    struct holder_effects out;

    holder_step(&n->server.holder, event, w->now_ms, &out);
    for (size_t i = 0; i < out.n; i++) {
        const struct holder_effect *effect = &out.items[i];
        struct sim_message m;

        switch (effect->kind) {
        case HOLDER_LOAD:
            if (sim_is_remote(node)) {
                sim_pull_begin(w, node, effect);
                break;
            }
            sim_schedule(w, 10 + sim_below(w, 200), SIM_EVENT_LOADED, node)->version = effect->version;
            break;
        case HOLDER_FREE:
            break;
        case HOLDER_SAY:
            m = (struct sim_message) {
                .kind = SIM_VERSION_STATE, .from = node, .to = SIM_COORDINATOR, .request = ++w->last_request, .epoch = n->epoch,
                .member = n->member, .version = effect->version, .kind_of_version = kind_of(node), .flag = effect->ready,
            };
            if (n->epoch)
                sim_send(w, &m, NULL, 0, 0);
            break;
        }
    }
}

void sim_server_start(struct sim_world *w, uint32_t node)
{
    memset(&w->nodes[node].server, 0, sizeof(w->nodes[node].server));
    holder_init(&w->nodes[node].server.holder, 2000);
}

void sim_server_loaded(struct sim_world *w, uint32_t node, uint64_t version)
{
    bool ok = !sim_chance(w, 20);       /* a file system that is slow to show it */

    if (sim_crash_point(w, node))
        return;
    step(w, node,
         &(struct holder_event){.kind = HOLDER_LOADED, .loaded = {.version = version, .ok = ok, .text = "not readable"}});
}

void sim_server_brought(struct sim_world *w, uint32_t node, uint64_t version, int result)
{
    struct sim_event *loaded;

    if (result == 0) {
        loaded = sim_schedule(w, 10 + sim_below(w, 100), SIM_EVENT_LOADED, node);
        loaded->version = version;
        return;
    }
    step(w, node, &(struct holder_event) {.kind = HOLDER_LOADED, .loaded = {.version = version, .text = "not to be had",
                                                                            .later = result == -EAGAIN || result == -ECANCELED}});
}

static void answer(struct sim_world *w, uint32_t node, const struct sim_message *m)
{
    enum holder_answer have = holder_take(&w->nodes[node].server.holder, m->version);
    struct sim_message reply = *m;

    if (have == HOLDER_SERVE && holder_put(&w->nodes[node].server.holder, m->version))
        step(w, node, &(struct holder_event) { .kind = HOLDER_TICK });
    reply.kind = m->kind == SIM_ACT ? SIM_ACT_REPLY : SIM_SCORE_REPLY;
    reply.from = node;
    reply.to = m->from;
    reply.to_life = m->from_life;
    reply.status = have == HOLDER_SERVE ? PLAYER_OK : PLAYER_NOT_YET;
    sim_send(w, &reply, NULL, 0, 0);
}

void sim_server_message(struct sim_world *w, uint32_t node, const struct sim_message *m)
{
    struct sim_node *n = &w->nodes[node];

    if (sim_crash_point(w, node))
        return;
    switch (m->kind) {
    case SIM_ACT:
    case SIM_SCORE:
        answer(w, node, m);
        break;
    case SIM_WELCOME:
        if (m->epoch < n->epoch)
            break;
        n->epoch = m->epoch;
        n->member = m->member;
        step(w, node, &(struct holder_event) { .kind = HOLDER_WELCOME });
        break;
    case SIM_HEARTBEAT_REPLY:
        if (!m->flag)
            n->epoch = 0;
        break;
    case SIM_REFUSE:
        if (m->status == REFUSE_STALE)
            n->epoch = 0;
        break;
    case SIM_WEIGHTS_REPLY: sim_pull_reply(w, node, m); break;
    case SIM_VERSIONS:
        if (m->epoch == n->epoch)
            step(w, node, &(struct holder_event) { .kind = HOLDER_LIST, .list = { .versions = m->list, .n = m->n } });
        break;
    default:
        break;
    }
}

void sim_server_tick(struct sim_world *w, uint32_t node)
{
    struct sim_node *n = &w->nodes[node];
    struct sim_message m = { .kind = SIM_HEARTBEAT, .from = node, .to = SIM_COORDINATOR, .epoch = n->epoch, .member = n->member };

    if (sim_crash_point(w, node))
        return;
    step(w, node, &(struct holder_event) { .kind = HOLDER_TICK });
    if (sim_is_remote(node))
        sim_pull_tick(w, node);
    if (!n->epoch && w->now_ms - n->hello_ms >= 500) {
        sim_hello(w, node, NULL, 0);
    } else if (n->epoch && w->now_ms - n->beat_ms >= 500) {
        n->beat_ms = w->now_ms;
        m.request = ++w->last_request;
        sim_send(w, &m, NULL, 0, 0);
    }
}
