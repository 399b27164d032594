#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "base/fault.h"
#include "serve/fetch_internal.h"

static void close_file(struct fetch *f)
{
    if (f->fd >= 0)
        close(f->fd);
    f->fd = -1;
}

void fetch_disk_let_go(struct fetch *f)
{
    close_file(f);
    if (f->lock >= 0)
        close(f->lock);
    f->lock = -1;
}

/* The manifest is there: which files, and how much of each. */
static int list_files(struct fetch *f)
{
    uint64_t missing = 0;
    int r;

    manifest_release(&f->manifest);
    r = manifest_read(f->dir, &f->manifest, &f->error);
    if (r < 0)
        return r;
    f->n_files = 0;
    for (size_t i = 0; i < f->manifest.n_files; i++) {
        const struct manifest_file *file = &f->manifest.files[i];
        char path[VERSION_PATH + 136];
        struct stat st;

        if (!version_file_is_served(file->name))
            continue;
        if (f->n_files == PULL_FILES)
            return error_set(&f->error, E2BIG, "%s: more than %d files in a version", f->dir, PULL_FILES);
        snprintf(path, sizeof path, "%s/%s", f->dir, file->name);
        f->files[f->n_files] = (struct pull_file) {.name = file->name, .size = file->size, .sized = true,
                                                   .have = lstat(path, &st) == 0 ? (uint64_t)st.st_size : 0};
        missing += file->size - MIN(f->files[f->n_files].have, file->size);
        memcpy(f->digests[f->n_files++], file->sha256, SHA256_SIZE);
    }
    return cache_has_room(&f->cache, missing, &f->error);
}

/* Is it here? If not: what is to be brought. */
static int look(struct fetch *f)
{
    char path[VERSION_PATH + 16];
    uint8_t found[SHA256_SIZE];
    int r;

    fetch_disk_let_go(f);
    r = cache_find(&f->cache, f->now.kind, f->now.number, f->now.digest, f->dir);
    if (r < 0)
        return error_set(&f->error, -r, "%s: %s", f->cache.dir, strerror(-r));
    f->whole = r == 1;
    if (f->whole) {
        r = cache_base_of(f->dir, f->now.kind, &f->base.kind, &f->base.number, f->base.digest, &f->error);
        f->has_base = r == 1;
        if (r == 0)                     /* all is here; only now is it known which bases are needed */
            cache_retain(&f->cache, (int)f->kind, f->keep, f->n_keep);
        return MIN(r, 0);
    }
    r = cache_begin(&f->cache, f->now.kind, f->now.number, f->now.digest, f->dir, &f->lock, &f->error);
    if (r < 0)
        return r;
    snprintf(path, sizeof path, "%s/manifest.json", f->dir);
    f->for_manifest = sha256_file(path, found) < 0 || memcmp(found, f->now.digest, SHA256_SIZE);
    if (!f->for_manifest)
        return list_files(f);
    f->files[0] = (struct pull_file) {.name = "manifest.json"};
    memcpy(f->digests[0], f->now.digest, SHA256_SIZE);
    f->n_files = 1;
    return 0;
}

/* The file that a chunk belongs to, cut to its offset; what lies before it counts for the digest. */
static int open_at(struct fetch *f, const struct chunk *chunk)
{
    char path[VERSION_PATH + 136], *block;
    uint64_t done = 0;
    ssize_t n = 0;

    if (f->fd >= 0 && f->fd_file == chunk->file && f->fd_offset == chunk->offset)
        return 0;
    close_file(f);
    snprintf(path, sizeof path, "%s/%s", f->dir, f->files[chunk->file].name);
    f->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (f->fd < 0 || ftruncate(f->fd, (off_t)chunk->offset) < 0)
        return -errno;
    sha256_init(&f->sha);
    block = malloc(FETCH_MIB);
    if (!block)
        return -ENOMEM;
    while (done < chunk->offset && (n = pread(f->fd, block, (size_t)MIN(chunk->offset - done, (uint64_t)FETCH_MIB),
                                              (off_t)done)) > 0) {
        sha256_add(&f->sha, block, (size_t)n);
        done += (uint64_t)n;
    }
    free(block);
    f->fd_file = chunk->file;
    f->fd_offset = chunk->offset;
    return n < 0 ? -EIO : 0;
}

static int write_chunk(struct fetch *f)
{
    const struct chunk *chunk = f->write.chunk;
    uint8_t digest[SHA256_SIZE];
    size_t done = 0;
    int r = open_at(f, chunk);

    if (r == 0)
        r = fault_errno("pull.write");
    if (r < 0)
        return r;
    while (done < chunk->n) {
        ssize_t n = pwrite(f->fd, chunk->bytes + done, chunk->n - done, (off_t)(chunk->offset + done));

        if (n < 0)
            return -errno;
        done += (size_t)n;
    }
    if (chunk->n > 0)
        sha256_add(&f->sha, chunk->bytes, chunk->n);
    f->fd_offset += chunk->n;
    if (!f->write.last)
        return 0;
    sha256_end(&f->sha, digest);
    close_file(f);
    return memcmp(digest, f->digests[chunk->file], SHA256_SIZE) ? -EBADMSG : 0;
}

static int commit(struct fetch *f)
{
    int r;

    close_file(f);
    r = cache_commit(&f->cache, f->now.kind, f->now.number, f->dir, &f->error);
    fetch_disk_let_go(f);
    return r;
}

void fetch_disk_work(struct fetch *f)
{
    f->error.text[0] = '\0';
    switch (f->step) {
    case STEP_LOOK: f->result = look(f); break;
    case STEP_WRITE: f->result = write_chunk(f); break;
    case STEP_COMMIT: f->result = commit(f); break;
    }
}

static bool drop_if_damaged(struct fetch *f, const struct target *target)
{
    struct manifest manifest = {0};
    char dir[VERSION_PATH];
    bool damaged = version_path(f->cache.dir, target->kind, target->number, dir) < 0 || manifest_read(dir, &manifest, NULL) < 0 ||
                   memcmp(manifest.digest, target->digest, SHA256_SIZE) ||
                   manifest_verify(dir, &manifest, version_file_is_served, NULL) < 0;

    manifest_release(&manifest);
    if (damaged)
        cache_remove(&f->cache, target->kind, target->number);
    return damaged;
}

bool fetch_damaged(struct fetch *f, uint64_t version, const uint8_t digest[SHA256_SIZE])
{
    struct target wanted = {.kind = (int)f->kind, .number = version}, base;
    char dir[VERSION_PATH];
    bool damaged = false;

    memcpy(wanted.digest, digest, SHA256_SIZE);
    if (version_path(f->cache.dir, wanted.kind, version, dir) == 0 &&
        cache_base_of(dir, wanted.kind, &base.kind, &base.number, base.digest, NULL) == 1)
        damaged = drop_if_damaged(f, &base);
    return drop_if_damaged(f, &wanted) || damaged;
}
