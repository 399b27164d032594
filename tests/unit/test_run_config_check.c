/* test_run_config_check.c - the run YAML: what is refused and where, and what is allowed beside it. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/atomic_file.h"
#include "daemon/config.h"
#include "daemon/run_config.h"
#include "tests/harness/scratch.h"

static void test_refusals(void **state _unused_)
{
    static const struct { const char *text, *message; } cases[] = {
        {"stages:\n - rl:\n     epizodes: 4\n", "run.yaml:3:6: stages[0].rl.epizodes: unknown key; nearest: episodes"},
        {"stages:\n - r1: {}\n", "run.yaml:2:4: stages[0]: there is no such stage; nearest: rl"},
        {"suit: {}\n", "run.yaml:1:1: suit: unknown section; nearest: suite"},
        {"stages: [demos]\n", "run.yaml:1:10: stages[0]: a stage is written as - KIND: {keys}, for example - sft: {steps: 360}"},
        {"stages: [{demos: 3}]\n", "run.yaml:1:18: stages[0].demos: a value is not right here; expected: a map"},
        {"stages: 3\n", "run.yaml:1:9: stages: a value is not right here; expected: a list of stages"},
        {"- a\n", "run.yaml:1:1: a list is not right here; expected: sections like run:, suite:, stages:"},
        {"suite: {image: 8}\n", "run.yaml:1:16: suite.image: 8 is out of range; it must be from 16 to 1024"},
        {"policy: {eos_in_logp: true}\n",
         "run.yaml:1:23: policy.eos_in_logp: the end token is none of the 256 action ids: say support: full"},
        {"suite: {name: remote}\n", "run.yaml:1:8: suite.remote: suite remote needs the command that is the simulator, or unix:PATH"},
        {"suite: {remote: x}\n", "run.yaml:1:17: suite.remote: x: only suite.name: remote takes it"},
        {"suite: {chain: plain}\n", "run.yaml:1:16: suite.chain: plain: only libero suites have mirrors and smoothed edges to leave out"},
        {"suite: {tasks: [a, a]}\n", "run.yaml:1:16: suite.tasks: a is listed twice"},
        {"stages:\n - rl: {reward: sparse}\n - rl: {reward: sparse, critic_time: true}\n",
         "run.yaml:3:38: stages[1].rl: its value head is that of the rl stage before"},
        {"stages:\n - rl: {reward: sparse, kl: k1}\n", "run.yaml:2:29: stages[0].rl: kl k1 as a loss has no gradient"},
        {"stages:\n - rl: {reward: sparse, levels: [1, 2]}\n",
         "run.yaml:2:33: stages[0].rl: 2 levels for 1 tasks; give one for each"},
        {"stages:\n - rl: {reward: sparse, on_hack: refresh}\n",
         "run.yaml:2:34: stages[0].rl: there is no reward model to refresh"},
        {"stages:\n - rl: {reward: sparse, stop_patience: 2, eval_every: 0}\n",
         "run.yaml:2:55: stages[0].rl: stop_success, stop_patience"},
        {"stages:\n - rl: {reward: env, w_env: 0}\n",
         "run.yaml:2:29: stages[0].rl: reward env with w_env 0 pays for success alone"},
        {"stages:\n - rl: {reward: sparse, critic: none, timeout: bootstrap}\n",
         "run.yaml:2:48: stages[0].rl: timeout bootstrap asks a critic"},
        {"stages:\n - prm:\n - rl: {preset: paper}\n - rl: {preset: writeup}\n",
         "run.yaml:1:1: policy.train: the presets of stages[1] and stages[2] disagree about it (lora, full)"},
        {"stages:\n - rl: {iterations: 9}\n",
         "run.yaml:2:8: stages[0].rl: the reward needs a reward model, and no prm stage comes before"},
        {"stages:\n - sft: {}\n", "run.yaml:2:9: stages[0].sft: sft needs demonstrations"},
        {"stages:\n - sft: {from: rollouts}\n", "run.yaml:2:16: stages[0].sft: there are no episodes of the policy to imitate"},
        {"stages:\n - rollouts: {score: true}\n", "run.yaml:2:22: stages[0].rollouts: there is no reward model to score with"},
        {"stages:\n - rollouts:\n - sft: {from: rollouts, choose: score}\n",
         "run.yaml:3:34: stages[1].sft: choose: score needs rollouts that were scored"},
        {"stages:\n - rl: {reward: sparse, advantage: group, episodes: 12}\n",
         "run.yaml:2:8: stages[0].rl: episodes (12) must be a multiple of group (8)"},
        {"stages:\n - rl: {reward: raw_literal}\n", "run.yaml:2:17: stages[0].rl: reward raw_literal pays for dawdling"},
        {"stages:\n - eval: {policies: [bset]}\n", "run.yaml:2:21: stages[0].eval: there is no policy 'bset'"},
        {"suite: {name: remote, remote: x, tasks: [a]}\nstages:\n - eval: {perturb: push}\n",
         "run.yaml:3:20: stages[0].eval: the suite remote has no blows: they are of tabletop's tasks"},
        {"stages:\n - eval: {n: [4]}\n", "run.yaml:2:14: stages[0].eval: look-ahead (n: 4) is judged by a reward model"},
        {"stages:\n - eval: {policies: []}\n", "run.yaml:2:21: stages[0].eval: policies and temperatures must not be empty"},
        {"stages:\n - eval: {temperatures: []}\n",
         "run.yaml:2:25: stages[0].eval: policies and temperatures must not be empty"},
        {"stages:\n - eval: {policies: [last, best], at: [1]}\n",
         "run.yaml:2:39: stages[0].eval: 1 temperatures in `at` for 2 policies"},
        {"stages:\n - demos:\n - sft:\n - eval: {policies: [sft-earlier]}\n",
         "run.yaml:4:21: stages[2].eval: sft-earlier is the policy at the end of the last sft stage but one; this run has 1"},
        {"stages:\n - prm:\n - eval: {n: [4], search_controls: [greed]}\n",
         "run.yaml:3:36: stages[1].eval: there is no control 'greed'"},
        {"stages:\n - prm:\n - eval: {n: [4], search_horizon: 2, search_execute: 3}\n",
         "run.yaml:3:54: stages[1].eval: search_execute (3) is more than search_horizon (2)"},
        {"suite: {tasks: []}\n", "run.yaml:1:16: suite.tasks: at least one task is needed"},
        {"policy: {init: ''}\n", "run.yaml:1:16: policy.init: a model directory is needed"},
        {"prm: {init: policy, history: 7}\n",
         "run.yaml:1:30: prm.history: too many frames: with the policy's trunk (prm.init: policy) at most 6 frames"},
        {"suite: {name: libero_goal, tasks: [a, b]}\nstages:\n - eval: {episodes: 101}\n",
         "run.yaml:3:21: stages[0].eval: libero_goal has 50 test states of each task, 0 to 49: 101 episodes over 2 tasks from "
         "state 0 on would need 51"},
        {"suite: {name: libero_goal}\nstages:\n - eval: {episodes: 1, first_state: 1000}\n",
         "run.yaml:3:37: stages[0].eval: libero_goal has 50 test states"},
        {"stages:\n - demos: {name: a}\n - demos: {name: a}\n",
         "run.yaml:3:11: stages[1].demos: another stage is called 'a' already"},
        {"stages:\n - demos: {name: A/b}\n", "run.yaml:2:11: stages[0].demos: stage name 'A/b'"},
        {"run: {name: ../x}\n", "run.yaml:1:13: run.name: ../x: letters, digits"},
        {"policy: {train: lora, lora_targets: ', '}\n", "run.yaml:1:37: policy.lora_targets: no module is named"},
        {"cluster: {actors: [{device: tpu}]}\n", "run.yaml:1:19: cluster.actors: tpu: devices are cpu and cuda:N"},
        {"cluster: {learners: [{device: cuda:0}, {device: cpu}]}\n",
         "run.yaml:1:21: cluster.learners: cpu: learners compute all on CPUs or all on devices (the first one does not)"},
        {"cluster: {learners: [{device: cuda:0}, {device: cuda:1}, {device: cuda:1}]}\n",
         "run.yaml:1:21: cluster.learners: cuda:1 is listed twice: each learner needs a device of its own"},
        {"cluster: {renderers: '0,gpu'}\n", "run.yaml:1:22: cluster.renderers: 0,gpu: software, auto, or numbers of EGL devices"},
        {"cluster: {renderers: ''}\n", "run.yaml:1:22: cluster.renderers: : software, auto, or numbers of EGL devices"},
        {"cluster: {learners: [{device: cpu}, {device: cpu}, {device: cpu}]}\n",
         "run.yaml:1:21: cluster.learners: 3 learners: an update is shared by 1, 2, 4 or 8"},
        {"cluster: {learners: []}\n", "run.yaml:1:21: cluster.learners: at least one learner is needed"},
        {"cluster: {renderers: '0,32'}\n", "run.yaml:1:22: cluster.renderers: 0,32: software, auto, or numbers"},
        {"suite: [1]\n", "run.yaml:1:8: suite: a list is not right here; expected: a map"},
        {"policy: {train: ful}\n", "run.yaml:1:17: policy.train: there is no 'ful'; nearest: full"},
        {"run: {name: .x}\n", "run.yaml:1:13: run.name: .x: letters, digits"},
        {"timing: {heartbeat_ms: 1000, lease_ttl_ms: 1999}\n", "run.yaml:1:44: timing.lease_ttl_ms: heartbeats say how far"},
        {"timing: {heartbeat_ms: 4000, first_step_ms: 7999}\n", "run.yaml:1:45: timing.first_step_ms: heartbeats say how far"},
        {"timing: {hung_ms: 999}\n", "run.yaml:1:19: timing.hung_ms: a loop may well stand still"},
        {"stages: [{demos: {}, sft: {}}]\n", "run.yaml:1:10: stages[0]: a stage is written as - KIND: {keys}"},
        {"stages:\n - rl: {reward: sparse, advantage: rloo, episodes: 12}\n",
         "run.yaml:2:8: stages[0].rl: episodes (12) must be a multiple of group (8)"},
        {"stages:\n - rl: {reward: sparse, stop_success: .9, eval_every: 0}\n",
         "run.yaml:2:55: stages[0].rl: stop_success, stop_patience"},
        {"stages:\n - rl: {reward: sparse, stop_collapse: .2, eval_every: 0}\n",
         "run.yaml:2:56: stages[0].rl: stop_success, stop_patience"},
        {"stages:\n - rl: {reward: sparse, critic_prm: true}\n",
         "run.yaml:2:37: stages[0].rl: critic_prm needs a reward model, and no prm stage comes before"},
        {"stages:\n - rl: {reward: sparse, iterations: 4, critic_warmup: 4}\n",
         "run.yaml:2:55: stages[0].rl: critic_warmup (4) leaves none of the 4 iterations"},
        {"stages:\n - rollouts: {temperature: 0}\n - sft: {from: rollouts}\n",
         "run.yaml:3:16: stages[1].sft: the rollouts before it are greedy"},
        {"stages:\n - prm:\n - eval: {n: [4], search_method: refine, search_judge: oracle}\n",
         "run.yaml:3:56: stages[1].eval: refine is judged by the reward model alone"},
        {"stages:\n - prm:\n - eval: {n: [4], search_method: refine, search_controls: [random]}\n",
         "run.yaml:3:10: stages[1].eval: refine is judged by the reward model alone"},
        {"stages:\n - prm:\n - eval: {n: [1, 3], search_method: refine}\n",
         "run.yaml:3:14: stages[1].eval: refine plays one rollout and mends it 3 times: n is 1 or 4, not 3"},
        {"stages:\n - prm:\n - rl: {reward: sparse, critic_prm: true}\n - eval: {n: [4], search_judge: value}\n",
         "run.yaml:4:33: stages[2].eval: the critic of this run's rl stage is the learner's alone"},
        {"stages:\n - prm:\n - eval: {n: [4], search_method: sample_n, search_judge: value}\n",
         "run.yaml:3:58: stages[1].eval: sample_n plays no action before it chooses"},
        {"stages:\n - prm:\n - eval: {n: [4], search_method: sample_n, search_judge: oracle}\n",
         "run.yaml:3:58: stages[1].eval: sample_n plays no action before it chooses"},
        {"stages:\n - prm:\n - eval: {n: [4], search_method: sample_n}\n",
         "run.yaml:3:10: stages[1].eval: this reward model (prm.init: policy) looks at pictures alone"},
        {"stages:\n - prm:\n - eval: {n: [4], search_method: sample_n, search_judge: confidence, search_proposals: gaussian}\n",
         "run.yaml:3:88: stages[1].eval: the policy has no confidence in actions it did not propose"},
        {"suite: {name: libero_goal}\nstages:\n - prm:\n - eval: {episodes: 1, n: [4, 1], search_episodes: 51}\n",
         "run.yaml:4:52: stages[1].eval: libero_goal has 50 test states of each task, 0 to 49: 51 episodes over 1 task from "
         "state 0 on would need 51"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        static struct run_config c;
        struct error error = {0};

        assert_int_equal(run_config_parse(cases[i].text, strlen(cases[i].text), "run.yaml", &c, &error), -EINVAL);
        if (strncmp(error.text, cases[i].message, strlen(cases[i].message)) != 0)
            assert_string_equal(error.text, cases[i].message);
    }
}

static int load_all(const char *text, struct config_faults *ret)
{
    static struct run_config c;

    assert_int_equal(atomic_file_write("run.yaml", text, strlen(text)), 0);
    return run_config_load_all("run.yaml", &c, ret);
}

/* Whoever writes a file wants to hear of everything at once: of each key, and of what does not fit wherever all that it depends on
 * could be read. */
