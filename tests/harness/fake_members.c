#include "proto/trajectory.pb-c.h"
#include "tests/harness/fake_members.h"

#include <errno.h>

#include "base/atomic_file.h"
#include "run/journal.h"
#include "run/manifest.h"
#include "wire/address.h"
#include "wire/member.h"

enum { TICK_MS = 10, SLOTS = 4, DEADLINE_MS = 20000, OPEN_MAX = 4, ROWS_MAX = 256 };

struct fake {                   /* one process's worth: its own wire and membership */
    struct fakes *all;
    struct wire *wire;
    struct member *member;
    bool asking;                /* a lease request is out */
};

struct open_rows {
    uint64_t stage, iteration, episodes[ROWS_MAX];
    size_t n;
};

struct fakes {
    uv_loop_t *loop;
    uv_timer_t timer;
    char run_dir[256], join[ADDRESS_MAX];
    struct journal *journal;
    struct fake learner, worker, actor, prm;
    struct open_rows open[OPEN_MAX];    /* newest last */
    size_t n_open;
    uint64_t newest[2];                 /* committed, by kind */
    uint8_t newest_digest[2][SHA256_SIZE];
    struct fakes_count count;
    void (*watch)(const struct message *message, void *arg);
    void *watch_arg;
    bool closed;
};

void fakes_watch(struct fakes *fakes, void (*fn)(const struct message *message, void *arg), void *arg)
{
    fakes->watch = fn;
    fakes->watch_arg = arg;
}

static void show(const struct fakes *fakes, const struct message *message)
{
    if (fakes->watch)
        fakes->watch(message, fakes->watch_arg);
}

const struct fakes_count *fakes_count(const struct fakes *fakes) { return &fakes->count; }

/* A failure here is the test's: the caller sees that nothing goes on. */
static void must(int result, const char *what)
{
    if (result < 0) {
        fprintf(stderr, "fake members: %s: %s\n", what, strerror(-result));
        abort();
    }
}

static void no_reply(int result, const struct message *reply, void *arg)
{
    (void)reply;                /* whatever was lost is said again with the next inventory */
    ((struct fake *)arg)->all->count.broken += result == -EREMOTEIO;
}

static void tell(struct fake *fake, Gantry__Kind kind, const ProtobufCMessage *body)
{
    struct wire_call call = {.kind = kind, .body = body, .deadline_ms = DEADLINE_MS, .on_reply = no_reply, .arg = fake};

    (void)wire_call(member_client(fake->member), &call, NULL);
}

/* ---- learner ------------------------------------------------------------------------------------------ */

static bool coin(uint64_t episode) { return episode * 2654435761u % 8 < 5; }

static void fill_journaled(const struct fakes *f, const struct journal_entry *entry, Gantry__JournaledEpisode *out)
{
    gantry__journaled_episode__init(out);
    out->episode = entry->episode;
    out->digest = (ProtobufCBinaryData) {.len = SHA256_SIZE, .data = (uint8_t *)entry->digest};
    out->success = coin(entry->episode);
    out->steps = 10;
    out->member = member_id(f->worker.member);
}

static void send_inventory(struct fakes *f)
{
    Gantry__Inventory inventory = GANTRY__INVENTORY__INIT;
    Gantry__JournaledEpisode episodes[OPEN_MAX * ROWS_MAX], *pointers[OPEN_MAX * ROWS_MAX];
    struct journal_entry entries[OPEN_MAX * ROWS_MAX];
    size_t n = 0;

    for (size_t i = 0; i < f->n_open; i++)
        for (size_t k = 0; k < f->open[i].n; k++)
            if (journal_find(f->journal, f->open[i].episodes[k], &entries[n]) == 0) {
                fill_journaled(f, &entries[n], &episodes[n]);
                pointers[n] = &episodes[n];
                n++;
            }
    inventory.stage = f->n_open ? f->open[f->n_open - 1].stage : UINT32_MAX;
    inventory.iteration = f->n_open ? f->open[f->n_open - 1].iteration : UINT32_MAX;
    inventory.rows = f->n_open ? (uint32_t)f->open[f->n_open - 1].n : 0;
    inventory.episodes = pointers;
    inventory.n_episodes = n;
    inventory.policy_version = f->newest[0];
    inventory.prm_version = f->newest[1];
    inventory.policy_digest = (ProtobufCBinaryData) {.len = SHA256_SIZE, .data = f->newest_digest[0]};
    inventory.prm_digest = (ProtobufCBinaryData) {.len = SHA256_SIZE, .data = f->newest_digest[1]};
    tell(&f->learner, WIRE_KIND(INVENTORY), &inventory.base);
}

