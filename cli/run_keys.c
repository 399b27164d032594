#include "cli/run_keys.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/atomic_file.h"

static int path_of(const char *run_dir, const char *name, const char *suffix, char ret[RUN_KEYS_PATH], struct error *error)
{
    if (snprintf(ret, RUN_KEYS_PATH, "%s/keys%s%s%s", run_dir, *name ? "/" : "", name, suffix) >= RUN_KEYS_PATH)
        return error_set(error, ENAMETOOLONG, "%s: the path is too long", run_dir);
    return 0;
}

/* Names are file names: worker-7, nodeB.actor. */
static bool is_name(const char *name)
{
    size_t n = strlen(name);

    for (size_t i = 0; i < n; i++)
        if (!isalnum((unsigned char)name[i]) && (i == 0 || !strchr("-_.@", name[i])))
            return false;
    return n > 0 && n < sizeof ((struct security_entry *)0)->name && strcmp(name, "coordinator") && strcmp(name, "allowed") &&
           strcmp(name, "lock");
}

/* The list is read, changed and replaced: one at a time. Held until *ret_fd is closed. */
static int lock(const char *run_dir, int *ret_fd, struct error *error)
{
    char path[RUN_KEYS_PATH];
    int r = path_of(run_dir, "lock", "", path, error);

    if (r < 0)
        return r;
    *ret_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (*ret_fd < 0 || flock(*ret_fd, LOCK_EX))
        return error_set(error, errno, "%s: %s", path, strerror(errno));
    return 0;
}

int run_keys_init(const char *run_dir, char ret_public[SECURITY_KEY_SIZE], struct error *error)
{
    char dir[RUN_KEYS_PATH], path[RUN_KEYS_PATH];
    _cleanup_close_ int held = -1;
    int r = path_of(run_dir, "", "", dir, error);

    if (r == 0)
        r = path_of(run_dir, "coordinator", ".pub", path, error);
    if (r < 0)
        return r;
    if ((r = mkdir_p(dir, 0700)) < 0)
        return error_set(error, -r, "%s: cannot be made: %s", dir, strerror(-r));
    if ((r = lock(run_dir, &held, error)) < 0)
        return r;
    if (access(path, F_OK) == 0)
        return security_key_read(path, ret_public, error);
    r = security_key_create(dir, "coordinator", ret_public, error);
    return r < 0 ? r : 1;
}

int run_keys_add(const char *run_dir, Gantry__Role role, const char *name, const char *public_key,
                 char ret_public[SECURITY_KEY_SIZE], struct error *error)
{
    char dir[RUN_KEYS_PATH], allowed[RUN_KEYS_PATH];
    _cleanup_close_ int held = -1;
    int r;

    if (!is_name(name))
        return error_set(error, EINVAL, "'%s' is not a name for a key: letters, digits and -_.@, at most 63, not coordinator",
                         name);
    r = run_keys_init(run_dir, ret_public, error);
    if (r >= 0)
        r = lock(run_dir, &held, error);
    if (r >= 0)
        r = path_of(run_dir, "", "", dir, error);
    if (r >= 0)
        r = path_of(run_dir, "allowed", "", allowed, error);
    if (r < 0)
        return r;
    if (public_key)
        snprintf(ret_public, SECURITY_KEY_SIZE, "%s", public_key);
    else if ((r = security_key_create(dir, name, ret_public, error)) < 0)
        return r;
    return security_allow(allowed, role, public_key ? public_key : ret_public, name, error);
}

int run_keys_local(const char *run_dir, Gantry__Role role, char ret_path[RUN_KEYS_PATH], struct error *error)
{
    char host[40] = "local", name[64], public_key[SECURITY_KEY_SIZE];
    _cleanup_close_ int held = -1;
    int r;

    (void)gethostname(host, sizeof host - 1);
    snprintf(name, sizeof name, "%s-%s", host, wire_role_name(role));
    r = path_of(run_dir, name, ".key", ret_path, error);
    if (r < 0)
        return r;
    if (access(ret_path, F_OK) == 0) {
        (void)lock(run_dir, &held, NULL);       /* who makes it just now lets it in, too, before he lets go */
        return 0;
    }
    r = run_keys_add(run_dir, role, name, NULL, public_key, error);
    return r == -EEXIST ? 0 : r;        /* another member of this host was quicker: made and let in under the lock */
}

int run_keys_local_all(const char *run_dir, struct error *error)
{
    char path[RUN_KEYS_PATH];
    int r = 0;

    for (int role = GANTRY__ROLE__ROLE_ENV_WORKER; role <= GANTRY__ROLE__ROLE_LEARNER && r == 0; role++)
        r = run_keys_local(run_dir, (Gantry__Role)role, path, error);
    return r;
}

int run_keys_revoke(const char *run_dir, const char *key_or_name, struct error *error)
{
    static const char *const suffixes[] = {".key", ".pub"};
    _cleanup_close_ int held = -1;
    char path[RUN_KEYS_PATH];
    int r = path_of(run_dir, "allowed", "", path, error);

    if (r == 0 && access(run_dir, F_OK) < 0)
        return error_set(error, errno, "%s: %s: name a run's directory", run_dir, strerror(errno));
    if (r == 0 && access(path, F_OK) < 0 && errno == ENOENT)
        return error_set(error, ENOENT, "%s: nobody is let in, so there is no %s to shut out", run_dir, key_or_name);
    if (r == 0)
        r = lock(run_dir, &held, error);
    if (r == 0)
        r = security_revoke(path, key_or_name, error);
    for (size_t i = 0; r == 0 && is_name(key_or_name) && i < ARRAY_SIZE(suffixes); i++)
        if (path_of(run_dir, key_or_name, suffixes[i], path, NULL) == 0)
            (void)unlink(path);
    return r;
}

int run_keys_list(const char *run_dir, struct security_entry **ret, size_t *ret_n, struct error *error)
{
    char path[RUN_KEYS_PATH];
    int r = path_of(run_dir, "allowed", "", path, error);

    if (r == 0 && access(run_dir, F_OK) < 0)
        return error_set(error, errno, "%s: %s: name a run's directory", run_dir, strerror(errno));
    if (r == 0 && access(path, F_OK) < 0) {
        *ret = NULL;
        *ret_n = 0;
        return 0;
    }
    return r < 0 ? r : security_list(path, ret, ret_n, error);
}
