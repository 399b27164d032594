/* prm_common.c - what all models of a set share: sizes, pictures, kept frames, Unicode. */
#include <errno.h>
#include <string.h>

#include "base/strbuf.h"
#include "image/smart_resize.h"
#include "nn/golden/prm_internal.h"
#include "nn/unicode.h"

static int integer(const json_t *object, const char *key)
{
    return (int)json_integer_value(json_object_get(object, key));
}

static int check_smart_resize(struct prm_check *p)
{
    _cleanup_json_ json_t *rows = prm_json(p, "common/smart_resize.json");
    struct prm_tally tally = {0};
    size_t at;
    json_t *row;

    if (!rows)
        return -EINVAL;
    json_array_foreach(rows, at, row) {
        const json_t *result = json_object_get(row, "result");
        int h = 0, w = 0, height = integer(row, "h"), width = integer(row, "w");
        int r = image_smart_resize(height, width, 28, json_integer_value(json_object_get(row, "min_pixels")),
                                   json_integer_value(json_object_get(row, "max_pixels")), &h, &w, NULL);
        int want_h = (int)json_integer_value(json_array_get(result, 0)),
            want_w = (int)json_integer_value(json_array_get(result, 1));
        bool refused = json_is_string(result) || want_h == 0 || want_w == 0;    /* a side of 0 is refused, too */

        if (refused ? r >= 0 : r < 0 || h != want_h || w != want_w)
            prm_wrong(&tally, "%d x %d became %d x %d", height, width, h, w);
    }
    prm_count_tally(p, "common/smart_resize", (int)json_array_size(rows), &tally);
    return 0;
}

static int check_kept_frames(struct prm_check *p)
{
    _cleanup_json_ json_t *root = prm_json(p, "common/pseudo_labels.json");
    const json_t *rows = json_object_get(root, "kept_frames");
    struct prm_tally tally = {0};
    size_t at;
    json_t *row;

    if (!root)
        return -EINVAL;
    json_array_foreach((json_t *)(uintptr_t)rows, at, row) {
        const json_t *want = json_object_get(row, "frames");
        int k = integer(row, "k"), n;
        _cleanup_free_ int *frames = calloc((size_t)k + 1, sizeof(*frames));

        if (!frames)
            return error_set(p->error, ENOMEM, "out of memory");
        n = qwen_vl_kept_frames(integer(row, "t"), k, integer(row, "stride"), json_is_true(json_object_get(row, "keep_first")),
                                frames);
        if (!prm_same_integers(want, frames, n))
            prm_wrong(&tally, "t = %d, k = %d", integer(row, "t"), k);
    }
    prm_count_tally(p, "common/kept_frames", (int)json_array_size(rows), &tally);
    return 0;
}

/* ---- pictures ---------------------------------------------------------------------------------------------------- */

/* source.KEY resized to resized.KEY's size, byte for byte; *ret: ours, caller frees. */
static bool resize_one(const struct safetensors *file, const char *key, int64_t min_pixels, int64_t max_pixels,
                       struct qwen_picture *ret, uint8_t **ret_rgb)
{
    char name[96];
    const struct st_tensor *source, *resized;
    int h, w, want_h, want_w;

    snprintf(name, sizeof(name), "source.%s", key);
    source = safetensors_find(file, name);
    snprintf(name, sizeof(name), "resized.%s", key);
    resized = safetensors_find(file, name);
    if (!source || !resized || source->ndim != 3 || resized->ndim != 3 || source->dtype != DTYPE_U8 || resized->dtype != DTYPE_U8)
        return false;
    want_h = (int)resized->dim[0];
    want_w = (int)resized->dim[1];
    if (max_pixels &&
        (image_smart_resize((int)source->dim[0], (int)source->dim[1], 28, min_pixels, max_pixels, &h, &w, NULL) < 0 ||
         h != want_h || w != want_w))
        return false;
    *ret_rgb = malloc(resized->bytes);
    if (!*ret_rgb || image_resize_bicubic(source->data, (int)source->dim[0], (int)source->dim[1], want_h, want_w, *ret_rgb) < 0)
        return false;
    *ret = (struct qwen_picture) {.rgb = *ret_rgb, .height = want_h, .width = want_w};
    return !memcmp(*ret_rgb, resized->data, resized->bytes);
}

