/* deploy_systemd.c - from a run's configuration to /etc/gantry and the units that gantry.target wants. */
#include <errno.h>
#include <glob.h>
#include <limits.h>
#include <pwd.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/daemons.h"
#include "cli/deploy.h"
#include "wire/address.h"

#define STATE_DIR "/var/lib/gantry"
#define UNITS "/etc/systemd/system"
#define UNFIT " \t\"'\\$%"      /* in a unit's paths */

static void unit_name(Gantry__Role role, int index, char *ret, size_t size)
{
    const char *word = wire_role_name(role);
    char dashed[32];

    snprintf(dashed, sizeof dashed, "%s", word);
    for (char *at = dashed; *at; at++)
        if (*at == '_')
            *at = '-';
    if (role == GANTRY__ROLE__ROLE_COORDINATOR)
        snprintf(ret, size, "gantry-%s.service", dashed);
    else
        snprintf(ret, size, "gantry-%s@%d.service", dashed, index);
}

/* An instance of a template, with what it alone has in /etc/gantry/NAME-N.env. */
static int add_unit(struct deploy *d, Gantry__Role role, int index, struct error *error)
{
    const struct daemons_of of = {.config = d->config};
    _cleanup_(strbuf_release) struct strbuf env = STRBUF_INIT;
    struct daemon_command command;
    char path[160], target[160], name[64];
    int r = daemons_command(&of, role, index, &command, error);

    if (r < 0)
        return r;
    strbuf_adds(&env, "GANTRY_ARGS=");
    for (const char **a = command.arguments; *a; a += 2)
        if (strcmp(*a, "--name") && strcmp(*a, "--rank") && strcmp(*a, "--slots"))
            strbuf_addf(&env, "%s %s ", a[0], a[1]);
    if (d->config->listen[0] && role != GANTRY__ROLE__ROLE_ENV_WORKER) {
        char host[64] = "localhost";

        (void)gethostname(host, sizeof host - 1);
        strbuf_addf(&env, "--key %s/keys/%s-%s.key", d->config->dir, host, wire_role_name(role));
    }
    strbuf_adds(&env, "\n");
    snprintf(path, sizeof path, "/etc/gantry/%s.env", command.name);
    if (role != GANTRY__ROLE__ROLE_ENV_WORKER && role != GANTRY__ROLE__ROLE_COORDINATOR)
        r = deploy_file(d, path, &env, error);
    unit_name(role, index, name, sizeof name);
    snprintf(path, sizeof path, UNITS "/gantry.target.wants/%s", name);
    snprintf(target, sizeof target, role == GANTRY__ROLE__ROLE_COORDINATOR ? "/usr/lib/systemd/system/%s.service"
             : "/usr/lib/systemd/system/%s@.service", command.program);
    return r < 0 ? r : deploy_link(d, path, target, error);
}

/* What all units read. */
static int add_common(struct deploy *d, struct error *error)
{
    _cleanup_(strbuf_release) struct strbuf env = STRBUF_INIT, yaml = STRBUF_INIT;
    char host[64] = "localhost";
    int r = run_config_write(d->config, &yaml);

    if (r < 0)
        return error_set(error, -r, "out of memory");
    r = deploy_file(d, "/etc/gantry/run.yaml", &yaml, error);
    if (r < 0)
        return r;
    (void)gethostname(host, sizeof host - 1);
    strbuf_addf(&env, "GANTRY_RUN=%s\nGANTRY_MEMBER=--join %s --run-dir %s\nGANTRY_WORKER_ARGS=--slots %d", d->config->dir,
                d->config->dir, d->config->dir, d->config->slots);
    if (strcmp(d->config->renderers, "software") && !strchr(d->config->renderers, ','))    /* of several: by hand, per instance */
        strbuf_addf(&env, " --render %s", d->config->renderers);
    if (d->config->listen[0])
        strbuf_addf(&env, " --key %s/keys/%s-env_worker.key", d->config->dir, host);
    strbuf_adds(&env, "\n");
    return deploy_file(d, "/etc/gantry/gantry.env", &env, error);
}

