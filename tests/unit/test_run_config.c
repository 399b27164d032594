/* test_run_config.c - the run YAML: reads, writes back the same, and its documentation is up to date. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/atomic_file.h"
#include "daemon/run_config.h"

static const char demo[] =
    "run:      {name: demo, dir: runs/demo, seed: 7, numerics: strict}   # strict | fast\n"
    "suite:    {name: tabletop, tasks: [pick_up_object, open_drawer], image: 64}\n"
    "policy:   {init: models/tiny, train: full}\n"
    "prm:      {init: policy, every: 1, history: 0}\n"
    "stages:\n"
    "  - demos:    {episodes: 1200, style: slow}\n"
    "  - pretrain: {steps: 1500, lr: 1e-3}\n"
    "  - sft:      {steps: 360, batch: 64, lr: 5e-4}\n"
    "  - rollouts: {episodes: 600}\n"
    "  - prm:\n"
    "  - rl:       {minibatch: 64, iterations: 120, preset: tabletop, eval_every: 10}\n"
    "  - rl:       {iterations: 30, reward: sparse, critic_time: true, critic_prm: true}\n"
    "  - eval:     {episodes: 400, policies: [demonstrator, sft, best, last, '12'], n: [1, 4]}\n"
    "cluster:  {env_workers: 2, slots: 8, actors: [{device: cpu, threads: 2}], prm_servers: [{device: cpu}], "
    "learners: [{device: cpu}]}\n";

static void test_demo(void **state _unused_)
{
    static struct run_config c;
    struct error error = {0};

    if (run_config_parse(demo, strlen(demo), "run.yaml", &c, &error) < 0)
        fail_msg("%s", error.text);
    assert_int_equal(c.n_tasks, 2);
    assert_string_equal(c.tasks[1], "open_drawer");
    assert_int_equal(c.n_stages, 8);
    assert_string_equal(c.stages[1].name, "pretrain");
    assert_int_equal(c.stages[1].kind, STAGE_SFT);
    assert_string_equal(c.stages[2].name, "sft");
    assert_int_equal(c.stages[4].prm.steps, 900);
    assert_string_equal(c.stages[5].name, "rl");
    assert_string_equal(c.stages[6].name, "rl2");
    assert_int_equal(c.actors[0].threads, 2);
    assert_string_equal(c.stages[7].eval.policies[4], "12");
}

/* The preset's values come before the stage's own keys, whatever their order in the file. */
static void test_preset(void **state _unused_)
{
    static struct run_config c;

    assert_int_equal(run_config_parse(demo, strlen(demo), "run.yaml", &c, NULL), 0);
    assert_int_equal(c.stages[5].rl.minibatch, 64);
    assert_true(c.stages[5].rl.lr == 1e-4);
    assert_int_equal(c.stages[5].rl.episodes, 32);
    assert_true(c.stages[5].rl.critic_prm);
    assert_string_equal(c.stages[5].rl.preset, "tabletop");
    assert_true(c.stages[6].rl.lr == 1e-5);
    assert_string_equal(c.stages[6].rl.preset, "gantry");
}

static void note(const char *line, void *arg)
{
    struct strbuf *out = arg;

    strbuf_addf(out, "%s\n", line);
}

/* A preset expands to typed keys, also of other sections; the file's own keys stand above it; what was resolved reads back the
 * same. */
