#include "wire/member_keys.h"

#include <errno.h>
#include <limits.h>
#include <unistd.h>

#include "wire/security.h"

static bool is_tcp(const char *address)
{
    return address && !strncmp(address, "tcp://", 6);
}

/* The list in the run directory if it can be read there, else what the coordinator says. */
static const char *find_list(const struct member_keys_options *o, char path[PATH_MAX])
{
    if (!is_tcp(o->listen))
        return NULL;
    if (o->run_dir && (size_t)snprintf(path, PATH_MAX, "%s/keys/allowed", o->run_dir) < PATH_MAX && access(path, R_OK) == 0)
        return path;
    return "";
}

/* coordinator.pub beside the secret key. */
static int read_server_key(const char *key_path, char ret_key[41], struct error *error)
{
    const char *slash = strrchr(key_path, '/');
    char path[PATH_MAX];

    snprintf(path, sizeof path, "%.*scoordinator.pub", slash ? (int)(slash + 1 - key_path) : 0, key_path);
    if (access(path, R_OK) < 0)
        return error_set(error, errno, "%s: %s: copy RUN/keys/coordinator.pub there, so that we know whom to trust", path,
                         strerror(errno));
    return security_key_read(path, ret_key, error);
}

int member_keys_load(struct wire *wire, const struct member_keys_options *o, char ret_server_key[41], struct error *error)
{
    char path[PATH_MAX], key[41] = "";
    int r = 0;

    if (!o->key && (is_tcp(o->join) || is_tcp(o->listen)))
        return error_set(error, EACCES, "%s: tcp needs a key: give --key FILE (`gantry keys add` makes one)",
                         is_tcp(o->join) ? o->join : o->listen);
    if (o->key)
        r = security_start(wire, o->key, find_list(o, path), error);
    if (r == 0 && is_tcp(o->join))
        r = read_server_key(o->key, key, error);
    if (r == 0)
        snprintf(ret_server_key, 41, "%s", key);
    return r;
}
