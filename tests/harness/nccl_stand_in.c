#include "tests/harness/nccl_stand_in.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct nccl_world nccl_world = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER, .error_at = -1};


struct comm {
    struct comm *next;                  /* aborted ones stay: who touches one is found out */
    int rank, ranks, polls;
    unsigned begun;                     /* operations enqueued */
    bool aborted;
    float *sum; char *all; size_t bytes;        /* where the pending result goes */
    void *stream;
};

static struct comm *aborted;

static void from_there(const struct comm *c, void *host, const void *there, size_t bytes)
{
    if (nccl_world.download)
        assert_int_equal(nccl_world.download(c->stream, host, there, bytes), 0);
    else
        memcpy(host, there, bytes);
}

static void to_there(const struct comm *c, void *there, const void *host, size_t bytes)
{
    if (nccl_world.upload)
        assert_int_equal(nccl_world.upload(c->stream, there, host, bytes), 0);
    else
        memcpy(there, host, bytes);
}

/* ---- at once: what each rank gives lies on a desk until all have given ---------------------------------------------- */

/* The lock is held. */
static int give(struct comm *c, const void *mine, size_t bytes, float *sum, void *all, void *stream)
{
    int turn = (int)(c->begun++ % 2);

    if (!nccl_world.desk[turn].here)
        nccl_world.desk[turn].size = bytes;
    assert_int_equal(nccl_world.desk[turn].size, bytes);
    free(nccl_world.desk[turn].bytes[c->rank]);
    nccl_world.desk[turn].bytes[c->rank] = malloc(bytes);
    c->stream = stream;
    from_there(c, nccl_world.desk[turn].bytes[c->rank], mine, bytes);
    nccl_world.desk[turn].here++;
    c->sum = sum;
    c->all = all;
    c->bytes = bytes;
    nccl_world.gathers += c->rank == 0 && all;
    nccl_world.reductions += c->rank == 0 && sum;
    return NCCL_IN_PROGRESS;
}

/* Whether the rank's operation is done; it then has its result. The lock is held. */
static bool taken(struct comm *c)
{
    int turn = (int)((c->begun + 1) % 2);

    if (!c->sum && !c->all)
        return true;
    if (nccl_world.desk[turn].here < c->ranks)
        return false;
    for (int i = 0; i < c->ranks && c->all; i++)
        to_there(c, c->all + (size_t)i * c->bytes, nccl_world.desk[turn].bytes[i], c->bytes);
    if (c->sum) {
        float *sum = malloc(c->bytes);

        memcpy(sum, nccl_world.desk[turn].bytes[0], c->bytes);
        for (size_t k = 0; k < c->bytes / sizeof(float); k++)
            for (int i = 1; i < c->ranks; i++)
                sum[k] += ((float *)nccl_world.desk[turn].bytes[i])[k];
        to_there(c, c->sum, sum, c->bytes);
        free(sum);
    }
    c->sum = NULL;
    c->all = NULL;
    if (++nccl_world.desk[turn].taken == c->ranks)
        nccl_world.desk[turn].here = nccl_world.desk[turn].taken = 0;
    return true;
}


static int get_version(int *ret)
{
    *ret = 22809;
    return NCCL_SUCCESS;
}

static int get_id(struct nccl_id *ret)
{
    *ret = (struct nccl_id) {{(char)++nccl_world.ids}};
    return NCCL_SUCCESS;
}

static int comm_init(void **ret, int ranks, struct nccl_id id, int rank, struct nccl_config *config)
{
    struct comm *c = calloc(1, sizeof *c);

    assert_int_equal(config->blocking, 0);
    assert_int_equal(id.bytes[0], nccl_world.ids);
    *c = (struct comm) {.rank = rank, .ranks = ranks};
    pthread_mutex_lock(&nccl_world.lock);
    nccl_world.joined++;
    pthread_mutex_unlock(&nccl_world.lock);
    *ret = c;
    return NCCL_IN_PROGRESS;
}

static int async_error(void *comm, int *ret)
{
    struct comm *c = comm;

    pthread_mutex_lock(&nccl_world.lock);
    assert_false(c->aborted);           /* it would be freed memory */
    *ret = nccl_world.error_at == c->rank ? NCCL_REMOTE_ERROR
        : nccl_world.joined < c->ranks || c->polls++ < nccl_world.init_polls ||
            (nccl_world.at_once && !taken(c)) ? NCCL_IN_PROGRESS
        : NCCL_SUCCESS;
    pthread_mutex_unlock(&nccl_world.lock);
    return NCCL_SUCCESS;
}

