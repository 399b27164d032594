#include "data/source.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { MAX_FILES = 100000 };

static const struct source_driver *const drivers[] = {&source_hdf5, &source_rlds, &source_npz};

void source_episode_release(struct source_episode *e)
{
    for (size_t i = 0; e->pictures && i < (size_t)e->steps * (size_t)e->cameras; i++)
        free(e->pictures[i].rgb);
    free(e->pictures);
    free(e->action);
    free(e->state);
    *e = (struct source_episode){0};
}

int source_episode_reserve(struct source_episode *e, struct error *error)
{
    if (e->steps < 1 || e->steps > SOURCE_MAX_STEPS || e->dims < 1 || e->dims > SOURCE_MAX_DIMS || e->cameras < 1 ||
        e->cameras > SOURCE_MAX_CAMERAS || e->state_dims < 0 || e->state_dims > SOURCE_MAX_DIMS)
        return error_set(error, EINVAL,
                         "%s: %d steps of %d numbers, %d cameras, a state of %d numbers; expected 1 to %d steps, 1 to %d "
                         "numbers, 1 to %d cameras",
                         e->where, e->steps, e->dims, e->cameras, e->state_dims, SOURCE_MAX_STEPS, SOURCE_MAX_DIMS,
                         SOURCE_MAX_CAMERAS);
    e->pictures = calloc((size_t)e->steps * (size_t)e->cameras, sizeof *e->pictures);
    e->action = calloc((size_t)e->steps * (size_t)e->dims, sizeof *e->action);
    e->state = e->state_dims ? calloc((size_t)e->steps * (size_t)e->state_dims, sizeof *e->state) : NULL;
    if (!e->pictures || !e->action || (e->state_dims && !e->state))
        return error_set(error, ENOMEM, "%s: out of memory", e->where);
    return 0;
}

bool source_name_of(const char *list, int i, char *ret, size_t n)
{
    while (i-- > 0) {
        list = strchr(list, ',');
        if (!list)
            return false;
        list++;
    }
    snprintf(ret, n, "%.*s", (int)strcspn(list, ","), list);
    return ret[0] != '\0';
}

void source_name_task(struct source_episode *e, const char *text)
{
    size_t n = strlen(text);

    if (n >= sizeof e->task)
        for (n = sizeof e->task - 1; n > 0 && ((uint8_t)text[n] & 0xc0) == 0x80;)
            n--;
    memcpy(e->task, text, n);
    e->task[n] = '\0';
    for (char *c = e->task; *c; c++)
        *c = *c == ' ' ? '_' : *c;
}

/* ---- files --------------------------------------------------------------------------------------- */

static int add_file(struct source *s, const char *path)
{
    char **larger = realloc(s->files, (size_t)(s->n_files + 1) * sizeof *larger);

    if (!larger)
        return -ENOMEM;
    s->files = larger;
    s->files[s->n_files] = strdup(path);
    return s->files[s->n_files] && ++s->n_files < MAX_FILES ? 0 : -ENOMEM;
}

static bool has_extension(const char *name, const char *extension)
{
    const char *found = strstr(name, extension);

    return found && name[0] != '.' && (found[strlen(extension)] == '\0' || found[strlen(extension)] == '-');
}

static int list_files(struct source *s, const char *path, int depth)
{
    DIR *dir = opendir(path);
    struct dirent *entry;
    struct stat st;
    int r = 0;

    if (!dir)
        return -errno;
    while (r >= 0 && (entry = readdir(dir))) {
        char name[4096];

        if (entry->d_name[0] == '.' || snprintf(name, sizeof name, "%s/%s", path, entry->d_name) >= (int)sizeof name ||
            stat(name, &st) < 0)
            continue;
        if (S_ISDIR(st.st_mode) && depth > 0)
            r = list_files(s, name, depth - 1);
        else if (S_ISREG(st.st_mode) && has_extension(entry->d_name, s->driver->extension))
            r = add_file(s, name);
    }
    closedir(dir);
    return r;
}

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static int find_files(struct source *s, const char *path, struct error *error)
{
    struct stat st;
    int r;

    if (stat(path, &st) < 0)
        return error_set(error, errno, "%s: %s", path, strerror(errno));
    r = S_ISDIR(st.st_mode) ? list_files(s, path, 2) : add_file(s, path);
    if (r < 0)
        return error_set(error, -r, "%s: %s", path, strerror(-r));
    if (!s->n_files)
        return error_set(error, ENOENT, "%s: no *%s in it, nor two levels below", path, s->driver->extension);
    qsort(s->files, (size_t)s->n_files, sizeof *s->files, by_name);
    return 0;
}

int source_open(const char *format, const char *path, const struct source_options *options, struct source **ret,
                struct error *error)
{
    _cleanup_(source_closep) struct source *s = calloc(1, sizeof *s);
    int r;

    if (!s)
        return error_set(error, ENOMEM, "out of memory");
    for (size_t i = 0; i < ARRAY_SIZE(drivers); i++)
        if (!strcmp(drivers[i]->name, format))
            s->driver = drivers[i];
    if (!s->driver)
        return error_set(error, EINVAL, "there is no format '%s': libero-hdf5, rlds, npz, lerobot", format);
    s->options = options ? *options : (struct source_options){0};
    r = find_files(s, path, error);
    if (r >= 0)
        r = s->driver->open(s, error);
    if (r < 0)
        return r;
    *ret = TAKE_PTR(s);
    return 0;
}

int source_next(struct source *s, struct source_episode *ret, struct error *error)
{
    struct source_episode episode = {0};
    int r = s->driver->next(s, &episode, error);

    if (r <= 0)
        source_episode_release(&episode);
    else
        *ret = episode;
    return r;
}

struct source *source_close(struct source *s)
{
    if (!s)
        return NULL;
    if (s->driver)
        s->driver->close(s);
    for (int i = 0; i < s->n_files; i++)
        free(s->files[i]);
    free(s->files);
    free(s);
    return NULL;
}
