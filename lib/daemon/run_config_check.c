/* run_config_check.c - what no single row can see: values that must fit one another. */
#include <ctype.h>
#include <limits.h>

#include "daemon/run_config_tables.h"

/* Where `key` of a section or stage stands in the text, or else the nearest thing around it. */
static const struct yaml_node *locate(const struct yaml_node *map, const char *key, const struct yaml_node *otherwise)
{
    const struct yaml_node *node = map && map->kind == YAML_MAP ? yaml_tree_get(map, key) : NULL;

    return node ? node : map ? map : otherwise;
}

struct checking {
    const struct run_config *config;
    const struct yaml_node *root;
    const struct run_config *before;    /* whose stages come before these: RUN/evals.yaml adds to a run; NULL: none do */
    const struct run_doubt *doubt;
    struct config_faults *faults;
    const struct yaml_node *body;       /* of the stage being looked at */
    char path[64];                      /* "stages[2].rl" */
    bool have_demos, have_prm;          /* an earlier stage made them */
    const struct rollouts_config *rollouts;     /* of the newest stage that plays some; NULL: none yet */
    const struct rl_config *critic;             /* of the first rl stage that has a value head */
    int n_sft;                          /* sft stages on demonstrations so far */
};

#define REFUSE(c, key, ...) (void)config_error((c)->faults, locate((c)->body, key, (c)->root), (c)->path, __VA_ARGS__)

static void check_rl(struct checking *c, const struct rl_config *rl)
{
    bool grouped = rl->advantage == ADVANTAGE_GROUP || rl->advantage == ADVANTAGE_RLOO;
    bool writeup = !strcmp(rl->preset, "writeup");

    if (rl->reward == REWARD_RAW_LITERAL && !writeup)
        REFUSE(c, "reward",
               "reward raw_literal pays for dawdling and belongs to the preset writeup; use progress, delta or raw");
    if (rl->kl == KL_K1 && !writeup)
        REFUSE(c, "kl",
               "kl k1 as a loss has no gradient in expectation and belongs to the preset writeup; use exact, k3 or "
               "k1_reward");
    if (rl->n_levels != 0 && rl->n_levels != c->config->n_tasks && !run_config_all_tasks(c->config))
        REFUSE(c, "levels", "%d levels for %d tasks; give one for each of suite.tasks, or none", rl->n_levels,
               c->config->n_tasks);
    if ((rl->on_hack == HACK_REFRESH || rl->prm_refresh) && !c->have_prm)
        REFUSE(c, rl->prm_refresh ? "prm_refresh" : "on_hack",
               "there is no reward model to refresh: put a prm stage before it");
    if ((rl->stop_success > 0 || rl->stop_patience > 0 || rl->stop_collapse > 0) && !rl->eval_every)
        REFUSE(c, "eval_every",
               "stop_success, stop_patience and stop_collapse go by evaluations on val states: give eval_every");
    if (rl->reward == REWARD_ENV && rl->w_env == 0)
        REFUSE(c, "w_env", "reward env with w_env 0 pays for success alone; say reward: sparse, or give w_env a weight");
    if (rl->timeout == TIMEOUT_BOOTSTRAP && !rl_has_critic(rl))
        REFUSE(c, "timeout",
               "timeout bootstrap asks a critic what the rest is worth, and there is none: advantage gae with critic "
               "shared has one");
    if (grouped && rl->episodes % rl->group)
        REFUSE(c, "group", "episodes (%d) must be a multiple of group (%d)", rl->episodes, rl->group);
    if (rl_is_scored(rl) && !c->have_prm)
        REFUSE(c, "reward",
               "the reward needs a reward model, and no prm stage comes before: add one, or say reward: sparse");
    if (rl_has_critic(rl) && rl->critic_prm && !c->have_prm)
        REFUSE(c, "critic_prm",
               "critic_prm needs a reward model, and no prm stage comes before: add one, or say critic_prm: false");
    if (rl_has_critic(rl) && rl->critic_warmup >= rl->iterations)
        REFUSE(c, "critic_warmup", "critic_warmup (%d) leaves none of the %d iterations for the policy; lower it",
               rl->critic_warmup, rl->iterations);
    if (rl_has_critic(rl) && !c->critic)
        c->critic = rl;
    if (rl_has_critic(rl) && (c->critic->value_width != rl->value_width || c->critic->critic_time != rl->critic_time ||
                              c->critic->critic_prm != rl->critic_prm))
        REFUSE(c, "critic_time",
               "its value head is that of the rl stage before: value_width, critic_time and critic_prm must be the same "
               "(%d, %s, %s)",
               c->critic->value_width, c->critic->critic_time ? "true" : "false",
               c->critic->critic_prm ? "true" : "false");
}

