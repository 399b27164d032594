/* golden_resize.c - a set of pictures instead of a model: manifest.json and resize.safetensors, side by side.
 *
 * Tensor wWhH_to_wAhB is the bicubic resize, from W x H to A x B, of the arithmetic picture of that size; input_wWhH is the
 * picture itself. The manifest may give the SHA-256 of the one that goes in. */
#include <errno.h>

#include "base/sha256.h"
#include "base/strbuf.h"
#include "image/formula.h"
#include "image/image.h"
#include "nn/golden/golden_internal.h"

static int check_one(struct golden *g, const char *name, const json_t *entry)
{
    const char *want = json_string_value(json_object_get(entry, "input_sha256"));
    int width, height, out_width, out_height, end = 0, r;
    _cleanup_free_ uint8_t *in = NULL, *out = NULL;
    bool input = !strncmp(name, "input_", 6);
    char hex[SHA256_HEX];
    uint8_t digest[SHA256_SIZE];

    if (input ? sscanf(name, "input_w%dh%d%n", &width, &height, &end) != 2
              : sscanf(name, "w%dh%d_to_w%dh%d%n", &width, &height, &out_width, &out_height, &end) != 4)
        end = 0;
    if (end == 0 || name[end])
        return error_set(g->error, EINVAL, "%s: tensor %s is neither wWhH_to_wAhB nor input_wWhH", g->dir, name);
    if (image_check_size(height, width, name, g->error) < 0 ||
        (!input && image_check_size(out_height, out_width, name, g->error) < 0))
        return -EINVAL;
    in = malloc((size_t)width * (size_t)height * 3);
    out = input ? NULL : malloc((size_t)out_width * (size_t)out_height * 3);
    if (!in || (!input && !out))
        return error_set(g->error, ENOMEM, "out of memory");
    image_formula(height, width, in);
    if (want) {
        sha256_of(in, (size_t)width * (size_t)height * 3, digest);
        sha256_hex(digest, hex);
        golden_expect(g, !strcmp(hex, want), name);
    }
    if (input)
        return golden_compare_bytes(g, "resize", name, in, (size_t)width * (size_t)height * 3);
    r = image_resize_bicubic(in, height, width, out_height, out_width, out);
    if (r < 0)
        return error_set(g->error, -r, "%s: %s", name, strerror(-r));
    return golden_compare_bytes(g, "resize", name, out, (size_t)out_width * (size_t)out_height * 3);
}

int golden_check_resize(struct golden *g)
{
    const char *name;
    json_t *entry;

    golden_begin(g);
    json_object_foreach(json_object_get(json_object_get(json_object_get(g->manifest, "files"), "resize.safetensors"), "tensors"),
                        name, entry) {
        int r = check_one(g, name, entry);

        if (r < 0)
            return r;
    }
    golden_end(g, "resize");
    return 0;
}
