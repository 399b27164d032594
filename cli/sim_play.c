/* sim_play.c - `gantry sim play`: episodes without a run: who acts, how it ended, a film strip, a video.
 *
 * An episode is played first and drawn afterwards, from its saved states: a film needs ten pictures, not three hundred. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/atomic_file.h"
#include "base/clock.h"
#include "base/strbuf.h"
#include "cli/cli.h"
#include "cli/model.h"
#include "cli/sim.h"
#include "cli/sim_actions.h"
#include "cli/video.h"
#include "image/film.h"
#include "rl/stats.h"

enum { COLUMNS = 10 };
static const double Z95 = 1.959963984540054;

struct play {
    struct sim_target target;
    struct sim_actor actor;
    struct sim_slot *slot;
    struct sim_renderer *renderer; /* NULL: nothing is drawn */
    long size, camera, limit;
    const char *film, *video, *record; /* paths */
    uint8_t *states;                   /* (limit + 1, state_size), of which some are drawn at the end; ... */
    uint8_t *pictures;                 /* ... or, of a suite that saves none: (limit + 1, size, size, 3). NULL both: draws nothing */
    float *actions;                    /* (limit, 7) */
    int64_t played, solved, steps_of_solved;
};

static uint8_t *state_at(const struct play *p, int step) { return p->states + sim_state_size(p->target.task) * (size_t)step; }

static size_t picture_size(const struct play *p) { return (size_t)p->size * (size_t)p->size * 3; }

/* What the simulator says of its failure, or the number's words. */
static const char *reason(const struct play *p, int r)
{
    return sim_reason(p->slot)[0] ? sim_reason(p->slot) : r == -EIO ? "the simulation broke" : strerror(-r);
}

/* Many states: the state's number goes in front of the ending. */
static void path_for(const struct play *p, const char *path, uint64_t state, char *ret, size_t n)
{
    const char *slash = strrchr(path, '/'), *dot = strrchr(slash ? slash : path, '.');

    if (p->target.first == p->target.last)
        snprintf(ret, n, "%s", path);
    else
        snprintf(ret, n, "%.*s-%" PRIu64 "%s", dot ? (int)(dot - path) : (int)strlen(path), path, state, dot ? dot : "");
}

/* The present state, for draw later. */
static int keep(struct play *p, int step)
{
    if (p->pictures)
        return sim_render_camera(p->renderer, p->slot, (int)p->camera, p->pictures + picture_size(p) * (size_t)step);
    return p->states ? sim_save(p->slot, state_at(p, step)) : 0;
}

static int draw(struct play *p, int step, uint8_t *ret_rgb)
{
    int r;

    if (p->pictures) {
        memcpy(ret_rgb, p->pictures + picture_size(p) * (size_t)step, picture_size(p));
        return 0;
    }
    r = sim_restore(p->slot, state_at(p, step));
    return r < 0 ? r : sim_render_camera(p->renderer, p->slot, (int)p->camera, ret_rgb);
}

static int write_film(struct play *p, uint64_t state, int steps, bool success, const char *instruction, struct error *error)
{
    const size_t picture = picture_size(p);
    const int columns = MIN(COLUMNS, steps + 1);
    _cleanup_free_ uint8_t *frames = malloc(picture * (size_t)columns);
    char path[4096], title[300];
    int numbers[COLUMNS], r = frames ? 0 : -ENOMEM;

    for (int c = 0; c < columns && r == 0; c++) {
        numbers[c] = film_frame_of(c, columns, steps + 1);
        r = draw(p, numbers[c], frames + picture * (size_t)c);
    }
    if (r < 0)
        return error_set(error, -r, "the film: %s", strerror(-r));
    path_for(p, p->film, state, path, sizeof(path));
    snprintf(title, sizeof(title), "%s - %s after %d steps (%s, %s %" PRIu64 ")", instruction, success ? "success" : "no success",
             steps, p->actor.name, sim_split_name(p->target.split), state);
    r = film_write_png(path, &(struct film){.frames = frames,
                                            .numbers = numbers,
                                            .n = columns,
                                            .height = (int)p->size,
                                            .width = (int)p->size,
                                            .title = title,
                                            .columns = columns,
                                            .cell = (int)p->size});
    if (r < 0)
        return error_set(error, -r, "%s: %s", path, strerror(-r));
    printf("%s\n", path);
    return 0;
}