static void test_all_faults(void **state _unused_)
{
    static const struct { const char *text, *lines[12]; } cases[] = {
        {"run: {nmae: x, seed: -1}\nsuit: {}\nsuite: {image: 8, tasks: [a, b, \"\\a\"]}\n"
         "stages:\n - demoz:\n",
         {"run.yaml:1:7: run.nmae: unknown key; nearest: name",
          "run.yaml:1:22: run.seed: -1 is not right here; expected:",
          "run.yaml:2:1: suit: unknown section; nearest: suite",
          "run.yaml:3:16: suite.image: 8 is out of range",
          "run.yaml:3:33: suite.tasks[2]: a control character",
          "run.yaml:5:4: stages[0]: there is no such stage; nearest: demos"}},
        {"stages:\n - sft: {steps: x, from: dems}\n - 3\n - rl: {iteration: 3, episodes: 0}\n - demos: {name: A}\n",
         {"run.yaml:2:17: stages[0].sft.steps: x is not right here; expected: a whole number",
          "run.yaml:2:26: stages[0].sft.from: there is no 'dems'; nearest: demos",
          "run.yaml:3:4: stages[1]: a stage is written as",
          "run.yaml:4:9: stages[2].rl.iteration: unknown key; nearest: iterations",
          "run.yaml:4:33: stages[2].rl.episodes: 0 is out of range",
          "run.yaml:5:11: stages[3].demos: stage name 'A'"}},
        {"run: {name: .x}\ntiming: {heartbeat_ms: 9000, lease_ttl_ms: 1000, first_step_ms: 1000}\n"
         "suite: {tasks: [a, b, a, a]}\nstages:\n - sft:\n - rl: {reward: sparse, kl: k1, critic_prm: true}\n - eval: {n: [2, 4]}\n",
         {"run.yaml:1:13: run.name: .x: letters",
          "run.yaml:3:16: suite.tasks: a is listed twice",
          "run.yaml:3:16: suite.tasks: a is listed twice",
          "run.yaml:2:44: timing.lease_ttl_ms: heartbeats say",
          "run.yaml:2:65: timing.first_step_ms: heartbeats say",
          "run.yaml:5:8: stages[0].sft: sft needs demonstrations",
          "run.yaml:6:29: stages[1].rl: kl k1 as a loss",
          "run.yaml:6:45: stages[1].rl: critic_prm needs a reward model",
          "run.yaml:7:14: stages[2].eval: look-ahead (n: 2) is judged by a reward model"}},
        /* a section that was read is looked at, and the stages before the first that was not; policy only when all stages were */
        {"run: {seed: -1, name: .x}\ntiming: {heartbeat_ms: 9000, lease_ttl_ms: 1000}\npolicy: {init: \"\"}\n"
         "stages:\n - sft:\n - demos: {episodes: x}\n - rollouts: {score: true}\n",
         {"run.yaml:1:13: run.seed: -1 is not right here",
          "run.yaml:6:22: stages[1].demos.episodes: x is not right here",
          "run.yaml:2:44: timing.lease_ttl_ms: heartbeats say",
          "run.yaml:5:8: stages[0].sft: sft needs demonstrations"}},
        /* what stages go by: the tasks */
        {"suite: {tasks: [a, b], image: 8}\npolicy: {init: \"\"}\nstages:\n - rl: {reward: sparse, levels: [1]}\n",
         {"run.yaml:1:31: suite.image: 8 is out of range", "run.yaml:2:16: policy.init: a model directory is needed"}},
        {"timings: {heartbeat_ms: 9000}\ntiming: {lease_ttl_ms: 1000}\nstages:\n - sft:\n",
         {"run.yaml:1:1: timings: unknown section; nearest: timing"}},
        /* a preset that cannot be applied may have said support: full */
        {"run: {seed: -1}\npolicy: {eos_in_logp: true}\nstages:\n - prm: {steps: x}\n - rl: {preset: writeup}\n",
         {"run.yaml:1:13: run.seed: -1 is not right here", "run.yaml:4:17: stages[0].prm.steps: x is not right here"}},
        {"run: {nmae: x\nsuit: {}\n", {"run.yaml:2:5: not YAML: "}},              /* no YAML: nothing more is known of it */
        {"stages:\n\t- eval: {}\n", {"run.yaml:2:1: not YAML: a tab, where only spaces indent"}},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct config_faults faults;
        size_t n = 0;

        assert_int_equal(load_all(cases[i].text, &faults), -EINVAL);
        for (; n < ARRAY_SIZE(cases[i].lines) && cases[i].lines[n]; n++) {
            assert_true(n < faults.n);
            if (strncmp(faults.items[n].text, cases[i].lines[n], strlen(cases[i].lines[n])) != 0)
                assert_string_equal(faults.items[n].text, cases[i].lines[n]);
        }
        assert_int_equal(n, faults.n);
    }
}

