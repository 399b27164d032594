/* check_images.c - pictures against the original's: at a reset, after 20 steps, with the burner lit; both cameras, two sizes. */
#include <errno.h>
#include <string.h>

#include "base/npy.h"
#include "image/image.h"
#include "sim/suites/libero/check.h"

static const struct { const char *name; int camera; } cameras[] = { { "agentview", 0 }, { "wrist", 1 } };
static const int sizes[] = { 128, 256 };
static const double wanted_share = 0.999;       /* of pixels within one step of 255 in every channel */

/* The files hold pictures as LIBERO returns them, bottom row first; ours have the top row first. */
static void compare_picture(const uint8_t *mine, const struct image *golden, const char *name, struct check_result *result)
{
    const int side = golden->height, total = side * side;
    int far = 0, worst = 0;

    for (int y = 0; y < side; y++)
        for (int x = 0; x < side; x++) {
            int off = 0;

            for (int c = 0; c < 3; c++)
                off = MAX(off, abs(mine[(y * side + x) * 3 + c] - golden->rgb[((side - 1 - y) * side + x) * 3 + c]));
            far += off > 1;
            worst = MAX(worst, off);
        }
    result->compared++;
    result->pixels = MIN(result->pixels, 1 - (double)far / total);
    if ((double)far <= (1 - wanted_share) * total)
        return;
    if (!result->wrong++)
        snprintf(result->where, sizeof(result->where), "%s: %.3f %% of the pixels are within 1 (largest difference %d)", name,
                 100.0 * (total - far) / total, worst);
}

/* All pictures <prefix>_<tag>_<camera>_<size>.png that are there. */
static int compare_tag(struct libero_slot *slot, const char *folder, const char *prefix, const char *tag,
                       struct sim_renderer *const renderers[], struct check_result *result, struct error *error)
{
    for (size_t s = 0; s < ARRAY_SIZE(sizes); s++)
        for (size_t c = 0; c < ARRAY_SIZE(cameras); c++) {
            _cleanup_free_ uint8_t *mine = malloc((size_t)sizes[s] * (size_t)sizes[s] * 3);
            struct image golden;
            char path[4096];
            int r;

            snprintf(path, sizeof(path), "%s/%s_%s_%s_%d.png", folder, prefix, tag, cameras[c].name, sizes[s]);
            if (access(path, R_OK) < 0)
                continue;
            r = image_read(path, &golden, error);
            if (r < 0)
                return r;
            if (!mine || golden.height != sizes[s] || golden.width != sizes[s])
                r = error_set(error, EINVAL, "%s: a picture of %dx%d was expected", path, sizes[s], sizes[s]);
            else
                r = sim_render_camera(renderers[s], &slot->base, cameras[c].camera, mine);
            if (r == 0)
                compare_picture(mine, &golden, strrchr(path, '/') + 1, result);
            free(golden.rgb);
            if (r < 0)
                return error_prefix(error, r, "%s", path);
        }
    return 0;
}

static int replay(struct libero_slot *slot, const struct zip_archive *file, const char *folder, const char *prefix,
                  struct sim_renderer *const renderers[], struct check_result *result, struct error *error)
{
    _cleanup_free_ double *init = NULL, *actions = NULL, *burner = NULL;
    double poses[LIBERO_MAX_FIXTURES][7] = {0};
    size_t steps, width = (size_t)slot->task->init.width;
    int r = check_read_exactly(file, "init_state", width, 1, &init, error);

    if (r == 0)
        r = check_read_rows(file, "actions", 7, &actions, &steps, error);
    if (r == 0)
        r = check_read_fixtures(slot->task, file, poses, error);
    if (r < 0)
        return r;
    r = libero_set_state(slot, init, (const double (*)[7])poses);
    if (r == 0)
        r = compare_tag(slot, folder, prefix, "init", renderers, result, error);
    for (size_t t = 0; t < steps && r == 0; t++)
        r = libero_step(slot, actions + 7 * t);
    if (r == 0)
        r = compare_tag(slot, folder, prefix, "step20", renderers, result, error);
    if (r < 0 || !zip_find(file, "burner_state.npy"))
        return r;
    r = check_read_exactly(file, "burner_state", width, 1, &burner, error);
    if (r == 0)
        r = libero_set_state(slot, burner, (const double (*)[7])poses);
    return r < 0 ? r : compare_tag(slot, folder, prefix, "burner", renderers, result, error);
}

int check_images(const struct libero_task *task, const char *path, struct sim_renderer *const renderers[2],
                 struct check_result *ret, struct error *error)
{
    _cleanup_(zip_closep) struct zip_archive *file = NULL;
    _cleanup_free_ char *folder = strdup(path);
    struct libero_slot slot;
    char prefix[64];
    int r;

    if (!folder)
        return error_set(error, ENOMEM, "%s: out of memory", path);
    *strrchr(folder, '/') = '\0';
    snprintf(prefix, sizeof(prefix), "%s_%d", task->suite->name, task->index);
    r = zip_open(path, &file, error);
    if (r < 0)
        return r;
    if (libero_slot_init(&slot, task, LIBERO_REFERENCE) < 0)
        return error_set(error, ENOMEM, "%s: out of memory", path);
    slot.base.task = (struct sim_task *)(uintptr_t)&task->base;
    *ret = (struct check_result) { .first_bad = -1, .pixels = 1 };
    r = replay(&slot, file, folder, prefix, renderers, ret, error);
    libero_slot_release(&slot);
    return r < 0 && error && !error->errnum ? error_set(error, -r, "%s: the simulation broke", path) : r;
}
