/* eval_seen.c - which of the states that are asked for the run has looked at itself. Its figures of these are there already, or
 * settings were chosen by them; played again by the same policy at the same temperature they end the same. */
#include <stdio.h>

#include "cli/eval.h"

/* States by their numbers; of none, last < first. */
struct range {
    int first, last;
};

static struct range of_episodes(const struct run_config *c, int first, int episodes)
{
    return (struct range){first, first + (episodes + c->n_tasks - 1) / c->n_tasks - 1};
}

static struct range join(struct range a, struct range b)
{
    if (a.last < a.first || b.last < b.first)
        return a.last < a.first ? b : a;
    return (struct range){MIN(a.first, b.first), MAX(a.last, b.last)};
}

/* What a stage plays of the split, as stage_plan.c deals it out. Where it plays two stretches what lies between them counts. */
static struct range looked_at(const struct run_config *c, const struct stage_config *stage, bool val)
{
    const struct eval_config *eval = &stage->eval;
    struct range all = {0, -1};

    if (stage->kind == STAGE_RL && val && stage->rl.eval_every)
        return of_episodes(c, 0, stage->rl.eval_episodes);
    if (stage->kind != STAGE_EVAL)
        return all;
    if (val && !eval->n_at)
        all = of_episodes(c, 0, eval->val_episodes);
    if (val != eval->on_val)
        return all;
    all = join(all, of_episodes(c, eval->first_state, eval->episodes));
    return eval_searches(eval) ? join(all, of_episodes(c, eval->first_state, eval->search_episodes)) : all;
}

/* What of the states asked for stage i of the run has looked at, and all that it has. */
static bool overlaps(const struct eval *eval, int i, struct range *ret, struct range *ret_all)
{
    *ret_all = looked_at(&eval->config, &eval->config.stages[i], eval->ask->stage.on_val);
    *ret = (struct range){MAX(ret_all->first, eval->ask->first), MIN(ret_all->last, eval->ask->last)};
    return ret->first <= ret->last;
}

void eval_say_seen(const struct eval *eval)
{
    const char *split = eval->ask->stage.on_val ? "val" : "test";
    int states = eval->ask->stage.on_val ? 0 : run_config_test_states(&eval->config), fresh = 0;
    struct range seen, all;
    char remedy[64];

    for (int i = 0; i < eval->config.n_stages; i++) {
        (void)overlaps(eval, i, &seen, &all);
        fresh = MAX(fresh, all.last + 1);
    }
    if (states && fresh >= states)
        snprintf(remedy, sizeof remedy, "the suite has no others above them");
    else
        snprintf(remedy, sizeof remedy, "fresh ones begin at %d", fresh);
    for (int i = 0; i < eval->config.n_stages; i++)
        if (overlaps(eval, i, &seen, &all))
            fprintf(stderr,
                    "note: %s: --seeds %d..%d are %s states that the run itself has looked at (%d..%d, by its stages[%d].%s); "
                    "%s\n",
                    eval->run_dir, seen.first, seen.last, split, all.first, all.last, i,
                    stage_kind_name(eval->config.stages[i].kind), remedy);
}

void eval_write_seen(const struct eval *eval, struct json_writer *w)
{
    struct range seen, all;

    json_open(w, "seen_by_run", '[');
    for (int i = 0; i < eval->config.n_stages; i++)
        if (overlaps(eval, i, &seen, &all)) {
            json_open(w, NULL, '{');
            json_signed(w, "stage", i);
            json_signed(w, "first_seed", seen.first);
            json_signed(w, "last_seed", seen.last);
            json_close(w, '}');
        }
    json_close(w, ']');
}
