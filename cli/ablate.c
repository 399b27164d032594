#include "cli/ablate.h"

#include <errno.h>
#include <limits.h>

#include "base/atomic_file.h"
#include "base/clock.h"
#include "cli/cli.h"
#include "cli/run_branch.h"
#include "cli/up.h"

const struct ablate_rung_info ablate_rungs[RUNGS] = {
    [RUNG_A] = {"A", "A", "imitation", RUNG_A},
    [RUNG_A_MORE] = {"A'", "A-more", "A + as many more demonstrations as C plays episodes", RUNG_A},
    [RUNG_B] = {"B", "B", "A + imitation of own episodes that the reward model chose", RUNG_A},
    [RUNG_B_SIMULATOR] = {"B'", "B-simulator", "A + imitation of own episodes that succeeded", RUNG_A},
    [RUNG_C] = {"C", "C", "A + PPO, sparse reward, tasks drawn evenly", RUNG_A},
    [RUNG_D] = {"D", "D", "C + process reward", RUNG_C},
    [RUNG_E] = {"E", "E", "D + curriculum", RUNG_D},
    [RUNG_F] = {"F", "E", "E + look-ahead", RUNG_E},
    [RUNG_F_ANEW] = {"F'", "F-anew", "F by a reward model trained anew on E's own episodes", RUNG_E},
    [RUNG_E_PRM] = {"E-prm", "E-no-prm", "E without process reward (E without curriculum is D)", RUNG_E},
};

/* ---- configurations -------------------------------------------------------------------------------------------------- */

static const struct stage_config *find_stage(const struct run_config *config, enum stage_kind kind)
{
    for (int i = 0; i < config->n_stages; i++)
        if (config->stages[i].kind == kind)
            return &config->stages[i];
    return NULL;
}

/* As text and back: every rule of a configuration holds for it. */
static int check(const struct run_config *config, struct error *error)
{
    _cleanup_(strbuf_release) struct strbuf text = STRBUF_INIT;
    _cleanup_free_ struct run_config *again = malloc(sizeof *again);

    if (!again || run_config_write(config, &text) < 0)
        return error_set(error, ENOMEM, "out of memory");
    return run_config_parse(text.text, text.length, config->dir, again, error);
}

int ablate_start_config(const struct ablate *a, int seed, struct run_config *ret, struct error *error)
{
    int n = 0;

    *ret = a->config;
    while (n < ret->n_stages && ret->stages[n].kind != STAGE_RL && ret->stages[n].kind != STAGE_EVAL)
        n++;
    ret->n_stages = n;
    ret->seed = a->first_seed + (uint64_t)seed;
    snprintf(ret->dir, sizeof ret->dir, "%s/seed-%llu/start", a->dir, (unsigned long long)ret->seed);
    if (!find_stage(ret, STAGE_DEMOS) || !find_stage(ret, STAGE_SFT) || !find_stage(ret, STAGE_PRM) ||
        !find_stage(&a->config, STAGE_RL))
        return error_set(error, EINVAL,
                         "%s: a ladder wants stages demos, sft, rollouts, prm and rl, in this order, and may have an eval",
                         a->config.name);
    return check(ret, error);
}

static struct stage_config *add(struct run_config *config, const struct stage_config *like, const char *name)
{
    struct stage_config *stage = &config->stages[config->n_stages++];

    *stage = *like;
    snprintf(stage->name, sizeof stage->name, "%s", name);
    return stage;
}

/* Every sft stage of the start again, on other episodes. */
static void add_imitation(struct run_config *config, enum sft_source from, enum sft_choice choose)
{
    int n = config->n_stages, k = 0;
    char name[32];

    for (int i = 0; i < n; i++)
        if (config->stages[i].kind == STAGE_SFT && config->stages[i].sft.from == SFT_DEMOS &&
            config->n_stages < RUN_MAX_STAGES - 1) {
            struct stage_config *stage;

            snprintf(name, sizeof name, "again%d", ++k);
            stage = add(config, &config->stages[i], name);
            stage->sft.from = from;
            stage->sft.choose = choose;
        }
}

static void add_filtered(struct run_config *config, int episodes, bool scored)
{
    struct stage_config like = {.kind = STAGE_ROLLOUTS, .rollouts = {.episodes = episodes, .temperature = 1, .score = scored}};

    (void)add(config, &like, "own");
    add_imitation(config, SFT_ROLLOUTS, scored ? CHOOSE_SCORE : CHOOSE_SUCCESS);
}

