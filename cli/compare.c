#include "cli/compare.h"

#include <errno.h>
#include <math.h>

#include "cli/json_at.h"
#include "cli/run_open.h"
#include "coordinator/summary.h"
#include "proto/control.pb-c.h"
#include "run/rundir.h"

/* ---- reading ----------------------------------------------------------------------------------------------------------- */

/* summary.json may have been written before the run was over. */
static int make_summary(struct ledger *ledger, struct compared *run, struct error *error)
{
    _cleanup_(strbuf_release) struct strbuf text = STRBUF_INIT;
    int r = summary_make(ledger, run->config, &text, error);

    if (r < 0)
        return r;
    run->data.summary = json_loads(text.text, 0, NULL);
    return run->data.summary ? 0 : error_set(error, ENOMEM, "%s: out of memory", run->dir);
}

static int load(const char *dir, struct compared *ret, struct error *error)
{
    _cleanup_(ledger_closep) struct ledger *ledger = NULL;
    char path[RUN_PATH];
    int r = rundir_path(dir, "config.yaml", path, error);

    *ret = (struct compared){.dir = dir, .config = malloc(sizeof *ret->config)};
    if (!ret->config)
        return error_set(error, ENOMEM, "out of memory");
    if (r == 0)
        r = run_config_load(path, ret->config, error);
    if (r == 0)
        r = run_open_ledger(dir, &ledger, error);
    if (r < 0)
        return r;
    if ((r = report_data_read(ledger, &ret->data)) < 0 || (r = run_stages_of(ledger, ret->config, &ret->stages)) < 0)
        return error_set(error, -r, "%s/ledger.sqlite: %s", dir, ledger_error(ledger));
    return make_summary(ledger, ret, error);
}

/* ---- what was tested --------------------------------------------------------------------------------------------------- */

json_t *compared_policies(const struct compared *run) { return json_object_get(run->data.summary, "policies"); }

bool compared_test(const struct compared *run, const char *policy, struct compared_test *ret)
{
    json_t *tested = json_object_get(compared_policies(run), policy);

    if (!tested)
        return false;
    *ret = (struct compared_test){.success = number_at(tested, "success"),
                                  .low = NAN,
                                  .high = NAN,
                                  .temperature = number_at(tested, "temperature"),
                                  .episodes = (int)number_at(tested, "episodes")};
    (void)interval_at(tested, "interval95", &ret->low, &ret->high);
    return true;
}

/* The eval stage that the summary tells of; NULL: none. */
static const struct stage_config *tested_stage(const struct compared *run, uint32_t *ret_number)
{
    const char *name = text_at(run->data.summary, "eval_stage");

    for (int i = 0; i < run->config->n_stages; i++)
        if (!strcmp(run->config->stages[i].name, name)) {
            *ret_number = (uint32_t)i;
            return &run->config->stages[i];
        }
    return NULL;
}

int compared_by_state(const void *a, const void *b)
{
    const struct ledger_episode *x = *(const struct ledger_episode *const *)a, *y = *(const struct ledger_episode *const *)b;
    int r = strcmp(x->task, y->task);

    return r ? r : (x->state_seed > y->state_seed) - (x->state_seed < y->state_seed);
}

int compared_rows(const struct compared *run, const char *policy, const struct ledger_episode ***ret)
{
    const struct ledger_episode **rows = calloc(run->data.n_episodes + 1, sizeof *rows);
    char tag[sizeof((struct ledger_episode *)0)->tag];
    struct compared_test test;
    uint32_t stage;
    int n = 0;

    if (!rows)
        return -ENOMEM;
    *ret = rows;
    if (!compared_test(run, policy, &test) || !tested_stage(run, &stage))
        return 0;
    if (isnan(test.temperature))
        snprintf(tag, sizeof tag, "test %s", policy);
    else
        snprintf(tag, sizeof tag, "test %s t=%.3g", policy, (double)(float)test.temperature);
    for (size_t i = 0; i < run->data.n_episodes; i++) {
        const struct ledger_episode *e = &run->data.episodes[i];

        if (e->state == EPISODE_EVALUATED && e->stage == stage && !strcmp(e->tag, tag))
            rows[n++] = e;
    }
    qsort(rows, (size_t)n, sizeof *rows, compared_by_state);
    return n;
}

