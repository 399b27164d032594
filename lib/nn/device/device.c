#include "nn/device/device.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "nn/device/blas.h"
#include "nn/device/dnn.h"
#include "nn/device/dnn_key.h"
#include "nn/device/narrow.h"

enum { ALIGN = 256 };

int device_wrap(const struct device_kernels *k, int ordinal, struct device **ret, struct error *error)
{
    struct device *device = calloc(1, sizeof(*device));
    char why[256] = "";
    int r;

    if (!device)
        return error_set(error, ENOMEM, "out of memory");
    device->k = k;
    device->ordinal = ordinal;
    atomic_init(&device->references, 1);
    snprintf(device->name, sizeof(device->name), "%s:%d", k->name, ordinal);
    r = k->use(ordinal, &device->facts, why, sizeof(why));
    if (r < 0) {
        r = error_set(error, -r, "--device %s: %s", device->name, why);
        free(device);
        return r;
    }
    *ret = device;
    return 0;
}

/* The number in cuda:N. */
static int parse(const char *name, struct error *error)
{
    const char *number = name + 4;
    int ordinal = 0;

    if (strncmp(name, "cuda", 4) || (*number && (*number != ':' || !isdigit((unsigned char)number[1]) || strlen(number) > 3 ||
                                                 number[1 + strspn(number + 1, "0123456789")])))
        return error_set(error, EINVAL, "--device %s: devices are cpu, cuda and cuda:N", name);
    if (!cuda_kernels())
        return error_set(error, ENODEV,
                         "--device %s: this build is for the CPU only (made with GPU=0, or without nvcc); give --device cpu",
                         name);
    for (const char *digit = *number ? number + 1 : number; *digit; digit++)
        ordinal = 10 * ordinal + *digit - '0';
    return ordinal;
}

int device_look(const char *name, struct device_facts *ret, struct error *error)
{
    _cleanup_(device_unrefp) struct device *device = NULL;
    int ordinal = parse(name, error), r = ordinal < 0 ? ordinal : device_wrap(cuda_kernels(), ordinal, &device, error);

    if (r >= 0)
        *ret = device->facts;
    return r;
}

int device_open(const char *name, struct device **ret, struct error *error)
{
    int ordinal, r;

    if (!strcmp(name, "cpu")) {
        *ret = NULL;
        return 0;
    }
    ordinal = parse(name, error);
    r = ordinal < 0 ? ordinal : device_wrap(cuda_kernels(), ordinal, ret, error);
    if (r == 0) {
        (*ret)->blas = blas_open();
        (*ret)->dnn = dnn_open((*ret)->no_dnn, sizeof((*ret)->no_dnn));
    }
    return r;
}

int device_find_faster(struct device *device)
{
    if (!device->blas || !device->k->gemm_narrow)
        return 0;       /* no choice */
    device->narrow = narrow_new(blas_gemm);
    return device->narrow ? 0 : -ENOMEM;
}

static struct device *process_device;

void device_set_process(struct device *device)
{
    device_ref(device);
    device_unref(process_device);
    process_device = device;
}

struct device *device_process(void) { return process_device; }

struct device *device_ref(struct device *device)
{
    if (device)
        atomic_fetch_add(&device->references, 1);
    return device;
}

struct device *device_unref(struct device *device)
{
    if (!device || atomic_fetch_sub(&device->references, 1) > 1)
        return NULL;
    if (device->narrow)
        (void)device->k->use(device->ordinal, NULL, NULL, 0);
    narrow_free(device->narrow);
    blas_close(device->blas);
    dnn_close(device->dnn);
    free(device);
    return NULL;
}

struct device_fallbacks device_fallbacks(const struct device *device)
{
    if (!device)
        return (struct device_fallbacks) {0};
    return (struct device_fallbacks) {.gemm = atomic_load(&device->gemm_fallbacks),
                                      .attention = atomic_load(&device->attention_fallbacks)};
}

size_t device_memory_used(const struct device *device) { return device ? atomic_load(&device->memory_used) : 0; }

const char *device_error_text(const struct device *device, int r)
{
    return device && (r == -EIO || r == -ENOMEM || r == -ENODEV) ? device->k->last_error() : strerror(-r);
}

/* ---- streams ------------------------------------------------------------------------------------------------- */

int device_stream_new(struct device *device, struct device_stream **ret)
{
    _cleanup_(device_stream_freep) struct device_stream *s = calloc(1, sizeof(*s));
    int r;

    if (!s)
        return -ENOMEM;
    s->device = device_ref(device);
    s->k = device->k;
    r = s->k->use(device->ordinal, NULL, NULL, 0);
    if (r == 0)
        r = s->k->stream_new(&s->stream);
    if (r < 0)
        return r;
    *ret = TAKE_PTR(s);
    return 0;
}

