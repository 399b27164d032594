#include "sim/suites/libero/model.h"

#include <errno.h>
#include <mujoco/mjxmacro.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/atomic_file.h"
#include "base/sha256.h"
#include "sim/suites/libero/xml.h"

enum { MAX_TEXTURES = 4096, MAX_FILES = 4096, ARENA_MB = 24 };
static const size_t region_size = (size_t)2047 << 20;   /* mjModel.tex_adr is an int */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* ---- pictures, once per process ---------------------------------------------------------------------- */

static struct {
    mjtByte *base;              /* reserved address space; pages appear when written */
    size_t used;
    struct { uint8_t digest[SHA256_SIZE]; size_t offset, size; } pictures[MAX_TEXTURES];
    int count;
} pool;

/* Offset of the bytes with this digest in the pool. -ENOENT: not there. */
static int64_t pool_find(const uint8_t digest[SHA256_SIZE], size_t size)
{
    for (int i = 0; i < pool.count; i++)
        if (pool.pictures[i].size == size && memcmp(pool.pictures[i].digest, digest, SHA256_SIZE) == 0)
            return (int64_t)pool.pictures[i].offset;
    return -ENOENT;
}

static int64_t pool_add(const uint8_t digest[SHA256_SIZE], const void *bytes, size_t size)
{
    int64_t offset = pool_find(digest, size);

    if (offset >= 0)
        return offset;
    if (!pool.base) {
        void *base = mmap(NULL, region_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

        if (base == MAP_FAILED)
            return -ENOMEM;
        pool.base = base;
    }
    if (pool.count == MAX_TEXTURES || size > region_size - pool.used)
        return -ENOMEM;
    memcpy(pool.base + pool.used, bytes, size);
    memcpy(pool.pictures[pool.count].digest, digest, SHA256_SIZE);
    pool.pictures[pool.count].offset = pool.used;
    pool.pictures[pool.count++].size = size;
    offset = (int64_t)pool.used;
    pool.used += (size + 63) & ~(size_t)63;
    return offset;
}

/* What is kept of a texture while its model is stripped. */
struct texture {
    uint8_t digest[SHA256_SIZE];        /* of its bytes */
    int32_t width, height;
};

static size_t texture_size(const mjModel *model, int i)
{
    return (size_t)model->tex_width[i] * (size_t)model->tex_height[i] * (size_t)model->tex_nchannel[i];
}

/* ---- key ------------------------------------------------------------------------------------------------ */

/* Files' digests, remembered while size and time of change stay: 40 tasks share most of their files. */
static struct { char *path; int64_t size; struct timespec changed; uint8_t digest[SHA256_SIZE]; } known[MAX_FILES];
static int n_known;

static int file_digest(const char *path, uint8_t ret_digest[SHA256_SIZE], struct error *error)
{
    struct stat st;
    int i, r;

    if (stat(path, &st) < 0)
        return error_set(error, errno, "%s: %s", path, strerror(errno));
    for (i = 0; i < n_known; i++)
        if (strcmp(known[i].path, path) == 0)
            break;
    if (i == n_known || known[i].size != st.st_size || memcmp(&known[i].changed, &st.st_mtim, sizeof(st.st_mtim)) != 0) {
        r = sha256_file(path, ret_digest);
        if (r < 0)
            return error_set(error, -r, "%s: %s", path, strerror(-r));
        if (i == n_known && (n_known == MAX_FILES || !(known[i].path = strdup(path))))
            return 0;           /* not remembered */
        n_known += i == n_known;
        known[i].size = st.st_size;
        known[i].changed = st.st_mtim;
        memcpy(known[i].digest, ret_digest, SHA256_SIZE);
    }
    memcpy(ret_digest, known[i].digest, SHA256_SIZE);
    return 0;
}

/* Digest of the MJCF with every file="..." replaced by the digest of what is in the file. */
static int make_key(const struct strbuf *xml, char ret_key[SHA256_HEX], struct error *error)
{
    static const char mark[] = " file=\"";
    const char *at = xml->text, *found;
    uint8_t digest[SHA256_SIZE];
    struct sha256 sum;
    int version = mj_version(), r;

    sha256_init(&sum);
    sha256_add(&sum, "gantry libero 1", 15);
    sha256_add(&sum, &version, sizeof(version));
    while ((found = strstr(at, mark))) {
        const char *from = found + sizeof(mark) - 1, *to = strchr(from, '"');
        _cleanup_free_ char *path = strndup(from, (size_t)(to - from));

        if (!path)
            return error_set(error, ENOMEM, "out of memory");
        xml_unescape(path);
        r = file_digest(path, digest, error);
        if (r < 0)
            return r;
        sha256_add(&sum, at, (size_t)(from - at));
        sha256_add(&sum, digest, sizeof(digest));
        at = to;
    }
    sha256_add(&sum, at, strlen(at));
    sha256_end(&sum, digest);
    sha256_hex(digest, ret_key);
    return 0;
}

/* ---- compiling, stripping, loading ----------------------------------------------------------------------- */

/* Bytes of mjModel.buffer for these sizes: MuJoCo lays its arrays out in macro order, each on a multiple of 64. An MJB whose
 * nbuffer says otherwise is refused. */
static size_t buffer_size(const mjModel *m)
{
    size_t offset = 0;

    MJMODEL_POINTERS_PREAMBLE(m)
#define X(type, name, nr, nc) offset = ((offset + 63) & ~(size_t)63) + sizeof(type) * (size_t)(m->nr) * (size_t)(nc);
    MJMODEL_POINTERS
#undef X
    return offset;
}

/* Every texture's bytes into the pool. */
static int pool_textures(const mjModel *model, struct texture *ret)
{
    for (int i = 0; i < model->ntex; i++) {
        const mjtByte *bytes = model->tex_data + model->tex_adr[i];
        int64_t offset;

        sha256_of(bytes, texture_size(model, i), ret[i].digest);
        ret[i].width = model->tex_width[i];
        ret[i].height = model->tex_height[i];
        offset = pool_add(ret[i].digest, bytes, texture_size(model, i));
        if (offset < 0)
            return (int)offset;
    }
    return 0;
}

/* The model as an MJB whose textures have no pixels. Caller frees. */
static int strip(const mjModel *model, void **ret_mjb, int *ret_size)
{
    _cleanup_free_ int *none = calloc((size_t)model->ntex + 1, sizeof(int));
    mjModel without = *model;
    void *mjb;
    int size;

    if (buffer_size(model) != (size_t)model->nbuffer)
        return -ENOTSUP;        /* another MuJoCo */
    if (!none)
        return -ENOMEM;
    without.ntexdata = 1;       /* an address must lie inside */
    without.tex_adr = without.tex_width = without.tex_height = none;
    without.nbuffer = (typeof(without.nbuffer))buffer_size(&without);
    size = mj_sizeModel(&without);
    mjb = malloc((size_t)size);
    if (!mjb)
        return -ENOMEM;
    mj_saveModel(&without, NULL, mjb, size);
    *ret_mjb = mjb;
    *ret_size = size;
    return 0;
}

static mjModel *load_mjb(const void *mjb, int size)
{
    mjVFS vfs;
    mjModel *model = NULL;

    mujoco_handlers();
    mj_defaultVFS(&vfs);
    if (mj_addBufferVFS(&vfs, "model.mjb", mjb, size) == 0)
        model = mj_loadModel("model.mjb", &vfs);
    mj_deleteVFS(&vfs);
    return model;
}

/* Point the stripped model at its pictures in the pool. -ENOENT: one is not there. */
static int join(mjModel *model, const struct texture *textures)
{
    for (int i = 0; i < model->ntex; i++) {
        int64_t offset;

        model->tex_width[i] = textures[i].width;
        model->tex_height[i] = textures[i].height;
        offset = pool_find(textures[i].digest, texture_size(model, i));
        if (offset < 0)
            return (int)offset;
        model->tex_adr[i] = (int)offset;
    }
    model->tex_data = pool.base;
    model->ntexdata = (int)region_size;
    model->narena = (size_t)ARENA_MB << 20;
    return 0;
}

/* ---- disk ------------------------------------------------------------------------------------------------- */

static void texture_path(const char *cache, const uint8_t digest[SHA256_SIZE], char *ret, size_t n)
{
    char hex[SHA256_HEX];

    sha256_hex(digest, hex);
    snprintf(ret, n, "%s/textures/%s", cache, hex);
}

/* How an entry begins. Behind it: one struct texture per texture, then the MJB. */
struct entry {
    char magic[8];
    uint32_t n_textures;
    uint32_t zero;
    uint8_t digest[SHA256_SIZE];        /* of all that follows */
};
static const char entry_magic[8] = "gantryM1";

/* Whole or not at all, but not durable: a cache may lose its last entry to a power cut, and digests tell. */
static int write_entry(const char *path, const void *bytes, size_t n)
{
    _cleanup_free_ char *temporary = NULL;
    FILE *file;
    bool whole;

    if (asprintf(&temporary, "%s.%d", path, (int)getpid()) < 0)
        return -ENOMEM;
    file = fopen(temporary, "we");
    if (!file)
        return -errno;
    whole = fwrite(bytes, 1, n, file) == n;
    if (fclose(file) != 0 || !whole || rename(temporary, path) < 0) {
        unlink(temporary);
        return -EIO;
    }
    return 0;
}

/* A cache that cannot be written is no error: the next start compiles again. */
static void store(const char *cache, const char *key, const mjModel *model, const struct texture *textures, const void *mjb,
                  int size)
{
    _cleanup_(strbuf_release) struct strbuf all = STRBUF_INIT;
    struct entry head = { .n_textures = (uint32_t)model->ntex };
    char path[4096];
    struct stat st;

    snprintf(path, sizeof(path), "%s/textures", cache);
    if (mkdir_p(path, 0755) < 0)
        return;
    for (int i = 0; i < model->ntex; i++) {
        texture_path(cache, textures[i].digest, path, sizeof(path));
        if (stat(path, &st) == 0 && st.st_size == (off_t)texture_size(model, i))
            continue;
        if (write_entry(path, model->tex_data + model->tex_adr[i], texture_size(model, i)) < 0)
            return;
    }
    memcpy(head.magic, entry_magic, sizeof(entry_magic));
    strbuf_add(&all, &head, sizeof(head));
    strbuf_add(&all, textures, sizeof(*textures) * (size_t)model->ntex);
    strbuf_add(&all, mjb, (size_t)size);
    if (all.failed)
        return;
    sha256_of(all.text + sizeof(head), all.length - sizeof(head), head.digest);
    memcpy(all.text, &head, sizeof(head));
    snprintf(path, sizeof(path), "%s/%s.mjb", cache, key);
    write_entry(path, all.text, all.length);
}

static int fetch_texture(const char *cache, const uint8_t digest[SHA256_SIZE], size_t size)
{
    _cleanup_free_ char *bytes = NULL;
    uint8_t found[SHA256_SIZE];
    char path[4096];
    size_t n;
    int64_t offset;
    int r;

    if (pool_find(digest, size) >= 0)
        return 0;
    texture_path(cache, digest, path, sizeof(path));
    r = file_read(path, size, &bytes, &n);
    if (r < 0)
        return r;
    sha256_of(bytes, n, found);
    if (n != size || memcmp(found, digest, SHA256_SIZE) != 0) {
        (void)unlink(path);     /* store() keeps a file of the right size: this one would be met at every start */
        return -EBADMSG;
    }
    offset = pool_add(digest, bytes, n);
    return offset < 0 ? (int)offset : 0;
}

/* The textures' bytes from the pool or from disk; then the model may use them. */
static int fetch_textures(const char *cache, mjModel *model, const struct texture *textures, uint32_t n)
{
    int r = (uint32_t)model->ntex == n ? 0 : -EBADMSG;

    for (int i = 0; i < model->ntex && r == 0; i++) {
        if (textures[i].width < 0 || textures[i].height < 0)
            return -EBADMSG;
        r = fetch_texture(cache, textures[i].digest,
                          (size_t)textures[i].width * (size_t)textures[i].height * (size_t)model->tex_nchannel[i]);
    }
    return r < 0 ? r : join(model, textures);
}

/* NULL: not there, or not whole. */
static mjModel *load(const char *cache, const char *key)
{
    _cleanup_free_ char *bytes = NULL;
    uint8_t digest[SHA256_SIZE];
    struct entry head;
    mjModel *model;
    char path[4096];
    size_t n, from;

    snprintf(path, sizeof(path), "%s/%s.mjb", cache, key);
    if (file_read(path, (size_t)1 << 30, &bytes, &n) < 0 || n < sizeof(head))
        return NULL;
    memcpy(&head, bytes, sizeof(head));
    from = sizeof(head) + (size_t)head.n_textures * sizeof(struct texture);
    if (memcmp(head.magic, entry_magic, sizeof(entry_magic)) != 0 || head.n_textures > MAX_TEXTURES || n <= from)
        return NULL;
    sha256_of(bytes + sizeof(head), n - sizeof(head), digest);
    if (memcmp(digest, head.digest, sizeof(digest)) != 0)
        return NULL;
    model = load_mjb(bytes + from, (int)(n - from));
    if (model && fetch_textures(cache, model, (const struct texture *)(void *)(bytes + sizeof(head)), head.n_textures) < 0) {
        mj_deleteModel(model);
        model = NULL;
    }
    return model;
}

/* Compiled, then loaded again without the pixels: those of the pool take their place. */
static int compile_stripped(const struct strbuf *xml, const char *name, mjModel **ret, struct texture **ret_textures,
                            void **ret_mjb, int *ret_size, struct error *error)
{
    const struct mujoco_file file = { "scene.xml", xml->text };
    _cleanup_free_ struct texture *textures = NULL;
    _cleanup_free_ void *mjb = NULL;
    mjModel *whole, *model = NULL;
    int r = mujoco_compile(&file, 1, &whole, error);

    if (r < 0)
        return error_prefix(error, r, "%s", name);
    textures = calloc((size_t)whole->ntex + 1, sizeof(*textures));
    r = textures ? pool_textures(whole, textures) : -ENOMEM;
    if (r == 0)
        r = strip(whole, &mjb, ret_size);
    mj_deleteModel(whole);
    if (r == 0) {
        model = load_mjb(mjb, *ret_size);
        r = model ? join(model, textures) : -ENOTSUP;
    }
    if (r < 0 && model)
        mj_deleteModel(model);
    if (r == -ENOTSUP)
        return error_set(error, ENOTSUP, "%s: MuJoCo %s lays its models out in another way; 3.3.2 is needed", name,
                         mj_versionString());
    if (r < 0)
        return error_set(error, -r, "%s: out of memory for its model or its textures (2 GB at most)", name);
    *ret = model;
    *ret_textures = TAKE_PTR(textures);
    *ret_mjb = TAKE_PTR(mjb);
    return 0;
}

static int compile_and_store(const char *cache, const char *key, const struct strbuf *xml, const char *name, mjModel **ret,
                             struct error *error)
{
    _cleanup_free_ struct texture *textures = NULL;
    _cleanup_free_ void *mjb = NULL;
    int size, r = compile_stripped(xml, name, ret, &textures, &mjb, &size, error);

    if (r == 0 && cache && *cache)
        store(cache, key, *ret, textures, mjb, size);
    return r;
}

int model_open(const struct libero_assets *assets, const struct bddl_problem *problem, const char *cache, mjModel **ret,
               struct error *error)
{
    _cleanup_(strbuf_release) struct strbuf xml = STRBUF_INIT;
    char key[SHA256_HEX] = "";
    mjModel *model = NULL;
    int r = scene_compose(assets, problem, &xml, error);

    if (r < 0)
        return r;
    pthread_mutex_lock(&lock);
    r = make_key(&xml, key, error);
    if (r == 0 && cache && *cache)
        model = load(cache, key);
    if (r == 0 && !model)
        r = compile_and_store(cache, key, &xml, problem->file, &model, error);
    pthread_mutex_unlock(&lock);
    if (r == 0)
        *ret = model;
    return r;
}

void model_close(mjModel *model)
{
    if (model)
        mj_deleteModel(model);
}
