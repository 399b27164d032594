/* lab - the whole method in one process: demonstrations, SFT, reward model, PPO, evaluation. For finding settings.
 *
 *   lab new   --like DIR --out DIR [--seed N]                        a fresh model
 *   lab sft   --from DIR --out DIR --style clean|slow --episodes N --steps N --lr X [--batch N] [--limit N]
 *   lab prm   --from DIR --out DIR --demos N --rollouts N --steps N --lr X
 *   lab rl    --from DIR [--prm DIR] --out DIR --iterations N [--episodes N --lr X --reward progress|sparse|delta --decay N ...]
 *   lab eval  --from DIR [--episodes N] [--temps .3,.6,1] [--split val|test] [--limit N]
 *   lab demonstrator --style slow [--episodes N]
 *
 * All take --tasks a,b (default pick_up_object,open_drawer), --threads, --seed, --batch, --image. Not installed. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "tests/harness/play.h"
#include "rl/stats.h"
#include "train/checkpoint.h"
#include "train/objective.h"

struct lab {
    char *from, *out, *like, *prm, *style, *tasks, *temps, *split, *reward;
    int episodes, steps, batch, limit, demos, rollouts, iterations, threads, image, decay, eval_every, epochs, warmup, ramp,
        width;
    double lr, wd, lr_end, beta2, w, gamma, lambda, value_lr, kl, holdout, demo_fraction, temperature;
    uint64_t seed;
    struct play_world *world;
};

static void die(int r, const struct error *error, const char *what)
{
    fprintf(stderr, "lab: %s: %s\n", what, error_text(error, r));
    exit(1);
}
#define MUST(call, what)                                    \
    do {                                                    \
        struct error error_ = {0}, *error = &error_;        \
        int r_ = (call);                                    \
        (void)error;                                        \
        if (r_ < 0)                                         \
            die(r_, &error_, what);                         \
    } while (0)

static double seconds(void)
{
    return (double)clock_mono_ns() / 1e9;
}

static bool say(void *arg, const char *what, int64_t done, int64_t total, double loss)
{
    double *start = arg;

    if (done && (done % 50 == 0 || done == total))
        printf("  %s %lld/%lld loss %.4f  %.0f s\n", what, (long long)done, (long long)total, loss, seconds() - *start);
    fflush(stdout);
    return true;
}

static void open_world(struct lab *lab)
{
    const char *names[PLAY_MAX_TASKS];
    int n = 0;
    char *save = NULL, *list = strdup(lab->tasks);

    for (char *name = strtok_r(list, ",", &save); name && n < PLAY_MAX_TASKS; name = strtok_r(NULL, ",", &save))
        names[n++] = name;
    setenv("LP_NUM_THREADS", "0", 0);
    MUST(play_world_open("tabletop", names, n, lab->image, &lab->world, error), "simulator");
    free(list);
}

/* Rows first..first+n-1, tasks in turn; states numbered from base per task. */
static struct play_row *rows_of(const struct lab *lab, uint64_t first, int n, uint64_t base)
{
    struct play_row *rows = calloc((size_t)n, sizeof *rows);

    for (int i = 0; i < n; i++)
        rows[i] = (struct play_row) {.id = first + (uint64_t)i, .state_seed = base + (uint64_t)(i / lab->world->tasks),
                                     .task = i % lab->world->tasks};
    return rows;
}

static void tally(const struct lab *lab, const struct play_row *rows, int n, const char *what)
{
    printf("%s:", what);
    for (int task = 0; task < lab->world->tasks; task++) {
        int played = 0, won = 0, steps = 0;
        struct interval ci;

        for (int i = 0; i < n; i++)
            if (rows[i].task == task) {
                played++;
                won += rows[i].success;
                steps += rows[i].steps;
            }
        ci = wilson(won, played, 1.96);
        printf("  %s %.3f [%.2f %.2f] len %.1f", sim_task_info(lab->world->task[task])->name, (double)won / played, ci.low,
               ci.high, (double)steps / played);
    }
    printf("\n");
    fflush(stdout);
}