static void test_presets_expand(void **state _unused_)
{
    static const char paper[] = "policy: {lora_r: 8}\nstages: [{prm: }, {rl: {preset: paper, lr: 5e-6}}]\n";
    static const char writeup[] = "stages: [{prm: }, {rl: {preset: writeup}}, {rl: {reward: sparse, critic: none, critic_warmup: 0}}"
                                  ", {rl: {reward: env}}]\n";
    _cleanup_(strbuf_release) struct strbuf text = STRBUF_INIT, warnings = STRBUF_INIT;
    static const char grpo[] = "stages: [{demos: }, {sft: }, {rl: {preset: grpo, lr: 1e-4}}]\n";     /* wants no reward model */
    static struct run_config c, again;
    struct error error = {0};

    if (run_config_parse(grpo, strlen(grpo), "run.yaml", &c, &error) < 0)
        fail_msg("%s", error.text);
    assert_true(c.stages[2].rl.advantage == ADVANTAGE_GROUP && c.stages[2].rl.reward == REWARD_SPARSE &&
                c.stages[2].rl.kl == KL_NONE && !rl_has_critic(&c.stages[2].rl));
    assert_true(c.stages[2].rl.clip_high == .28 && c.stages[2].rl.lr == 1e-4);

    if (run_config_parse(paper, strlen(paper), "run.yaml", &c, &error) < 0)
        fail_msg("%s", error.text);
    assert_string_equal(c.policy_train, "lora");
    assert_string_equal(c.policy_support, "full");
    assert_true(c.policy_eos_in_logp);
    assert_int_equal(c.lora_r, 8);
    assert_true(c.lora_alpha == 16 && c.stages[1].rl.lr == 5e-6 && c.stages[1].rl.temperature == 1.5 &&
                c.stages[1].rl.value_lr == 5e-5);
    assert_int_equal(c.stages[1].rl.kl, KL_NONE);
    assert_int_equal(c.stages[1].rl.curriculum, CURRICULUM_FRONTIER);
    run_config_warnings(&c, note, &warnings);
    assert_int_equal(warnings.length, 0);
    assert_int_equal(run_config_write(&c, &text), 0);
    assert_int_equal(run_config_parse(text.text, text.length, "config.yaml", &again, &error), 0);
    assert_memory_equal(&c.stages[1].rl, &again.stages[1].rl, sizeof c.stages[1].rl);
    assert_int_equal(again.lora_r, 8);

    if (run_config_parse(writeup, strlen(writeup), "run.yaml", &c, &error) < 0)
        fail_msg("%s", error.text);
    assert_int_equal(c.stages[1].rl.reward, REWARD_RAW_LITERAL);
    assert_int_equal(c.stages[1].rl.kl, KL_K1);
    assert_false(rl_has_critic(&c.stages[1].rl));
    assert_true(c.stages[1].rl.lambda == .95 && c.stages[2].rl.lambda == 1 && c.stages[3].rl.lambda == .95);
    assert_true(c.stages[2].rl.w_env == 0 && c.stages[3].rl.w_env == 1);
    run_config_warnings(&c, note, &warnings);
    assert_non_null(strstr(warnings.text, "stages[1].rl: reward raw_literal pays for dawdling"));
    assert_non_null(strstr(warnings.text, "kl k1 as a loss"));
    assert_null(strstr(warnings.text, "stages[2]"));
}

/* A token for a page that is not served: whoever wrote it believes the page to be there, or closed. */
static void test_token_without_a_page(void **state _unused_)
{
    static const char text[] = "status: {token_file: token}\n", served[] = "status: {http: \"127.0.0.1:80\", token_file: token}\n";
    _cleanup_(strbuf_release) struct strbuf warnings = STRBUF_INIT;
    static struct run_config c;

    assert_int_equal(run_config_parse(served, strlen(served), "run.yaml", &c, NULL), 0);
    run_config_warnings(&c, note, &warnings);
    assert_int_equal(warnings.length, 0);
    assert_int_equal(run_config_parse(text, strlen(text), "run.yaml", &c, NULL), 0);
    run_config_warnings(&c, note, &warnings);
    assert_non_null(strstr(warnings.text, "status.token_file: does nothing without status.http"));
}

static void test_missing_file(void **state _unused_)
{
    static struct run_config c;
    struct error error = {0};

    assert_int_equal(run_config_load("/nonexistent/run.yaml", &c, &error), -ENOENT);
    assert_string_equal(error.text, "/nonexistent/run.yaml: cannot be read: No such file or directory");
}

static void test_write_reads_back(void **state _unused_)
{
    _cleanup_(strbuf_release) struct strbuf first = STRBUF_INIT, second = STRBUF_INIT;
    static struct run_config a, b;
    struct error error = {0};

    assert_int_equal(run_config_parse(demo, strlen(demo), "run.yaml", &a, NULL), 0);
    assert_int_equal(run_config_write(&a, &first), 0);
    if (run_config_parse(first.text, first.length, "config.yaml", &b, &error) < 0)
        fail_msg("%s", error.text);
    assert_int_equal(run_config_write(&b, &second), 0);
    assert_string_equal(first.text, second.text);
    assert_memory_equal(a.stages, b.stages, sizeof a.stages);
}

