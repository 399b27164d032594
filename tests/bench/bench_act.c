/* bench_act - what an Act request costs beyond the policy's forward pass.
 *
 *   bench_act RUN_DIR [--seconds 10] [--threads 1] [--window 1] [--pause-us 0]
 *
 * RUN_DIR: of a run that has made a version (`bench_tabletop.sh` keeps none: any finished run will do). The server is
 * bin/gantry-actor with the run's newest policy, over ipc; this process is the coordinator that it reports to, and an env worker
 * with `window` requests outstanding. A request is one noisy picture and an instruction, as a training episode asks (hidden state
 * wanted). pause-us: the worker lies idle so long before it asks again, as while a step is simulated.
 *
 * Printed: round trips (median, mean, 99th percentile), the actor's own time in a batch (preparing items, forward pass, making
 * the reply: mean, from its heartbeats), and the difference. On a busy machine: chrt -r 10, both processes inherit it. */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <sys/wait.h>

#include "base/atomic_file.h"
#include "base/clock.h"
#include "base/sha256.h"
#include "base/strbuf.h"
#include "proto/policy.pb-c.h"
#include "wire/address.h"
#include "wire/client.h"
#include "wire/server.h"

enum { SIDE = 64, SAMPLES = 1 << 20, BEAT_MS = 100, WARM_MS = 1000 };

struct bench {
    const char *run;
    char dir[64], manifest[128], version_dir[64];
    unsigned seconds, threads, window, pause_us, outstanding;
    uint64_t version;
    pid_t actor;
    uv_loop_t loop;
    uv_timer_t pause;
    struct wire *coordinator_wire, *worker_wire;
    struct wire_server *coordinator;
    struct wire_client *client;
    char *config;
    uint8_t digest[SHA256_SIZE];
    uint8_t picture[SIDE * SIDE * 3];
    uint32_t step;
    uint64_t begun_ns, sent_ns[64], rows, first_rows;       /* sent_ns: a ring over requests in order */
    uint64_t asked, answered;
    double busy_ms, first_busy_ms;
    bool measuring, over;
    uint32_t *us10;             /* tenths of a microsecond */
    size_t n;
};

static void die(const char *what, int r, const char *text)
{
    fprintf(stderr, "bench_act: %s: %s\n", what, text && *text ? text : strerror(-r));
    exit(EXIT_FAILURE);
}

/* ---- the worker ------------------------------------------------------------------------------------------- */

static void ask(struct bench *b);

static void on_pause(uv_timer_t *timer) { ask(timer->data); }

/* uv's timers count milliseconds: sleep in place, as a simulator's thread would keep us waiting. */
static void lie_idle(unsigned us)
{
    struct timespec t = {.tv_nsec = (long)us * 1000};

    while (us && clock_nanosleep(CLOCK_MONOTONIC, 0, &t, &t) == EINTR)
        ;
}

static void on_acted(int result, const struct message *reply, void *arg)
{
    struct bench *b = arg;
    uint64_t now = clock_mono_ns();

    if (result < 0 && (result == -EAGAIN || result == -ESTALE)) {
        b->outstanding--;
        uv_timer_start(&b->pause, on_pause, 50, 0);
        return;
    }
    if (result < 0)
        die("act", result, reply ? reply->envelope.error : NULL);
    if (b->measuring && b->n < SAMPLES)
        b->us10[b->n++] = (uint32_t)((now - b->sent_ns[b->answered % 64]) / 100);
    b->answered++;
    b->outstanding--;
    lie_idle(b->pause_us);
    ask(b);
}

static void no_release(void *arg) { (void)arg; }

static void ask(struct bench *b)
{
    Gantry__ActRequest body = GANTRY__ACT_REQUEST__INIT;
    struct wire_part part = {.bytes = b->picture, .size = sizeof b->picture, .release = no_release};
    struct wire_call call = {.kind = WIRE_KIND(ACT), .version = b->version, .body = &body.base, .parts = &part, .n_parts = 1,
                             .deadline_ms = 60000, .on_reply = on_acted, .arg = b};

    body.instruction = (char *)"pick up the red block";
    body.image_chain = (char *)"render";
    body.height = body.width = SIDE;
    body.images = 1;
    body.temperature = 1;
    body.want_hidden = true;
    while (!b->over && b->outstanding < b->window) {
        int r;

        body.episode = 1;
        body.step = b->step++;
        b->sent_ns[b->asked++ % 64] = clock_mono_ns();
        r = wire_call(b->client, &call, NULL);
        if (r < 0)
            die("call", r, NULL);
        b->outstanding++;
    }
}