static void check_sft(struct checking *c, const struct sft_config *sft)
{
    bool own = sft->from != SFT_DEMOS;

    if (sft->from != SFT_ROLLOUTS && !c->have_demos)
        REFUSE(c, "from", "sft needs demonstrations: put a demos stage before it");
    if (own && !c->rollouts)
        REFUSE(c, "from", "there are no episodes of the policy to imitate: put a rollouts stage before it");
    if (own && c->rollouts && !(c->rollouts->temperature > 0))
        REFUSE(c, "from",
               "the rollouts before it are greedy, and only sampled episodes are kept for training; give them a temperature");
    if (own && c->rollouts && sft->choose == CHOOSE_SCORE && !c->rollouts->score)
        REFUSE(c, "choose",
               "choose: score needs rollouts that were scored: say score: true in the rollouts stage before it");
    c->n_sft += !own;
}

static void check_rollouts(struct checking *c, const struct rollouts_config *rollouts)
{
    if (rollouts->score && !c->have_prm)
        REFUSE(c, "score", "there is no reward model to score with: put a prm stage before it, or say score: false");
    c->rollouts = rollouts;
}

static bool policy_is_known(const char *policy)
{
    static const char *const words[] = {"demonstrator", "sft", "sft-earlier", "best", "last"};

    for (size_t i = 0; i < ARRAY_SIZE(words); i++)
        if (!strcmp(policy, words[i]))
            return true;
    return policy[0] && strspn(policy, "0123456789") == strlen(policy);
}

/* Which judges can say anything about what a method proposes. */
static void check_search(struct checking *c, const struct eval_config *eval)
{
    if (eval->search_method == SEARCH_REFINE) {
        if (eval->search_judge != JUDGE_PRM || eval->n_search_controls > 0)
            REFUSE(c, "search_judge", "refine is judged by the reward model alone, and has no controls");
        for (int i = 0; i < eval->n_n; i++)
            if (eval->n[i] != 1 && eval->n[i] != 1 + REFINE_ROUNDS)
                REFUSE(c, "n", "refine plays one rollout and mends it %d times: n is 1 or %d, not %d", REFINE_ROUNDS,
                       1 + REFINE_ROUNDS, eval->n[i]);
    }
    if (eval->search_method == SEARCH_N && eval->search_judge == JUDGE_VALUE && c->critic &&
        (c->critic->critic_time || c->critic->critic_prm))
        REFUSE(c, "search_judge",
               "the critic of this run's rl stage is the learner's alone (critic_time, critic_prm): an actor cannot ask "
               "it; take prm, or train with both false");
    if (eval->search_method != SAMPLE_N)
        return;
    if (eval->search_judge == JUDGE_VALUE || eval->search_judge == JUDGE_ORACLE)
        REFUSE(c, "search_judge",
               "sample_n plays no action before it chooses, and value and oracle look at where one led: take "
               "confidence, or search_n");
    if ((eval->search_judge == JUDGE_PRM || eval->search_judge == JUDGE_SHUFFLED) && !strcmp(c->config->prm_init, "policy"))
        REFUSE(c, "search_judge",
               "this reward model (prm.init: policy) looks at pictures alone and cannot tell actions apart before they "
               "are played: take confidence, a Qwen-VL reward model, or search_n");
    if (eval->search_judge == JUDGE_CONFIDENCE && eval->search_proposals == PROPOSE_GAUSSIAN)
        REFUSE(c, "search_proposals", "the policy has no confidence in actions it did not propose: take policy");
}

