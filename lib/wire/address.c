#include "wire/address.h"

#include <errno.h>
#include <limits.h>
#include <netdb.h>
#include <stdlib.h>

#include "base/atomic_file.h"

bool address_is_ipc(const char *address)
{
    return !strncmp(address, "ipc://", 6);
}

int address_check(const char *address, struct error *error)
{
    if (!address || strlen(address) >= ADDRESS_MAX)
        return error_set(error, EINVAL, "an address is ipc://PATH or tcp://HOST:PORT, shorter than %d bytes", ADDRESS_MAX);
    if (address_is_ipc(address)) {
        size_t n = strlen(address + 6);

        if (n > ADDRESS_IPC_PATH_MAX)
            return error_set(error, ENAMETOOLONG,
                             "%s: the path has %zu bytes, a UNIX socket's has at most %d: use a shorter run directory", address,
                             n, ADDRESS_IPC_PATH_MAX);
        if (address[6] == '/' && n > 1)
            return 0;
    } else if (!strncmp(address, "tcp://", 6)) {
        const char *colon = strrchr(address + 6, ':');

        if (colon && colon > address + 6 && !strcmp(colon + 1, "*"))
            return 0;
        if (colon && colon > address + 6 && colon[1] && !colon[1 + strspn(colon + 1, "0123456789")]) {
            if (strlen(colon + 1) > 9 || strtol(colon + 1, NULL, 10) > 65535)   /* libzmq takes it modulo 2^16 */
                return error_set(error, EINVAL, "'%s': there is no port %s; they end at 65535", address, colon + 1);
            return 0;
        }
    }
    return error_set(error, EINVAL, "'%s' is not an address: ipc:///absolute/path or tcp://HOST:PORT", address);
}

/* tcp://HOST:PORT -> HOST (without brackets) and PORT. false: not tcp. */
static bool split(const char *address, char host[ADDRESS_MAX], const char **ret_port)
{
    const char *begin = address + 6, *colon = strrchr(address, ':');
    int n;

    if (strncmp(address, "tcp://", 6) || !colon || colon < begin)
        return false;
    n = (int)(colon - begin);
    if (n >= 2 && begin[0] == '[' && begin[n - 1] == ']')
        begin++, n -= 2;
    snprintf(host, ADDRESS_MAX, "%.*s", n, begin);
    *ret_port = colon + 1;
    return true;
}

void address_advertised(const char *bound, char ret_address[ADDRESS_MAX])
{
    char host[ADDRESS_MAX], name[128] = "localhost", address[2 * ADDRESS_MAX];
    const char *port;

    snprintf(address, sizeof address, "%s", bound);
    if (split(bound, host, &port) && (!strcmp(host, "0.0.0.0") || !strcmp(host, "::") || !strcmp(host, "*"))) {
        (void)gethostname(name, sizeof name - 1);
        snprintf(address, sizeof address, "tcp://%s:%s", name, port);
    } else if (!strncmp(bound, "tcp://[::ffff:", 14)) {         /* IPv4 on a socket that takes both */
        snprintf(address, sizeof address, "tcp://%s:%s", host + 7, port);
    }
    snprintf(ret_address, ADDRESS_MAX, "%s", address);
}

void address_resolve(const char *address, char ret_address[ADDRESS_MAX])
{
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
    char host[ADDRESS_MAX], number[64], resolved[2 * ADDRESS_MAX];
    struct addrinfo *found = NULL;
    const char *port;

    snprintf(resolved, sizeof resolved, "%s", address);
    if (split(address, host, &port) && strcmp(host, "*") && getaddrinfo(host, NULL, &hints, &found) == 0) {
        if (getnameinfo(found->ai_addr, found->ai_addrlen, number, sizeof number, NULL, 0, NI_NUMERICHOST) == 0)
            snprintf(resolved, sizeof resolved, found->ai_family == AF_INET6 ? "tcp://[%s]:%s" : "tcp://%s:%s", number, port);
        freeaddrinfo(found);
    }
    snprintf(ret_address, ADDRESS_MAX, "%s", resolved);
}

int address_ipc(const char *run_dir, const char *name, char ret_address[ADDRESS_MAX], struct error *error)
{
    char dir[ADDRESS_MAX], address[ADDRESS_MAX + 64];
    int r;

    r = address_socket_dir(run_dir, dir, error);
    if (r < 0)
        return r;
    snprintf(address, sizeof address, "ipc://%s/%s.ipc", dir, name);
    r = address_check(address, error);
    if (r < 0)
        return r;
    memcpy(ret_address, address, strlen(address) + 1);
    return 0;
}

static int endpoint_path(const char *run_dir, const char *name, char ret[PATH_MAX], struct error *error)
{
    if ((size_t)snprintf(ret, PATH_MAX, "%s/endpoints/%s", run_dir, name) >= PATH_MAX || strchr(name, '/'))
        return error_set(error, ENAMETOOLONG, "no endpoint file for %s in %s", name, run_dir);
    return 0;
}

int address_publish(const char *run_dir, const char *name, const char *address, const char *key, struct error *error)
{
    char path[PATH_MAX], line[ADDRESS_MAX + 64];
    int r;

    r = endpoint_path(run_dir, name, path, error);
    if (r < 0)
        return r;
    *strrchr(path, '/') = '\0';
    r = mkdir_p(path, 0755);
    if (r < 0)
        return error_set(error, -r, "cannot make %s: %s", path, strerror(-r));
    (void)endpoint_path(run_dir, name, path, NULL);
    snprintf(line, sizeof line, "%s %s\n", address, key && *key ? key : "-");
    r = atomic_file_write(path, line, strlen(line));
    if (r < 0)
        return error_set(error, -r, "cannot write %s: %s", path, strerror(-r));
    return 0;
}

int address_read(const char *path, char ret_address[ADDRESS_MAX], char ret_key[41], struct error *error)
{
    _cleanup_free_ char *text = NULL;
    char *save = NULL, *address, *key;
    size_t n;
    int r;

    r = file_read(path, 1024, &text, &n);
    if (r < 0)
        return error_set(error, -r, "%s: %s (is the coordinator of this run up?)", path, strerror(-r));
    address = strtok_r(text, " \n", &save);
    key = strtok_r(NULL, " \n", &save);
    if (!address || !key || (strcmp(key, "-") && strlen(key) != 40))
        return error_set(error, EBADMSG, "%s: not a line `ADDRESS KEY`", path);
    r = address_check(address, error);
    if (r < 0)
        return r;
    snprintf(ret_address, ADDRESS_MAX, "%s", address);
    snprintf(ret_key, 41, "%s", strcmp(key, "-") ? key : "");
    return 0;
}

int address_lookup(const char *run_dir, const char *name, char ret_address[ADDRESS_MAX], char ret_key[41], struct error *error)
{
    char path[PATH_MAX];
    int r = endpoint_path(run_dir, name, path, error);

    return r < 0 ? r : address_read(path, ret_address, ret_key, error);
}