static struct trainer *load_trainer(const struct lab *lab, const char *dir, bool state)
{
    struct openvla *model;
    struct trainer *trainer;

    MUST(openvla_load(dir, &model, error), "load");
    MUST(trainer_new(model, lab->threads, NULL, &trainer), "trainer");
    if (state)
        MUST(checkpoint_load_state(trainer, dir, error), "state");
    return trainer;
}

static void save(const struct trainer *trainer, const char *dir)
{
    mkdir(dir, 0777);
    MUST(checkpoint_save(trainer, dir, error), "save");
}

static void play_into(struct lab *lab, struct dataset *data, struct play *play, uint64_t first, int n, uint64_t base,
                      const char *what)
{
    double start = seconds();
    char text[128];

    play->rows = rows_of(lab, first, n, base);
    play->n = n;
    play->out = data;
    for (int i = 0; i < lab->world->tasks && lab->limit; i++)
        play->max_steps[i] = lab->limit;
    MUST(play_all(lab->world, play, error), what);
    snprintf(text, sizeof text, "%s (%d episodes, %.1f s)", what, n, seconds() - start);
    tally(lab, play->rows, n, text);
    free(play->rows);
}

static void cmd_new(struct lab *lab)
{
    struct openvla *model;

    MUST(openvla_new(lab->like, lab->seed, &model, error), "new");
    mkdir(lab->out, 0777);
    MUST(openvla_save(model, lab->out, "F32", error), "save");
    printf("%s: %lld parameters\n", lab->out, (long long)model->params.numel);
    openvla_free(model);
}

static void cmd_sft(struct lab *lab)
{
    struct trainer *trainer = load_trainer(lab, lab->from, false);
    struct dataset *data;
    double start = seconds();
    struct train_watch watch = {say, &start};
    struct objective objective = {.seed = lab->seed, .stage = 1, .watch = &watch};
    struct sft_config config = {.steps = lab->steps, .batch = lab->batch, .lr = lab->lr, .weight_decay = lab->wd, .clip = 1,
                                .beta2 = lab->beta2, .warmup = 50, .lr_end = lab->lr_end};
    struct sft_result result;

    MUST(dataset_new(trainer->model, &data), "data");
    play_into(lab, data, &(struct play) {.split = SIM_TRAIN, .style = lab->style}, 1, lab->episodes, lab->seed * 1000000,
              lab->style);
    dataset_sort(data);
    start = seconds();
    MUST(objective_sft(trainer, data, &config, &objective, &result, error), "sft");
    printf("sft: %d frames, loss %.4f -> %.4f, %.2f s/update\n", result.frames, result.first_loss, result.last_loss,
           (seconds() - start) / lab->steps);
    save(trainer, lab->out);
    dataset_free(data);
    trainer_free(trainer);
}

static void evaluate(struct lab *lab, const struct openvla *model, const char *what, double temperature, int n,
                     enum sim_split split)
{
    struct play play = {.rows = rows_of(lab, 900000000, n, 0), .n = n, .split = split, .policy = model,
                        .temperature = temperature, .seed = 99};
    char text[128];

    for (int i = 0; i < lab->world->tasks && lab->limit; i++)
        play.max_steps[i] = lab->limit;
    MUST(play_all(lab->world, &play, error), "eval");
    snprintf(text, sizeof text, "%s T %.2f", what, temperature);
    tally(lab, play.rows, n, text);
    free(play.rows);
}

static void cmd_eval(struct lab *lab)
{
    struct openvla *model;
    enum sim_split split = !strcmp(lab->split, "test") ? SIM_TEST : SIM_VAL;
    char *at = lab->temps;

    MUST(openvla_load(lab->from, &model, error), "load");
    MUST(openvla_pack(model, false), "pack");
    while (*at) {
        double t = strtod(at, &at), start = seconds();

        evaluate(lab, model, lab->from, t, lab->episodes, split);
        printf("  %.1f s\n", seconds() - start);
        at += *at == ',';
    }
    openvla_free(model);
}