/* ---- the coordinator --------------------------------------------------------------------------------------- */

static void announce(struct bench *b, uint64_t peer)
{
    Gantry__Versions body = GANTRY__VERSIONS__INIT;
    Gantry__Versions__One one = GANTRY__VERSIONS__ONE__INIT, *list[] = {&one};

    one.version = b->version;
    one.dir = b->version_dir;
    one.manifest_digest = (ProtobufCBinaryData) {SHA256_SIZE, b->digest};
    body.keep = list;
    body.n_keep = 1;
    (void)wire_push(b->coordinator, peer, WIRE_KIND(VERSIONS), 0, &body.base);
}

static void on_beat(struct bench *b, const Gantry__Heartbeat *beat)
{
    uint64_t now = clock_mono_ns();
    double rows = 0, busy = 0;

    for (size_t i = 0; i < beat->n_gauges; i++) {
        if (!strcmp(beat->gauges[i]->name, "rows_total"))
            rows = beat->gauges[i]->value;
        if (!strcmp(beat->gauges[i]->name, "busy_ms_total"))
            busy = beat->gauges[i]->value;
    }
    if (!b->begun_ns)
        return;
    if (!b->measuring && now - b->begun_ns > WARM_MS * 1000000ull) {
        b->measuring = true;
        b->first_rows = (uint64_t)rows;
        b->first_busy_ms = busy;
    }
    b->rows = (uint64_t)rows - b->first_rows;
    b->busy_ms = busy - b->first_busy_ms;
    if (b->measuring && now - b->begun_ns > (WARM_MS + b->seconds * 1000ull) * 1000000ull) {
        b->over = true;
        uv_stop(&b->loop);
    }
}

static void on_request(struct request *request, void *arg)
{
    struct bench *b = arg;
    const struct message *message = request->message;
    uint64_t peer = request->peer;

    if (message->envelope.kind == WIRE_KIND(HELLO)) {
        Gantry__Welcome welcome = GANTRY__WELCOME__INIT;

        welcome.member = 1;
        welcome.run = welcome.epoch = 1;
        welcome.heartbeat_ms = BEAT_MS;
        welcome.config = b->config;
        welcome.run_dir = (char *)b->run;
        (void)wire_reply(request, &welcome.base, NULL, 0);
        announce(b, peer);
    } else if (message->envelope.kind == WIRE_KIND(HEARTBEAT)) {
        Gantry__HeartbeatReply reply = GANTRY__HEARTBEAT_REPLY__INIT;

        reply.known = true;
        on_beat(b, (const Gantry__Heartbeat *)message->body);
        (void)wire_reply(request, &reply.base, NULL, 0);
        announce(b, peer);
    } else if (message->envelope.kind == WIRE_KIND(VERSION_STATE)) {
        const Gantry__VersionState *state = (const Gantry__VersionState *)message->body;
        Gantry__VersionStateReply reply = GANTRY__VERSION_STATE_REPLY__INIT;

        if (!state->ready && *state->text)
            die("the version was refused", -EINVAL, state->text);
        if (state->ready && !b->begun_ns) {
            b->begun_ns = clock_mono_ns();
            ask(b);
        }
        (void)wire_reply(request, &reply.base, NULL, 0);
    } else {
        (void)wire_refuse(request, GANTRY__STATUS__STATUS_BAD_REQUEST, "only a bench");
    }
}

/* ---- life -------------------------------------------------------------------------------------------------- */

static void find_version(struct bench *b)
{
    char path[512];
    size_t n;
    _cleanup_free_ char *text = NULL;
    int found = -1;

    for (int i = 0; i < 10000; i++) {
        snprintf(path, sizeof path, "%s/policies/v%06d/manifest.json", b->run, i);
        if (access(path, R_OK) == 0)
            found = i;
    }
    if (found < 0)
        die(b->run, -ENOENT, "no policies/vNNNNNN with a manifest in it; name the directory of a run that has made one");
    b->version = (uint64_t)found;
    snprintf(b->version_dir, sizeof b->version_dir, "policies/v%06d", found);
    snprintf(path, sizeof path, "%s/%s/manifest.json", b->run, b->version_dir);
    if (file_read(path, 1 << 24, &text, &n) < 0)
        die(path, -EIO, NULL);
    sha256_of(text, n, b->digest);
    snprintf(path, sizeof path, "%s/config.yaml", b->run);
    if (file_read(path, 1 << 24, &b->config, &n) < 0)
        die(path, -EIO, NULL);
}