static void test_stage_lines(void **state _unused_)
{
    static struct run_config c;
    static struct stage_config stage;
    struct error error = {0};

    assert_int_equal(run_config_parse(demo, strlen(demo), "run.yaml", &c, NULL), 0);
    for (int i = 0; i < c.n_stages; i++) {
        _cleanup_(strbuf_release) struct strbuf lines = STRBUF_INIT, again = STRBUF_INIT;

        assert_int_equal(stage_config_write(&c.stages[i], &lines), 0);
        if (stage_config_parse(lines.text, lines.length, &stage, &error) < 0)
            fail_msg("%s", error.text);
        assert_memory_equal(&stage, &c.stages[i], sizeof stage);
        assert_int_equal(stage_config_write(&stage, &again), 0);
        assert_string_equal(lines.text, again.text);
    }
    assert_int_equal(stage_config_parse("lr: 3\n", 6, &stage, &error), -EINVAL);
    assert_int_equal(stage_config_parse("kind: sftt\n", 11, &stage, &error), -EINVAL);
    assert_int_equal(stage_config_parse("- a\n", 4, &stage, &error), -EINVAL);
    assert_int_equal(stage_config_parse("", 0, &stage, &error), -EINVAL);
    assert_int_equal(stage_config_parse("kind: [sft]\n", 12, &stage, &error), -EINVAL);
    assert_int_equal(stage_config_parse("kind: [\n", 8, &stage, &error), -EINVAL);
}

/* A run's config.yaml can be read from anywhere; one that is older, or from another machine, is gone on with as it is. */
static void test_paths(void **state _unused_)
{
    static struct run_config c, own;
    static const char text[] = "policy: {init: models/tiny}\nprm: {init: policy}\n"
                               "stages: [{demos: {from: data/libero}}, {sft: {}}, {demos: {from: /a/b}}]\n"
                               "status: {token_file: token}\n";
    uint8_t digest[2][SHA256_SIZE];
    struct error error;
    char deep[300];

    if (run_config_parse(text, strlen(text), "run.yaml", &c, &error) < 0)
        fail_msg("%s", error.text);
    assert_int_equal(run_config_anchor(&c, "/home/she", &error), 0);
    assert_string_equal(c.policy_init, "/home/she/models/tiny");
    assert_string_equal(c.policy_base, "");
    assert_string_equal(c.prm_init, "policy");
    assert_string_equal(c.stages[0].demos.from, "/home/she/data/libero");
    assert_string_equal(c.stages[2].demos.from, "/a/b");
    assert_string_equal(c.token_file, "/home/she/token");
    own = c;
    assert_int_equal(run_config_digest(&own, digest[0]), 0);

    /* the file it was made from, here or elsewhere */
    assert_int_equal(run_config_parse(text, strlen(text), "run.yaml", &c, &error), 0);
    run_config_adopt_paths(&c, &own);
    assert_int_equal(run_config_digest(&c, digest[1]), 0);
    assert_memory_equal(digest[0], digest[1], SHA256_SIZE);

    /* a run from before paths were absolute, named relatively and absolutely */
    assert_int_equal(run_config_parse(text, strlen(text), "run.yaml", &own, &error), 0);
    run_config_adopt_paths(&c, &own);
    assert_string_equal(c.policy_init, "models/tiny");
    assert_string_equal(c.stages[0].demos.from, "data/libero");

    /* another model is another */
    snprintf(c.policy_init, sizeof c.policy_init, "/home/she/models/nottiny");
    snprintf(own.policy_init, sizeof own.policy_init, "tiny");
    run_config_adopt_paths(&c, &own);
    assert_string_equal(c.policy_init, "/home/she/models/nottiny");
    snprintf(c.prm_init, sizeof c.prm_init, "/home/she/policy");
    run_config_adopt_paths(&c, &own);
    assert_string_equal(c.prm_init, "/home/she/policy");

    memset(deep, 'd', sizeof deep);
    deep[0] = '/';
    deep[sizeof deep - 1] = 0;
    assert_int_equal(run_config_anchor(&own, deep, &error), -ENAMETOOLONG);
    assert_non_null(strstr(error.text, "policy.init"));
}

/* `policy` is a word in prm.init alone; elsewhere it is a directory of that name. */
static void test_a_directory_called_policy(void **state _unused_)
{
    static struct run_config c, own;
    static const char text[] = "policy: {init: policy, base: policy}\nprm: {init: policy}\n"
                               "stages: [{demos: {from: policy}}, {sft: {}}]\n"
                               "status: {token_file: policy}\n";
    struct error error;

    assert_int_equal(run_config_parse(text, strlen(text), "run.yaml", &c, &error), 0);
    own = c;
    assert_int_equal(run_config_anchor(&own, "/home/she", &error), 0);
    assert_string_equal(own.policy_init, "/home/she/policy");
    assert_string_equal(own.policy_base, "/home/she/policy");
    assert_string_equal(own.prm_init, "policy");
    assert_string_equal(own.stages[0].demos.from, "/home/she/policy");
    assert_string_equal(own.token_file, "/home/she/policy");
    run_config_adopt_paths(&c, &own);
    assert_string_equal(c.policy_init, "/home/she/policy");
    assert_string_equal(c.stages[0].demos.from, "/home/she/policy");
    assert_string_equal(c.prm_init, "policy");
}

