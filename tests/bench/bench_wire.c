/* bench_wire - what the wire costs: round trips and throughput of Act requests with an image, answered at once by another thread.
 *
 *   bench_wire [SECONDS per figure]         ipc, and tcp with CURVE (tcp without keys is refused by design)
 *
 * Round trip: one request at a time, 12 KB image (64x64 RGB), median and 99th percentile. Throughput: 32 outstanding, image
 * bytes only. Includes CRC32C of every byte on both sides, protobuf, and the loops' wake-ups. */
#include <errno.h>
#include <pthread.h>

#include "base/atomic_file.h"
#include "base/clock.h"
#include "proto/policy.pb-c.h"
#include "wire/client.h"
#include "wire/security.h"
#include "wire/server.h"

enum { OUTSTANDING = 32, SAMPLES = 1 << 20 };

struct far_end {                /* the server's thread */
    pthread_t thread;
    char dir[64], address[160], key[SECURITY_KEY_SIZE];
    bool tcp;
    uv_async_t stop;
    uv_barrier_t ready;
};

struct near_end {
    uv_loop_t loop;
    struct wire *wire;
    struct wire_client *client;
    struct wire_part part;
    unsigned outstanding, window;
    uint64_t sent_ns, until_ns, done;
    uint32_t *samples_ns;
};

static void die(const char *what, int r)
{
    fprintf(stderr, "bench_wire: %s: %s\n", what, strerror(-r));
    exit(1);
}

static void on_request(struct request *request, void *arg)
{
    Gantry__ActReply reply = GANTRY__ACT_REPLY__INIT;
    uint32_t tokens[4] = {1, 2, 3, 4};
    float logp[4] = {0};

    (void)arg;
    reply.tokens = tokens;
    reply.logp = logp;
    reply.n_tokens = reply.n_logp = 4;
    wire_reply(request, &reply.base, NULL, 0);
}

static void on_stop(uv_async_t *stop)
{
    uv_stop(stop->loop);
}

static void *serve(void *arg)
{
    struct far_end *far = arg;
    struct wire_server_options options = {.on_request = on_request};
    struct wire_server *server;
    struct wire *wire;
    struct error error = {0};
    char ipc[96], key[96], allowed[96];
    uv_loop_t loop;

    uv_loop_init(&loop);
    uv_async_init(&loop, &far->stop, on_stop);
    snprintf(ipc, sizeof ipc, "ipc://%s/s", far->dir);
    snprintf(key, sizeof key, "%s/actor.key", far->dir);
    snprintf(allowed, sizeof allowed, "%s/allowed", far->dir);
    if (wire_new(&loop, GANTRY__ROLE__ROLE_ACTOR, &wire) < 0 || (far->tcp && security_start(wire, key, allowed, &error) < 0))
        die(error.text, -EIO);
    options.address = far->tcp ? "tcp://127.0.0.1:*" : ipc;
    if (wire_server_new(wire, &options, &server, &error) < 0)
        die(error.text, -EIO);
    snprintf(far->address, sizeof far->address, "%s", wire_server_address(server));
    uv_barrier_wait(&far->ready);
    uv_run(&loop, UV_RUN_DEFAULT);
    wire_server_free(server);
    uv_close((uv_handle_t *)&far->stop, NULL);
    uv_run(&loop, UV_RUN_NOWAIT);
    wire_free(wire);
    uv_run(&loop, UV_RUN_DEFAULT);
    uv_loop_close(&loop);
    return NULL;
}

static void ask(struct near_end *near);

static void on_reply(int result, const struct message *reply, void *arg)
{
    struct near_end *near = arg;
    uint64_t now_ns = clock_mono_ns();

    (void)reply;
    if (result < 0)
        die("reply", result);
    near->outstanding--;
    if (near->window == 1 && near->done < SAMPLES)
        near->samples_ns[near->done] = (uint32_t)(now_ns - near->sent_ns);
    near->done++;
    ask(near);
}

static void no_release(void *arg)
{
    (void)arg;
}

static void ask(struct near_end *near)
{
    Gantry__ActRequest act = GANTRY__ACT_REQUEST__INIT;
    struct wire_call call = {
        .kind = WIRE_KIND(ACT), .version = 1, .body = &act.base, .parts = &near->part, .n_parts = 1, .deadline_ms = 60000,
        .on_reply = on_reply, .arg = near,
    };

    act.instruction = (char *)"pick up the red block";
    act.height = act.width = 64;
    act.images = 1;
    while (near->outstanding < near->window && clock_mono_ns() < near->until_ns) {
        near->sent_ns = clock_mono_ns();
        if (wire_call(near->client, &call, NULL) < 0)
            die("call", -EIO);
        near->outstanding++;
    }
    if (near->outstanding == 0)
        uv_stop(&near->loop);
}

