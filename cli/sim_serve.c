/* sim_serve.c - `gantry sim serve`: one of gantry's suites behind the protocol of docs/remote.md, for whoever speaks it. */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/json_write.h"
#include "cli/cli.h"
#include "cli/json_at.h"
#include "cli/model.h"
#include "cli/sim.h"
#include "sim/suites/remote/frame.h"
#include "sim/suites/remote/reply.h"

enum { TASKS_MAX = REMOTE_TASKS_MAX };

struct server {
    struct sim_target target;           /* its task stays closed: each is opened when it is first asked for */
    struct sim_renderer *renderer;
    const struct sim_task_info *infos;
    int n_tasks, playing;               /* index of the slot that was reset last; -1: none */
    long size, cameras;
    bool saves;
    size_t state_bytes;                 /* the largest task's */
    struct sim_task *tasks[TASKS_MAX];
    struct sim_slot *slots[TASKS_MAX];
    uint8_t *body;                      /* pictures, or a state */
    size_t body_n;                      /* of the answer in the making */
};

/* ---- one connection --------------------------------------------------------------------------------------------- */

static int need_slot(struct server *s, int task, struct error *error)
{
    int r = 0;

    if (!s->tasks[task])
        r = sim_task_open(s->target.suite, s->infos[task].name, &s->tasks[task], error);
    if (r == 0 && !s->slots[task] && (r = sim_slot_new(s->tasks[task], &s->slots[task])) < 0)
        return error_set(error, -r, "a slot: %s", strerror(-r));
    return r;
}

static int describe(struct server *s, const struct frame *request _unused_, const json_t *head _unused_, struct json_writer *w,
                    struct error *error)
{
    for (int i = 0; i < s->n_tasks && s->saves; i++) {
        int r = need_slot(s, i, error);

        if (r < 0)
            return r;
        s->state_bytes = MAX(s->state_bytes, sizeof(uint32_t) + sim_state_size(s->tasks[i]));
    }
    json_signed(w, "protocol", 1);
    json_signed(w, "height", s->size);
    json_signed(w, "width", s->size);
    json_signed(w, "cameras", s->cameras);
    json_signed(w, "action_dims", s->infos[0].action_dims);
    json_signed(w, "proprio", s->infos[0].proprio);
    json_number(w, "control_hz", s->infos[0].control_hz);
    json_unsigned(w, "state_bytes", s->state_bytes);
    json_bool(w, "expert", true);
    json_open(w, "tasks", '[');
    for (int i = 0; i < s->n_tasks; i++) {
        json_open(w, NULL, '{');
        json_text(w, "name", s->infos[i].name);
        json_text(w, "instruction", s->infos[i].instruction ? s->infos[i].instruction : "");
        json_signed(w, "max_steps", s->infos[i].max_steps);
        json_signed(w, "level", s->infos[i].level);
        json_close(w, '}');
    }
    json_close(w, ']');
    return 0;
}

static int no_episode(struct error *error) { return error_set(error, EINVAL, "nothing was reset yet"); }

static int of_slot(const struct sim_slot *slot, int r, struct error *error)
{
    return error_set(error, -r, "%s", sim_reason(slot)[0] ? sim_reason(slot) : r == -EIO ? "the simulation broke" : strerror(-r));
}

/* Pictures into the body, the robot's own numbers into the head. */
static int observe(struct server *s, bool success, struct json_writer *w, struct error *error)
{
    const size_t picture = (size_t)s->size * (size_t)s->size * 3;
    struct sim_slot *slot = s->slots[s->playing];
    float proprio[REMOTE_PROPRIO_MAX];
    int r = 0;

    for (long camera = 0; camera < s->cameras && r == 0; camera++)
        r = sim_render_camera(s->renderer, slot, (int)camera, s->body + picture * (size_t)camera);
    if (r == 0 && s->infos[s->playing].proprio)
        r = sim_proprio(slot, proprio);
    if (r < 0)
        return of_slot(slot, r, error);
    s->body_n = picture * (size_t)s->cameras;
    json_bool(w, "success", success);
    json_open(w, "proprio", '[');
    for (int i = 0; i < s->infos[s->playing].proprio; i++)
        json_number(w, NULL, (double)proprio[i]);
    json_close(w, ']');
    return 0;
}

