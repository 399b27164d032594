/* Thousands of seeded damages to a real journal and a real version: what is read back is what was written, or the file is
 * refused by name. CORRUPTIONS=1000000 is the long form, CORRUPTION_SEED another sequence. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/atomic_file.h"
#include "base/philox.h"
#include "tests/harness/damage.h"
#include "run/journal.h"
#include "run/journal_segment.h"
#include "run/manifest.h"
#include "run/rundir.h"
#include "serve/policy_version.h"
#include "tests/harness/scratch.h"

enum { STAGE = 4, SEGMENTS = 3, RECORDS = 6, OPEN = SEGMENTS - 1, META = 64, FRAMES = 768, VERSION_FILES = 3 };
enum { RUNS = 2 };              /* run 0 is damaged, run 1 has the same shape and other bytes */
enum outcome { REFUSED, REPAIRED, PARTLY, WHOLE, OUTCOMES };

struct file {
    char path[VERSION_PATH + 32];
    char name[32];              /* what an error must say */
    char *bytes;
    size_t size, marks[RECORDS + 2], n_marks;       /* where its parts begin, and its end */
};

static char root[SCRATCH_PATH], journals[RUNS][96], folders[RUNS][VERSION_PATH];
static struct file segments[RUNS][SEGMENTS], files[RUNS][VERSION_FILES];
static uint8_t digests[RUNS][SHA256_SIZE];
static size_t table[DAMAGES][OUTCOMES];
static struct error error, notice;
static uint64_t current;         /* the damage under test: a failure names it */

static uint64_t number_from(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);

    return text && *text ? strtoull(text, NULL, 10) : otherwise;
}

static uint64_t run_id(int run) { return 0xfeed0000u + (unsigned)run; }
static uint64_t episode_of(int segment, int record) { return (uint64_t)(100 + 10 * segment + record); }

/* Neighbours have the same size, so that a whole record may take another's place. */
static void contents(int run, uint64_t episode, uint8_t meta[META], size_t *n_meta, uint8_t frames[FRAMES], size_t *n_frames)
{
    struct philox p = philox_at(1, PHILOX_TEST, run_id(run), (uint32_t)episode, 0);

    *n_meta = META - 8 * (episode % 10 / 2);
    *n_frames = FRAMES - 192 * (episode % 10 / 2);
    for (size_t i = 0; i < *n_meta; i++)
        meta[i] = (uint8_t)philox_u32(&p);
    for (size_t i = 0; i < *n_frames; i++)
        frames[i] = (uint8_t)philox_u32(&p);
}

static void read_file(struct file *file, const char *dir, const char *name)
{
    snprintf(file->path, sizeof file->path, "%s/%s", dir, name);
    snprintf(file->name, sizeof file->name, "%s", name);
    assert_int_equal(file_read(file->path, 1 << 20, &file->bytes, &file->size), 0);
}

static void write_bytes(const char *path, const void *bytes, size_t n)
{
    _cleanup_close_ int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes, n), n);
}

/* Two sealed segments and an open one whose last two records were never synced. */
static void make_journal(int run)
{
    uint8_t meta[META], frames[FRAMES], digest[SHA256_SIZE];
    struct journal *j;
    size_t n_meta, n_frames;

    snprintf(journals[run], sizeof journals[run], "%s/%d/journal", root, run);
    assert_int_equal(journal_open(journals[run], run_id(run), JOURNAL_WRITE, &j, NULL, &error), 0);
    for (int s = 0; s < SEGMENTS; s++) {
        char name[32];

        assert_int_equal(journal_segment(j, STAGE, (uint32_t)s, &error), 0);
        for (int i = 0; i < RECORDS; i++) {
            contents(run, episode_of(s, i), meta, &n_meta, frames, &n_frames);
            assert_int_equal(journal_append(j, episode_of(s, i), meta, n_meta, frames, n_frames, digest, &error), 0);
            if (s != OPEN || i < RECORDS - 2)
                assert_int_equal(journal_sync(j, &error), 0);
        }
        if (s != OPEN)
            assert_int_equal(journal_seal(j, STAGE, (uint32_t)s, &error), 0);
        snprintf(name, sizeof name, "%04d-%06d.%s", STAGE, s, s == OPEN ? "open" : "seg");
        read_file(&segments[run][s], journals[run], name);
        snprintf(strchr(segments[run][s].name, '.'), 2, "%s", "");     /* two files of one number: named without the ending */
        for (int i = 0; i < RECORDS; i++) {
            struct journal_entry entry;

            assert_int_equal(journal_find(j, episode_of(s, i), &entry), 0);
            segments[run][s].marks[i] = entry.offset;
            segments[run][s].marks[i + 1] = entry.offset + sizeof(struct journal_header) + entry.meta_size + entry.packed_size;
        }
        segments[run][s].marks[RECORDS + 1] = segments[run][s].size;
        segments[run][s].n_marks = RECORDS + 2;
    }
    journal_close(j);
}

