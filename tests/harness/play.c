#include "tests/harness/play.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct play_world *play_world_close(struct play_world *w)
{
    if (!w)
        return NULL;
    for (int i = 0; i < PLAY_MAX_TASKS; i++) {
        for (int j = 0; j < PLAY_SLOTS; j++)
            sim_slot_free(w->slot[i][j]);
        sim_task_close(w->task[i]);
    }
    sim_renderer_close(w->renderer);
    sim_suite_close(w->suite);
    free(w);
    return NULL;
}

int play_world_open(const char *suite, const char *const *tasks, int n, int size, struct play_world **ret, struct error *error)
{
    _cleanup_(play_world_closep) struct play_world *w = calloc(1, sizeof *w);
    int r;

    if (!w)
        return -ENOMEM;
    if (n < 1 || n > PLAY_MAX_TASKS)
        return error_set(error, EINVAL, "%d tasks; 1 to %d can be played here", n, PLAY_MAX_TASKS);
    w->tasks = n;
    w->size = size;
    r = sim_suite_open(suite, NULL, &w->suite, error);
    if (r >= 0)
        r = sim_renderer_open(-2, size, size, &w->renderer, error);
    for (int i = 0; i < n && r >= 0; i++) {
        r = sim_task_open(w->suite, tasks[i], &w->task[i], error);
        for (int j = 0; j < PLAY_SLOTS && r >= 0; j++)
            r = sim_slot_new(w->task[i], &w->slot[i][j]);
    }
    if (r < 0)
        return r;
    *ret = TAKE_PTR(w);
    return 0;
}

/* One slot's episode in progress. */
struct seat {
    struct sim_slot *slot;
    struct play_row *row;       /* NULL: free */
    const char *instruction;
    int32_t *prompt; int n_prompt;
    int step, max_steps;
    uint8_t *frames;            /* (max_steps+1, frame) */
    float *label;               /* (max_steps, A) */
    uint32_t *tokens; float *logp;
};

struct stage {                  /* everything play_all holds */
    struct play_world *world;
    struct play *play;
    struct seat seat[PLAY_MAX_TASKS * PLAY_SLOTS]; int seats;
    int next[PLAY_MAX_TASKS];   /* next row to look at, per task */
    struct openvla_session *session, *judge;
    size_t frame;
};

static void seat_leave(struct seat *seat)
{
    free(seat->prompt);
    free(seat->frames);
    free(seat->label);
    free(seat->tokens);
    free(seat->logp);
    *seat = (struct seat) {.slot = seat->slot};
}

static void stage_release(struct stage *s)
{
    for (int i = 0; i < s->seats; i++)
        seat_leave(&s->seat[i]);
    openvla_session_free(s->session);
    openvla_session_free(s->judge);
}

/* Seat the task's next row, if there is one. */
static int seat_take(struct stage *s, int i)
{
    struct seat *seat = &s->seat[i];
    int task = i / PLAY_SLOTS, r;
    size_t steps;

    while (s->next[task] < s->play->n && s->play->rows[s->next[task]].task != task)
        s->next[task]++;
    if (s->next[task] == s->play->n)
        return 0;
    seat->row = &s->play->rows[s->next[task]++];
    seat->max_steps = s->play->max_steps[task] ? s->play->max_steps[task] : sim_task_info(s->world->task[task])->max_steps;
    steps = (size_t)seat->max_steps;
    seat->frames = malloc((steps + 1) * s->frame);
    seat->label = malloc(steps * SIM_ACTION_DIMS * sizeof *seat->label);
    seat->tokens = malloc(steps * SIM_ACTION_DIMS * sizeof *seat->tokens);
    seat->logp = malloc(steps * SIM_ACTION_DIMS * sizeof *seat->logp);
    if (!seat->frames || !seat->label || !seat->tokens || !seat->logp)
        return -ENOMEM;
    r = sim_reset(seat->slot, s->play->split, seat->row->state_seed, &seat->instruction);
    if (r >= 0 && s->play->policy)
        r = openvla_prompt(s->play->policy, seat->instruction, &seat->prompt, &seat->n_prompt);
    return r < 0 ? r : sim_render(s->world->renderer, seat->slot, seat->frames);
}

static int score(struct stage *s, const struct seat *seat, float *ret)
{
    const struct openvla *prm = s->play->prm;
    struct score_item items[32];
    int32_t *prompt, n_prompt;
    int r = openvla_reward_prompt(prm, seat->instruction, &prompt, &n_prompt);

    for (int first = 0; first <= seat->step && r >= 0; first += 32) {
        int n = MIN(32, seat->step + 1 - first);

        for (int i = 0; i < n; i++)
            items[i] = (struct score_item) {.images = {seat->frames, seat->frames + (size_t)(first + i) * s->frame},
                                            .n_images = 2, .prompt = prompt, .n_prompt = n_prompt};
        r = openvla_score(prm, s->judge, items, n, ret + first);
    }
    if (r >= 0 || r != -ENOMEM)
        free(prompt);
    return r;
}

