/* Power is cut after every write, fsync, rename and other change that ledger, journal and versions make, and the disk keeps only
 * what POSIX promises (tests/harness/power_disk.h). What is opened then must be whole, must have everything that was
 * acknowledged, and must go on to the end with every episode trained once.
 *
 * The lives of the run (tests/harness/power_run.h) end as by kill -9 now and then, so that what one process left unsynced is what
 * the next one finds.
 * POWER_RUNS=30 POWER_SEEDS=5 POWER_RESUMES=1 is the long form: so many runs, random disks for each place, and each goes on to
 * the end. 16 ms CPU a cut, 5,400 cuts a run: 43 minutes of a core that is free. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/atomic_file.h"
#include "base/philox.h"
#include "run/history.h"
#include "run/journal.h"
#include "run/manifest.h"
#include "run/rundir.h"
#include "tests/harness/power_run.h"
#include "tests/harness/sanitized.h"
#include "tests/harness/scratch.h"

enum { LIVES = 24 };

/* ---- the program's own calls, noted ---------------------------------------------------------------------------- */

static enum { PLAIN, NOTED, UNSYNCED } mode;        /* fsync waits in none: nobody cuts our power */
static unsigned changes_left;       /* 0: this process lives on */

static void changed(void)
{
    if (changes_left && !--changes_left)
        _exit(0);               /* as by kill -9, everything open */
}

static int note_open(const char *path, int flags, mode_t bits)
{
    bool new = mode == NOTED && (flags & O_CREAT) && access(path, F_OK) < 0;
    int fd = (int)syscall(SYS_openat, AT_FDCWD, path, flags, bits);

    if (fd >= 0 && mode == NOTED)
        power_opened(fd, path, flags, new);
    if (new && fd >= 0)
        changed();
    return fd;
}

#define OPEN_LIKE(name)                                                      \
    int name(const char *path, int flags, ...)                               \
    {                                                                        \
        mode_t bits = 0;                                                     \
                                                                             \
        if (flags & O_CREAT) {                                               \
            va_list args;                                                    \
                                                                             \
            va_start(args, flags);                                           \
            bits = va_arg(args, mode_t);                                     \
            va_end(args);                                                    \
        }                                                                    \
        return note_open(path, flags, bits);                                 \
    }
OPEN_LIKE(open)
OPEN_LIKE(open64)

int openat(int dir, const char *name, int flags, ...)       /* read only: directory_sync's */
{
    char path[PATH_MAX] = "", link[32];
    ssize_t n;

    snprintf(link, sizeof link, "/proc/self/fd/%d", dir);
    n = dir == AT_FDCWD || name[0] == '/' ? 0 : readlink(link, path, sizeof path - 1);
    snprintf(path + MAX(n, 0), sizeof path - (size_t)MAX(n, 0), "%s%s", n > 0 ? "/" : "", name);
    return note_open(path, flags, 0644);
}

int close(int fd)
{
    power_closed(fd);
    return (int)syscall(SYS_close, fd);
}

ssize_t write(int fd, const void *bytes, size_t n)
{
    off_t at = mode == NOTED ? lseek(fd, 0, SEEK_CUR) : 0;
    ssize_t put = syscall(SYS_write, fd, bytes, n);

    if (mode == NOTED && put > 0)
        power_wrote(fd, bytes, (size_t)put, (uint64_t)at), changed();
    return put;
}

static ssize_t note_pwrite(int fd, const void *bytes, size_t n, off_t offset)
{
    ssize_t put = syscall(SYS_pwrite64, fd, bytes, n, offset);

    if (mode == NOTED && put > 0)
        power_wrote(fd, bytes, (size_t)put, (uint64_t)offset), changed();
    return put;
}
ssize_t pwrite(int fd, const void *bytes, size_t n, off_t offset) { return note_pwrite(fd, bytes, n, offset); }
ssize_t pwrite64(int fd, const void *bytes, size_t n, off_t offset) { return note_pwrite(fd, bytes, n, offset); }

static int note_ftruncate(int fd, off_t size)
{
    int r = (int)syscall(SYS_ftruncate, fd, size);

    if (r == 0 && mode == NOTED)
        power_truncated(fd, (uint64_t)size), changed();
    return r;
}
int ftruncate(int fd, off_t size) { return note_ftruncate(fd, size); }
int ftruncate64(int fd, off_t size) { return note_ftruncate(fd, size); }

static int note_sync(int fd)
{
    if (mode == NOTED)
        power_synced(fd), changed();
    return 0;
}
int fsync(int fd) { return note_sync(fd); }
int fdatasync(int fd) { return note_sync(fd); }

static int note_rename(const char *from, const char *to, unsigned flags)
{
    int r = (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, flags);

    if (r == 0 && mode == NOTED)
        power_renamed(from, to), changed();
    return r;
}
int rename(const char *from, const char *to) { return note_rename(from, to, 0); }
int renameat2(int a, const char *from, int b, const char *to, unsigned flags) { return (void)a, (void)b,
                                                                                note_rename(from, to, flags); }