/* Seconds it took. */
static double play(struct near_end *near, unsigned window, size_t size, double seconds)
{
    uint64_t start_ns = clock_mono_ns();

    near->window = window;
    near->part.size = size;
    near->done = 0;
    near->until_ns = start_ns + (uint64_t)(seconds * 1e9);
    ask(near);
    uv_run(&near->loop, UV_RUN_DEFAULT);
    return (double)(clock_mono_ns() - start_ns) * 1e-9;
}

static int by_value(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return x < y ? -1 : x > y;
}

static void measure(struct near_end *near, const char *name, double seconds)
{
    static const size_t sizes[] = {12288, 65536, 150528, 1 << 20};
    size_t n;

    play(near, 1, 12288, seconds / 4);          /* warm up */
    play(near, 1, 12288, seconds);
    n = (size_t)MIN(near->done, (uint64_t)SAMPLES);
    qsort(near->samples_ns, n, sizeof near->samples_ns[0], by_value);
    printf("%-10s round trip, 12 KB image    median %6.1f us   p99 %7.1f us   (%zu)\n", name, near->samples_ns[n / 2] * 1e-3,
           near->samples_ns[n * 99 / 100] * 1e-3, n);
    for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
        double took = play(near, OUTSTANDING, sizes[i], seconds);

        printf("%-10s %4zu KB images, %d outstanding   %8.0f requests/s   %7.0f MB/s\n", name, sizes[i] >> 10, OUTSTANDING,
               (double)near->done / took, (double)near->done * (double)sizes[i] / took * 1e-6);
    }
}

static void bench(const char *name, const char *dir, bool tcp, double seconds)
{
    struct far_end far = {.tcp = tcp};
    struct near_end near = {.part = {.release = no_release}};
    struct wire_client_options options = {0};
    struct error error = {0};
    char key[96], allowed[96];
    int r = 0;

    snprintf(far.dir, sizeof far.dir, "%s", dir);
    snprintf(key, sizeof key, "%s/worker.key", dir);
    snprintf(allowed, sizeof allowed, "%s/allowed", dir);
    near.samples_ns = malloc(SAMPLES * sizeof near.samples_ns[0]);
    near.part.bytes = calloc(1, 1 << 20);
    uv_loop_init(&near.loop);
    if (!near.samples_ns || !near.part.bytes || wire_new(&near.loop, GANTRY__ROLE__ROLE_ENV_WORKER, &near.wire) < 0)
        die("memory", -ENOMEM);
    if (tcp) {
        char worker[SECURITY_KEY_SIZE];

        r = security_key_create(dir, "actor", far.key, &error);
        if (r == 0)
            r = security_key_create(dir, "worker", worker, &error);
        if (r == 0)
            r = security_allow(allowed, GANTRY__ROLE__ROLE_ENV_WORKER, worker, "worker", &error);
        if (r == 0)
            r = security_start(near.wire, key, NULL, &error);
        if (r < 0)
            die(error.text, r);
    }
    uv_barrier_init(&far.ready, 2);
    pthread_create(&far.thread, NULL, serve, &far);
    uv_barrier_wait(&far.ready);
    options.address = far.address;
    options.server_key = far.key;
    r = wire_client_new(near.wire, &options, &near.client, &error);
    if (r < 0)
        die(error.text, r);
    measure(&near, name, seconds);
    wire_client_free(near.client);
    uv_run(&near.loop, UV_RUN_NOWAIT);
    wire_free(near.wire);
    uv_run(&near.loop, UV_RUN_DEFAULT);
    uv_async_send(&far.stop);
    pthread_join(far.thread, NULL);
    uv_loop_close(&near.loop);
    free(near.samples_ns);
    free((void *)near.part.bytes);
}

int main(int argc, char **argv)
{
    double seconds = argc > 1 ? strtod(argv[1], NULL) : 2;
    char dir[] = "/tmp/gantry-bench.XXXXXX";

    if (!mkdtemp(dir))
        die("mkdtemp", -errno);
    bench("ipc", dir, false, seconds);
    bench("tcp+curve", dir, true, seconds);
    remove_tree(dir);
    return 0;
}