static void add_rl(struct run_config *config, const struct stage_config *like, bool prm, bool curriculum)
{
    struct rl_config *rl = &add(config, like, "rl")->rl;

    if (!prm) {
        rl->reward = REWARD_SPARSE;
        rl->critic_prm = false;
    }
    if (!curriculum)
        rl->curriculum = CURRICULUM_UNIFORM;
}

static int add_eval(const struct ablate *a, struct run_config *config, const char *name, bool search, struct error *error)
{
    static const char defaults[] = "kind: eval\n";
    const struct stage_config *given = find_stage(&a->config, STAGE_EVAL);
    struct stage_config stage;
    struct eval_config *eval;
    int r = stage_config_parse(defaults, sizeof defaults - 1, &stage, error);

    if (r < 0)
        return r;
    eval = &add(config, given ? given : &stage, name)->eval;
    snprintf(eval->policies[0], sizeof eval->policies[0], "last");
    eval->n_policies = 1;
    eval->n_at = 0;
    eval->beside = false;
    eval->n[0] = search ? a->search_n : 1;
    eval->n_n = 1;
    eval->n_search_controls = 0;
    eval->search_episodes = eval->episodes;
    return 0;
}

/* Behind E's test: what it has learned plays, and a reward model learns from that what progress looks like now. */
static int add_anew(const struct ablate *a, struct run_config *config, struct error *error)
{
    const struct stage_config *rollouts = find_stage(&a->config, STAGE_ROLLOUTS);
    struct stage_config like = {.kind = STAGE_ROLLOUTS, .rollouts = {.episodes = 600, .temperature = 1}};
    struct eval_config *eval;
    int r;

    (void)add(config, rollouts ? rollouts : &like, "own");
    (void)add(config, find_stage(&a->config, STAGE_PRM), "anew");
    r = add_eval(a, config, "test2", true, error);
    if (r < 0)
        return r;
    eval = &config->stages[config->n_stages - 1].eval; /* E has chosen on val; here the candidates' temperature alone is played */
    eval->n_at = 1;
    eval->at[0] = eval->search_temperature;
    return 0;
}

int ablate_rung_config(const struct ablate *a, int seed, enum ablate_rung rung, struct run_config *ret, struct error *error)
{
    const struct stage_config *rl = find_stage(&a->config, STAGE_RL);
    int episodes, r = ablate_start_config(a, seed, ret, error);
    struct stage_config *demos;

    if (r < 0)
        return r;
    episodes = rl->rl.iterations * rl->rl.episodes;
    snprintf(ret->dir, sizeof ret->dir, "%s/seed-%llu/%s", a->dir, (unsigned long long)ret->seed, ablate_rungs[rung].folder);
    if (ret->n_stages > RUN_MAX_STAGES / 2)
        return error_set(error, ENOSPC, "%s: %d stages before rl leave no room for a rung's own; %d at most", a->config.name,
                         ret->n_stages, RUN_MAX_STAGES / 2);
    switch (rung) {
    case RUNG_A_MORE:
        demos = add(ret, find_stage(ret, STAGE_DEMOS), "more");
        demos->demos.episodes = episodes;
        add_imitation(ret, SFT_DEMOS, CHOOSE_SUCCESS);
        break;
    case RUNG_B: add_filtered(ret, episodes, true); break;
    case RUNG_B_SIMULATOR: add_filtered(ret, episodes, false); break;
    case RUNG_C: add_rl(ret, rl, false, false); break;
    case RUNG_D: add_rl(ret, rl, true, false); break;
    case RUNG_E:
    case RUNG_F:
    case RUNG_F_ANEW: add_rl(ret, rl, true, true); break;
    case RUNG_E_PRM: add_rl(ret, rl, false, true); break;
    case RUNG_A:
    case RUNGS: break;
    }
    r = add_eval(a, ret, "test", rung == RUNG_E || rung == RUNG_F || rung == RUNG_F_ANEW, error);
    if (r == 0 && rung == RUNG_F_ANEW)
        r = add_anew(a, ret, error);
    return r < 0 ? r : check(ret, error);
}

/* ---- the order of work --------------------------------------------------------------------------------------------------- */

