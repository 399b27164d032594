#include "cli/run_open.h"
#include "cli/shell_word.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "coordinator/stage_plan.h"
#include "run/ledger_copy.h"
#include "run/manifest.h"
#include "run/rundir.h"

int run_open_ledger(const char *run_dir, struct ledger **ret, struct error *error)
{
    char path[RUN_PATH];
    int r = rundir_path(run_dir, "ledger.sqlite", path, error);

    if (r == 0)
        r = ledger_open_to_read(path, ret, error);
    if (r == -EBUSY) {      /* the coordinator's, exclusively */
        _cleanup_free_ char *where = shell_word(run_dir);

        return error_set(error, EBUSY,
                         "%s: the run is up and holds its ledger; ask again when it has ended, or after gantry drain %s",
                         run_dir, where ?: run_dir);
    }
    return r;
}

int run_open_journal(const char *run_dir, uint64_t run, struct journal **ret, struct error *error)
{
    char path[RUN_PATH];
    int r = rundir_path(run_dir, "journal", path, error);

    return r < 0 ? r : journal_open(path, run, JOURNAL_READ, ret, NULL, error);
}

static int newest_policy(const char *run_dir, uint64_t *ret, struct error *error)
{
    _cleanup_free_ uint64_t *numbers = NULL;
    size_t n = 0;
    int r = version_list(run_dir, KIND_POLICY, &numbers, &n);

    if (r < 0 || n == 0)
        return error_set(error, r < 0 ? -r : ENOENT, "%s: no policy version", run_dir);
    *ret = numbers[n - 1];
    return 0;
}

int run_named_policy(const char *run_dir, const char *name, uint64_t *ret, struct error *error)
{
    _cleanup_(ledger_closep) struct ledger *ledger = NULL;
    _cleanup_free_ void *text = NULL;
    struct plan_memory memory;
    size_t n = 0;
    int r;

    if (!strcmp(name, "last"))
        return newest_policy(run_dir, ret, error);
    if ((r = run_open_ledger(run_dir, &ledger, error)) < 0)
        return r;
    plan_memory_init(&memory);
    r = ledger_get_blob(ledger, "memory", &text, &n);
    if (r < 0 && r != -ENOENT)
        return error_set(error, -r, "%s/ledger.sqlite: %s", run_dir, ledger_error(ledger));
    if (r == 0 && (r = plan_memory_parse(text, n, &memory, error)) < 0)
        return r;
    if (!strcmp(name, "sft") && memory.sft_version)
        *ret = memory.sft_version;
    else if (!strcmp(name, "best") && memory.have_best)
        *ret = memory.best_version;
    else if (!strcmp(name, "sft"))
        return error_set(error, ENOENT, "%s: no imitation has ended in it yet, so there is no sft", run_dir);
    else if (!strcmp(name, "best"))
        return error_set(error, ENOENT, "%s: no version of it was tried on val states (rl.eval_every), so there is no best: name a "
                         "number", run_dir);
    else
        return error_set(error, ENOENT, "%s: no version is called %s; there are sft, best, last and numbers", run_dir, name);
    return 0;
}
