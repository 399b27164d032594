#include "wire/security.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>
#include <zmq.h>

#include "base/atomic_file.h"
#include "base/strbuf.h"
#include "wire/zsock.h"

enum { KEY_BYTES = 32, ALLOWED_MAX = 4 << 20 };

struct allowed {
    char key[SECURITY_KEY_SIZE];
    Gantry__Role role;
};

struct security {
    char public_key[SECURITY_KEY_SIZE], secret_key[SECURITY_KEY_SIZE];
    char *allowed_path;             /* NULL: a pure client */
    struct stat seen;               /* of the list as it was last read */
    struct allowed *allowed;
    size_t n_allowed;
    struct zsock *zap;
};

/* ---- keys --------------------------------------------------------------------------------------------- */

int security_keypair(char ret_public[SECURITY_KEY_SIZE], char ret_secret[SECURITY_KEY_SIZE])
{
    return zmq_curve_keypair(ret_public, ret_secret) ? -errno : 0;
}

static int write_key(const char *path, const char *key, unsigned mode, struct error *error)
{
    _cleanup_close_ int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
    char line[SECURITY_KEY_SIZE + 1];
    int n = snprintf(line, sizeof line, "%s\n", key);

    if (fd < 0)
        return error_set(error, errno, "cannot make %s: %s", path, strerror(errno));
    if (write(fd, line, (size_t)n) != n || fsync(fd))
        return error_set(error, errno ? errno : EIO, "cannot write %s: %s", path, strerror(errno));
    return 0;
}

int security_key_create(const char *dir, const char *name, char ret_public[SECURITY_KEY_SIZE], struct error *error)
{
    char public_key[SECURITY_KEY_SIZE], secret_key[SECURITY_KEY_SIZE], path[PATH_MAX];
    int r;

    r = security_keypair(public_key, secret_key);
    if (r < 0)
        return error_set(error, -r, "no CURVE keys: %s", zmq_strerror(-r));
    r = mkdir_p(dir, 0700);
    if (r < 0)
        return error_set(error, -r, "cannot make %s: %s", dir, strerror(-r));
    snprintf(path, sizeof path, "%s/%s.key", dir, name);
    r = write_key(path, secret_key, 0600, error);
    if (r < 0)
        return r;
    snprintf(path, sizeof path, "%s/%s.pub", dir, name);
    (void)unlink(path);
    r = write_key(path, public_key, 0644, error);
    if (r < 0)
        return r;
    memcpy(ret_public, public_key, sizeof public_key);
    return 0;
}

static bool is_key(const char *text)
{
    uint8_t bytes[KEY_BYTES];

    return strlen(text) == SECURITY_KEY_SIZE - 1 && zmq_z85_decode(bytes, text);
}

int security_key_read(const char *path, char ret_key[SECURITY_KEY_SIZE], struct error *error)
{
    _cleanup_free_ char *text = NULL;
    size_t n;
    int r;

    r = file_read(path, 4096, &text, &n);
    if (r < 0)
        return error_set(error, -r, "key file %s: %s (make one: gantry keys create)", path, strerror(-r));
    text[strcspn(text, " \r\n")] = '\0';
    if (!is_key(text))
        return error_set(error, EINVAL, "%s holds no Z85 key of %d characters", path, SECURITY_KEY_SIZE - 1);
    memcpy(ret_key, text, SECURITY_KEY_SIZE);
    return 0;
}

/* ---- the list of those let in ------------------------------------------------------------------------- */

/* "ROLE Z85 NAME" -> entry and name (inside line). false: not such a line. */
static bool parse_line(char *line, struct allowed *ret, const char **ret_name)
{
    char *save = NULL, *role, *key, *name;

    role = strtok_r(line, " \t\r", &save);
    key = strtok_r(NULL, " \t\r", &save);
    name = strtok_r(NULL, " \t\r", &save);
    if (!role || *role == '#' || !key || !is_key(key) || wire_role_parse(role, &ret->role) < 0)
        return false;
    memcpy(ret->key, key, SECURITY_KEY_SIZE);
    *ret_name = name ? name : "";
    return true;
}

static int parse_list(char *text, struct allowed **ret, size_t *ret_n)
{
    struct allowed *list = NULL, entry;
    char *save = NULL, *line;
    const char *name;
    size_t n = 0;

    for (line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        struct allowed *more;

        if (!parse_line(line, &entry, &name))
            continue;
        more = realloc(list, (n + 1) * sizeof *list);
        if (!more) {
            free(list);
            return -ENOMEM;
        }
        list = more;
        list[n++] = entry;
    }
    *ret = list;
    *ret_n = n;
    return 0;
}

static bool same_file(const struct stat *a, const struct stat *b)
{
    return a->st_ino == b->st_ino && a->st_dev == b->st_dev && a->st_size == b->st_size &&
           a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec;
}

/* Bring the list up to date. A list that cannot be read lets nobody in. */
static void refresh(struct security *security)
{
    _cleanup_free_ char *text = NULL;
    struct stat st;
    size_t n;

    if (stat(security->allowed_path, &st) == 0 && same_file(&st, &security->seen))
        return;
    free(TAKE_PTR(security->allowed));
    security->n_allowed = 0;
    security->seen = (struct stat) {0};
    if (stat(security->allowed_path, &st) || file_read(security->allowed_path, ALLOWED_MAX, &text, &n) < 0)
        return;
    if (parse_list(text, &security->allowed, &security->n_allowed) == 0)
        security->seen = st;
}

