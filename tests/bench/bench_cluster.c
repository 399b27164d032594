/* bench_cluster - one coordinator process, and a thousand env workers that only pretend to play.
 *
 *   bench_cluster [--workers 1000] [--slots 4] [--episode-s 30] [--seconds 20] [--tcp]
 *
 * The coordinator is bin/gantry-coordinator with its ledger on disk. Workers are real members over real sockets (ipc, or tcp with
 * CURVE): Hello, a heartbeat a second with each lease's step counter, lease requests as slots fall free; a pretended learner
 * reports what was played every 50 ms. Episodes last 0.5 to 1.5 times --episode-s. Printed: the coordinator's share of a core
 * once all have joined and play, and how long a lease took from the request to the answer. The workers' side needs about as much
 * CPU again. */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "base/atomic_file.h"
#include "base/clock.h"
#include "base/sha256.h"
#include "base/strbuf.h"
#include "wire/address.h"
#include "wire/member.h"
#include "wire/security.h"

enum { PER_WIRE = 100, SLOTS_MAX = 64, TICK_MS = 50, STEP_MS = 250, SAMPLES = 1 << 20, JOURNALED_MOST = 4096 };

struct bench;

struct worker {
    struct bench *bench;
    struct member *member;
    struct slot { uint64_t episode, fence, begun_ms, end_ms; } slots[SLOTS_MAX];
    Gantry__HeldLease held[SLOTS_MAX], *held_list[SLOTS_MAX];
    uint64_t asked_ns, retry_ms;
    bool asking, joined;
};

struct bench {
    unsigned n, slots, episode_s, seconds;
    bool tcp;
    char dir[128], join[ADDRESS_MAX], key[SECURITY_KEY_SIZE];
    pid_t coordinator;
    uv_loop_t loop;
    uv_timer_t tick;
    struct wire **wires, *learner_wire;
    unsigned n_wires;
    struct worker *workers;
    struct member *learner;
    bool measuring;
    uint64_t stage, iteration, random, leases, episodes, busy;
    Gantry__JournaledEpisode journaled[JOURNALED_MOST], *journaled_list[JOURNALED_MOST];
    size_t n_journaled;
    uint32_t *latency_us;
    size_t n_latency;
};

static void die(const char *what, int r, const struct error *error)
{
    fprintf(stderr, "bench_cluster: %s: %s\n", what, error_text(error, r));
    exit(EXIT_FAILURE);
}

static uint64_t draw(struct bench *b, uint64_t below)
{
    b->random = b->random * 6364136223846793005u + 1442695040888963407u;
    return (b->random >> 33) % below;
}

/* ---- workers ------------------------------------------------------------------------------------------ */

static void on_grant(int result, const struct message *reply, void *arg)
{
    struct worker *w = arg;
    struct bench *b = w->bench;
    uint64_t now = clock_mono_ms();
    const Gantry__LeaseGrant *grant;
    unsigned at = 0;

    w->asking = false;
    w->retry_ms = now + 500;
    if (result < 0)
        return;
    if (b->measuring && b->n_latency < SAMPLES)
        b->latency_us[b->n_latency++] = (uint32_t)((clock_mono_ns() - w->asked_ns) / 1000);
    grant = (const Gantry__LeaseGrant *)reply->body;
    for (size_t i = 0; i < grant->n_leases; i++) {
        while (at < b->slots && w->slots[at].episode)
            at++;
        if (at == b->slots)
            break;
        w->slots[at] = (struct slot) {grant->leases[i]->episode, grant->leases[i]->fence, now,
                                      now + b->episode_s * 500 + draw(b, b->episode_s * 1000 + 1)};
        b->leases++;
    }
    if (grant->n_leases)
        w->retry_ms = now;
    else if (grant->retry_ms)
        w->retry_ms = now + grant->retry_ms;
}

static void ask(struct worker *w, uint64_t now)
{
    Gantry__LeaseRequest body = GANTRY__LEASE_REQUEST__INIT;

    for (unsigned i = 0; i < w->bench->slots; i++)
        body.slots += !w->slots[i].episode;
    if (w->asking || !body.slots || now < w->retry_ms || !member_joined(w->member))
        return;
    body.member = member_id(w->member);
    w->asked_ns = clock_mono_ns();
    w->asking = wire_call(member_client(w->member), &(struct wire_call) {.kind = WIRE_KIND(LEASE_REQUEST), .body = &body.base,
                          .deadline_ms = 5000, .on_reply = on_grant, .arg = w}, NULL) == 0;
}