/* A state played twice by a greedy policy counts twice and says nothing new. */
static void check_test_states(struct checking *c, const struct eval_config *eval, const char *key, int episodes)
{
    const int states = run_config_test_states(c->config), tasks = MAX(c->config->n_tasks, 1);
    const int last = eval->first_state + (episodes + tasks - 1) / tasks - 1;

    if (!states || last < states || run_config_all_tasks(c->config))
        return;
    if (eval->on_val)           /* these are drawn: there are as many as are asked for */
        return;
    REFUSE(c, eval->first_state >= states ? "first_state" : key,
           "%s has %d test states of each task, 0 to %d: %d episodes over %d task%s from state %d on would need %d",
           c->config->suite, states, states - 1, episodes, tasks, tasks > 1 ? "s" : "", eval->first_state, last + 1);
}

/* What chooses, or a control beside it, asks the reward model. */
static bool asks_reward_model(const struct eval_config *eval)
{
    bool asks = eval->search_judge == JUDGE_PRM || eval->search_judge == JUDGE_SHUFFLED;

    for (int i = 0; i < eval->n_search_controls; i++)
        asks |= search_name(search_judge_names, eval->search_controls[i]) == JUDGE_SHUFFLED;
    return asks;
}

static void check_eval(struct checking *c, const struct eval_config *eval)
{
    const bool unscored = !c->have_prm && asks_reward_model(eval);
    bool search = false;

    if (eval->n_policies == 0 || eval->n_temperatures == 0)
        REFUSE(c, eval->n_policies ? "temperatures" : "policies", "policies and temperatures must not be empty");
    if (eval->n_at != 0 && eval->n_at != eval->n_policies)
        REFUSE(c, "at", "%d temperatures in `at` for %d policies; give one for each, or none", eval->n_at,
               eval->n_policies);
    for (int i = 0; i < eval->n_policies; i++)
        if (!policy_is_known(eval->policies[i]))
            REFUSE(c, "policies",
                   "there is no policy '%s': demonstrator, sft, sft-earlier, best, last, or a version number",
                   eval->policies[i]);
        else if (!strcmp(eval->policies[i], "sft-earlier") && c->n_sft < 2)
            REFUSE(c, "policies",
                   "sft-earlier is the policy at the end of the last sft stage but one; this run has %d before", c->n_sft);
    for (int i = 0; i < eval->n_n; i++) {
        if (eval->n[i] > 1 && !search && unscored)
            REFUSE(c, "n", "look-ahead (n: %d) is judged by a reward model, and no prm stage comes before; "
                   "search_judge: confidence asks the policy alone", eval->n[i]);
        search |= eval->n[i] > 1;
    }
    check_test_states(c, eval, "episodes", eval->episodes);
    if (search)
        check_test_states(c, eval, "search_episodes", eval->search_episodes);
    for (int i = 0; i < eval->n_search_controls; i++)
        if (strcmp(eval->search_controls[i], "greedy") != 0 &&
            search_name(search_judge_names, eval->search_controls[i]) < JUDGE_RANDOM)
            REFUSE(c, "search_controls", "there is no control '%s': greedy, random, shuffled, oracle",
                   eval->search_controls[i]);
    check_search(c, eval);
    if (eval->perturb[0] && strcmp(c->config->suite, "tabletop") != 0)
        REFUSE(c, "perturb", "the suite %s has no blows: they are of tabletop's tasks", c->config->suite);
    if (eval->search_execute > eval->search_horizon)
        REFUSE(c, "search_execute", "search_execute (%d) is more than search_horizon (%d)", eval->search_execute,
               eval->search_horizon);
}

/* What is there once the run's own stages have ended; they were checked when it began. */
static void note_before(struct checking *c)
{
    for (int i = 0; c->before && i < c->before->n_stages; i++) {
        const struct stage_config *stage = &c->before->stages[i];

        c->have_demos |= stage->kind == STAGE_DEMOS;
        c->have_prm |= stage->kind == STAGE_PRM;
        c->n_sft += stage->kind == STAGE_SFT && stage->sft.from == SFT_DEMOS;
        if (stage->kind == STAGE_ROLLOUTS)
            c->rollouts = &stage->rollouts;
        if (stage->kind == STAGE_RL && rl_has_critic(&stage->rl))
            c->critic = &stage->rl;
    }
}

/* Could all of it be read? The presets of stages speak for the policy, too. */
static bool is_read(const struct checking *c, const char *section)
{
    bool whole = c->doubt->stage == INT_MAX;

    return !c->doubt->sections[run_section_find(section) - run_sections] && (whole || strcmp(section, "policy") != 0);
}

