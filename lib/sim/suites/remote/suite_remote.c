/* The suite `remote`: a simulator, or a robot, that is not ours, behind the protocol of docs/remote.md.
 *
 * A slot that is played has a session of its own, opened when none is idle: that which described the suite, and those of slots
 * that rest. What the simulator shows comes with the answer to reset, step and restore; the slot keeps a copy. */
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "base/json_write.h"
#include "image/image.h"
#include "sim/suite.h"
#include "sim/suites/remote/session.h"

enum { RESET_SECONDS = 60, STEP_SECONDS = 10, DIAL_SECONDS = 30 };

struct remote_suite {
    struct remote_description what;
    const char *where;          /* the suite's options' */
    pthread_mutex_t lock;
    struct session *idle;       /* a list, under lock */
};

struct remote_task {
    struct sim_task base;
    struct remote_suite *suite; /* borrowed */
};

struct remote_slot {
    struct sim_slot base;
    struct remote_suite *suite; /* borrowed */
    struct session *session;    /* NULL: none yet, dead and buried, or given up */
    bool playing;               /* the session's answer is an observation of this episode */
    bool success;
    struct remote_observation seen;
    char instruction[REMOTE_INSTRUCTION_MAX];   /* reset's */
    uint8_t *pictures;          /* (cameras, height, width, 3) of that observation */
    struct error error;         /* of the last call; "" for none */
};

/* Behind which the simulator's own bytes are, and zeros up to its state_bytes. */
struct saved {
    uint64_t n, success;
};

static const char *const split_names[] = { "train", "val", "test" };

static struct remote_slot *slot_of(struct sim_slot *slot) { return (struct remote_slot *)slot; }

/* ---- suite ---------------------------------------------------------------------------------------------------- */

static void close_suite(struct sim_suite *suite)
{
    struct remote_suite *remote = suite->state;

    for (struct session *next; remote->idle; remote->idle = next) {
        next = remote->idle->next;
        session_close(remote->idle);
    }
    pthread_mutex_destroy(&remote->lock);
    free(remote);
}

static int open_suite(struct sim_suite *suite, struct error *error)
{
    const char *where = suite->options.remote;
    struct session *session = NULL;
    struct remote_suite *remote;
    int r;

    if (!where || !where[0])
        return error_set(error, EINVAL, "suite.remote: suite remote needs the command that is the simulator, or unix:PATH where "
                         "one listens (docs/remote.md)");
    remote = calloc(1, sizeof(*remote));
    if (!remote)
        return error_set(error, ENOMEM, "suite.remote: out of memory");
    remote->where = where;
    r = session_open(where, 0, &session, error);
    if (r == 0)
        r = session_describe(session, &remote->what, error);
    if (r < 0) {
        session_close(session);
        free(remote);
        return error_prefix(error, r, "suite.remote: '%.120s': describe", where);
    }
    pthread_mutex_init(&remote->lock, NULL);
    remote->idle = session;
    suite->state = remote;
    return 0;
}

static int list_tasks(const struct sim_suite *suite, const struct sim_task_info **ret_infos)
{
    const struct remote_suite *remote = suite->state;

    *ret_infos = remote->what.infos;
    return remote->what.n_tasks;
}

static int task_open(struct sim_suite *suite, int index _unused_, struct sim_task **ret, struct error *error)
{
    struct remote_task *task = calloc(1, sizeof(*task));

    if (!task)
        return error_set(error, ENOMEM, "suite.remote: out of memory");
    task->suite = suite->state;
    *ret = &task->base;
    return 0;
}

static struct sim_task *task_close(struct sim_task *task)
{
    free(task);
    return NULL;
}

/* ---- slots ---------------------------------------------------------------------------------------------------- */

static struct sim_slot *slot_free(struct sim_slot *base)
{
    struct remote_slot *slot = slot_of(base);

    session_close(slot->session);
    free(slot->pictures);
    free(slot);
    return NULL;
}

