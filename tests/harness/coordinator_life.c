#include "tests/harness/coordinator_life.h"

#include "base/atomic_file.h"
#include "base/fault.h"
#include "base/log.h"
#include "run/manifest.h"

static const char yaml[] =
    "run: {name: t, dir: %s/run, seed: 7}\n"
    "suite: {name: tabletop, tasks: [pick_up_object, open_drawer], image: 64}\n"
    "policy: {init: %s/init}\n"
    "prm: {every: 2}\n"
    "stages:\n"
    "  - demos: {episodes: 6, style: slow}\n"
    "  - sft: {steps: 2}\n"
    "  - rollouts: {episodes: 4}\n"
    "  - prm: {steps: 2}\n"
    "  - rl: {iterations: 2, episodes: 6, preset: tabletop, critic_warmup: 1, eval_every: 1, eval_episodes: 4}\n"
    "  - eval: {episodes: 8, val_episodes: 4, policies: [demonstrator, sft, last], n: [1, 2], search_episodes: 4, "
    "search_horizon: 3, search_execute: 2, search_score: mean, perturb: push}\n"
    "timing: {heartbeat_ms: 50}\n";

char life_dir[SCRATCH_PATH], life_run_dir[96], life_config[96];
struct error life_error;
struct edge *life_edge;

int life_setup(void **state)
{
    char text[2048], path[96];

    (void)state;
    log_set_level(LOG_LEVEL_ERROR);
    assert_int_equal(fault_arm(""), 0);
    scratch_new(life_dir);
    snprintf(life_run_dir, sizeof life_run_dir, "%s/run", life_dir);
    snprintf(life_config, sizeof life_config, "%s/run.yaml", life_dir);
    snprintf(path, sizeof path, "%s/init", life_dir);
    assert_int_equal(mkdir_p(path, 0755), 0);
    assert_int_equal(mkdir_p(life_run_dir, 0755), 0);
    if (version_copy("models/tiny", path, &life_error) < 0)
        fail_msg("%s", life_error.text);
    snprintf(text, sizeof text, yaml, life_dir, life_dir);
    return atomic_file_write(life_config, text, strlen(text));
}

int life_teardown(void **state)
{
    (void)state;
    (void)fault_arm("");
    return remove_tree(life_dir);
}

int life_live(struct loop *loop)
{
    struct edge *edge;
    int r;

    if (edge_new(life_config, NULL, &edge, &life_error) < 0 || edge_start(edge, loop, &life_error) < 0)
        fail_msg("%s", life_error.text);
    life_edge = edge;
    loop_run(loop);
    life_edge = NULL;
    r = lifecycle_exit_code(edge->lifecycle);
    edge_free(edge);
    return r;
}

int life_command(struct edge *edge, const char *name, const char *argument)
{
    _cleanup_(strbuf_release) struct strbuf out = STRBUF_INIT;
    const struct admin_command *c = edge_commands;

    while (strcmp(c->name, name) != 0)
        c++;
    return c->run(argument, &out, &life_error, edge);
}