static void fill_heartbeat(Gantry__Heartbeat *beat, void *arg)
{
    struct worker *w = arg;
    uint64_t now = clock_mono_ms();

    beat->n_leases = 0;
    beat->leases = w->held_list;
    for (unsigned i = 0; i < w->bench->slots; i++) {
        Gantry__HeldLease *held = &w->held[beat->n_leases];

        if (!w->slots[i].episode)
            continue;
        gantry__held_lease__init(held);
        held->episode = w->slots[i].episode;
        held->fence = w->slots[i].fence;
        held->step = (uint32_t)((now - w->slots[i].begun_ms) / STEP_MS + 1);
        w->held_list[beat->n_leases++] = held;
    }
}

static void on_welcome(const Gantry__Welcome *welcome, bool again, void *arg)
{
    (void)welcome, (void)again;
    ((struct worker *)arg)->joined = true;
}

static void on_refused(int result, const char *text, void *arg)
{
    struct error error = {0};

    (void)arg;
    snprintf(error.text, sizeof error.text, "%s", text);
    die("refused", result, &error);
}

/* ---- the learner ---------------------------------------------------------------------------------------- */

static void ignore(int result, const struct message *reply, void *arg) { (void)result, (void)reply, (void)arg; }

static void on_push(const struct message *message, void *arg)
{
    const Gantry__OpenIteration *open = (const Gantry__OpenIteration *)message->body;
    Gantry__Inventory body = GANTRY__INVENTORY__INIT;
    struct bench *b = arg;

    if (message->envelope.kind != WIRE_KIND(OPEN_ITERATION))
        return;
    body.stage = b->stage = open->stage;
    body.iteration = b->iteration = open->iteration;
    body.rows = (uint32_t)open->n_episodes;
    (void)wire_call(member_client(b->learner), &(struct wire_call) {.kind = WIRE_KIND(INVENTORY), .body = &body.base,
                    .deadline_ms = 10000, .on_reply = ignore}, NULL);
}

static void on_learner_welcome(const Gantry__Welcome *welcome, bool again, void *arg)
{
    Gantry__Inventory body = GANTRY__INVENTORY__INIT;
    struct bench *b = arg;

    (void)welcome, (void)again;
    body.stage = body.iteration = UINT32_MAX;
    (void)wire_call(member_client(b->learner), &(struct wire_call) {.kind = WIRE_KIND(INVENTORY), .body = &body.base,
                    .deadline_ms = 10000, .on_reply = ignore}, NULL);
}

static void report(struct bench *b)
{
    Gantry__Journaled body = GANTRY__JOURNALED__INIT;

    if (!b->n_journaled)
        return;
    body.stage = b->stage;
    body.iteration = b->iteration;
    body.episodes = b->journaled_list;
    body.n_episodes = b->n_journaled;
    if (wire_call(member_client(b->learner), &(struct wire_call) {.kind = WIRE_KIND(JOURNALED), .body = &body.base,
                  .deadline_ms = 10000, .on_reply = ignore}, NULL) == 0)
        b->n_journaled = 0;
}

static void played(struct worker *w, struct slot *slot)
{
    static uint8_t digest[SHA256_SIZE];
    struct bench *b = w->bench;
    Gantry__JournaledEpisode *e = &b->journaled[b->n_journaled];

    if (b->n_journaled == JOURNALED_MOST)
        return;
    gantry__journaled_episode__init(e);
    e->episode = slot->episode;
    e->digest = (ProtobufCBinaryData) {SHA256_SIZE, digest};
    e->steps = 100;
    e->success = draw(b, 2);
    e->member = member_id(w->member);
    b->journaled_list[b->n_journaled++] = e;
    b->episodes++;
    slot->episode = 0;
}

static void on_tick(uv_timer_t *timer)
{
    struct bench *b = timer->data;
    uint64_t now = clock_mono_ms();

    for (unsigned i = 0; i < b->n; i++) {
        struct worker *w = &b->workers[i];

        for (unsigned k = 0; k < b->slots; k++)
            if (w->slots[k].episode && now >= w->slots[k].end_ms)
                played(w, &w->slots[k]);
        if (w->joined)
            ask(w, now);
    }
    report(b);
}

/* ---- the coordinator --------------------------------------------------------------------------------------- */