static int check_pictures(struct prm_check *p)
{
    int64_t low = json_integer_value(json_object_get(p->manifest, "min_pixels"));
    int64_t high = json_integer_value(json_object_get(p->manifest, "max_pixels"));
    struct prm_tally tally = {0};
    char key[32];
    int n = 0;

    p->pictures = prm_open(p, "common/images.safetensors");
    if (!p->pictures)
        return -EINVAL;
    for (snprintf(key, sizeof(key), "source.%02d", n); safetensors_find(p->pictures, key);
         snprintf(key, sizeof(key), "source.%02d", n))
        n++;
    p->resized = calloc((size_t)n + 1, sizeof(*p->resized));
    p->picture = calloc((size_t)n + 1, sizeof(*p->picture));
    if (!p->resized || !p->picture)
        return error_set(p->error, ENOMEM, "out of memory");
    p->n_pictures = n;
    for (int i = 0; i < n; i++) {
        snprintf(key, sizeof(key), "%02d", i);
        if (!resize_one(p->pictures, key, low, high, &p->picture[i], &p->resized[i]))
            prm_wrong(&tally, "picture %d", i);
    }
    prm_count_tally(p, "common/images: smart_resize and bicubic", n, &tally);
    return tally.wrong ? error_set(p->error, EINVAL, "common/images.safetensors: without its pictures nothing can follow") : 0;
}

static int check_more_pictures(struct prm_check *p)
{
    _cleanup_(safetensors_closep) struct safetensors *file = prm_open(p, "common/resize_extra.safetensors");
    const char *note = json_string_value(json_object_get(
        json_object_get(json_object_get(p->manifest, "files"), "common/resize_extra.safetensors"), "note"));
    long long low = 0, high = 0;
    struct prm_tally tally = {0};
    int n = 0;

    if (!file)
        return -EINVAL;
    note = note ? strstr(note, "limits ") : NULL;
    if (note && sscanf(note, "limits %lld..%lld", &low, &high) != 2)
        high = 0;               /* not said: the size is taken as given */
    for (int i = 0; i < file->count; i++) {
        _cleanup_free_ uint8_t *rgb = NULL;
        struct qwen_picture picture;

        if (strncmp(file->list[i].name, "source.", 7))
            continue;
        n++;
        if (!resize_one(file, file->list[i].name + 7, low, high, &picture, &rgb))
            prm_wrong(&tally, "%s", file->list[i].name);
    }
    prm_count_tally(p, "common/resize_extra", n, &tally);
    return 0;
}

/* ---- Unicode ------------------------------------------------------------------------------------------------------- */

static bool same_nfc(const struct strbuf *a, const struct strbuf *b)
{
    _cleanup_(strbuf_release) struct strbuf x = STRBUF_INIT, y = STRBUF_INIT;

    return unicode_nfc(a->text, a->length, &x) == 0 && unicode_nfc(b->text, b->length, &y) == 0 && !strcmp(x.text, y.text);
}

/* Rows of characters; the first `left` of a row and the rest are the same text to NFC. */
static void check_nfc(struct prm_check *p, const json_t *rows, size_t left, const char *name)
{
    struct prm_tally tally = {0};
    size_t at;
    json_t *row;

    json_array_foreach((json_t *)(uintptr_t)rows, at, row) {
        _cleanup_(strbuf_release) struct strbuf a = STRBUF_INIT, b = STRBUF_INIT;

        for (size_t i = 0; i < json_array_size(row); i++)
            utf8_write(i < left ? &a : &b, (uint32_t)json_integer_value(json_array_get(row, i)));
        if (!same_nfc(&a, &b))
            prm_wrong(&tally, "U+%04X", (unsigned)json_integer_value(json_array_get(row, 0)));
    }
    prm_count_tally(p, name, (int)json_array_size(rows), &tally);
}

static int check_unicode(struct prm_check *p)
{
    _cleanup_json_ json_t *root = prm_json(p, "common/unicode.json");

    if (!root)
        return -EINVAL;
    check_nfc(p, json_object_get(root, "primary_composites"), 2, "common/unicode: composition");
    check_nfc(p, json_object_get(root, "canonical_decomposition"), 1, "common/unicode: decomposition");
    return 0;
}

int prm_check_common(struct prm_check *p)
{
    static const struct { const char *file; int (*check)(struct prm_check *p); } list[] = {
        {"common/smart_resize.json", check_smart_resize}, {"common/pseudo_labels.json", check_kept_frames},
        {"common/unicode.json", check_unicode},           {"common/resize_extra.safetensors", check_more_pictures},
        {"common/images.safetensors", check_pictures},
    };
    int r = 0;

    for (size_t i = 0; i < ARRAY_SIZE(list) && r >= 0; i++)
        if (prm_has(p, list[i].file))
            r = list[i].check(p);
    return r;
}