static int slot_new(struct sim_task *task, struct sim_slot **ret)
{
    struct remote_suite *suite = ((struct remote_task *)task)->suite;
    struct remote_slot *slot = calloc(1, sizeof(*slot));

    if (!slot)
        return -ENOMEM;
    slot->base.task = task;
    slot->suite = suite;
    slot->pictures = malloc(remote_picture_bytes(&suite->what));
    if (!slot->pictures) {
        free(slot);
        return -ENOMEM;
    }
    *ret = &slot->base;
    return 0;
}

static const char *reason(const struct sim_slot *base) { return ((const struct remote_slot *)base)->error.text; }

/* A failure for whoever plays: the simulator broke, and reason() says how. */
static int broke(struct remote_slot *slot, const char *op, int r)
{
    slot->playing = false;
    error_prefix(&slot->error, r, "remote: %s", op);
    return r == -ENOMEM ? r : -EIO;
}

/* What the memory for pictures and states was measured by must not have changed with the new process. */
static int check_alike(struct session *session, const struct remote_description *what, struct error *error)
{
    _cleanup_free_ struct remote_description *now = calloc(1, sizeof(*now));
    int r = now ? session_describe(session, now, error) : error_set(error, ENOMEM, "out of memory");

    if (r < 0)
        return r;
    if (now->height != what->height || now->width != what->width || now->cameras != what->cameras ||
        now->action_dims != what->action_dims || now->proprio != what->proprio || now->state_bytes != what->state_bytes)
        return error_set(error, EIO, "it describes itself otherwise than before");
    return 0;
}

static struct session *take_idle(struct remote_suite *suite)
{
    struct session *idle;

    pthread_mutex_lock(&suite->lock);
    idle = suite->idle;
    if (idle)
        suite->idle = idle->next;
    pthread_mutex_unlock(&suite->lock);
    return idle;
}

static void slot_rest(struct sim_slot *base)
{
    struct remote_slot *slot = slot_of(base);

    slot->playing = false;
    if (!slot->session)
        return;
    pthread_mutex_lock(&slot->suite->lock);
    slot->session->next = slot->suite->idle;
    slot->suite->idle = TAKE_PTR(slot->session);
    pthread_mutex_unlock(&slot->suite->lock);
}

static int need_session(struct remote_slot *slot)
{
    struct session *idle;
    int r;

    if (slot->session && session_is_alive(slot->session))
        return 0;
    slot->session = session_close(slot->session);
    while ((idle = take_idle(slot->suite))) {
        if (session_is_alive(idle) && session_is_ours(idle)) {
            slot->session = idle;
            return 0;
        }
        session_close(idle);
    }
    r = session_open(slot->suite->where, DIAL_SECONDS, &slot->session, &slot->error);
    if (r == 0)
        r = check_alike(slot->session, &slot->suite->what, &slot->error);
    if (r < 0)
        slot->session = session_close(slot->session);
    return r;
}

/* A request whose answer is an observation. */
static int observe(struct remote_slot *slot, const struct strbuf *head, const void *body, size_t body_n, unsigned seconds)
{
    const size_t bytes = remote_picture_bytes(&slot->suite->what);
    struct remote_observation seen;
    int r;

    if (head->failed)
        return error_set(&slot->error, ENOMEM, "out of memory");
    r = session_ask(slot->session, head->text, head->length, body, body_n, seconds, bytes, &slot->error);
    if (r < 0)
        return r;
    r = remote_read_observation(slot->session->answer.head, slot->session->answer.head_n, slot->suite->what.proprio, &seen,
                                &slot->error);
    if (r == 0 && slot->session->answer.body_n != bytes)
        r = error_set(&slot->error, EBADMSG, "%zu bytes of pictures came, %d x %d x %d x 3 are %zu", slot->session->answer.body_n,
                      slot->suite->what.cameras, slot->suite->what.height, slot->suite->what.width, bytes);
    if (r < 0)
        return r == -EREMOTEIO ? r : session_give_up(slot->session, r);
    memcpy(slot->pictures, slot->session->answer.body, bytes);
    slot->seen = seen;
    return 0;
}

/* As text: 64 bits are more than everybody's JSON has in a number. */
static void add_seed(struct json_writer *w, uint64_t seed)
{
    char text[24];

    snprintf(text, sizeof(text), "%" PRIu64, seed);
    json_text(w, "seed", text);
}