static int write_video(struct play *p, uint64_t state, int steps, struct error *error)
{
    _cleanup_free_ uint8_t *rgb = malloc(picture_size(p));
    struct video *video;
    char path[4096];
    int r, closed;

    path_for(p, p->video, state, path, sizeof(path));
    if (!rgb)
        return error_set(error, ENOMEM, "%s: out of memory", path);
    r = video_open(path, (int)p->size, (int)p->size, p->target.info->control_hz, &video, error);
    if (r < 0)
        return r;
    for (int t = 0; t <= steps && r == 0; t++) {
        r = draw(p, t, rgb);
        if (r == 0)
            r = video_add(video, rgb);
    }
    closed = video_close(video, error);
    if (closed < 0)
        return closed;
    if (r < 0)
        return error_set(error, -r, "%s: %s", path, strerror(-r));
    printf("%s\n", path);
    return 0;
}

static int write_actions(const struct play *p, uint64_t state, int steps, struct error *error)
{
    const int dims = p->target.info->action_dims;
    _cleanup_(strbuf_release) struct strbuf out = STRBUF_INIT;
    char path[4096];
    int r;

    path_for(p, p->record, state, path, sizeof(path));
    strbuf_addf(&out, "# %s %s, %s state %" PRIu64 ", %s%s\n", p->target.suite_name, p->target.info->name,
                sim_split_name(p->target.split), state, p->actor.name,
                dims == SIM_ACTION_DIMS ? ": dx dy dz droll dpitch dyaw gripper" : "");
    for (int t = 0; t < steps; t++)
        for (int i = 0; i < dims; i++)
            strbuf_addf(&out, "%.9g%c", (double)p->actions[dims * t + i], i == dims - 1 ? '\n' : ' ');
    r = out.failed ? -ENOMEM : atomic_file_write_through(path, out.text, out.length);
    if (r < 0)
        return error_set(error, -r, "%s: %s", path, strerror(-r));
    printf("%s\n", path);
    return 0;
}

/* One episode; *ret_steps and *ret_success: how it ended. */
static int play_episode(struct play *p, uint64_t state, int *ret_steps, bool *ret_success, struct error *error)
{
    bool success = false;
    int t = 0, r = keep(p, 0);

    while (r == 0 && t < p->limit && !success) {
        float *action = p->actions + p->target.info->action_dims * t;

        r = sim_actor_act(&p->actor, p->slot, state, t, action);
        if (r == -ENODATA)
            break;
        if (r == -ENOTSUP)
            return error_set(error, ENOTSUP, "%s %s has no %s: gantry sim play --policy random|no-op|FILE", p->target.suite_name,
                             p->target.info->name, p->actor.kind == SIM_ACTOR_STYLE ? "demonstrator" : "expert");
        if (r == 0)
            r = sim_step(p->slot, action, &success);
        if (r == 0)
            r = keep(p, ++t);
    }
    if (r < 0 && r != -ENODATA)
        return error_set(error, -r, "%s state %" PRIu64 ", step %d: %s", sim_split_name(p->target.split), state, t, reason(p, r));
    *ret_steps = t;
    *ret_success = success;
    return 0;
}

static int play_state(struct play *p, uint64_t state, struct error *error)
{
    const char *instruction;
    char words[160];
    uint64_t begun = clock_mono_ms();
    bool success = false;
    int steps = 0, r = sim_reset(p->slot, p->target.split, state, &instruction);

    if (r < 0)
        return error_set(error, -r, "%s state %" PRIu64 ": reset: %s", sim_split_name(p->target.split), state, reason(p, r));
    snprintf(words, sizeof(words), "%s", instruction);
    r = play_episode(p, state, &steps, &success, error);
    if (r < 0)
        return r;
    printf("%s %-4" PRIu64 " %-10s %3d steps  %.1f s  %s\n", sim_split_name(p->target.split), state,
           success ? "success" : "no success", steps, (double)(clock_mono_ms() - begun) / 1000, words);
    fflush(stdout);
    p->played++;
    p->solved += success;
    p->steps_of_solved += success ? steps : 0;
    if (p->film)
        r = write_film(p, state, steps, success, words, error);
    if (r == 0 && p->video)
        r = write_video(p, state, steps, error);
    if (r == 0 && p->record)
        r = write_actions(p, state, steps, error);
    return r;
}

