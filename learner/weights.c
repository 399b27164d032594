#include "learner/weights.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdatomic.h>
#include <sys/stat.h>

#include "daemon/worker.h"
#include "proto/train.pb-c.h"
#include "run/manifest.h"

enum { WAITING_MAX = 64 };

/* How much is under way: counted down by ZeroMQ's thread, maybe after weights_free. */
struct under_way { atomic_size_t bytes; atomic_int users; };

struct weights {
    struct loop *loop;
    struct worker *worker;
    struct under_way *under_way;
    uint64_t sent;
    char run_dir[VERSION_PATH];
};

struct job {
    struct weights *weights;
    struct request *request;
    char path[VERSION_PATH + 136];
    uint64_t offset;
    uint8_t *bytes;
    size_t counted, n;                  /* n: of `counted` bytes asked for, those that there are */
    uint64_t file_size;
    int result;
};

struct sent { struct under_way *under_way; size_t n; uint8_t *bytes; };

static void under_way_drop(struct under_way *u, size_t bytes)
{
    atomic_fetch_sub(&u->bytes, bytes);
    if (atomic_fetch_sub(&u->users, 1) == 1)
        free(u);
}

static void on_sent(void *arg)
{
    struct sent *sent = arg;

    under_way_drop(sent->under_way, sent->n);
    free(sent->bytes);
    free(sent);
}

/* ---- the reading thread ---------------------------------------------------------------------------------------- */

static int read_chunk(struct job *job)
{
    _cleanup_close_ int fd = open(job->path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    struct stat st;
    size_t done = 0;

    if (fd < 0 || fstat(fd, &st) < 0)
        return -errno;
    if (!S_ISREG(st.st_mode))
        return -EINVAL;
    job->file_size = (uint64_t)st.st_size;
    job->n = job->offset < job->file_size ? (size_t)MIN((uint64_t)job->n, job->file_size - job->offset) : 0;
    while (done < job->n) {
        ssize_t n = pread(fd, job->bytes + done, job->n - done, (off_t)(job->offset + done));

        if (n <= 0)
            return n < 0 ? -errno : -EIO;
        done += (size_t)n;
    }
    return 0;
}

static void answer(void *arg);

static void work(void *arg)
{
    struct job *job = arg;

    job->result = read_chunk(job);
    (void)loop_post(job->weights->loop, answer, job);
}

/* ---- the loop's thread -------------------------------------------------------------------------------------------- */

static void job_free(struct job *job)
{
    under_way_drop(job->weights->under_way, job->counted);
    free(job->bytes);
    free(job);
}

static void answer(void *arg)
{
    struct job *job = arg;
    Gantry__WeightsReply reply = GANTRY__WEIGHTS_REPLY__INIT;
    struct sent *sent = job->result == 0 ? malloc(sizeof *sent) : NULL;

    if (job->result == -ENOENT) {       /* retention has taken it, or it never was */
        wire_refuse(job->request, GANTRY__STATUS__STATUS_WRONG_VERSION, "%s is not there (any more)", job->path);
    } else if (job->result < 0) {
        wire_refuse(job->request, GANTRY__STATUS__STATUS_INTERNAL, "%s: %s", job->path, strerror(-job->result));
    } else if (!sent) {
        wire_refuse(job->request, GANTRY__STATUS__STATUS_BUSY, "out of memory");
    } else {
        *sent = (struct sent) {job->weights->under_way, job->counted, job->bytes};
        job->weights->sent += job->n;
        reply.file_size = job->file_size;
        wire_reply(job->request, &reply.base,
                   &(struct wire_part) {.bytes = job->bytes, .size = job->n, .release = on_sent, .arg = sent}, 1);
        free(job);
        return;
    }
    job_free(job);
}

/* NULL: it may be answered. */
static const char *check(const Gantry__WeightsRequest *body)
{
    if (body->kind != GANTRY__VERSION_KIND__VERSION_POLICY && body->kind != GANTRY__VERSION_KIND__VERSION_PRM)
        return "no such kind of version";
    if (!manifest_plain_name(body->file))
        return "no name that a version's file may have";
    if (body->size < 1 || body->size > WIRE_CHUNK || body->offset > (uint64_t)INT64_MAX - WIRE_CHUNK)
        return "size or offset is out of range";
    return NULL;
}

void weights_request(struct weights *w, struct request *request)
{
    const Gantry__WeightsRequest *body = (const Gantry__WeightsRequest *)request->message->body;
    const char *bad = check(body);
    char dir[VERSION_PATH];
    struct job *job;

    if (bad) {
        wire_refuse(request, GANTRY__STATUS__STATUS_BAD_REQUEST, "%s", bad);
        return;
    }
    if (version_path(w->run_dir, (int)body->kind, body->version, dir) < 0) {
        wire_refuse(request, GANTRY__STATUS__STATUS_INTERNAL, "%s: path too long", w->run_dir);
        return;
    }
    job = atomic_load(&w->under_way->bytes) + body->size <= WEIGHTS_BYTES ? calloc(1, sizeof *job) : NULL;
    if (job)
        job->bytes = malloc(body->size);
    if (!job || !job->bytes) {
        free(job);
        wire_refuse(request, GANTRY__STATUS__STATUS_BUSY, "enough weights are under way just now; ask again");
        return;
    }
    job->weights = w;
    job->offset = body->offset;
    job->counted = job->n = body->size;
    snprintf(job->path, sizeof job->path, "%s/%s", dir, body->file);
    atomic_fetch_add(&w->under_way->bytes, body->size);
    atomic_fetch_add(&w->under_way->users, 1);
    job->request = request_take(request);
    if (worker_submit(w->worker, work, job) == 0)
        return;
    wire_refuse(job->request, GANTRY__STATUS__STATUS_BUSY, "enough weights are under way just now; ask again");
    job_free(job);
}

int weights_new(struct loop *loop, const char *run_dir, struct weights **ret)
{
    struct weights *w = calloc(1, sizeof *w);
    int r;

    if (!w)
        return -ENOMEM;
    w->loop = loop;
    snprintf(w->run_dir, sizeof w->run_dir, "%s", run_dir);
    w->under_way = calloc(1, sizeof *w->under_way);
    if (w->under_way)
        atomic_init(&w->under_way->users, 1);
    r = w->under_way ? worker_new("weights", 1, WAITING_MAX, &w->worker) : -ENOMEM;
    if (r < 0) {
        free(w->under_way);
        free(w);
        return r;
    }
    *ret = w;
    return 0;
}

struct weights *weights_free(struct weights *w)
{
    if (!w)
        return NULL;
    w->worker = worker_free(w->worker);
    loop_turn(w->loop, false);          /* what was read is answered */
    under_way_drop(w->under_way, 0);
    free(w);
    return NULL;
}

uint64_t weights_sent(const struct weights *w)
{
    return w->sent;
}
