/* Who ran, what it took, and whether imitation had reached its plateau. */
#include <errno.h>
#include <inttypes.h>
#include <math.h>

#include "base/episode.h"
#include "coordinator/summary_internal.h"
#include "daemon/run_later.h"
#include "version.h"

int summary_by_state(const void *a, const void *b)
{
    const struct ledger_episode *x = *(const struct ledger_episode *const *)a, *y = *(const struct ledger_episode *const *)b;
    int r = strcmp(x->tag, y->tag);

    if (r == 0)
        r = strcmp(x->task, y->task);
    return r ? r : (x->state_seed > y->state_seed) - (x->state_seed < y->state_seed);
}

/* Each is looked for by its partners: thousands in thousands, while the coordinator answers nobody. */
static int sort_evaluated(struct summary *s)
{
    s->evaluated = calloc(s->n_episodes + 1, sizeof *s->evaluated);
    if (!s->evaluated)
        return -ENOMEM;
    for (size_t i = 0; i < s->n_episodes; i++)
        if (s->episodes[i].state == EPISODE_EVALUATED && s->episodes[i].stage == s->eval_stage)
            s->evaluated[s->n_evaluated++] = &s->episodes[i];
    qsort(s->evaluated, s->n_evaluated, sizeof *s->evaluated, summary_by_state);
    return 0;
}

/* The run's own last one that has ended; before any has, the last. */
static void find_eval(struct summary *s)
{
    bool ended[RUN_MAX_STAGES] = {0};

    for (size_t i = 0; i < s->n_stages; i++)
        if (s->stages[i].stage < RUN_MAX_STAGES)
            ended[s->stages[i].stage] = s->stages[i].state == PROGRESS_DONE;
    for (int i = 0; i < s->config->n_stages; i++) {
        const struct stage_config *stage = &s->config->stages[i];

        if (stage->kind != STAGE_EVAL || run_later_is(stage) || (s->eval && ended[s->eval_stage] && !ended[i]))
            continue;
        s->eval = &stage->eval;
        s->eval_stage = (uint32_t)i;
    }
}

int summary_read(struct summary *s, struct ledger *ledger, struct error *error)
{
    size_t n = 0;
    int r;

    s->run = *ledger_run(ledger);
    r = ledger_stages(ledger, &s->stages, &s->n_stages);
    if (r == 0)
        find_eval(s);
    if (r == 0)
        r = ledger_iterations(ledger, &s->iterations, &s->n_iterations);
    if (r == 0)
        r = ledger_episodes(ledger, LEDGER_ALL, LEDGER_ALL, &s->episodes, &s->n_episodes);
    if (r == 0)
        r = ledger_versions(ledger, &s->versions, &s->n_versions);
    if (r == 0)
        r = run_builds_read(ledger, &s->builds);
    if (r == 0)
        r = sort_evaluated(s);
    if (r < 0)
        return error_set(error, -r, "summary: the ledger cannot be read: %s", ledger_error(ledger));
    if (ledger_get_blob(ledger, "runtime", (void **)&s->runtime, &n) < 0)
        s->runtime = NULL;
    return 0;
}

void summary_release(struct summary *s)
{
    free(s->stages);
    free(s->iterations);
    free(s->episodes);
    free(s->evaluated);
    ledger_versions_free(s->versions, s->n_versions);
    free(s->runtime);
}

uint64_t version_of(const struct summary *s, const char *tag)
{
    for (size_t i = 0; i < s->n_episodes; i++)
        if (s->episodes[i].stage == s->eval_stage && !strcmp(s->episodes[i].tag, tag))
            return s->episodes[i].policy_version;
    return 0;
}

/* {"a23d410": ["coordinator", "learner"], ...} */
static void write_builds(const struct run_builds *builds, struct json_writer *w)
{
    json_open(w, "builds", '{');
    for (size_t i = 0; i < builds->n; i++) {
        json_open(w, builds->items[i].name, '[');
        for (int role = 0; role < RUN_BUILD_ROLES; role++)
            if (builds->items[i].roles & 1u << role)
                json_text(w, NULL, run_build_roles[role]);
        json_close(w, ']');
    }
    json_close(w, '}');
}

