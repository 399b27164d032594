#include "tests/harness/power_run.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/atomic_file.h"
#include "base/philox.h"
#include "nn/safetensors.h"
#include "run/journal.h"
#include "run/manifest.h"
#include "run/rundir.h"

enum { STAGE = 4, KEEP = 2 };

struct told *power_told;
bool power_resuming;

_Noreturn void power_die(const char *file, const char *what, int line, const struct error *error)
{
    fprintf(stderr, "%s:%d: %s: %s\n", file, line, what, error ? error->text : "");
    _exit(1);
}

static void promise(enum promise_kind kind, uint64_t value, const uint8_t *digest)
{
    struct promise *p = &power_told->promises[power_told->n];

    if (power_resuming)
        return;
    if (power_told->n++ == POWER_PROMISES)
        power_die(__FILE__, "too many promises", __LINE__, NULL);
    *p = (struct promise) {.kind = kind, .at = power_changes(), .value = value};
    if (digest)
        memcpy(p->digest, digest, SHA256_SIZE);
}

static uint64_t episode_of(uint32_t iteration, uint32_t i) { return 1 + (uint64_t)iteration * POWER_EPISODES + i; }

void power_contents(uint64_t episode, uint8_t meta[POWER_META], uint8_t frames[POWER_FRAMES])
{
    struct philox p = philox_at(3, PHILOX_TEST, episode, 0, 0);

    /* Trajectory {episode, policy_version}: what the checker reads of it, and bytes in a field it skips */
    memset(meta, 0, POWER_META);
    meta[0] = 2 << 3, meta[1] = (uint8_t)episode;
    meta[2] = 8 << 3, meta[3] = (uint8_t)((episode - 1) / POWER_EPISODES);
    meta[4] = 11 << 3 | 2, meta[5] = POWER_META - 6;
    for (int i = 6; i < POWER_META; i++)
        meta[i] = (uint8_t)('a' + philox_below(&p, 26));
    for (int i = 0; i < POWER_FRAMES; i++)
        frames[i] = (uint8_t)philox_u32(&p);
}

void power_state_of(struct ledger *ledger, uint8_t ret[SHA256_SIZE])
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
    if (!power_resuming) {
        MUST(power_told->n_states < POWER_STATES);
        power_state_of(ledger, power_told->states[power_told->n_states++]);
    }
    MUST(ledger_commit(ledger) == 0);
    promise(PROMISE_LEDGER, power_told->n_states - 1, NULL);
}

static void open_iteration(struct ledger *ledger, uint32_t iteration)
{
    struct ledger_iteration row = {.stage = STAGE, .iteration = iteration, .name = "rl", .purpose = EPISODE_TRAIN,
                                   .state = PROGRESS_OPEN, .policy_version = iteration};
    struct error error = {0};

    row.first_episode = episode_of(iteration, 0);
    row.last_episode = episode_of(iteration, POWER_EPISODES - 1);
    MUST(ledger_begin(ledger) == 0);
    MUST(ledger_put_iteration(ledger, &row) == 0);
    for (uint32_t i = 0; i < POWER_EPISODES; i++) {
        struct ledger_episode e = {.episode = episode_of(iteration, i), .stage = STAGE, .iteration = iteration,
                                   .purpose = EPISODE_TRAIN, .policy_version = iteration, .task = "pick"};

        MUST(ledger_add_episode(ledger, &e) == 0);
    }
    commit(ledger);
}

/* Two records a sync. One that was there when this life began is acknowledged as it stands: a repeated delivery is a
 * DUPLICATE. */
