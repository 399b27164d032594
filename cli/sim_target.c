#include "cli/sim.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/macro.h"
#include "cli/cli.h"
#include "cli/model.h"

static const char *const split_names[] = {"train", "val", "test"};

const char *sim_split_name(enum sim_split split) { return split_names[split]; }

int sim_fail(const struct error *error, int r)
{
    fprintf(stderr, "gantry sim: %s\n", error_text(error, r));
    return CLI_FAILED;
}

int sim_number(int *argc, char **argv, const char *name, long lo, long hi, long value, long *ret, struct error *error)
{
    const char *text = model_option(argc, argv, name);
    char *end;

    if (text) {
        value = strtol(text, &end, 10);
        if (end == text || *end || value < lo || value > hi)
            return error_set(error, EINVAL, "%s: '%s' is not a number from %ld to %ld", name, text, lo, hi);
    }
    *ret = value;
    return 0;
}

/* software (default), auto, or the number of an EGL device. */
static int read_renderer(const char *text, int *ret, struct error *error)
{
    char *end;
    long device = -1;

    if (text && !strcmp(text, "auto"))
        device = -2;
    else if (text && strcmp(text, "software") != 0) {
        device = strtol(text, &end, 10);
        if (end == text || *end || device < 0 || device > 31)
            return error_set(error, EINVAL, "--renderer: '%s' is not software, auto or the number of an EGL device", text);
    }
    *ret = (int)device;
    return 0;
}

int sim_open_renderer(const struct sim_target *target, int size, struct sim_renderer **ret, struct error *error)
{
    int r = sim_renderer_open(sim_suite_device(target->suite, target->device), size, size, ret, error);

    if (r >= 0 && target->device != -1)
        fprintf(stderr, "drawn by %s%s\n", sim_renderer_name(*ret),
                sim_renderer_is_software(*ret) ? ", in software: no GPU drew this" : "");
    return r;
}

/* "7" or "0..49". */
static int read_states(const char *text, uint64_t *ret_first, uint64_t *ret_last, struct error *error)
{
    char *end;
    unsigned long long first, last;

    if (!text)
        return 0;
    errno = 0;
    first = last = strtoull(text, &end, 10);
    if (end != text && !strncmp(end, "..", 2)) {
        const char *from = end + 2;

        last = strtoull(from, &end, 10);
        if (end == from)
            end = (char *)(uintptr_t)text;
    }
    if (end == text || *end || errno || last < first || strchr(text, '-'))
        return error_set(error, EINVAL, "--states: '%s' is not a state's number or a range such as 0..49", text);
    *ret_first = first;
    *ret_last = last;
    return 0;
}

static int read_split(const char *text, enum sim_split *ret, struct error *error)
{
    for (size_t i = 0; text && i < ARRAY_SIZE(split_names); i++)
        if (!strcmp(text, split_names[i])) {
            *ret = (enum sim_split)i;
            return 0;
        }
    return text ? error_set(error, EINVAL, "--split: '%s' is not train, val or test", text) : 0;
}

static int read_substeps(const char *text, enum sim_substeps *ret, struct error *error)
{
    if (text && strcmp(text, "reference") != 0 && strcmp(text, "onepass") != 0)
        return error_set(error, EINVAL, "--substeps: '%s' is not reference or onepass", text);
    if (text)
        *ret = strcmp(text, "onepass") == 0 ? SIM_SUBSTEPS_ONEPASS : SIM_SUBSTEPS_REFERENCE;
    return 0;
}

int sim_target_read(int *argc, char **argv, struct sim_target *ret, struct error *error)
{
    struct sim_target target = {
        .suite_name = model_option(argc, argv, "--suite"),
        .task_name = model_option(argc, argv, "--task"),
        .split = SIM_TEST,
        .options = {.robosuite = model_option(argc, argv, "--robosuite"), .cache = model_option(argc, argv, "--cache"),
                    .remote = model_option(argc, argv, "--remote")},
    };
    int r = read_split(model_option(argc, argv, "--split"), &target.split, error);

    if (r == 0)
        r = read_states(model_option(argc, argv, "--states"), &target.first, &target.last, error);
    if (r == 0)
        r = read_renderer(model_option(argc, argv, "--renderer"), &target.device, error);
    if (r == 0)
        r = read_substeps(model_option(argc, argv, "--substeps"), &target.options.substeps, error);
    if (r < 0)
        return r;
    if (!target.suite_name)
        target.suite_name = "tabletop";
    *ret = target;
    return 0;
}

static int find_task(const struct sim_target *target, const char **ret_name, struct error *error)
{
    const struct sim_task_info *infos;
    const int n = sim_suite_tasks(target->suite, &infos);
    const char *text = target->task_name ? target->task_name : "0";
    char *end;
    long index = strtol(text, &end, 10);

    if (end != text && !*end) {
        if (index < 0 || index >= n)
            return error_set(error, ENOENT, "--task: %s has tasks 0 to %d, not %s (gantry sim list --suite %s)",
                             target->suite_name, n - 1, text, target->suite_name);
        *ret_name = infos[index].name;
        return 0;
    }
    *ret_name = text;
    return 0;
}

int sim_target_open(struct sim_target *target, struct error *error)
{
    const char *name = NULL;
    int r = sim_suite_open(target->suite_name, &target->options, &target->suite, error);

    if (r == 0)
        r = find_task(target, &name, error);
    if (r == 0)
        r = sim_task_open(target->suite, name, &target->task, error);
    if (r < 0) {
        sim_target_close(target);
        return r;
    }
    target->info = sim_task_info(target->task);
    return 0;
}

void sim_target_close(struct sim_target *target)
{
    target->task = sim_task_close(target->task);
    target->suite = sim_suite_close(target->suite);
}
