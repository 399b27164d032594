#include "cli/run_stages.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "cli/run_open.h"

struct stop { char *text; size_t size; };

static int note_stop(const struct ledger_event *event, void *arg)
{
    const struct stop *stop = arg;

    if (!strcmp(event->kind, "stopped"))
        snprintf(stop->text, stop->size, "%s", event->text);
    else if (!strcmp(event->kind, "start"))     /* another life: it may do better */
        stop->text[0] = 0;
    return 0;
}

int run_stopped(struct ledger *ledger, char *ret, size_t size)
{
    char why[sizeof ((struct ledger_event *)0)->text] = "";
    struct stop stop = {why, sizeof why};
    int r = ledger_each_event(ledger, 0, note_stop, &stop);

    if (r == 0)
        snprintf(ret, size, "%s", why);
    return r;
}

static void count(const struct ledger_stage *stage, struct run_stages *stages)
{
    bool done = stage->state == PROGRESS_DONE;

    if (stage->stage >= (uint32_t)stages->of) {
        stages->later++;
        stages->later_open += !done;
        return;
    }
    stages->done += done;
    if (!done && !stages->next[0])
        snprintf(stages->next, sizeof stages->next, "%s", stage->name);
}

int run_stages_of(struct ledger *ledger, const struct run_config *config, struct run_stages *ret)
{
    _cleanup_free_ struct ledger_stage *rows = NULL;
    struct run_stages stages = {.of = config->n_stages};
    size_t n = 0;
    int r;

    if ((r = ledger_stages(ledger, &rows, &n)) < 0 || (r = run_stopped(ledger, stages.stopped, sizeof stages.stopped)) < 0)
        return r;
    for (size_t i = 0; i < n; i++)
        count(&rows[i], &stages);
    *ret = stages;
    return 0;
}

int run_stages_read(const char *run_dir, const struct run_config *config, struct run_stages *ret, struct error *error)
{
    _cleanup_(ledger_closep) struct ledger *ledger = NULL;
    int r = run_open_ledger(run_dir, &ledger, error);

    if (r == 0 && (r = run_stages_of(ledger, config, ret)) < 0)
        return error_set(error, -r, "%s/ledger.sqlite: %s", run_dir, ledger_error(ledger));
    return r;
}

bool run_stages_all(const struct run_stages *stages) { return stages->done == stages->of; }
