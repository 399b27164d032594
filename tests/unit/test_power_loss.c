/* Power is cut after every write, fsync, rename and other change that ledger, journal and versions make, and the disk keeps only what POSIX
 * promises (tests/harness/power_disk.h). What is opened then must be whole, must have everything that was acknowledged, and must go on to
 * the end with every episode trained once.
 *
 * The run here is one of both daemons in one process, in the order of docs/architecture.md, with the product's own ledger, journal and
 * versions; its lives end as by kill -9 now and then, so that what one process left unsynced is what the next one finds.
 * POWER_RUNS=30 POWER_SEEDS=5 POWER_RESUMES=1 is the long form: so many runs, random disks for each place, and each goes on to the end. */
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
#include "nn/safetensors.h"
#include "run/history.h"
#include "run/journal.h"
#include "run/manifest.h"
#include "run/rundir.h"
#include "tests/harness/power_disk.h"

enum { STAGE = 4, ITERATIONS = 4, EPISODES = 4, META = 40, FRAMES = 900, KEEP = 2, PROMISES = 512, STATES = 256, RUN = 77, LIVES = 24 };

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
int renameat2(int a, const char *from, int b, const char *to, unsigned flags) { return (void)a, (void)b, note_rename(from, to, flags); }

static int note_unlink(const char *path, int flags)
{
    int r = (int)syscall(SYS_unlinkat, AT_FDCWD, path, flags);

    if (r == 0 && mode == NOTED)
        power_unlinked(path), changed();
    return r;
}
int unlink(const char *path) { return note_unlink(path, 0); }
int rmdir(const char *path) { return note_unlink(path, AT_REMOVEDIR); }
int remove(const char *path) { return note_unlink(path, 0) == 0 || errno != EISDIR ? (errno == 0 ? 0 : access(path, F_OK) < 0 ? 0 : -1) : rmdir(path); }

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

/* ---- what was promised ----------------------------------------------------------------------------------------- */

enum promise_kind { PROMISE_LEDGER, PROMISE_EPISODE, PROMISE_VERSION, PROMISE_DROPPED };
struct promise { enum promise_kind kind; size_t at; uint64_t value; uint8_t digest[SHA256_SIZE]; };
static struct told {
    struct promise promises[PROMISES];
    size_t n;
    uint8_t states[STATES][SHA256_SIZE];        /* of the ledger, in the order of its commits */
    size_t n_states;
} *told;
static bool resuming;       /* on a disk that a power cut left: nothing is promised any more */

static _Noreturn void die(const char *what, int line, const struct error *error)
{
    fprintf(stderr, "test_power_loss.c:%d: %s: %s\n", line, what, error ? error->text : "");
    _exit(1);
}
#define MUST(x) do { if (!(x)) die(#x, __LINE__, &error); } while (0)

static void promise(enum promise_kind kind, uint64_t value, const uint8_t *digest)
{
    struct promise *p = &told->promises[told->n];

    if (resuming)
        return;
    if (told->n++ == PROMISES)
        die("too many promises", __LINE__, NULL);
    *p = (struct promise) {.kind = kind, .at = power_changes(), .value = value};
    if (digest)
        memcpy(p->digest, digest, SHA256_SIZE);
}

/* ---- the run --------------------------------------------------------------------------------------------------- */

static uint64_t episode_of(uint32_t iteration, uint32_t i) { return 1 + (uint64_t)iteration * EPISODES + i; }

static void contents(uint64_t episode, uint8_t meta[META], uint8_t frames[FRAMES])
{
    struct philox p = philox_at(3, PHILOX_TEST, episode, 0, 0);

    /* Trajectory {episode, policy_version}: what the checker reads of it, and bytes in a field it skips */
    memset(meta, 0, META);
    meta[0] = 2 << 3, meta[1] = (uint8_t)episode;
    meta[2] = 8 << 3, meta[3] = (uint8_t)((episode - 1) / EPISODES);
    meta[4] = 11 << 3 | 2, meta[5] = META - 6;
    for (int i = 6; i < META; i++)
        meta[i] = (uint8_t)('a' + philox_below(&p, 26));
    for (int i = 0; i < FRAMES; i++)
        frames[i] = (uint8_t)philox_u32(&p);
}

