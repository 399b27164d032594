/* sim_render.c - `gantry sim render`: what each camera sees in a state, as PNG files. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/macro.h"
#include "cli/cli.h"
#include "cli/model.h"
#include "cli/sim.h"

static int render_state(struct sim_target *target, struct sim_renderer *renderer, struct sim_slot *slot, int size, uint64_t state,
                        const char *prefix, struct error *error)
{
    _cleanup_free_ uint8_t *rgb = malloc((size_t)size * (size_t)size * 3);
    char path[4096];
    int r = rgb ? sim_reset(slot, target->split, state, NULL) : -ENOMEM;

    if (r < 0)
        return error_set(error, -r, "%s state %" PRIu64 ": reset: %s", sim_split_name(target->split), state, strerror(-r));
    for (int camera = 0; camera < target->info->cameras; camera++) {
        r = sim_render_camera(renderer, slot, camera, rgb);
        if (r < 0)
            return error_set(error, -r, "camera %d: %s", camera, strerror(-r));
        snprintf(path, sizeof(path), "%s-%s%" PRIu64 "-camera%d.png", prefix, sim_split_name(target->split), state, camera);
        r = image_write_png(path, rgb, size, size);
        if (r < 0)
            return error_set(error, -r, "%s: %s", path, strerror(-r));
        printf("%s\n", path);
    }
    return 0;
}

int sim_render_verb(int argc, char **argv)
{
    struct sim_target target;
    struct error error = {0};
    struct sim_renderer *renderer = NULL;
    struct sim_slot *slot = NULL;
    const char *prefix;
    long size;
    int r = sim_target_read(&argc, argv, &target, &error);

    if (r == 0)
        r = sim_number(&argc, argv, "--size", 8, 4096, 256, &size, &error);
    if (r < 0)
        return sim_fail(&error, r);
    prefix = model_option(&argc, argv, "-o");
    if (argc != 0)
        return CLI_USAGE;
    r = sim_target_open(&target, &error);
    if (r < 0)
        return sim_fail(&error, r);
    r = sim_open_renderer(&target, (int)size, &renderer, &error);
    if (r == 0 && (r = sim_slot_new(target.task, &slot)) < 0)
        error_set(&error, -r, "a slot: %s", strerror(-r));
    for (uint64_t state = target.first; r == 0 && state <= target.last; state++)
        r = render_state(&target, renderer, slot, (int)size, state, prefix ? prefix : target.info->name, &error);
    sim_slot_free(slot);
    sim_renderer_close(renderer);
    sim_target_close(&target);
    return r < 0 ? sim_fail(&error, r) : CLI_OK;
}