static void cmd_demonstrator(struct lab *lab)
{
    struct play play = {.rows = rows_of(lab, 800000000, lab->episodes, 0), .n = lab->episodes, .split = SIM_VAL,
                        .style = lab->style};

    for (int i = 0; i < lab->world->tasks && lab->limit; i++)
        play.max_steps[i] = lab->limit;
    MUST(play_all(lab->world, &play, error), "demonstrator");
    tally(lab, play.rows, play.n, lab->style);
    free(play.rows);
}

static void cmd_prm(struct lab *lab)
{
    struct openvla *policy, *model;
    struct trainer *trainer;
    struct dataset *data;
    double start = seconds();
    struct train_watch watch = {say, &start};
    struct objective objective = {.seed = lab->seed, .stage = 2, .watch = &watch};
    struct prm_config config = {.steps = lab->steps, .batch = lab->batch, .lr = lab->lr, .weight_decay = lab->wd, .clip = 1,
                                .demo_fraction = lab->demo_fraction, .holdout = lab->holdout, .width = 256, .gate_mid = .65,
                                .gate_last = .85, .gate_margin = .1};
    struct prm_result result;

    MUST(openvla_load(lab->from, &policy, error), "load");
    MUST(openvla_pack(policy, false), "pack");
    MUST(openvla_clone(policy, &model), "clone");
    MUST(openvla_add_reward_head(model, config.width, lab->seed), "reward head");
    MUST(trainer_new(model, lab->threads, NULL, &trainer), "trainer");
    MUST(dataset_new(trainer->model, &data), "data");
    if (lab->demos)
        play_into(lab, data, &(struct play) {.split = SIM_TRAIN, .style = lab->style}, 1, lab->demos, lab->seed * 1000000,
                  lab->style);
    play_into(lab, data, &(struct play) {.split = SIM_TRAIN, .policy = policy, .temperature = lab->temperature,
                                         .seed = lab->seed}, 100000, lab->rollouts,
              lab->seed * 1000000 + 100000, "rollouts");
    dataset_sort(data);
    start = seconds();
    MUST(objective_prm(trainer, data, &config, &objective, &result, error), "prm");
    printf("prm: loss %.4f -> %.4f, %.2f s/update\n  %s\n", result.first_loss, result.last_loss,
           (seconds() - start) / lab->steps, result.gate_text);
    printf("  auc 25/50/75/last %.2f %.2f %.2f %.2f  time correlation %.2f  last frame success %.2f failure %.2f  clock %.2f\n",
           result.prm.auc_quarter,
           result.prm.auc_mid, result.prm.auc_three_quarters, result.prm.auc_last, result.prm.time_correlation,
               result.prm.success_last,
           result.prm.failure_last, result.clock.auc_last);
    save(trainer, lab->out);
    dataset_free(data);
    trainer_free(trainer);
    openvla_free(policy);
}

static enum reward_mode reward_mode(const char *name)
{
    static const char *const names[] = {"progress", "delta", "raw", "raw_literal", "sparse"};

    for (int i = 0; i < (int)ARRAY_SIZE(names); i++)
        if (!strcmp(name, names[i]))
            return (enum reward_mode)i;
    die(-EINVAL, NULL, name);
    return REWARD_SPARSE;
}

static void iteration_line(struct lab *lab, uint64_t it, const struct ppo_result *r, const struct play_row *rows, int n,
                           double played, double trained)
{
    printf("it %3d ", (int)it);
    for (int task = 0; task < lab->world->tasks; task++) {
        int count = 0, won = 0;

        for (int i = 0; i < n; i++)
            if (rows[i].task == task) {
                count++;
                won += rows[i].success;
            }
        printf(" %.2f", (double)won / MAX(count, 1));
    }
    printf("  len %.1f kl %.4f clip %.3f refkl %.3f ent %.2f ev %.2f gn %.2f gap %.1e  play %.1f train %.1f s%s\n", r->length,
           r->approx_kl, r->clip_fraction,
           r->ref_kl, r->entropy, r->explained_variance, r->gradient_norm, r->logp_gap_max, played, trained, r->warmup
               ? " (critic)" : r->braked ? " (braked)" : "");
    fflush(stdout);
}

