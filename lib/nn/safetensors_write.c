/* safetensors_write.c - the writer: header first, then the tensors through one buffer. */
#include <errno.h>
#include <fcntl.h>

#include "base/atomic_file.h"
#include "base/json_write.h"
#include "nn/safetensors.h"

enum { CHUNK = 64 << 10 };      /* values converted at a time */

static int64_t numel(const struct st_write *t)
{
    int64_t n = 1;

    for (int i = 0; i < t->ndim; i++)
        n *= t->dim[i];
    return n;
}

size_t st_write_bytes(const struct st_write *t)
{
    return (size_t)numel(t) * dtype_size(t->dtype);
}

static int by_alignment_then_name(const void *a, const void *b)
{
    const struct st_write *x = *(const struct st_write *const *)a, *y = *(const struct st_write *const *)b;

    if (dtype_size(x->dtype) != dtype_size(y->dtype))
        return dtype_size(x->dtype) > dtype_size(y->dtype) ? -1 : 1;
    return strcmp(x->name, y->name);
}

static void put_header(struct strbuf *out, const struct st_write *const *order, int n)
{
    struct json_writer w = {.out = out};
    size_t offset = 0;

    json_open(&w, NULL, '{');
    json_open(&w, "__metadata__", '{');
    json_text(&w, "format", "pt");
    json_close(&w, '}');
    for (int i = 0; i < n; i++) {
        const struct st_write *t = order[i];

        json_open(&w, t->name, '{');
        json_text(&w, "dtype", dtype_name(t->dtype));
        json_open(&w, "shape", '[');
        for (int d = 0; d < t->ndim; d++)
            json_signed(&w, NULL, t->dim[d]);
        json_close(&w, ']');
        json_open(&w, "data_offsets", '[');
        json_unsigned(&w, NULL, offset);
        offset += st_write_bytes(t);
        json_unsigned(&w, NULL, offset);
        json_close(&w, ']');
        json_close(&w, '}');
    }
    json_close(&w, '}');
    while (out->length % 8)
        strbuf_addc(out, ' ');
}

static int write_all(int fd, const void *bytes, size_t n)
{
    for (const char *p = bytes; n > 0;) {
        ssize_t done = write(fd, p, n);

        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0)
            return -errno;
        p += done;
        n -= (size_t)done;
    }
    return 0;
}

/* Where converted values wait to be written: CHUNK of them. */
struct converter { float values[CHUNK]; uint8_t bytes[CHUNK * sizeof(float)]; };

static int write_tensor(int fd, const struct st_write *t, struct converter *c)
{
    if (t->raw || (t->values && t->dtype == DTYPE_F32))
        return write_all(fd, t->raw ? t->raw : t->values, st_write_bytes(t));
    for (int64_t done = 0, total = numel(t); done < total;) {
        int64_t n = MIN(total - done, CHUNK);
        int r = t->fill ? t->fill(t->context, done, n, c->values) : 0;

        if (r >= 0)
            r = floats_to_dtype(t->values ? t->values + done : c->values, n, t->dtype, c->bytes);
        if (r >= 0)
            r = write_all(fd, c->bytes, (size_t)n * dtype_size(t->dtype));
        if (r < 0)
            return r;
        done += n;
    }
    return 0;
}

static int write_failed(int r, const char *path, const struct st_write *t, struct error *error)
{
    if (r == -ERANGE)
        return error_set(error, ERANGE, "tensor %s: a value does not fit into %s", t->name, dtype_name(t->dtype));
    return error_set(error, -r, "%s: tensor %s: %s", path, t->name, strerror(-r));
}

static int write_file(const char *path, const struct st_write *tensors, int n, bool as_given, struct error *error)
{
    _cleanup_free_ const struct st_write **order = calloc((size_t)n + 1, sizeof(*order));
    _cleanup_free_ struct converter *converter = malloc(sizeof(*converter));
    _cleanup_(strbuf_release) struct strbuf header = STRBUF_INIT;
    _cleanup_close_ int fd = -1;
    uint8_t length[8];
    int r;

    if (!order || !converter)
        return error_set(error, ENOMEM, "out of memory");
    for (int i = 0; i < n; i++)
        order[i] = &tensors[i];
    if (!as_given)
        qsort(order, (size_t)n, sizeof(*order), by_alignment_then_name);
    put_header(&header, order, n);
    if (header.failed)
        return error_set(error, ENOMEM, "out of memory");
    for (int i = 0; i < 8; i++)
        length[i] = (uint8_t)((uint64_t)header.length >> 8 * i);

    fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0)
        return error_set(error, errno, "%s: %s", path, strerror(errno));
    r = write_all(fd, length, sizeof(length));
    if (r >= 0)
        r = write_all(fd, header.text, header.length);
    for (int i = 0; i < n && r >= 0; i++) {
        r = write_tensor(fd, order[i], converter);
        if (r < 0)
            return write_failed(r, path, order[i], error);
    }
    if (r >= 0)
        file_send_off(fd);
    return r < 0 ? error_set(error, -r, "%s: %s", path, strerror(-r)) : 0;
}

int safetensors_write(const char *path, const struct st_write *tensors, int n, struct error *error)
{
    return write_file(path, tensors, n, false, error);
}

int safetensors_write_as_given(const char *path, const struct st_write *tensors, int n, struct error *error)
{
    return write_file(path, tensors, n, true, error);
}