int security_role_of(struct security *security, const char *user, Gantry__Role *ret_role)
{
    if (!security || !security->allowed_path)
        return -EACCES;
    refresh(security);
    for (size_t i = 0; i < security->n_allowed; i++)
        if (!strcmp(security->allowed[i].key, user)) {
            *ret_role = security->allowed[i].role;
            return 0;
        }
    return -EACCES;
}

/* Copy the list but for the lines of `key` or `name`; *ret_dropped says how many went. */
static int copy_without(const char *path, const char *key_or_name, struct strbuf *out, unsigned *ret_dropped)
{
    _cleanup_free_ char *text = NULL;
    char *save = NULL, *line;
    unsigned dropped = 0;
    size_t n;
    int r;

    r = file_read(path, ALLOWED_MAX, &text, &n);
    if (r < 0)
        return r;
    for (line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        _cleanup_free_ char *copy = strdup(line);
        struct allowed entry;
        const char *name;

        if (copy && parse_line(copy, &entry, &name) && (!strcmp(entry.key, key_or_name) || !strcmp(name, key_or_name)))
            dropped++;
        else
            strbuf_addf(out, "%s\n", line);
    }
    *ret_dropped = dropped;
    return 0;
}

static int write_list(const char *path, struct strbuf *out, struct error *error)
{
    int r = out->failed ? -ENOMEM : atomic_file_write(path, out->text, out->length);

    if (r < 0)
        return error_set(error, -r, "cannot write %s: %s", path, strerror(-r));
    return 0;
}

int security_allow(const char *allowed_path, Gantry__Role role, const char *public_key, const char *name, struct error *error)
{
    _cleanup_(strbuf_release) struct strbuf out = STRBUF_INIT;
    unsigned dropped;
    int r;

    if (!is_key(public_key) || strpbrk(name, " \t\r\n"))
        return error_set(error, EINVAL, "'%s' is not a Z85 public key of %d characters, or the name has blanks", public_key,
                         SECURITY_KEY_SIZE - 1);
    r = copy_without(allowed_path, public_key, &out, &dropped);
    if (r == -ENOENT)
        strbuf_adds(&out, "# who may connect: ROLE KEY NAME. Taken out = shut out with the next message.\n");
    else if (r < 0)
        return error_set(error, -r, "%s: %s", allowed_path, strerror(-r));
    strbuf_addf(&out, "%s %s %s\n", wire_role_name(role), public_key, name);
    return write_list(allowed_path, &out, error);
}

int security_revoke(const char *allowed_path, const char *key_or_name, struct error *error)
{
    _cleanup_(strbuf_release) struct strbuf out = STRBUF_INIT;
    unsigned dropped = 0;
    int r;

    r = copy_without(allowed_path, key_or_name, &out, &dropped);
    if (r < 0)
        return error_set(error, -r, "%s: %s", allowed_path, strerror(-r));
    if (!dropped)
        return error_set(error, ENOENT, "%s lets in no key or name '%s'", allowed_path, key_or_name);
    return write_list(allowed_path, &out, error);
}

/* ---- ZAP (rfc.zeromq.org/spec/27): libzmq asks about each new connection ------------------------------- */

enum { ZAP_VERSION, ZAP_REQUEST, ZAP_DOMAIN, ZAP_ADDRESS, ZAP_IDENTITY, ZAP_MECHANISM, ZAP_CREDENTIALS, ZAP_FRAMES };

static void zap_answer(void *socket, const char *request, size_t n_request, bool let_in, const char *user)
{
    const char *const frames[] = {"1.0", NULL, let_in ? "200" : "400", let_in ? "OK" : "not let in", let_in ? user : "", ""};

    for (size_t i = 0; i < ARRAY_SIZE(frames); i++) {
        int flags = ZMQ_DONTWAIT | (i + 1 < ARRAY_SIZE(frames) ? ZMQ_SNDMORE : 0);

        if (frames[i])
            zmq_send(socket, frames[i], strlen(frames[i]), flags);
        else
            zmq_send(socket, request, n_request, flags);
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
        int size = zmq_recv(zsock_socket(z), frame, sizeof frames[0], ZMQ_DONTWAIT);

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
    r = zmq_bind(socket, "inproc://zeromq.zap.01") ? -errno
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
    r = security_key_read(secret_key_path, security->secret_key, error);
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
    if (!is_key(server_key))
        return -EINVAL;
    if (zmq_setsockopt(socket, ZMQ_CURVE_SERVERKEY, server_key, SECURITY_KEY_SIZE) ||
        zmq_setsockopt(socket, ZMQ_CURVE_PUBLICKEY, security->public_key, SECURITY_KEY_SIZE) ||
        zmq_setsockopt(socket, ZMQ_CURVE_SECRETKEY, security->secret_key, SECURITY_KEY_SIZE))
        return -errno;
    return 0;
}