static void start_actor(struct bench *b, const char *address)
{
    char join[160], listen[160], threads[16], log[160];

    snprintf(join, sizeof join, "%s", address);
    snprintf(listen, sizeof listen, "ipc://%s/actor", b->dir);
    snprintf(threads, sizeof threads, "%u", b->threads);
    snprintf(log, sizeof log, "%s/log", b->dir);
    b->actor = fork();
    if (b->actor)
        return;
    if (!freopen(log, "w", stderr))
        _exit(EXIT_FAILURE);
    execl("bin/gantry-actor", "gantry-actor", "--join", join, "--listen", listen, "--run-dir", b->run, "--threads", threads,
          (char *)NULL);
    _exit(127);
}

static int by_value(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return x < y ? -1 : x > y;
}

static void report(struct bench *b)
{
    double sum = 0, median, mean, forward = b->busy_ms / (double)MAX(b->rows, (uint64_t)1);

    for (size_t i = 0; i < b->n; i++)
        sum += b->us10[i] * 1e-4;
    qsort(b->us10, b->n, sizeof b->us10[0], by_value);
    if (!b->n)
        die("no answer", -ETIMEDOUT, NULL);
    median = b->us10[b->n / 2] * 1e-4;
    mean = sum / (double)b->n;
    printf("%zu acts   round trip ms: median %.3f  mean %.3f  p99 %.3f   in the batch, per row: mean %.3f   beyond it: median %.3f  mean %.3f\n",
           b->n, median, mean, b->us10[b->n * 99 / 100] * 1e-4, forward, median - forward, mean - forward);
}

int main(int argc, char **argv)
{
    static const struct option options[] = {{"seconds", 1, NULL, 's'}, {"threads", 1, NULL, 't'}, {"window", 1, NULL, 'w'},
                                            {"pause-us", 1, NULL, 'p'}, {0}};
    struct bench *b = calloc(1, sizeof *b);
    struct error error = {0};
    char address[160];
    int c, r;

    if (!b || !(b->us10 = malloc(SAMPLES * sizeof b->us10[0])))
        die("memory", -ENOMEM, NULL);
    *b = (struct bench) {.seconds = 10, .threads = 1, .window = 1, .us10 = b->us10, .dir = "/tmp/gantry-bench.XXXXXX"};
    while ((c = getopt_long(argc, argv, "", options, NULL)) >= 0) {
        unsigned *to = c == 's' ? &b->seconds : c == 't' ? &b->threads : c == 'w' ? &b->window : c == 'p' ? &b->pause_us : NULL;

        if (!to)
            return 2;
        *to = (unsigned)strtoul(optarg, NULL, 10);
    }
    if (optind >= argc || b->window < 1 || b->window > 64)
        die("usage", -EINVAL, "bench_act RUN_DIR [--seconds 10] [--threads 1] [--window 1..64] [--pause-us 0]");
    b->run = argv[optind];
    find_version(b);
    for (size_t i = 0; i < sizeof b->picture; i++)
        b->picture[i] = (uint8_t)(i * 2654435761u >> 13);
    if (!mkdtemp(b->dir))
        die("mkdtemp", -errno, NULL);
    uv_loop_init(&b->loop);
    uv_timer_init(&b->loop, &b->pause);
    b->pause.data = b;
    snprintf(address, sizeof address, "ipc://%s/coordinator", b->dir);
    if (wire_new(&b->loop, GANTRY__ROLE__ROLE_COORDINATOR, &b->coordinator_wire) < 0 ||
        wire_new(&b->loop, GANTRY__ROLE__ROLE_ENV_WORKER, &b->worker_wire) < 0)
        die("wire", -ENOMEM, NULL);
    wire_set_run(b->coordinator_wire, 1, 1);
    wire_set_run(b->worker_wire, 1, 1);
    r = wire_server_new(b->coordinator_wire,
                        &(struct wire_server_options) {.address = address, .on_request = on_request, .arg = b},
                        &b->coordinator, &error);
    if (r < 0)
        die("coordinator", r, error.text);
    start_actor(b, wire_server_address(b->coordinator));
    snprintf(address, sizeof address, "ipc://%s/actor", b->dir);
    r = wire_client_new(b->worker_wire, &(struct wire_client_options) {.address = address}, &b->client, &error);
    if (r < 0)
        die("worker", r, error.text);
    uv_run(&b->loop, UV_RUN_DEFAULT);
    report(b);
    kill(b->actor, SIGKILL);
    waitpid(b->actor, NULL, 0);
    remove_tree(b->dir);
    return 0;
}