static int reset(struct sim_slot *base, enum sim_split split, uint64_t seed, const char **ret_instruction)
{
    _cleanup_(strbuf_release) struct strbuf head = STRBUF_INIT;
    struct json_writer w = { .out = &head };
    struct remote_slot *slot = slot_of(base);
    int r, tries = 2;

    json_open(&w, NULL, '{');
    json_text(&w, "op", "reset");
    json_text(&w, "task", base->task->info->name);
    json_text(&w, "split", split_names[split]);
    add_seed(&w, seed);
    json_close(&w, '}');

    slot->error = (struct error){0};
    slot->success = slot->playing = false;
    do {                        /* one that died since the last episode has cost nobody anything yet */
        r = need_session(slot);
        if (r < 0)
            return broke(slot, "start", r);
        r = observe(slot, &head, NULL, 0, RESET_SECONDS);
    } while (r == -EPIPE && --tries > 0);
    if (r < 0)
        return broke(slot, "reset", r);
    slot->playing = true;
    snprintf(slot->instruction, sizeof(slot->instruction), "%s",
             slot->seen.instruction[0] ? slot->seen.instruction : base->task->info->instruction ?: "");
    if (ret_instruction)
        *ret_instruction = slot->instruction;
    return 0;
}

static int step(struct sim_slot *base, const float *action, bool *ret_success)
{
    _cleanup_(strbuf_release) struct strbuf head = STRBUF_INIT;
    struct json_writer w = { .out = &head };
    struct remote_slot *slot = slot_of(base);
    int r;

    slot->error = (struct error){0};
    if (!slot->playing)
        return broke(slot, "step", error_set(&slot->error, EIO, "its episode has ended; reset it"));
    json_open(&w, NULL, '{');
    json_text(&w, "op", "step");
    json_open(&w, "action", '[');
    for (int i = 0; i < slot->suite->what.action_dims; i++)
        json_number(&w, NULL, (double)action[i]);
    json_close(&w, ']');
    json_close(&w, '}');
    r = observe(slot, &head, NULL, 0, STEP_SECONDS);
    if (r < 0)
        return broke(slot, "step", r);
    slot->success |= slot->seen.success;
    if (ret_success)
        *ret_success = slot->success;
    return 0;
}

static bool success(const struct sim_slot *base) { return ((const struct remote_slot *)base)->success; }

static float reward(const struct sim_slot *base) { return ((const struct remote_slot *)base)->seen.reward; }

static int proprio(const struct sim_slot *base, float *ret)
{
    const struct remote_slot *slot = (const struct remote_slot *)base;

    if (!slot->suite->what.proprio)
        return -ENOTSUP;
    memcpy(ret, slot->seen.proprio, sizeof(float) * (size_t)slot->suite->what.proprio);
    return 0;
}

static int picture(struct sim_slot *base, int camera, int height, int width, uint8_t *ret_rgb)
{
    const struct remote_slot *slot = slot_of(base);
    const struct remote_description *what = &slot->suite->what;
    const size_t bytes = (size_t)what->height * (size_t)what->width * 3;
    const uint8_t *rgb = slot->pictures + bytes * (size_t)camera;

    if (!slot->playing)
        return -EIO;
    if (what->height != height || what->width != width)
        return image_resize_bicubic(rgb, what->height, what->width, height, width, ret_rgb);
    memcpy(ret_rgb, rgb, bytes);
    return 0;
}

/* ---- demonstrations --------------------------------------------------------------------------------------------- */

