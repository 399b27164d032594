/* What comes from a simulator that is not ours: JSON heads and frames, whole and not. */
#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <cmocka.h>

#include "base/clock.h"
#include "sim/suites/remote/frame.h"
#include "sim/suites/remote/reply.h"

/* ---- heads ------------------------------------------------------------------------------------------------------ */

#define TASK "{\"name\":\"push\",\"max_steps\":9}"

static int described(const char *head, char *ret_text, size_t room)
{
    static struct remote_description what;
    struct error error = {0};
    int r = remote_read_description(head, strlen(head), &what, &error);

    snprintf(ret_text, room, "%s", error.text);
    return r;
}

static void test_descriptions(void **state)
{
    static const struct { const char *head, *says; } bad[] = {
        { "", "no JSON" },
        { "[]", "no JSON object" },
        { "{\"protocol\":2,\"height\":4,\"width\":4,\"tasks\":[" TASK "]}", "speaks protocol 2" },
        { "{\"height\":4,\"width\":4,\"tasks\":[" TASK "]}", "'protocol' is missing" },
        { "{\"protocol\":1,\"width\":4,\"tasks\":[" TASK "]}", "'height' is missing" },
        { "{\"protocol\":1,\"height\":4.5,\"width\":4,\"tasks\":[" TASK "]}", "'height' is no whole number" },
        { "{\"protocol\":1,\"height\":4,\"width\":5000,\"tasks\":[" TASK "]}", "'width' is 5000, outside 1..4096" },
        { "{\"protocol\":1,\"height\":4096,\"width\":4096,\"cameras\":8,\"tasks\":[" TASK "]}", "pictures of 402653184 bytes" },
        { "{\"protocol\":1,\"height\":4,\"width\":4,\"cameras\":0,\"tasks\":[" TASK "]}", "'cameras' is 0" },
        { "{\"protocol\":1,\"height\":4,\"width\":4,\"action_dims\":17,\"tasks\":[" TASK "]}", "'action_dims' is 17, outside 1..16" },
        { "{\"protocol\":1,\"height\":4,\"width\":4,\"expert\":1,\"tasks\":[" TASK "]}", "'expert' is neither" },
        { "{\"protocol\":1,\"height\":4,\"width\":4,\"control_hz\":0,\"tasks\":[" TASK "]}", "'control_hz'" },
        { "{\"protocol\":1,\"height\":4,\"width\":4,\"tasks\":[]}", "'tasks' is no list" },
        { "{\"protocol\":1,\"height\":4,\"width\":4,\"tasks\":[7]}", "tasks[0]: it is no object" },
        { "{\"protocol\":1,\"height\":4,\"width\":4,\"tasks\":[{\"name\":\"a\"}]}", "tasks[0]: 'max_steps' is missing" },
        { "{\"protocol\":1,\"height\":4,\"width\":4,\"tasks\":[{\"max_steps\":1}]}", "tasks[0]: 'name' is missing" },
        { "{\"protocol\":1,\"height\":4,\"width\":4,\"tasks\":[" TASK "," TASK "]}", "tasks[1]: 'name' is 'push' like that of tasks[0]" },
        { "{\"protocol\":1,\"height\":4,\"width\":4,\"tasks\":[{\"name\":\"a\\nb\",\"max_steps\":1}]}", "control character" },
        { "{\"error\":\"no\\nrobot\"}", "no robot" },
    };
    char text[480];

    (void)state;
    assert_int_equal(described("{\"protocol\":1,\"height\":4,\"width\":4,\"tasks\":[" TASK "]}", text, sizeof(text)), 0);
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        int r = described(bad[i].head, text, sizeof(text));

        if (r != (strstr(bad[i].head, "error") ? -EREMOTEIO : -EBADMSG) || !strstr(text, bad[i].says))
            fail_msg("%s: %d, %s", bad[i].head, r, text);
    }
}

