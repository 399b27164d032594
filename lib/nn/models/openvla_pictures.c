/* openvla_pictures.c - how pictures come to the policy: the processor's resize strategy, the chain before it, the crop after it.
 */
#include <errno.h>
#include <math.h>

#include "nn/models/openvla_internal.h"

enum { BICUBIC = 3 };           /* as PIL counts them */

/* A size of tvf_resize_params or tvf_crop_params: n (the shorter side) or [height, width]. Absent: 0, 0. */
static int read_size(const json_t *json, const char *key, int *ret_height, int *ret_width, struct error *error)
{
    json_int_t height = json_integer_value(json_is_array(json) ? json_array_get(json, 0) : json);
    json_int_t width = json_is_array(json) ? json_integer_value(json_array_get(json, 1)) : 0;

    if (json &&
        (height < 1 || height > IMAGE_MAX_SIDE || width < 0 || width > IMAGE_MAX_SIDE || (json_is_array(json) && width < 1)))
        return error_set(error, EINVAL, "%s: a size must be n or [height, width] of 1 to %d pixels", key, IMAGE_MAX_SIDE);
    *ret_height = json ? (int)height : 0;
    *ret_width = json ? (int)width : 0;
    return 0;
}

/* The border's colour: as stored, else the last tower's mean, cut off to whole numbers: the original sets it tower by tower. */
static void read_fill(const json_t *json, uint8_t ret[3])
{
    const json_t *stored = json_object_get(json, "tvf_letterbox_fill"), *mean = json_array_get(json_object_get(json, "means"), 1);

    for (size_t c = 0; c < 3; c++) {
        double x = json_array_size(stored) == 3 ? json_number_value(json_array_get(stored, c))
                                                : json_number_value(json_array_get(mean, c)) * 255;

        ret[c] = (uint8_t)CLAMP(x, 0.0, 255.0);
    }
}

/* One tower's; both must say the same, since both look at one picture. */
static int read_tower(const json_t *json, size_t tower, const struct openvla_config *c, struct image_prepare *ret,
                      struct error *error)
{
    const json_t *resize = json_array_get(json_object_get(json, "tvf_resize_params"), tower),
                 *crop = json_array_get(json_object_get(json, "tvf_crop_params"), tower);
    const char *strategy = json_string_value(json_object_get(json, "image_resize_strategy"));
    int64_t interpolation;
    int height, width, crop_height, crop_width, r;

    r = hf_integer(resize, "interpolation", BICUBIC, &interpolation, error);
    if (r >= 0 && interpolation != BICUBIC)
        r = error_set(error, ENOTSUP, "interpolation: %lld, expected %d (bicubic)", (long long)interpolation, BICUBIC);
    if (r < 0)
        return error_prefix(error, r, "tvf_resize_params");
    r = read_size(json_object_get(resize, "size"), "tvf_resize_params", &height, &width, error);
    if (r >= 0)
        r = read_size(json_object_get(crop, "output_size"), "tvf_crop_params", &crop_height, &crop_width, error);
    if (r < 0)
        return r;
    if (!height)
        height = c->image_height, width = !strategy || !strcmp(strategy, "resize-naive") ? c->image_width : 0;
    *ret = (struct image_prepare){.height = c->image_height, .width = c->image_width, .short_side = width ? 0 : height};
    ret->letterbox = json_is_true(json_object_get(json, "tvf_do_letterbox")) || (strategy && !strcmp(strategy, "letterbox"));
    if ((width && (height != c->image_height || width != c->image_width)) || (!width && height < c->image_height) ||
        (crop_height && (crop_height != c->image_height || (crop_width && crop_width != c->image_width))))
        return error_set(error, EINVAL,
                         "tvf_resize_params and tvf_crop_params of tower %zu do not end in the model's %dx%d pixels", tower,
                         c->image_width, c->image_height);
    return 0;
}

int openvla_read_pictures(struct openvla_config *c, const json_t *preprocessor, struct error *error)
{
    const json_t *interpolation = json_object_get(preprocessor, "interpolations");
    struct image_prepare second;
    int r;

    for (size_t i = 0; i < json_array_size(interpolation); i++)
        if (strcmp(json_string_value(json_array_get(interpolation, i)) ?: "", "bicubic") != 0)
            return error_set(error, ENOTSUP, "preprocessor_config.json: interpolations other than bicubic are not supported");
    r = read_tower(preprocessor, 0, c, &c->prepare, error);
    if (r >= 0)
        r = read_tower(preprocessor, 1, c, &second, error);
    if (r < 0)
        return error_prefix(error, r, "preprocessor_config.json");
    if (second.short_side != c->prepare.short_side)
        return error_set(error, ENOTSUP,
                         "preprocessor_config.json: the towers' pictures are resized to %d and %d pixels; one picture "
                         "serves both",
                         c->prepare.short_side, second.short_side);
    if (c->prepare.letterbox)
        read_fill(preprocessor, c->prepare.fill);
    return 0;
}

int openvla_read_chain(struct openvla_config *c, const json_t *config, struct error *error)
{
    const json_t *chain = json_object_get(config, "gantry_image_chain");
    double crop;
    int r = hf_real(config, "gantry_center_crop", 0, &crop, error);

    if (r < 0)
        return r;
    if (!(crop >= 0 && crop <= 1))
        return error_set(error, EINVAL, "gantry_center_crop: %g; the share of the picture's area that is kept, 0 (all) to 1",
                         crop);
    if (chain && (!json_is_string(chain) || json_string_length(chain) >= sizeof(c->image_chain)))
        return error_set(error, EINVAL, "gantry_image_chain: must be a name of less than %zu letters", sizeof(c->image_chain));
    c->center_crop = (float)crop;
    snprintf(c->image_chain, sizeof(c->image_chain), "%s", chain ? json_string_value(chain) : "");
    return 0;
}

int openvla_set_pictures(struct openvla *model, const char *chain, float center_crop, struct error *error)
{
    struct openvla_config *c = &model->config;
    char member[128];
    int r = 0;

    if (strlen(chain) >= sizeof(c->image_chain) || strpbrk(chain, "\"\\\n"))
        return error_set(error, EINVAL, "image chain '%s': not a name", chain);
    if (c->image_chain[0] && strcmp(c->image_chain, chain) != 0)
        return error_set(error, EINVAL, "%s: the policy was trained on pictures of the chain %s; these are of %s", model->dir,
                         c->image_chain, chain);
    if (c->center_crop > 0 && fabsf(c->center_crop - center_crop) > 1e-6f)
        return error_set(error, EINVAL, "%s: the policy was trained with crops of %g of the area; this would be %g", model->dir,
                         (double)c->center_crop, (double)center_crop);
    if (chain[0] && !c->image_chain[0]) {
        snprintf(member, sizeof(member), "\"gantry_image_chain\": \"%s\"", chain);
        r = openvla_say(&model->files, member);
        snprintf(c->image_chain, sizeof(c->image_chain), "%s", chain);
    }
    if (r >= 0 && center_crop > 0 && !(c->center_crop > 0)) {
        snprintf(member, sizeof(member), "\"gantry_center_crop\": %.9g", (double)center_crop);
        r = openvla_say(&model->files, member);
        c->center_crop = center_crop;
    }
    return r < 0 ? error_set(error, -r, "%s: config.json cannot be changed: %s", model->dir, strerror(-r)) : 0;
}