/* A number, or one in a text, which has room for 64 bits. */
static int read_seed(const json_t *seed, uint64_t *ret, struct error *error)
{
    const char *text = json_string_value(seed);
    char *end = NULL;

    errno = 0;
    if (text)
        *ret = strtoull(text, &end, 10);
    else if (json_is_integer(seed) && json_integer_value(seed) >= 0)
        *ret = (uint64_t)json_integer_value(seed);
    else
        errno = EINVAL;
    if (errno || (text && (end == text || *end || *text == '-')))
        return error_set(error, EINVAL, "'seed' is no whole number from 0 to 2^64-1");
    return 0;
}

static int reset(struct server *s, const struct frame *request _unused_, const json_t *head, struct json_writer *w,
                 struct error *error)
{
    const char *name = json_string_value(json_object_get(head, "task"));
    const char *split = json_string_value(json_object_get(head, "split"));
    const char *instruction;
    int task = 0, k = SIM_TRAIN, r;
    uint64_t seed;

    if (!name || !split)
        return error_set(error, EINVAL, "reset wants task, split and seed");
    r = read_seed(json_object_get(head, "seed"), &seed, error);
    if (r < 0)
        return r;
    while (task < s->n_tasks && strcmp(s->infos[task].name, name) != 0)
        task++;
    while (k <= SIM_TEST && strcmp(sim_split_name((enum sim_split)k), split) != 0)
        k++;
    if (task == s->n_tasks || k > SIM_TEST)
        return error_set(error, EINVAL, "there is no task '%.100s', or no split '%.20s'", name, split);
    s->playing = -1;
    r = need_slot(s, task, error);
    if (r < 0)
        return r;
    r = sim_reset(s->slots[task], (enum sim_split)k, seed, &instruction);
    if (r < 0)
        return of_slot(s->slots[task], r, error);
    s->playing = task;
    json_text(w, "instruction", instruction);
    return observe(s, false, w, error);
}

static int step(struct server *s, const struct frame *request _unused_, const json_t *head, struct json_writer *w,
                struct error *error)
{
    const json_t *list = json_object_get(head, "action");
    const int dims = s->infos[0].action_dims;
    float action[SIM_ACTION_MAX];
    bool success = false;
    int r;

    if (s->playing < 0)
        return no_episode(error);
    if (json_array_size(list) != (size_t)dims)
        return error_set(error, EINVAL, "an action has %d numbers", dims);
    for (size_t i = 0; i < (size_t)dims; i++) {
        if (!json_is_number(json_array_get(list, i)))
            return error_set(error, EINVAL, "action[%zu] is no number", i);
        action[i] = (float)json_number_value(json_array_get(list, i));
    }
    r = sim_step(s->slots[s->playing], action, &success);
    return r < 0 ? of_slot(s->slots[s->playing], r, error) : observe(s, success, w, error);
}

/* In front of a state stands whose it is. */
static int save(struct server *s, const struct frame *request _unused_, const json_t *head _unused_,
                struct json_writer *w _unused_, struct error *error)
{
    const uint32_t task = (uint32_t)s->playing;
    int r;

    if (s->playing < 0)
        return no_episode(error);
    if (!s->saves)
        return error_set(error, ENOTSUP, "it was started with --no-save");
    memcpy(s->body, &task, sizeof(task));
    r = sim_save(s->slots[task], s->body + sizeof(task));
    if (r < 0)
        return of_slot(s->slots[task], r, error);
    s->body_n = sizeof(task) + sim_state_size(s->tasks[task]);
    return 0;
}

static int restore(struct server *s, const struct frame *request, const json_t *head _unused_, struct json_writer *w,
                   struct error *error)
{
    uint32_t task = UINT32_MAX;
    int r;