static void test_explain(void **state _unused_)
{
    _cleanup_(strbuf_release) struct strbuf out = STRBUF_INIT;
    struct error error = {0};

    assert_int_equal(run_config_explain("rl.lr", &out, NULL), 0);
    assert_string_equal(out.text, "stages.rl.lr\n  learning rate of the policy\n  a number from 0 to 1\n  default: 1e-5\n"
                        "  preset tabletop: 1e-4\n  preset grpo: 5e-6\n  preset paper: 2e-5\n");
    strbuf_reset(&out);
    assert_int_equal(run_config_explain("image", &out, NULL), 0);
    assert_non_null(strstr(out.text, "suite.image\n"));
    assert_int_equal(run_config_explain("rl.gama", &out, &error), -ENOENT);
    assert_string_equal(error.text, "there is no key 'rl.gama'; nearest: gamma");
}

static void test_document_is_up_to_date(void **state _unused_)
{
    _cleanup_(strbuf_release) struct strbuf out = STRBUF_INIT;
    _cleanup_free_ char *file = NULL;
    size_t n;

    if (file_read("docs/configuration.md", 1 << 20, &file, &n) < 0)
        fail_msg("docs/configuration.md: run this test at the top of the tree");
    assert_int_equal(run_config_document(&out), 0);
    if (strcmp(out.text, file) != 0)
        fail_msg("docs/configuration.md is old: bin/gantry config docs > docs/configuration.md");
}

static void digest_of(const char *text, const char *from, const char *to, char ret_hex[2 * SHA256_SIZE + 1])
{
    _cleanup_(strbuf_release) struct strbuf changed = STRBUF_INIT;
    static struct run_config c;
    uint8_t digest[SHA256_SIZE];
    struct error error = {0};
    const char *at = strstr(text, from);

    assert_non_null(at);
    strbuf_addf(&changed, "%.*s%s%s", (int)(at - text), text, to, at + strlen(from));
    if (run_config_parse(changed.text, changed.length, "run.yaml", &c, &error) < 0)
        fail_msg("%s", error.text);
    assert_int_equal(run_config_digest(&c, digest), 0);
    for (int i = 0; i < SHA256_SIZE; i++)
        snprintf(ret_hex + 2 * i, 3, "%02x", digest[i]);
}

/* A run directory is known by this number. It is that of the text above for ever: a gantry with more keys goes on with an older
 * run. */
static void test_digest(void **state _unused_)
{
    char hex[2 * SHA256_SIZE + 1], other[2 * SHA256_SIZE + 1];

    digest_of(demo, "run:", "run:", hex);
    assert_string_equal(hex, "4f600359bab6040219ffc7732f798c799a96a8490367df6521eb79931bcfb4b6");
    digest_of(demo, "env_workers: 2", "env_workers: 7", other);             /* where it runs */
    assert_string_equal(other, hex);
    digest_of(demo, "dir: runs/demo", "dir: elsewhere", other);
    assert_string_equal(other, hex);
    digest_of(demo, ", numerics: strict}", "}", other);                                     /* said or not said */
    assert_string_equal(other, hex);
    digest_of(demo, "image: 64", "image: 96", other);
    assert_string_not_equal(other, hex);
    digest_of(demo, "reward: sparse", "reward: delta", other);
    assert_string_not_equal(other, hex);
    digest_of(demo, "seed: 7", "seed: 8", other);
    assert_string_not_equal(other, hex);
    digest_of(demo, "  - rollouts: {episodes: 600}\n", "", other);
    assert_string_not_equal(other, hex);
}

