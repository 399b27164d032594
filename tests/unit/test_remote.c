/* The suite `remote` against a simulator that is a thread of this test and answers what the test wants. */
#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <cmocka.h>

#include "base/clock.h"
#include "base/fault.h"
#include "env_worker/simulation.h"
#include "sim/sim.h"
#include "sim/suites/remote/frame.h"
#include "sim/suites/remote/reply.h"
#include "sim/suites/remote/session.h"
#include "tests/harness/scratch.h"

/* ---- the suite -------------------------------------------------------------------------------------------------- */

enum { SIDE = 4, PICTURE = SIDE * SIDE * 3 };

/* A world of one number, which every step adds the first number of the action to; at 3 it is done. */
struct world {
    pthread_t thread;
    int listening;
    atomic_int connections;
    char path[SCRATCH_PATH + 16], scratch[SCRATCH_PATH];
    atomic_int next;            /* what the next answer to a step is to be, once */
    int farewells;              /* `close` was said so often */
};
enum { WELL, REFUSE, SHORT, NONSENSE, LEAVE, TWICE };

static void answer(int fd, const char *head, const void *body, size_t n)
{
    struct error error;

    (void)frame_send(fd, head, strlen(head), body, n, UINT64_MAX, &error);
}

/* In one piece, so that the second is there when the first is read. */
static void answer_twice(int fd, const char *head, const uint8_t picture[PICTURE])
{
    const uint32_t sizes[2] = { (uint32_t)strlen(head), PICTURE };
    uint8_t bytes[2 * (sizeof(sizes) + 200 + PICTURE)], *to = bytes;

    for (int i = 0; i < 2; i++) {
        memcpy(to, sizes, sizeof(sizes));
        memcpy(to + sizeof(sizes), head, sizes[0]);
        memcpy(to + sizeof(sizes) + sizes[0], picture, PICTURE);
        to += sizeof(sizes) + sizes[0] + PICTURE;
    }
    assert_int_equal(send(fd, bytes, (size_t)(to - bytes), 0), to - bytes);
}

static void play(struct world *w, int fd)
{
    _cleanup_(frame_release) struct frame request = {0};
    uint8_t picture[PICTURE];
    struct error error;
    double x = 0;

    while (frame_receive(fd, &request, 64, UINT64_MAX, &error) == 0) {
        const char *action = strstr(request.head, "\"action\":[");
        char head[200];
        int next = WELL;

        if (strstr(request.head, "\"describe\"")) {
            answer(fd, "{\"protocol\":1,\"height\":4,\"width\":4,\"proprio\":1,\"state_bytes\":16,\"control_hz\":5,\"tasks\":["
                       "{\"name\":\"one\",\"max_steps\":7,\"level\":2,\"instruction\":\"go up\"},{\"name\":\"two\",\"max_steps\":1}]}",
                   NULL, 0);
            continue;
        }
        if (strstr(request.head, "\"save\"")) {
            answer(fd, "{}", &x, sizeof(x));
            continue;
        }
        if (strstr(request.head, "\"close\"")) {
            w->farewells++;
            return;
        }
        if (strstr(request.head, "\"reset\""))
            x = 0;
        else if (strstr(request.head, "\"restore\""))
            memcpy(&x, request.body, sizeof(x));
        else if (action) {
            x += strtod(action + 10, NULL);
            next = atomic_exchange(&w->next, WELL);
        }
        memset(picture, (int)x, sizeof(picture));
        snprintf(head, sizeof(head), "{\"success\":%s,\"proprio\":[%g]}", x == 3 ? "true" : "false", x);
        if (next == LEAVE)
            return;
        if (next == TWICE)
            answer_twice(fd, head, picture);
        else if (next == REFUSE)
            answer(fd, "{\"error\":\"the arm is\\nasleep\"}", NULL, 0);
        else
            answer(fd, next == NONSENSE ? "hello" : head, picture, sizeof(picture) - (next == SHORT));
    }
}

static void *be_a_world(void *arg)
{
    struct world *w = arg;
    int fd;

    while ((fd = accept(w->listening, NULL, NULL)) >= 0) {
        w->connections++;
        play(w, fd);
        close(fd);
    }
    return NULL;
}