static int play_all(struct play *p, struct error *error)
{
    struct interval interval;
    int r = 0;

    for (uint64_t state = p->target.first; r == 0 && state <= p->target.last; state++)
        r = play_state(p, state, error);
    if (r < 0 || p->played < 2)
        return r;
    interval = wilson(p->solved, p->played, Z95);
    printf("%s: %" PRId64 " of %" PRId64 " solved, %.2f [%.2f %.2f]", p->actor.name, p->solved, p->played,
           (double)p->solved / (double)p->played, interval.low, interval.high);
    if (p->solved)
        printf(", in %.0f steps on average", (double)p->steps_of_solved / (double)p->solved);
    printf("\n");
    return 0;
}

static int open_all(struct play *p, const char *policy, struct error *error)
{
    int r = sim_target_open(&p->target, error);

    if (r == 0)
        r = sim_actor_init(&p->actor, policy, p->target.info->action_dims, error);
    if (r < 0)
        return r;
    if (p->camera >= p->target.info->cameras)
        return error_set(error, EINVAL, "--camera: %s has cameras 0 to %d, not %ld", p->target.suite_name,
                         p->target.info->cameras - 1, p->camera);
    if (!p->limit)
        p->limit = p->target.info->max_steps;
    if (p->film || p->video)
        r = sim_open_renderer(&p->target, (int)p->size, &p->renderer, error);
    if (r < 0)
        return r;
    p->actions = calloc((size_t)p->limit, sizeof(float) * (size_t)p->target.info->action_dims);
    if (p->renderer && sim_state_size(p->target.task))
        p->states = calloc((size_t)p->limit + 1, sim_state_size(p->target.task));
    else if (p->renderer)
        p->pictures = calloc((size_t)p->limit + 1, picture_size(p));
    r = p->actions && (!p->renderer || p->states || p->pictures) ? sim_slot_new(p->target.task, &p->slot) : -ENOMEM;
    return r < 0 ? error_set(error, -r, "a slot: %s", strerror(-r)) : 0;
}

static void close_all(struct play *p)
{
    sim_slot_free(p->slot);
    sim_renderer_close(p->renderer);
    sim_target_close(&p->target);
    sim_actor_release(&p->actor);
    free(p->states);
    free(p->pictures);
    free(p->actions);
}

int sim_play(int argc, char **argv)
{
    struct play p = {0};
    struct error error = {0};
    const char *policy = model_option(&argc, argv, "--policy");
    int r;

    p.film = model_option(&argc, argv, "-o");
    p.video = model_option(&argc, argv, "--video");
    p.record = model_option(&argc, argv, "--record");
    r = sim_target_read(&argc, argv, &p.target, &error);
    if (r == 0)
        r = sim_number(&argc, argv, "--size", 8, 4096, 256, &p.size, &error);
    if (r == 0)
        r = sim_number(&argc, argv, "--camera", 0, 15, 0, &p.camera, &error);
    if (r == 0)
        r = sim_number(&argc, argv, "--steps", 1, 100000, 0, &p.limit, &error);
    if (r < 0)
        return sim_fail(&error, r);
    if (argc != 0 || (p.film && !p.film[0]) || (p.video && !p.video[0]) || (p.record && !p.record[0]) || (policy && !policy[0]))
        return CLI_USAGE;
    r = open_all(&p, policy ? policy : "expert", &error);
    if (r == 0)
        r = play_all(&p, &error);
    close_all(&p);
    return r < 0 ? sim_fail(&error, r) : CLI_OK;
}
