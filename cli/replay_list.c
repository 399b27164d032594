#include "cli/replay_list.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

static const char *pass_of(const struct ledger_episode *e, const struct ledger_iteration *passes, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (passes[i].stage == e->stage && passes[i].iteration == e->iteration)
            return passes[i].name;
    return "-";
}

int replay_list(struct ledger *ledger, struct journal *journal)
{
    _cleanup_free_ struct ledger_iteration *passes = NULL;
    _cleanup_free_ struct ledger_episode *episodes = NULL;
    struct journal_entry entry;
    size_t n_passes = 0, n = 0, held = 0;
    int r = ledger_iterations(ledger, &passes, &n_passes);

    if (r == 0)
        r = ledger_episodes(ledger, LEDGER_ALL, LEDGER_ALL, &episodes, &n);
    if (r < 0)
        return r;
    printf("%8s  %-20s  %-28s  %8s  %6s  %-9s  %5s\n", "episode", "pass", "task", "state", "policy", "end", "steps");
    for (size_t i = 0; i < n; i++) {
        const struct ledger_episode *e = &episodes[i];

        if (journal_find(journal, e->episode, &entry) < 0)
            continue;
        held++;
        printf("%8" PRIu64 "  %-20s  %-28s  %8" PRIu64 "  %6" PRIu64 "  %-9s  %5u\n", e->episode,
               pass_of(e, passes, n_passes), e->task, e->state_seed, e->policy_version, e->success ? "success" :
               e->timeout ? "timeout" : "failure", e->steps);
    }
    printf("%zu of %zu episodes; journal.keep says of how many iterations those of rl stay\n", held, n);
    return 0;
}