static void make_version(int run)
{
    static const char *const names[VERSION_FILES] = {"manifest.json", "config.json", "model.safetensors"};
    struct manifest m = {.run = run_id(run), .number = 12, .parent = 11, .stage = STAGE};
    struct philox p = philox_at(2, PHILOX_TEST, run_id(run), 0, 0);
    char temporary[VERSION_PATH], path[VERSION_PATH + 32], run_dir[96];
    uint8_t weights[2000];

    snprintf(run_dir, sizeof run_dir, "%s/%d", root, run);
    assert_int_equal(rundir_prepare(run_dir, &error), 0);
    assert_int_equal(version_begin(run_dir, 0, 12, temporary, &error), 0);
    for (size_t i = 0; i < sizeof weights; i++)
        weights[i] = (uint8_t)philox_u32(&p);
    snprintf(path, sizeof path, "%s/model.safetensors", temporary);
    write_bytes(path, weights, sizeof weights);
    snprintf(path, sizeof path, "%s/config.json", temporary);
    write_bytes(path, run ? "{\"width\": 65}" : "{\"width\": 64}", 13);
    m.consumed = calloc(RECORDS, sizeof *m.consumed);
    for (m.n_consumed = 0; m.n_consumed < RECORDS; m.n_consumed++)
        m.consumed[m.n_consumed] = (struct manifest_episode) {.episode = episode_of(0, (int)m.n_consumed),
                                                                 .digest = {(uint8_t)run}};
    assert_int_equal(version_commit(run_dir, temporary, &m, &error), 0);
    memcpy(digests[run], m.digest, SHA256_SIZE);
    manifest_release(&m);
    assert_int_equal(version_path(run_dir, 0, 12, folders[run]), 0);
    for (int i = 0; i < VERSION_FILES; i++) {
        read_file(&files[run][i], folders[run], names[i]);
        files[run][i].marks[files[run][i].n_marks++] = files[run][i].size;
    }
}

static int setup(void **state)
{
    (void)state;        /* in memory where there is such a place: the long form writes a million files */
    scratch_new_in_memory(root);
    for (int run = 0; run < RUNS; run++) {
        make_version(run);
        make_journal(run);
    }
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    print_message("the last damage was number %zu\n", (size_t)current);
    for (int run = 0; run < RUNS; run++) {
        for (int i = 0; i < SEGMENTS; i++)
            free(segments[run][i].bytes);
        for (int i = 0; i < VERSION_FILES; i++)
            free(files[run][i].bytes);
    }
    return remove_tree(root);
}

static struct damage_file as_target(const struct file *f)
{
    return (struct damage_file) {.bytes = f->bytes, .size = f->size, .marks = f->marks, .n_marks = f->n_marks};
}

static const struct damage_file *stranger(struct philox *p)
{
    static struct damage_file other;

    other = as_target(philox_below(p, 4) ? &segments[philox_below(p, RUNS)][philox_below(p, SEGMENTS)] : &files[1][0]);
    return &other;
}

/* A damaged copy of `file`, a file of run 0; *ret_n its size. */
static void damage(struct philox *p, enum damage kind, const struct file *file, char *copy, size_t *ret_n)
{
    bool journal = file >= segments[0] && file < segments[0] + SEGMENTS;
    struct damage_file target = as_target(file),
                       twin = as_target(journal ? &segments[1][file - segments[0]] : &files[1][file - files[0]]);

    while (!damage_draw(p, kind, &target, &twin, stranger, copy, ret_n))
        ;
}

static bool same(const struct file *file, const char *copy, size_t n, size_t from, size_t to)
{
    return to <= n && !memcmp(copy + from, file->bytes + from, to - from);
}

/* Only the open segment may lose records, only from its first damage on, and not when a header behind says they were durable. */
static void assert_may_be_cut(int s, int record, const struct file *file, const char *copy, size_t n)
{
    bool damaged = false;

    assert_int_equal(s, OPEN);
    for (int i = 0; i <= record; i++)
        damaged |= !same(file, copy, n, file->marks[i], file->marks[i + 1]);
    assert_true(damaged || !same(file, copy, n, 0, file->marks[0]));
    for (int i = record + 1; i < RECORDS; i++) {
        struct journal_header header;

        memcpy(&header, file->bytes + file->marks[i], sizeof header);
        assert_false(same(file, copy, n, file->marks[i], file->marks[i] + sizeof header) && header.durable > file->marks[record]);
    }
    for (int i = 0; i <= record; i++)
        if (n == file->marks[i] || n == 0)
            return;             /* the file ends where a record did: nothing to cut, only the ledger misses what came behind */
    assert_int_equal(notice.errnum, EUCLEAN);
    assert_non_null(strstr(notice.text, file->path));
}