/* A run to play: a start (rung < 0) or a rung. F is E's. */
struct job {
    int seed, rung;
};

static int jobs(const struct ablate *a, struct job *ret)
{
    int n = 0;

    for (int seed = 0; seed < a->seeds; seed++) {
        ret[n++] = (struct job){seed, -1};
        for (int rung = 0; rung < RUNGS; rung++)
            if (rung != RUNG_F && (a->wanted[rung] || (rung == RUNG_E && (a->wanted[RUNG_F] || a->wanted[RUNG_F_ANEW]))))
                ret[n++] = (struct job){seed, rung};
    }
    return n;
}

static int job_config(const struct ablate *a, const struct job *job, struct run_config *ret, struct error *error)
{
    return job->rung < 0 ? ablate_start_config(a, job->seed, ret, error)
                         : ablate_rung_config(a, job->seed, (enum ablate_rung)job->rung, ret, error);
}

static const char *job_title(const struct job *job)
{
    return job->rung < 0 ? "demonstrations, imitation, reward model" : ablate_rungs[job->rung].title;
}

int ablate_list(const struct ablate *a, struct error *error)
{
    _cleanup_free_ struct run_config *config = malloc(sizeof *config);
    struct job list[ABLATE_SEEDS_MAX * (RUNGS + 1)];
    int n = jobs(a, list), r = 0;

    if (!config)
        return error_set(error, ENOMEM, "out of memory");
    for (int i = 0; i < n && r == 0; i++) {
        bool ended = false;

        r = job_config(a, &list[i], config, error);
        if (r == 0)
            r = run_ended(config, &ended, error);
        if (r < 0)
            break;
        printf("%3d of %d  %-8s %s: %s\n      stages:", i + 1, n,
               ended                            ? "done"
               : access(config->dir, F_OK) == 0 ? "begun"
                                                : "to do",
               config->dir, job_title(&list[i]));
        for (int k = 0; k < config->n_stages; k++)
            printf(" %s", config->stages[k].name);
        printf("\n");
    }
    return r;
}

/* Begin or go on with one run. */
static int play(const struct ablate *a, const struct job *job, const struct run_config *config, struct error *error)
{
    _cleanup_free_ struct run_config *start = malloc(sizeof *start);
    bool ended = false;
    int r = !start                      ? error_set(error, ENOMEM, "out of memory")
            : job->rung == RUNG_F_ANEW ? ablate_rung_config(a, job->seed, RUNG_E, start, error)
                                       : ablate_start_config(a, job->seed, start, error);

    if (r == 0 && job->rung >= 0 && access(config->dir, F_OK) < 0)
        r = run_branch(start, config, error);
    if (r < 0)
        return r;
    if (up_run(config, false) != CLI_OK)
        return error_set(error, EIO, "%s did not run to its end", config->dir);
    r = run_ended(config, &ended, error);
    return r < 0 || ended ? r : error_set(error, EINTR, "%s was interrupted; the same command goes on from there", config->dir);
}

int ablate_play(const struct ablate *a, struct error *error)
{
    _cleanup_free_ struct run_config *config = malloc(sizeof *config);
    struct job list[ABLATE_SEEDS_MAX * (RUNGS + 1)];
    int n = jobs(a, list), played = 0, r = 0;
    uint64_t begun = clock_mono_ms();
    bool ended;

    if (!config)
        return error_set(error, ENOMEM, "out of memory");
    if ((r = mkdir_p(a->dir, 0755)) < 0)
        return error_set(error, -r, "%s: cannot be made: %s", a->dir, strerror(-r));
    for (int i = 0; i < n && r == 0; i++) {
        double left = played ? (double)(clock_mono_ms() - begun) / 60000 / played * (n - i) : 0;

        r = job_config(a, &list[i], config, error);
        if (r == 0)
            r = run_ended(config, &ended, error);
        if (r < 0 || ended)
            continue;
        printf("gantry ablate: run %d of %d, seed %llu, %s: %s", i + 1, n, (unsigned long long)config->seed,
               list[i].rung < 0 ? "start" : ablate_rungs[list[i].rung].name, job_title(&list[i]));
        if (played)
            printf(" (about %.0f min left for all)", left);
        printf("\n");
        fflush(stdout);
        r = play(a, &list[i], config, error);
        played++;
    }
    return r;
}