struct device_stream *device_stream_free(struct device_stream *s)
{
    if (!s)
        return NULL;
    (void)s->k->use(s->device->ordinal, NULL, NULL, 0);     /* else a thread that never had one gets a context on device 0 */
    if (s->stream)
        s->k->wait(s->stream);
    for (int i = 0; i < s->n_chunks; i++) {
        s->k->unpin(s->chunks[i].host);
        s->k->release(s->chunks[i].device);
    }
    s->k->release(s->workspace);
    s->k->stream_free(s->stream);
    free(s->chunks);
    free(s->sent);
    device_unref(s->device);
    free(s);
    return NULL;
}

const char *device_lost(const struct device *device) { return device && atomic_load(&device->lost) == 2 ? device->lost_why : NULL;
                                                       }

/* An error of a stream that is waited for is for good: the driver repeats it to whoever asks. */
static void note_loss(struct device *device)
{
    int whole = 0;

    if (!atomic_compare_exchange_strong(&device->lost, &whole, 1))
        return;
    snprintf(device->lost_why, sizeof(device->lost_why), "%s", device->k->last_error());
    atomic_store(&device->lost, 2);
}

bool device_ask(struct device *device)
{
    void *stream = NULL;
    int r;

    if (!device || device_lost(device))
        return !device;
    r = device->k->use(device->ordinal, NULL, NULL, 0);
    if (r == 0)
        r = device->k->stream_new(&stream);
    if (r == 0)
        r = device->k->wait(stream);
    if (r == -EIO || r == -ENODEV)
        note_loss(device);
    device->k->stream_free(stream);
    return r != -EIO && r != -ENODEV;
}

static void look_at_memory(struct device *device)
{
    uint64_t now = clock_mono_ns(), last = atomic_load(&device->looked_ns);
    size_t unused, all;

    if (device->k->memory && (!last || now - last >= 1000000000) &&
        atomic_compare_exchange_strong(&device->looked_ns, &last, now) && device->k->memory(&unused, &all) == 0)
        atomic_store(&device->memory_used, all - unused);
}

int device_stream_begin(struct device_stream *s)
{
    int r = s->k->use(s->device->ordinal, NULL, NULL, 0);

    if (r == 0)
        r = s->k->wait(s->stream); /* staging is read by copies that may still be under way */
    if (r == -EIO || r == -ENODEV)
        note_loss(s->device);
    if (r == 0)
        look_at_memory(s->device);
    for (int i = 0; i < s->n_chunks; i++)
        s->chunks[i].used = 0;
    s->n_sent = 0;
    return r;
}

static struct device_chunk *chunk_with(struct device_stream *s, size_t bytes)
{
    struct device_chunk chunk = {.size = MAX((size_t)DEVICE_STAGING, bytes)}, *larger;

    for (int i = 0; i < s->n_chunks; i++)
        if (s->chunks[i].size - s->chunks[i].used >= bytes)
            return &s->chunks[i];
    larger = realloc(s->chunks, (size_t)(s->n_chunks + 1) * sizeof(*larger));
    if (!larger)
        return NULL;
    s->chunks = larger;
    if (s->capturing || s->k->pinned(chunk.size, (void **)&chunk.host) < 0)
        return NULL;
    if (s->k->alloc(chunk.size, (void **)&chunk.device) < 0) {
        s->k->unpin(chunk.host);
        return NULL;
    }
    s->chunks[s->n_chunks] = chunk;
    return &s->chunks[s->n_chunks++];
}

const void *device_send(struct device_stream *s, const void *host, size_t bytes)
{
    size_t rounded = (bytes + ALIGN - 1) / ALIGN * ALIGN;
    struct device_chunk *chunk;
    struct device_sent one;

    for (int i = 0; i < s->n_sent; i++)
        if (s->sent[i].bytes == bytes && memcmp(s->sent[i].host, host, bytes) == 0)
            return s->sent[i].device;
    if (s->capturing) /* graphs.h */
        return NULL;
    if (s->n_sent == s->room_sent) {
        struct device_sent *larger = realloc(s->sent, (size_t)(s->room_sent + 64) * sizeof(*larger));

        if (!larger)
            return NULL;
        s->sent = larger;
        s->room_sent += 64;
    }
    chunk = chunk_with(s, MAX(rounded, (size_t)ALIGN));
    if (!chunk)
        return NULL;
    one = (struct device_sent){.bytes = bytes, .host = chunk->host + chunk->used, .device = chunk->device + chunk->used};
    memcpy(chunk->host + chunk->used, host, bytes);
    if (s->k->upload(s->stream, chunk->device + chunk->used, one.host, bytes) < 0)
        return NULL;
    chunk->used += MAX(rounded, (size_t)ALIGN);
    s->sent[s->n_sent++] = one;
    return one.device;
}

