#include "cli/up_daemons.h"

#include <errno.h>
#include <stdio.h>

static int add(struct up_daemons *d, Gantry__Role role, int index, struct error *error)
{
    const struct daemons_of of = {.config = d->config, .run_dir = d->run_dir, .join = d->join};
    struct daemon_command command;
    int r = daemons_command(&of, role, index, &command, error);

    return r < 0 ? r : supervisor_add(d->supervisor, command.name, command.program, command.arguments, error);
}

int up_daemons_start(struct up_daemons *d, struct error *error)
{
    static const Gantry__Role order[] = {GANTRY__ROLE__ROLE_COORDINATOR, GANTRY__ROLE__ROLE_LEARNER, GANTRY__ROLE__ROLE_ACTOR,
                                         GANTRY__ROLE__ROLE_PRM_SERVER, GANTRY__ROLE__ROLE_ENV_WORKER};

    for (size_t k = 0; k < ARRAY_SIZE(order); k++)
        for (int i = 0; i < daemons_count(d->config, order[k]); i++) {
            int r = add(d, order[k], i, error);

            if (r < 0)
                return r;
        }
    return 0;
}

/* The ones with the highest numbers go, and finish what they hold; the lowest free numbers come. */
static int set_count(struct up_daemons *d, Gantry__Role role, int wanted, struct error *error)
{
    char name[48];
    int n = 0, r = 0;

    for (int i = 0; i < UP_MOST; i++) {
        daemons_name(role, i, name, sizeof name);
        n += supervisor_has(d->supervisor, name);
    }
    for (int i = UP_MOST; i-- > 0 && n > wanted;) {
        daemons_name(role, i, name, sizeof name);
        n -= supervisor_end(d->supervisor, name) == 0;
    }
    for (int i = 0; i < UP_MOST && n < wanted && r == 0; i++) {
        daemons_name(role, i, name, sizeof name);
        if (supervisor_has(d->supervisor, name))
            continue;
        r = add(d, role, i, error);
        n += r == 0;
        r = r == -EBUSY ? 0 : r;        /* that one is still leaving: the next number */
    }
    return r;
}

static int command_scale(const char *argument, struct strbuf *out, struct error *error, void *arg)
{
    struct up_daemons *d = arg;
    Gantry__Role role;
    char word[32], more;
    int n, r;

    if (sscanf(argument, "%31s %d%c", word, &n, &more) != 2)
        return error_set(error, EINVAL, "'%s' does not say how many of what: env_worker, actor or prm_server, and a number",
                         argument);
    if (wire_role_parse(word, &role) < 0 ||
        (role != GANTRY__ROLE__ROLE_ENV_WORKER && role != GANTRY__ROLE__ROLE_ACTOR && role != GANTRY__ROLE__ROLE_PRM_SERVER))
        return error_set(error, EINVAL, "'%s' cannot be scaled while a run is up: env_worker, actor or prm_server", word);
    if (n < (role == GANTRY__ROLE__ROLE_ENV_WORKER ? 0 : 1) || n > UP_MOST)
        return error_set(error, EINVAL, "%d of %s: at most %d, and a server has to stay", n, word, UP_MOST);
    r = set_count(d, role, n, error);
    if (r == 0)
        strbuf_addf(out, "%d of %s", n, word);
    return r;
}

/* As Ctrl-C. It is ours to keep: a coordinator that died now would not know of it in its next life. */
static int command_drain(const char *argument, struct strbuf *out, struct error *error, void *arg)
{
    struct up_daemons *d = arg;
    int r = lifecycle_drain_command(d->lifecycle, argument, UP_DRAIN_SLACK_MS, error);

    if (r == 0)
        strbuf_adds(out, "draining");
    return r;
}

/* A member that an operator has sent away. It may have left the run long before its process has ended: who scales meanwhile must
 * not count it. */
static int command_leaves(const char *argument, struct strbuf *out, struct error *error, void *arg)
{
    struct up_daemons *d = arg;
    char more;
    int pid;

    if (sscanf(argument, "%d%c", &pid, &more) != 1 || pid < 1)
        return error_set(error, EINVAL, "usage: leaves PID");
    supervisor_leaves(d->supervisor, pid);
    strbuf_adds(out, "noted");
    return 0;
}

static const struct admin_command commands[] = {
    {"drain", "[within SECONDS] [REASON]", "finish what is in hand, then all daemons end", command_drain},
    {"scale", "env_worker|actor|prm_server N", "so many of them on this host; those that go finish what they hold",
     command_scale},
    {"leaves", "PID", "that process was sent away by `gantry drain`: do not count on it", command_leaves},
    {NULL, NULL, NULL, NULL},
};

int up_daemons_listen(struct up_daemons *d, struct loop *loop, struct admin **ret, struct error *error)
{
    char dir[ADDRESS_MAX], path[ADDRESS_MAX + 16];
    int r = address_socket_dir(d->run_dir, dir, error);

    if (r < 0)
        return r;
    snprintf(path, sizeof path, "%s/up.sock", dir);
    return admin_new(loop, path, commands, d, ret, error);
}
