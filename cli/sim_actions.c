/* sim_actions.c - who acts in `gantry sim play`: the expert, a demonstrator's style, chance, nobody, or a file of actions.
 *
 * A file is numpy's .npy or .npz (its array `actions`), or text: an action a line, '#' begins a comment. */
#include "cli/sim_actions.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/atomic_file.h"
#include "base/npy.h"
#include "base/philox.h"

enum { FILE_MAX = 64 << 20, STEPS_MAX = 1 << 20 };

static int take_array(struct sim_actor *actor, const struct npy *array, const char *path, struct error *error)
{
    if (array->kind == 'U' || array->dims != 2 || array->shape[1] != (size_t)actor->dims || array->shape[0] > STEPS_MAX)
        return error_set(error, EINVAL, "%s: expected an array of (steps, %d) numbers", path, actor->dims);
    actor->actions = malloc(sizeof(*actor->actions) * (array->count ? array->count : 1));
    if (!actor->actions)
        return error_set(error, ENOMEM, "%s: out of memory", path);
    for (size_t i = 0; i < array->count; i++)
        actor->actions[i] = (float)npy_number(array, i);
    actor->n = (int)array->shape[0];
    return 0;
}

static int read_npz(struct sim_actor *actor, const char *path, struct error *error)
{
    _cleanup_(zip_closep) struct zip_archive *archive = NULL;
    struct npy array = {0};
    int r = zip_open(path, &archive, error);

    if (r == 0)
        r = npy_read(archive, "actions", &array, error);
    if (r == 0)
        r = take_array(actor, &array, path, error);
    npy_release(&array);
    return r;
}

static int read_npy(struct sim_actor *actor, const char *path, const char *bytes, size_t n, struct error *error)
{
    struct npy array = {0};
    int r = npy_parse(path, (const uint8_t *)bytes, n, &array, error);

    if (r == 0)
        r = take_array(actor, &array, path, error);
    npy_release(&array);
    return r;
}

static int parse_line(char *line, int dims, float *ret, const char *path, int number, struct error *error)
{
    char *at = line, *end;

    for (int i = 0; i < dims; i++, at = end) {
        ret[i] = strtof(at, &end);
        if (end == at)
            return error_set(error, EINVAL, "%s: line %d: %d numbers; an action has %d", path, number, i, dims);
    }
    if (at[strspn(at, " \t\r")])
        return error_set(error, EINVAL, "%s: line %d: '%.20s' behind the %d numbers of an action", path, number, at, dims);
    return 0;
}

static int read_text(struct sim_actor *actor, const char *path, char *text, struct error *error)
{
    size_t lines = 1;
    int number = 0, r = 0;

    for (const char *c = text; *c; c++)
        lines += *c == '\n';
    actor->actions = calloc(lines * (size_t)actor->dims, sizeof(*actor->actions));
    if (!actor->actions)
        return error_set(error, ENOMEM, "%s: out of memory", path);
    for (char *line = text, *next; line && r == 0; line = next) {
        next = strchr(line, '\n');
        if (next)
            *next++ = '\0';
        number++;
        line[strcspn(line, "#")] = '\0';
        if (line[strspn(line, " \t\r")])
            r = parse_line(line, actor->dims, actor->actions + (size_t)actor->dims * (size_t)actor->n++, path, number, error);
    }
    return r;
}

static int read_actions(struct sim_actor *actor, const char *path, struct error *error)
{
    _cleanup_free_ char *text = NULL;
    size_t n;
    int r = file_read(path, FILE_MAX, &text, &n);

    if (r < 0)
        return error_set(error, -r, "--policy: '%s' is not expert, clean, slow, random, no-op or a readable file of actions: %s",
                         path, strerror(-r));
    if (n > 4 && !memcmp(text, "PK\3\4", 4))
        return read_npz(actor, path, error);
    if (n > 6 && !memcmp(text, "\x93NUMPY", 6))
        return read_npy(actor, path, text, n, error);
    return read_text(actor, path, text, error);
}

int sim_actor_init(struct sim_actor *actor, const char *policy, int dims, struct error *error)
{
    static const struct {
        const char *name;
        enum sim_actor_kind kind;
    } names[] = {
        {"expert", SIM_ACTOR_EXPERT}, {"clean", SIM_ACTOR_STYLE}, {"slow", SIM_ACTOR_STYLE},
        {"random", SIM_ACTOR_RANDOM}, {"no-op", SIM_ACTOR_NO_OP},
    };

    *actor = (struct sim_actor){.kind = SIM_ACTOR_FILE, .name = policy, .dims = dims};
    for (size_t i = 0; i < ARRAY_SIZE(names); i++)
        if (!strcmp(policy, names[i].name)) {
            actor->kind = names[i].kind;
            return 0;
        }
    return read_actions(actor, policy, error);
}

void sim_actor_release(struct sim_actor *actor)
{
    free(actor->actions);
    *actor = (struct sim_actor){0};
}

int sim_actor_act(const struct sim_actor *actor, struct sim_slot *slot, uint64_t state, int step, float *ret)
{
    struct philox draws = philox_at(state, PHILOX_NOISE, (uint64_t)step, 0, 0);
    float label[SIM_ACTION_MAX];

    switch (actor->kind) {
    case SIM_ACTOR_EXPERT: return sim_expert(slot, ret);
    case SIM_ACTOR_STYLE: return sim_demonstrate(slot, actor->name, state, step, ret, label);
    case SIM_ACTOR_FILE:
        if (step >= actor->n)
            return -ENODATA;
        memcpy(ret, actor->actions + (size_t)actor->dims * (size_t)step, sizeof(*ret) * (size_t)actor->dims);
        return 0;
    case SIM_ACTOR_RANDOM:
    case SIM_ACTOR_NO_OP: break;
    }
    for (int i = 0; i < actor->dims; i++)
        ret[i] = actor->kind == SIM_ACTOR_RANDOM ? 2 * philox_uniform(&draws) - 1 : 0;
    return 0;
}
