#include "tests/harness/journal_lab.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/atomic_file.h"

struct journal_lab journals;

int journal_lab_set_up(void **state)
{
    (void)state;
    scratch_new(journals.dir);
    return 0;
}

int journal_lab_tear_down(void **state)
{
    (void)state;
    return remove_tree(journals.dir);
}

const char *journal_lab_in(const char *folder, const char *name)
{
    static char path[4][SCRATCH_PATH + 48];
    static int turn;

    turn = (turn + 1) % 4;
    snprintf(path[turn], sizeof path[0], "%s/%s%s%s", journals.dir, folder, folder[0] ? "/" : "", name);
    return path[turn];
}

struct journal *journal_lab_open(const char *folder, uint64_t run, enum journal_mode mode)
{
    struct journal *journal;

    if (journal_open(journal_lab_in(folder, ""), run, mode, &journal, NULL, &journals.error) < 0)
        fail_msg("%s", journals.error.text);
    return journal;
}

void journal_lab_append(struct journal *journal, uint64_t episode, const char *meta)
{
    uint8_t digest[SHA256_SIZE];

    if (journal_append(journal, episode, meta, strlen(meta), "frames", 6, digest, &journals.error) < 0)
        fail_msg("%s", journals.error.text);
}
