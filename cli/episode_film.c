#include "cli/episode_film.h"

#include <errno.h>
#include <inttypes.h>

#include "image/film.h"

int episode_film_load(struct journal *journal, uint64_t episode, struct episode_film *ret, struct error *error)
{
    _cleanup_free_ uint8_t *meta = NULL, *frames = NULL;
    Gantry__Trajectory *trajectory;
    size_t n_meta, n_frames, picture;
    int r = journal_load(journal, episode, &meta, &n_meta, &frames, &n_frames, error);

    if (r < 0)
        return r;
    trajectory = gantry__trajectory__unpack(NULL, n_meta, meta);
    if (!trajectory)
        return error_set(error, EBADMSG, "episode %" PRIu64 ": its trajectory cannot be unpacked", episode);
    picture = (size_t)trajectory->height * trajectory->width * 3 * MAX(trajectory->images, 1u);
    if (!picture || n_frames % picture || n_frames / picture != (size_t)trajectory->steps + 1) {
        gantry__trajectory__free_unpacked(trajectory, NULL);
        return error_set(error, EBADMSG, "episode %" PRIu64 ": %zu bytes of frames do not make %u pictures", episode, n_frames,
                         trajectory->steps + 1);
    }
    *ret = (struct episode_film) {.trajectory = trajectory, .frames = TAKE_PTR(frames), .n_frames = trajectory->steps + 1};
    return 0;
}

void episode_film_release(struct episode_film *film)
{
    if (film->trajectory)
        gantry__trajectory__free_unpacked(film->trajectory, NULL);
    free(film->frames);
    *film = (struct episode_film) {0};
}

int episode_film_draw(const struct episode_film *f, int columns, struct image *ret)
{
    const Gantry__Trajectory *t = f->trajectory;
    char title[240];

    snprintf(title, sizeof title, "%s - %s in %u steps (episode %" PRIu64 ", policy %" PRIu64 ", T %.2g)", t->instruction,
             t->success ? "success" : t->timeout ? "out of time" : "failure", t->steps, t->episode, t->policy_version, (double)t->temperature);
    return film_draw(&(struct film) {.frames = f->frames, .n = (int)f->n_frames, .height = (int)t->height, .width = (int)t->width,
                                     .cameras = (int)t->images,
                                     .progress = t->n_progress == f->n_frames ? t->progress : NULL, .title = title,
                                     .columns = columns, .cell = 64}, ret);
}
