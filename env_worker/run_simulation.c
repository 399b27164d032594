#include "env_worker/run_simulation.h"

#include <errno.h>
#include <string.h>

#include "base/log.h"
#include "daemon/run_config.h"

static void say_what_draws(const struct simulation *simulation, const char *suite, int image, int device, unsigned slots)
{
    const struct frames_shape *shape = simulation_shape(simulation);

    if (device != -1 && simulation_renders_in_software(simulation))
        log_warn("pictures are drawn by the CPU, ten times slower and more: no GPU renders here", "renderer=%s remedy=%s",
                 LOG_Q(simulation_renderer(simulation)),
                 LOG_Q("install the driver's EGL (libnvidia-gl), see that the render node is open to this user, or ask for "
                       "software"));
    log_info("simulator open", "suite=%s image=%d cameras=%u state=%u renderer=%s slots=%u", suite, image, shape->cameras,
             shape->state, LOG_Q(simulation_renderer(simulation)), slots);
}

int run_simulation_open(struct slot_shared *shared, const char *config, int device, const char *simulator, struct error *error)
{
    _cleanup_free_ struct run_config *run = malloc(sizeof *run);       /* some 100 kB */
    int r;

    if (!run)
        return error_set(error, ENOMEM, "out of memory");
    if ((r = run_config_parse(config, strlen(config), "Welcome.config", run, error)) < 0)
        return r;
    shared->full = !strcmp(run->policy_support, "full");
    shared->ended = run->policy_eos_in_logp;
    snprintf(shared->chain, sizeof shared->chain, "%s", run->chain);
    r = simulation_new(shared->loop, &(struct simulation_options) {
        .suite = run->suite, .image = run->image, .chain = shared->chain, .render = run->render, .robosuite = run->robosuite,
        .substeps = (enum sim_substeps)run->substeps, .device = device, .remote = simulator ? simulator : run->remote,
        .slots = shared->slots, .cameras = run->cameras, .state = run->state,
    }, &shared->simulation, error);
    if (r < 0)
        return r;
    shared->shape = *simulation_shape(shared->simulation);
    say_what_draws(shared->simulation, run->suite, run->image, device, shared->slots);
    return 0;
}
