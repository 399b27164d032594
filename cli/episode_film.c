#include "cli/episode_film.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>

#include "cli/video.h"
#include "image/film.h"

/* Of each frame: which step's it is, and what the reward model said of it. */
static int note_steps(const Gantry__Trajectory *t, struct episode_film *film)
{
    size_t n = trajectory_observed(t);
    _cleanup_free_ int *steps = malloc(n * sizeof *steps);
    _cleanup_free_ float *progress = malloc(n * sizeof *progress);

    if (!steps || !progress)
        return -ENOMEM;
    for (size_t i = 0; i < n; i++) {
        steps[i] = (int)(t->n_observed ? t->observed[i] : i);
        if (steps[i] < 0 || steps[i] > (int)t->steps)
            return -EBADMSG;
        progress[i] = t->n_progress == (size_t)t->steps + 1 ? t->progress[steps[i]] : NAN;
    }
    film->steps = TAKE_PTR(steps);
    film->progress = TAKE_PTR(progress);
    return 0;
}

int episode_film_load(struct journal *journal, uint64_t episode, struct episode_film *ret, struct error *error)
{
    _cleanup_(trajectory_freep) Gantry__Trajectory *trajectory = NULL;
    _cleanup_free_ uint8_t *frames = NULL;
    size_t n_frames, picture;
    int r = trajectory_load(journal, episode, &trajectory, &frames, &n_frames, error);

    if (r < 0)
        return r;
    picture = (size_t)trajectory->height * trajectory->width * 3 * MAX(trajectory->images, 1u);
    if (!picture || n_frames % picture || n_frames / picture != trajectory_observed(trajectory))
        return error_set(error, EBADMSG, "episode %" PRIu64 ": %zu bytes of frames do not make %zu pictures", episode, n_frames,
                         trajectory_observed(trajectory));
    ret->n_frames = trajectory_observed(trajectory);
    r = note_steps(trajectory, ret);
    if (r < 0)
        return error_set(error, -r, "episode %" PRIu64 ": %s", episode, r == -ENOMEM ? "out of memory" : "its record is damaged");
    ret->trajectory = TAKE_PTR(trajectory);
    ret->frames = TAKE_PTR(frames);
    return 0;
}

void episode_film_release(struct episode_film *film)
{
    trajectory_freep(&film->trajectory);
    free(film->frames);
    free(film->steps);
    free(film->progress);
    *film = (struct episode_film) {0};
}

void episode_blow(const Gantry__Trajectory *t, char ret[EPISODE_BLOW])
{
    ret[0] = '\0';
    if (t->perturbed_at)
        snprintf(ret, EPISODE_BLOW, ", %s before step %u", t->perturb, t->perturbed_at - 1);
    else if (t->perturb && t->perturb[0])
        snprintf(ret, EPISODE_BLOW, ", %s: it ended before that", t->perturb);
}

int episode_film_draw(const struct episode_film *f, struct image *ret)
{
    const Gantry__Trajectory *t = f->trajectory;
    char title[320], blow[EPISODE_BLOW];

    episode_blow(t, blow);
    snprintf(title, sizeof title, "%s - %s in %u steps%s (episode %" PRIu64 ", policy %" PRIu64 ", T %.2g)", t->instruction,
             t->success ? "success" : t->timeout ? "out of time" : "failure", t->steps, blow, t->episode, t->policy_version,
             (double)t->temperature);
    return film_draw(&(struct film) {.frames = f->frames, .n = (int)f->n_frames, .height = (int)t->height, .width = (int)t->width,
                                     .cameras = (int)t->images,
                                     .progress = isnan(f->progress[0]) ? NULL : f->progress, .title = title, .numbers = f->steps,
                                     .cell = 64}, ret);
}

enum { VIDEO_LEAST = 256 };     /* pixels high: players enlarge, but blur */

/* One frame's pictures beside each other, each pixel `scale` wide and high. */
static void join_cameras(const struct episode_film *f, size_t frame, size_t scale, uint8_t *rgb)
{
    size_t h = f->trajectory->height, w = f->trajectory->width, n = MAX(f->trajectory->images, 1u), across = n * w * scale;
    const uint8_t *from = f->frames + frame * n * h * w * 3;

    for (size_t y = 0; y < h * scale; y++)
        for (size_t x = 0; x < across; x++)
            memcpy(rgb + (y * across + x) * 3, from + ((x / scale / w * h + y / scale) * w + x / scale % w) * 3, 3);
}

int episode_film_video(const struct episode_film *f, double fps, const char *path, struct error *error)
{
    size_t h = f->trajectory->height, w = f->trajectory->width * MAX(f->trajectory->images, 1u), scale = MAX(VIDEO_LEAST / h, 1u);
    _cleanup_free_ uint8_t *rgb = malloc(h * w * scale * scale * 3);
    struct video *video;
    int r, closed;

    if (!rgb)
        return error_set(error, ENOMEM, "%s: out of memory", path);
    r = video_open(path, (int)(h * scale), (int)(w * scale), fps, &video, error);
    if (r < 0)
        return r;
    for (size_t i = 0; i < f->n_frames && r == 0; i++) {
        join_cameras(f, i, scale, rgb);
        r = video_add(video, rgb);
    }
    closed = video_close(video, error);
    return closed < 0 ? closed : r < 0 ? error_set(error, -r, "%s: %s", path, strerror(-r)) : 0;
}