static void test_observations(void **state)
{
    static const char *const bad[] = { "{\"success\":3}", "{\"proprio\":[1]}", "{\"proprio\":[1,\"2\"]}", "{\"proprio\":[1,1e99]}",
                                       "{\"proprio\":[1,NaN]}", "{\"proprio\":[1,2],\"instruction\":5}", "{\"proprio\":[1,2],\"reward\":\"1\"}",
                                       "{\"proprio\":[1,2],\"reward\":1e7}" };
    static const char good[] = "{\"success\":true,\"proprio\":[1,-2.5],\"instruction\":\"go\"}",
                      paid[] = "{\"proprio\":[1,2],\"reward\":-0.5}";
    struct remote_observation seen;
    float action[SIM_ACTION_DIMS], label[SIM_ACTION_DIMS];
    struct error error;

    (void)state;
    assert_int_equal(remote_read_observation(good, strlen(good), 2, &seen, &error), 0);
    assert_true(seen.success && seen.proprio[1] == -2.5f && !strcmp(seen.instruction, "go"));
    assert_true(isnan(seen.reward));
    assert_int_equal(remote_read_observation(paid, strlen(paid), 2, &seen, &error), 0);
    assert_true(seen.reward == -0.5f);
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
        assert_int_equal(remote_read_observation(bad[i], strlen(bad[i]), 2, &seen, &error), -EBADMSG);
    assert_int_equal(remote_read_expert("{\"action\":[1,0,0,0,0,0,-1]}", 27, 7, action, label, &error), 0);
    assert_memory_equal(action, label, sizeof(action));
    assert_int_equal(remote_read_expert("{\"action\":[1,0,0,0,0,0,-2]}", 27, 7, action, label, &error), -EBADMSG);
}

/* ---- frames ----------------------------------------------------------------------------------------------------- */

static char many[1 << 20];

static void *send_many(void *arg)
{
    struct error error;

    return (void *)(intptr_t)frame_send(*(int *)arg, "{}", 2, many, sizeof(many), UINT64_MAX, &error);
}

/* More than fits into the socket: it comes and goes in pieces. */
static void test_pieces(void **state)
{
    _cleanup_(frame_release) struct frame frame = {0};
    struct error error;
    pthread_t sender;
    void *sent;
    int ends[2];

    (void)state;
    for (size_t i = 0; i < sizeof(many); i++)
        many[i] = (char)(i / 1000 + i);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    assert_int_equal(pthread_create(&sender, NULL, send_many, &ends[0]), 0);
    assert_int_equal(frame_receive(ends[1], &frame, sizeof(many), UINT64_MAX, &error), 0);
    assert_int_equal(pthread_join(sender, &sent), 0);
    assert_null(sent);
    assert_int_equal(frame.body_n, sizeof(many));
    assert_memory_equal(frame.body, many, sizeof(many));
    close(ends[0]);
    close(ends[1]);
}

static void test_frames(void **state)
{
    static const uint32_t huge[2] = { FRAME_HEAD_MAX + 1, 0 }, fat[2] = { 0, 17 };
    _cleanup_(frame_release) struct frame frame = {0};
    struct error error;
    int ends[2];

    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    assert_int_equal(frame_send(ends[0], "{}", 2, "abc", 3, UINT64_MAX, &error), 0);
    assert_int_equal(frame_receive(ends[1], &frame, 3, UINT64_MAX, &error), 0);
    assert_true(frame.head_n == 2 && frame.body_n == 3 && !strcmp(frame.head, "{}") && !memcmp(frame.body, "abc", 3));
    assert_int_equal(frame_receive(ends[1], &frame, 3, clock_mono_ns(), &error), -ETIMEDOUT);
    /* nobody reads: what does not fit into the socket waits no longer than it may */
    assert_int_equal(frame_send(ends[0], "{}", 2, many, sizeof(many), clock_mono_ns(), &error), -ETIMEDOUT);
    close(ends[0]);
    close(ends[1]);

    for (int i = 0; i < 2; i++) {
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
        assert_int_equal(write(ends[0], i ? huge : fat, 8), 8);
        assert_int_equal(frame_receive(ends[1], &frame, 16, UINT64_MAX, &error), -EPROTO);
        close(ends[0]);
        assert_int_equal(frame_receive(ends[1], &frame, 16, UINT64_MAX, &error), -EPIPE);
        close(ends[1]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_descriptions),
        cmocka_unit_test(test_observations),
        cmocka_unit_test(test_pieces),
        cmocka_unit_test(test_frames),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