    if (request->body_n >= sizeof(task))
        memcpy(&task, request->body, sizeof(task));
    if (!s->saves || task >= (uint32_t)s->n_tasks)
        return error_set(error, EINVAL, "that is no state of this suite");
    r = need_slot(s, (int)task, error);
    if (r < 0)
        return r;
    if (request->body_n != sizeof(task) + sim_state_size(s->tasks[task]))
        return error_set(error, EINVAL, "a state of %zu bytes; %zu are this task's", request->body_n,
                         sizeof(task) + sim_state_size(s->tasks[task]));
    r = sim_restore(s->slots[task], request->body + sizeof(task));
    if (r < 0)
        return of_slot(s->slots[task], r, error);
    s->playing = (int)task;
    return observe(s, sim_success(s->slots[task]), w, error);
}

static int expert(struct server *s, const struct frame *request _unused_, const json_t *head, struct json_writer *w,
                  struct error *error)
{
    const char *style = json_string_value(json_object_get(head, "style")) ?: "expert";
    float actions[2][SIM_ACTION_MAX];
    uint64_t seed;
    int r;

    if (s->playing < 0)
        return no_episode(error);
    if (!strcmp(style, "expert")) {
        r = sim_expert(s->slots[s->playing], actions[0]);
        memcpy(actions[1], actions[0], sizeof(actions[0]));
    } else {
        r = read_seed(json_object_get(head, "seed"), &seed, error);
        if (r < 0)
            return r;
        r = sim_demonstrate(s->slots[s->playing], style, seed, (int)json_integer_value(json_object_get(head, "step")),
                            actions[0], actions[1]);
    }
    if (r < 0)
        return of_slot(s->slots[s->playing], r, error);
    for (int k = 0; k < 2; k++) {
        json_open(w, k ? "label" : "action", '[');
        for (int i = 0; i < s->infos[0].action_dims; i++)
            json_number(w, NULL, (double)actions[k][i]);
        json_close(w, ']');
    }
    return 0;
}

static const struct {
    const char *op;
    int (*answer)(struct server *s, const struct frame *request, const json_t *head, struct json_writer *w, struct error *error);
} ops[] = {
    { "describe", describe }, { "reset", reset }, { "step", step },
    { "save", save }, { "restore", restore }, { "expert", expert },
};

/* The answer's head for a request. 1: it was the goodbye. */
static int answer(struct server *s, const struct frame *request, struct strbuf *out)
{
    struct json_writer w = { .out = out };
    struct error error = {0};
    json_error_t where = {0};
    json_t *head = json_loadb(request->head, request->head_n, 0, &where);
    const char *op = text_at(head, "op");
    size_t i = 0;
    int r = -EINVAL, done = !strcmp(op, "close");

    s->body_n = 0;
    json_open(&w, NULL, '{');
    while (i < ARRAY_SIZE(ops) && strcmp(ops[i].op, op) != 0)
        i++;
    if (i < ARRAY_SIZE(ops))
        r = ops[i].answer(s, request, head, &w, &error);
    else if (head)
        error_set(&error, EINVAL, "there is no request '%.40s'", op);
    else
        error_set(&error, EINVAL, "that is no JSON: %s", where.text);
    if (r < 0) {
        strbuf_reset(out);
        w = (struct json_writer){ .out = out };
        json_open(&w, NULL, '{');
        json_text(&w, "error", error_text(&error, r));
        s->body_n = 0;
    }
    json_close(&w, '}');
    json_decref(head);
    return done;
}

/* Until the other side leaves, which is no failure. */
static int serve(struct server *s, int fd, struct error *error)
{
    _cleanup_(strbuf_release) struct strbuf out = STRBUF_INIT;
    _cleanup_(frame_release) struct frame request = {0};
    int r, done = 0;

    while (!done) {
        r = frame_receive(fd, &request, REMOTE_STATE_MAX, UINT64_MAX, error);
        if (r < 0)
            return r == -EPIPE ? 0 : r;
        strbuf_reset(&out);
        done = answer(s, &request, &out);
        if (out.failed)
            return error_set(error, ENOMEM, "out of memory");
        r = done ? 0 : frame_send(fd, out.text, out.length, s->body, s->body_n, UINT64_MAX, error);
        if (r < 0)
            return r == -EPIPE ? 0 : r;
    }
    return 0;
}

/* ---- where others are met ----------------------------------------------------------------------------------------- */

