#include "nn/base_files.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

struct base_files {
    struct base_files *next;
    char sha256[65];
    int references;
    unsigned marks;
    struct hf_shards shards;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct base_files *all;          /* by lock: the list, and what is in it but for shards */

static struct base_files *find_locked(const char *sha256)
{
    struct base_files *files = all;

    while (files && strcmp(files->sha256, sha256) != 0)
        files = files->next;
    return files;
}

struct base_files *base_files_held(const char sha256[65], enum base_mark mark)
{
    struct base_files *files;

    pthread_mutex_lock(&lock);
    files = find_locked(sha256);
    files = files && files->marks & mark ? files : NULL;
    if (files)
        files->references++;
    pthread_mutex_unlock(&lock);
    return files;
}

/* Opening maps files and reads their headers; two who want the same base wait for each other. */
static int open_locked(const char *dir, const char *sha256, struct base_files **ret, struct error *error)
{
    struct base_files *files = calloc(1, sizeof(*files));
    int r;

    if (!files)
        return error_set(error, ENOMEM, "out of memory");
    r = hf_shards_open(dir, &files->shards, error);
    if (r < 0) {
        free(files);
        return r;
    }
    snprintf(files->sha256, sizeof(files->sha256), "%s", sha256);
    files->next = all;
    all = files;
    *ret = files;
    return 0;
}

int base_files_get(const char *dir, const char sha256[65], struct base_files **ret, struct error *error)
{
    struct base_files *files;
    int r = 0;

    pthread_mutex_lock(&lock);
    files = find_locked(sha256);
    if (!files)
        r = open_locked(dir, sha256, &files, error);
    if (r >= 0)
        files->references++;
    pthread_mutex_unlock(&lock);
    if (r >= 0)
        *ret = files;
    return r;
}

struct base_files *base_files_unref(struct base_files *files)
{
    bool last;

    if (!files)
        return NULL;
    pthread_mutex_lock(&lock);
    last = --files->references == 0;
    for (struct base_files **at = &all; last && *at; at = &(*at)->next)
        if (*at == files) {
            *at = files->next;
            break;
        }
    pthread_mutex_unlock(&lock);
    if (last) {
        hf_shards_close(&files->shards);
        free(files);
    }
    return NULL;
}

const struct hf_shards *base_files_shards(const struct base_files *files) { return &files->shards; }

void base_files_mark(struct base_files *files, enum base_mark mark)
{
    pthread_mutex_lock(&lock);
    files->marks |= mark;
    pthread_mutex_unlock(&lock);
}

bool base_files_have(const struct base_files *files, enum base_mark mark)
{
    bool have;

    pthread_mutex_lock(&lock);
    have = files->marks & mark;
    pthread_mutex_unlock(&lock);
    return have;
}
