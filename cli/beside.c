#include "cli/beside.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/macro.h"

int beside_find(const char *name, char *ret, size_t size, struct error *error)
{
    static const char *const places[] = {"/share/gantry", "/deploy", ""};
    char self[PATH_MAX], path[2 * PATH_MAX], *slash;
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);

    if (n < 0)
        return error_set(error, errno, "/proc/self/exe: %s", strerror(errno));
    self[n] = '\0';
    for (int i = 0; i < 2 && (slash = strrchr(self, '/')); i++)
        *slash = '\0';
    for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
        snprintf(path, sizeof path, "%s%s/%s", self, places[i], name);
        if (access(path, F_OK) < 0)
            continue;
        if ((size_t)snprintf(ret, size, "%s", path) >= size)
            return error_set(error, ENAMETOOLONG, "%s: the path is too long", path);
        return 0;
    }
    return error_set(error, ENOENT, "%s: neither in %s/share/gantry nor in %s; run `make install`", name, self, self);
}

void beside_find_model(char *path, size_t size)
{
    char found[PATH_MAX];

    if (strncmp(path, "models/", 7) == 0 && access(path, F_OK) < 0 && beside_find(path, found, sizeof found, NULL) == 0 &&
        strlen(found) < size)
        memcpy(path, found, strlen(found) + 1);
}
