/* model_oft.c - `gantry model oft SRC DST`: an OpenVLA becomes an OpenVLA-OFT, ready to imitate: chunks of actions in one pass,
 * fresh heads where the kind has some. Or an OpenVLA-OFT of kind l1, as it is published, becomes one that rl takes: of kind laplace,
 * its answers the middles, with a fresh head for the scale around them. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/model.h"
#include "nn/models/openvla_oft.h"

/* A whole number behind --name. */
static int take_number(int *argc, char **argv, const char *name, long fallback, long *ret, struct error *error)
{
    const char *text = model_option(argc, argv, name);
    char *end;

    if (!text) {
        *ret = fallback;
        return 0;
    }
    *ret = strtol(text, &end, 10);
    return *text && !*end && *ret >= 0 ? 0 : error_set(error, EINVAL, "%s %s: not a number", name, text);
}

struct wishes {
    long chunk, width, blocks, state, images, seed;
    double scale;       /* of a fresh scale head, in normalised actions */
    bool film;
};

static int take_scale(int *argc, char **argv, double *ret, struct error *error)
{
    const char *text = model_option(argc, argv, "--scale");
    char *end;
    double scale = text ? strtod(text, &end) : exp(-1.5);

    if (text && (end == text || *end || !(scale > 0 && scale <= 1)))
        return error_set(error, EINVAL, "--scale %s: how far answers are drawn around the middle at temperature 1, above 0 up "
                         "to 1", text);
    *ret = scale;
    return 0;
}

static int take_wishes(int *argc, char **argv, struct wishes *ret, struct error *error)
{
    const struct {
        const char *name;
        long fallback, *to;
    } numbers[] = {
        {"--chunk", 8, &ret->chunk}, {"--width", 0, &ret->width}, {"--blocks", 2, &ret->blocks},
        {"--state", 0, &ret->state}, {"--images", 1, &ret->images}, {"--seed", 1, &ret->seed},
    };
    int r = 0;

    for (size_t i = 0; i < ARRAY_SIZE(numbers) && r >= 0; i++)
        r = take_number(argc, argv, numbers[i].name, numbers[i].fallback, numbers[i].to, error);
    ret->film = model_flag(argc, argv, "--film");
    return r < 0 ? r : take_scale(argc, argv, &ret->scale, error);
}

static int change(struct openvla *model, const char *kind, const struct wishes *w)
{
    int width = (int)(w->width ? w->width : model->config.hidden), r;

    if (w->images < 1 || w->images > OPENVLA_MAX_IMAGES)
        return -EINVAL;
    if (model->config.oft.kind == OFT_L1 && !strcmp(kind, "laplace") && !w->state && !w->film && w->images == 1)
        return oft_add_scale_head(model, width, (float)log(w->scale), (uint64_t)w->seed + 2);
    if (model->config.oft.kind == OFT_NONE)
        model->config.oft.images = (int)w->images;
    if (!strcmp(kind, "tokens"))
        r = oft_make_tokens(model, (int)w->chunk);
    else if (!strcmp(kind, "l1") || !strcmp(kind, "laplace"))
        r = oft_add_action_head(model, (int)w->chunk, width, (int)w->blocks, (uint64_t)w->seed);
    else
        return -EINVAL;
    if (r >= 0 && w->state)
        r = oft_add_state(model, (int)w->state, (uint64_t)w->seed + 1);
    if (r >= 0 && !strcmp(kind, "laplace"))
        r = oft_add_scale_head(model, width, (float)log(w->scale), (uint64_t)w->seed + 2);
    if (r >= 0 && w->film)
        r = oft_add_film(model);
    return r;
}

int model_oft(int argc, char **argv)
{
    const char *kind = model_option(&argc, argv, "--kind"), *dtype = model_option(&argc, argv, "--dtype");
    _cleanup_(openvla_freep) struct openvla *model = NULL;
    const struct oft_config *oft;
    struct error error = {0};
    struct wishes wishes;
    int r = take_wishes(&argc, argv, &wishes, &error);

    if (r < 0)
        return model_fail(&error, r);
    if (argc != 2 || !kind)
        return CLI_USAGE;
    r = openvla_load(argv[0], &model, &error);
    if (r < 0)
        return model_fail(&error, r);
    r = change(model, kind, &wishes);
    if (r == -EEXIST)
        error_set(&error, EEXIST, "%s: it is an OpenVLA-OFT already", argv[0]);
    else if (r < 0)
        error_set(&error, -r, "--kind %s --chunk %ld --width %ld --blocks %ld --state %ld --images %ld: no such policy "
                  "(kinds: l1, tokens, laplace)", kind, wishes.chunk, wishes.width, wishes.blocks, wishes.state, wishes.images);
    else
        r = model_save(model, argv[1], dtype, &error);
    if (r < 0)
        return model_fail(&error, r);
    oft = &model->config.oft;
    printf("%s: %s, %d actions of %d dims in one pass, %d picture%s and %d numbers of the robot's state\n", argv[1], kind,
           oft->chunk, model->config.action_dims, oft->images, oft->images == 1 ? "" : "s", oft->proprio);
    return CLI_OK;
}
