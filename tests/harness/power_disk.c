#include "tests/harness/power_disk.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/macro.h"
#include "base/philox.h"

enum { CHANGES = 1 << 16, NODES = 4096, FDS = 1024, NAME = 96, SECTOR = 512 };
enum { BYTES = 256 << 20 };

enum kind { WRITE, TRUNCATE, SYNC, CREATE, MKDIR, UNLINK, RENAME };

struct change {
    enum kind kind;
    uint32_t node;              /* what is written, synced, made, renamed */
    uint32_t dir;               /* of a change of names: the directory */
    char name[NAME], to[NAME];  /* `to`: of a rename, in the same directory */
    uint64_t offset, n;         /* TRUNCATE: n is the size */
    size_t bytes;               /* into pool */
};

struct entry { uint32_t dir, node; char name[NAME]; bool there; };

static struct shared {
    pthread_mutex_t lock;
    char root[PATH_MAX];
    uint32_t nodes;             /* 0 is the root */
    struct entry entries[NODES];
    size_t n_entries, n_changes, n_bytes;
    struct change changes[CHANGES];
    uint8_t pool[BYTES];
} *disk;
static int node_of_fd[FDS];     /* node + 1; this process's */

static void out_of_room(const char *what)
{
    fprintf(stderr, "power_disk: no room for more %s\n", what);
    abort();
}