/* Everything in the ledger but its epoch and the lines that starts write. */
static void state_of(struct ledger *ledger, uint8_t ret[SHA256_SIZE])
{
    _cleanup_(strbuf_release) struct strbuf out = STRBUF_INIT;
    _cleanup_free_ struct ledger_episode *episodes = NULL;
    _cleanup_free_ struct ledger_iteration *iterations = NULL;
    _cleanup_free_ struct ledger_event *events = NULL;
    struct ledger_version *versions = NULL;
    struct error error = {0};
    size_t n;

    MUST(ledger_iterations(ledger, &iterations, &n) == 0);
    for (size_t i = 0; i < n; i++)
        strbuf_addf(&out, "i %u %d\n", iterations[i].iteration, iterations[i].state);
    MUST(ledger_episodes(ledger, LEDGER_ALL, LEDGER_ALL, &episodes, &n) == 0);
    for (size_t i = 0; i < n; i++)
        strbuf_addf(&out, "e %" PRIu64 " %d %d\n", episodes[i].episode, episodes[i].state, episodes[i].digest[0]);
    MUST(ledger_versions(ledger, &versions, &n) == 0);
    for (size_t i = 0; i < n; i++)
        strbuf_addf(&out, "v %" PRIu64 " %d\n", versions[i].number, versions[i].digest[0]);
    ledger_versions_free(versions, n);
    MUST(ledger_events(ledger, 0, 10000, &events, &n) == 0);
    for (size_t i = 0; i < n; i++)
        if (strcmp(events[i].kind, "start"))
            strbuf_addf(&out, "%s %" PRIu64 " %s\n", events[i].kind, events[i].episode, events[i].text);
    sha256_of(out.text, out.length, ret);
}

static void commit(struct ledger *ledger)
{
    struct error error = {0};

    /* what is about to be durable may be seen from now on, and must be once the commit has returned */
    if (!resuming) {
        MUST(told->n_states < STATES);
        state_of(ledger, told->states[told->n_states++]);
    }
    MUST(ledger_commit(ledger) == 0);
    promise(PROMISE_LEDGER, told->n_states - 1, NULL);
}

static void open_iteration(struct ledger *ledger, uint32_t iteration)
{
    struct ledger_iteration row = {.stage = STAGE, .iteration = iteration, .name = "rl", .purpose = EPISODE_TRAIN, .state = PROGRESS_OPEN,
                                   .policy_version = iteration};
    struct error error = {0};

    row.first_episode = episode_of(iteration, 0);
    row.last_episode = episode_of(iteration, EPISODES - 1);
    MUST(ledger_begin(ledger) == 0);
    MUST(ledger_put_iteration(ledger, &row) == 0);
    for (uint32_t i = 0; i < EPISODES; i++) {
        struct ledger_episode e = {.episode = episode_of(iteration, i), .stage = STAGE, .iteration = iteration, .purpose = EPISODE_TRAIN,
                                   .policy_version = iteration, .task = "pick"};

        MUST(ledger_add_episode(ledger, &e) == 0);
    }
    commit(ledger);
}

/* Two records a sync. One that was there when this life began is acknowledged as it stands: a repeated delivery is a DUPLICATE. */
static void deliver(struct journal *journal, uint32_t iteration)
{
    uint8_t meta[META], frames[FRAMES], digest[SHA256_SIZE];
    struct journal_entry entry;
    struct error error = {0};

    MUST(journal_segment(journal, STAGE, iteration, &error) == 0);
    for (uint32_t i = 0; i < EPISODES; i++) {
        uint64_t episode = episode_of(iteration, i);

        contents(episode, meta, frames);
        if (journal_find(journal, episode, &entry) < 0)
            MUST(journal_append(journal, episode, meta, META, frames, FRAMES, digest, &error) == 0);
        if (i % 2 == 0)
            continue;
        MUST(journal_sync(journal, &error) == 0);
        for (uint32_t k = i - 1; k <= i; k++)
            promise(PROMISE_EPISODE, episode_of(iteration, k), NULL);
    }
}