static void on_open(struct fakes *f, const Gantry__OpenIteration *said)
{
    struct open_rows *open = NULL;

    for (size_t i = 0; i < f->n_open; i++)
        if (f->open[i].stage == said->stage && f->open[i].iteration == said->iteration)
            open = &f->open[i];
    if (!open) {
        if (f->n_open == OPEN_MAX)
            memmove(f->open, f->open + 1, --f->n_open * sizeof f->open[0]);
        open = &f->open[f->n_open++];
        open->stage = said->stage;
        open->iteration = said->iteration;
    }
    open->n = MIN(said->n_episodes, (size_t)ROWS_MAX);
    memcpy(open->episodes, said->episodes, open->n * sizeof open->episodes[0]);
    send_inventory(f);
}

static void commit_version(struct fakes *f, const Gantry__Plan *plan, const char *final)
{
    struct manifest m = {.run = f->learner.wire->run,
                         .kind = (int)plan->kind,
                         .number = plan->version,
                         .parent = plan->parent,
                         .group_epoch = plan->group_epoch,
                         .stage = (uint32_t)plan->stage,
                         .iteration = (uint32_t)plan->iteration};
    char dir[VERSION_PATH], path[VERSION_PATH + 16];
    struct error error;

    memcpy(m.plan_digest, plan->digest.data, SHA256_SIZE);
    m.consumed = calloc(plan->n_episodes + 1, sizeof *m.consumed);
    for (; m.n_consumed < plan->n_episodes; m.n_consumed++) {
        struct journal_entry entry;

        must(journal_find(f->journal, plan->episodes[m.n_consumed], &entry), "a planned episode is not in the journal");
        m.consumed[m.n_consumed].episode = entry.episode;
        memcpy(m.consumed[m.n_consumed].digest, entry.digest, SHA256_SIZE);
    }
    must(version_begin(f->run_dir, m.kind, m.number, dir, &error), "begin");
    snprintf(path, sizeof path, "%s/weights", dir);
    must(atomic_file_write(path, final, strlen(final)), "weights");
    must(version_commit(f->run_dir, dir, &m, &error), "commit");
    manifest_release(&m);
    f->count.commits++;
}

/* Commit it, or find that it was committed before; say so either way. */
static void on_plan(struct fakes *f, const Gantry__Plan *plan)
{
    Gantry__Committed committed = GANTRY__COMMITTED__INIT;
    char final[VERSION_PATH], dir[64];
    struct manifest m;
    struct error error;

    f->count.plans++;
    must(version_path(f->run_dir, (int)plan->kind, plan->version, final), "path");
    if (access(final, F_OK) < 0)
        commit_version(f, plan, final);
    must(manifest_read(final, &m, &error), "manifest");
    f->newest[m.kind] = m.number;
    memcpy(f->newest_digest[m.kind], m.digest, SHA256_SIZE);
    snprintf(dir, sizeof dir, "%s/v%06llu", m.kind ? "prms" : "policies", (unsigned long long)m.number);
    committed.kind = plan->kind;
    committed.version = m.number;
    committed.parent = m.parent;
    committed.dir = dir;
    committed.manifest_digest = (ProtobufCBinaryData) {.len = SHA256_SIZE, .data = m.digest};
    committed.plan_digest = plan->digest;
    committed.stage = plan->stage;
    committed.iteration = plan->iteration;
    committed.trained = plan->episodes;
    committed.n_trained = plan->n_episodes;
    committed.metrics = "{\"loss\":0.5}";
    committed.gate_passed = true;
    committed.gate_text = "fake";
    tell(&f->learner, WIRE_KIND(COMMITTED), &committed.base);
    manifest_release(&m);
}