static void write_config(struct bench *b)
{
    _cleanup_(strbuf_release) struct strbuf text = STRBUF_INIT;
    unsigned rows = b->n * b->slots * (4 + 2 * b->seconds / b->episode_s);
    char path[160];
    int r;

    strbuf_addf(&text, "run: {name: bench, dir: %s/run, seed: 1}\nsuite: {name: tabletop, tasks: [pick_up_object], image: 64}\n"
                "policy: {init: models/tiny, train: full}\nstages:\n  - demos: {episodes: %u}\n"
                "cluster: {env_workers: 1, slots: 4%s}\n", b->dir, rows, b->tcp ? ", listen: 'tcp://127.0.0.1:*'" : "");
    snprintf(path, sizeof path, "%s/run.yaml", b->dir);
    r = atomic_file_write(path, text.text, text.length);
    if (r < 0)
        die(path, r, NULL);
    printf("%u workers, %u slots, episodes of %u s on average, %u rows, %s\n", b->n, b->slots, b->episode_s, rows,
           b->tcp ? "tcp with CURVE" : "ipc");
}

static void start_coordinator(struct bench *b)
{
    char config[160], run[160], log[160], key[41], path[200];
    struct error error = {0};
    int r = -ENOENT;

    write_config(b);
    snprintf(config, sizeof config, "%s/run.yaml", b->dir);
    snprintf(run, sizeof run, "%s/run", b->dir);
    snprintf(log, sizeof log, "%s/coordinator.log", b->dir);
    if (mkdir_p(run, 0700) < 0)
        die(run, -errno, NULL);
    b->coordinator = fork();
    if (b->coordinator == 0) {
        if (!freopen(log, "w", stderr))
            _exit(1);
        execl("bin/gantry-coordinator", "gantry-coordinator", "--config", config, "--run-dir", run, "--die-with-parent", NULL);
        _exit(1);
    }
    snprintf(path, sizeof path, "%s/endpoints/coordinator", run);
    for (int i = 0; i < 600 && r < 0 && waitpid(b->coordinator, NULL, WNOHANG) == 0; i++, usleep(50000))
        r = address_read(path, b->join, key, &error);
    if (r < 0)
        die("the coordinator did not come up; see coordinator.log", r, &error);
    memcpy(b->key, key, sizeof key);
}

static double cpu_seconds(pid_t pid)
{
    unsigned long user = 0, system = 0;
    char path[64], text[1024] = "";
    FILE *file;

    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    file = fopen(path, "r");
    if (file && fgets(text, sizeof text, file) && strrchr(text, ')'))
        (void)sscanf(strrchr(text, ')') + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &system);
    if (file)
        fclose(file);
    return (double)(user + system) / (double)sysconf(_SC_CLK_TCK);
}

/* ---- the run --------------------------------------------------------------------------------------------- */

static struct wire *new_wire(struct bench *b, Gantry__Role role, const char *name)
{
    char path[200], allowed[200], public_key[SECURITY_KEY_SIZE];
    struct error error = {0};
    struct wire *wire;
    int r = wire_new(&b->loop, role, &wire);

    if (r == 0 && b->tcp) {
        snprintf(path, sizeof path, "%s/%s.key", b->dir, name);
        snprintf(allowed, sizeof allowed, "%s/run/keys/allowed", b->dir);
        if (access(path, F_OK) < 0) {
            r = security_key_create(b->dir, name, public_key, &error);
            if (r == 0)
                r = security_allow(allowed, role, public_key, name, &error);
        }
        if (r == 0)
            r = security_start(wire, path, NULL, &error);
    }
    if (r < 0)
        die("wire", r, &error);
    return wire;
}

static void join_all(struct bench *b)
{
    struct member_options learner = {
        .join = b->join, .server_key = b->key, .build = "bench", .address = "ipc:///dev/null/learner",
        .on_welcome = on_learner_welcome, .on_push = on_push, .on_refused = on_refused, .arg = b};
    struct error error = {0};
    int r;

    b->learner_wire = new_wire(b, GANTRY__ROLE__ROLE_LEARNER, "learner");
    r = member_new(b->learner_wire, &learner, &b->learner, &error);
    b->n_wires = (b->n + PER_WIRE - 1) / PER_WIRE;
    b->wires = calloc(b->n_wires, sizeof *b->wires);
    b->workers = calloc(b->n, sizeof *b->workers);
    for (unsigned i = 0; i < b->n && r == 0; i++) {
        struct worker *w = &b->workers[i];
        struct member_options options = {
            .join = b->join, .server_key = b->key, .build = "bench", .slots = b->slots, .on_welcome = on_welcome,
            .fill_heartbeat = fill_heartbeat, .on_refused = on_refused, .arg = w};

        if (i % PER_WIRE == 0)
            b->wires[i / PER_WIRE] = new_wire(b, GANTRY__ROLE__ROLE_ENV_WORKER, "worker");
        w->bench = b;
        r = member_new(b->wires[i / PER_WIRE], &options, &w->member, &error);
    }
    if (r < 0)
        die("members", r, &error);
}

