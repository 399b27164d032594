#include "cli/daemons.h"

#include <errno.h>
#include <stdio.h>

static const struct kind { const char *program, *word; } kinds[] = {
    [GANTRY__ROLE__ROLE_COORDINATOR] = {"gantry-coordinator", "coordinator"},
    [GANTRY__ROLE__ROLE_ENV_WORKER] = {"gantry-env-worker", "env-worker"},
    [GANTRY__ROLE__ROLE_ACTOR] = {"gantry-actor", "actor"},
    [GANTRY__ROLE__ROLE_PRM_SERVER] = {"gantry-prm-server", "prm-server"},
    [GANTRY__ROLE__ROLE_LEARNER] = {"gantry-learner", "learner"},
};

static const struct server_config *servers_of(const struct run_config *c, Gantry__Role role)
{
    switch (role) {
    case GANTRY__ROLE__ROLE_ACTOR: return c->actors;
    case GANTRY__ROLE__ROLE_PRM_SERVER: return c->prm_servers;
    case GANTRY__ROLE__ROLE_LEARNER: return c->learners;
    default: return NULL;
    }
}

int daemons_count(const struct run_config *c, Gantry__Role role)
{
    switch (role) {
    case GANTRY__ROLE__ROLE_COORDINATOR: return 1;
    case GANTRY__ROLE__ROLE_ENV_WORKER: return c->env_workers;
    case GANTRY__ROLE__ROLE_ACTOR: return c->n_actors;
    case GANTRY__ROLE__ROLE_PRM_SERVER: return c->n_prm_servers;
    case GANTRY__ROLE__ROLE_LEARNER: return c->n_learners;
    default: return 0;
    }
}

void daemons_name(Gantry__Role role, int index, char *ret, size_t size)
{
    if (role == GANTRY__ROLE__ROLE_COORDINATOR)
        snprintf(ret, size, "%s", kinds[role].word);
    else
        snprintf(ret, size, "%s-%d", kinds[role].word, index);
}

/* Where server `command` listens: as configured; else a free port beside the coordinator's, or a socket in the run directory. */
static int set_address(const struct daemons_of *of, const char *configured, struct daemon_command *command, struct error *error)
{
    const char *listen = of->config->listen, *colon = strrchr(listen, ':');

    if (!strncmp(configured, "tcp://", 6) && !*listen)
        return error_set(error, EINVAL,
                         "%s: its address is %s, but without `cluster: {listen: tcp://HOST:PORT}` members have no keys",
                         command->name, configured);
    if (*configured)
        snprintf(command->address, sizeof command->address, "%s", configured);
    else if (colon)
        snprintf(command->address, sizeof command->address, "%.*s:*", (int)(colon - listen), listen);
    else if (of->run_dir)
        return address_ipc(of->run_dir, command->name, command->address, error);
    return 0;
}

static int add_server(const struct daemons_of *of, Gantry__Role role, int index, struct daemon_command *ret, int *at,
                      struct error *error)
{
    const struct server_config *server = &servers_of(of->config, role)[MIN(index, daemons_count(of->config, role) - 1)];
    int r = set_address(of, index < daemons_count(of->config, role) ? server->address : "", ret, error), a = *at;

    if (r < 0)
        return r;
    snprintf(ret->threads, sizeof ret->threads, "%d", MAX(server->threads, 1));
    snprintf(ret->number, sizeof ret->number, "%d", index);
    ret->arguments[a++] = "--device", ret->arguments[a++] = server->device;
    ret->arguments[a++] = "--threads", ret->arguments[a++] = ret->threads;
    ret->arguments[a++] = "--name", ret->arguments[a++] = ret->name;
    if (ret->address[0])        /* else a socket in the run directory, which is not known here */
        ret->arguments[a++] = "--listen", ret->arguments[a++] = ret->address;
    if (role == GANTRY__ROLE__ROLE_LEARNER)
        ret->arguments[a++] = "--rank", ret->arguments[a++] = ret->number;
    *at = a;
    return 0;
}

/* Worker `index` of a list of devices: it takes them in turn. */
static void set_renderer(const char *list, int index, char *ret, size_t size)
{
    const char *at = list;
    int n = 1;

    for (const char *c = list; *c; c++)
        n += *c == ',';
    for (int i = index % n; i > 0; i--)
        at = strchr(at, ',') + 1;
    snprintf(ret, size, "%.*s", (int)strcspn(at, ","), at);
}

int daemons_command(const struct daemons_of *of, Gantry__Role role, int index, struct daemon_command *ret, struct error *error)
{
    int a = 0, r = 0;

    memset(ret, 0, sizeof *ret);
    daemons_name(role, index, ret->name, sizeof ret->name);
    ret->program = kinds[role].program;
    if (of->run_dir && role != GANTRY__ROLE__ROLE_COORDINATOR)
        ret->arguments[a++] = "--join", ret->arguments[a++] = of->join;
    if (of->run_dir)
        ret->arguments[a++] = "--run-dir", ret->arguments[a++] = of->run_dir;
    if (role == GANTRY__ROLE__ROLE_ENV_WORKER) {
        snprintf(ret->number, sizeof ret->number, "%d", of->config->slots);
        ret->arguments[a++] = "--slots", ret->arguments[a++] = ret->number;
        set_renderer(of->config->renderers, index, ret->render, sizeof ret->render);
        if (strcmp(ret->render, "software"))
            ret->arguments[a++] = "--render", ret->arguments[a++] = ret->render;
        ret->arguments[a++] = "--name", ret->arguments[a++] = ret->name;
    } else if (servers_of(of->config, role)) {
        if (daemons_count(of->config, role) == 0)
            return error_set(error, EINVAL, "the run's configuration has no %s to go by", kinds[role].word);
        r = add_server(of, role, index, ret, &a, error);
    }
    if (r == 0 && role != GANTRY__ROLE__ROLE_COORDINATOR && of->run_dir && of->config->listen[0]) {
        r = run_keys_local(of->run_dir, role, ret->key, error);
        ret->arguments[a++] = "--key", ret->arguments[a++] = ret->key;
    }
    return r;
}
