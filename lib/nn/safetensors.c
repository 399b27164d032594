/* safetensors.c - the reader: every number in the header is checked before a tensor is handed out. */
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <jansson.h>

#include "nn/safetensors.h"

enum { HEADER_LIMIT = 100 << 20 };      /* the format's own limit, 100 MB */

static uint64_t load_u64_le(const uint8_t *p)
{
    uint64_t value = 0;

    for (int i = 7; i >= 0; i--)
        value = value << 8 | p[i];
    return value;
}

static int parse_shape(const json_t *shape, struct st_tensor *t, struct error *error)
{
    if (!json_is_array(shape) || json_array_size(shape) > ARRAY_SIZE(t->dim))
        return error_set(error, EINVAL, "tensor %s: shape must be a list of at most %zu sizes", t->name, ARRAY_SIZE(t->dim));
    t->ndim = (int)json_array_size(shape);
    t->numel = 1;
    for (int i = 0; i < t->ndim; i++) {
        const json_t *size = json_array_get(shape, (size_t)i);

        if (!json_is_integer(size) || json_integer_value(size) < 0)
            return error_set(error, EINVAL, "tensor %s: size %d is not a whole number >= 0", t->name, i);
        t->dim[i] = json_integer_value(size);
        if (__builtin_mul_overflow(t->numel, t->dim[i], &t->numel) || t->numel > INT64_MAX / 8)
            return error_set(error, EINVAL, "tensor %s: shape is too large", t->name);
    }
    return 0;
}

/* `data` is what follows the header: n bytes. */
static int parse_tensor(const char *name, const json_t *entry, const uint8_t *data, uint64_t n, struct st_tensor *t,
                        struct error *error)
{
    const json_t *offsets = json_object_get(entry, "data_offsets");
    const char *dtype = json_string_value(json_object_get(entry, "dtype"));
    json_int_t begin, end;
    int r;

    t->name = strdup(name);
    if (!t->name)
        return error_set(error, ENOMEM, "out of memory");
    if (!dtype || dtype_parse(dtype, &t->dtype) < 0)
        return error_set(error, EINVAL, "tensor %s: dtype %s is not known", name, dtype ? dtype : "(none)");
    r = parse_shape(json_object_get(entry, "shape"), t, error);
    if (r < 0)
        return r;
    if (!json_is_array(offsets) || json_array_size(offsets) != 2 || !json_is_integer(json_array_get(offsets, 0)) ||
        !json_is_integer(json_array_get(offsets, 1)))
        return error_set(error, EINVAL, "tensor %s: data_offsets must be two whole numbers", name);
    begin = json_integer_value(json_array_get(offsets, 0));
    end = json_integer_value(json_array_get(offsets, 1));
    if (begin < 0 || end < begin)
        return error_set(error, EINVAL, "tensor %s: data_offsets [%lld, %lld] are no range", name, (long long)begin, (long long)end);
    if ((uint64_t)end > n)
        return error_set(error, EINVAL, "cut short: it has %llu bytes of data, and tensor %s has data_offsets up to %lld; copy it again",
                         (unsigned long long)n, name, (long long)end);
    t->bytes = (size_t)(end - begin);
    if (t->bytes != (size_t)t->numel * dtype_size(t->dtype))
        return error_set(error, EINVAL, "tensor %s: %zu bytes, expected %zu for %lld values of %s", name, t->bytes,
                         (size_t)t->numel * dtype_size(t->dtype), (long long)t->numel, dtype);
    t->data = data + begin;
    return 0;
}

static int by_place(const void *a, const void *b)
{
    const struct st_tensor *x = a, *y = b;

    if (x->data != y->data)
        return x->data < y->data ? -1 : 1;
    if (x->bytes != y->bytes)
        return x->bytes < y->bytes ? -1 : 1;    /* empty tensors before the one that starts at the same place */
    return strcmp(x->name, y->name);
}

/* The tensors must tile the data: an overlap would alias weights, a hole would hide bytes. */
static int check_tiling(const struct safetensors *file, const uint8_t *data, uint64_t n, struct error *error)
{
    const uint8_t *next = data;

    for (int i = 0; i < file->count; i++) {
        const struct st_tensor *t = &file->list[i];

        if ((const uint8_t *)t->data != next)
            return error_set(error, EINVAL, "tensor %s: its data begin at %lld, expected %lld: they %s", t->name,
                             (long long)((const uint8_t *)t->data - data), (long long)(next - data),
                             (const uint8_t *)t->data < next ? "overlap another tensor's" : "leave a hole");
        next += t->bytes;
    }
    if (next != data + n)
        return error_set(error, EINVAL, "%llu bytes behind the last tensor", (unsigned long long)(data + n - next));
    return 0;
}

