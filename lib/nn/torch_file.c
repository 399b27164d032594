/* torch_file.c - the pickle's tree into tensors: which calls are known, and what each argument must be.
 *
 *   _rebuild_tensor_v2(storage, offset, size, stride, requires_grad, hooks [, metadata])
 *   _rebuild_parameter(tensor, requires_grad, hooks)
 *   storage = persistent id ("storage", torch.FloatStorage, key, device, values): the entry PREFIX/data/KEY */
#include "nn/torch_file.h"

#include <errno.h>
#include <stdio.h>

#include "base/pickle.h"
#include "base/strbuf.h"
#include "base/zip.h"

enum { PICKLE_LIMIT = 16 << 20, DEPTH_LIMIT = 8, TENSOR_LIMIT = 1 << 20, NAMES_LIMIT = 64 << 20 };
static const size_t dense_limit = (size_t)1 << 32;      /* of memory for views, all together */
static const char pickle_name[] = "/data.pkl";

enum tag { TAG_DICT = 1, TAG_TENSOR, TAG_PARAMETER, TAG_STORAGE };      /* storages: TAG_STORAGE + dtype */

struct torch_file {
    struct zip_archive *zip;
    char *prefix;                       /* "archive", the folder of all entries */
    struct st_tensor *list; int n;
    struct storage {
        const uint8_t *bytes;
        size_t n;
    } * storages;                       /* by entry: read and checked once, however many share it */
    void **memory; int n_memory;        /* unpacked entries, dense copies */
    size_t dense;                       /* bytes of copies */
    size_t names;                       /* bytes of the names so far: a dict may be in many places */
};

static int allow(const char *module, const char *name)
{
    static const struct { const char *module, *name; int tag; } known[] = {
        {"collections", "OrderedDict", TAG_DICT},
        {"torch._utils", "_rebuild_tensor_v2", TAG_TENSOR},
        {"torch._utils", "_rebuild_parameter", TAG_PARAMETER},
        {"torch", "FloatStorage", TAG_STORAGE + DTYPE_F32},
        {"torch", "HalfStorage", TAG_STORAGE + DTYPE_F16},
        {"torch", "BFloat16Storage", TAG_STORAGE + DTYPE_BF16},
        {"torch", "DoubleStorage", TAG_STORAGE + DTYPE_F64},
        {"torch", "LongStorage", TAG_STORAGE + DTYPE_I64},
        {"torch", "IntStorage", TAG_STORAGE + DTYPE_I32},
        {"torch", "ShortStorage", TAG_STORAGE + DTYPE_I16},
        {"torch", "CharStorage", TAG_STORAGE + DTYPE_I8},
        {"torch", "ByteStorage", TAG_STORAGE + DTYPE_U8},
        {"torch", "BoolStorage", TAG_STORAGE + DTYPE_BOOL},
    };

    for (size_t i = 0; i < ARRAY_SIZE(known); i++)
        if (!strcmp(module, known[i].module) && !strcmp(name, known[i].name))
            return known[i].tag;
    return -EPERM;
}

static const char *kind_name(const struct pickle_value *value)
{
    static const char *const names[] = {
        [PICKLE_NONE] = "None", [PICKLE_BOOL] = "a bool", [PICKLE_INT] = "a number", [PICKLE_FLOAT] = "a number",
        [PICKLE_TEXT] = "text", [PICKLE_BYTES] = "bytes", [PICKLE_TUPLE] = "a tuple", [PICKLE_LIST] = "a list",
        [PICKLE_SET] = "a set", [PICKLE_DICT] = "a dict", [PICKLE_GLOBAL] = "a name", [PICKLE_CALL] = "a call",
        [PICKLE_PERSISTENT] = "a storage",
    };

    return value ? names[value->kind] : "nothing";
}

static int keep(struct torch_file *file, void *memory)
{
    void **grown = memory ? reallocarray(file->memory, (size_t)file->n_memory + 1, sizeof(*grown)) : file->memory;

    if (memory && !grown) {
        free(memory);
        return -ENOMEM;
    }
    file->memory = grown;
    if (memory)
        file->memory[file->n_memory++] = memory;
    return 0;
}

static bool is_dict(const struct pickle_value *value)
{
    return value && (value->kind == PICKLE_DICT || (value->kind == PICKLE_CALL && value->tag == TAG_DICT));
}

/* ---- one tensor -------------------------------------------------------------------------------------- */

static int read_sizes(const struct pickle_value *tuple, int64_t *ret, int *ret_n)
{
    if (!tuple || tuple->kind != PICKLE_TUPLE || tuple->count > 8)
        return -EINVAL;
    for (size_t i = 0; i < tuple->count; i++) {
        if (tuple->items[i]->kind != PICKLE_INT || tuple->items[i]->integer < 0)
            return -EINVAL;
        ret[i] = tuple->items[i]->integer;
    }
    *ret_n = (int)tuple->count;
    return 0;
}

