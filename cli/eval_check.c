/* Can it be played at all: what is found out only while it is played stops the run (eval.h). */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/eval.h"
#include "cli/run_open.h"
#include "nn/models/openvla.h"
#include "run/manifest.h"
#include "sim/sim.h"

/* The version that a policy's name means; of sft-earlier, sft: what it has, the other has. */
static int find_version(const char *run_dir, const char *name, uint64_t *ret, struct error *error)
{
    if (strspn(name, "0123456789") < strlen(name))
        return run_named_policy(run_dir, !strcmp(name, "sft-earlier") ? "sft" : name, ret, error);
    *ret = strtoull(name, NULL, 10);
    return 0;
}

/* Look-ahead by value asks the policy's critic. */
static int check_critics(const struct eval *eval, struct error *error)
{
    const struct eval_ask *ask = eval->ask;
    int r = 0;

    for (int i = 0; eval_searches(&ask->stage) && ask->stage.search_judge == JUDGE_VALUE && i < ask->n_policies && r == 0; i++) {
        char dir[VERSION_PATH], head[VERSION_PATH + 32];
        uint64_t version;

        if (!strcmp(ask->policies[i], "demonstrator"))
            continue;
        r = find_version(eval->run_dir, ask->policies[i], &version, error);
        if (r == 0 && (r = version_path(eval->run_dir, KIND_POLICY, version, dir)) < 0)
            r = error_set(error, -r, "%s: its path is too long", eval->run_dir);
        if (r < 0)
            break;
        snprintf(head, sizeof head, "%s/value_head.safetensors", dir);
        if (access(head, F_OK) < 0)
            r = error_set(error, EINVAL, "--judge value asks the policy's critic, and %s (version %" PRIu64 ") has none: an rl "
                          "stage with one adds it; take prm or confidence, or other policies", ask->policies[i], version);
    }
    return r;
}

/* How sure a policy was of its tokens can be asked of one that says them one by one; all of a run's are of one kind. */
static int check_confidence(const struct eval *eval, struct error *error)
{
    _cleanup_(openvla_freep) struct openvla *model = NULL;
    char dir[VERSION_PATH];
    int r;

    if (!eval_searches(&eval->ask->stage) || eval->ask->stage.search_judge != JUDGE_CONFIDENCE)
        return 0;
    r = version_path(eval->run_dir, KIND_POLICY, 0, dir);
    if (r < 0)
        return error_set(error, -r, "%s: its path is too long", eval->run_dir);
    r = openvla_open_below(dir, &model, error);
    if (r >= 0 && model->config.oft.kind != OFT_NONE)
        r = error_set(error, EINVAL, "--judge confidence asks a policy that answers token by token, and this run's answers whole "
                      "chunks: take prm or value");
    return r < 0 ? r : 0;
}

/* A simulator of others need not have an expert, nor states that can be gone back to. */
static int check_simulator(const struct eval *eval, struct error *error)
{
    const struct run_config *c = &eval->config;
    const bool copies = eval_searches(&eval->ask->stage) && eval->ask->stage.search_method != SAMPLE_N;
    const struct sim_task_info *info;
    bool no_expert, no_save, expert = false;
    struct sim_suite *suite;
    int r;

    for (int i = 0; i < eval->ask->n_policies; i++)
        expert |= !strcmp(eval->ask->policies[i], "demonstrator");
    if (!expert && !copies)
        return 0;
    r = sim_suite_open(c->suite, &(struct sim_options) {.robosuite = c->robosuite, .remote = c->remote}, &suite, error);
    if (r < 0)
        return r;
    (void)sim_suite_tasks(suite, &info);
    no_expert = info[0].no_expert;
    no_save = info[0].no_save;
    sim_suite_close(suite);
    if (expert && no_expert)
        return error_set(error, EINVAL, "--policies demonstrator: this simulator has no expert that it could be");
    if (copies && no_save)
        return error_set(error, EINVAL, "--n: look-ahead plays copies of the simulator, and the states of this one cannot be "
                         "saved: --n 1, or --method sample_n");
    return 0;
}

int eval_check(const struct eval *eval, struct error *error)
{
    int r = check_critics(eval, error);

    if (r >= 0)
        r = check_confidence(eval, error);
    return r < 0 ? r : check_simulator(eval, error);
}