/* Up to the first that could not be read: what comes after it goes by what it makes. */
static void check_stages(struct checking *c)
{
    const struct yaml_node *list = yaml_tree_get(c->root, "stages"), *entry = list ? list->first : NULL;
    int n = is_read(c, "suite") && is_read(c, "prm") ? MIN(c->config->n_stages, c->doubt->stage) : 0;

    note_before(c);
    for (int i = 0; i < n; i++) {
        const struct stage_config *stage = &c->config->stages[i];

        c->body = entry ? entry->first : NULL;
        entry = entry ? entry->next : NULL;
        snprintf(c->path, sizeof c->path, "stages[%d].%s", i, stage_kind_name(stage->kind));
        switch (stage->kind) {
        case STAGE_DEMOS: c->have_demos = true; break;
        case STAGE_SFT: check_sft(c, &stage->sft); break;
        case STAGE_PRM: c->have_prm = true; break;
        case STAGE_RL: check_rl(c, &stage->rl); break;
        case STAGE_EVAL: check_eval(c, &stage->eval); break;
        case STAGE_ROLLOUTS: check_rollouts(c, &stage->rollouts); break;
        }
    }
}

static void refuse_section(const struct checking *c, const char *section, const char *key, const char *text, const char *value)
{
    char path[64];

    if (!is_read(c, section))
        return;
    snprintf(path, sizeof path, "%s.%s", section, key);
    (void)config_error(c->faults, locate(yaml_tree_get(c->root, section), key, c->root), path, "%s%s", value, text);
}

static bool device_is_known(const char *device)
{
    return !strcmp(device, "cpu") || (!strncmp(device, "cuda:", 5) && isdigit((unsigned char)device[5]) &&
                                      strspn(device + 5, "0123456789") == strlen(device + 5));
}

static void check_servers(const struct checking *c, const char *key, const struct server_config *servers, int n)
{
    for (int i = 0; i < n; i++)
        if (!device_is_known(servers[i].device))
            refuse_section(c, "cluster", key, ": devices are cpu and cuda:N", servers[i].device);
}

/* Numbers below 32 between commas, or a word. */
static bool renderers_are_known(const char *at)
{
    char *end;

    if (!strcmp(at, "software") || !strcmp(at, "auto"))
        return true;
    for (;; at = end + 1) {
        if (!isdigit((unsigned char)*at) || strtol(at, &end, 10) > 31 || (*end && *end != ','))
            return false;
        if (!*end)
            return true;
    }
}

/* Learners add up one gradient: NCCL does that between devices, one for each rank; a socket between CPUs. */
static void check_learners(const struct checking *c)
{
    const struct run_config *config = c->config;

    for (int i = 1; i < config->n_learners; i++) {
        const char *device = config->learners[i].device;
        bool twice = false;

        if (!strcmp(device, "cpu") != !strcmp(config->learners[0].device, "cpu")) {
            refuse_section(c, "cluster", "learners",
                           ": learners compute all on CPUs or all on devices (the first one does not)", device);
            break;
        }
        for (int j = 0; j < i && strcmp(device, "cpu") && !config->listen[0]; j++)
            twice |= !strcmp(device, config->learners[j].device);
        if (twice)
            refuse_section(c, "cluster", "learners", " is listed twice: each learner needs a device of its own", device);
    }
    if (config->n_learners > 8 || (config->n_learners & (config->n_learners - 1))) {       /* eight shards */
        char n[16];

        (void)snprintf(n, sizeof n, "%d", config->n_learners);
        refuse_section(c, "cluster", "learners", " learners: an update is shared by 1, 2, 4 or 8", n);
    }
}

static bool name_is_plain(const char *name)
{
    if (!name[0] || name[0] == '.')
        return false;
    for (; *name; name++)
        if (!isalnum((unsigned char)*name) && !strchr("-_.", *name))
            return false;
    return true;
}

static void check_tasks(const struct checking *c)
{
    const struct run_config *config = c->config;

    if (config->n_tasks == 0)
        refuse_section(c, "suite", "tasks", "at least one task is needed", "");
    for (int i = 0; i < config->n_tasks; i++) {
        int j = 0;

        while (strcmp(config->tasks[i], config->tasks[j]))
            j++;
        if (j < i)
            refuse_section(c, "suite", "tasks", " is listed twice", config->tasks[i]);
    }
}