/* The bytes of a storage, and of which type they are. */
static int find_storage(struct torch_file *file, const struct pickle_value *storage, const char *name, enum dtype *ret_dtype,
                        const uint8_t **ret, size_t *ret_n, struct error *error)
{
    _cleanup_(strbuf_release) struct strbuf path = STRBUF_INIT;
    const struct pickle_value *id = storage && storage->kind == PICKLE_PERSISTENT ? storage->id : NULL;
    const struct zip_entry *entry;
    struct storage *s;

    if (!id || id->kind != PICKLE_TUPLE || id->count != 5 || !pickle_is_text(id->items[0], "storage") ||
        id->items[1]->kind != PICKLE_GLOBAL || id->items[1]->tag < TAG_STORAGE || id->items[2]->kind != PICKLE_TEXT)
        return error_set(error, EINVAL, "%s: tensor %s: found %s, expected a storage (\"storage\", type, key, device, size)",
                         file->zip->path, name, kind_name(storage));
    strbuf_addf(&path, "%s/data/%.*s", file->prefix, (int)MIN(id->items[2]->text.length, (size_t)64), id->items[2]->text.bytes);
    entry = path.failed ? NULL : zip_find(file->zip, path.text);
    if (!entry)
        return error_set(error, ENOENT, "%s: tensor %s: its storage %s is not in the archive", file->zip->path, name, path.text);
    s = &file->storages[entry - file->zip->entries];
    if (!s->bytes) {
        void *memory = NULL;
        int r = zip_read(file->zip, entry, SIZE_MAX, &s->bytes, &s->n, &memory, error);

        if (r >= 0 && keep(file, memory) < 0)
            r = error_set(error, ENOMEM, "out of memory");
        if (r < 0)
            return r;
    }
    *ret_dtype = (enum dtype)(id->items[1]->tag - TAG_STORAGE);
    *ret = s->bytes;
    *ret_n = s->n;
    return 0;
}

static bool is_dense(const struct st_tensor *t, const int64_t *stride)
{
    int64_t next = 1;

    for (int d = t->ndim - 1; d >= 0; d--) {
        if (t->dim[d] != 1 && stride[d] != next)
            return false;
        next *= t->dim[d];
    }
    return true;
}

static int make_dense(struct torch_file *file, struct st_tensor *t, const uint8_t *first, const int64_t *stride)
{
    size_t width = dtype_size(t->dtype);
    int64_t at[8] = {0};
    uint8_t *copy;

    if (t->bytes > dense_limit - file->dense)
        return -EFBIG;
    copy = malloc(t->bytes);
    if (!copy || keep(file, copy) < 0)
        return -ENOMEM;
    file->dense += t->bytes;
    for (int64_t i = 0; i < t->numel; i++) {
        int64_t from = 0;

        for (int d = 0; d < t->ndim; d++)
            from += at[d] * stride[d];
        memcpy(copy + (size_t)i * width, first + (size_t)from * width, width);
        for (int d = t->ndim - 1; d >= 0 && ++at[d] == t->dim[d]; d--)
            at[d] = 0;
    }
    t->data = copy;
    return 0;
}

/* Elements from the first to the last one touched, plus where the first is; -ERANGE beyond 2^62. */
static int extent(const struct st_tensor *t, const int64_t *stride, int64_t offset, int64_t *ret)
{
    int64_t end = offset;

    if (offset > INT64_MAX / 16)
        return -ERANGE;
    for (int d = 0; d < t->ndim; d++) {
        int64_t reach;

        if (__builtin_mul_overflow(t->dim[d] - 1, stride[d], &reach) || __builtin_add_overflow(end, reach, &end) ||
            end > INT64_MAX / 16)
            return -ERANGE;
    }
    *ret = end + 1;
    return 0;
}

static int rebuild(struct torch_file *file, const struct pickle_value *call, const char *name, struct st_tensor *t,
                   struct error *error)
{
    const struct pickle_value *const *args = call->call.arguments->items;
    size_t n_args = call->call.arguments->count, n_bytes = 0;
    int64_t stride[8], offset, end;
    const uint8_t *bytes = NULL;
    int n_strides, r;