static int open_suite(struct server *s, struct error *error)
{
    int r = sim_suite_open(s->target.suite_name, &s->target.options, &s->target.suite, error);

    if (r < 0)
        return r;
    s->n_tasks = MIN(sim_suite_tasks(s->target.suite, &s->infos), TASKS_MAX);
    s->playing = -1;
    if (s->cameras > s->infos[0].cameras)
        return error_set(error, EINVAL, "--cameras: suite %s has %d", s->target.suite_name, s->infos[0].cameras);
    return 0;
}

/* After the fork: OpenGL does not survive one. */
static int open_renderer(struct server *s, struct error *error)
{
    int r = sim_open_renderer(&s->target, (int)s->size, &s->renderer, error);

    if (r < 0)
        return r;
    s->body = malloc(MAX((size_t)s->size * (size_t)s->size * 3 * (size_t)s->cameras, (size_t)REMOTE_STATE_MAX));
    return s->body ? 0 : error_set(error, ENOMEM, "out of memory");
}

static void close_all(struct server *s)
{
    for (int i = 0; i < TASKS_MAX; i++) {
        sim_slot_free(s->slots[i]);
        sim_task_close(s->tasks[i]);
    }
    sim_renderer_close(s->renderer);
    sim_target_close(&s->target);
    free(s->body);
}

static int serve_one(struct server *s, int fd, struct error *error)
{
    int r = open_renderer(s, error);

    return r < 0 ? r : serve(s, fd, error);
}

/* A process for each connection, as many as come. */
static int listen_at(struct server *s, const char *path, struct error *error)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    _cleanup_close_ int listening = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (strlen(path) >= sizeof(address.sun_path))
        return error_set(error, ENAMETOOLONG, "--listen: a socket's path may have %zu bytes", sizeof(address.sun_path) - 1);
    memcpy(address.sun_path, path, strlen(path));
    if (listening < 0 || bind(listening, (struct sockaddr *)&address, sizeof(address)) < 0 || listen(listening, 128) < 0)
        return error_set(error, errno, "--listen %s: %s", path, strerror(errno));
    (void)signal(SIGCHLD, SIG_IGN);     /* nobody waits for them */
    fprintf(stderr, "gantry sim: suite %s at unix:%s\n", s->target.suite_name, path);
    for (;;) {
        int fd = accept4(listening, NULL, NULL, SOCK_CLOEXEC);
        pid_t child = fd < 0 ? -1 : fork();

        if (child == 0) {
            int r = serve_one(s, fd, error);

            _exit(r < 0 ? sim_fail(error, r) : CLI_OK);
        }
        if (fd < 0 && errno != EINTR && errno != ECONNABORTED)
            return error_set(error, errno, "--listen %s: %s", path, strerror(errno));
        if (fd >= 0)
            close(fd);
    }
}

int sim_serve(int argc, char **argv)
{
    const char *path = model_option(&argc, argv, "--listen"), *number = getenv("GANTRY_SIM_FD");
    struct server s = { .saves = !model_flag(&argc, argv, "--no-save") };
    struct error error = {0};
    char *end = NULL;
    long fd = number ? strtol(number, &end, 10) : -1;
    int r = sim_target_read(&argc, argv, &s.target, &error);

    if (r == 0)
        r = sim_number(&argc, argv, "--size", 8, 4096, 256, &s.size, &error);
    if (r == 0)
        r = sim_number(&argc, argv, "--cameras", 1, REMOTE_CAMERAS_MAX, 1, &s.cameras, &error);
    if (r < 0)
        return sim_fail(&error, r);
    if (argc != 0)
        return CLI_USAGE;
    r = open_suite(&s, &error);
    if (r == 0 && path)
        r = listen_at(&s, path, &error);
    else if (r == 0 && (!number || *end || fd < 3 || fcntl((int)fd, F_GETFD) < 0))
        r = error_set(&error, EINVAL, "serve: nobody is on the other side: say --listen PATH, or let a run start it "
                      "(suite.remote)");
    else if (r == 0)
        r = serve_one(&s, (int)fd, &error);
    close_all(&s);
    return r < 0 ? sim_fail(&error, r) : CLI_OK;
}
