/* golden_inputs.c - tokenizer, pictures, prompts and the action codec. */
#include <errno.h>

#include "base/sha256.h"
#include "base/strbuf.h"
#include "image/image.h"
#include "nn/golden/golden_internal.h"
#include "nn/tokenizer.h"

static bool same_ids(const int32_t *ids, int n, const json_t *list)
{
    bool same = (size_t)n == json_array_size(list);

    for (int i = 0; same && i < n; i++)
        same = ids[i] == json_integer_value(json_array_get(list, (size_t)i));
    return same;
}

static int check_strings(struct golden *g, const json_t *root)
{
    const json_t *encode = json_object_get(root, "encode"), *decode = json_object_get(root, "decode");
    size_t n_decode = json_array_size(decode);

    golden_begin(g);
    for (size_t i = 0; i < json_array_size(encode); i++) {
        const json_t *text = json_object_get(json_array_get(encode, i), "text");
        _cleanup_free_ int32_t *ids = NULL;
        int n, r;

        r = tokenizer_encode(g->model->tokenizer, json_string_value(text), json_string_length(text), true, &ids, &n);
        golden_expect(g, r == 0 && same_ids(ids, n, json_object_get(json_array_get(encode, i), "ids")), json_string_value(text));
    }
    golden_end(g, "tokenizer encode");
    golden_begin(g);
    for (size_t i = 0; i < n_decode; i++) {
        const json_t *ids = json_object_get(json_array_get(decode, i), "ids"),
                     *text = json_object_get(json_array_get(decode, i), "text");
        int32_t values[512];
        size_t n = MIN(json_array_size(ids), ARRAY_SIZE(values)), length = 0;
        _cleanup_free_ char *got = NULL;
        int r;

        for (size_t k = 0; k < n; k++)
            values[k] = (int32_t)json_integer_value(json_array_get(ids, k));
        r = tokenizer_decode(g->model->tokenizer, values, (int)n, i + 20 >= n_decode, &got,
                             &length); /* the last 20 skip specials */
        golden_expect(g, r == 0 && length == json_string_length(text) && !memcmp(got, json_string_value(text), length),
                      json_string_value(text));
    }
    golden_end(g, "tokenizer decode");
    return 0;
}

static int check_tokenizer(struct golden *g)
{
    _cleanup_(strbuf_release) struct strbuf path = STRBUF_INIT;
    _cleanup_json_ json_t *root = NULL;

    strbuf_addf(&path, "%s/golden/tokenizer_golden.json", g->dir);
    if (access(path.text, F_OK) < 0)
        return 0;               /* only one of the checkpoints has it: both have the same tokenizer */
    root = json_load_file(path.text, JSON_ALLOW_NUL, NULL);
    if (!root)
        return error_set(g->error, EINVAL, "%s: not JSON", path.text);
    return check_strings(g, root);
}

/* pixel_values of one picture, [6][h][w], as the towers see them. */
static void pixel_values(const struct openvla *model, const uint8_t *rgb, float *ret)
{
    int n = model->config.image_height * model->config.image_width;

    for (int c = 0; c < 6; c++)
        for (int i = 0; i < n; i++)
            ret[c * n + i] = model->lut[c][rgb[i * 3 + c % 3]];
}

static int check_pixels(struct golden *g)
{
    const struct openvla_config *c = &g->model->config;
    int64_t one = (int64_t)6 * c->image_height * c->image_width, kept = 0;
    bool sampled = golden_has(g, "inputs", "pixel_values_fp32_s97");
    const char *name = sampled ? "pixel_values_fp32_s97" : "pixel_values_fp32";
    const char *in_bf16 = sampled ? "pixel_values_bf16_s97" : "pixel_values_bf16";
    _cleanup_free_ uint16_t *half = calloc((size_t)one * GOLDEN_SAMPLES, sizeof(*half));
    _cleanup_free_ float *values = calloc((size_t)one, sizeof(*values)),
                         *out = calloc((size_t)one * GOLDEN_SAMPLES, sizeof(*out));

    if (!values || !out || !half)
        return error_set(g->error, ENOMEM, "out of memory");
    for (int s = 0; s < GOLDEN_SAMPLES; s++) {
        const char *want = json_string_value(json_array_get(json_object_get(g->manifest, "pixel_values_sha256"), (size_t)s));
        uint8_t digest[SHA256_SIZE];
        char hex[SHA256_HEX];

        pixel_values(g->model, g->image[s], values);
        sha256_of(values, (size_t)one * sizeof(*values), digest);
        sha256_hex(digest, hex);
        golden_expect(g, want && !strcmp(hex, want), "pixel_values_sha256");
        for (int64_t i = 0; i < one; i += sampled ? 97 : 1)
            out[kept++] = values[i];
    }
    for (int64_t i = 0; i < kept; i++)
        half[i] = float_to_bf16(out[i]);
    if (golden_has(g, "inputs", in_bf16)) {
        int r = golden_compare_bytes(g, "inputs", in_bf16, half, (size_t)kept * sizeof(*half));

        if (r < 0)
            return r;
    }
    return golden_compare(g, "inputs", name, out, kept);
}