static void deliver(struct journal *journal, uint32_t iteration)
{
    uint8_t meta[POWER_META], frames[POWER_FRAMES], digest[SHA256_SIZE];
    struct journal_entry entry;
    struct error error = {0};

    MUST(journal_segment(journal, STAGE, iteration, &error) == 0);
    for (uint32_t i = 0; i < POWER_EPISODES; i++) {
        uint64_t episode = episode_of(iteration, i);

        power_contents(episode, meta, frames);
        if (journal_find(journal, episode, &entry) < 0)
            MUST(journal_append(journal, episode, meta, POWER_META, frames, POWER_FRAMES, digest, &error) == 0);
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

    MUST(ledger_episodes(ledger, STAGE, iteration, &rows, &n) == 0 && n == POWER_EPISODES);
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
    m->consumed = calloc(POWER_EPISODES, sizeof *m->consumed);
    for (uint32_t i = 0; m->number && i < POWER_EPISODES; i++) {
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
    struct manifest m = {.run = POWER_RUN, .kind = KIND_POLICY, .number = number, .parent = number ? number - 1 : 0,
                         .stage = STAGE};
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
    struct ledger_version v = {.kind = KIND_POLICY, .number = number, .parent = number ? number - 1 : 0, .stage = STAGE,
                               .gate_passed = true};
    struct ledger_iteration row = {.stage = STAGE, .iteration = (uint32_t)number - 1, .name = "rl", .purpose = EPISODE_TRAIN,
                                   .state = PROGRESS_DONE, .policy_version = number - 1};
    struct error error = {0};

    memcpy(v.digest, digest, SHA256_SIZE);
    snprintf(v.dir, sizeof v.dir, "policies/v%06" PRIu64, number);
    MUST(ledger_begin(ledger) == 0);
    MUST(ledger_add_version(ledger, &v) == 0);
    for (uint32_t i = 0; number && i < POWER_EPISODES; i++)
        MUST(ledger_episode_ended(ledger, episode_of((uint32_t)number - 1, i), EPISODE_TRAINED, "") == 0);
    row.first_episode = number ? episode_of((uint32_t)number - 1, 0) : 0;
    row.last_episode = row.first_episode + POWER_EPISODES - 1;
    if (number)
        MUST(ledger_put_iteration(ledger, &row) == 0);
    commit(ledger);
}

static void close_iteration(const char *dir, struct ledger *ledger, struct journal *journal, uint32_t iteration)
{
    struct ledger_iteration row = {.stage = STAGE, .iteration = iteration, .name = "rl", .purpose = EPISODE_TRAIN,
                                   .state = PROGRESS_PLANNED,
                                   .policy_version = iteration, .first_episode = episode_of(iteration, 0)};
    uint8_t digest[SHA256_SIZE];
    struct error error = {0};

    put_journaled(ledger, journal, iteration);
    MUST(journal_seal(journal, STAGE, iteration, &error) == 0);
    row.last_episode = episode_of(iteration, POWER_EPISODES - 1);
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

struct ledger *power_enter(const char *dir)
{
    struct ledger_run run = {.id = POWER_RUN, .seed = 1};
    struct ledger *ledger;
    struct error error = {0};
    char path[RUN_PATH];

    MUST(rundir_prepare(dir, &error) == 0);
    MUST(rundir_path(dir, "ledger.sqlite", path, &error) == 0);
    MUST(ledger_open(path, &run, &ledger, &error) == 0);
    return ledger;
}

/* What an earlier life committed, and could not promise any more because it ended there, is durable now. */
static void promise_what_is_found(struct ledger *ledger)
{
    uint8_t state[SHA256_SIZE];

    power_state_of(ledger, state);
    for (size_t k = power_told->n_states; k-- > 0;)
        if (!memcmp(state, power_told->states[k], SHA256_SIZE)) {
            promise(PROMISE_LEDGER, k, NULL);
            return;
        }
}

void power_live(const char *dir)
{
    _cleanup_free_ struct ledger_iteration *rows = NULL;
    struct journal *journal;
    struct ledger *ledger;
    struct error error = {0}, notice = {0};
    uint8_t digest[SHA256_SIZE];
    char path[RUN_PATH];
    size_t n;

    ledger = power_enter(dir);
    promise_what_is_found(ledger);
    MUST(rundir_path(dir, "journal", path, &error) == 0);
    MUST(version_sweep(dir) == 0);
    MUST(journal_open(path, POWER_RUN, JOURNAL_WRITE, &journal, &notice, &error) == 0);
    train(dir, journal, 0, digest);
    if (!has_version(ledger, 0))
        put_version(ledger, 0, digest);
    MUST(ledger_iterations(ledger, &rows, &n) == 0);
    for (uint32_t i = 0; i < POWER_ITERATIONS; i++) {
        if (i >= n)
            open_iteration(ledger, i);
        if (i < n && rows[i].state == PROGRESS_DONE)
            continue;
        if (i >= n || rows[i].state == PROGRESS_OPEN) {
            struct journal_entry entry;

            if (journal_find(journal, episode_of(i, POWER_EPISODES - 1), &entry) < 0 || !entry.sealed)
                deliver(journal, i);
        }
        close_iteration(dir, ledger, journal, i);
    }
    journal_close(journal);
    ledger_close(ledger);
}