static int seat_finish(struct stage *s, struct seat *seat, bool success, struct error *error)
{
    _cleanup_free_ float *progress = NULL;
    struct episode_input in = {
        .id = seat->row->id, .task = sim_task_info(s->world->task[seat->row->task])->name, .instruction = seat->instruction,
        .state_seed = seat->row->state_seed, .steps = seat->step, .max_steps = seat->max_steps, .success = success,
        .demo = s->play->style != NULL,
        .policy_version = s->play->version, .temperature = s->play->temperature, .height = s->world->size,
        .width = s->world->size,
        .action_dims = SIM_ACTION_DIMS, .frames = seat->frames, .n_frames = (size_t)(seat->step + 1) * s->frame, .images = 1,
    };
    size_t n = (size_t)seat->step * SIM_ACTION_DIMS;
    int r = 0;

    seat->row->success = success;
    seat->row->steps = seat->step;
    if (in.demo) {
        in.label = seat->label;
        in.n_label = n;
    } else {
        in.tokens = seat->tokens;
        in.logp = seat->logp;
        in.n_tokens = in.n_logp = n;
    }
    if (s->play->out && s->play->prm) {
        progress = malloc((size_t)(seat->step + 1) * sizeof *progress);
        r = progress ? score(s, seat, progress) : -ENOMEM;
        in.progress = progress;
        in.n_progress = (size_t)seat->step + 1;
    }
    if (s->play->out && r >= 0) {
        void *less = realloc(seat->frames, in.n_frames);

        in.frames = seat->frames = less ? less : seat->frames;
        r = dataset_add(s->play->out, &in, error);
        if (r >= 0)
            seat->frames = NULL;
    }
    seat_leave(seat);
    return r;
}

/* Actions of all busy seats: from the policy in one batch, or each from its demonstrator. */
static int choose(struct stage *s, const int *busy, int n, float (*ret_action)[SIM_ACTION_DIMS])
{
    const struct openvla *policy = s->play->policy;
    struct act_item items[PLAY_MAX_TASKS * PLAY_SLOTS] = {0};
    struct act_result results[PLAY_MAX_TASKS * PLAY_SLOTS];
    int r = 0;

    for (int i = 0; i < n && r >= 0; i++) {
        struct seat *seat = &s->seat[busy[i]];

        if (!policy)
            r = sim_demonstrate(seat->slot, s->play->style, seat->row->id, seat->step, ret_action[i],
                                seat->label + seat->step * SIM_ACTION_DIMS);
        items[i] = (struct act_item) {
            .images = {seat->frames + (size_t)seat->step * s->frame}, .n_images = 1, .prompt = seat->prompt,
            .n_prompt = seat->n_prompt,
            .temperature = (float)s->play->temperature, .seed = s->play->seed, .episode = seat->row->id,
            .step = (uint32_t)seat->step,
        };
    }
    if (!policy || r < 0)
        return r;
    r = openvla_act(policy, s->session, items, n, results);
    for (int i = 0; i < n && r >= 0; i++) {
        struct seat *seat = &s->seat[busy[i]];

        for (int k = 0; k < SIM_ACTION_DIMS; k++) {
            seat->tokens[seat->step * SIM_ACTION_DIMS + k] = (uint32_t)results[i].tokens[k];
            seat->logp[seat->step * SIM_ACTION_DIMS + k] = results[i].logp[k];
            ret_action[i][k] = (float)openvla_decode(&policy->config, results[i].tokens[k]);
        }
    }
    return r;
}

static int advance(struct stage *s, int i, const float *action, struct error *error)
{
    struct seat *seat = &s->seat[i];
    bool success;
    int r = sim_step(seat->slot, action, &success);

    if (r < 0)
        return r;
    seat->step++;
    if (s->play->out || s->play->policy)
        r = sim_render(s->world->renderer, seat->slot, seat->frames + (size_t)seat->step * s->frame);
    if (r >= 0 && (success || seat->step == seat->max_steps))
        r = seat_finish(s, seat, success, error);
    return r;
}

int play_all(struct play_world *world, struct play *play, struct error *error)
{
    _cleanup_(stage_release) struct stage s = {.world = world, .play = play, .seats = world->tasks * PLAY_SLOTS,
                                               .frame = (size_t)world->size * (size_t)world->size * 3};
    float action[PLAY_MAX_TASKS * PLAY_SLOTS][SIM_ACTION_DIMS];
    int busy[PLAY_MAX_TASKS * PLAY_SLOTS], n, r = 0;

    for (int i = 0; i < s.seats; i++)
        s.seat[i].slot = world->slot[i / PLAY_SLOTS][i % PLAY_SLOTS];
    if (play->policy)
        r = openvla_session_new(&play->policy->config, s.seats, &s.session);
    if (r >= 0 && play->prm)
        r = openvla_session_new(&play->prm->config, 32, &s.judge);
    for (;;) {
        n = 0;
        for (int i = 0; i < s.seats && r >= 0; i++) {
            if (!s.seat[i].row)
                r = seat_take(&s, i);
            if (s.seat[i].row)
                busy[n++] = i;
        }
        if (r < 0 || !n)
            break;
        r = choose(&s, busy, n, action);
        for (int i = 0; i < n && r >= 0; i++)
            r = advance(&s, busy[i], action[i], error);
    }
    return r < 0 && error && !error->errnum ? error_set(error, -r, "playing failed: %s", error_text(NULL, r)) : r;
}