/* What a run directory does not go on with, said by its place and both values; what may change during a run is not looked at. */
static void test_differ(void **state _unused_)
{
    static const struct { const char *from, *to, *said; } cases[] = {
        {"seed: 7", "seed: 8", "run.seed is 7 there and 8 here"},
        {"image: 64", "image: 96", "suite.image is 64 there and 96 here"},
        {"train: full", "train: lora", "policy.train is full there and lora here"},
        {"history: 0", "history: 2", "prm.history is 0 there and 2 here"},
        {"  - rollouts: {episodes: 600}\n", "  - sft: {}\n", "stages[3] is rollouts there and sft here"},
        {"pretrain: {", "pretrain: {name: first, ", "stages[1].sft.name is pretrain there and first here"},
        {"lr: 5e-4", "lr: 6e-4", "stages[2].sft.lr is 0.0005 there and 0.0006 here"},
        {"n: [1, 4]", "n: [1, 5]", "stages[7].eval.n is [1, 4] there and [1, 5] here"},
        {"  - eval:     {episodes: 400, policies: [demonstrator, sft, best, last, '12'], n: [1, 4]}\n", "",
         "stages are 8 there and 7 here"},
        {"cluster:", "  - eval: {name: more}\ncluster:", NULL},                               /* goes on further */
        {"dir: runs/demo", "dir: elsewhere", NULL},
        {"env_workers: 2", "env_workers: 7", NULL},
        {", numerics: strict}", "}", NULL},                                                 /* said or not said */
    };
    static struct run_config there, here;
    struct error error = {0};

    assert_int_equal(run_config_parse(demo, strlen(demo), "run.yaml", &there, &error), 0);
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        _cleanup_(strbuf_release) struct strbuf changed = STRBUF_INIT, said = STRBUF_INIT;
        const char *at = strstr(demo, cases[i].from);

        assert_non_null(at);
        strbuf_addf(&changed, "%.*s%s%s", (int)(at - demo), demo, cases[i].to, at + strlen(cases[i].from));
        if (run_config_parse(changed.text, changed.length, "run.yaml", &here, &error) < 0)
            fail_msg("%s", error.text);
        assert_int_equal(run_config_differ(&there, &here, &said), cases[i].said != NULL);
        assert_string_equal(said.text, cases[i].said ? cases[i].said : "");
    }
}

/* ---- several beside one another ---------------------------------------------------------------------------------------- */

struct seen { char text[2000]; };

static void note_row(const char *place, const char *const *values, void *arg)
{
    struct seen *seen = arg;
    size_t used = strlen(seen->text);

    snprintf(seen->text + used, sizeof seen->text - used, "%s=%s|%s|%s\n", place, values[0] ?: "-", values[1] ?: "-", values[2] ?: "-");
}

/* Stages are the same by name: that the first one has no prm, which stands before, changes nothing for rl. */
static void test_compare(void **state _unused_)
{
    static const char *const texts[] = {
        "run: {name: a, dir: runs/a, seed: 7}\nsuite: {tasks: [open_drawer]}\nstages: [{demos: {}}, {sft: {steps: 10}}, {rl: {lr: 1e-4, reward: sparse}}]\n",
        "run: {name: b, dir: runs/b, seed: 7}\nsuite: {tasks: [open_drawer, pick_up_object]}\n"
        "stages: [{demos: {}}, {sft: {steps: 10}}, {rollouts: {}}, {prm: {steps: 30}}, {rl: {lr: 2e-4, reward: sparse}}]\nstatus: {http: \"127.0.0.1:80\"}\n",
        "run: {name: c, dir: runs/c, seed: 9}\nsuite: {tasks: [open_drawer]}\n"
        "stages: [{demos: {}}, {rollouts: {}}, {prm: {steps: 40}}, {prm: {name: sft}}]\ncluster: {env_workers: 5}\n",
    };
    static struct run_config configs[3];
    const struct run_config *all[3] = {&configs[0], &configs[1], &configs[2]}, *same[3] = {all[1], all[1], all[1]};
    struct seen seen = {{0}};
    struct error error = {0};

    for (int i = 0; i < 3; i++)
        if (run_config_parse(texts[i], strlen(texts[i]), "run.yaml", &configs[i], &error) < 0)
            fail_msg("%s", error.text);
    assert_int_equal(run_config_compare(all, 3, note_row, &seen), 0);
    assert_string_equal(seen.text, "run.seed=7|7|9\n"
                                   "suite.tasks=[open_drawer]|[open_drawer, pick_up_object]|[open_drawer]\n"
                                   "cluster.env_workers=2|2|5\n"
                                   "sft=sft|sft|prm\n"
                                   "rl=rl|rl|-\nrl.lr=0.0001|0.0002|-\n"
                                   "rollouts=-|rollouts|rollouts\n"
                                   "prm=-|prm|prm\nprm.steps=-|30|40\n");
    seen.text[0] = 0;
    assert_int_equal(run_config_compare(same, 3, note_row, &seen), 0);
    assert_string_equal(seen.text, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_demo), cmocka_unit_test(test_compare), cmocka_unit_test(test_preset), cmocka_unit_test(test_presets_expand),
        cmocka_unit_test(test_token_without_a_page),
        cmocka_unit_test(test_missing_file), cmocka_unit_test(test_write_reads_back), cmocka_unit_test(test_stage_lines),
        cmocka_unit_test(test_paths), cmocka_unit_test(test_a_directory_called_policy), cmocka_unit_test(test_explain),
        cmocka_unit_test(test_document_is_up_to_date), cmocka_unit_test(test_digest), cmocka_unit_test(test_differ),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