/* 1: read back as written; 0: it is not there; -EBADMSG: refused by name. */
static int read_record(struct journal *j, uint64_t episode, const struct file *file)
{
    uint8_t meta[META], frames[FRAMES];
    _cleanup_free_ uint8_t *got_meta = NULL, *got_frames = NULL;
    size_t n_meta, n_frames, n_got, n_got_frames;
    int r = journal_load(j, episode, &got_meta, &n_got, &got_frames, &n_got_frames, &error);

    if (r == -ENOENT)
        return 0;
    if (r < 0) {
        assert_int_equal(r, -EBADMSG);
        assert_non_null(strstr(error.text, file->path));
        return r;
    }
    contents(0, episode, meta, &n_meta, frames, &n_frames);
    assert_int_equal(n_got, n_meta);
    assert_memory_equal(got_meta, meta, n_meta);
    assert_int_equal(n_got_frames, n_frames);
    assert_memory_equal(got_frames, frames, n_frames);
    return 1;
}

static enum outcome read_journal(const struct file *file, const char *copy, size_t n)
{
    _cleanup_(journal_closep) struct journal *j = NULL;
    _cleanup_free_ struct journal_entry *entries = NULL;
    size_t listed, found = 0, read = 0;

    if (journal_open(journals[0], run_id(0), JOURNAL_WRITE, &j, &notice, &error) < 0) {
        assert_non_null(strstr(error.text, file->name));
        return REFUSED;
    }
    for (int s = 0; s < SEGMENTS; s++)
        for (int i = 0; i < RECORDS; i++) {
            int r = read_record(j, episode_of(s, i), &segments[0][s]);

            found += r != 0;
            read += r > 0;
            if (r < 0)
                assert_true(file == &segments[0][s] && !same(file, copy, n, file->marks[i], file->marks[i + 1]));
            else if (r == 0)
                assert_may_be_cut((int)(file - segments[0]), i, file, copy, n);
        }
    assert_int_equal(journal_list(j, JOURNAL_ALL, JOURNAL_ALL, &entries, &listed), 0);
    assert_int_equal(listed, found);        /* nothing that was never written */
    if (notice.errnum == 0)
        return read == SEGMENTS * RECORDS ? WHOLE : PARTLY;
    j = journal_close(j);                   /* what was cut stays cut, and that is all */
    assert_int_equal(journal_open(journals[0], run_id(0), JOURNAL_WRITE, &j, &notice, &error), 0);
    assert_int_equal(notice.errnum, 0);
    return REPAIRED;
}

static enum outcome read_version(const struct file *file)
{
    struct base_files *held = NULL;
    int r = version_check_manifest(folders[0], digests[0], &held, &error);

    assert_true(r < 0);
    assert_non_null(strstr(error.text, file->path));
    return REFUSED;
}

static void test_damage_is_never_believed(void **state)
{
    uint64_t count = number_from("CORRUPTIONS", 6000), seed = number_from("CORRUPTION_SEED", 7);
    struct base_files *held = NULL;
    char copy[16384];

    (void)state;
    for (uint64_t i = 0; i < count; i++) {
        struct philox p = philox_at(seed, PHILOX_TEST, i, 0, 0);
        bool journal = philox_below(&p, 4) > 0;
        const struct file *file = journal ? &segments[0][philox_below(&p, SEGMENTS)] : &files[0][philox_below(&p, VERSION_FILES)];
        enum damage kind = philox_below(&p, DAMAGES);
        size_t n;

        assert_true(file->size <= sizeof copy);
        damage(&p, kind, file, copy, &n);
        current = i;
        write_bytes(file->path, copy, n);
        table[kind][journal ? read_journal(file, copy, n) : read_version(file)]++;
        write_bytes(file->path, file->bytes, file->size);
    }
    assert_int_equal(version_check_manifest(folders[0], digests[0], &held, &error), 0);
    assert_int_equal(read_journal(&segments[0][0], segments[0][0].bytes, segments[0][0].size), WHOLE);
    print_message("%-14s %9s %9s %9s %9s   (seed %d)\n", "", "refused", "repaired", "in part", "whole", (int)seed);
    for (int k = 0; k < DAMAGES; k++)
        print_message("%-14s %9zu %9zu %9zu %9zu\n", damage_name(k), table[k][REFUSED], table[k][REPAIRED], table[k][PARTLY],
                      table[k][WHOLE]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test_setup_teardown(test_damage_is_never_believed, setup, teardown)};

    return cmocka_run_group_tests_name("corruption", tests, NULL, NULL);
}
