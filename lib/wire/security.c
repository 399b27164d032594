#include "wire/security.h"

#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zmq.h>

#include "base/atomic_file.h"
#include "base/sha256.h"
#include "wire/zsock.h"

enum { KEY_BYTES = 32 };

struct security {
    char public_key[SECURITY_KEY_SIZE], secret_key[SECURITY_KEY_SIZE];
    char *allowed_path;             /* NULL: a pure client; "": security_set_list says */
    struct stat seen;               /* of the list as it was last read */
    struct security_entry *allowed; /* by key */
    size_t n_allowed;
    uint64_t digest;                /* of the list; 0: none yet */
    struct zsock *zap;
};

/* ---- the list of those let in, as it is now --------------------------------------------------------------- */

static bool same_file(const struct stat *a, const struct stat *b)
{
    return a->st_ino == b->st_ino && a->st_dev == b->st_dev && a->st_size == b->st_size &&
           a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec;
}

static int by_key(const void *a, const void *b)
{
    return strcmp(((const struct security_entry *)a)->key, ((const struct security_entry *)b)->key);
}

/* Takes `list`. */
static void take_list(struct security *security, struct security_entry *list, size_t n, uint64_t digest)
{
    free(security->allowed);
    if (n)
        qsort(list, n, sizeof *list, by_key);
    security->allowed = list;
    security->n_allowed = n;
    security->digest = digest ? digest : 1;
}

static uint64_t digest_of(const char *text, size_t size)
{
    uint8_t digest[SHA256_SIZE];
    uint64_t first;

    sha256_of(text, size, digest);
    memcpy(&first, digest, sizeof first);
    return first;
}

/* Bring the list up to date. A list that cannot be read lets nobody in. */
static void refresh(struct security *security)
{
    _cleanup_free_ char *text = NULL;
    struct security_entry *list = NULL;
    struct stat st;
    uint64_t digest;
    size_t size, n = 0;

    if (security_wants_list(security) || (stat(security->allowed_path, &st) == 0 && same_file(&st, &security->seen)))
        return;
    security->seen = (struct stat) {0};
    take_list(security, NULL, 0, 1);
    if (stat(security->allowed_path, &st) || file_read(security->allowed_path, SECURITY_ALLOWED_MAX, &text, &size) < 0)
        return;
    digest = digest_of(text, size);
    if (security_parse(text, &list, &n) < 0)
        return;
    take_list(security, list, n, digest);
    security->seen = st;
}

int security_role_of(struct security *security, const char *user, Gantry__Role *ret_role)
{
    const struct security_entry *entry;
    struct security_entry wanted;

    if (!security || !security->allowed_path)
        return -EACCES;
    refresh(security);
    snprintf(wanted.key, sizeof wanted.key, "%s", user);
    entry = security->n_allowed ? bsearch(&wanted, security->allowed, security->n_allowed, sizeof wanted, by_key) : NULL;
    if (!entry)
        return -EACCES;
    *ret_role = entry->role;
    return 0;
}

bool security_wants_list(const struct security *security)
{
    return security && security->allowed_path && !*security->allowed_path;
}

uint64_t security_list_digest(struct security *security)
{
    if (!security || !security->allowed_path)
        return 0;
    refresh(security);
    return security->digest;
}

const struct security_entry *security_current(struct security *security, size_t *ret_n)
{
    refresh(security);
    *ret_n = security->n_allowed;
    return security->allowed;
}

int security_set_list(struct security *security, const struct security_entry *list, size_t n, uint64_t digest)
{
    struct security_entry *copy = calloc(n + 1, sizeof *copy);

    if (!copy)
        return -ENOMEM;
    if (n)
        memcpy(copy, list, n * sizeof *copy);
    take_list(security, copy, n, digest);
    return 0;
}

/* ---- ZAP (rfc.zeromq.org/spec/27): libzmq asks about each new connection ------------------------------- */

enum { ZAP_VERSION, ZAP_REQUEST, ZAP_DOMAIN, ZAP_ADDRESS, ZAP_IDENTITY, ZAP_MECHANISM, ZAP_CREDENTIALS, ZAP_FRAMES };

static void zap_answer(void *socket, const char *request, size_t n_request, bool let_in, const char *user)
{
    const char *const frames[] = {"1.0", NULL, let_in ? "200" : "400", let_in ? "OK" : "not let in", let_in ? user : "", ""};

    for (size_t i = 0; i < ARRAY_SIZE(frames); i++) {
        int flags = ZMQ_DONTWAIT | (i + 1 < ARRAY_SIZE(frames) ? ZMQ_SNDMORE : 0);

        if (frames[i])
            (void)TEMP_FAILURE_RETRY(zmq_send(socket, frames[i], strlen(frames[i]), flags));
        else
            (void)TEMP_FAILURE_RETRY(zmq_send(socket, request, n_request, flags));
    }
}