/* How the file begins that git leaves where Git LFS is not installed. */
#define LFS "version https://git-lfs"

static int parse(struct safetensors *file, struct error *error)
{
    json_error_t where;
    json_t *header, *entry;
    const char *name;
    const uint8_t *data;
    uint64_t header_bytes, data_bytes;
    int r = 0;

    if (file->size < 8)
        return error_set(error, EINVAL, "%zu bytes are too few for a header", file->size);
    if (file->size >= sizeof LFS - 1 && !memcmp(file->bytes, LFS, sizeof LFS - 1))
        return error_set(error, EINVAL, "a pointer of Git LFS, not the weights; `git lfs pull` where it was cloned brings them");
    header_bytes = load_u64_le(file->bytes);
    if (header_bytes > HEADER_LIMIT || header_bytes > file->size - 8)
        return error_set(error, EINVAL, "header of %llu bytes does not fit a file of %zu", (unsigned long long)header_bytes,
                         file->size);
    data = file->bytes + 8 + header_bytes;
    data_bytes = file->size - 8 - header_bytes;

    header = json_loadb((const char *)file->bytes + 8, header_bytes, JSON_REJECT_DUPLICATES, &where);
    if (!json_is_object(header)) {
        json_decref(header);
        return error_set(error, EINVAL, "header: %s", header ? "not an object" : where.text);
    }
    file->list = calloc(json_object_size(header) + 1, sizeof(*file->list));
    if (!file->list)
        r = error_set(error, ENOMEM, "out of memory");
    else
        json_object_foreach(header, name, entry) {
            if (!strcmp(name, "__metadata__"))
                continue;
            r = parse_tensor(name, entry, data, data_bytes, &file->list[file->count++], error);
            if (r < 0)
                break;
        }
    json_decref(header);
    if (r < 0)
        return r;
    qsort(file->list, (size_t)file->count, sizeof(*file->list), by_place);
    return check_tiling(file, data, data_bytes, error);
}

int safetensors_parse(const void *bytes, size_t n, struct safetensors **ret, struct error *error)
{
    _cleanup_(safetensors_closep) struct safetensors *file = calloc(1, sizeof(*file));
    int r;

    if (!file)
        return error_set(error, ENOMEM, "out of memory");
    file->bytes = bytes;
    file->size = n;
    r = parse(file, error);
    if (r < 0)
        return r;
    *ret = TAKE_PTR(file);
    return 0;
}

int safetensors_open(const char *path, struct safetensors **ret, struct error *error)
{
    _cleanup_(safetensors_closep) struct safetensors *file = NULL;
    _cleanup_close_ int fd = -1;
    struct stat st;
    void *map;
    int r;

    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) < 0)
        return error_set(error, errno, "%s: %s", path, strerror(errno));
    if (!S_ISREG(st.st_mode) || st.st_size < 8)
        return error_set(error, EINVAL, "%s: not a safetensors file: %s", path,
                         S_ISREG(st.st_mode) ? "too short for a header" : "not a regular file");
    file = calloc(1, sizeof(*file));
    if (!file || !(file->path = strdup(path)))
        return error_set(error, ENOMEM, "out of memory");
    /* Private and writable: a model that keeps its matrices here may merge adapters into them, page by page its own. */
    map = mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE, fd, 0);
    if (map == MAP_FAILED)
        return error_set(error, errno, "%s: mmap: %s", path, strerror(errno));
    file->bytes = map;
    file->size = (size_t)st.st_size;
    file->mapped = true;
    r = parse(file, error);
    if (r < 0)
        return error_prefix(error, r, "%s", path);
    *ret = TAKE_PTR(file);
    return 0;
}

struct safetensors *safetensors_close(struct safetensors *file)
{
    if (!file)
        return NULL;
    for (int i = 0; i < file->count; i++)
        free(file->list[i].name);
    free(file->list);
    free(file->path);
    if (file->mapped)
        munmap((void *)(uintptr_t)file->bytes, file->size);
    free(file);
    return NULL;
}

const struct st_tensor *safetensors_find(const struct safetensors *file, const char *name)
{
    for (int i = 0; i < file->count; i++)
        if (!strcmp(file->list[i].name, name))
            return &file->list[i];
    return NULL;
}