static int demonstrate(struct sim_slot *base, const char *style, uint64_t seed, int at, float *ret_action, float *ret_label)
{
    _cleanup_(strbuf_release) struct strbuf head = STRBUF_INIT;
    struct json_writer w = { .out = &head };
    struct remote_slot *slot = slot_of(base);
    int r;

    slot->error = (struct error){0};
    if (!slot->suite->what.expert)
        return error_set(&slot->error, ENOTSUP, "remote: this simulator has no expert: import demonstrations (gantry data "
                         "import) and name them in demos.from");
    if (!slot->playing)
        return broke(slot, "expert", error_set(&slot->error, EIO, "its episode has ended; reset it"));
    json_open(&w, NULL, '{');
    json_text(&w, "op", "expert");
    json_text(&w, "style", style);
    add_seed(&w, seed);
    json_signed(&w, "step", at);
    json_close(&w, '}');
    if (head.failed)
        return broke(slot, "expert", error_set(&slot->error, ENOMEM, "out of memory"));
    r = session_ask(slot->session, head.text, head.length, NULL, 0, STEP_SECONDS, 0, &slot->error);
    if (r == 0) {
        r = remote_read_expert(slot->session->answer.head, slot->session->answer.head_n, slot->suite->what.action_dims,
                               ret_action, ret_label, &slot->error);
        if (r < 0 && r != -EREMOTEIO)
            session_give_up(slot->session, r);
    }
    return r < 0 ? broke(slot, "expert", r) : 0;
}

static int expert(struct sim_slot *base, float *ret_action)
{
    float label[SIM_ACTION_MAX];

    return demonstrate(base, "expert", 0, 0, ret_action, label);
}

/* ---- states ------------------------------------------------------------------------------------------------------- */

static size_t state_size(const struct sim_task *task)
{
    const size_t theirs = ((const struct remote_task *)task)->suite->what.state_bytes;

    return theirs ? sizeof(struct saved) + theirs : 0;
}

static int save(struct sim_slot *base, void *ret_state)
{
    static const char request[] = "{\"op\":\"save\"}";
    struct remote_slot *slot = slot_of(base);
    const size_t most = slot->suite->what.state_bytes;
    struct saved saved = { .success = slot->success };
    const struct frame *answer;
    int r;

    slot->error = (struct error){0};
    if (!most)
        return error_set(&slot->error, ENOTSUP, "remote: this simulator cannot save its state, which look-ahead needs");
    if (!slot->playing)
        return broke(slot, "save", error_set(&slot->error, EIO, "its episode has ended; reset it"));
    r = session_ask(slot->session, request, sizeof(request) - 1, NULL, 0, STEP_SECONDS, most, &slot->error);
    if (r < 0)
        return broke(slot, "save", r);
    answer = &slot->session->answer;
    r = remote_read_nothing(answer->head, answer->head_n, &slot->error);
    if (r < 0 && r != -EREMOTEIO)
        session_give_up(slot->session, r);
    if (r < 0)
        return broke(slot, "save", r);
    saved.n = answer->body_n;
    memcpy(ret_state, &saved, sizeof(saved));
    memcpy((char *)ret_state + sizeof(saved), answer->body, answer->body_n);
    memset((char *)ret_state + sizeof(saved) + answer->body_n, 0, most - answer->body_n);
    return 0;
}

static int restore(struct sim_slot *base, const void *state)
{
    static const char request[] = "{\"op\":\"restore\"}";
    struct strbuf head = { .text = (char *)(uintptr_t)request, .length = sizeof(request) - 1 };
    struct remote_slot *slot = slot_of(base);
    struct saved saved;
    int r;

    slot->error = (struct error){0};
    if (!slot->suite->what.state_bytes)
        return error_set(&slot->error, ENOTSUP, "remote: this simulator cannot save its state, which look-ahead needs");
    memcpy(&saved, state, sizeof(saved));
    if (saved.n > slot->suite->what.state_bytes)
        return broke(slot, "restore", error_set(&slot->error, EINVAL, "that is no state of its"));
    r = need_session(slot);
    if (r == 0)
        r = observe(slot, &head, (const char *)state + sizeof(saved), saved.n, STEP_SECONDS);
    if (r < 0)
        return broke(slot, "restore", r);
    slot->playing = true;
    slot->success = saved.success;
    return 0;
}

const struct sim_suite_driver suite_remote = {
    .name = "remote", .open = open_suite, .close = close_suite,
    .tasks = list_tasks, .task_open = task_open, .task_close = task_close,
    .slot_new = slot_new, .slot_free = slot_free, .slot_rest = slot_rest,
    .reset = reset, .step = step, .success = success, .reward = reward, .reason = reason,
    .expert = expert, .demonstrate = demonstrate,
    .proprio = proprio, .state_size = state_size, .save = save, .restore = restore,
    .picture = picture,
};
