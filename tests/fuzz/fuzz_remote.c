/* A stream from a simulator that is not ours: frames, and heads of every kind. A refusal says why, in one line; what is taken
 * keeps within what the suite has room for. */
#include <errno.h>
#include <math.h>
#include <string.h>
#include <sys/socket.h>

#include "sim/suites/remote/frame.h"
#include "sim/suites/remote/reply.h"

enum { STREAM_MAX = 1 << 16, BODY_MAX = 4096 };         /* the first fits into a socket: nobody reads meanwhile */

static void check(int r, const struct error *error)
{
    if (r > 0 || (r < 0 && (!error->text[0] || strchr(error->text, '\n'))))
        abort();
}

static void read_head(const struct frame *frame)
{
    static struct remote_description what;
    struct remote_observation seen;
    float action[SIM_ACTION_MAX], label[SIM_ACTION_MAX];
    struct error error = {0};
    int r = remote_read_description(frame->head, frame->head_n, &what, &error);

    check(r, &error);
    if (r == 0 && (what.n_tasks < 1 || what.n_tasks > REMOTE_TASKS_MAX || remote_picture_bytes(&what) > FRAME_BODY_MAX ||
                   what.state_bytes > REMOTE_STATE_MAX || what.proprio > REMOTE_PROPRIO_MAX ||
                   what.action_dims < 1 || what.action_dims > SIM_ACTION_MAX))
        abort();
    for (int i = 0; r == 0 && i < what.n_tasks; i++)
        if (!what.infos[i].name[0] || what.infos[i].max_steps < 1 || !(what.infos[i].control_hz > 0))
            abort();
    r = remote_read_observation(frame->head, frame->head_n, 3, &seen, &error);
    check(r, &error);
    for (int i = 0; r == 0 && i < 3; i++)
        if (!isfinite(seen.proprio[i]))
            abort();
    r = remote_read_expert(frame->head, frame->head_n, SIM_ACTION_DIMS, action, label, &error);
    check(r, &error);
    for (int i = 0; r == 0 && i < SIM_ACTION_DIMS; i++)
        if (!(fabsf(action[i]) <= 1 && fabsf(label[i]) <= 1))
            abort();
    check(remote_read_nothing(frame->head, frame->head_n, &error), &error);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    struct frame frame = {0};
    struct error error = {0};
    int ends[2], r;

    if (n > STREAM_MAX || socketpair(AF_UNIX, SOCK_STREAM, 0, ends) < 0)
        return 0;
    if (write(ends[0], bytes, n) != (ssize_t)n)
        abort();
    close(ends[0]);
    while ((r = frame_receive(ends[1], &frame, BODY_MAX, UINT64_MAX, &error)) == 0)
        read_head(&frame);
    if (r != -EPIPE && r != -EPROTO)
        abort();
    close(ends[1]);
    frame_release(&frame);
    return 0;
}
