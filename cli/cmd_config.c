/* cmd_config.c - `gantry config`: look at a run's configuration without running it. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/macro.h"
#include "cli/beside.h"
#include "cli/cli.h"
#include "cli/preflight.h"
#include "daemon/config.h"
#include "daemon/run_config.h"

static int usage(FILE *out, int status)
{
    fprintf(out, "usage: gantry config check FILE     is it right? if not, a line for each fault: where, and the\n"
                 "                                    remedy\n"
                 "       gantry config show FILE      with every default filled in\n"
                 "       gantry config explain KEY    what a key means: rl.lr, suite.image, lr; all keys of one:\n"
                 "                                    suite, rl\n"
                 "       gantry config docs           docs/configuration.md, from the same tables\n");
    return status;
}

static int print(const struct strbuf *text)
{
    return fwrite(text->text, 1, text->length, stdout) == text->length && fflush(stdout) == 0 ? CLI_OK : CLI_FAILED;
}

static int fail(const struct error *error, int r)
{
    fprintf(stderr, "%s\n", error_text(error, r));
    return CLI_FAILED;
}

/* A file of another host's run may be right here, too: no error. */
static void say_absent(const char *key, const char *path)
{
    if (path[0] && access(path, F_OK) < 0)
        fprintf(stderr, "warning: %s: %s: not there on this host, seen from this directory\n", key, path);
}

/* The line of what has failed; is it a fault? */
static bool complain(const char *path, const struct error *error, int r, bool warning)
{
    if (r < 0)
        fprintf(stderr, "%s: %s\n", warning ? "warning" : path, error_text(error, r));
    return r < 0 && !warning;
}

/* What the typed keys cannot know; how many faults there are. A suite or a token that needs files may be complete on the host that
 * needs it: no error; nor is anybody's simulator started to be asked. */
static unsigned check_values(const char *path, const struct run_config *config)
{
    static int (*const checks[])(const struct run_config *config, struct error *error) = {preflight_addresses, preflight_page,
                                                                                          preflight_token};
    bool elsewhere = !strncmp(config->suite, "libero_", 7);
    struct error error = {0};
    unsigned faults = 0, misnamed = 0;
    int dims, r;

    for (size_t i = 0; i < ARRAY_SIZE(checks); i++) {
        r = checks[i](config, &error);
        faults += complain(path, &error, r, r == -ENOENT);
    }
    if (!config->n_stages)
        fprintf(stderr, "warning: stages: there are none, so there is nothing to do\n");
    for (int i = 0; i < config->n_tasks; i++)
        misnamed += complain(path, &error, preflight_task_name(config, i, &error), false);
    if (!misnamed && strcmp(config->suite, "remote")) {
        r = preflight_tasks(config, &dims, &error);
        faults += complain(path, &error, r, r == -ENOENT && elsewhere);
    }
    return faults + misnamed;
}

/* The keys of a section, for people who ask what there is. */
static int explain(const char *key, struct strbuf *out, struct error *error)
{
    _cleanup_(strbuf_release) struct strbuf all = STRBUF_INIT;
    char heading[2][80];
    int r = run_config_document(&all);

    snprintf(heading[0], sizeof heading[0], "\n## `%s`\n", key);
    snprintf(heading[1], sizeof heading[1], "\n### `%s`\n", key);
    for (size_t i = 0; r == 0 && i < ARRAY_SIZE(heading); i++) {
        const char *start = strstr(all.text, heading[i]), *end = start ? strstr(start + strlen(heading[i]), "\n##") : NULL;

        if (start)
            strbuf_add(out, start + 1, end ? (size_t)(end - start) : strlen(start + 1));
    }
    return r < 0 || out->length ? r : run_config_explain(key, out, error);
}

static int load_all(const char *path, struct run_config *ret)
{
    struct config_faults faults;
    int r = run_config_load_all(path, ret, &faults);

    for (size_t i = 0; i < MIN(faults.n, (size_t)CONFIG_FAULTS); i++)
        fprintf(stderr, "%s\n", faults.items[i].text);
    if (faults.n > CONFIG_FAULTS)
        fprintf(stderr, "%s: and %zu faults more\n", path, faults.n - CONFIG_FAULTS);
    return r;
}

static int load(const char *path, bool show)
{
    _cleanup_free_ struct run_config *config = calloc(1, sizeof *config);
    _cleanup_(strbuf_release) struct strbuf out = STRBUF_INIT;
    int r;

    if (!config)
        return fail(NULL, -ENOMEM);
    if (load_all(path, config) < 0)
        return CLI_FAILED;
    run_config_warnings(config, cli_warning, NULL);
    if (!show) {
        if (check_values(path, config))
            return CLI_FAILED;
        beside_find_model(config->policy_init, sizeof config->policy_init);
        say_absent("policy.init", config->policy_init);
        say_absent("policy.base", config->policy_base);
        if (strcmp(config->prm_init, "policy"))
            say_absent("prm.init", config->prm_init);
        printf("%s: right: run %s, %d stage%s, %d task%s\n", path, config->name, config->n_stages,
               config->n_stages == 1 ? "" : "s", config->n_tasks, config->n_tasks == 1 ? "" : "s");
        return CLI_OK;
    }
    if ((r = run_config_write(config, &out)) < 0)
        return fail(NULL, r);
    return print(&out);
}

int cmd_config(int argc, char **argv)
{
    _cleanup_(strbuf_release) struct strbuf out = STRBUF_INIT;
    struct error error = {0};
    const char *what = argc > 1 ? argv[1] : "";
    int r;

    if (cli_asks_help(argc, argv))
        return usage(stdout, CLI_OK);
    if (argc == 3 && (!strcmp(what, "check") || !strcmp(what, "show")))
        return load(argv[2], what[0] == 's');
    if (argc == 3 && !strcmp(what, "explain"))
        r = explain(argv[2], &out, &error);
    else if (argc == 2 && !strcmp(what, "docs"))
        r = run_config_document(&out);
    else
        return usage(stderr, CLI_USAGE);
    return r < 0 ? fail(&error, r) : print(&out);
}