static int note_unlink(const char *path, int flags)
{
    int r = (int)syscall(SYS_unlinkat, AT_FDCWD, path, flags);

    if (r == 0 && mode == NOTED)
        power_unlinked(path), changed();
    return r;
}
int unlink(const char *path) { return note_unlink(path, 0); }
int rmdir(const char *path) { return note_unlink(path, AT_REMOVEDIR); }
int remove(const char *path)
{
    int r = note_unlink(path, 0);

    return r < 0 && errno == EISDIR ? rmdir(path) : r;
}

int mkdir(const char *path, mode_t bits)
{
    int r = (int)syscall(SYS_mkdirat, AT_FDCWD, path, bits);

    if (r == 0 && mode == NOTED)
        power_made(path), changed();
    return r;
}

ssize_t copy_file_range(int in, off_t *in_at, int out, off_t *out_at, size_t n, unsigned flags)
{
    (void)in, (void)in_at, (void)out, (void)out_at, (void)n, (void)flags;
    errno = EXDEV;          /* by write, then */
    return -1;
}

/* In a process of its own, which may end anywhere; false: something was wrong in it. */
static bool live_apart(const char *dir, unsigned changes)
{
    int status;
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (pid == 0) {
        changes_left = changes;
        power_live(dir);
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

/* ---- the judge -------------------------------------------------------------------------------------------------- */

static void check_ledger(const char *dir, size_t at)
{
    struct ledger *ledger = power_enter(dir);
    uint8_t state[SHA256_SIZE];
    struct error error = {0};
    size_t least = 0, k;
    bool any = false;

    for (size_t i = 0; i < power_told->n; i++)
        if (power_told->promises[i].kind == PROMISE_LEDGER && power_told->promises[i].at <= at) {
            least = power_told->promises[i].value;
            any = true;
        }
    power_state_of(ledger, state);
    ledger_close(ledger);
    if (!any) {      /* nothing was promised: empty, or the first commit's */
        struct sha256 s;
        uint8_t empty[SHA256_SIZE];

        sha256_init(&s);
        sha256_end(&s, empty);
        if (!memcmp(state, empty, SHA256_SIZE))
            return;
    }
    for (k = least; k <= least + 1 && k < power_told->n_states; k++)
        if (!memcmp(state, power_told->states[k], SHA256_SIZE))
            return;
    power_die(__FILE__, "the ledger is not what one of its last two commits left", __LINE__, &error);
}

static void check_journal(const char *dir, size_t at)
{
    uint8_t meta[POWER_META], frames[POWER_FRAMES];
    uint64_t first = 0;
    struct journal *journal;
    struct error error = {0}, notice = {0};
    char path[RUN_PATH];

    MUST(rundir_path(dir, "journal", path, &error) == 0);
    MUST(journal_open(path, POWER_RUN, JOURNAL_WRITE, &journal, &notice, &error) == 0);
    for (size_t i = 0; i < power_told->n; i++)
        if (power_told->promises[i].kind == PROMISE_DROPPED && power_told->promises[i].at <= at)
            first = power_told->promises[i].value;
    for (size_t i = 0; i < power_told->n; i++) {
        const struct promise *p = &power_told->promises[i];
        _cleanup_free_ uint8_t *got = NULL, *pictures = NULL;
        size_t n, n_frames;

        if (p->kind != PROMISE_EPISODE || p->at > at || (p->value - 1) / POWER_EPISODES < first)
            continue;
        MUST(journal_load(journal, p->value, &got, &n, &pictures, &n_frames, &error) == 0);
        power_contents(p->value, meta, frames);
        MUST(n == POWER_META && n_frames == POWER_FRAMES && !memcmp(got, meta, n) && !memcmp(pictures, frames, n_frames));
    }
    journal_close(journal);
}

static void check_versions(const char *dir, size_t at)
{
    _cleanup_free_ uint64_t *numbers = NULL;
    struct error error = {0};
    size_t n;

    MUST(version_list(dir, KIND_POLICY, &numbers, &n) == 0);
    for (size_t i = 0; i < n; i++) {
        struct manifest m = {0};
        char path[VERSION_PATH];

        MUST(version_path(dir, KIND_POLICY, numbers[i], path) == 0);
        MUST(numbers[i] == i && manifest_read(path, &m, &error) == 0);
        if (i + 2 >= n)             /* weights of older ones may be gone */
            MUST(manifest_verify(path, &m, NULL, &error) == 0);
        for (size_t k = 0; k < power_told->n; k++)
            if (power_told->promises[k].kind == PROMISE_VERSION && power_told->promises[k].value == i)
                MUST(!memcmp(power_told->promises[k].digest, m.digest, SHA256_SIZE));
        manifest_release(&m);
    }
    for (size_t k = 0; k < power_told->n; k++)
        if (power_told->promises[k].kind == PROMISE_VERSION && power_told->promises[k].at <= at)
            MUST(power_told->promises[k].value < n);
}

static void check_history(const char *dir, bool complete)
{
    _cleanup_(strbuf_release) struct strbuf out = STRBUF_INIT;
    struct history_result result;
    struct history history = {0};
    struct error error = {0};

    MUST(history_load(dir, &history, &error) == 0);
    history.complete = complete;
    MUST(history_check(&history, &out, &result) == 0);
    if (result.violations || (complete && result.trained != POWER_ITERATIONS * POWER_EPISODES))
        power_die(__FILE__, out.text ? out.text : "not all are trained", __LINE__, NULL);
    history_release(&history);
}

static bool judge(const char *dir, size_t at, bool resume)
{
    int status;
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (pid == 0) {
        mode = UNSYNCED;
        power_resuming = true;
        check_ledger(dir, at);
        check_journal(dir, at);
        check_versions(dir, at);
        check_history(dir, false);
        if (resume) {
            power_live(dir);
            check_history(dir, true);
        }
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static size_t number_from(const char *name, size_t otherwise)
{
    const char *text = getenv(name);

    return text ? strtoull(text, NULL, 10) : otherwise;
}

static char root[SCRATCH_PATH];

/* Lives that end at some change to the disk, the last one goes to the end. */
static void record(uint64_t seed)
{
    struct philox p = philox_at(seed, PHILOX_TEST, 0, 0, 0);
    char dir[96];

    if (!power_told)
        power_told = mmap(NULL, sizeof *power_told, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(power_told != MAP_FAILED);
    power_told->n = power_told->n_states = 0;
    snprintf(dir, sizeof dir, "%s/run", root);
    assert_int_equal(mkdir(dir, 0755), 0);
    power_begin(dir);
    mode = NOTED;
    for (int i = 0; i < LIVES; i++)
        assert_true(live_apart(dir, 5 + philox_below(&p, 60)));
    assert_true(live_apart(dir, 0));
    mode = PLAIN;
}

static int same_file(const char *a, const char *b)
{
    char command[256];

    snprintf(command, sizeof command, "diff -r %s %s >&2", a, b);
    return system(command);
}

/* A disk that keeps nothing that was not synced looks another only after a sync, and a torn write only after a write. */
static bool tells(size_t at, enum power_variant variant)
{
    enum power_change last;

    if (at == 0)
        return true;
    last = power_change(at);
    return variant == POWER_RANDOM || (variant == POWER_NOTHING && last == POWER_SYNC) ||
        (variant == POWER_TORN && last == POWER_WRITE) ||
           (variant == POWER_ALL && last == POWER_NAME);
}

/* -> how many of the disks that one cut may leave were wrong. */
static size_t cut_at(size_t at, const char *into, size_t seeds, size_t resumes, size_t *tried)
{
    size_t wrong = 0;

    for (size_t v = 0; v < POWER_RANDOM + seeds; v++) {
        enum power_variant variant = (enum power_variant)MIN(v, (size_t)POWER_RANDOM);

        if (!tells(at, variant))
            continue;
        assert_int_equal(mkdir(into, 0755), 0);
        assert_int_equal(power_rebuild(at, variant, v, into), 0);
        if (!judge(into, at, *tried % resumes == 0)) {
            print_error("after %zu changes, variant %d, seed %zu\n", at, variant, v);
            wrong++;
        }
        assert_int_equal(remove_tree(into), 0);
        ++*tried;
    }
    return wrong;
}

static void test_power_is_cut_everywhere(void **state)
{
    size_t seeds = number_from("POWER_SEEDS", 1), resumes = number_from("POWER_RESUMES", 23), runs = number_from("POWER_RUNS", 1);
    size_t changes = 0, tried = 0, wrong = 0;
    char into[96], run[96];

    (void)state;
    scratch_new_in_memory(root);
    snprintf(run, sizeof run, "%s/run", root);
    snprintf(into, sizeof into, "%s/left", root);
    for (size_t i = 0; i < runs && !wrong; i++) {
        record(number_from("POWER_SEED", 1) + i);
        /* nothing was missed: the disk with everything on it is the run's directory */
        assert_int_equal(mkdir(into, 0755), 0);
        assert_int_equal(power_rebuild(power_changes(), POWER_ALL, 0, into), 0);
        assert_int_equal(same_file(run, into), 0);
        assert_int_equal(remove_tree(into), 0);
        for (size_t at = 0; at <= power_changes() && wrong < 5; at += SANITIZED ? 7 : 1)
            wrong += cut_at(at, into, seeds, resumes, &tried);
        changes += power_changes();
        assert_int_equal(remove_tree(run), 0);
        if (runs > 1)
            print_message("%zu of %zu runs: %zu changes to the disk, %zu power cuts, %zu wrong\n", i + 1, runs, changes, tried,
                          wrong);
    }
    assert_int_equal(remove_tree(root), 0);
    print_message("%zu runs, %zu changes to the disk, %zu power cuts, %zu wrong\n", runs, changes, tried, wrong);
    assert_int_equal(wrong, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_power_is_cut_everywhere)};

    return cmocka_run_group_tests_name("power loss", tests, NULL, NULL);
}