static int begin(void **state)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    static struct world w;

    memset(&w, 0, sizeof(w));
    scratch_new(w.scratch);
    snprintf(w.path, sizeof(w.path), "unix:%s/sock", w.scratch);
    snprintf(address.sun_path, sizeof(address.sun_path), "%s/sock", w.scratch);
    w.listening = socket(AF_UNIX, SOCK_STREAM, 0);
    *state = &w;
    return bind(w.listening, (struct sockaddr *)&address, sizeof(address)) < 0 || listen(w.listening, 8) < 0 ||
           pthread_create(&w.thread, NULL, be_a_world, &w) != 0;
}

static int end(void **state)
{
    struct world *w = *state;

    shutdown(w->listening, SHUT_RDWR);
    pthread_join(w->thread, NULL);
    close(w->listening);
    return 0;
}

struct scene {
    struct sim_suite *suite;
    struct sim_task *task;
    struct sim_slot *slot;
};

static void open_scene(struct scene *s, const char *where)
{
    struct error error = {0};

    if (sim_suite_open("remote", &(struct sim_options){ .remote = where }, &s->suite, &error) < 0 ||
        sim_task_open(s->suite, "one", &s->task, &error) < 0 || sim_slot_new(s->task, &s->slot) < 0)
        fail_msg("%s", error.text);
}

static void close_scene(struct scene *s)
{
    sim_slot_free(s->slot);
    sim_task_close(s->task);
    sim_suite_close(s->suite);
}

static const float up[SIM_ACTION_DIMS] = { 1 };

static void test_episode(void **state)
{
    struct world *w = *state;
    struct sim_renderer *renderer;
    uint8_t small[PICTURE], large[8 * 8 * 3];
    const struct sim_task_info *info;
    const char *instruction;
    struct scene s;
    bool success;
    float x;

    open_scene(&s, w->path);
    info = sim_task_info(s.task);
    assert_true(info->max_steps == 7 && info->level == 2 && info->control_hz == 5 && info->cameras == 1 && info->proprio == 1);
    assert_int_equal(sim_suite_device(s.suite, -1), SIM_DEVICE_NONE);
    assert_int_equal(sim_renderer_open(SIM_DEVICE_NONE, 8, 8, &renderer, NULL), 0);
    assert_int_equal(sim_step(s.slot, up, NULL), -EIO);         /* not before a reset */
    assert_int_equal(sim_render(renderer, s.slot, large), -EIO);

    assert_int_equal(sim_reset(s.slot, SIM_TEST, UINT64_MAX, &instruction), 0);
    assert_string_equal(instruction, "go up");
    for (int i = 1; i <= 4; i++) {
        assert_int_equal(sim_step(s.slot, up, &success), 0);
        assert_int_equal(success, i >= 3);      /* it says so once: once is enough */
        assert_int_equal(sim_proprio(s.slot, &x), 0);
        assert_true(x == (float)i);
    }
    assert_string_equal(instruction, "go up");  /* what later answers say, or do not, changes nothing */
    assert_int_equal(sim_render(renderer, s.slot, large), 0);   /* another size: scaled */
    for (size_t i = 0; i < sizeof(large); i++)
        assert_int_equal(large[i], 4);
    assert_int_equal(sim_render_camera(renderer, s.slot, 1, small), -EINVAL);
    assert_int_equal(sim_reset(s.slot, SIM_TRAIN, 0, NULL), 0);
    assert_false(sim_success(s.slot));
    assert_int_equal(sim_demonstrate(s.slot, "slow", 1, 0, (float[7]){0}, (float[7]){0}), -ENOTSUP);
    assert_non_null(strstr(sim_reason(s.slot), "no expert"));
    sim_renderer_close(renderer);
    close_scene(&s);
    assert_int_equal(w->connections, 1);        /* who described it also played */
}