    if (call->tag == TAG_PARAMETER && n_args >= 1 && args[0]->kind == PICKLE_CALL && args[0]->tag == TAG_TENSOR)
        return rebuild(file, args[0], name, t, error);
    if (call->tag != TAG_TENSOR || n_args < 6 || n_args > 7 || args[1]->kind != PICKLE_INT || args[1]->integer < 0 ||
        read_sizes(args[2], t->dim, &t->ndim) < 0 || read_sizes(args[3], stride, &n_strides) < 0 || n_strides != t->ndim)
        return error_set(error, EINVAL, "%s: tensor %s: expected a storage, an offset, sizes and as many strides",
                         file->zip->path, name);
    r = find_storage(file, args[0], name, &t->dtype, &bytes, &n_bytes, error);
    if (r < 0)
        return r;
    offset = args[1]->integer;
    t->numel = 1;
    for (int d = 0; d < t->ndim; d++)
        if (__builtin_mul_overflow(t->numel, t->dim[d], &t->numel) || t->numel > INT64_MAX / 16)
            return error_set(error, EINVAL, "%s: tensor %s: shape is too large", file->zip->path, name);
    t->bytes = (size_t)t->numel * dtype_size(t->dtype);
    t->data = bytes;
    if (t->numel == 0)
        return 0;
    if (extent(t, stride, offset, &end) < 0 || (uint64_t)end > n_bytes / dtype_size(t->dtype))
        return error_set(error, EINVAL, "%s: tensor %s: reaches beyond its storage of %zu bytes", file->zip->path, name, n_bytes);
    t->data = bytes + (size_t)offset * dtype_size(t->dtype);
    r = is_dense(t, stride) ? 0 : make_dense(file, t, t->data, stride);
    return r < 0 ? error_set(error, -r, "%s: tensor %s: %s", file->zip->path, name, strerror(-r)) : 0;
}

/* ---- all of them --------------------------------------------------------------------------------------- */

static int add(struct torch_file *file, const struct pickle_value *call, const char *name, struct error *error)
{
    struct st_tensor *grown = reallocarray(file->list, (size_t)file->n + 1, sizeof(*grown));

    if (!grown)
        return error_set(error, ENOMEM, "out of memory");
    file->list = grown;
    file->list[file->n] = (struct st_tensor) {.name = strdup(name)};
    if (!file->list[file->n++].name)
        return error_set(error, ENOMEM, "out of memory");
    if (file->n > TENSOR_LIMIT)
        return error_set(error, EFBIG, "%s: more than %d tensors", file->zip->path, TENSOR_LIMIT);
    return rebuild(file, call, name, &file->list[file->n - 1], error);
}

