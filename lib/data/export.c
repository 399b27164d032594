#include "data/export.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/atomic_file.h"
#include "base/episode.h"
#include "base/json_write.h"
#include "base/npz_write.h"
#include "run/trajectory.h"

static void camera_name(uint32_t camera, char ret[32])
{
    if (camera < 2)
        snprintf(ret, 32, "%s", camera ? "wrist_image" : "image");
    else
        snprintf(ret, 32, "image_%u", camera);
}

/* One camera's pictures of the T steps, or of those at which there are any, together. */
static int add_pictures(struct npz *npz, const Gantry__Trajectory *t, const uint8_t *frames, uint32_t camera, struct error *error)
{
    size_t one = (size_t)t->height * t->width * 3, all = one * MAX(t->images, 1u), n = trajectory_observed(t) - 1;
    size_t shape[] = {n, t->height, t->width, 3};
    _cleanup_free_ uint8_t *pictures = malloc(one * n);
    char name[32];

    if (!pictures)
        return error_set(error, ENOMEM, "out of memory");
    for (size_t i = 0; i < n; i++)
        memcpy(pictures + i * one, frames + i * all + camera * one, one);
    camera_name(camera, name);
    return npz_add(npz, name, "|u1", shape, 4, pictures, error);
}

static int add_all(struct npz *npz, const Gantry__Trajectory *t, const uint8_t *frames, struct error *error)
{
    size_t action[] = {t->steps, t->action_dims}, state[] = {t->steps, t->n_state / ((size_t)t->steps + 1)};
    uint8_t success = t->success;
    int r = npz_add(npz, "action", "<f4", action, 2, t->action, error);

    if (r >= 0 && state[1])
        r = npz_add(npz, "state", "<f4", state, 2, t->state, error);
    for (uint32_t c = 0; c < MAX(t->images, 1u) && r >= 0; c++)
        r = add_pictures(npz, t, frames, c, error);
    if (r >= 0 && t->n_observed) {
        size_t drawn[] = {t->n_observed - 1};

        r = npz_add(npz, "observed", "<u4", drawn, 1, t->observed, error);
    }
    if (r >= 0)
        r = npz_add_text(npz, "instruction", t->instruction, error);
    if (r >= 0)
        r = npz_add_text(npz, "task", t->task, error);
    if (r >= 0)
        r = npz_add_text(npz, "image_chain", t->image_chain[0] ? t->image_chain : "render", error);
    if (r >= 0)
        r = npz_add(npz, "success", "|b1", NULL, 0, &success, error);
    return r < 0 ? r : npz_add(npz, "episode", "<u8", NULL, 0, &t->episode, error);
}

/* The record is this build's or another's: what is read below must be there. */
static int check(const Gantry__Trajectory *t, size_t n_frames, struct error *error)
{
    const char *problem = episode_check_observed(t->observed, t->n_observed, t->turns, t->n_turns, t->steps);

    if (problem)
        return error_set(error, EBADMSG, "episode %" PRIu64 ": %s", t->episode, problem);
    if (!t->steps || !t->action_dims || t->n_action != (size_t)t->steps * t->action_dims ||
        n_frames != trajectory_observed(t) * MAX(t->images, 1u) * t->height * t->width * 3 || t->n_state % ((size_t)t->steps + 1))
        return error_set(error, EBADMSG, "episode %" PRIu64 ": its actions, state or pictures are not as many as its steps",
                         t->episode);
    return 0;
}

static int export_one(const Gantry__Trajectory *t, const uint8_t *frames, size_t n_frames, const char *dir, int number,
                      struct error *error)
{
    struct npz npz;
    char path[4096];
    int r = check(t, n_frames, error), closed;

    if (r >= 0 && snprintf(path, sizeof path, "%s/episode_%06d.npz", dir, number) >= (int)sizeof path)
        r = error_set(error, ENAMETOOLONG, "%s: the path is too long", dir);
    if (r >= 0)
        r = npz_create(path, &npz, error);
    if (r < 0)
        return r;
    r = add_all(&npz, t, frames, error);
    closed = npz_close(&npz, r < 0 ? NULL : error);
    return r < 0 ? r : closed;
}

static int write_info(const char *dir, const struct export_result *result, struct error *error)
{
    _cleanup_(strbuf_release) struct strbuf text = STRBUF_INIT;
    struct json_writer j = {.out = &text};
    char path[4096];
    int r;

    json_open(&j, NULL, '{');
    json_text(&j, "format", "gantry-npz-1");
    json_signed(&j, "episodes", result->episodes);
    json_signed(&j, "steps", result->steps);
    json_signed(&j, "left_out", result->left_out);
    json_close(&j, '}');
    strbuf_addc(&text, '\n');
    snprintf(path, sizeof path, "%s/info.json", dir);
    r = text.failed ? -ENOMEM : file_write(path, text.text, text.length);
    return r < 0 ? error_set(error, -r, "%s: %s", path, strerror(-r)) : 0;
}

struct record {
    Gantry__Trajectory *t;
    uint8_t *frames;
    size_t n;
};

static void record_release(struct record *record)
{
    trajectory_freep(&record->t);
    free(record->frames);
}

int dataset_export(struct journal *journal, const struct journal_entry *entries, size_t n, const char *to,
                   const struct export_options *options, struct export_result *ret, struct error *error)
{
    _cleanup_(staged_dir_release) struct staged_dir dir = {0};
    struct export_result result = {0};
    int r = staged_dir_open(&dir, to, error);

    for (size_t i = 0; i < n && r >= 0; i++) {
        _cleanup_(record_release) struct record look = {0}, whole = {0};

        r = trajectory_load(journal, entries[i].episode, &look.t, NULL, NULL, error);
        if (r < 0)
            break;
        if ((!look.t->success && !options->all) || (options->purpose && (int)look.t->purpose != options->purpose)) {
            result.left_out++;
            continue;
        }
        r = trajectory_load(journal, entries[i].episode, &whole.t, &whole.frames, &whole.n, error);
        if (r >= 0)
            r = export_one(whole.t, whole.frames, whole.n, dir.temporary, result.episodes + 1, error);
        if (r < 0)
            break;
        result.episodes++;
        result.steps += whole.t->steps;
        if (options->tell && !options->tell(options->arg, (int)i + 1, (int)n, result.steps))
            r = error_set(error, ECANCELED, "stopped after %zu of %zu episodes", i + 1, n);
    }
    if (r >= 0 && !result.episodes)
        r = error_set(error, ENODATA, "none of %zu episodes succeeded%s: nothing is exported", n,
                      options->purpose ? " and is of that kind" : "");
    if (r >= 0)
        r = write_info(dir.temporary, &result, error);
    if (r >= 0)
        r = staged_dir_commit(&dir, error);
    if (r >= 0)
        *ret = result;
    return r;
}