static void put_journaled(struct ledger *ledger, struct journal *journal, uint32_t iteration)
{
    _cleanup_free_ struct ledger_episode *rows = NULL;
    struct journal_entry entry;
    struct error error = {0};
    size_t n;

    MUST(ledger_episodes(ledger, STAGE, iteration, &rows, &n) == 0 && n == EPISODES);
    MUST(ledger_begin(ledger) == 0);
    for (size_t i = 0; i < n; i++) {
        MUST(journal_find(journal, rows[i].episode, &entry) == 0);
        if (rows[i].state != EPISODE_OPEN)
            continue;
        memcpy(rows[i].digest, entry.digest, SHA256_SIZE);
        MUST(ledger_episode_journaled(ledger, &rows[i]) == 0);
    }
    commit(ledger);
}

static void write_version(const char *dir, struct manifest *m, struct journal *journal)
{
    const float weights[] = {(float)m->number, 1, 2, 3};
    const struct st_write tensor = {.name = "w", .dtype = DTYPE_F32, .ndim = 1, .dim = {4}, .raw = weights};
    char temporary[VERSION_PATH], path[VERSION_PATH + 32];
    struct journal_entry entry;
    struct error error = {0};

    MUST(version_begin(dir, KIND_POLICY, m->number, temporary, &error) == 0);
    snprintf(path, sizeof path, "%s/model.safetensors", temporary);
    MUST(safetensors_write(path, &tensor, 1, &error) == 0);
    snprintf(path, sizeof path, "%s/config.json", temporary);
    MUST(file_write(path, "{}\n", 3) == 0);
    m->consumed = calloc(EPISODES, sizeof *m->consumed);
    for (uint32_t i = 0; m->number && i < EPISODES; i++) {
        struct manifest_episode *e = &m->consumed[m->n_consumed++];

        e->episode = episode_of((uint32_t)m->number - 1, i);
        MUST(journal_find(journal, e->episode, &entry) == 0);
        memcpy(e->digest, entry.digest, SHA256_SIZE);
    }
    MUST(version_commit(dir, temporary, m, &error) == 0);
}

/* A version that is there is the winner, whoever made it. */
static void train(const char *dir, struct journal *journal, uint64_t number, uint8_t ret_digest[SHA256_SIZE])
{
    struct manifest m = {.run = RUN, .kind = KIND_POLICY, .number = number, .parent = number ? number - 1 : 0, .stage = STAGE};
    char final[VERSION_PATH];
    struct error error = {0};

    MUST(version_path(dir, KIND_POLICY, number, final) == 0);
    if (access(final, F_OK) == 0)
        MUST(manifest_read(final, &m, &error) == 0);
    else
        write_version(dir, &m, journal);
    memcpy(ret_digest, m.digest, SHA256_SIZE);
    promise(PROMISE_VERSION, number, m.digest);
    manifest_release(&m);
}

static void put_version(struct ledger *ledger, uint64_t number, const uint8_t digest[SHA256_SIZE])
{
    struct ledger_version v = {.kind = KIND_POLICY, .number = number, .parent = number ? number - 1 : 0, .stage = STAGE, .gate_passed = true};
    struct ledger_iteration row = {.stage = STAGE, .iteration = (uint32_t)number - 1, .name = "rl", .purpose = EPISODE_TRAIN, .state = PROGRESS_DONE,
                                   .policy_version = number - 1};
    struct error error = {0};

    memcpy(v.digest, digest, SHA256_SIZE);
    snprintf(v.dir, sizeof v.dir, "policies/v%06" PRIu64, number);
    MUST(ledger_begin(ledger) == 0);
    MUST(ledger_add_version(ledger, &v) == 0);
    for (uint32_t i = 0; number && i < EPISODES; i++)
        MUST(ledger_episode_ended(ledger, episode_of((uint32_t)number - 1, i), EPISODE_TRAINED, "") == 0);
    row.first_episode = number ? episode_of((uint32_t)number - 1, 0) : 0;
    row.last_episode = row.first_episode + EPISODES - 1;
    if (number)
        MUST(ledger_put_iteration(ledger, &row) == 0);
    commit(ledger);
}