/* What Deliver does: durable first, then the coordinator hears of it. */
static void deliver(struct fakes *f, const Gantry__Lease *lease)
{
    Gantry__Trajectory trajectory = GANTRY__TRAJECTORY__INIT;
    uint64_t episode = lease->episode;
    uint8_t meta[128];
    size_t n_meta;
    Gantry__Journaled journaled = GANTRY__JOURNALED__INIT;
    Gantry__JournaledEpisode said, *pointer = &said;
    struct journal_entry entry;
    uint8_t digest[SHA256_SIZE];
    struct error error;
    int r = -ENOENT;

    trajectory.episode = episode;
    trajectory.policy_version = lease->policy_version;
    trajectory.prm_version = lease->prm_version;
    n_meta = gantry__trajectory__pack(&trajectory, meta);       /* without the fence: played again, it has the same bytes */
    for (size_t i = 0; i < f->n_open; i++)
        for (size_t k = 0; k < f->open[i].n; k++)
            if (f->open[i].episodes[k] == episode) {
                must(journal_segment(f->journal, (uint32_t)f->open[i].stage, (uint32_t)f->open[i].iteration, &error), "segment");
                r = journal_append(f->journal, episode, meta, n_meta, "frames", 6, digest, &error);
                journaled.stage = f->open[i].stage;
                journaled.iteration = f->open[i].iteration;
            }
    if (r < 0 && r != -EEXIST)
        return;
    must(journal_sync(f->journal, &error), "sync");
    must(journal_find(f->journal, episode, &entry), "find");
    fill_journaled(f, &entry, &said);
    journaled.episodes = &pointer;
    journaled.n_episodes = 1;
    f->count.played++;
    tell(&f->learner, WIRE_KIND(JOURNALED), &journaled.base);
}

/* ---- worker, servers ------------------------------------------------------------------------------------- */

static void on_grant(int result, const struct message *reply, void *arg)
{
    struct fake *worker = arg;
    const Gantry__LeaseGrant *grant;

    worker->asking = false;
    if (result < 0)
        return;
    show(worker->all, reply);
    grant = (const Gantry__LeaseGrant *)reply->body;
    for (size_t i = 0; i < grant->n_leases; i++) {
        worker->all->count.leases++;
        deliver(worker->all, grant->leases[i]);
    }
}

static void on_tick(uv_timer_t *timer)
{
    struct fakes *f = timer->data;
    Gantry__LeaseRequest request = GANTRY__LEASE_REQUEST__INIT;
    struct wire_call call = {.kind = WIRE_KIND(LEASE_REQUEST), .body = &request.base, .deadline_ms = 1000, .on_reply = on_grant,
                             .arg = &f->worker};

    if (!member_joined(f->worker.member) || f->worker.asking || member_draining(f->worker.member))
        return;
    request.member = member_id(f->worker.member);
    request.slots = SLOTS;
    f->worker.asking = wire_call(member_client(f->worker.member), &call, NULL) == 0;
}

static void on_versions(struct fake *server, const Gantry__Versions *said)
{
    for (size_t i = 0; i < said->n_keep; i++) {
        Gantry__VersionState state = GANTRY__VERSION_STATE__INIT;

        state.member = member_id(server->member);
        state.kind = said->kind;
        state.version = said->keep[i]->version;
        state.ready = true;
        tell(server, WIRE_KIND(VERSION_STATE), &state.base);
    }
}

static void on_push(const struct message *message, void *arg)
{
    struct fake *fake = arg;

    show(fake->all, message);
    switch (message->envelope.kind) {
    case WIRE_KIND(OPEN_ITERATION): on_open(fake->all, (const Gantry__OpenIteration *)message->body); break;
    case WIRE_KIND(PLAN): on_plan(fake->all, (const Gantry__Plan *)message->body); break;
    case WIRE_KIND(VERSIONS): on_versions(fake, (const Gantry__Versions *)message->body); break;
    default: break;
    }
}