static void test_states(void **state)
{
    struct scene s;
    uint8_t saved[64], again[64];
    bool success;
    float x;

    open_scene(&s, ((struct world *)*state)->path);
    assert_int_equal(sim_state_size(s.task), 32);
    memset(saved, 0xaa, sizeof(saved));
    memset(again, 0xbb, sizeof(again));
    assert_int_equal(sim_reset(s.slot, SIM_TRAIN, 0, NULL), 0);
    for (int i = 0; i < 3; i++)
        assert_int_equal(sim_step(s.slot, up, &success), 0);
    assert_int_equal(sim_save(s.slot, saved), 0);
    assert_int_equal(sim_reset(s.slot, SIM_TRAIN, 0, NULL), 0);
    assert_int_equal(sim_restore(s.slot, saved), 0);
    assert_true(sim_success(s.slot));           /* the latch is part of the state */
    assert_int_equal(sim_save(s.slot, again), 0);
    assert_memory_equal(saved, again, 32);      /* also where the simulator wrote nothing */
    assert_int_equal(saved[32], 0xaa);
    assert_int_equal(sim_step(s.slot, up, &success), 0);
    assert_int_equal(sim_proprio(s.slot, &x), 0);
    assert_true(x == 4);
    memset(saved, 0xff, 8);
    assert_int_equal(sim_restore(s.slot, saved), -EIO);
    close_scene(&s);
}

/* A slot that rests gives its simulator to the next one; those that play at the same time have one each. */
static void test_resting(void **state)
{
    struct world *w = *state;
    struct sim_slot *other;
    struct scene s;

    open_scene(&s, w->path);
    assert_int_equal(sim_slot_new(s.task, &other), 0);
    assert_int_equal(sim_reset(s.slot, SIM_TRAIN, 0, NULL), 0);
    sim_slot_rest(s.slot);
    assert_int_equal(sim_step(s.slot, up, NULL), -EIO);
    assert_int_equal(sim_reset(other, SIM_TRAIN, 0, NULL), 0);
    assert_int_equal(w->connections, 1);
    sim_slot_rest(other);
    sim_slot_rest(other);
    assert_int_equal(sim_reset(s.slot, SIM_TRAIN, 0, NULL), 0);
    assert_int_equal(sim_step(s.slot, up, NULL), 0);
    assert_int_equal(w->connections, 1);
    sim_slot_free(other);
    close_scene(&s);
}

/* What it says itself costs the episode; what makes no sense costs the connection, too, and the next reset has another. */
static void test_failures(void **state)
{
    static const struct { int next, connections; const char *says; } cases[] = {
        { REFUSE, 1, "remote: step: the arm is asleep" },
        { SHORT, 1, "remote: step: 47 bytes of pictures came" },
        { NONSENSE, 2, "remote: step: its answer is no JSON" },
        { LEAVE, 3, "remote: step: the other side has ended the connection" },
    };
    struct world *w = *state;
    struct scene s;

    open_scene(&s, w->path);
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        assert_int_equal(sim_reset(s.slot, SIM_TRAIN, 0, NULL), 0);
        w->next = cases[i].next;
        assert_int_equal(sim_step(s.slot, up, NULL), -EIO);
        assert_non_null(strstr(sim_reason(s.slot), cases[i].says));
        assert_int_equal(w->connections, cases[i].connections);
        w->next = WELL;
        assert_int_equal(sim_step(s.slot, up, NULL), -EIO);     /* that episode is over */
    }
    assert_int_equal(sim_reset(s.slot, SIM_TRAIN, 0, NULL), 0);
    assert_int_equal(sim_step(s.slot, up, NULL), 0);
    assert_string_equal(sim_reason(s.slot), "");
    assert_int_equal(w->connections, 4);
    close_scene(&s);
}

/* An answer too many is not taken for that to the next question. */
static void test_out_of_step(void **state)
{
    struct world *w = *state;
    struct scene s;

    open_scene(&s, w->path);
    assert_int_equal(sim_reset(s.slot, SIM_TRAIN, 0, NULL), 0);
    w->next = TWICE;
    assert_int_equal(sim_step(s.slot, up, NULL), 0);
    assert_int_equal(sim_step(s.slot, up, NULL), -EIO);
    assert_string_equal(sim_reason(s.slot), "remote: step: it has said more than it was asked");
    assert_int_equal(sim_reset(s.slot, SIM_TRAIN, 0, NULL), 0);
    assert_int_equal(w->connections, 2);
    close_scene(&s);
}

static void test_no_simulator(void **state)
{
    static const struct { const char *where, *says; } cases[] = {
        { "", "needs the command" },
        { "exit 3", "its process ended with status 3" },
        { "kill -9 $$", "ended by signal 9" },
        { "no-such-program-anywhere 2>/dev/null", "status 127 (there is no such command)" },
        { "printf 'not a frame at all' >&3", "begins with lengths" },
        { "unix:/nowhere/sock", "does somebody listen there?" },
    };
    struct sim_suite *suite = NULL;
    struct error error;

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        assert_true(sim_suite_open("remote", &(struct sim_options){ .remote = cases[i].where }, &suite, &error) < 0);
        if (!strstr(error.text, cases[i].says))
            fail_msg("%s: %s", cases[i].where, error.text);
    }
    assert_null(suite);
}

