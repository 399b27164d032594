/* cmd_config.c - `gantry config`: look at a run's configuration without running it. */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/atomic_file.h"
#include "cli/beside.h"
#include "cli/cli.h"
#include "cli/preflight.h"
#include "cli/up_config.h"
#include "daemon/config.h"
#include "daemon/run_config.h"
#include "daemon/run_config_edit.h"
#include "daemon/yaml_tree.h"

static int usage(FILE *out, int status)
{
    fprintf(out, "usage: gantry config check FILE     is it right? if not, a line for each fault: where, and the\n"
                 "                                    remedy\n"
                 "       gantry config show FILE      with every default filled in\n"
                 "       gantry config set FILE PLACE.KEY=VALUE...\n"
                 "                                    the file with other values, on stdout: rl.lr=1e-4\n"
                 "                                    sft2.steps=90 (a stage by its name) run.seed=8\n"
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

static void say_faults(const char *path, const struct config_faults *faults, const char *prefix)
{
    for (size_t i = 0; i < MIN(faults->n, (size_t)CONFIG_FAULTS); i++)
        fprintf(stderr, "%s%s\n", prefix, faults->items[i].text);
    if (faults->n > CONFIG_FAULTS)
        fprintf(stderr, "%s: and %zu faults more\n", path, faults->n - CONFIG_FAULTS);
}

/* A suite or a token that needs files may be complete on the host that needs it: no fault. */
static void may_be_elsewhere(int r, const struct error *error, struct config_faults *faults)
{
    if (r == -ENOENT)
        fprintf(stderr, "warning: %s\n", error->text);
    else if (r < 0)
        config_fault(faults, error);
}

/* Nobody's simulator is started to be asked. */
static void check_suite(const struct run_config *config, struct config_faults *faults)
{
    struct config_faults found = {0};
    struct suite_numbers numbers;

    if (!strcmp(config->suite, "remote"))
        return;
    preflight_tasks(config, &numbers, &found);
    for (size_t i = 0; i < MIN(found.n, (size_t)CONFIG_FAULTS); i++)
        if (!strncmp(config->suite, "libero_", 7))
            may_be_elsewhere(-found.items[i].errnum, &found.items[i], faults);
        else
            config_fault(faults, &found.items[i]);
}

/* What the typed keys cannot know. */
static void check_values(const struct run_config *config, struct config_faults *faults)
{
    struct error error = {0};

    preflight_addresses(config, faults);
    if (preflight_page(config, &error) < 0)
        config_fault(faults, &error);
    may_be_elsewhere(preflight_token(config, &error), &error, faults);
    if (config->suite[0])
        check_suite(config, faults);
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

static bool name_tasks(const char *path, struct run_config *config, struct config_faults *faults)
{
    struct error error = {0};

    if (up_config_name_tasks(path, config, &error) == 0)
        return true;
    config_fault(faults, &error);
    return false;
}

/* Everything at once: also what only the values' meaning tells, of those that could be read. */
static int check(const char *path, struct run_config *config)
{
    struct config_faults faults, meant = {0};
    char prefix[PATH_MAX];

    if (run_config_load_all(path, config, &faults) == 0 && name_tasks(path, config, &faults))
        run_config_warnings(config, cli_warning, NULL);
    say_faults(path, &faults, "");
    check_values(config, &meant);
    snprintf(prefix, sizeof prefix, "%s: ", path);
    say_faults(path, &meant, prefix);
    if (faults.n || meant.n)
        return CLI_FAILED;
    if (!config->n_stages)
        fprintf(stderr, "warning: stages: there are none, so there is nothing to do\n");
    beside_find_model(config->policy_init, sizeof config->policy_init);
    say_absent("policy.init", config->policy_init);
    say_absent("policy.base", config->policy_base);
    if (strcmp(config->prm_init, "policy"))
        say_absent("prm.init", config->prm_init);
    printf("%s: right: run %s, %d stage%s, %d task%s\n", path, config->name, config->n_stages,
           config->n_stages == 1 ? "" : "s", config->n_tasks, config->n_tasks == 1 ? "" : "s");
    return CLI_OK;
}

static int show(const char *path, struct run_config *config)
{
    _cleanup_(strbuf_release) struct strbuf out = STRBUF_INIT;
    struct config_faults faults;
    int r = run_config_load_all(path, config, &faults);

    if (r == 0)
        (void)name_tasks(path, config, &faults);
    say_faults(path, &faults, "");
    if (faults.n)
        return CLI_FAILED;
    run_config_warnings(config, cli_warning, NULL);
    if ((r = run_config_write(config, &out)) < 0)
        return fail(NULL, r);
    return print(&out);
}

static int set(const char *path, const char *const *changes, int n_changes, struct strbuf *out, struct error *error)
{
    _cleanup_free_ char *text = NULL;
    size_t n;
    int r = file_read(path, YAML_MAX_BYTES, &text, &n);

    if (r < 0)
        return error_set(error, -r, "%s: cannot be read: %s", path, strerror(-r));
    strbuf_addf(out, "# %s, with", path);
    for (int i = 0; i < n_changes; i++)
        strbuf_addf(out, " %s", changes[i]);
    strbuf_addc(out, '\n');
    return run_config_edit(text, n, path, changes, n_changes, out, error);
}

int cmd_config(int argc, char **argv)
{
    _cleanup_(strbuf_release) struct strbuf out = STRBUF_INIT;
    _cleanup_free_ struct run_config *config = calloc(1, sizeof *config);
    struct error error = {0};
    const char *what = argc > 1 ? argv[1] : "";
    int r;

    if (cli_asks_help(argc, argv))
        return usage(stdout, CLI_OK);
    if (argc == 3 && (!strcmp(what, "check") || !strcmp(what, "show")))
        return !config ? fail(NULL, -ENOMEM) : what[0] == 's' ? show(argv[2], config) : check(argv[2], config);
    if (argc == 3 && !strcmp(what, "explain"))
        r = explain(argv[2], &out, &error);
    else if (argc >= 4 && !strcmp(what, "set"))
        r = set(argv[2], (const char *const *)argv + 3, argc - 3, &out, &error);
    else if (argc == 2 && !strcmp(what, "docs"))
        r = run_config_document(&out);
    else
        return usage(stderr, CLI_USAGE);
    return r < 0 ? fail(&error, r) : print(&out);
}