void run_config_check(const struct run_config *config, const struct yaml_node *root, const struct run_config *before,
                      const struct run_doubt *doubt, struct config_faults *faults)
{
    static const char often[] = "heartbeats say how far episodes are, so that it must be at least twice timing.heartbeat_ms";
    struct checking c = {.config = config, .root = root, .before = before, .doubt = doubt, .faults = faults};

    if (!name_is_plain(config->name))
        refuse_section(&c, "run", "name", ": letters, digits, - _ and . only, not beginning with a dot", config->name);
    if (!strcmp(config->suite, "remote") && !config->remote[0])
        refuse_section(&c, "suite", "remote", "suite remote needs the command that is the simulator, or unix:PATH", "");
    if (config->remote[0] && strcmp(config->suite, "remote"))
        refuse_section(&c, "suite", "remote", ": only suite.name: remote takes it", config->remote);
    if (!strcmp(config->chain, "plain") && strncmp(config->suite, "libero_", strlen("libero_")) != 0)
        refuse_section(&c, "suite", "chain", ": only libero suites have mirrors and smoothed edges to leave out", config->chain);
    check_tasks(&c);
    if (!strcmp(config->prm_init, "policy") && config->prm_history > TRUNK_HISTORY_MAX)
        refuse_section(&c, "prm", "history", ": with the policy's trunk (prm.init: policy) at most 6 frames beside the first and "
                       "the current one", "too many frames");
    if (!config->policy_init[0])
        refuse_section(&c, "policy", "init", "a model directory is needed", "");
    if (!strcmp(config->policy_train, "lora") && !config->lora_targets[strspn(config->lora_targets, ", ")])
        refuse_section(&c, "policy", "lora_targets", "no module is named; write all-linear, or names like q_proj, v_proj", "");
    if (config->policy_eos_in_logp && strcmp(config->policy_support, "full") != 0)
        refuse_section(&c, "policy", "eos_in_logp", "the end token is none of the 256 action ids: say support: full, too", "");
    if (config->n_learners == 0)
        refuse_section(&c, "cluster", "learners", "at least one learner is needed: it keeps the trajectories", "");
    check_servers(&c, "actors", config->actors, config->n_actors);
    check_servers(&c, "prm_servers", config->prm_servers, config->n_prm_servers);
    check_servers(&c, "learners", config->learners, config->n_learners);
    check_learners(&c);
    if (!renderers_are_known(config->renderers))
        refuse_section(&c, "cluster", "renderers", ": software, auto, or numbers of EGL devices like '0,1'", config->renderers);
    if (config->lease_ttl_ms < 2 * config->heartbeat_ms)
        refuse_section(&c, "timing", "lease_ttl_ms", often, "");
    if (config->first_step_ms < 2 * config->heartbeat_ms)
        refuse_section(&c, "timing", "first_step_ms", often, "");
    if (config->hung_ms > 0 && config->hung_ms < 1000)
        refuse_section(&c, "timing", "hung_ms", "a loop may well stand still for less than a second; 0: never", "");
    check_stages(&c);
}

struct warning { void (*say)(const char *line, void *arg); void *arg; int stage; };

static void warn(const struct warning *w, const char *text)
{
    char line[400];

    snprintf(line, sizeof line, "stages[%d].rl: %s", w->stage, text);
    w->say(line, w->arg);
}

void run_config_warnings(const struct run_config *config, void (*say)(const char *line, void *arg), void *arg)
{
    if (config->token_file[0] && !config->http[0])
        say("status.token_file: does nothing without status.http, which says where the page is", arg);
    for (int i = 0; i < config->n_stages; i++) {
        const struct rl_config *rl = &config->stages[i].rl;
        struct warning w = {say, arg, i};

        if (config->stages[i].kind != STAGE_RL)
            continue;
        if (rl->reward == REWARD_RAW_LITERAL)
            warn(&w, "reward raw_literal pays for dawdling: a policy learns to hover where the score is high, and its reward "
                 "rises while its success falls; progress pays for getting closer");
        if (rl->kl == KL_K1)
            warn(&w, "kl k1 as a loss has no gradient in expectation: nothing holds the policy near its start");
        if (rl->advantage == ADVANTAGE_GAE && !rl_has_critic(rl) && rl->lambda < 1)
            warn(&w, "without a critic a lambda below 1 only makes a step blind to what comes later");
    }
}