/* As many as anybody reads; the others are counted. */
static void test_more_faults_than_are_kept(void **state _unused_)
{
    _cleanup_(strbuf_release) struct strbuf text = STRBUF_INIT;
    struct config_faults faults;

    strbuf_adds(&text, "run:\n");
    for (int i = 0; i < CONFIG_FAULTS + 5; i++)
        strbuf_addf(&text, "  k%d: 1\n", i);
    assert_int_equal(load_all(text.text, &faults), -EINVAL);
    assert_int_equal(faults.n, CONFIG_FAULTS + 5);
    assert_string_equal(faults.items[CONFIG_FAULTS - 1].text, "run.yaml:21:3: run.k19: unknown key");
}

/* What stands beside the refusals, and is allowed. */
static void test_allowed(void **state _unused_)
{
    static const char *const texts[] = {
        "suite:\nrun:\n",
        "cluster: {renderers: '0,31'}\n",
        "cluster: {learners: [{device: cuda:0}, {device: cuda:0}], listen: 'tcp://*:0'}\n",
        "timing: {heartbeat_ms: 1000, lease_ttl_ms: 2000, first_step_ms: 2000}\n",
        "stages:\n - rl: {reward: sparse, critic: none, episodes: 12, iterations: 4, critic_warmup: 4}\n",
        "stages:\n - rl: {reward: sparse, iterations: 4, critic_warmup: 3}\n",
        "stages:\n - rl: {preset: tabletop, reward: sparse, advantage: rloo}\n",
        "stages:\n - rl: {preset: tabletop, reward: sparse, critic: none}\n",
        ("stages:\n - rollouts:\n - demos:\n - sft: {choose: score}\n - sft: {from: rollouts}\n - sft:\n"
         " - eval: {policies: [sft-earlier]}\n"),
        "suite: {name: libero_goal, tasks: [turn_on_the_stove]}\nstages:\n - eval: {on_val: true, first_state: 100, episodes: 40}\n",
        "stages:\n - prm:\n - eval: {n: [1, 4], search_method: refine}\n - eval: {n: [2], search_controls: [greedy, random]}\n",
        "prm: {init: models/prm}\nstages:\n - prm:\n - eval: {n: [4], search_method: sample_n}\n",
        "stages:\n - prm:\n - eval: {n: [4], search_method: sample_n, search_judge: confidence}\n",
        "suite: {name: libero_goal, tasks: [a, b]}\nstages:\n - eval: {episodes: 100, search_episodes: 1000}\n",
    };

    for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
        static struct run_config c;
        struct error error = {0};

        if (run_config_parse(texts[i], strlen(texts[i]), "run.yaml", &c, &error) < 0)
            fail_msg("%s: %s", texts[i], error.text);
        assert_string_equal(c.dir, "runs/run");
    }
}

