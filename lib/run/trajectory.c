#include "run/trajectory.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

int trajectory_load(struct journal *journal, uint64_t episode, Gantry__Trajectory **ret_trajectory, uint8_t **ret_frames,
                    size_t *ret_n, struct error *error)
{
    _cleanup_free_ uint8_t *meta = NULL, *frames = NULL;
    Gantry__Trajectory *trajectory;
    size_t n_meta, n_frames = 0;
    int r = journal_load(journal, episode, &meta, &n_meta, ret_frames ? &frames : NULL, ret_frames ? &n_frames : NULL, error);

    if (r < 0)
        return r;
    trajectory = gantry__trajectory__unpack(NULL, n_meta, meta);
    if (!trajectory)
        return error_set(error, EBADMSG, "episode %" PRIu64 ": its journal record is no trajectory", episode);
    *ret_trajectory = trajectory;
    if (ret_frames) {
        *ret_frames = TAKE_PTR(frames);
        *ret_n = n_frames;
    }
    return 0;
}

void trajectory_freep(Gantry__Trajectory **trajectory)
{
    if (*trajectory)
        gantry__trajectory__free_unpacked(*trajectory, NULL);
    *trajectory = NULL;
}
