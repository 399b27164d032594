/* cmd_keys.c - `gantry keys`: who may join a run over the network. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/run_keys.h"

static int usage(FILE *out, int status)
{
    fprintf(out, "usage: gantry keys init RUN                       make the coordinator's pair; prints its public key\n"
                 "       gantry keys add RUN ROLE NAME [PUBLIC]     let a member in: env_worker, actor, prm_server,\n"
                 "                                                  learner\n"
                 "       gantry keys local RUN                      pairs for members on this host: HOST-ROLE.key\n"
                 "       gantry keys revoke RUN NAME|PUBLIC         shut it out, with its next message\n"
                 "       gantry keys list RUN                       who is let in\n"
                 "Keys lie in RUN/keys/. Without PUBLIC `add` makes a pair there, NAME.key and NAME.pub: copy NAME.key\n"
                 "and coordinator.pub to the other host and start the member with --join tcp://HOST:PORT --key\n"
                 "NAME.key. Give each host its own key.\n");
    return status;
}

static int fail(const struct error *error, int r)
{
    fprintf(stderr, "gantry keys: %s\n", error_text(error, r));
    return CLI_FAILED;
}

static int init(const char *run_dir)
{
    char public_key[SECURITY_KEY_SIZE];
    struct error error = {0};
    int r = run_keys_init(run_dir, public_key, &error);

    if (r < 0)
        return fail(&error, r);
    printf("coordinator %s%s\n", public_key, r == 0 ? " (was there)" : "");
    return CLI_OK;
}

static int add(const char *run_dir, const char *role_name, const char *name, const char *given)
{
    char public_key[SECURITY_KEY_SIZE];
    struct error error = {0};
    Gantry__Role role;
    int r = wire_role_parse(role_name, &role);

    if (r < 0 || role == GANTRY__ROLE__ROLE_COORDINATOR)
        return fail(&error, error_set(&error, EINVAL, "'%s' is no member's role: env_worker, actor, prm_server or learner",
                                      role_name));
    r = run_keys_add(run_dir, role, name, given, public_key, &error);
    if (r < 0)
        return fail(&error, r);
    printf("%s %s %s\n", role_name, public_key, name);
    if (!given)
        printf("copy %s/keys/%s.key and %s/keys/coordinator.pub to that host, then: --join tcp://HOST:PORT --key %s.key\n",
               run_dir, name, run_dir, name);
    return CLI_OK;
}

static int local(const char *run_dir)
{
    struct error error = {0};
    int r = run_keys_local_all(run_dir, &error);

    return r < 0 ? fail(&error, r) : CLI_OK;
}

static int shut_out(const char *run_dir, const char *key_or_name)
{
    struct error error = {0};
    int r = run_keys_revoke(run_dir, key_or_name, &error);

    if (r < 0)
        return fail(&error, r);
    printf("%s is shut out\n", key_or_name);
    return CLI_OK;
}

static int list(const char *run_dir)
{
    _cleanup_free_ struct security_entry *entries = NULL;
    struct error error = {0};
    size_t n = 0;
    int r = run_keys_list(run_dir, &entries, &n, &error);

    if (r < 0)
        return fail(&error, r);
    if (!n)
        fprintf(stderr, "gantry keys: nobody is let in yet: gantry keys add %s ROLE NAME\n", run_dir);
    for (size_t i = 0; i < n; i++)
        printf("%-11s %s %s\n", wire_role_name(entries[i].role), entries[i].key, entries[i].name);
    return CLI_OK;
}

int cmd_keys(int argc, char **argv)
{
    const char *verb = argc > 1 ? argv[1] : "";

    if (cli_asks_help(argc, argv))
        return usage(stdout, CLI_OK);
    if (!strcmp(verb, "init") && argc == 3)
        return init(argv[2]);
    if (!strcmp(verb, "add") && (argc == 5 || argc == 6))
        return add(argv[2], argv[3], argv[4], argc == 6 ? argv[5] : NULL);
    if (!strcmp(verb, "local") && argc == 3)
        return local(argv[2]);
    if (!strcmp(verb, "revoke") && argc == 4)
        return shut_out(argv[2], argv[3]);
    if (!strcmp(verb, "list") && argc == 3)
        return list(argv[2]);
    return usage(stderr, CLI_USAGE);
}