bool compared_same_states(const struct compared *a, const struct compared *b)
{
    uint32_t number_a, number_b;
    const struct stage_config *x = tested_stage(a, &number_a), *y = tested_stage(b, &number_b);

    return x && y && !strcmp(a->config->suite, b->config->suite) && !strcmp(a->config->remote, b->config->remote) &&
           x->eval.on_val == y->eval.on_val && !strcmp(x->eval.perturb, y->eval.perturb);
}

static int pair(const struct compared *first, const char *policy, struct compared *run)
{
    _cleanup_free_ const struct ledger_episode **a = NULL, **b = NULL;
    _cleanup_free_ double *before = NULL, *after = NULL;
    int n_a, n_b = 0, n = 0, r;

    if (!compared_same_states(first, run))
        return 0;
    if ((n_a = compared_rows(first, policy, &a)) < 0 || (n_b = compared_rows(run, policy, &b)) < 0)
        return -ENOMEM;
    before = calloc((size_t)n_a + 1, sizeof *before);
    after = calloc((size_t)n_a + 1, sizeof *after);
    if (!before || !after)
        return -ENOMEM;
    for (int i = 0, k = 0; i < n_a && k < n_b;) {
        int order = compared_by_state(&a[i], &b[k]);

        if (order == 0) {
            before[n] = a[i]->success;
            after[n++] = b[k]->success;
        }
        i += order <= 0;
        k += order >= 0;
    }
    r = paired_compare(after, before, n, first->config->seed, &run->over);
    return r == -ENODATA ? 0 : r;
}

int comparison_load(const char *const *dirs, int n, const char *policy, struct comparison *ret, struct error *error)
{
    struct comparison c = {.policy = policy, .n = n};
    int r = 0;

    for (int i = 0; i < n && r == 0; i++)
        r = load(dirs[i], &c.runs[i], error);
    for (int i = 1; i < n && r == 0; i++)
        if ((r = pair(&c.runs[0], policy, &c.runs[i])) < 0)
            r = error_set(error, -r, "%s: its test cannot be compared: %s", dirs[i], strerror(-r));
    if (r == 0 && (r = comparison_find_arms(&c)) < 0)
        r = error_set(error, -r, "out of memory");
    if (r == 0 && n > COMPARE_COLUMNS && c.n_arms > COMPARE_COLUMNS)
        r = error_set(error, E2BIG, "these are %d runs of %d different configurations; beside one another go %d runs, or so many "
                      "configurations with seeds of each", n, c.n_arms, COMPARE_COLUMNS);
    if (r < 0)
        comparison_release(&c);
    else
        *ret = c;
    return r;
}

int comparison_has_policy(const struct comparison *c, struct error *error)
{
    _cleanup_(strbuf_release) struct strbuf names = STRBUF_INIT;
    json_t *policies = compared_policies(&c->runs[0]), *value;
    const char *name;

    if (json_object_get(policies, c->policy))
        return 0;
    json_object_foreach(policies, name, value)
        strbuf_addf(&names, "%s%s", names.length ? ", " : "", name);
    return error_set(error, ENOENT, "%s: its own eval stage has not tested %s; it has tested %s", c->runs[0].dir, c->policy,
                     names.length ? names.text : "nothing yet");
}

void comparison_release(struct comparison *c)
{
    for (int i = 0; i < c->n; i++) {
        report_data_release(&c->runs[i].data);
        free(c->runs[i].config);
        c->runs[i].config = NULL;
    }
}
