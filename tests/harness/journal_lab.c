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

enum { META = 64, FRAMES = 3 * 8 * 8 * 3 };

static void contents(uint64_t episode, char meta[META], uint8_t frames[FRAMES])
{
    memset(meta, 0, META);
    snprintf(meta, META, "trajectory of episode %d, verbatim", (int)episode);
    for (int i = 0; i < FRAMES; i++)
        frames[i] = (uint8_t)(i * (int)episode % 251);
}

int journal_lab_put(struct journal *journal, uint64_t episode)
{
    uint8_t frames[FRAMES], digest[SHA256_SIZE];
    char meta[META];

    contents(episode, meta, frames);
    return journal_append(journal, episode, meta, sizeof meta, frames, sizeof frames, digest, &journals.error);
}

void journal_lab_expect(struct journal *journal, uint64_t episode)
{
    uint8_t frames[FRAMES], *got_meta, *got_frames;
    size_t n_meta, n_frames;
    struct error why;
    char meta[META];

    contents(episode, meta, frames);
    if (journal_load(journal, episode, &got_meta, &n_meta, &got_frames, &n_frames, &why) < 0)
        fail_msg("%s", why.text);
    assert_int_equal(n_meta, sizeof meta);
    assert_memory_equal(got_meta, meta, n_meta);
    assert_int_equal(n_frames, FRAMES);
    assert_memory_equal(got_frames, frames, FRAMES);
    free(got_meta);
    free(got_frames);
}

void journal_lab_write_three(bool seal)
{
    struct journal *journal = journal_lab_open("", RUN, JOURNAL_WRITE);

    assert_int_equal(journal_segment(journal, 4, 12, &journals.error), 0);
    for (uint64_t episode = 3; episode >= 1; episode--) {
        assert_int_equal(journal_lab_put(journal, episode), 0);
        assert_int_equal(journal_sync(journal, &journals.error), 0);
    }
    if (seal)
        assert_int_equal(journal_seal(journal, 4, 12, &journals.error), 0);
    journal_close(journal);
}