void power_begin(const char *root)
{
    pthread_mutexattr_t shared;

    if (!disk)
        disk = mmap(NULL, sizeof *disk, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (disk == MAP_FAILED)
        out_of_room("notes");
    pthread_mutexattr_init(&shared);
    pthread_mutexattr_setpshared(&shared, PTHREAD_PROCESS_SHARED);
    pthread_mutex_init(&disk->lock, &shared);
    snprintf(disk->root, sizeof disk->root, "%s", root);
    disk->nodes = 1;
    disk->n_entries = disk->n_changes = disk->n_bytes = 0;
    memset(node_of_fd, 0, sizeof node_of_fd);
}

size_t power_changes(void) { return disk->n_changes; }

enum power_change power_change(size_t at)
{
    enum kind kind = disk->changes[at - 1].kind;

    return kind == SYNC ? POWER_SYNC : kind == WRITE || kind == TRUNCATE ? POWER_WRITE : POWER_NAME;
}

/* ---- names -------------------------------------------------------------------------------------------------- */

static const char *below(const char *path)
{
    size_t n = disk ? strlen(disk->root) : 0;

    if (!n || strncmp(path, disk->root, n) || (path[n] && path[n] != '/'))
        return NULL;
    return path + n + strspn(path + n, "/");
}

bool power_is_below(const char *path) { return path && below(path); }

static struct entry *find_entry(uint32_t dir, const char *name)
{
    for (size_t i = 0; i < disk->n_entries; i++)
        if (disk->entries[i].there && disk->entries[i].dir == dir && !strcmp(disk->entries[i].name, name))
            return &disk->entries[i];
    return NULL;
}

/* The directory that a path's last name is in; its node, UINT32_MAX: not noted. */
static uint32_t parent_of(const char *path, char ret_name[NAME])
{
    char copy[PATH_MAX], *at = copy, *name, *slash;
    uint32_t dir = 0;

    snprintf(copy, sizeof copy, "%s", path);
    for (size_t n = strlen(copy); n && copy[n - 1] == '/'; n--)
        copy[n - 1] = '\0';
    for (name = at; (slash = strchr(name, '/')); name = slash + 1 + strspn(slash + 1, "/")) {
        struct entry *entry;

        *slash = '\0';
        entry = find_entry(dir, name);
        if (!entry)
            return UINT32_MAX;
        dir = entry->node;
    }
    snprintf(ret_name, NAME, "%s", name);
    return dir;
}

static struct change *note(enum kind kind, uint32_t node)
{
    if (disk->n_changes == CHANGES)
        out_of_room("changes");
    disk->changes[disk->n_changes] = (struct change) {.kind = kind, .node = node};
    return &disk->changes[disk->n_changes++];
}

static uint32_t add_entry(enum kind kind, uint32_t dir, const char *name)
{
    struct change *change = note(kind, disk->nodes);

    if (disk->n_entries == NODES)
        out_of_room("files");
    change->dir = dir;
    snprintf(change->name, sizeof change->name, "%s", name);
    disk->entries[disk->n_entries] = (struct entry) {.dir = dir, .node = disk->nodes, .there = true};
    snprintf(disk->entries[disk->n_entries++].name, NAME, "%s", name);
    return disk->nodes++;
}

static void change_name(enum kind kind, const char *path, const char *to)
{
    char name[NAME], new[NAME] = "";
    uint32_t dir = below(path) ? parent_of(below(path), name) : UINT32_MAX;
    struct entry *entry = dir != UINT32_MAX ? find_entry(dir, name) : NULL, *old;
    struct change *change;

    if (!entry)
        return;
    if (to && (!below(to) || parent_of(below(to), new) != dir))
        out_of_room("renames between directories");         /* none of ours does that */
    change = note(kind, entry->node);
    change->dir = dir;
    memcpy(change->name, name, NAME);
    memcpy(change->to, new, NAME);
    if (to && (old = find_entry(dir, new)))
        old->there = false;
    if (to)
        memcpy(entry->name, new, NAME);
    else
        entry->there = false;
}

/* ---- what happened -------------------------------------------------------------------------------------------- */

static struct change *note_fd(enum kind kind, int fd)
{
    return disk && fd >= 0 && fd < FDS && node_of_fd[fd] ? note(kind, (uint32_t)node_of_fd[fd] - 1) : NULL;
}

void power_opened(int fd, const char *path, int flags, bool created)
{
    char name[NAME];
    uint32_t dir;
    struct entry *entry;

    if (fd >= FDS)
        out_of_room("descriptors");
    node_of_fd[fd] = 0;
    if (!power_is_below(path))
        return;
    pthread_mutex_lock(&disk->lock);
    if (!*below(path)) {
        node_of_fd[fd] = 1;
    } else if ((dir = parent_of(below(path), name)) != UINT32_MAX) {
        entry = find_entry(dir, name);
        if (!entry && created)
            node_of_fd[fd] = (int)add_entry(CREATE, dir, name) + 1;
        else if (entry)
            node_of_fd[fd] = (int)entry->node + 1;
        if (entry && (flags & O_TRUNC))
            (void)note_fd(TRUNCATE, fd);
    }
    pthread_mutex_unlock(&disk->lock);
}

void power_closed(int fd)
{
    if (fd >= 0 && fd < FDS)
        node_of_fd[fd] = 0;
}

void power_wrote(int fd, const void *bytes, size_t n, uint64_t offset)
{
    struct change *change;

    if (!disk)
        return;
    pthread_mutex_lock(&disk->lock);
    change = note_fd(WRITE, fd);
    if (change && disk->n_bytes + n > BYTES)
        out_of_room("bytes");
    if (change) {
        change->offset = offset;
        change->n = n;
        change->bytes = disk->n_bytes;
        memcpy(disk->pool + disk->n_bytes, bytes, n);
        disk->n_bytes += n;
    }
    pthread_mutex_unlock(&disk->lock);
}

void power_truncated(int fd, uint64_t size)
{
    struct change *change;

    if (!disk)
        return;
    pthread_mutex_lock(&disk->lock);
    change = note_fd(TRUNCATE, fd);
    if (change)
        change->n = size;
    pthread_mutex_unlock(&disk->lock);
}

void power_synced(int fd)
{
    if (!disk)
        return;
    pthread_mutex_lock(&disk->lock);
    (void)note_fd(SYNC, fd);
    pthread_mutex_unlock(&disk->lock);
}

void power_renamed(const char *from, const char *to)
{
    if (!power_is_below(from))
        return;
    pthread_mutex_lock(&disk->lock);
    change_name(RENAME, from, to);
    pthread_mutex_unlock(&disk->lock);
}

void power_unlinked(const char *path)
{
    if (!power_is_below(path))
        return;
    pthread_mutex_lock(&disk->lock);
    change_name(UNLINK, path, NULL);
    pthread_mutex_unlock(&disk->lock);
}

void power_made(const char *path)
{
    char name[NAME];
    uint32_t dir;

    if (!power_is_below(path) || !*below(path))
        return;
    pthread_mutex_lock(&disk->lock);
    dir = parent_of(below(path), name);
    if (dir != UINT32_MAX && !find_entry(dir, name))
        (void)add_entry(MKDIR, dir, name);
    pthread_mutex_unlock(&disk->lock);
}

/* ---- what is left --------------------------------------------------------------------------------------------- */

struct left { uint32_t dir; char name[NAME]; bool there, is_dir; uint8_t *bytes; size_t n, room; size_t synced; };

static void put(struct left *file, const uint8_t *bytes, size_t n, uint64_t offset)
{
    if (offset + n > file->room) {
        size_t room = MAX(2 * file->room, (size_t)(offset + n));
        uint8_t *more = realloc(file->bytes, room);

        if (!more)
            out_of_room("memory");
        memset(more + file->room, 0, room - file->room);
        file->bytes = more;
        file->room = room;
    }
    memcpy(file->bytes + offset, bytes, n);
    file->n = MAX(file->n, (size_t)(offset + n));
}

static void cut(struct left *file, uint64_t size)
{
    static const uint8_t zero;

    if (size < file->n)
        memset(file->bytes + size, 0, file->n - size);
    else if (size > file->n)
        put(file, &zero, 1, size - 1);
    file->n = size;
}

static void write_left(struct left *file, const struct change *change, bool synced, bool last, enum power_variant variant,
                       struct philox *draw)
{
    const uint8_t *bytes = disk->pool + change->bytes;

    if (synced || variant == POWER_ALL || (variant == POWER_TORN && !last)) {
        put(file, bytes, change->n, change->offset);
    } else if (variant == POWER_TORN) {
        put(file, bytes, change->n / 2, change->offset);
    } else if (variant == POWER_RANDOM) {
        for (uint64_t at = 0; at < change->n; at += SECTOR - (change->offset + at) % SECTOR)
            if (philox_below(draw, 2))
                put(file, bytes + at, MIN(change->n - at, (uint64_t)SECTOR - (change->offset + at) % SECTOR),
                    change->offset + at);
    }
}

/* Names: what is synced, and of the rest everything before `cutoff`, as a file system's own journal keeps their order. */
static void apply_names(struct left *left, const struct change *change, bool kept)
{
    struct left *node = &left[change->node];

    if (!kept)
        return;
    if (change->kind == CREATE || change->kind == MKDIR) {
        *node = (struct left) {.dir = change->dir, .there = true, .is_dir = change->kind == MKDIR, .bytes = node->bytes,
                               .n = node->n, .room = node->room, .synced = node->synced};
        memcpy(node->name, change->name, NAME);
    } else if (change->kind == UNLINK) {
        node->there = false;
    } else if (change->kind == RENAME) {
        for (uint32_t i = 1; i < disk->nodes; i++)
            if (i != change->node && left[i].there && left[i].dir == change->dir && !strcmp(left[i].name, change->to))
                left[i].there = false;
        memcpy(node->name, change->to, NAME);
    }
}

static int path_of(const struct left *left, uint32_t node, const char *into, char ret[PATH_MAX])
{
    char rest[PATH_MAX] = "", more[PATH_MAX];

    for (; node; node = left[node].dir) {
        if (!left[node].there)
            return -ENOENT;
        snprintf(more, sizeof more, "/%.*s%s", NAME, left[node].name, rest);
        memcpy(rest, more, sizeof rest);
    }
    return (size_t)snprintf(ret, PATH_MAX, "%s%s", into, rest) >= PATH_MAX ? -ENAMETOOLONG : 0;
}

static int put_on_disk(const struct left *left, uint32_t node, const char *into)
{
    char path[PATH_MAX];
    int fd, r = path_of(left, node, into, path);

    if (r < 0)
        return r == -ENOENT ? 0 : r;
    if (left[node].is_dir)
        return mkdir(path, 0755) < 0 ? -errno : 0;
    fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (fd < 0)
        return -errno;
    r = left[node].n && write(fd, left[node].bytes, left[node].n) != (ssize_t)left[node].n ? -EIO : 0;
    close(fd);
    return r;
}

int power_rebuild(size_t at, enum power_variant variant, uint64_t seed, const char *into)
{
    struct left *left = calloc(disk->nodes, sizeof *left);
    struct philox draw = philox_at(seed, PHILOX_TEST, at, variant, 0);
    size_t cutoff = variant == POWER_NOTHING ? 0 : variant == POWER_RANDOM ? philox_below(&draw, (uint32_t)at + 1) : at;
    int r = left ? 0 : -ENOMEM;

    for (size_t i = 0; r == 0 && i < at; i++)
        if (disk->changes[i].kind == SYNC)
            left[disk->changes[i].node].synced = i;
    for (size_t i = 0; r == 0 && i < at; i++) {
        const struct change *change = &disk->changes[i];
        struct left *node = &left[change->node];
        bool synced = i < node->synced;

        if (change->kind == WRITE)
            write_left(node, change, synced, i + 1 == at, variant, &draw);
        else if (change->kind == TRUNCATE &&
                 (synced || variant == POWER_ALL || variant == POWER_TORN || (variant && philox_below(&draw, 2))))
            cut(node, change->n);
        else if (change->kind >= CREATE)
            apply_names(left, change, i < left[change->dir].synced || i < cutoff);
    }
    for (uint32_t i = 1; r == 0 && i < disk->nodes; i++)        /* a directory is made before what is in it */
        r = put_on_disk(left, i, into);
    for (uint32_t i = 0; left && i < disk->nodes; i++)
        free(left[i].bytes);
    free(left);
    return r;
}