static void close_iteration(const char *dir, struct ledger *ledger, struct journal *journal, uint32_t iteration)
{
    struct ledger_iteration row = {.stage = STAGE, .iteration = iteration, .name = "rl", .purpose = EPISODE_TRAIN, .state = PROGRESS_PLANNED,
                                   .policy_version = iteration, .first_episode = episode_of(iteration, 0)};
    uint8_t digest[SHA256_SIZE];
    struct error error = {0};

    put_journaled(ledger, journal, iteration);
    MUST(journal_seal(journal, STAGE, iteration, &error) == 0);
    row.last_episode = episode_of(iteration, EPISODES - 1);
    MUST(ledger_begin(ledger) == 0);
    MUST(ledger_put_iteration(ledger, &row) == 0);
    commit(ledger);
    train(dir, journal, iteration + 1, digest);
    put_version(ledger, iteration + 1, digest);
    if (iteration >= KEEP)
        promise(PROMISE_DROPPED, iteration - KEEP + 1, NULL);
    MUST(journal_retain(journal, STAGE, iteration >= KEEP ? iteration - KEEP + 1 : 0) == 0);
    MUST(version_retain(dir, KIND_POLICY, NULL, 0) == 0);
}

static bool has_version(struct ledger *ledger, uint64_t number)
{
    struct ledger_version *versions = NULL;
    struct error error = {0};
    bool found = false;
    size_t n;

    MUST(ledger_versions(ledger, &versions, &n) == 0);
    for (size_t i = 0; i < n; i++)
        found |= versions[i].number == number;
    ledger_versions_free(versions, n);
    return found;
}

static struct ledger *enter(const char *dir)
{
    struct ledger_run run = {.id = RUN, .seed = 1};
    struct ledger *ledger;
    struct error error = {0};
    char path[RUN_PATH];

    MUST(rundir_prepare(dir, &error) == 0);
    MUST(rundir_path(dir, "ledger.sqlite", path, &error) == 0);
    MUST(ledger_open(path, &run, &ledger, &error) == 0);
    return ledger;
}

/* A life of both daemons: on with whatever is there, to the end or until it is killed. */
static void live(const char *dir, unsigned changes)
{
    _cleanup_free_ struct ledger_iteration *rows = NULL;
    struct journal *journal;
    struct ledger *ledger;
    struct error error = {0}, notice = {0};
    uint8_t digest[SHA256_SIZE];
    char path[RUN_PATH];
    size_t n;

    changes_left = changes;
    ledger = enter(dir);
    MUST(rundir_path(dir, "journal", path, &error) == 0);
    MUST(version_sweep(dir) == 0);
    MUST(journal_open(path, RUN, JOURNAL_WRITE, &journal, &notice, &error) == 0);
    train(dir, journal, 0, digest);
    if (!has_version(ledger, 0))
        put_version(ledger, 0, digest);
    MUST(ledger_iterations(ledger, &rows, &n) == 0);
    for (uint32_t i = 0; i < ITERATIONS; i++) {
        if (i >= n)
            open_iteration(ledger, i);
        if (i < n && rows[i].state == PROGRESS_DONE)
            continue;
        if (i >= n || rows[i].state == PROGRESS_OPEN) {
            struct journal_entry entry;

            if (journal_find(journal, episode_of(i, EPISODES - 1), &entry) < 0 || !entry.sealed)
                deliver(journal, i);
        }
        close_iteration(dir, ledger, journal, i);
    }
    journal_close(journal);
    ledger_close(ledger);
}

