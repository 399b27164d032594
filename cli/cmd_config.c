/* cmd_config.c - `gantry config`: look at a run's configuration without running it. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/macro.h"
#include "cli/beside.h"
#include "cli/cli.h"
#include "cli/preflight.h"
#include "daemon/run_config.h"

static int usage(FILE *out, int status)
{
    fprintf(out, "usage: gantry config check FILE     is it right? one line with place and remedy if not\n"
                 "       gantry config show FILE      with every default filled in\n"
                 "       gantry config explain KEY    what a key means: rl.lr, suite.image, lr; all keys of one: suite, rl\n"
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

/* What the typed keys cannot know. A suite that needs files may be complete on the host that plays it: no error; nor is anybody's
 * simulator started to be asked. */
static int check_values(const char *path, const struct run_config *config, struct error *error)
{
    int dims, r = preflight_edges(config, error);

    if (r == -ENOENT)
        fprintf(stderr, "warning: %s\n", error_text(error, r));
    else if (r < 0)
        return error_prefix(error, r, "%s", path);
    if (!config->n_stages)
        fprintf(stderr, "warning: stages: there are none, so there is nothing to do\n");
    if (!strcmp(config->suite, "remote"))
        return 0;
    r = preflight_tasks(config, &dims, error);
    if (r == -ENOENT && !strncmp(config->suite, "libero_", 7)) {
        fprintf(stderr, "warning: %s\n", error_text(error, r));
        return 0;
    }
    return r < 0 ? error_prefix(error, r, "%s", path) : 0;
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

static int load(const char *path, bool show)
{
    _cleanup_free_ struct run_config *config = calloc(1, sizeof *config);
    _cleanup_(strbuf_release) struct strbuf out = STRBUF_INIT;
    struct error error = {0};
    int r;

    if (!config)
        return fail(NULL, -ENOMEM);
    if ((r = run_config_load(path, config, &error)) < 0)
        return fail(&error, r);
    run_config_warnings(config, cli_warning, NULL);
    if (!show) {
        if ((r = check_values(path, config, &error)) < 0)
            return fail(&error, r);
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

    if (!strcmp(what, "--help"))
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
