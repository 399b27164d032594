#include "cli/episode_film.h"

#include <errno.h>
#include <inttypes.h>

#include "image/film.h"

int episode_film_load(struct journal *journal, uint64_t episode, struct episode_film *ret, struct error *error)
{
    _cleanup_(trajectory_freep) Gantry__Trajectory *trajectory = NULL;
    _cleanup_free_ uint8_t *frames = NULL;
    size_t n_frames, picture;
    int r = trajectory_load(journal, episode, &trajectory, &frames, &n_frames, error);

    if (r < 0)
        return r;
    picture = (size_t)trajectory->height * trajectory->width * 3 * MAX(trajectory->images, 1u);
    if (!picture || n_frames % picture || n_frames / picture != (size_t)trajectory->steps + 1)
        return error_set(error, EBADMSG, "episode %" PRIu64 ": %zu bytes of frames do not make %u pictures", episode, n_frames,
                         trajectory->steps + 1);
    ret->n_frames = trajectory->steps + 1;
    ret->trajectory = TAKE_PTR(trajectory);
    ret->frames = TAKE_PTR(frames);
    return 0;
}

void episode_film_release(struct episode_film *film)
{
    trajectory_freep(&film->trajectory);
    free(film->frames);
    *film = (struct episode_film) {0};
}

int episode_film_draw(const struct episode_film *f, int columns, struct image *ret)
{
    const Gantry__Trajectory *t = f->trajectory;
    char title[240];

    snprintf(title, sizeof title, "%s - %s in %u steps (episode %" PRIu64 ", policy %" PRIu64 ", T %.2g)", t->instruction,
             t->success ? "success" : t->timeout ? "out of time" : "failure", t->steps, t->episode, t->policy_version,
             (double)t->temperature);
    return film_draw(&(struct film) {.frames = f->frames, .n = (int)f->n_frames, .height = (int)t->height, .width = (int)t->width,
                                     .cameras = (int)t->images,
                                     .progress = t->n_progress == f->n_frames ? t->progress : NULL, .title = title,
                                     .columns = columns, .cell = 64}, ret);
}
