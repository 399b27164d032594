/* sim_pull.c - the last actor stands on a host without the run's directory: what it holds is brought over from the learner by the
 * real pull machine, over the simulated network, onto a disk that keeps a beginning when it dies. */
#include <errno.h>
#include <string.h>

#include "tests/sim/sim_world.h"

static const uint64_t sizes[SIM_PULL_FILES] = {3, 9};       /* "bytes" of the files of every version */
static const struct pull_limits limits = {.chunk_least = 1, .chunk_most = 4, .under_way = 8, .unsized = 16};

bool sim_is_remote(uint32_t node)
{
    return node == SIM_ACTOR_0 + SIM_ACTORS - 1;
}

static void step(struct sim_world *w, uint32_t node, const struct pull_event *event);

void sim_pull_begin(struct sim_world *w, uint32_t node, const struct holder_effect *load)
{
    struct sim_server *s = &w->nodes[node].server;
    struct sim_brought *disk = &w->brought[node];
    struct pull_file files[SIM_PULL_FILES];

    if (disk->version != load->version || memcmp(disk->digest, load->digest, SHA256_SIZE))
        *disk = (struct sim_brought) {.version = load->version};
    memcpy(disk->digest, load->digest, SHA256_SIZE);
    for (int i = 0; i < SIM_PULL_FILES; i++)
        files[i] = (struct pull_file) {.name = "weights", .size = sizes[i], .have = disk->have[i], .sized = i > 0};
    s->pulling = true;
    s->pull_number++;
    s->pull_version = load->version;
    if (pull_init(&s->pull, files, SIM_PULL_FILES, &limits, sim_random(w)) < 0)
        abort();
    step(w, node, &(struct pull_event) {.kind = PULL_TICK});
}

static void finish(struct sim_world *w, uint32_t node, int result)
{
    struct sim_server *s = &w->nodes[node].server;
    const struct sim_brought *disk = &w->brought[node];

    s->pulling = false;
    for (int i = 0; i < SIM_PULL_FILES && result == 0; i++)
        if (disk->have[i] != sizes[i] || disk->damaged[i] || disk->version != s->pull_version)
            sim_fail(w, "actor %u would serve version %llu, of which file %d is not whole", node,
                     (unsigned long long)s->pull_version, i);
    sim_server_brought(w, node, s->pull_version, result);
}

static struct sim_event *later(struct sim_world *w, uint32_t node, uint64_t in_ms, const struct pull_effect *effect, bool write)
{
    struct sim_event *e = sim_schedule(w, in_ms, SIM_EVENT_PULL, node);

    e->ticket = effect->offset;
    e->slot = effect->file;
    e->version = w->nodes[node].server.pull_number;
    e->flag = write;
    return e;
}

static void carry_out(struct sim_world *w, uint32_t node, const struct pull_effect *effect)
{
    struct sim_server *s = &w->nodes[node].server;
    struct sim_brought *disk = &w->brought[node];
    struct sim_message m = {.kind = SIM_WEIGHTS, .from = node, .to = SIM_LEARNER, .version = s->pull_version,
                            .ticket = effect->offset, .slot = effect->file, .rows = effect->size, .request = s->pull_number};

    switch (effect->kind) {
    case PULL_ASK:
        sim_send(w, &m, NULL, 0, 0);
        later(w, node, effect->timeout_ms, effect, false);
        break;
    case PULL_WRITE:
        if (effect->offset > disk->have[effect->file])
            sim_fail(w, "a hole in a file that is brought over");
        if (effect->offset == 0)
            disk->damaged[effect->file] = false;
        disk->have[effect->file] = effect->offset + effect->size;
        disk->damaged[effect->file] |= sim_chance(w, 2);
        s->last_chunk = effect->last;
        later(w, node, sim_below(w, 20), effect, true);
        break;
    case PULL_RESTART: s->pull_number++; break;     /* what was asked for is forgotten */
    case PULL_FORGET: break;
    case PULL_DONE: finish(w, node, 0); break;
    case PULL_FAILED: finish(w, node, effect->result); break;
    }
}

static void step(struct sim_world *w, uint32_t node, const struct pull_event *event)
{
    struct pull_effects out;

    pull_step(&w->nodes[node].server.pull, event, w->now_ms, &out);
    for (size_t i = 0; i < out.n; i++)
        carry_out(w, node, &out.items[i]);
}

/* A chunk has been written, or nobody has answered in time. */
void sim_pull_event(struct sim_world *w, uint32_t node, const struct sim_event *e)
{
    struct sim_server *s = &w->nodes[node].server;
    struct pull_event event = {.kind = e->flag ? PULL_WRITTEN : PULL_CHUNK, .file = e->slot, .offset = e->ticket,
                               .result = e->flag ? 0 : -ETIMEDOUT};

    if (!s->pulling || e->version != s->pull_number || sim_crash_point(w, node))
        return;
    if (e->flag && s->last_chunk && w->brought[node].damaged[e->slot] && w->options.bug != SIM_BUG_NO_DIGEST)
        event.result = -EBADMSG;
    step(w, node, &event);
}

void sim_pull_reply(struct sim_world *w, uint32_t node, const struct sim_message *m)
{
    struct sim_server *s = &w->nodes[node].server;
    struct pull_event event = {.kind = PULL_CHUNK, .file = m->slot, .offset = m->ticket, .size = m->rows, .result = m->status,
                               .file_size = m->episode};

    if (s->pulling && m->request == s->pull_number && m->version == s->pull_version)
        step(w, node, &event);
}

void sim_pull_tick(struct sim_world *w, uint32_t node)
{
    struct sim_server *s = &w->nodes[node].server;

    if (s->pulling && !holder_wants(&s->holder, s->pull_version))
        finish(w, node, -ECANCELED);
    else if (s->pulling)
        step(w, node, &(struct pull_event) {.kind = PULL_TICK});
}

/* The learner's side: what has been committed, by file and offset. */
void sim_pull_answer(struct sim_world *w, const struct sim_message *m)
{
    struct sim_message reply = *m;
    bool there = m->version == 0;

    for (size_t i = 0; i < w->versions.n; i++)
        there |= w->versions.items[i].it.kind == KIND_POLICY && w->versions.items[i].it.number == m->version;
    reply.kind = SIM_WEIGHTS_REPLY;
    reply.from = SIM_LEARNER;
    reply.to = m->from;
    reply.to_life = m->from_life;
    reply.status = there ? 0 : -ESTALE;
    reply.episode = sizes[m->slot];
    reply.rows = (uint32_t)MIN((uint64_t)m->rows, sizes[m->slot] - MIN(m->ticket, sizes[m->slot]));
    sim_send(w, &reply, NULL, 0, 0);
}