static int check_images(struct golden *g)
{
    const struct openvla_config *c = &g->model->config;
    size_t one = (size_t)c->image_height * (size_t)c->image_width * 3;
    const struct st_tensor *camera = golden_input(g, "inputs", "image_u8");
    uint16_t lut_bf16[6][256];
    int r;

    golden_begin(g);
    if (!camera)
        return -ENOENT;
    if (golden_has(g, "inputs", "resized_u8")) {
        const struct st_tensor *resized = golden_input(g, "inputs", "resized_u8");
        int height = (int)camera->dim[1], width = (int)camera->dim[2];
        _cleanup_free_ uint8_t *out = malloc(one * GOLDEN_SAMPLES);

        if (!out)
            return error_set(g->error, ENOMEM, "out of memory");
        for (size_t s = 0; s < GOLDEN_SAMPLES; s++) {
            r = image_resize_bicubic((const uint8_t *)camera->data + s * (size_t)(height * width * 3), height, width,
                                     c->image_height, c->image_width, out + s * one);
            if (r < 0)
                return r;
        }
        r = golden_compare_bytes(g, "inputs", "resized_u8", out, one * GOLDEN_SAMPLES);
        if (r < 0)
            return r;
        camera = resized;
    }
    if (camera->bytes != one * GOLDEN_SAMPLES)
        return error_set(g->error, EINVAL, "golden/inputs.safetensors: pictures of %zu bytes, the model takes %zu",
                         camera->bytes / GOLDEN_SAMPLES, one);
    for (size_t s = 0; s < GOLDEN_SAMPLES; s++)
        g->image[s] = (const uint8_t *)camera->data + s * one;
    for (int i = 0; i < 6 * 256; i++)
        lut_bf16[i / 256][i % 256] = float_to_bf16(g->model->lut[i / 256][i % 256]);
    r = golden_compare(g, "inputs", "pixel_lut_fp32", &g->model->lut[0][0], (int64_t)6 * 256);
    if (r >= 0)
        r = golden_compare_bytes(g, "inputs", "pixel_lut_bf16", lut_bf16, sizeof(lut_bf16));
    if (r >= 0)
        r = check_pixels(g);
    golden_end(g, "images");
    return r;
}

static int check_prompts(struct golden *g)
{
    const struct st_tensor *ids = golden_input(g, "inputs", "prompt_ids");
    int width = ids ? (int)ids->dim[1] : 0, r;
    _cleanup_free_ int32_t *padded = calloc((size_t)width * GOLDEN_SAMPLES + 1, sizeof(*padded));

    golden_begin(g);
    if (!ids)
        return -ENOENT;
    if (!padded)
        return error_set(g->error, ENOMEM, "out of memory");
    for (int s = 0; s < GOLDEN_SAMPLES; s++) {
        const char *instruction = json_string_value(json_array_get(json_object_get(g->manifest, "instructions"), (size_t)s));

        r = openvla_prompt(g->model, instruction ? instruction : "", &g->prompt[s], &g->n_prompt[s]);
        if (r < 0)
            return r;
        for (int i = 0; i < width; i++)
            padded[s * width + i] = i < g->n_prompt[s] ? g->prompt[s][i] : g->model->config.pad_id;
    }
    r = golden_compare_int(g, "inputs", "prompt_ids", padded, (int64_t)width * GOLDEN_SAMPLES);
    if (r >= 0)
        r = golden_compare_int(g, "inputs", "prompt_len", g->n_prompt, GOLDEN_SAMPLES);
    golden_end(g, "prompts");
    return r;
}

static int encode_all(struct golden *g, const char *from, const char *to, int32_t *ids, int64_t n)
{
    const struct st_tensor *values = golden_input(g, "inputs", from);

    if (!values || values->numel != n || values->dtype != DTYPE_F64)
        return error_set(g->error, EINVAL, "golden/inputs.safetensors: %s is not what it should be", from);
    for (int64_t i = 0; i < n; i++) {
        double value;

        memcpy(&value, (const char *)values->data + i * 8, 8);
        ids[i] = openvla_encode(&g->model->config, value);
    }
    return golden_compare_int(g, "inputs", to, ids, n);
}

static int check_codec(struct golden *g)
{
    const struct st_tensor *in = golden_input(g, "inputs", "codec_in");
    int vocab = g->model->config.vocab_padded, r;
    _cleanup_free_ int32_t *ids = calloc((size_t)(in ? in->numel : 0) + 1, sizeof(*ids));
    _cleanup_free_ double *values = calloc((size_t)vocab, sizeof(*values));

    golden_begin(g);
    if (!in)
        return -ENOENT;
    if (!ids || !values)
        return error_set(g->error, ENOMEM, "out of memory");
    r = encode_all(g, "codec_in", "codec_ids", ids, in->numel);
    if (r >= 0)
        r = encode_all(g, "target_actions", "action_ids", &g->actions[0][0], (int64_t)GOLDEN_SAMPLES * GOLDEN_TOKENS);
    for (int i = 0; i < vocab; i++)
        values[i] = openvla_decode(&g->model->config, i);
    if (r >= 0)
        r = golden_compare_double(g, "inputs", "codec_decode", values, vocab);
    golden_end(g, "action codec");
    return r;
}

int golden_check_inputs(struct golden *g)
{
    int r = check_tokenizer(g);

    if (r >= 0)
        r = check_images(g);
    if (r >= 0)
        r = check_prompts(g);
    return r < 0 ? r : check_codec(g);
}