static unsigned joined(const struct bench *b)
{
    unsigned n = 0;

    for (unsigned i = 0; i < b->n; i++)
        n += b->workers[i].joined;
    return n;
}

static void turn_until(struct bench *b, uint64_t end_ms, bool all_joined)
{
    while (clock_mono_ms() < end_ms && !(all_joined && joined(b) == b->n && b->leases >= b->n * b->slots))
        uv_run(&b->loop, UV_RUN_ONCE);
}

static int by_value(const void *a, const void *b)
{
    return (*(const uint32_t *)a > *(const uint32_t *)b) - (*(const uint32_t *)a < *(const uint32_t *)b);
}

static void measure(struct bench *b)
{
    uint64_t begun = clock_mono_ms(), leases, episodes;
    double cpu, wall;

    turn_until(b, begun + 120000, true);
    printf("all joined and playing after %.1f s (%u members, %lu leases); coordinator CPU until here %.2f s\n",
           (double)(clock_mono_ms() - begun) / 1e3, joined(b), (unsigned long)b->leases, cpu_seconds(b->coordinator));
    turn_until(b, clock_mono_ms() + b->episode_s * 1000, false);       /* the slots are out of step by then */
    b->measuring = true;
    leases = b->leases;
    episodes = b->episodes;
    begun = clock_mono_ms();
    cpu = cpu_seconds(b->coordinator);
    turn_until(b, begun + b->seconds * 1000, false);
    wall = (double)(clock_mono_ms() - begun) / 1e3;
    cpu = cpu_seconds(b->coordinator) - cpu;
    printf("%.1f s: %.1f leases/s, %.1f episodes/s; coordinator %.1f %% of a core\n", wall, (double)(b->leases - leases) / wall,
           (double)(b->episodes - episodes) / wall, 100 * cpu / wall);
    if (!b->n_latency)
        return;
    qsort(b->latency_us, b->n_latency, sizeof *b->latency_us, by_value);
    printf("lease request to answer, %zu of them: median %.2f ms, p99 %.2f ms, worst %.2f ms\n", b->n_latency,
           b->latency_us[b->n_latency / 2] / 1e3, b->latency_us[b->n_latency * 99 / 100] / 1e3, b->latency_us[b->n_latency - 1] / 1e3);
}

static void parse(int argc, char **argv, struct bench *b)
{
    static const struct option options[] = {
        {"workers", 1, NULL, 'w'}, {"slots", 1, NULL, 's'}, {"episode-s", 1, NULL, 'e'}, {"seconds", 1, NULL, 't'}, {"tcp", 0, NULL, 'c'}, {0}};
    int option;

    while ((option = getopt_long(argc, argv, "", options, NULL)) >= 0) {
        long number = optarg ? strtol(optarg, NULL, 10) : 0;

        switch (option) {
        case 'w': b->n = (unsigned)number; break;
        case 's': b->slots = (unsigned)CLAMP(number, 1L, (long)SLOTS_MAX); break;
        case 'e': b->episode_s = (unsigned)MAX(number, 1L); break;
        case 't': b->seconds = (unsigned)number; break;
        case 'c': b->tcp = true; break;
        default: exit(2);
        }
    }
}

int main(int argc, char **argv)
{
    static struct bench b = {.n = 1000, .slots = 4, .episode_s = 30, .seconds = 20, .random = 1};
    struct rlimit files;

    parse(argc, argv, &b);
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    snprintf(b.dir, sizeof b.dir, "/tmp/bench-cluster-XXXXXX");
    b.latency_us = calloc(SAMPLES, sizeof *b.latency_us);
    if (!mkdtemp(b.dir) || !b.latency_us)
        die(b.dir, -errno, NULL);
    uv_loop_init(&b.loop);
    start_coordinator(&b);
    join_all(&b);
    uv_timer_init(&b.loop, &b.tick);
    b.tick.data = &b;
    uv_timer_start(&b.tick, on_tick, TICK_MS, TICK_MS);
    measure(&b);
    fflush(stdout);
    kill(b.coordinator, SIGKILL);
    waitpid(b.coordinator, NULL, 0);
    (void)remove_tree(b.dir);
    _exit(0);       /* a thousand sockets: not one by one */
}