static int walk(struct torch_file *file, const struct pickle_value *dict, const char *prefix, int depth, struct error *error)
{
    if (depth > DEPTH_LIMIT)
        return error_set(error, EINVAL, "%s: %s: more than %d dicts in one another", file->zip->path, prefix, DEPTH_LIMIT);
    for (size_t i = 0; i + 1 < dict->count; i += 2) {
        const struct pickle_value *key = dict->items[i], *value = dict->items[i + 1];
        _cleanup_(strbuf_release) struct strbuf name = STRBUF_INIT;
        int r;

        if (key->kind != PICKLE_TEXT)
            return error_set(error, EINVAL, "%s: %s: found %s as a key, expected text", file->zip->path, prefix, kind_name(key));
        strbuf_addf(&name, "%s%s%.*s", prefix, *prefix ? "." : "", (int)MIN(key->text.length, (size_t)4096), key->text.bytes);
        if (name.failed)
            return error_set(error, ENOMEM, "out of memory");
        file->names += name.length + 1;
        if (file->names > NAMES_LIMIT)
            return error_set(error, EFBIG, "%s: names of more than %d MB", file->zip->path, NAMES_LIMIT >> 20);
        if (is_dict(value))
            r = walk(file, value, name.text, depth + 1, error);
        else if (value->kind == PICKLE_CALL)
            r = add(file, value, name.text, error);
        else
            r = error_set(error, EINVAL, "%s: %s: found %s, expected a tensor", file->zip->path, name.text, kind_name(value));
        if (r < 0)
            return r;
    }
    return 0;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static int check_unique(const struct torch_file *file, struct error *error)
{
    _cleanup_free_ const char **names = calloc((size_t)file->n + 1, sizeof(*names));

    if (!names)
        return error_set(error, ENOMEM, "out of memory");
    for (int i = 0; i < file->n; i++)
        names[i] = file->list[i].name;
    qsort(names, (size_t)file->n, sizeof(*names), by_name);
    for (int i = 1; i < file->n; i++)
        if (!strcmp(names[i - 1], names[i]))
            return error_set(error, EINVAL, "%s: tensor %s is there twice", file->zip->path, names[i]);
    return 0;
}

static void strip_module(struct torch_file *file)
{
    static const char prefix[] = "module.";
    const size_t n = sizeof(prefix) - 1;

    for (int i = 0; i < file->n; i++)
        if (strncmp(file->list[i].name, prefix, n))
            return;
    for (int i = 0; i < file->n; i++)
        memmove(file->list[i].name, file->list[i].name + n, strlen(file->list[i].name) - n + 1);
}

/* The folder that all entries lie in is called after the file torch.save was given. */
static int find_prefix(struct torch_file *file, const struct zip_entry **ret, struct error *error)
{
    size_t n_suffix = sizeof(pickle_name) - 1;

    for (int i = 0; i < file->zip->count; i++) {
        const struct zip_entry *entry = &file->zip->entries[i];
        size_t n = strlen(entry->name);

        if (n <= n_suffix || strcmp(entry->name + n - n_suffix, pickle_name) ||
            strchr(entry->name, '/') != entry->name + n - n_suffix)
            continue;
        file->prefix = strndup(entry->name, n - n_suffix);
        *ret = entry;
        return file->prefix ? 0 : error_set(error, ENOMEM, "out of memory");
    }
    return error_set(error, EINVAL, "%s: found no */data.pkl, expected a file of torch.save (1.6 or later)", file->zip->path);
}

static int check_byte_order(struct torch_file *file, struct error *error)
{
    _cleanup_(strbuf_release) struct strbuf path = STRBUF_INIT;
    const struct zip_entry *entry;
    _cleanup_free_ void *memory = NULL;
    const uint8_t *bytes;
    size_t n;
    int r;

    strbuf_addf(&path, "%s/byteorder", file->prefix);
    entry = zip_find(file->zip, path.text);
    if (!entry)
        return 0;       /* torch before 2.1: little */
    r = zip_read(file->zip, entry, 64, &bytes, &n, &memory, error);
    if (r >= 0 && (n != 6 || memcmp(bytes, "little", 6)))
        r = error_set(error, ENOTSUP, "%s: found byte order '%.*s', expected little", file->zip->path, (int)n,
                      (const char *)bytes);
    return r;
}

static int read_archive(struct torch_file *file, struct error *error)
{
    _cleanup_(pickle_freep) struct pickle *pickle = NULL;
    _cleanup_(strbuf_release) struct strbuf source = STRBUF_INIT;
    const struct zip_entry *entry = NULL;
    _cleanup_free_ void *memory = NULL;
    const uint8_t *bytes;
    size_t n;
    int r;

    r = find_prefix(file, &entry, error);
    if (r >= 0)
        r = check_byte_order(file, error);
    if (r >= 0)
        r = zip_read(file->zip, entry, PICKLE_LIMIT, &bytes, &n, &memory, error);
    if (r < 0)
        return r;
    strbuf_addf(&source, "%s: %s", file->zip->path, entry->name);
    r = pickle_parse(bytes, n, source.text, allow, &pickle, error);
    if (r < 0)
        return r;
    if (!is_dict(pickle_root(pickle)))
        return error_set(error, EINVAL, "%s: found %s, expected a dict of tensors", source.text, kind_name(pickle_root(pickle)));
    r = walk(file, pickle_root(pickle), "", 0, error);
    if (r < 0)
        return r;
    strip_module(file);
    return check_unique(file, error);
}

static int finish(struct zip_archive *zip, struct torch_file **ret, struct error *error)
{
    _cleanup_(torch_file_closep) struct torch_file *file = calloc(1, sizeof(*file));
    int r;

    if (!file) {
        zip_close(zip);
        return error_set(error, ENOMEM, "out of memory");
    }
    file->zip = zip;
    file->storages = calloc((size_t)zip->count + 1, sizeof(*file->storages));
    r = !file->storages ? error_set(error, ENOMEM, "out of memory") : read_archive(file, error);
    if (r < 0)
        return r;
    *ret = TAKE_PTR(file);
    return 0;
}

int torch_file_open(const char *path, struct torch_file **ret, struct error *error)
{
    struct zip_archive *zip;
    int r = zip_open(path, &zip, error);

    return r < 0 ? r : finish(zip, ret, error);
}

int torch_file_parse(const char *name, const void *bytes, size_t n, struct torch_file **ret, struct error *error)
{
    struct zip_archive *zip;
    int r = zip_parse(name, bytes, n, &zip, error);

    return r < 0 ? r : finish(zip, ret, error);
}

struct torch_file *torch_file_close(struct torch_file *file)
{
    if (!file)
        return NULL;
    for (int i = 0; i < file->n; i++)
        free(file->list[i].name);
    free(file->list);
    for (int i = 0; i < file->n_memory; i++)
        free(file->memory[i]);
    free(file->memory);
    free(file->storages);
    free(file->prefix);
    zip_close(file->zip);
    free(file);
    return NULL;
}

const struct st_tensor *torch_file_tensors(const struct torch_file *file, int *ret_n)
{
    *ret_n = file->n;
    return file->list;
}