/* Nobody listens on a socket for a moment, as while a robot's program starts anew: who has patience gets through. */
static void test_a_socket_is_waited_for(void **state)
{
    const struct world *w = *state;
    struct session *session = NULL;
    struct error error = {0};

    assert_int_equal(fault_arm("remote.dial=drop@1"), 0);
    assert_int_equal(session_open(w->path, 0, &session, &error), -ECONNREFUSED);
    assert_non_null(strstr(error.text, "does somebody listen there?"));
    assert_null(session);
    assert_int_equal(fault_arm("remote.dial=drop@1-2"), 0);
    if (session_open(w->path, 60, &session, &error) < 0)
        fail_msg("%s", error.text);
    assert_true(session_is_alive(session));
    session = session_close(session);
    assert_int_equal(fault_arm(""), 0);
}

/* ---- a worker's slots ------------------------------------------------------------------------------------------------ */

/* A simulator that is a process: its stream is file 3. One letter into the file for its beginning, another one for `close`. */
static int be_a_process(const char *path)
{
    struct world w = {0};
    FILE *file = fopen(path, "ae");

    fputc('a', file);
    fflush(file);
    play(&w, 3);
    if (w.farewells)
        fputc('z', file);
    return fclose(file);
}

static void came_back(struct sim_job *job)
{
    ++*(int *)job->owner;
    assert_int_equal(job->result, 0);
    sim_job_free(job);
}

/* Every slot's simulator is told to leave, whichever of the threads had started it. */
static void test_goodbye(void **state _unused_)
{
    enum { SLOTS = 4 };
    char scratch[SCRATCH_PATH], file[SCRATCH_PATH + 8], self[300] = "", command[700], said[2 * SLOTS + 2] = "";
    struct simulation *simulation;
    struct frames *frames = NULL;
    struct error error = {0};
    struct loop *loop;
    int back = 0, begun = 0, ended = 0;
    FILE *log;

    assert_true(readlink("/proc/self/exe", self, sizeof(self) - 1) > 0);
    scratch_new(scratch);
    snprintf(file, sizeof(file), "%s/log", scratch);
    snprintf(command, sizeof(command), "exec '%s' %s", self, file);
    assert_int_equal(loop_new(&loop), 0);
    if (simulation_new(loop, &(struct simulation_options){ .suite = "remote", .remote = command, .image = 8, .slots = SLOTS },
                       &simulation, &error) < 0)
        fail_msg("%s", error.text);
    assert_int_equal(frames_renew(&frames, SLOTS, simulation_shape(simulation)), 0);
    for (unsigned i = 0; i < SLOTS; i++) {
        struct sim_job *job = sim_job_new(SIM_JOB_RESET, i, 0, came_back, &back);

        snprintf(job->task, sizeof(job->task), "one");
        job->frames = frames_ref(frames);
        job->frame = job->row = i;
        simulation_submit(simulation, job);
    }
    while (back < SLOTS)
        loop_turn(loop, true);
    simulation_free(simulation);
    frames_unref(frames);
    loop_free(loop);

    log = fopen(file, "re");
    assert_non_null(fgets(said, sizeof(said), log));
    fclose(log);
    for (const char *c = said; *c; c++)
        *c == 'a' ? begun++ : ended++;
    assert_int_equal(begun, SLOTS);
    assert_int_equal(ended, SLOTS);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_episode, begin, end),
        cmocka_unit_test_setup_teardown(test_states, begin, end),
        cmocka_unit_test_setup_teardown(test_resting, begin, end),
        cmocka_unit_test_setup_teardown(test_failures, begin, end),
        cmocka_unit_test_setup_teardown(test_out_of_step, begin, end),
        cmocka_unit_test(test_no_simulator),
        cmocka_unit_test_setup_teardown(test_a_socket_is_waited_for, begin, end),
        cmocka_unit_test(test_goodbye),
    };

    if (argc == 2)
        return be_a_process(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
