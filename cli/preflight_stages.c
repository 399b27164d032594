/* preflight_stages.c - does every stage find what it needs? What comes out when it is played ends the run, maybe after hours. */
#include <errno.h>

#include "cli/preflight.h"
#include "daemon/config.h"
#include "data/dataset_dir.h"
#include "sim/sim.h"

/* Data sets that the run names: there, and of its pictures. */
static int check_datasets(const struct run_config *c, struct error *error)
{
    for (int i = 0; i < c->n_stages; i++) {
        _cleanup_(dataset_closep) struct dataset_dir *data = NULL;
        const char *from = c->stages[i].kind == STAGE_DEMOS ? c->stages[i].demos.from : "";
        int r = from[0] ? dataset_open(from, &data, error) : 0;

        if (r < 0)
            return error_prefix(error, r, "stages[%d].demos.from", i);
        if (data && (data->info.height != c->image || data->info.width != c->image || strcmp(data->info.image_chain, c->chain)))
            return error_set(error, EINVAL,
                             "stages[%d].demos.from: %s: pictures of %dx%d by the chain %s; suite.image is %d and suite.chain %s "
                             "(`gantry data import` has --size and --chain)",
                             i, from, data->info.width, data->info.height, data->info.image_chain, c->image, c->chain);
    }
    return 0;
}

#define REFUSE(...) (error_set(&error, EINVAL, __VA_ARGS__), config_fault(faults, &error))

/* What stages want of the simulator. */
static void check_abilities(const struct run_config *c, const struct sim_task_info *suite, struct config_faults *faults)
{
    struct error error;

    for (int i = 0; i < c->n_stages; i++) {
        const struct stage_config *stage = &c->stages[i];
        const struct eval_config *eval = stage->kind == STAGE_EVAL ? &stage->eval : NULL;

        if (stage->kind == STAGE_DEMOS && !stage->demos.from[0] && suite->no_expert)
            REFUSE("stages[%d].demos: this simulator has no expert: import demonstrations (`gantry data import`), and say demos: "
                   "{from: DIR}", i);
        for (int k = 0; eval && k < eval->n_policies; k++)
            if (!strcmp(eval->policies[k], "demonstrator") && suite->no_expert)
                REFUSE("stages[%d].eval.policies: this simulator has no expert that demonstrator could be: name the others, "
                       "[sft, best, last]", i);
        for (int k = 0; eval && k < eval->n_n; k++)
            if (eval->n[k] > 1 && eval->search_method != SAMPLE_N && suite->no_save)
                REFUSE("stages[%d].eval.n: %d: look-ahead plays copies of the simulator, and the states of this one cannot be "
                       "saved: n: [1], or search_method: sample_n", i, eval->n[k]);
    }
}

/* Look-ahead by value asks a policy's critic, which an rl stage adds: what was before it has one only if it began with one. */
static int check_critics(const struct run_config *c, const char *start, struct error *error)
{
    char head[PATH_MAX + 32];
    bool begun, learned = false;

    snprintf(head, sizeof head, "%s/value_head.safetensors", start);
    begun = access(head, F_OK) == 0;
    for (int i = 0; i < c->n_stages; i++) {
        const struct eval_config *eval = &c->stages[i].eval;

        learned |= c->stages[i].kind == STAGE_RL && rl_has_critic(&c->stages[i].rl);
        if (begun || c->stages[i].kind != STAGE_EVAL || eval->search_judge != JUDGE_VALUE || !eval_searches(eval))
            continue;
        for (int k = 0; k < eval->n_policies; k++)
            if (!strncmp(eval->policies[k], "sft", 3) || (!learned && strcmp(eval->policies[k], "demonstrator")))
                return error_set(error, EINVAL, "stages[%d].eval.search_judge: value asks the policy's critic, and %s has none: "
                                 "an rl stage with one adds it; take prm, or other policies", i, eval->policies[k]);
    }
    return 0;
}

int preflight_stages(const struct run_config *config, const char *start, struct error *error)
{
    int r = check_datasets(config, error);

    return r < 0 ? r : check_critics(config, start, error);
}

static void check_tasks(const struct run_config *c, const struct sim_task_info *infos, int n, struct config_faults *faults)
{
    const char *words[256] = {0}, *near;
    struct error error;

    for (int k = 0; k < MIN(n, (int)ARRAY_SIZE(words) - 1); k++)
        words[k] = infos[k].name;
    for (int i = 0; i < c->n_tasks; i++) {
        int k = 0;

        while (k < n && strcmp(infos[k].name, c->tasks[i]))
            k++;
        near = config_nearest_word(words, c->tasks[i]);
        if (k == n)
            REFUSE("suite.tasks: suite %s has no task '%s'%s%s; `gantry sim list --suite %s` lists them", c->suite, c->tasks[i],
                   near ? "; nearest: " : "", near ? near : "", c->suite);
    }
}

double preflight_dataset(const char *from)
{
    _cleanup_(dataset_closep) struct dataset_dir *data = NULL;

    return dataset_open(from, &data, NULL) < 0 ? 0 : (double)data->info.steps + data->info.episodes;
}

int preflight_limit(const struct run_config *c, int i, int given)
{
    const struct sim_task_info *infos;
    int n = sim_suite_known_tasks(c->suite, &infos);

    for (int k = 0; k < n && !given; k++)
        if (!strcmp(infos[k].name, c->tasks[i]))
            return infos[k].max_steps;
    return given;
}

/* What observations are to have. */
static void check_observations(const struct run_config *c, const struct sim_task_info *suite, struct config_faults *faults)
{
    struct error error;

    if (c->cameras > suite->cameras)
        REFUSE("suite.cameras: %d were asked for, suite %s has %d", c->cameras, c->suite, suite->cameras);
    if (c->state && !suite->proprio)
        REFUSE("suite.state: suite %s says nothing of the robot's state", c->suite);
}

void preflight_tasks(const struct run_config *c, struct suite_numbers *ret, struct config_faults *faults)
{
    const struct sim_task_info *infos;
    struct sim_suite *suite;
    struct error error = {0};
    int n_known = sim_suite_known_tasks(c->suite, &infos), n;

    if (n_known)
        check_tasks(c, infos, n_known, faults);
    if (sim_suite_open(c->suite, &(struct sim_options) {.robosuite = c->robosuite, .remote = c->remote}, &suite, &error) < 0) {
        config_fault(faults, &error);
        return;
    }
    n = sim_suite_tasks(suite, &infos);
    if (!n_known)
        check_tasks(c, infos, n, faults);
    check_abilities(c, &infos[0], faults);
    check_observations(c, &infos[0], faults);
    *ret = (struct suite_numbers) { .action = infos[0].action_dims, .state = infos[0].proprio };
    sim_suite_close(suite);
}