/* A run directory outside of /var/lib/gantry belongs to somebody: the units run as that user then. */
static int add_owner(struct deploy *d, struct error *error)
{
    _cleanup_(strbuf_release) struct strbuf text = STRBUF_INIT;
    const struct passwd *owner;
    struct stat st;

    if (!strncmp(d->config->dir, STATE_DIR "/", strlen(STATE_DIR "/")))
        return 0;
    if (stat(d->config->dir, &st))
        return error_set(error, errno, "run.dir %s: %s: make it, owned by the user the daemons run as, or choose one below %s",
                         d->config->dir, strerror(errno), STATE_DIR);
    owner = getpwuid(st.st_uid);
    if (!owner)
        return error_set(error, ENOENT, "run.dir %s belongs to user %u, who has no name here", d->config->dir,
                         (unsigned)st.st_uid);
    strbuf_addf(&text, "[Service]\nDynamicUser=no\nUser=%s\nStateDirectory=\nReadWritePaths=%s\n", owner->pw_name,
                d->config->dir);
    return deploy_file(d, UNITS "/gantry-.service.d/owner.conf", &text, error);
}

/* Whoever the coordinator runs as: the page's token is read for it. */
static int add_token(struct deploy *d, struct error *error)
{
    _cleanup_(strbuf_release) struct strbuf text = STRBUF_INIT;

    if (!d->token_file[0])
        return 0;
    if (strpbrk(d->token_file, UNFIT))
        return error_set(error, EINVAL, "status.token_file %s: units take no path with blanks, quotes, \\, $ or %%; choose another",
                         d->token_file);
    strbuf_addf(&text, "[Service]\nLoadCredential=page.token:%s\n", d->token_file);
    return deploy_file(d, UNITS "/gantry-coordinator.service.d/token.conf", &text, error);
}

/* Each unit has a /tmp of its own (PrivateTmp), so sockets there would be found by nobody else. */
static int check_length(const char *dir, struct error *error)
{
    size_t most = ADDRESS_RUN_DIR_MAX;

    if (!strncmp(dir, STATE_DIR "/", strlen(STATE_DIR "/")))
        most -= strlen("private/");     /* where it really lies, with DynamicUser */
    if (strlen(dir) > most)
        return error_set(error, ENAMETOOLONG, "run.dir %s: its path has %zu bytes, and units need one of at most %zu for their "
                         "sockets; choose a shorter one", dir, strlen(dir), most);
    return 0;
}

/* An earlier installation may have wanted more of a kind; whether they are still wanted only its operator knows. */
static void say_left_over(const struct deploy *d)
{
    char pattern[PATH_MAX];
    glob_t found = {0};

    snprintf(pattern, sizeof pattern, "%s" UNITS "/gantry.target.wants/gantry-*@*.service", d->root);
    if (glob(pattern, 0, NULL, &found) == 0)
        for (size_t i = 0; i < found.gl_pathc; i++) {
            const char *unit = strrchr(found.gl_pathv[i], '/') + 1;
            bool wanted = false;
            char name[64];

            for (int role = GANTRY__ROLE__ROLE_ENV_WORKER; role <= GANTRY__ROLE__ROLE_LEARNER; role++)
                for (int k = 0; k < daemons_count(d->config, (Gantry__Role)role); k++) {
                    unit_name((Gantry__Role)role, k, name, sizeof name);
                    wanted |= !strcmp(unit, name);
                }
            if (!wanted)
                printf("%s starts, too, and is not of this configuration; `systemctl disable --now %s` if it is not "
                       "wanted\n", unit, unit);
        }
    globfree(&found);
}

int deploy_systemd(struct deploy *d, struct error *error)
{
    static const Gantry__Role roles[] = {GANTRY__ROLE__ROLE_COORDINATOR, GANTRY__ROLE__ROLE_LEARNER, GANTRY__ROLE__ROLE_ACTOR,
                                         GANTRY__ROLE__ROLE_PRM_SERVER, GANTRY__ROLE__ROLE_ENV_WORKER};
    int r;

    if (strpbrk(d->config->dir, UNFIT))
        return error_set(error, EINVAL, "run.dir %s: units take no path with blanks, quotes, \\, $ or %%; choose another",
                         d->config->dir);
    r = check_length(d->config->dir, error);
    if (r == 0)
        r = add_common(d, error);
    if (r == 0)
        r = add_owner(d, error);
    if (r == 0)
        r = add_token(d, error);
    for (size_t k = 0; k < ARRAY_SIZE(roles); k++)
        for (int i = 0; i < daemons_count(d->config, roles[k]) && r == 0; i++)
            r = add_unit(d, roles[k], i, error);
    if (r == 0 && d->root)
        say_left_over(d);
    if (r == 0 && d->root)
        printf("%u files; next: systemctl daemon-reload && systemctl start gantry.target\n", d->written);
    return r;
}
