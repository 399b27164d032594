#include "daemon/memory_available.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "base/macro.h"

/* The files of a control group, by version. What is written as "max", or as a number beyond all memory, is no limit. */
static const struct version { const char *top, *limit, *used, *cache, *kills; } versions[] = {
    {"/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file", "memory.events"},
    {"/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file", "memory.oom_control"},
};

static FILE *open_in(const char *root, const char *dir, const char *name)
{
    char path[3 * PATH_MAX];

    snprintf(path, sizeof path, "%s%s/%s", root, dir, name);
    return fopen(path, "re");
}

/* The number behind `word` ("": the first) in the file; false: there is none. */
static bool number_in(FILE *file, const char *word, double *ret)
{
    bool found = false;
    char line[256];

    while (file && !found && fgets(line, sizeof line, file))
        if (!strncmp(line, word, strlen(word)))
            found = sscanf(line + strlen(word), " %lf", ret) == 1;
    if (file)
        fclose(file);
    return found;
}

/* What a group's limit leaves, what is cached of files counting as free. false: it has no limit, or is not to be seen here. */
static bool left_in(const char *root, const struct version *v, const char *group, double *ret)
{
    double limit, used, cached = 0;
    char dir[PATH_MAX + 32];

    snprintf(dir, sizeof dir, "%s%s", v->top, group);
    if (!number_in(open_in(root, dir, v->limit), "", &limit) ||
        !number_in(open_in(root, dir, v->used), "", &used))
        return false;
    (void)number_in(open_in(root, dir, "memory.stat"), v->cache, &cached);
    *ret = MAX(limit - used + cached, 1.0);
    return true;
}

/* A group is within its parents. In a container the path may be the host's, and only the top is there. */
static void narrow(const char *root, const struct version *v, char *group, double *available, bool *limited)
{
    char *parent;

    do {
        double left;

        if (left_in(root, v, group, &left) && (left < *available || *available <= 0)) {
            *available = left;
            *limited = true;
        }
        parent = strrchr(group, '/');
        if (parent)
            *parent = '\0';
    } while (parent);
}

/* Of a line of /proc/self/cgroup, "0::/a/b" or "4:memory:/a/b": the group's path, within `line`. NULL: it is not about memory. */
static char *group_of(char *line, const struct version **ret)
{
    char *group = strchr(line, '/');

    line[strcspn(line, "\n")] = '\0';
    *ret = &versions[strncmp(line, "0::", 3) != 0];
    return *ret == &versions[0] || strstr(line, ":memory:") ? group : NULL;
}

double memory_available(const char *root, bool *ret_limited)
{
    const struct version *v;
    double kilobytes = 0, available;
    FILE *groups = open_in(root, "/proc/self", "cgroup");
    char line[PATH_MAX];

    *ret_limited = false;
    (void)number_in(open_in(root, "/proc", "meminfo"), "MemAvailable:", &kilobytes);
    available = kilobytes * 1024;
    while (groups && fgets(line, sizeof line, groups)) {
        char *group = group_of(line, &v);

        if (group)
            narrow(root, v, group, &available, ret_limited);
    }
    if (groups)
        fclose(groups);
    return available;
}

/* The nearest of a group and its parents that counts. */
static bool kills_in(const char *root, const struct version *v, char *group, double *ret)
{
    char dir[PATH_MAX + 32], *parent;

    do {
        snprintf(dir, sizeof dir, "%s%s", v->top, group);
        if (number_in(open_in(root, dir, v->kills), "oom_kill ", ret))
            return true;
        parent = strrchr(group, '/');
        if (parent)
            *parent = '\0';
    } while (parent);
    return false;
}

uint64_t memory_oom_kills(const char *root)
{
    FILE *groups = open_in(root, "/proc/self", "cgroup");
    const struct version *v;
    char line[PATH_MAX];
    bool found = false;
    double kills = 0;

    while (groups && !found && fgets(line, sizeof line, groups)) {
        char *group = group_of(line, &v);

        found = group && kills_in(root, v, group, &kills);
    }
    if (groups)
        fclose(groups);
    if (!found)
        (void)number_in(open_in(root, "/proc", "vmstat"), "oom_kill ", &kills);
    return (uint64_t)kills;
}
