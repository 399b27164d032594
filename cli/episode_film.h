/* episode_film.h - a journaled episode as a film strip: what `gantry replay` writes and the report shows. */
#pragma once

#include "image/image.h"
#include "run/trajectory.h"

struct episode_film {
    Gantry__Trajectory *trajectory;     /* owned */
    uint8_t *frames;                    /* (n_frames, images, h, w, 3), owned */
    size_t n_frames;                    /* T+1, or as many observations as were drawn */
    int *steps;                         /* (n_frames) which step's each is, owned */
    float *progress;                    /* (n_frames) NAN: not scored; owned */
};

/* Load one episode. -ENOENT: not in the journal; -EBADMSG: damaged. */
int episode_film_load(struct journal *journal, uint64_t episode, struct episode_film *ret, struct error *error);
void episode_film_release(struct episode_film *film);

/* What the world did to it, and when: ", push before step 12"; ", push: it ended before that"; "": nothing. */
enum { EPISODE_BLOW = 80 };
void episode_blow(const Gantry__Trajectory *trajectory, char ret[EPISODE_BLOW]);

/* The strip; the caller frees ret->rgb. columns 0: the default. */
int episode_film_draw(const struct episode_film *film, struct image *ret);
/* The frames as an MP4, cameras side by side, small pictures enlarged. -ENOENT: no ffmpeg. */
int episode_film_video(const struct episode_film *film, double fps, const char *path, struct error *error);