static void one_iteration(struct lab *lab, struct trainer *trainer, const struct openvla *reference, const struct openvla *prm,
                          const struct rl_config *config, uint64_t it)
{
    struct dataset *data;
    struct objective objective = {.seed = lab->seed, .stage = 3, .iteration = it, .version = it};
    struct ppo_result result;
    uint64_t first = 1000000 + it * 1000;
    struct play play = {.rows = rows_of(lab, first, config->episodes, lab->seed * 1000000 + 500000 + it * 1000),
                        .n = config->episodes, .split = SIM_TRAIN,
                        .policy = trainer->model, .temperature = config->temperature, .seed = lab->seed, .version = it,
                        .prm = prm};
    double start = seconds(), played;

    MUST(dataset_new(trainer->model, &data), "data");
    play.out = data;
    MUST(play_all(lab->world, &play, error), "rollout");
    played = seconds() - start;
    dataset_sort(data);
    MUST(objective_ppo(trainer, reference, data, config, &objective, &result, error), "ppo");
    iteration_line(lab, it, &result, play.rows, play.n, played, seconds() - start - played);
    dataset_free(data);
    free(play.rows);
}

static void cmd_rl(struct lab *lab)
{
    struct openvla *reference, *model, *prm = NULL;
    struct trainer *trainer;
    struct rl_config config = {
        .episodes = lab->episodes, .temperature = lab->temperature, .reward = reward_mode(lab->reward), .w_progress = lab->w,
        .w_success = 1,
        .w_progress_decay = lab->decay, .advantage = ADVANTAGE_GAE, .gamma = lab->gamma, .lambda = lab->lambda,
        .epochs = lab->epochs,
        .minibatch = lab->batch, .clip_low = .2, .clip_high = .2, .lr = lab->lr, .lr_ramp = lab->ramp, .weight_decay = lab->wd,
        .clip = 1, .beta2 = lab->beta2,
        .kl = lab->kl > 0 ? KL_EXACT : KL_NONE, .kl_coef = lab->kl, .value_coef = .5, .value_width = lab->width,
        .value_epochs = 2, .critic_warmup = lab->warmup,
        .value_lr = lab->value_lr, .value_detach = true, .critic_time = true, .critic_prm = lab->prm != NULL, .target_kl = .05,
    };

    MUST(openvla_load(lab->from, &reference, error), "load");
    MUST(openvla_pack(reference, false), "pack");
    MUST(openvla_clone(reference, &model), "clone");
    MUST(openvla_add_value_head(model, config.value_width, config.critic_time + config.critic_prm, lab->seed), "value head");
    MUST(trainer_new(model, lab->threads, NULL, &trainer), "trainer");
    if (lab->prm) {
        MUST(openvla_load(lab->prm, &prm, error), "prm");
        MUST(openvla_pack(prm, false), "pack");
    }
    for (int it = 0; it < lab->iterations; it++) {
        one_iteration(lab, trainer, reference, prm, &config, (uint64_t)it);
        if (lab->eval_every && (it + 1) % lab->eval_every == 0)
            for (int i = 0; i < 2; i++)
                evaluate(lab, trainer->model, "  val", (double[]) {.3, 1}[i], 100, SIM_VAL);
    }
    save(trainer, lab->out);
    trainer_free(trainer);
    openvla_free(reference);
    openvla_free(prm);
}