const void *device_send_kept(struct device_stream *s, const void *host, size_t bytes)
{
    const void *device;

    for (int i = 0; i < s->n_sent; i++)
        if (s->sent[i].kept == host && s->sent[i].bytes == bytes)
            return s->sent[i].device;
    device = device_send(s, host, bytes);
    for (int i = 0; device && i < s->n_sent; i++)
        if (s->sent[i].device == device)
            s->sent[i].kept = host;
    return device;
}

void *device_workspace(struct device_stream *s, size_t bytes)
{
    void *larger;

    if (bytes <= s->workspace_size)
        return s->workspace;
    if (s->capturing || s->k->wait(s->stream) < 0)
        return NULL;
    s->k->release(s->workspace);        /* first: both may not fit */
    s->workspace = NULL;
    s->workspace_size = 0;
    if (s->k->alloc(bytes, &larger) < 0)
        return NULL;
    s->workspace = larger;
    s->workspace_size = bytes;
    return larger;
}

/* ---- what a library may do better ---------------------------------------------------------------------------------- */

/* A batch that the library refuses: its products one by one, which it may take. */
static int one_by_one(struct device_stream *s, const struct device_gemm *g)
{
    struct device_gemm one = *g;
    int r = 0;

    one.batch = 1;
    for (int64_t i = 0; i < g->batch && r >= 0; i++) {
        one.a = (const char *)g->a + i * g->a_apart * (int64_t)device_element(g->a_type);
        one.b = (const char *)g->b + i * g->b_apart * (int64_t)device_element(g->b_type);
        one.c = (char *)g->c + i * g->c_apart * (int64_t)device_element(g->c_type);
        r = device_gemm(s, &one);
    }
    return r;
}

int device_gemm(struct device_stream *s, const struct device_gemm *g)
{
    bool own = s->device->strict && g->a_type == DEVICE_F32; /* its bits are the CPU's: no refusal */
    bool narrow = !s->device->strict && s->k->gemm_narrow && narrow_takes(g);
    int r;

    if (narrow && s->device->narrow)
        return narrow_gemm(s->device->narrow, s, g);
    if (narrow && !s->device->blas)
        return s->k->gemm_narrow(s->stream, g);
    if (s->device->blas && !own && g->m > 0 && g->n > 0) {
        r = blas_gemm(s, g);
        if (r != -ENOTSUP)
            return r;
        if (g->batch > 1)
            return one_by_one(s, g);
        atomic_fetch_add(&s->device->gemm_fallbacks, 1);
    }
    return s->k->gemm(s->stream, g);
}

/* The own kernel, for sequences first .. end - 1: rows are counted from the call's first. */
static int own_attention(struct device_stream *s, enum device_type type, const struct device_attention *a, bool backward,
                         int first, int end)
{
    struct device_attention some = *a;

    some.n = end - first;
    some.start += first;
    some.asking += first;
    return backward ? s->k->attention_backward(s->stream, type, &some) : s->k->attention(s->stream, type, &some);
}

int device_attention(struct device_stream *s, enum device_type type, const struct device_attention *a, bool backward)
{
    bool asks = s->device->dnn && !s->device->strict && type == DEVICE_BF16;
    struct device_attention piece;
    int own = 0, n, r = 0;      /* own: from this one on cuDNN has not taken them */

    for (int first = 0; asks && first < a->n && r >= 0; first += n) {
        n = dnn_piece(a, first, &piece);
        r = dnn_attention(s, type, &piece, backward);
        if (r == -ENOTSUP) {
            r = 0;
            continue;
        }
        if (r >= 0 && own < first)
            r = own_attention(s, type, a, backward, own, first);
        own = first + n;
    }
    return r < 0 || (own == a->n && own) ? r : own_attention(s, type, a, backward, own, a->n);
}

const char *device_refusal(const struct device *device) { return device && device->dnn ? dnn_refusal(device->dnn) : ""; }
const char *device_product_refusal(const struct device *device)
{
    return device && device->blas ? blas_refusal(device->blas) : "";
}

struct device_versions device_versions(const struct device *device)
{
    return (struct device_versions) {.blas = device->blas ? blas_version(device->blas) : 0,
                                     .dnn = device->dnn ? dnn_version(device->dnn) : 0};
}