/* ---- membership -------------------------------------------------------------------------------------------- */

static void on_welcome(const Gantry__Welcome *welcome, bool again, void *arg)
{
    struct fake *fake = arg;
    struct fakes *f = fake->all;
    char path[300];

    (void)again;
    f->count.welcomes++;
    if (fake != &f->learner)
        return;
    if (!f->journal) {
        struct error error;
        struct manifest m;

        snprintf(path, sizeof path, "%s/journal", f->run_dir);
        must(journal_open(path, welcome->run, JOURNAL_WRITE, &f->journal, NULL, &error), "journal");
        snprintf(path, sizeof path, "%s/policies/v000000", f->run_dir);
        must(manifest_read(path, &m, &error), "version 0");
        memcpy(f->newest_digest[0], m.digest, SHA256_SIZE);
        manifest_release(&m);
    }
    send_inventory(f);
}

static void on_left(void *arg) { (void)arg; }

static void on_drain(const char *reason, void *arg)
{
    struct fake *fake = arg;

    fake->all->count.drains++;
    member_leave(fake->member, reason, 1000, on_left, NULL);
}

static void on_refused(int result, const char *text, void *arg)
{
    fprintf(stderr, "fake member refused: %s: %s\n", strerror(-result), text);
    ((struct fake *)arg)->all->count.refused++;
}

static int join(struct fakes *f, struct fake *fake, Gantry__Role role, const char *address, struct error *error)
{
    struct member_options options = {
        .join = f->join, .build = "test", .device = "cpu", .address = address, .slots = SLOTS, .on_welcome = on_welcome,
        .on_push = on_push, .on_drain = on_drain, .on_refused = on_refused, .arg = fake,
    };
    int r = wire_new(f->loop, role, &fake->wire);

    fake->all = f;
    return r < 0 ? r : member_new(fake->wire, &options, &fake->member, error);
}

int fakes_new(uv_loop_t *loop, const char *run_dir, struct fakes **ret, struct error *error)
{
    struct fakes *f = calloc(1, sizeof *f);
    int r;

    if (!f)
        return -ENOMEM;
    f->loop = loop;
    snprintf(f->run_dir, sizeof f->run_dir, "%s", run_dir);
    r = address_ipc(run_dir, "coordinator", f->join, error);
    if (r == 0)
        r = join(f, &f->learner, GANTRY__ROLE__ROLE_LEARNER, "ipc:///tmp/gantry.fake.learner", error);
    if (r == 0)
        r = join(f, &f->worker, GANTRY__ROLE__ROLE_ENV_WORKER, NULL, error);
    if (r == 0)
        r = join(f, &f->actor, GANTRY__ROLE__ROLE_ACTOR, "ipc:///tmp/gantry.fake.actor", error);
    if (r == 0)
        r = join(f, &f->prm, GANTRY__ROLE__ROLE_PRM_SERVER, "ipc:///tmp/gantry.fake.prm", error);
    uv_timer_init(loop, &f->timer);
    f->timer.data = f;
    uv_timer_start(&f->timer, on_tick, TICK_MS, TICK_MS);
    if (r < 0) {
        fakes_free(f);
        return r;
    }
    *ret = f;
    return 0;
}

static void on_timer_closed(uv_handle_t *handle) { ((struct fakes *)handle->data)->closed = true; }

static void leave(struct fake *fake)
{
    fake->member = member_free(fake->member);
    fake->wire = wire_free(fake->wire);
}

struct fakes *fakes_free(struct fakes *f)
{
    if (!f)
        return NULL;
    leave(&f->learner);
    leave(&f->worker);
    leave(&f->actor);
    leave(&f->prm);
    uv_close((uv_handle_t *)&f->timer, on_timer_closed);
    while (!f->closed)
        uv_run(f->loop, UV_RUN_ONCE);
    f->journal = journal_close(f->journal);
    free(f);
    return NULL;
}