int main(int argc, char **argv)
{
    struct lab lab = {.tasks = "pick_up_object,open_drawer", .style = "slow", .temps = ".3,.6,1", .split = "val",
                      .reward = "progress", .episodes = 200,
                      .steps = 360, .batch = 64, .threads = 1, .image = 64, .lr = 5e-4, .wd = .01, .lr_end = .1, .beta2 = .95,
                      .w = 2, .decay = 30, .gamma = .99,
                      .lambda = .95, .value_lr = 1e-3, .kl = .01, .holdout = .2, .demo_fraction = .25, .temperature = 1,
                      .epochs = 1, .warmup = 2, .ramp = 20,
                      .width = 256, .demos = 300, .rollouts = 600, .iterations = 60, .seed = 7};
    const struct { const char *name; char kind; void *to; } options[] = {
        {"from", 's', &lab.from}, {"out", 's', &lab.out}, {"like", 's', &lab.like}, {"prm", 's', &lab.prm},
            {"style", 's', &lab.style},
        {"tasks", 's', &lab.tasks}, {"temps", 's', &lab.temps}, {"split", 's', &lab.split}, {"reward", 's', &lab.reward},
        {"episodes", 'i', &lab.episodes}, {"steps", 'i', &lab.steps}, {"batch", 'i', &lab.batch}, {"limit", 'i', &lab.limit},
            {"demos", 'i', &lab.demos},
        {"rollouts", 'i', &lab.rollouts}, {"iterations", 'i', &lab.iterations}, {"threads", 'i', &lab.threads},
            {"image", 'i', &lab.image},
        {"decay", 'i', &lab.decay}, {"eval-every", 'i', &lab.eval_every}, {"epochs", 'i', &lab.epochs},
            {"warmup", 'i', &lab.warmup},
        {"ramp", 'i', &lab.ramp}, {"width", 'i', &lab.width}, {"lr", 'd', &lab.lr}, {"wd", 'd', &lab.wd},
            {"lr-end", 'd', &lab.lr_end},
        {"beta2", 'd', &lab.beta2}, {"w", 'd', &lab.w}, {"gamma", 'd', &lab.gamma}, {"lambda", 'd', &lab.lambda},
            {"value-lr", 'd', &lab.value_lr},
        {"kl", 'd', &lab.kl}, {"holdout", 'd', &lab.holdout}, {"demo-fraction", 'd', &lab.demo_fraction},
            {"temperature", 'd', &lab.temperature},
        {"seed", 'u', &lab.seed},
    };
    const struct { const char *name; void (*run)(struct lab *); bool world; } commands[] = {
        {"new", cmd_new, false}, {"sft", cmd_sft, true}, {"prm", cmd_prm, true}, {"rl", cmd_rl, true}, {"eval", cmd_eval, true},
        {"demonstrator", cmd_demonstrator, true},
    };

    for (int i = 2; i + 1 < argc; i += 2)
        for (size_t j = 0; j <= ARRAY_SIZE(options); j++) {
            if (j == ARRAY_SIZE(options))
                die(-EINVAL, NULL, argv[i]);
            if (strncmp(argv[i], "--", 2) || strcmp(argv[i] + 2, options[j].name))
                continue;
            if (options[j].kind == 's')
                *(char **)options[j].to = argv[i + 1];
            else if (options[j].kind == 'd')
                *(double *)options[j].to = strtod(argv[i + 1], NULL);
            else if (options[j].kind == 'u')
                *(uint64_t *)options[j].to = strtoull(argv[i + 1], NULL, 10);
            else
                *(int *)options[j].to = (int)strtol(argv[i + 1], NULL, 10);
            break;
        }
    for (size_t i = 0; i < ARRAY_SIZE(commands) && argc > 1; i++)
        if (!strcmp(argv[1], commands[i].name)) {
            if (commands[i].world)
                open_world(&lab);
            commands[i].run(&lab);
            play_world_close(lab.world);
            return 0;
        }
    fprintf(stderr, "usage: lab new|sft|prm|rl|eval|demonstrator [--option value]... (see the head of tests/bench/lab.c)\n");
    return 2;
}