static void test_too_many_stages(void **state _unused_)
{
    _cleanup_(strbuf_release) struct strbuf text = STRBUF_INIT;
    static struct run_config c;
    struct error error = {0};

    strbuf_adds(&text, "stages:\n");
    for (int i = 0; i < RUN_MAX_STAGES; i++)
        strbuf_adds(&text, " - demos:\n");
    assert_int_equal(run_config_parse(text.text, text.length, "run.yaml", &c, &error), 0);
    assert_string_equal(c.stages[2].name, "demos3");
    strbuf_adds(&text, " - demos:\n");
    assert_int_equal(run_config_parse(text.text, text.length, "run.yaml", &c, &error), -EINVAL);
    assert_string_equal(error.text, "run.yaml:34:4: stages[32]: at most 32 stages fit");
}

/* Stages that come after a run's own: they have its sections, and find there what its stages made. */
static void test_later_stages(void **state _unused_)
{
    static const char own[] = "run: {seed: 9}\nstages: [{demos: }, {sft: }, {sft: }, {rollouts: {score: false}}, {prm: }, "
                              "{rl: {reward: sparse, critic_prm: true}}, {eval: }]\n";
    static const char text[] = "stages:\n - eval: {policies: [sft-earlier], n: [4]}\n - sft: {from: both}\n";
    static const char judge[] = "stages: [{eval: {n: [4], search_judge: value}}]\n";
    static const char scored[] = "stages: [{eval: {n: [4]}}]\n";
    static const char control[] = "stages: [{eval: {n: [4], search_judge: confidence, search_controls: [greedy, shuffled]}}]\n";
    static const char unscored[] = "stages: [{eval: {n: [4], search_judge: confidence, search_controls: [greedy, random]}}]\n";
    static struct run_config run, later;
    struct error error = {0};

    assert_int_equal(run_config_parse(own, strlen(own), "run.yaml", &run, NULL), 0);
    if (run_config_parse_later(text, strlen(text), "evals.yaml", &run, &later, &error) < 0)
        fail_msg("%s", error.text);
    assert_int_equal(later.seed, 9);
    assert_int_equal(later.n_stages, 2);
    assert_int_equal(later.stages[0].eval.n[0], 4);
    assert_int_equal(run_config_parse_later(judge, strlen(judge), "evals.yaml", &run, &later, &error), -EINVAL);
    assert_non_null(strstr(error.text, "the critic of this run's rl stage is the learner's alone"));
    run.n_stages = 2;           /* one sft stage, no reward model */
    assert_int_equal(run_config_parse_later(text, strlen(text), "evals.yaml", &run, &later, &error), -EINVAL);
    assert_non_null(strstr(error.text, "sft-earlier is the policy at the end of the last sft stage but one; this run has 1"));
    assert_int_equal(run_config_parse_later(scored, strlen(scored), "evals.yaml", &run, &later, &error), -EINVAL);
    assert_non_null(strstr(error.text, "look-ahead (n: 4) is judged by a reward model, and no prm stage comes before"));
    assert_int_equal(run_config_parse_later(control, strlen(control), "evals.yaml", &run, &later, &error), -EINVAL);
    assert_non_null(strstr(error.text, "is judged by a reward model"));
    /* what asks none wants none */
    if (run_config_parse_later(unscored, strlen(unscored), "evals.yaml", &run, &later, &error) < 0)
        fail_msg("%s", error.text);
}

static int go_to_a_scratch_directory(void **state _unused_)
{
    char dir[SCRATCH_PATH];

    scratch_new(dir);
    return chdir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refusals), cmocka_unit_test(test_all_faults),
        cmocka_unit_test(test_more_faults_than_are_kept), cmocka_unit_test(test_allowed), cmocka_unit_test(test_too_many_stages),
        cmocka_unit_test(test_later_stages),
    };

    return cmocka_run_group_tests(tests, go_to_a_scratch_directory, NULL);
}