/* In a process of its own, which may end anywhere; false: something was wrong in it. */
static bool live_apart(const char *dir, unsigned changes)
{
    int status;
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (pid == 0) {
        live(dir, changes);
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

/* ---- the judge -------------------------------------------------------------------------------------------------- */

static void check_ledger(const char *dir, size_t at)
{
    struct ledger *ledger = enter(dir);
    uint8_t state[SHA256_SIZE];
    struct error error = {0};
    size_t least = 0, k;
    bool any = false;

    for (size_t i = 0; i < told->n; i++)
        if (told->promises[i].kind == PROMISE_LEDGER && told->promises[i].at <= at) {
            least = told->promises[i].value;
            any = true;
        }
    state_of(ledger, state);
    ledger_close(ledger);
    if (!any && !memcmp(state, told->states[told->n_states - 1], 0)) {      /* nothing was promised: empty, or the first commit's */
        struct sha256 s;
        uint8_t empty[SHA256_SIZE];

        sha256_init(&s);
        sha256_end(&s, empty);
        if (!memcmp(state, empty, SHA256_SIZE))
            return;
    }
    for (k = least; k <= least + 1 && k < told->n_states; k++)
        if (!memcmp(state, told->states[k], SHA256_SIZE))
            return;
    die("the ledger is not what one of its last two commits left", __LINE__, &error);
}

static void check_journal(const char *dir, size_t at)
{
    uint8_t meta[META], frames[FRAMES];
    uint64_t first = 0;
    struct journal *journal;
    struct error error = {0}, notice = {0};
    char path[RUN_PATH];

    MUST(rundir_path(dir, "journal", path, &error) == 0);
    MUST(journal_open(path, RUN, JOURNAL_WRITE, &journal, &notice, &error) == 0);
    for (size_t i = 0; i < told->n; i++)
        if (told->promises[i].kind == PROMISE_DROPPED && told->promises[i].at <= at)
            first = told->promises[i].value;
    for (size_t i = 0; i < told->n; i++) {
        const struct promise *p = &told->promises[i];
        _cleanup_free_ uint8_t *got = NULL, *pictures = NULL;
        size_t n, n_frames;

        if (p->kind != PROMISE_EPISODE || p->at > at || (p->value - 1) / EPISODES < first)
            continue;
        MUST(journal_load(journal, p->value, &got, &n, &pictures, &n_frames, &error) == 0);
        contents(p->value, meta, frames);
        MUST(n == META && n_frames == FRAMES && !memcmp(got, meta, n) && !memcmp(pictures, frames, n_frames));
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
        for (size_t k = 0; k < told->n; k++)
            if (told->promises[k].kind == PROMISE_VERSION && told->promises[k].value == i)
                MUST(!memcmp(told->promises[k].digest, m.digest, SHA256_SIZE));
        manifest_release(&m);
    }
    for (size_t k = 0; k < told->n; k++)
        if (told->promises[k].kind == PROMISE_VERSION && told->promises[k].at <= at)
            MUST(told->promises[k].value < n);
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
    if (result.violations || (complete && result.trained != ITERATIONS * EPISODES))
        die(out.text ? out.text : "not all are trained", __LINE__, NULL);
    history_release(&history);
}

static bool judge(const char *dir, size_t at, bool resume)
{
    int status;
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (pid == 0) {
        mode = UNSYNCED;
        resuming = true;
        check_ledger(dir, at);
        check_journal(dir, at);
        check_versions(dir, at);
        check_history(dir, false);
        if (resume) {
            live(dir, 0);
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

static char root[64];

/* Lives that end at some change to the disk, the last one goes to the end. */
static void record(uint64_t seed)
{
    struct philox p = philox_at(seed, PHILOX_TEST, 0, 0, 0);
    char dir[96];

    if (!told)
        told = mmap(NULL, sizeof *told, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(told != MAP_FAILED);
    told->n = told->n_states = 0;
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
    return variant == POWER_RANDOM || (variant == POWER_NOTHING && last == POWER_SYNC) || (variant == POWER_TORN && last == POWER_WRITE) ||
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
    snprintf(root, sizeof root, "%s/gantry.test_power.XXXXXX", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    assert_non_null(mkdtemp(root));
    snprintf(run, sizeof run, "%s/run", root);
    snprintf(into, sizeof into, "%s/left", root);
    for (size_t i = 0; i < runs && !wrong; i++) {
        record(number_from("POWER_SEED", 1) + i);
        /* nothing was missed: the disk with everything on it is the run's directory */
        assert_int_equal(mkdir(into, 0755), 0);
        assert_int_equal(power_rebuild(power_changes(), POWER_ALL, 0, into), 0);
        assert_int_equal(same_file(run, into), 0);
        assert_int_equal(remove_tree(into), 0);
        for (size_t at = 0; at <= power_changes() && wrong < 5; at++)
            wrong += cut_at(at, into, seeds, resumes, &tried);
        changes += power_changes();
        assert_int_equal(remove_tree(run), 0);
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