static void on_zap(struct zsock *z, void *arg)
{
    struct security *security = arg;
    char frames[ZAP_FRAMES][256];
    int sizes[ZAP_FRAMES] = {0}, n = 0, more = 1;
    size_t more_size = sizeof more;
    char user[SECURITY_KEY_SIZE] = "";
    Gantry__Role role;

    while (more) {
        char *frame = frames[MIN(n, ZAP_FRAMES - 1)];
        int size = (int)TEMP_FAILURE_RETRY(zmq_recv(zsock_socket(z), frame, sizeof frames[0], ZMQ_DONTWAIT));

        if (size < 0)
            return;
        sizes[MIN(n, ZAP_FRAMES - 1)] = MIN(size, (int)sizeof frames[0]);
        n++;
        if (zmq_getsockopt(zsock_socket(z), ZMQ_RCVMORE, &more, &more_size))
            return;
    }
    if (n == ZAP_FRAMES && sizes[ZAP_CREDENTIALS] == KEY_BYTES && sizes[ZAP_MECHANISM] == 5 &&
        !memcmp(frames[ZAP_MECHANISM], "CURVE", 5))
        zmq_z85_encode(user, (uint8_t *)frames[ZAP_CREDENTIALS], KEY_BYTES);
    zap_answer(zsock_socket(z), frames[ZAP_REQUEST], (size_t)sizes[ZAP_REQUEST],
               *user && security_role_of(security, user, &role) == 0, user);
}

static int start_zap(struct wire *wire, struct security *security, struct error *error)
{
    void *socket = zmq_socket(wire->zmq, ZMQ_REP);
    int linger = 0, r;

    if (!socket)
        return error_set(error, errno, "ZAP socket: %s", zmq_strerror(errno));
    zmq_setsockopt(socket, ZMQ_LINGER, &linger, sizeof linger);
    r = TEMP_FAILURE_RETRY(zmq_bind(socket, "inproc://zeromq.zap.01")) ? -errno
                                                   : zsock_new(wire->loop, socket, on_zap, NULL, security, &security->zap);
    if (r < 0) {
        zmq_close(socket);
        return error_set(error, -r, "ZAP handler: %s", zmq_strerror(-r));
    }
    return 0;
}

/* ---- life --------------------------------------------------------------------------------------------- */

int security_start(struct wire *wire, const char *secret_key_path, const char *allowed_path, struct error *error)
{
    struct security *security = calloc(1, sizeof *security);
    int r;

    if (!security)
        return -ENOMEM;
    r = security_secret_read(secret_key_path, security->secret_key, error);
    if (r < 0)
        goto fail;
    if (zmq_curve_public(security->public_key, security->secret_key)) {
        r = error_set(error, errno, "%s: %s", secret_key_path, zmq_strerror(errno));
        goto fail;
    }
    if (allowed_path) {
        security->allowed_path = strdup(allowed_path);
        r = security->allowed_path ? start_zap(wire, security, error) : -ENOMEM;
        if (r < 0)
            goto fail;
    }
    security_free(wire->security);
    wire->security = security;
    return 0;

fail:
    security_free(security);
    return r;
}

struct security *security_free(struct security *security)
{
    if (!security)
        return NULL;
    zsock_free(security->zap);
    explicit_bzero(security->secret_key, sizeof security->secret_key);
    free(security->allowed_path);
    free(security->allowed);
    free(security);
    return NULL;
}

const char *security_public_key(const struct security *security)
{
    return security->public_key;
}

int security_secure_server(struct security *security, void *socket)
{
    const int server = 1;

    if (!security->allowed_path)
        return -EACCES;
    if (zmq_setsockopt(socket, ZMQ_CURVE_SERVER, &server, sizeof server) ||
        zmq_setsockopt(socket, ZMQ_CURVE_SECRETKEY, security->secret_key, SECURITY_KEY_SIZE) ||
        zmq_setsockopt(socket, ZMQ_ZAP_DOMAIN, "gantry", strlen("gantry")))
        return -errno;
    return 0;
}

int security_secure_client(struct security *security, void *socket, const char *server_key)
{
    if (!security_is_key(server_key))
        return -EINVAL;
    if (zmq_setsockopt(socket, ZMQ_CURVE_SERVERKEY, server_key, SECURITY_KEY_SIZE) ||
        zmq_setsockopt(socket, ZMQ_CURVE_PUBLICKEY, security->public_key, SECURITY_KEY_SIZE) ||
        zmq_setsockopt(socket, ZMQ_CURVE_SECRETKEY, security->secret_key, SECURITY_KEY_SIZE))
        return -errno;
    return 0;
}
