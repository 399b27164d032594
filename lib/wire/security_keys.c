/* security_keys.c - key files and the list of those let in, as they lie on disk. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>
#include <zmq.h>

#include "base/atomic_file.h"
#include "base/strbuf.h"
#include "wire/security.h"

enum { KEY_BYTES = 32 };

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

    if (fd < 0 && errno == EEXIST)
        return error_set(error, EEXIST, "%s is there already: choose another name, or remove it (a key that is let in: gantry "
                         "keys revoke)", path);
    if (fd < 0)
        return error_set(error, errno, "cannot make %s: %s", path, strerror(errno));
    if (write(fd, line, (size_t)n) != n || fsync(fd)) {
        n = error_set(error, errno ? errno : EIO, "cannot write %s: %s", path, strerror(errno));
        (void)unlink(path);
        return n;
    }
    return 0;
}

int security_key_create(const char *dir, const char *name, char ret_public[SECURITY_KEY_SIZE], struct error *error)
{
    char public_key[SECURITY_KEY_SIZE], secret_key[SECURITY_KEY_SIZE], secret_path[PATH_MAX], path[PATH_MAX];
    int r;

    r = security_keypair(public_key, secret_key);
    if (r < 0)
        return error_set(error, -r, "no CURVE keys: %s", zmq_strerror(-r));
    r = mkdir_p(dir, 0700);
    if (r < 0)
        return error_set(error, -r, "cannot make %s: %s", dir, strerror(-r));
    snprintf(secret_path, sizeof secret_path, "%s/%s.key", dir, name);
    r = write_key(secret_path, secret_key, 0600, error);
    if (r < 0)
        return r;
    snprintf(path, sizeof path, "%s/%s.pub", dir, name);
    (void)unlink(path);
    r = write_key(path, public_key, 0644, error);
    if (r < 0) {
        (void)unlink(secret_path);      /* half a pair would be in the way of the next try */
        return r;
    }
    memcpy(ret_public, public_key, sizeof public_key);
    return 0;
}

bool security_is_key(const char *text)
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
        return error_set(error, -r, "key file %s: %s (gantry keys add makes one)", path, strerror(-r));
    text[strcspn(text, " \r\n")] = '\0';
    if (!security_is_key(text))
        return error_set(error, EINVAL, "%s holds no Z85 key of %d characters", path, SECURITY_KEY_SIZE - 1);
    memcpy(ret_key, text, SECURITY_KEY_SIZE);
    return 0;
}

int security_secret_read(const char *path, char ret_key[SECURITY_KEY_SIZE], struct error *error)
{
    struct stat st;

    if (stat(path, &st) == 0 && (st.st_mode & S_IRWXO))
        return error_set(error, EPERM, "key file %s is open to everybody on this host (mode %04o): chmod 600 %s; "
                         "if somebody may have read it, `gantry keys revoke` it and make another",
                         path, st.st_mode & 07777, path);
    return security_key_read(path, ret_key, error);
}

/* ---- the list of those let in ------------------------------------------------------------------------- */

/* "ROLE Z85 NAME". false: not such a line. */
static bool parse_line(char *line, struct security_entry *ret)
{
    char *save = NULL, *role, *key, *name;

    role = strtok_r(line, " \t\r", &save);
    key = strtok_r(NULL, " \t\r", &save);
    name = strtok_r(NULL, " \t\r", &save);
    if (!role || *role == '#' || !key || !security_is_key(key) || wire_role_parse(role, &ret->role) < 0)
        return false;
    memcpy(ret->key, key, SECURITY_KEY_SIZE);
    snprintf(ret->name, sizeof ret->name, "%s", name ? name : "");
    return true;
}

int security_parse(char *text, struct security_entry **ret, size_t *ret_n)
{
    struct security_entry *list = NULL, entry;
    char *save = NULL, *line;
    size_t n = 0;

    for (line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        struct security_entry *more;

        if (!parse_line(line, &entry))
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

int security_list(const char *allowed_path, struct security_entry **ret, size_t *ret_n, struct error *error)
{
    _cleanup_free_ char *text = NULL;
    size_t size;
    int r = file_read(allowed_path, SECURITY_ALLOWED_MAX, &text, &size);

    if (r == 0)
        r = security_parse(text, ret, ret_n);
    return r < 0 ? error_set(error, -r, "%s: %s", allowed_path, strerror(-r)) : 0;
}

/* Copy the list but for the lines of `key` or `name`; *ret_dropped says how many went. */
static int copy_without(const char *path, const char *key_or_name, struct strbuf *out, unsigned *ret_dropped)
{
    _cleanup_free_ char *text = NULL;
    char *save = NULL, *line;
    unsigned dropped = 0;
    size_t n;
    int r;

    r = file_read(path, SECURITY_ALLOWED_MAX, &text, &n);
    if (r < 0)
        return r;
    for (line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        _cleanup_free_ char *copy = strdup(line);
        struct security_entry entry;

        if (copy && parse_line(copy, &entry) && (!strcmp(entry.key, key_or_name) || !strcmp(entry.name, key_or_name)))
            dropped++;
        else
            strbuf_addf(out, "%s\n", line);
    }
    *ret_dropped = dropped;
    return 0;
}

static int write_list(const char *path, struct strbuf *out, struct error *error)
{
    int r = out->failed ? -ENOMEM : atomic_file_write_through(path, out->text, out->length);

    if (r < 0)
        return error_set(error, -r, "cannot write %s: %s", path, strerror(-r));
    return 0;
}

int security_allow(const char *allowed_path, Gantry__Role role, const char *public_key, const char *name, struct error *error)
{
    _cleanup_(strbuf_release) struct strbuf out = STRBUF_INIT;
    unsigned dropped;
    int r;

    if (!security_is_key(public_key) || strpbrk(name, " \t\r\n"))
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