static int comm_abort(void *comm)
{
    struct comm *c = comm;

    pthread_mutex_lock(&nccl_world.lock);
    assert_false(c->aborted);
    c->aborted = true;
    c->next = aborted;
    aborted = c;
    nccl_world.aborts++;
    pthread_cond_broadcast(&nccl_world.changed);
    pthread_mutex_unlock(&nccl_world.lock);
    return NCCL_SUCCESS;
}

static int comm_finalize(void *comm _unused_) { return NCCL_SUCCESS; }

static int comm_destroy(void *comm)
{
    free(comm);
    pthread_mutex_lock(&nccl_world.lock);
    nccl_world.destroys++;
    pthread_mutex_unlock(&nccl_world.lock);
    return NCCL_SUCCESS;
}

/* The lock is held: one more rank has enqueued; the last one carries the operation out. */
static void arrive(struct comm *c)
{
    c->begun++;
    if (++nccl_world.arrived == c->ranks) {
        nccl_world.arrived = 0;
        nccl_world.operations++;
        pthread_cond_broadcast(&nccl_world.changed);
    }
    while (nccl_world.stuck && !c->aborted)
        pthread_cond_wait(&nccl_world.changed, &nccl_world.lock);
}

static int all_reduce(const void *send, void *ret, size_t count, int type, int op, void *comm, void *stream)
{
    struct comm *c = comm;
    const float *mine = send;
    int r;

    assert_int_equal(type, NCCL_FLOAT32);
    assert_int_equal(op, NCCL_SUM);
    pthread_mutex_lock(&nccl_world.lock);
    if (nccl_world.at_once) {
        r = give(c, send, count * sizeof *mine, ret, NULL, stream);
        pthread_mutex_unlock(&nccl_world.lock);
        return r;
    }
    assert_int_equal(count, NCCL_NUMBERS);
    for (size_t i = 0; i < count; i++)
        nccl_world.sum[i] = (nccl_world.arrived ? nccl_world.sum[i] : 0) + mine[i];
    c->sum = ret;
    arrive(c);
    pthread_mutex_unlock(&nccl_world.lock);
    return NCCL_SUCCESS;
}

static int all_gather(const void *send, void *ret, size_t count, int type, void *comm, void *stream)
{
    struct comm *c = comm;
    int r;

    assert_int_equal(type, NCCL_UINT8);
    pthread_mutex_lock(&nccl_world.lock);
    if (nccl_world.at_once) {
        r = give(c, send, count, NULL, ret, stream);
        pthread_mutex_unlock(&nccl_world.lock);
        return r;
    }
    assert_int_equal(count, sizeof nccl_world.all[0]);
    memcpy(nccl_world.all[c->rank], send, count);
    c->all = ret;
    c->bytes = count;
    arrive(c);
    pthread_mutex_unlock(&nccl_world.lock);
    return NCCL_SUCCESS;
}

static const char *error_string(int result) { return result == NCCL_REMOTE_ERROR ? "remote process exited" : "?"; }

const struct nccl_calls nccl_stand_in = {
    get_version, get_id, comm_init, async_error, comm_abort, comm_finalize, comm_destroy, all_reduce, all_gather, error_string
};

/* A "stream" is the communicator: done when all have enqueued. */
static int stream_done(void *handle)
{
    struct comm *c = handle;
    bool done;

    pthread_mutex_lock(&nccl_world.lock);
    done = nccl_world.operations >= c->begun;
    if (done && c->sum)
        memcpy(c->sum, nccl_world.sum, sizeof nccl_world.sum);
    if (done && c->all)
        memcpy(c->all, nccl_world.all, c->bytes * (size_t)c->ranks);
    if (done)
        c->sum = NULL, c->all = NULL;
    pthread_mutex_unlock(&nccl_world.lock);
    return done;
}

int nccl_world_reset(void **state _unused_)
{
    nccl_world.joined = nccl_world.arrived = 0;
    nccl_world.operations = 0;
    nccl_world.aborts = nccl_world.destroys = nccl_world.init_polls = 0;
    nccl_world.error_at = -1;
    nccl_world.stuck = nccl_world.at_once = false;
    nccl_world.gathers = nccl_world.reductions = 0;
    for (int i = 0; i < 2; i++) {
        for (int k = 0; k < NCCL_RANKS; k++) {
            free(nccl_world.desk[i].bytes[k]);
            nccl_world.desk[i].bytes[k] = NULL;
        }
        nccl_world.desk[i].here = nccl_world.desk[i].taken = 0;
    }
    return 0;
}

/* The group's communicator is private, and its second member. */
struct peek { const void *calls; void *comm; };

struct nccl_stream nccl_stand_in_stream(struct nccl_group *group)
{
    return (struct nccl_stream) {.handle = ((struct peek *)group)->comm, .done = stream_done};
}