void summary_write_run(const struct summary *s, struct json_writer *w)
{
    char id[24];

    json_text(w, "run", s->config->name);
    snprintf(id, sizeof id, "%016" PRIx64, s->run.id);
    json_text(w, "run_id", id);
    json_text(w, "build", GANTRY_BUILD);        /* that wrote this; that ran the run: */
    write_builds(&s->builds, w);
    json_unsigned(w, "seed", s->run.seed);
    json_text(w, "numerics", s->config->numerics == NUMERICS_STRICT ? "strict" : "fast");
    json_text(w, "suite", s->config->suite);
    json_open(w, "tasks", '[');
    for (int i = 0; i < s->config->n_tasks; i++)
        json_text(w, NULL, s->config->tasks[i]);
    json_close(w, ']');
    json_text(w, "eval_stage", s->eval ? s->config->stages[s->eval_stage].name : NULL);
    json_text(w, "eval_split", s->eval && s->eval->on_val ? "val" : "test");
    if (s->eval) {              /* states are numbered per task, the same numbers for every policy */
        json_open(w, "eval_seeds", '[');
        json_signed(w, NULL, s->eval->first_state);
        json_signed(w, NULL, s->eval->first_state + (s->eval->episodes + s->config->n_tasks - 1) / s->config->n_tasks - 1);
        json_close(w, ']');
    }
}

/* Success on val at the temperature that is best there. NaN: not played. */
static double best_on_val(const struct summary *s, const char *policy)
{
    char tag[TAG_SIZE];
    double best = NAN;

    for (int i = 0; i < s->eval->n_temperatures; i++) {
        policy_tag("val", policy, s->eval->temperatures[i], tag);
        best = fmax(best, success_of(s, tag));
    }
    return best;
}

/* Was imitation at its plateau? Asked when the policy `sft-earlier` (the end of the sft stage before the last, its learning rate
 * come down as well) is evaluated beside `sft`: what the last stage's steps brought on val, over all temperatures. */
int summary_write_plateau(const struct summary *s, struct json_writer *w)
{
    struct paired gain;
    double steps = 0, last = 0;
    int r;

    for (int i = 0; i < s->config->n_stages; i++)
        if (s->config->stages[i].kind == STAGE_SFT)
            steps += last = s->config->stages[i].sft.steps;
    if (steps <= 0)
        return 0;
    r = compare_on_val(s, "sft", "sft-earlier", &gain);
    if (r < 0 && r != -ENODATA)
        return r;
    json_open(w, "sft_plateau", '{');
    json_bool(w, "checked", r == 0);
    json_number(w, "steps", steps);
    if (r == 0) {
        json_number(w, "earlier_steps", steps - last);
        json_number(w, "success_val", best_on_val(s, "sft"));
        json_number(w, "earlier_success_val", best_on_val(s, "sft-earlier"));
        json_number(w, "gain", gain.mean);
        json_interval(w, "gain_interval95", gain.low, gain.high);
        json_signed(w, "states", gain.pairs);
        json_bool(w, "at_plateau", gain.mean < 0.03);
    }
    json_close(w, '}');
    return 0;
}

static void write_stages(const struct summary *s, struct json_writer *w)
{
    double total = 0;

    json_open(w, "wall_s", '{');
    for (size_t i = 0; i < s->n_stages; i++) {
        json_number(w, s->stages[i].name, s->stages[i].wall_s);
        total += s->stages[i].wall_s;
    }
    json_close(w, '}');
    json_number(w, "wall_total_s", total);
}

/* Environment steps of each stage over its wall time: played, scored, journaled and, in rl, trained. */
static void write_rates(const struct summary *s, struct json_writer *w)
{
    json_open(w, "env_steps_per_s", '{');
    for (size_t i = 0; i < s->n_stages; i++) {
        uint64_t steps = 0;

        for (size_t k = 0; k < s->n_episodes; k++)
            if (s->episodes[k].stage == s->stages[i].stage)
                steps += s->episodes[k].steps;
        if (steps && s->stages[i].wall_s > 0)
            json_number(w, s->stages[i].name, (double)steps / s->stages[i].wall_s);
    }
    json_close(w, '}');
}

void summary_write_cost(const struct summary *s, struct json_writer *w)
{
    size_t rl = 0, ends[EPISODE_FAILED + 1] = {0};
    uint64_t steps = 0;

    for (size_t i = 0; i < s->n_iterations; i++)
        rl += s->iterations[i].purpose == EPISODE_TRAIN && s->iterations[i].state == PROGRESS_DONE;
    for (size_t i = 0; i < s->n_episodes; i++) {
        ends[s->episodes[i].state]++;
        steps += s->episodes[i].steps;
    }
    json_unsigned(w, "iterations", rl);
    json_open(w, "episodes", '{');
    for (int i = 0; i <= EPISODE_FAILED; i++)
        json_unsigned(w, episode_state_name((enum episode_state)i), ends[i]);
    json_close(w, '}');
    json_unsigned(w, "env_steps", steps);
    json_unsigned(w, "versions", s->n_versions);
    json_unsigned(w, "coordinator_starts", s->run.epoch);
    write_stages(s, w);
    write_rates(s, w);
    if (s->runtime)
        strbuf_addf(w->out, ",%s", s->runtime);
}
