#include "tests/harness/ledger_lab.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "base/atomic_file.h"
#include "base/fault.h"

struct ledger_lab ledger_lab;

int ledger_lab_set_up(void **state)
{
    (void)state;
    ledger_lab = (struct ledger_lab) {.run = {.id = 0x1234, .seed = 7, .config_digest = {9}, .created_ms = 1}};
    scratch_new(ledger_lab.dir);
    snprintf(ledger_lab.path, sizeof ledger_lab.path, "%s/ledger.sqlite", ledger_lab.dir);
    return fault_arm("");
}

int ledger_lab_tear_down(void **state)
{
    (void)state;
    (void)fault_arm("");
    return remove_tree(ledger_lab.dir);
}

struct ledger *ledger_lab_open(void)
{
    struct ledger *ledger;
    struct error error;

    if (ledger_open(ledger_lab.path, &ledger_lab.run, &ledger, &error) < 0)
        fail_msg("%s", error.text);
    return ledger;
}

struct ledger_episode ledger_lab_row(uint64_t id)
{
    return (struct ledger_episode){
        .episode = id,
        .stage = 4,
        .iteration = 2,
        .purpose = 3,
        .split = 1,
        .task = "open_drawer",
        .state_seed = UINT64_MAX - id,
        .policy_version = 12,
        .prm_version = 3,
        .temperature = 0.6f,
        .search_n = 4,
        .max_steps = 22,
        .sample_key = id,
        .tag = "val",
    };
}

struct ledger_episode ledger_lab_played(uint64_t id)
{
    struct ledger_episode e = ledger_lab_row(id);

    e.success = true;
    e.steps = 17;
    e.member = 2;
    e.reward = 1.5f;
    e.progress_end = 0.75f;
    memset(e.digest, (int)id, sizeof e.digest);
    return e;
}

void ledger_lab_add_rows(struct ledger *ledger, uint64_t first, int n)
{
    assert_int_equal(ledger_begin(ledger), 0);
    for (int i = 0; i < n; i++) {
        struct ledger_episode e = ledger_lab_row(first + (uint64_t)i);

        assert_int_equal(ledger_add_episode(ledger, &e), 0);
    }
    assert_int_equal(ledger_commit(ledger), 0);
}
